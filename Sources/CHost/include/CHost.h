// What Swift can't reach on Linux: variadic system calls, C macros, and a few instructions. Nothing else belongs here.
#ifndef YADORI_CHOST_H
#define YADORI_CHOST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// ioctl is variadic, and Swift can't call variadic functions.
int chost_ioctl(int descriptor, unsigned long request, void *argument);

/// fcntl is variadic. `argument` is passed as a long.
int chost_fcntl(int descriptor, int command, long argument);

/// open is variadic.
int chost_open(const char *path, int flags, unsigned mode);

/// The open-file-description lock (F_OFD_SETLK) of a whole file. `exclusive` 1: for writing, 0: for reading.
/// Returns 0, or -1 with errno (EAGAIN or EACCES when somebody else holds it). F_OFD_SETLK needs _GNU_SOURCE.
int chost_lock_file(int descriptor, int exclusive);

/// fallocate needs _GNU_SOURCE. Gives the range's space back (FALLOC_FL_PUNCH_HOLE), or makes it read as zeroes and
/// keeps its space (FALLOC_FL_ZERO_RANGE); the file's size stays. Returns 0, or -1 with errno (EOPNOTSUPP).
int chost_punch_hole(int descriptor, int64_t offset, int64_t count);
int chost_zero_range(int descriptor, int64_t offset, int64_t count);

/// memfd_create needs _GNU_SOURCE. Returns a descriptor, or -1 with errno.
int chost_memory_file(const char *name);

/// futex has no wrapper in the C library. Sleeps while `*word == expected`, for at most `nanoseconds` (-1: for ever).
int chost_futex_wait(uint32_t *word, uint32_t expected, int64_t nanoseconds);

/// Wakes at most `count` sleepers of `word`.
int chost_futex_wake(uint32_t *word, int count);

/// eventfd, non-blocking; <sys/eventfd.h> is in no module map. Returns a descriptor, or -1 with errno.
int chost_event_descriptor(void);

/// A TUN/TAP descriptor for `name` (TUNSETIFF with IFF_TAP | IFF_NO_PI); struct ifreq is a union of macros.
int chost_open_tap(const char *name);

/// Whether the processor has the instructions that generated code uses: BMI1, BMI2, LZCNT, POPCNT, FMA, PCLMULQDQ.
/// 0 or 1.
int chost_has_x86_64_v3(void);

// The terminal (Terminal.c). In C because what a signal handler runs must be async-signal-safe (POSIX.1-2017, 2.4.3),
// which no Swift code promises to be. There is one: a process has one terminal.

/// Puts the terminal into raw mode and arranges that it is given back whenever the process ends, by exit() or by a
/// signal, or is stopped; and taken again when it continues. Returns 0, or -1 with errno (EBUSY: one is raw already).
int chost_terminal_enter_raw(int descriptor);

/// Gives the terminal back as it was, and the signals. Does nothing when none is raw.
void chost_terminal_leave_raw(void);

/// A descriptor that becomes readable (8 bytes, as eventfd has it) whenever the window size may have changed; the same
/// one at each call. Returns -1 with errno when there can't be one.
int chost_terminal_resize_descriptor(void);

/// TIOCGWINSZ. Returns 0, or -1 when there is no terminal or it has no size.
int chost_terminal_size(int descriptor, int *columns, int *rows);

#endif
