// Counts what a thread allocates, retains and releases. In C because it stands in for malloc, and because the Swift
// runtime calls it in its own calling convention.
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

/// Whether the Swift runtime lets its functions be counted. 0 or 1.
int counting_is_possible(void);

/// Begins to count on the calling thread.
void counting_begin(void);

/// Ends it.
struct counting_result counting_end(void);

/// The function that an address is in; "?" where that isn't known.
const char *counting_name(uintptr_t address);

#endif
