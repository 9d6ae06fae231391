#define _GNU_SOURCE
#include "CHost.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

// Set before the handler can run on the thread; in the program's own block, so that reaching it allocates nothing.
static __thread struct chost_sampler *volatile attached __attribute__((tls_model("initial-exec")));

static uint64_t word(const uint8_t *place) { return *(const volatile uint64_t *)place; }

static void add(struct chost_sampler *sampler, uint64_t pc, uint8_t is_generated) {
    uint32_t head = __atomic_load_n(&sampler->head, __ATOMIC_RELAXED);
    if (head - __atomic_load_n(&sampler->tail, __ATOMIC_ACQUIRE) >= CHOST_SAMPLE_RING) {
        __atomic_store_n(&sampler->lost, sampler->lost + 1, __ATOMIC_RELAXED);
        return;
    }
    struct chost_sample *sample = &sampler->ring[head % CHOST_SAMPLE_RING];
    sample->pc = pc;
    sample->satp = word(sampler->state + sampler->satp);
    sample->privilege = *(const volatile uint8_t *)(sampler->state + sampler->privilege);
    sample->is_generated = is_generated;
    __atomic_store_n(&sampler->head, head + 1, __ATOMIC_RELEASE);
}

static const struct chost_code_place *find(const struct chost_code_map *map, uint64_t code) {
    if (code < map->blocks || code >= map->end || map->count == 0 || code < map->places[0].code) return NULL;
    uint32_t low = 0, high = map->count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (map->places[middle].code <= code) low = middle;
        else high = middle;
    }
    return &map->places[low];
}

// The guest address of a place. The page's base in the state is already the next page's where a jump between pages is
// half done; what is remembered of fetches tells.
static uint64_t address(const struct chost_sampler *sampler, const struct chost_code_place *place) {
    uint64_t base = word(sampler->state + sampler->page_base);
    const uint8_t *entries = (const uint8_t *)word(sampler->state + sampler->fetch_entries);
    const uint8_t *entry = entries + (base >> sampler->fetch_shift & word(sampler->state + sampler->fetch_mask));
    if (word(entry + sampler->fetch_tag) == base) {
        const uint8_t *page = (const uint8_t *)word(entry + sampler->fetch_page);
        if (page && word(page + sampler->page_physical) == place->physical_page) return base + place->offset;
    }
    return place->virtual_page + place->offset;
}

static void handle(int signal, siginfo_t *information, void *context) {
    (void)signal;
    (void)information;
    struct chost_sampler *sampler = attached;
    if (!sampler) return;
    const struct chost_code_map *map = sampler->map;
    if (!map) {
        __atomic_fetch_add(&sampler->wanted, 1, __ATOMIC_RELAXED);
        return;
    }
#if defined(__x86_64__)
    const greg_t *registers = ((const ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t code = (uint64_t)registers[REG_RIP];
    if (code >= map->shared && code < map->end) {
        const struct chost_code_place *place = find(map, code);
        if (code >= map->calls && code < map->blocks) {
            const uint8_t *stack = (const uint8_t *)registers[REG_RSP];
            for (int depth = 0; depth < 3 && !place; ++depth) place = find(map, word(stack + 8 * depth));
        }
        add(sampler, place ? address(sampler, place) : word(sampler->state + sampler->pc), 1);
        return;
    }
#endif
    add(sampler, word(sampler->state + sampler->pc), 0);
}

int chost_sampler_install(void) {
    struct sigaction action = {0};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigfillset(&action.sa_mask);
    return sigaction(SIGPROF, &action, NULL);
}

void chost_sampler_attach(struct chost_sampler *sampler) {
    if (attached) __atomic_store_n(&attached->thread, 0, __ATOMIC_RELEASE);
    attached = sampler;
    if (sampler) __atomic_store_n(&sampler->thread, gettid(), __ATOMIC_RELEASE);
}

void chost_sampler_ask(struct chost_sampler *sampler) {
    int32_t thread = __atomic_load_n(&sampler->thread, __ATOMIC_ACQUIRE);
    if (thread) syscall(SYS_tgkill, getpid(), thread, SIGPROF);
}

void chost_sampler_add(struct chost_sampler *sampler) {
    uint32_t count = __atomic_exchange_n(&sampler->wanted, 0, __ATOMIC_RELAXED);
    while (count--) add(sampler, word(sampler->state + sampler->pc), 0);
}

int chost_sampler_take(struct chost_sampler *sampler, struct chost_sample *sample) {
    uint32_t tail = __atomic_load_n(&sampler->tail, __ATOMIC_RELAXED);
    if (tail == __atomic_load_n(&sampler->head, __ATOMIC_ACQUIRE)) return 0;
    *sample = sampler->ring[tail % CHOST_SAMPLE_RING];
    __atomic_store_n(&sampler->tail, tail + 1, __ATOMIC_RELEASE);
    return 1;
}
