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
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_line(const char *path, const char *line) {
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return 0;
    ssize_t length = (ssize_t)strlen(line);
    int done = write(descriptor, line, (size_t)length) == length;
    close(descriptor);
    return done;
}

static int enter_namespaces(int flags) {
    unsigned user = geteuid(), group = getegid();
    char line[64];
    if (unshare(flags) != 0) return 0;
    if (!(flags & CLONE_NEWUSER)) return 1;
    snprintf(line, sizeof line, "%u %u 1", user, user);
    if (!write_line("/proc/self/uid_map", line) || !write_line("/proc/self/setgroups", "deny")) return 0;
    snprintf(line, sizeof line, "%u %u 1", group, group);
    if (!write_line("/proc/self/gid_map", line)) return 0;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    return syscall(SYS_capset, &header, none) == 0;
}

int chost_isolate(int network) {
    int flags = CLONE_NEWIPC | CLONE_NEWUTS | (network ? CLONE_NEWNET : 0);
    if (geteuid() == 0) return enter_namespaces(flags);
    flags |= CLONE_NEWUSER;
    // Half of it couldn't be undone: another process tries it first.
    pid_t child = fork();
    if (child == 0) _exit(enter_namespaces(flags) ? 0 : 1);
    int status = 1;
    if (child < 0) return 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return 0;
    return status == 0 && enter_namespaces(flags);
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
