#define _GNU_SOURCE
#include "CHost.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stddef.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int in_user_namespace;

static int write_line(const char *path, const char *line) {
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return 0;
    ssize_t length = (ssize_t)strlen(line);
    int done = write(descriptor, line, (size_t)length) == length;
    close(descriptor);
    return done;
}

// Root keeps what it needs for files of all users, ports below 1024, ping, TAP and weights; see capabilities(7).
static const unsigned roots_capabilities =
    1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_FSETID | 1u << CAP_NET_BIND_SERVICE
    | 1u << CAP_NET_ADMIN | 1u << CAP_NET_RAW | 1u << CAP_SYS_NICE;

int chost_drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct present[2], sets[2] = {{0}};
    if (syscall(SYS_capget, &header, present) != 0) return 0;
    if (!in_user_namespace) sets[0].effective = sets[0].permitted = roots_capabilities & present[0].permitted;
    return syscall(SYS_capset, &header, sets) == 0;
}

static int enter_namespaces(int flags) {
    unsigned user = geteuid(), group = getegid();
    char line[64];
    if (unshare(flags) != 0) return 0;
    if (flags & CLONE_NEWUSER) {
        in_user_namespace = 1;
        snprintf(line, sizeof line, "%u %u 1", user, user);
        if (!write_line("/proc/self/uid_map", line) || !write_line("/proc/self/setgroups", "deny")) return 0;
        snprintf(line, sizeof line, "%u %u 1", group, group);
        if (!write_line("/proc/self/gid_map", line)) return 0;
    }
    // What is mounted here is no longer mounted elsewhere, too.
    return !(flags & CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

// Half of it couldn't be undone: another process tries it first.
static int can_enter(int flags) {
    pid_t child = fork();
    if (child == 0) _exit(enter_namespaces(flags) ? 0 : 1);
    int status = 1;
    if (child < 0) return 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return 0;
    return status == 0;
}

static int namespaces(int network) {
    int user = geteuid() == 0 ? 0 : CLONE_NEWUSER;
    return user | CLONE_NEWIPC | CLONE_NEWUTS | (network ? CLONE_NEWNET : 0);
}

// What `chost_isolate` will come to; below zero: not tried yet.
static int possible = -1;

void chost_try_isolation(void) {
    int flags = namespaces(1);
    possible = can_enter(flags | CLONE_NEWNS | CLONE_NEWPID) ? 2 : can_enter(flags) ? 1 : 0;
}

int chost_isolate(int network) {
    if (possible < 0) chost_try_isolation();
    int flags = namespaces(network) | (possible == 2 ? CLONE_NEWNS | CLONE_NEWPID : 0);
    if (possible == 0 || !enter_namespaces(flags)) return 0;
    if (possible == 1) return 1;
    // A process is in the new namespace for processes from its birth only. Where that fails, it can't have threads either.
    pid_t child = fork();
    if (child != 0) _exit(child < 0);
    setsid();
    return 2;
}

static int make_folders(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int made = mkdir(path, 0755) == 0 || errno == EEXIST;
        *slash = '/';
        if (!made) return 0;
    }
    return 1;
}

// Shows what `source` has of the host's mounts at the same place below `root`.
static int keep(int source, const char *root, const struct chost_kept *kept) {
    char to[PATH_MAX];
    struct stat status;
    if (snprintf(to, sizeof to, "%s%s", root, kept->path) >= (int)sizeof to) return 0;
    if (!make_folders(to) || fstat(source, &status) != 0) return 0;
    if (kept->link) return symlink(kept->link, to) == 0;
    if (S_ISDIR(status.st_mode)) {
        if (mkdir(to, 0755) != 0 && errno != EEXIST) return 0;
    } else {
        int file = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file < 0) return 0;
        close(file);
    }
    if (syscall(SYS_move_mount, source, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) != 0) return 0;
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | (kept->is_device ? 0 : MOUNT_ATTR_NODEV)
                                                | (kept->is_read_only ? MOUNT_ATTR_RDONLY : 0)};
    return syscall(SYS_mount_setattr, AT_FDCWD, to, AT_RECURSIVE, &attributes, sizeof attributes) == 0;
}

static int fill_root(const int *sources, const struct chost_kept *kept, size_t count, const char *root) {
    char place[PATH_MAX];
    for (size_t index = 0; index < count; index++)
        if (sources[index] >= 0 && !keep(sources[index], root, &kept[index])) return 0;
    snprintf(place, sizeof place, "%s/proc", root);
    if (mkdir(place, 0555) != 0 || mount("proc", place, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0) return 0;
    snprintf(place, sizeof place, "%s/.before", root);
    if (mkdir(place, 0700) != 0) return 0;
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    if (syscall(SYS_mount_setattr, AT_FDCWD, root, 0, &attributes, sizeof attributes) != 0) return 0;
    return syscall(SYS_pivot_root, root, place) == 0;
}

int chost_enter_root(const struct chost_kept *kept, size_t count) {
    enum { most = 16 };
    int sources[most], entered = 0;
    // Any folder would do; this one is there.
    const char *root = kept[0].path;
    if (count > most) return 0;
    // Before something is mounted there.
    for (size_t index = 0; index < count; index++)
        sources[index] =
            (int)syscall(SYS_open_tree, AT_FDCWD, kept[index].path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (sources[0] >= 0 && mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755") == 0) {
        entered = fill_root(sources, kept, count, root);
        if (!entered) umount2(root, MNT_DETACH);
    }
    for (size_t index = 0; index < count; index++)
        if (sources[index] >= 0) close(sources[index]);
    if (entered && (umount2("/.before", MNT_DETACH) != 0 || chdir("/") != 0)) abort();
    return entered;
}

#if defined(__x86_64__)
// What a machine's process never does once it runs: start programs, reach into other processes, change what it is or
// the host's system, and use what kernels have been broken into by.
static const unsigned short forbidden[] = {
    SYS_execve, SYS_execveat, SYS_fork, SYS_vfork,
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd,
    SYS_kill, SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_send_signal,
    SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setfsuid, SYS_setfsgid,
    SYS_setgroups, SYS_capset, SYS_unshare, SYS_setns, SYS_chroot, SYS_pivot_root,
    SYS_mount, SYS_umount2, SYS_move_mount, SYS_open_tree, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick,
    SYS_mount_setattr, SYS_swapon, SYS_swapoff, SYS_quotactl, SYS_acct,
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot,
    SYS_sethostname, SYS_setdomainname, SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime,
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_personality, SYS_syslog, SYS_vhangup,
    SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    SYS_add_key, SYS_request_key, SYS_keyctl, SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_lookup_dcookie,
    SYS_fanotify_init, SYS_migrate_pages, SYS_move_pages, SYS_mbind, SYS_set_mempolicy, SYS_uselib, SYS_ustat,
    SYS_sysfs, SYS_nfsservctl, SYS_vmsplice,
};
enum { forbidden_count = sizeof forbidden / sizeof forbidden[0] };

static int install_filter(void) {
    struct sock_filter code[forbidden_count + 16];
    unsigned length = 0;
#define ADD(...) code[length++] = (struct sock_filter)__VA_ARGS__
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    // The calls of the x32 interface.
    ADD(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    // Its flags can't be seen; the C library then takes the older call.
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
    // Threads, but no processes.
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])));
    ADD(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    for (unsigned index = 0; index < forbidden_count; index++)
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, forbidden[index], forbidden_count - index, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
#undef ADD
    struct sock_fprog program = {.len = (unsigned short)length, .filter = code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}
#else
static int install_filter(void) { return 0; }
#endif

int chost_confine(void) {
    int applied = 0;
    // A core would hold the guest's memory.
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) == 0) applied |= CHOST_CONFINED_CORE;
    // The filter needs it, too.
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return applied;
    applied |= CHOST_CONFINED_PRIVILEGES;
    if (install_filter()) applied |= CHOST_CONFINED_CALLS;
    return applied;
}
