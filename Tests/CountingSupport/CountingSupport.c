#define _GNU_SOURCE
#include "CountingSupport.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

static __thread struct counting_result result;
static __thread int is_counting;

static void note(uint64_t *counter) {
    ++*counter;
    if (result.stack[0]) return;
    is_counting = 0;
    backtrace((void **)result.stack, 24);
    is_counting = 1;
}

// malloc and its relatives: the program's own come before the C library's.

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
    if (is_counting) note(&result.allocations);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    if (is_counting) note(&result.allocations);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    if (is_counting) note(&result.allocations);
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    if (is_counting) note(&result.allocations);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **place, size_t alignment, size_t size) {
    void *memory = memalign(alignment, size);
    if (!memory) return ENOMEM;
    *place = memory;
    return 0;
}

// The Swift runtime's reference counting, which may expect more registers to be kept than C does.

#define KEEP __attribute__((preserve_most))
typedef void *(*KEEP retain_function)(void *);
typedef void (*KEEP release_function)(void *);
typedef void *(*KEEP retain_n_function)(void *, uint32_t);
typedef void (*KEEP release_n_function)(void *, uint32_t);

static atomic_bool *is_looked_at;
static retain_function next_retain;
static release_function next_release;
static retain_n_function next_retain_n;
static release_n_function next_release_n;

KEEP static void *count_retain(void *object) {
    if (is_counting) note(&result.retains);
    return next_retain(object);
}

KEEP static void count_release(void *object) {
    if (is_counting) note(&result.releases);
    next_release(object);
}

KEEP static void *count_retain_n(void *object, uint32_t count) {
    if (is_counting) note(&result.retains);
    return next_retain_n(object, count);
}

KEEP static void count_release_n(void *object, uint32_t count) {
    if (is_counting) note(&result.releases);
    next_release_n(object, count);
}

int counting_is_possible(void) {
    static atomic_int known;
    if (known) return known - 1;
    // swift/stdlib/public/runtime/HeapObject.cpp: function pointers for tools, looked at where the flag says so.
    is_looked_at = dlsym(RTLD_DEFAULT, "_swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly");
    retain_function *retain = dlsym(RTLD_DEFAULT, "_swift_retain");
    release_function *release = dlsym(RTLD_DEFAULT, "_swift_release");
    retain_n_function *retain_n = dlsym(RTLD_DEFAULT, "_swift_retain_n");
    release_n_function *release_n = dlsym(RTLD_DEFAULT, "_swift_release_n");
    if (!is_looked_at || !retain || !release || !retain_n || !release_n) {
        known = 1;
        return 0;
    }
    next_retain = *retain;
    next_release = *release;
    next_retain_n = *retain_n;
    next_release_n = *release_n;
    *retain = count_retain;
    *release = count_release;
    *retain_n = count_retain_n;
    *release_n = count_release_n;
    known = 2;
    return 1;
}

void counting_begin(void) {
    memset(&result, 0, sizeof result);
    // The first backtrace loads a library.
    void *warm[2];
    backtrace(warm, 2);
    atomic_store(is_looked_at, 1);
    is_counting = 1;
}

struct counting_result counting_end(void) {
    is_counting = 0;
    atomic_store(is_looked_at, 0);
    return result;
}

const char *counting_name(uintptr_t address) {
    Dl_info information;
    if (!dladdr((void *)address, &information) || !information.dli_sname) return "?";
    return information.dli_sname;
}
