// Counts what a thread allocates, retains and releases. In C because its functions stand in for the C library's and
// the Swift runtime's.
#ifndef YADORI_COUNTING_SUPPORT_H
#define YADORI_COUNTING_SUPPORT_H

#include <stdint.h>

struct counting_result {
    /// Calls of malloc and its relatives.
    uint64_t allocations;
    uint64_t retains;
    uint64_t releases;
    /// The return addresses of the first of them, from the innermost call outwards; 0 behind the last.
    uintptr_t stack[24];
};

/// Whether the Swift runtime's functions can be counted here. 0 or 1.
int counting_is_possible(void);

/// Begins to count on the calling thread.
void counting_begin(void);

/// Ends it.
struct counting_result counting_end(void);

/// The function that an address is in; "?" where that isn't known.
const char *counting_name(uintptr_t address);

#endif
