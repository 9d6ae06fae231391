#define _GNU_SOURCE
#include "CHost.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <malloc.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int chost_ioctl(int descriptor, unsigned long request, void *argument) { return ioctl(descriptor, request, argument); }

int chost_fcntl(int descriptor, int command, long argument) { return fcntl(descriptor, command, argument); }

int chost_open(const char *path, int flags, unsigned mode) { return open(path, flags | O_CLOEXEC, mode); }

int chost_lock_file(int descriptor, int exclusive) {
    struct flock lock = {0};
    lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
    lock.l_whence = SEEK_SET;
    return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int chost_wait_for_lock(int descriptor) {
    struct flock lock = {0};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    return fcntl(descriptor, F_OFD_SETLKW, &lock);
}

void chost_close_from(int first) { close_range((unsigned)first, ~0U, 0); }

int chost_is_locked(int descriptor) {
    struct flock lock = {0};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0) return -1;
    return lock.l_type != F_UNLCK;
}

// The numbers in CHost.h are Linux' own everywhere.
_Static_assert(F_RDLCK == 0 && F_WRLCK == 1 && F_UNLCK == 2, "other numbers of locks");

static struct flock range_lock(int type, int64_t start, int64_t end) {
    struct flock lock = {0};
    lock.l_type = (short)type;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = end == INT64_MAX ? 0 : end - start + 1;
    return lock;
}

int chost_lock_range(int descriptor, int type, int64_t start, int64_t end) {
    struct flock lock = range_lock(type, start, end);
    return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int chost_find_lock(int descriptor, int *type, int64_t *start, int64_t *end) {
    struct flock lock = range_lock(*type, *start, *end);
    if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0) return -1;
    *type = lock.l_type;
    *start = lock.l_start;
    *end = lock.l_len == 0 ? INT64_MAX : lock.l_start + lock.l_len - 1;
    return 0;
}

int chost_peer(int descriptor, int *process, unsigned *user) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return -1;
    *process = peer.pid;
    *user = peer.uid;
    return 0;
}

int chost_copy_process(void) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return -1;
    pid_t process = fork();
    if (process < 0) {
        int reason = errno;
        close(ends[0]);
        close(ends[1]);
        errno = reason;
        return -1;
    }
    if (process > 0) {
        close(ends[1]);
        return ends[0];
    }
    setsid();
    // Before anything is closed: the socket may be in the way of what comes to its place.
    int empty = open("/dev/null", O_RDWR | O_CLOEXEC);
    int socket = fcntl(ends[1], F_DUPFD_CLOEXEC, CHOST_REPORT_DESCRIPTOR + 1);
    if (empty < 0 || socket < 0) _exit(1);
    for (int descriptor = 0; descriptor < 3; descriptor++)
        if (dup2(empty, descriptor) < 0) _exit(1);
    if (dup2(socket, CHOST_REPORT_DESCRIPTOR) < 0) _exit(1);
    close_range(CHOST_REPORT_DESCRIPTOR + 1, ~0U, 0);
    return CHOST_IN_COPY;
}

static pid_t make_copy(int kind) {
    pid_t process = kind == CHOST_COPY_BARE ? -1 : chost_fork_isolated(kind == CHOST_COPY_WITHOUT_NETWORK);
    return process < 0 ? fork() : process;
}

void chost_gather_free_memory(void) {
    malloc_trim(0);
    // What is free at the heap's end begins here. Nothing else is, when all smaller pieces are taken.
    char *end = malloc(64 << 10);
    if (!end) return;
    for (size_t size = 32 << 10; size >= 24; size -= size >= 2048 ? size / 4 : 16) {
        char *piece;
        while ((piece = malloc(size)) && piece < end) {}
        free(piece);
    }
    free(end);
}

void chost_serve_copies(int kind) {
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        char log[PATH_MAX];
        int report;
        ssize_t length = chost_receive_descriptor(CHOST_REPORT_DESCRIPTOR, log, sizeof log - 1, &report);
        if (length <= 0) _exit(0);
        log[length] = 0;
        pid_t process = make_copy(kind);
        if (process == 0) {
            signal(SIGCHLD, SIG_DFL);
            setsid();
            // The folder is the machine's: what a guest that owned it left there isn't followed.
            int output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
            if (output < 0) dprintf(report, "73 can't write '%s': %s", log, strerror(errno));
            if (output < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0) _exit(1);
            if (dup2(report, CHOST_REPORT_DESCRIPTOR) < 0) _exit(1);
            close_range(CHOST_REPORT_DESCRIPTOR + 1, ~0U, 0);
            return;
        }
        if (process < 0) dprintf(report, "71 this host allows no further process: %s", strerror(errno));
        close(report);
    }
}

ssize_t chost_send_descriptor(int socket, const void *bytes, size_t count, int descriptor) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec part = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = control.space, .msg_controllen = sizeof control.space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    ssize_t sent;
    do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

ssize_t chost_receive_descriptor(int socket, void *bytes, size_t count, int *descriptor) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control;
    struct iovec part = {bytes, count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = control.space, .msg_controllen = sizeof control.space};
    ssize_t received;
    do received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (received < 0 && errno == EINTR);
    *descriptor = -1;
    struct cmsghdr *header = received > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(descriptor, CMSG_DATA(header), sizeof *descriptor);
    return received;
}

static int signal_pipes[65];

static void pass_signal(int number) {
    int reason = errno;
    unsigned char byte = (unsigned char)number;
    ssize_t written = write(signal_pipes[number], &byte, 1);
    (void)written;
    errno = reason;
}

int chost_catch_signal(int number, int pipe) {
    struct sigaction action;
    if (number < 1 || number > 64 || sigaction(number, NULL, &action) != 0 || action.sa_handler != SIG_DFL) return 0;
    signal_pipes[number] = pipe;
    memset(&action, 0, sizeof action);
    action.sa_handler = pass_signal;
    action.sa_flags = SA_RESTART;
    return sigaction(number, &action, NULL) == 0;
}

int chost_pin(int thread, const int *processors, size_t count) {
    enum { most = 8192 };
    size_t size = CPU_ALLOC_SIZE(most);
    cpu_set_t *set = CPU_ALLOC(most);
    if (!set) return -1;
    if (count == 0) memset(set, 0xFF, size);
    else CPU_ZERO_S(size, set);
    for (size_t index = 0; index < count; index++) CPU_SET_S((size_t)processors[index], size, set);
    int result = sched_setaffinity(thread, size, set);
    CPU_FREE(set);
    return result;
}

void chost_set_title(char **arguments, int count, const char *title) {
    char *end = arguments[count - 1] + strlen(arguments[count - 1]);
    size_t room = (size_t)(end - arguments[0]), length = strlen(title);
    memset(arguments[0], 0, room);
    memcpy(arguments[0], title, length < room ? length : room);
}

int chost_punch_hole(int descriptor, int64_t offset, int64_t count) {
    return fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, count);
}

int chost_zero_range(int descriptor, int64_t offset, int64_t count) {
    return fallocate(descriptor, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, count);
}

int chost_allocate(int descriptor, int mode, int64_t offset, int64_t count) {
    return fallocate(descriptor, mode, offset, count);
}

int chost_rename(int folder, const char *name, int new_folder, const char *new_name, unsigned flags) {
    return renameat2(folder, name, new_folder, new_name, flags);
}

ssize_t chost_copy_range(int source, int64_t from, int target, int64_t to, size_t count) {
    off_t in = from, out = to;
    return copy_file_range(source, &in, target, &out, count, 0);
}

void *chost_map_again(void *memory, size_t count, void *place) {
    void *again = mremap(memory, 0, count, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    return again == MAP_FAILED ? NULL : again;
}

void *chost_move_mapping(void *memory, size_t count, void *place) {
    void *moved = mremap(memory, count, count, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    return moved == MAP_FAILED ? NULL : moved;
}

int chost_futex_wait(uint32_t *word, uint32_t expected, int64_t nanoseconds) {
    struct timespec timeout = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, nanoseconds < 0 ? NULL : &timeout, NULL, 0);
}

int chost_futex_wake(uint32_t *word, int count) {
    return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

int chost_event_descriptor(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

int chost_open_tap(const char *name) {
    int descriptor = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return -1;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    if (strlen(name) >= sizeof request.ifr_name) {
        close(descriptor);
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(request.ifr_name, name);
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    if (ioctl(descriptor, TUNSETIFF, &request) < 0) {
        int saved = errno;
        close(descriptor);
        errno = saved;
        return -1;
    }
    return descriptor;
}

int chost_has_x86_64_v3(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul");
#else
  return 0;
#endif
}

int chost_has_aes(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("aes") != 0;
#else
  return 0;
#endif
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_by_instruction(
    uint64_t crc, const unsigned char *bytes, size_t count) {
  for (; count >= 8; bytes += 8, count -= 8) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    crc = __builtin_ia32_crc32di(crc, word);
  }
  for (; count > 0; bytes++, count--) crc = __builtin_ia32_crc32qi((uint32_t)crc, *bytes);
  return (uint32_t)crc;
}
#endif

uint32_t chost_crc32c(uint32_t before, const void *bytes, size_t count) {
  const unsigned char *rest = bytes;
  uint32_t crc = ~before;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("sse4.2")) return ~crc32c_by_instruction(crc, rest, count);
#endif
  for (; count > 0; rest++, count--) {
    crc ^= *rest;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82F63B78 & -(crc & 1));
  }
  return ~crc;
}

int chost_share_blocks(int target, int source) { return ioctl(target, FICLONE, source); }

int chost_exchange(const char *path, const char *other) {
  return renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE);
}
