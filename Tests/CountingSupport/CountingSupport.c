#define _GNU_SOURCE
#include "CountingSupport.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
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

// The Swift runtime's reference counting: the program's own functions of these names come before the runtime's. (The hooks
// that the runtime has for tools break strings on other threads in Swift 6.3.) Where these functions have C's calling
// convention: on x86-64.

#if defined(__x86_64__)

static void *next(void **known, const char *name) {
    void *function = __atomic_load_n(known, __ATOMIC_RELAXED);
    if (!function) __atomic_store_n(known, function = dlsym(RTLD_NEXT, name), __ATOMIC_RELAXED);
    return function;
}

#define FORWARD(result_type, name, counter, parameters, arguments)                                                     \
    result_type name parameters {                                                                                      \
        static void *known;                                                                                            \
        if (is_counting) note(&result.counter);                                                                        \
        return ((result_type(*) parameters)next(&known, #name))arguments;                                              \
    }

FORWARD(void *, swift_retain, retains, (void *object), (object))
FORWARD(void *, swift_retain_n, retains, (void *object, uint32_t count), (object, count))
FORWARD(void, swift_release, releases, (void *object), (object))
FORWARD(void, swift_release_n, releases, (void *object, uint32_t count), (object, count))
FORWARD(void *, swift_bridgeObjectRetain, retains, (void *object), (object))
FORWARD(void *, swift_bridgeObjectRetain_n, retains, (void *object, int count), (object, count))
FORWARD(void, swift_bridgeObjectRelease, releases, (void *object), (object))
FORWARD(void, swift_bridgeObjectRelease_n, releases, (void *object, int count), (object, count))
FORWARD(void *, swift_unownedRetainStrong, retains, (void *object), (object))

// Nothing to count where the reference is nil.
void *swift_weakLoadStrong(void *reference) {
    static void *known;
    void *object = ((void *(*)(void *))next(&known, "swift_weakLoadStrong"))(reference);
    if (is_counting && object) note(&result.retains);
    return object;
}

int counting_is_possible(void) { return dlsym(RTLD_NEXT, "swift_retain") != NULL; }

#else

int counting_is_possible(void) { return 0; }

#endif

void counting_begin(void) {
    memset(&result, 0, sizeof result);
    // The first backtrace loads a library.
    void *warm[2];
    backtrace(warm, 2);
    is_counting = 1;
}

struct counting_result counting_end(void) {
    is_counting = 0;
    return result;
}

const char *counting_name(uintptr_t address) {
    Dl_info information;
    if (!dladdr((void *)address, &information) || !information.dli_sname) return "?";
    return information.dli_sname;
}
