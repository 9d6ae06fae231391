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
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Of this process itself.
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

// Whether this process was isolated when it was made.
static int born_isolated;

int chost_fork_isolated(int network) {
    if (possible != 2) {
        errno = ENOTSUP;
        return -1;
    }
    volatile pid_t copy = -1;
    volatile int reason = 0;
    // A process is in the new namespace for processes from its birth only: the one that makes it needn't have memory of its
    // own.
    pid_t helper = vfork();
    if (helper == 0) {
        if (enter_namespaces(namespaces(network) | CLONE_NEWNS | CLONE_NEWPID)) copy = fork();
        if (copy == 0) {
            born_isolated = 1;
            return 0;
        }
        reason = errno;
        _exit(0);
    }
    if (helper < 0) return -1;
    errno = reason;
    return copy;
}

int chost_isolate(int network) {
    if (born_isolated) return 2;
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

// Shows what `source` has of the host's mounts below `root`, where it is to be from then on.
static int keep(int source, const char *root, const struct chost_kept *kept) {
    char to[PATH_MAX];
    struct stat status;
    const char *place = kept->place ? kept->place : kept->path;
    if (snprintf(to, sizeof to, "%s%s", root, place) >= (int)sizeof to) return 0;
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

static int clone_mount(const char *path, unsigned flags) {
    return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | flags);
}

static int is_folder(int descriptor) {
    struct stat status;
    return fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode);
}

// What is kept, as a mount of its own; -1: there is no such thing.
static int clone_kept(const struct chost_kept *kept) {
    int mount = clone_mount(kept->path, kept->is_own_folder ? AT_SYMLINK_NOFOLLOW : 0);
    if (mount < 0 || !kept->is_own_folder || is_folder(mount)) return mount;
    close(mount);
    return -1;
}

// What is at a path, as a mount of its own; `read_only`: to which nobody writes by it.
static int clone_mount_to_share(const char *path, int read_only) {
    int folder = clone_mount(path, 0);
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    if (folder < 0 || !read_only) return folder;
    if (syscall(SYS_mount_setattr, folder, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes) == 0)
        return folder;
    close(folder);
    return -1;
}

int chost_folder_alone(const char *path, int read_only) {
    int folder = clone_mount_to_share(path, read_only), ends[2], status;
    if (folder < 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
        // Without root another process does it, in a user namespace of its own.
        pid_t child = fork();
        if (child == 0) {
            folder = enter_namespaces(CLONE_NEWUSER | CLONE_NEWNS) ? clone_mount_to_share(path, read_only) : -1;
            _exit(folder < 0 || chost_send_descriptor(ends[1], "", 1, folder) != 1);
        }
        close(ends[1]);
        char byte;
        if (child > 0) chost_receive_descriptor(ends[0], &byte, 1, &folder);
        close(ends[0]);
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    }
    if (folder < 0) return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (is_folder(folder)) return folder;
    close(folder);
    errno = ENOTDIR;
    return -1;
}

int chost_enter_root(const struct chost_kept *kept, size_t count) {
    int *sources = calloc(count, sizeof *sources), entered = 0;
    // Any folder would do; this one is there.
    const char *root = kept[0].path;
    if (!sources) return 0;
    // Before something is mounted there.
    for (size_t index = 0; index < count; index++)
        sources[index] = clone_kept(&kept[index]);
    if (sources[0] >= 0 && mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755") == 0) {
        entered = fill_root(sources, kept, count, root);
        if (!entered) umount2(root, MNT_DETACH);
    }
    for (size_t index = 0; index < count; index++)
        if (sources[index] >= 0) close(sources[index]);
    free(sources);
    if (entered && (umount2("/.before", MNT_DETACH) != 0 || chdir("/") != 0)) abort();
    return entered;
}

// Landlock (landlock(7)), whose header older systems lack or have in part.
enum { landlock_create_ruleset = 444, landlock_add_rule = 445, landlock_restrict_self = 446 };
enum {
    may_execute = 1 << 0, may_write_file = 1 << 1, may_read_file = 1 << 2, may_read_folder = 1 << 3,
    may_make_character_device = 1 << 6, may_make_block_device = 1 << 11, may_link = 1 << 13, may_truncate = 1 << 14,
    may_control_device = 1 << 15,
};

static int add_rule(int rules, const struct chost_kept *kept, uint64_t handled) {
    struct { uint64_t allowed; int32_t parent; } __attribute__((packed)) rule;
    struct stat status;
    rule.parent = open(kept->path, O_PATH | O_CLOEXEC | (kept->is_own_folder ? O_NOFOLLOW | O_DIRECTORY : 0));
    // What isn't there can't be reached.
    if (rule.parent < 0) return 1;
    rule.allowed = may_read_file | may_read_folder;
    if (!kept->is_read_only) rule.allowed = ~(uint64_t)(may_execute | may_make_character_device | may_make_block_device);
    if (!kept->is_device) rule.allowed &= ~(uint64_t)may_control_device;
    if (fstat(rule.parent, &status) == 0 && !S_ISDIR(status.st_mode))
        rule.allowed &= may_read_file | may_write_file | may_truncate | may_control_device;
    rule.allowed &= handled;
    // 1: what is below a path.
    int added = syscall(landlock_add_rule, rules, 1, &rule, 0) == 0;
    close(rule.parent);
    return added;
}

int chost_restrict(const struct chost_kept *kept, size_t count, int network) {
    struct { uint64_t files, network, scopes; } handled = {0};
    long version = syscall(landlock_create_ruleset, NULL, 0, 1);
    // The first version lets nobody move a file to another folder.
    if (version < 2 || (count == 0 && (version < 4 || (network && version < 6)))) return 0;
    const int newest = version >= 5 ? may_control_device : version >= 3 ? may_truncate : may_link;
    if (count > 0) handled.files = 2 * (uint64_t)newest - 1;
    // Listening and connecting by TCP.
    if (!network && version >= 4) handled.network = 3;
    // Abstract sockets and signals of others.
    if (version >= 6) handled.scopes = 3;
    int rules = (int)syscall(landlock_create_ruleset, &handled, sizeof handled, 0);
    if (rules < 0) return 0;
    int applied = 1;
    for (size_t index = 0; index < count && applied; index++) applied = add_rule(rules, &kept[index], handled.files);
    applied = applied && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(landlock_restrict_self, rules, 0) == 0;
    close(rules);
    if (!applied) return 0;
    return (handled.files ? CHOST_RESTRICTED_FILES : 0) | (handled.scopes ? CHOST_RESTRICTED_REACH : 0);
}

#if defined(__x86_64__)
// What a machine's process never does once it runs: start programs, reach into other processes, change what it is or
// the host's system, and use what kernels have been broken into by.
static const unsigned short forbidden[] = {
    SYS_execve, SYS_execveat, SYS_fork, SYS_vfork,
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd,
    SYS_tkill, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_pidfd_send_signal,
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
    SYS_sysfs, SYS_nfsservctl, SYS_vmsplice, SYS_get_robust_list, SYS_setpgid, SYS_setpriority, SYS_ioprio_set,
    // By which the machine's lock could be given up, see below.
    SYS_sendmsg, SYS_sendmmsg,
    // Landlock's first versions let all files be cut by their paths.
    SYS_truncate,
    // close_range, process_madvise, process_mrelease, lsm_set_self_attr, open_tree_attr: newer than some headers.
    436, 440, 448, 460, 467,
};
enum { forbidden_count = sizeof forbidden / sizeof forbidden[0] };

// What is done to the process or thread that the first argument names: to itself only.
static const struct { unsigned short call, takes_zero; } aimed[] = {
    {SYS_kill, 0}, {SYS_tgkill, 0}, {SYS_prlimit64, 1}, {SYS_sched_setaffinity, 1}, {SYS_sched_setscheduler, 1},
    {SYS_sched_setparam, 1}, {SYS_sched_setattr, 1},
};
enum { aimed_count = sizeof aimed / sizeof aimed[0] };

// What is never done to the machine's lock, and which arguments that may be: closing it, unlocking it, and making another
// descriptor of it, for which the same holds. So who runs a machine is seen to until the end of the process.
static const struct { unsigned short call, first, second; } holding[] = {
    {SYS_close, 0, 0}, {SYS_fcntl, 0, 0}, {SYS_dup, 0, 0}, {SYS_dup2, 0, 1}, {SYS_dup3, 0, 1},
};
enum { holding_count = sizeof holding / sizeof holding[0] };

// The lower half is all that the kernel looks at where an argument is an int; x86-64 stores it first.
#define ARGUMENT(index) (unsigned)(offsetof(struct seccomp_data, args) + 8 * (index))

static int install_filter(int network, int lock) {
    struct sock_filter code[forbidden_count + 7 * aimed_count + 8 * holding_count + 64];
    unsigned length = 0;
#define ADD(...) code[length++] = (struct sock_filter)__VA_ARGS__
#define LOAD(place) ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place))
#define SKIP_UNLESS(value, count) ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, count))
#define RETURN(value) ADD(BPF_STMT(BPF_RET | BPF_K, value))
    LOAD(offsetof(struct seccomp_data, arch));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0));
    RETURN(SECCOMP_RET_KILL_PROCESS);
    LOAD(offsetof(struct seccomp_data, nr));
    // The calls of the x32 interface.
    ADD(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));
    RETURN(SECCOMP_RET_ERRNO | EPERM);
    // Its flags can't be seen; the C library then takes the older call.
    SKIP_UNLESS(SYS_clone3, 1);
    RETURN(SECCOMP_RET_ERRNO | ENOSYS);
    // Threads, but no processes.
    SKIP_UNLESS(SYS_clone, 4);
    LOAD(ARGUMENT(0));
    ADD(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1));
    RETURN(SECCOMP_RET_ALLOW);
    RETURN(SECCOMP_RET_ERRNO | EPERM);
    // Nothing that is rarely used, and so rarely looked at, by which networks' code can be reached.
    SKIP_UNLESS(SYS_socket, network ? 6 : 4);
    LOAD(ARGUMENT(0));
    if (network) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 2, 0));
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 1, 0));
    }
    SKIP_UNLESS(AF_UNIX, 1);
    RETURN(SECCOMP_RET_ALLOW);
    RETURN(SECCOMP_RET_ERRNO | EPERM);
    SKIP_UNLESS(SYS_socketpair, 4);
    LOAD(ARGUMENT(0));
    SKIP_UNLESS(AF_UNIX, 1);
    RETURN(SECCOMP_RET_ALLOW);
    RETURN(SECCOMP_RET_ERRNO | EPERM);
    // Typing at a terminal in its user's stead.
    SKIP_UNLESS(SYS_ioctl, 5);
    LOAD(ARGUMENT(1));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TIOCSTI, 1, 0));
    SKIP_UNLESS(TIOCLINUX, 1);
    RETURN(SECCOMP_RET_ERRNO | EPERM);
    RETURN(SECCOMP_RET_ALLOW);
    // Hiding from its user who holds the machine's lock.
    SKIP_UNLESS(SYS_prctl, 4);
    LOAD(ARGUMENT(0));
    SKIP_UNLESS(PR_SET_DUMPABLE, 1);
    RETURN(SECCOMP_RET_ERRNO | EPERM);
    RETURN(SECCOMP_RET_ALLOW);
    unsigned self = (unsigned)syscall(SYS_getpid);
    for (unsigned index = 0; index < aimed_count; index++) {
        SKIP_UNLESS(aimed[index].call, 5);
        LOAD(ARGUMENT(0));
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, self, 1, 0));
        SKIP_UNLESS(aimed[index].takes_zero ? 0 : self, 1);
        RETURN(SECCOMP_RET_ALLOW);
        RETURN(SECCOMP_RET_ERRNO | EPERM);
    }
    for (unsigned index = 0; index < holding_count; index++) {
        SKIP_UNLESS(holding[index].call, 7);
        LOAD(ARGUMENT(holding[index].first));
        SKIP_UNLESS((unsigned)lock, 1);
        RETURN(SECCOMP_RET_ERRNO | EPERM);
        LOAD(ARGUMENT(holding[index].second));
        SKIP_UNLESS((unsigned)lock, 1);
        RETURN(SECCOMP_RET_ERRNO | EPERM);
        RETURN(SECCOMP_RET_ALLOW);
    }
    for (unsigned index = 0; index < forbidden_count; index++)
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, forbidden[index], forbidden_count - index, 0));
    RETURN(SECCOMP_RET_ALLOW);
    RETURN(SECCOMP_RET_ERRNO | EPERM);
#undef ADD
#undef LOAD
#undef SKIP_UNLESS
#undef RETURN
    struct sock_fprog program = {.len = (unsigned short)length, .filter = code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}
#else
static int install_filter(int network, int lock) { return (void)network, (void)lock, 0; }
#endif

int chost_confine(int network, int lock) {
    int applied = 0;
    // A core would hold the guest's memory.
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) == 0) applied |= CHOST_CONFINED_CORE;
    // The filter needs it, too.
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return applied;
    applied |= CHOST_CONFINED_PRIVILEGES;
    if (install_filter(network, lock)) applied |= CHOST_CONFINED_CALLS;
    return applied;
}
