// Costs of single operations of the processor and the kernel: micro NAME prints nanoseconds for one.
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

// A system call that does next to nothing.
static void system_call(long count) {
  for (long i = 0; i < count; i++) syscall(SYS_getppid);
}

// A byte goes to another process and back: two switches.
static void context_switch(long count) {
  static int there[2], back[2];
  char byte = 0;
  if (pipe(there) || pipe(back)) fail("pipe");
  pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    close(there[1]);
    while (read(there[0], &byte, 1) == 1)
      if (write(back[1], &byte, 1) != 1) break;
    _exit(0);
  }
  for (long i = 0; i < count; i += 2)
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) fail("pipe");
  close(there[0]), close(there[1]), close(back[0]), close(back[1]);
  waitpid(child, NULL, 0);
}

static volatile char *map(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  madvise(memory, size, MADV_NOHUGEPAGE);
  return memory;
}

// The first store to a page of new memory.
static void page_fault(long count) {
  const long pages = 4096;
  for (long done = 0; done < count; done += pages) {
    volatile char *memory = map(pages * 4096);
    for (long i = 0; i < pages && done + i < count; i++) memory[i * 4096] = 1;
    munmap((void *)memory, pages * 4096);
  }
}

// A load from one of 16384 pages (64 MiB), at random: more than a TLB holds.
static void tlb_miss(long count) {
  static volatile char *memory;
  const size_t size = 64 << 20;
  if (!memory) {
    memory = map(size);
    for (size_t i = 0; i < size; i += 4096) memory[i] = 1;
  }
  uint64_t random = 88172645463325252;
  for (long i = 0; i < count; i++) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    (void)memory[random % size & ~7ul];
  }
}

static void skip_trap(int number, siginfo_t *information, void *context) {
  ucontext_t *user = context;
#if defined(__riscv)
  user->uc_mcontext.__gregs[REG_PC] += 4;
#elif defined(__aarch64__)
  user->uc_mcontext.pc += 4;
#endif
  (void)number, (void)information, (void)user;
}

// A breakpoint, the signal's handler, and back.
static void signal_trap(long count) {
  struct sigaction action = {.sa_sigaction = skip_trap, .sa_flags = SA_SIGINFO};
  if (sigaction(SIGTRAP, &action, NULL)) fail("sigaction");
  for (long i = 0; i < count; i++) {
#if defined(__riscv)
    __asm__ volatile(".option push\n.option norvc\nebreak\n.option pop" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("brk #0" ::: "memory");
#elif defined(__x86_64__)
    __asm__ volatile("int3" ::: "memory");
#endif
  }
}

#define FUNCTION(n) __attribute__((noinline)) static uint64_t function##n(uint64_t x) { return x * (2 * n + 3) + n; }
FUNCTION(0) FUNCTION(1) FUNCTION(2) FUNCTION(3) FUNCTION(4) FUNCTION(5) FUNCTION(6) FUNCTION(7)
static uint64_t (*volatile functions[8])(uint64_t) = {function0, function1, function2, function3,
                                                       function4, function5, function6, function7};

// A call of one of eight functions, in a sequence that repeats.
static void indirect_call(long count) {
  uint64_t x = 12345;
  for (long i = 0; i < count; i++) x = functions[i * 5 & 7](x);
  __asm__ volatile("" ::"r"(x));
}

// A device's register read by the kernel: the identifier in PCI configuration space.
static void device_read(long count) {
  static int file = -1;
  if (file < 0) {
    glob_t found;
    if (glob("/sys/bus/pci/devices/*/config", 0, NULL, &found)) {
      fprintf(stderr, "no PCI device\n");
      exit(1);
    }
    file = open(found.gl_pathv[0], O_RDONLY);
    if (file < 0) fail("open");
  }
  uint32_t identifier;
  for (long i = 0; i < count; i++)
    if (pread(file, &identifier, 4, 0) != 4) fail("pread");
}

static const struct {
  const char *name;
  void (*run)(long count);
} costs[] = {
    {"syscall", system_call}, {"switch", context_switch},  {"fault", page_fault},       {"tlb", tlb_miss},
    {"signal", signal_trap},  {"indirect", indirect_call}, {"device", device_read},
};

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int count, char **arguments) {
  for (size_t i = 0; i < sizeof costs / sizeof *costs; i++) {
    if (count != 2 || strcmp(arguments[1], costs[i].name)) continue;
    double took[3];
    long operations = 512;
    for (;; operations *= 2) {
      double start = now();
      costs[i].run(operations);
      if (now() - start > 0.2) break;
    }
    for (int turn = 0; turn < 3; turn++) {
      double start = now();
      costs[i].run(operations);
      took[turn] = now() - start;
    }
    qsort(took, 3, sizeof *took, compare);
    printf("%.2f\n", took[1] * 1e9 / operations);
    return 0;
  }
  fprintf(stderr, "usage: micro syscall|switch|fault|tlb|signal|indirect|device\n");
  return 64;
}
