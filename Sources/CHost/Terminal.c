#define _GNU_SOURCE
#include "CHost.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios original_mode;
static struct termios raw_mode;
// The terminal that is raw, or -1. Handlers on any thread read it.
static volatile int raw_descriptor = -1;
static int resize_event = -1;

// Signals that end the process. SIGKILL can't be handled, and SIGUSR1 and SIGUSR2 are the program's.
static const int fatal_signals[] = {
    SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ, SIGSYS,
};
enum { fatal_count = sizeof fatal_signals / sizeof fatal_signals[0] };
static struct sigaction previous_fatal[fatal_count];
static struct sigaction previous_stop, previous_continue;

static void restore_mode(void) {
    int descriptor = raw_descriptor;
    if (descriptor < 0) return;
    // TCSANOW: waiting for a terminal that takes no output would keep the process from ending.
    tcsetattr(descriptor, TCSANOW, &original_mode);
}

// Ends the process as it would have ended, with the terminal given back first.
static void on_fatal(int number, siginfo_t *information, void *context) {
    (void)context;
    int saved = errno;
    restore_mode();
    for (int i = 0; i < fatal_count; i++)
        if (fatal_signals[i] == number) sigaction(number, &previous_fatal[i], NULL);
    int fault = number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE;
    // A fault comes again by itself, at the same instruction and with all its details, for whoever handles it next.
    if (!(fault && information->si_code > 0)) raise(number);
    errno = saved;
}

static void install(int number, void (*handler)(int, siginfo_t *, void *), struct sigaction *previous) {
    sigaction(number, NULL, previous);
    // A signal that is ignored stays so: nohup, and background jobs of some shells.
    if (previous->sa_handler == SIG_IGN) return;
    struct sigaction action = {0};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

static void uninstall(int number, void (*handler)(int, siginfo_t *, void *), const struct sigaction *previous) {
    struct sigaction current;
    sigaction(number, NULL, &current);
    // Somebody else's handler by now is theirs.
    if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == handler) sigaction(number, previous, NULL);
}

// Takes the terminal again. Not in the background: changing it there would stop the process once more (SIGTTOU).
static void take_again(void) {
    int descriptor = raw_descriptor;
    if (descriptor >= 0 && tcgetpgrp(descriptor) == getpgrp()) tcsetattr(descriptor, TCSANOW, &raw_mode);
}

static void on_stop(int number, siginfo_t *information, void *context) {
    (void)context;
    (void)information;
    int saved = errno;
    restore_mode();
    struct sigaction action = {0}, ours;
    action.sa_handler = SIG_DFL;
    sigaction(number, &action, &ours);
    raise(number);
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, number);
    sigset_t before;
    // The process stops here; on_continue, on whichever thread, makes the terminal raw again when it goes on. In an
    // orphaned process group (the first program of a session) nothing stops, and no SIGCONT will come.
    pthread_sigmask(SIG_UNBLOCK, &only, &before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sigaction(number, &ours, NULL);
    take_again();
    errno = saved;
}

static void on_continue(int number, siginfo_t *information, void *context) {
    (void)number;
    (void)information;
    (void)context;
    int saved = errno;
    take_again();
    uint64_t one = 1;
    if (resize_event >= 0 && write(resize_event, &one, sizeof one) < 0) { /* it is readable already */ }
    errno = saved;
}

static void on_resize(int number) {
    (void)number;
    int saved = errno;
    uint64_t one = 1;
    if (write(resize_event, &one, sizeof one) < 0) { /* it is readable already */ }
    errno = saved;
}

int chost_terminal_enter_raw(int descriptor) {
    if (raw_descriptor >= 0) {
        errno = EBUSY;
        return -1;
    }
    if (tcgetattr(descriptor, &original_mode) < 0) return -1;
    raw_mode = original_mode;
    cfmakeraw(&raw_mode);
    raw_mode.c_cc[VMIN] = 1;
    raw_mode.c_cc[VTIME] = 0;
    static int registered;
    if (!registered) {
        registered = 1;
        atexit(restore_mode);
    }
    raw_descriptor = descriptor;
    for (int i = 0; i < fatal_count; i++) install(fatal_signals[i], on_fatal, &previous_fatal[i]);
    install(SIGTSTP, on_stop, &previous_stop);
    install(SIGCONT, on_continue, &previous_continue);
    if (tcsetattr(descriptor, TCSANOW, &raw_mode) < 0) {
        int saved = errno;
        chost_terminal_leave_raw();
        errno = saved;
        return -1;
    }
    return 0;
}

void chost_terminal_leave_raw(void) {
    if (raw_descriptor < 0) return;
    restore_mode();
    raw_descriptor = -1;
    for (int i = 0; i < fatal_count; i++) uninstall(fatal_signals[i], on_fatal, &previous_fatal[i]);
    uninstall(SIGTSTP, on_stop, &previous_stop);
    uninstall(SIGCONT, on_continue, &previous_continue);
}

int chost_terminal_resize_descriptor(void) {
    if (resize_event >= 0) return resize_event;
    resize_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (resize_event < 0) return -1;
    struct sigaction action = {0};
    action.sa_handler = on_resize;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    return resize_event;
}

int chost_terminal_size(int descriptor, int *columns, int *rows) {
    struct winsize size;
    if (ioctl(descriptor, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0) return -1;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return 0;
}
