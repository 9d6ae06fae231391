// What Swift can't reach on Linux: variadic system calls, C macros, and a few instructions. Nothing else belongs here.
#ifndef YADORI_CHOST_H
#define YADORI_CHOST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
// Extended attributes are in no module map.
#include <sys/xattr.h>

/// ioctl is variadic, and Swift can't call variadic functions.
int chost_ioctl(int descriptor, unsigned long request, void *argument);

/// fcntl is variadic. `argument` is passed as a long.
int chost_fcntl(int descriptor, int command, long argument);

/// open is variadic.
int chost_open(const char *path, int flags, unsigned mode);

/// The open-file-description lock (F_OFD_SETLK) of a whole file. `exclusive` 1: for writing, 0: for reading.
/// Returns 0, or -1 with errno (EAGAIN or EACCES when somebody else holds it). F_OFD_SETLK needs _GNU_SOURCE.
int chost_lock_file(int descriptor, int exclusive);

/// The same for writing, when nobody else holds it any more. -1 with errno on failure (EINTR).
int chost_wait_for_lock(int descriptor);

/// Closes all descriptors from this one on (close_range, which Swift's Glibc doesn't have).
void chost_close_from(int first);

/// Whether somebody else holds such a lock of the file, without taking it. -1 with errno on failure.
int chost_is_locked(int descriptor);

/// Sets the open-file-description lock (F_OFD_SETLK) of a range up to and with `end`, INT64_MAX: whatever follows. `type`:
/// 0 for reading (F_RDLCK), 1 for writing (F_WRLCK), 2 none (F_UNLCK). Returns 0, or -1 with errno.
int chost_lock_range(int descriptor, int type, int64_t start, int64_t end);

/// Finds what keeps a descriptor from having such a lock (F_OFD_GETLK): a lock of somebody else, or type 2. Returns 0, or -1
/// with errno.
int chost_find_lock(int descriptor, int *type, int64_t *start, int64_t *end);

/// Who is at the other side of a Unix socket (SO_PEERCRED, which needs _GNU_SOURCE). Returns 0, or -1 with errno.
int chost_peer(int descriptor, int *process, unsigned *user);

/// Makes a copy of this process (fork), in a session of its own, with standard input and output empty and no descriptor
/// but its end of a socket, which is CHOST_REPORT_DESCRIPTOR. Only while there is one thread. Returns the other end in
/// this process, CHOST_IN_COPY in the copy, or -1 with errno.
#define CHOST_IN_COPY (-2)
#define CHOST_REPORT_DESCRIPTOR 3
int chost_copy_process(void);

/// Before many copies are made of a process that has been at work: has them find memory side by side, and not in the gaps
/// of what they share. The gaps are lost.
void chost_gather_free_memory(void);

/// For the copy: makes a further copy of itself for each message of the socket, and ends with the socket. Returns in these
/// copies only. Each is in a session of its own, with output appended to the file whose path was the message, and the
/// descriptor that came with it as CHOST_REPORT_DESCRIPTOR, and without any other. Those that aren't bare are isolated from
/// the beginning where that is quicker, see `chost_isolate`.
#define CHOST_COPY_BARE 0
#define CHOST_COPY_ISOLATED 1
#define CHOST_COPY_WITHOUT_NETWORK 2
void chost_serve_copies(int kind);

/// The same as `fork`, but for the further process, which is isolated; -1 with ENOTSUP where `chost_isolate` has to do it.
int chost_fork_isolated(int network);

/// Sends bytes over a Unix socket and a descriptor with the first of them (SCM_RIGHTS, which is behind macros). Returns
/// how many were sent, or -1 with errno.
ssize_t chost_send_descriptor(int socket, const void *bytes, size_t count, int descriptor);

/// Receives bytes, and a descriptor if one comes with them, else -1. Returns how many, 0 at the end, or -1 with errno.
ssize_t chost_receive_descriptor(int socket, void *bytes, size_t count, int *descriptor);

/// Has each signal of this number come through a pipe, as a byte, in place of doing what it does usually. 0: it is ignored
/// already, or something else is done. (The handler must be async-signal-safe, and sigaction's members are macros.)
int chost_catch_signal(int number, int pipe);

/// Has a thread of this process run on these processors of the host only, or, where `count` is 0, on all that it may
/// (sched_setaffinity(2), whose sets are macros). Returns 0, or -1 with errno.
int chost_pin(int thread, const int *processors, size_t count);

/// Has `title` stand in place of the arguments that other processes see (proc(5), cmdline), as far as it fits.
void chost_set_title(char **arguments, int count, const char *title);

/// fallocate needs _GNU_SOURCE. Gives the range's space back (FALLOC_FL_PUNCH_HOLE), or makes it read as zeroes and
/// keeps its space (FALLOC_FL_ZERO_RANGE); the file's size stays. Returns 0, or -1 with errno (EOPNOTSUPP).
int chost_punch_hole(int descriptor, int64_t offset, int64_t count);
int chost_zero_range(int descriptor, int64_t offset, int64_t count);

/// fallocate with the guest's own mode (fallocate(2)); 0, or -1 with errno.
int chost_allocate(int descriptor, int mode, int64_t offset, int64_t count);

/// renameat2, which needs _GNU_SOURCE. 0, or -1 with errno.
int chost_rename(int folder, const char *name, int new_folder, const char *new_name, unsigned flags);

/// copy_file_range, which needs _GNU_SOURCE: how many bytes were copied from one place to the other; -1 with errno.
ssize_t chost_copy_range(int source, int64_t from, int target, int64_t to, size_t count);

/// futex has no wrapper in the C library. Sleeps while `*word == expected`, for at most `nanoseconds` (-1: for ever).
int chost_futex_wait(uint32_t *word, uint32_t expected, int64_t nanoseconds);

/// Wakes at most `count` sleepers of `word`.
int chost_futex_wake(uint32_t *word, int count);

/// eventfd, non-blocking; <sys/eventfd.h> is in no module map. Returns a descriptor, or -1 with errno.
int chost_event_descriptor(void);

/// A TUN/TAP descriptor for `name` (TUNSETIFF with IFF_TAP | IFF_NO_PI); struct ifreq is a union of macros.
int chost_open_tap(const char *name);

/// CRC-32C (RFC 3720, appendix B.4) of `count` bytes, begun with the one of what stands before them (0: nothing). With the
/// processor's own instruction where it has that.
uint32_t chost_crc32c(uint32_t before, const void *bytes, size_t count);

/// Lets two paths change places (RENAME_EXCHANGE, which needs _GNU_SOURCE). 0, or -1 with errno.
int chost_exchange(const char *path, const char *other);

/// Has the file `target` share the blocks of `source` (FICLONE), where the file system can. 0, or -1 with errno.
int chost_share_blocks(int target, int source);

/// Whether the processor has the instructions that generated code uses: BMI1, BMI2, LZCNT, POPCNT, FMA, PCLMULQDQ.
/// 0 or 1.
int chost_has_x86_64_v3(void);

/// Whether the processor has AES-NI, which x86-64-v3 doesn't include. 0 or 1.
int chost_has_aes(void);

/// mremap is variadic. Maps shared anonymous memory once more, at `place`, in place of what is mapped there (mremap(2),
/// old_size 0). Returns NULL with errno.
void *chost_map_again(void *memory, size_t count, void *place);

/// Moves `count` bytes of a mapping to `place`, in the stead of what is mapped there. NULL with errno where that fails.
void *chost_move_mapping(void *memory, size_t count, void *place);

/// Gives this process, which has one thread still, namespaces of its own (namespaces(7)): for System V's and POSIX's means
/// of communication and for host names, where `network` is 1 for networks, in which there is nothing, and for processes and
/// mounts. Where it isn't root it gets a user namespace for that, with its own user only. Returns 2, in a copy of the
/// process, which is gone itself; 1 where the host lets it have no namespaces for processes and mounts; or 0 where it
/// lets it have none.
int chost_isolate(int network);

/// Finds out what that will come to, which takes longer than doing it: for a process that copies of itself will do it.
void chost_try_isolation(void);

/// A file or folder that a process keeps, under its absolute path, or where `place` isn't null under that; or a symbolic
/// link, where `link` isn't null. One that `is_own_folder` is left out where it is anything but a folder, even a link to
/// one.
struct chost_kept {
    const char *path;
    const char *place;
    int is_read_only;
    int is_device;
    int is_own_folder;
    const char *link;
};

/// A descriptor of a folder, for another process, from which no way leads up: it is the root of a mount of its own,
/// which nobody writes to where `read_only` isn't 0. Where the host lets this user make none, it is the folder as it
/// is. O_PATH; -1 with errno.
int chost_folder_alone(const char *path, int read_only);

/// Leaves this process, which has mounts of its own, no files but these, a /proc of its own, and what it has open. The
/// first is a folder; what isn't there is left out. For all threads, and before `chost_confine`. 1, or 0 where the host
/// doesn't let it; nothing is changed then.
int chost_enter_root(const struct chost_kept *kept, size_t count);

/// Takes from this thread, and those that it makes, the capabilities that a machine's process has no use for: all of them
/// where it isn't root. 1, or 0 where that fails.
int chost_drop_capabilities(void);

/// Has this thread, and those that it makes, use no files but these (Landlock), where `count` isn't 0, and what is open;
/// no TCP where `network` is 0; and neither signal other processes nor connect to their abstract sockets. For good, and
/// with no_new_privs. Returns what of it the host let be applied: the latter is CHOST_RESTRICTED_REACH.
int chost_restrict(const struct chost_kept *kept, size_t count, int network);
#define CHOST_RESTRICTED_FILES 1
#define CHOST_RESTRICTED_REACH 2

/// Takes from this process, all its threads, what a machine's process doesn't need once it runs (Confinement.c: the filter
/// of system calls is a table of C macros): core files, privileges from programs that it starts, and system calls that
/// start programs, make processes, reach into others or change the system; where `network` is 0, all sockets but Unix
/// ones. `lock` is a descriptor, or -1: it can't be closed, nor its lock given up. For good. Returns what the host let be
/// applied.
int chost_confine(int network, int lock);
#define CHOST_CONFINED_CORE 1
#define CHOST_CONFINED_PRIVILEGES 2
#define CHOST_CONFINED_CALLS 4

// Samples of where guest code is (Sampler.c). In C because they are taken in a signal handler, which must be
// async-signal-safe, and because the interrupted thread's registers are behind macros.

/// Host code that was made of the guest instruction at `offset` in its page, from `code` to the next place's.
struct chost_code_place {
    uint32_t code;
    uint32_t offset;
    /// Where the page was executed when it was translated.
    uint64_t virtual_page;
    uint64_t physical_page;
};

/// A translator's places, by rising `code`. Only changed on the hart's thread while it doesn't execute host code of these
/// places, so the handler, which looks only then, finds it whole.
struct chost_code_map {
    struct chost_code_place *places;
    uint32_t count;
    uint32_t capacity;
    /// Host code of guest instructions, and before it what all blocks share, of which that from `calls` on is called, with
    /// the return address at most two words below the top of the stack. Below 4 GiB.
    uint64_t shared, calls, blocks, end;
};

struct chost_sample {
    uint64_t pc;
    uint64_t satp;
    uint8_t privilege;
    /// 1: in generated code.
    uint8_t is_generated;
};

#define CHOST_SAMPLE_RING 1024

/// One hart's samples. Set up by Swift and zero elsewhere.
struct chost_sampler {
    /// The hart's state, and where in it things are, as byte offsets; at `fetch_entries` there is the pointer to the
    /// remembered fetch translations, at `fetch_mask` the mask of an entry's distance, which an address shifted right
    /// gives: (the offsets of) tag, and pointer to what begins with the physical page.
    const uint8_t *state;
    uint32_t pc, privilege, satp, page_base, fetch_entries;
    uint32_t fetch_mask, fetch_shift, fetch_tag, fetch_page, page_physical;
    /// NULL where no code is generated: then pc is known between stretches only, and samples are left to `wanted`.
    const struct chost_code_map *map;
    /// The thread that is sampled, 0: none.
    int32_t thread;
    /// Samples that the run loop is to take.
    uint32_t wanted;
    /// Written by the sampled thread: `head`, `lost`; by the one that reads: `tail`.
    uint32_t head, tail, lost;
    struct chost_sample ring[CHOST_SAMPLE_RING];
};

/// Installs the handler of SIGPROF, for as long as the process lives: without a sampler it does nothing. 0, or -1 with
/// errno.
int chost_sampler_install(void);

/// Samples of the calling thread go to `sampler` from now on; NULL: nowhere.
void chost_sampler_attach(struct chost_sampler *sampler);

/// Asks for a sample of the attached thread. Any thread.
void chost_sampler_ask(struct chost_sampler *sampler);

/// Adds a sample at the state's pc. On the attached thread, outside of the handler.
void chost_sampler_add(struct chost_sampler *sampler);

/// Takes the oldest sample: 1, or 0 when there is none. One thread.
int chost_sampler_take(struct chost_sampler *sampler, struct chost_sample *sample);

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
