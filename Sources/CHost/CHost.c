#define _GNU_SOURCE
#include "CHost.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <spawn.h>
#include <stdio.h>
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

int chost_is_locked(int descriptor) {
    struct flock lock = {0};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(descriptor, F_OFD_GETLK, &lock) != 0) return -1;
    return lock.l_type != F_UNLCK;
}

int chost_peer(int descriptor, int *process, unsigned *user) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return -1;
    *process = peer.pid;
    *user = peer.uid;
    return 0;
}

extern char **environ;

int chost_spawn_session(char *const arguments[], const char *log, int report) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t process;
    /* A copy onto itself would stay closed on exec. */
    int source = fcntl(report, F_DUPFD_CLOEXEC, CHOST_REPORT_DESCRIPTOR + 1);
    if (source < 0) return errno;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    posix_spawn_file_actions_adddup2(&actions, source, CHOST_REPORT_DESCRIPTOR);
    posix_spawn_file_actions_addclosefrom_np(&actions, CHOST_REPORT_DESCRIPTOR + 1);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    int code = posix_spawn(&process, arguments[0], &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(source);
    return code;
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
