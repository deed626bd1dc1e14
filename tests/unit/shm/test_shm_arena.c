/* test_shm_arena.c - blocks of the shared arena: whose pages they are, where they lie, what is given back. */
#include "libs/shm/shm_arena.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096 };

static struct shm_arena *make(size_t bytes)
{
    int e = 0;
    struct shm_arena *a = shm_arena_new(7, bytes, &e);

    cr_assert_not_null(a, "%d", e);
    return a;
}

static struct shm_block *alloc(struct shm_arena *a, size_t size)
{
    struct shm_block *b = shm_arena_alloc(a, size);

    cr_assert_not_null(b);
    cr_assert_geq(b->capacity, size);
    return b;
}

static void drop(struct shm_block *b)
{
    ref_owner_release(&b->owner);
}

static uint64_t position(const struct shm_block *b)
{
    return shm_arena_position(b->arena, b->data);
}

static size_t memory_of(const struct shm_arena *a)
{
    struct stat st;

    cr_assert_eq(fstat(shm_arena_fd(a), &st), 0);
    return (size_t)st.st_blocks * 512;
}

Test(shm_arena, is_sealed_and_takes_no_memory)
{
    struct shm_arena *a = make(100 * PAGE + 1);
    int seals = fcntl(shm_arena_fd(a), F_GET_SEALS);

    cr_assert_eq(seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    cr_assert_neq(ftruncate(shm_arena_fd(a), 0), 0);
    cr_assert_eq(shm_arena_size(a), 101 * PAGE);
    cr_assert_eq(shm_arena_id(a), 7);
    cr_assert_eq(memory_of(a), 0);
    drop(alloc(a, 50 * PAGE));
    cr_assert_eq(memory_of(a), 0, "only what is written takes memory");
    shm_arena_free(a);
}

Test(shm_arena, blocks_are_the_lowest_that_fit)
{
    struct shm_arena *a = make(200 * PAGE);
    struct shm_block *x = alloc(a, 1), *y = alloc(a, 70 * PAGE), *z = alloc(a, PAGE + 1);

    cr_assert_eq(position(x), 0);
    cr_assert_eq(position(y), PAGE);
    cr_assert_eq(position(z), 71 * PAGE);
    cr_assert_eq(z->capacity, 2 * PAGE);
    drop(y);
    y = alloc(a, 71 * PAGE);
    cr_assert_eq(position(y), 73 * PAGE, "the hole is too small");
    drop(y);
    y = alloc(a, 3 * PAGE);
    cr_assert_eq(position(y), PAGE);
    struct shm_block *w = alloc(a, 67 * PAGE);
    cr_assert_eq(position(w), 4 * PAGE, "the hole to its last page");
    drop(x);
    drop(y);
    drop(z);
    drop(w);
    x = alloc(a, 200 * PAGE);
    cr_assert_eq(position(x), 0);
    cr_assert_null(shm_arena_alloc(a, 1));
    drop(x);
    cr_assert_null(shm_arena_alloc(a, 201 * PAGE));
    cr_assert_null(shm_arena_alloc(a, SIZE_MAX));
    shm_arena_free(a);
}

Test(shm_arena, whose_bytes)
{
    struct shm_arena *a = make(4 * PAGE);
    struct shm_block *b = alloc(a, PAGE);
    uint8_t other;

    cr_assert(shm_arena_holds(a, slice_make(b->data, PAGE)));
    cr_assert(shm_arena_holds(a, slice_make(b->data + 4 * PAGE, 0)));
    cr_assert_not(shm_arena_holds(a, slice_make(b->data + 4 * PAGE, 1)));
    cr_assert_not(shm_arena_holds(a, slice_make(b->data + PAGE, 3 * PAGE + 1)));
    cr_assert_not(shm_arena_holds(a, slice_make(&other, 1)));
    cr_assert_not(shm_arena_holds(a, SLICE_NULL));
    cr_assert_not(shm_arena_holds(NULL, slice_make(b->data, 1)));
    drop(b);
    shm_arena_free(a);
}

Test(shm_arena, blocks_outlive_their_arena)
{
    struct shm_arena *a = make(4 * PAGE);
    struct shm_block *b = alloc(a, PAGE), *c = alloc(a, PAGE);

    drop(c);
    shm_arena_free(a);
    memset(b->data, 1, PAGE);
    drop(b);
}

Test(shm_arena, trim_gives_back_what_was_not_used_for_a_while)
{
    struct shm_arena *a = make(100 * PAGE);
    struct shm_block *low = alloc(a, 10 * PAGE), *b = alloc(a, 20 * PAGE);

    memset(low->data, 1, low->capacity);
    memset(b->data, 2, b->capacity);
    cr_assert(shm_arena_wants_trim(a));
    cr_assert_not(shm_arena_trim(a), "all is in use");
    cr_assert_not(shm_arena_wants_trim(a));
    cr_assert_eq(memory_of(a), 30 * PAGE);
    drop(b);
    cr_assert(shm_arena_wants_trim(a), "a block came back");
    cr_assert(shm_arena_trim(a), "it was in use since the trim before");
    cr_assert_eq(memory_of(a), 30 * PAGE);
    cr_assert_not(shm_arena_trim(a));
    cr_assert_eq(memory_of(a), 10 * PAGE);
    cr_assert_eq(shm_arena_touched(a), 10 * PAGE);
    cr_assert_eq(shm_arena_used(a), 10 * PAGE);
    cr_assert_eq(low->data[10 * PAGE - 1], 1);
    b = alloc(a, PAGE);
    cr_assert_eq(b->data[0], 0);
    drop(b);
    drop(low);
    shm_arena_free(a);
}

Test(shm_arena, pages_that_are_used_again_and_again_stay)
{
    struct shm_arena *a = make(100 * PAGE);

    for (int i = 0; i < 5; i++) {
        struct shm_block *b = alloc(a, 8 * PAGE);
        memset(b->data, i + 1, b->capacity);
        drop(b);
        cr_assert(shm_arena_trim(a));
        cr_assert_eq(memory_of(a), 8 * PAGE);
    }
    cr_assert_not(shm_arena_trim(a));
    cr_assert_eq(memory_of(a), 0);
    shm_arena_free(a);
}

/* ---- counts dropped by another thread ---- */

enum { ROUNDS = 20000, HANDED = 16 };

static struct shm_block *handed[HANDED];
static bool is_over;

static void *drop_all(void *unused UNUSED)
{
    while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE))
        for (int i = 0; i < HANDED; i++) {
            struct shm_block *b = __atomic_exchange_n(&handed[i], NULL, __ATOMIC_ACQ_REL);
            if (b != NULL)
                drop(b);
        }
    return NULL;
}

Test(shm_arena, any_thread_may_drop_the_last_count)
{
    struct shm_arena *a = make(40 * PAGE);
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, drop_all, NULL), 0);
    for (size_t i = 0; i < ROUNDS; i++) {
        struct shm_block *b = shm_arena_alloc(a, 1 + i % 3 * PAGE);
        if (b == NULL)
            continue;
        memset(b->data, (int)i, 64);
        struct shm_block *before = __atomic_exchange_n(&handed[i % HANDED], b, __ATOMIC_ACQ_REL);
        if (before != NULL)
            drop(before);
        if (i % 1000 == 0)
            (void)shm_arena_trim(a);
    }
    __atomic_store_n(&is_over, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    for (int i = 0; i < HANDED; i++)
        if (handed[i] != NULL)
            drop(handed[i]);
    (void)shm_arena_trim(a);
    cr_assert_eq(shm_arena_used(a), 0);
    shm_arena_free(a);
}

/* Blocks of all sizes at random against a plain map of whose each page is. */
Test(shm_arena, no_page_is_twice_in_use)
{
    enum { PAGES = 300, LIVE = 40 };
    struct shm_arena *a = make(PAGES * PAGE);
    struct shm_block *live[LIVE] = {NULL};
    bool taken[PAGES] = {false};
    uint32_t seed = 1;

    for (int i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        struct shm_block **b = &live[seed >> 8 & 31];
        size_t size = 1 + (seed >> 13) % (30 * PAGE);
        bool had = *b != NULL;
        if (had) {
            memset(&taken[position(*b) / PAGE], false, (*b)->capacity / PAGE);
            drop(*b);
            *b = NULL;
        }
        if (!had && (*b = shm_arena_alloc(a, size)) != NULL)
            for (size_t n = 0; n < (*b)->capacity / PAGE; n++) {
                cr_assert_not(taken[position(*b) / PAGE + n]);
                taken[position(*b) / PAGE + n] = true;
            }
        if (i % 97 == 0)
            (void)shm_arena_trim(a);
    }
    for (int i = 0; i < LIVE; i++)
        if (live[i] != NULL)
            drop(live[i]);
    shm_arena_free(a);
}
