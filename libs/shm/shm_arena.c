/* shm_arena.c - three maps with a bit a page: in use, used since the last trim, touched since the page was last given
 * back. */
#include "libs/shm/shm_arena.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, WORD_BITS = 64 };

struct shm_arena {
    int32_t count; /* atomic: the owner's, and one a block */
    int fd;
    uint64_t id;
    uint8_t *data;
    size_t size, pages, words;
    uint64_t *used, *recent, *touched;
    size_t lowest; /* no page below it is free */
    size_t used_pages;
    bool wants_trim;
    struct shm_block *spare;    /* structs without pages */
    struct shm_block *returned; /* atomic: blocks whose last count is gone */
};

/* ---- maps ---- */

static void set_range(uint64_t *map, size_t at, size_t count, bool to)
{
    while (count > 0) {
        size_t bit = at % WORD_BITS, n = MIN(count, WORD_BITS - bit);
        uint64_t mask = (n == WORD_BITS ? UINT64_MAX : (UINT64_C(1) << n) - 1) << bit;
        if (to)
            map[at / WORD_BITS] |= mask;
        else
            map[at / WORD_BITS] &= ~mask;
        at += n;
        count -= n;
    }
}

/* The first page from at on whose bit is `is`, or end. */
static size_t find_bit(const uint64_t *map, size_t at, size_t end, bool is)
{
    while (at < end) {
        uint64_t word = (is ? map[at / WORD_BITS] : ~map[at / WORD_BITS]) >> (at % WORD_BITS);
        if (word != 0)
            return MIN(at + (size_t)__builtin_ctzll(word), end);
        at += WORD_BITS - at % WORD_BITS;
    }
    return end;
}

static size_t count_bits(const struct shm_arena *a, const uint64_t *map)
{
    size_t n = 0;

    for (size_t i = 0; i < a->words; i++)
        n += (size_t)__builtin_popcountll(map[i]);
    return n;
}

/* ---- life ---- */

static void free_blocks(struct shm_block *list)
{
    while (list != NULL) {
        struct shm_block *b = list;
        list = b->next;
        free(b);
    }
}

static void destroy(struct shm_arena *a)
{
    free_blocks(a->spare);
    free_blocks(a->returned);
    munmap(a->data, a->size);
    close(a->fd);
    free(a->used);
    free(a->recent);
    free(a->touched);
    free(a);
}

static void release(struct shm_arena *a)
{
    if (__atomic_sub_fetch(&a->count, 1, __ATOMIC_ACQ_REL) == 0)
        destroy(a);
}

/* A memfd of that size which nobody can make smaller; or -errno. */
static int open_memory(size_t size)
{
    int fd = memfd_create("karst-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        int e = -errno;
        close(fd);
        return e;
    }
    return fd;
}

struct shm_arena *shm_arena_new(uint64_t id, size_t bytes, int *ret_error)
{
    size_t pages = (bytes + PAGE - 1) / PAGE;

    ASSERT(id != 0 && bytes > 0);
    int fd = open_memory(pages * PAGE);
    if (fd < 0) {
        *ret_error = fd;
        return NULL;
    }
    void *data = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (data == MAP_FAILED) {
        *ret_error = -errno;
        close(fd);
        return NULL;
    }
    struct shm_arena *a = xcalloc(1, sizeof *a);
    size_t words = (pages + WORD_BITS - 1) / WORD_BITS;
    *a = (struct shm_arena){
        .count = 1, .fd = fd, .id = id, .data = data, .size = pages * PAGE, .pages = pages, .words = words};
    a->used = xcalloc(words, sizeof *a->used);
    a->recent = xcalloc(words, sizeof *a->recent);
    a->touched = xcalloc(words, sizeof *a->touched);
    return a;
}

struct shm_arena *shm_arena_free(struct shm_arena *a)
{
    if (a != NULL)
        release(a);
    return NULL;
}

int shm_arena_fd(const struct shm_arena *a)
{
    return a->fd;
}
uint64_t shm_arena_id(const struct shm_arena *a)
{
    return a->id;
}
size_t shm_arena_size(const struct shm_arena *a)
{
    return a->size;
}
size_t shm_arena_used(const struct shm_arena *a)
{
    return a->used_pages * PAGE;
}
size_t shm_arena_touched(const struct shm_arena *a)
{
    return count_bits(a, a->touched) * PAGE;
}
bool shm_arena_wants_trim(const struct shm_arena *a)
{
    return a->wants_trim || __atomic_load_n(&a->returned, __ATOMIC_RELAXED) != NULL;
}

bool shm_arena_holds(const struct shm_arena *a, struct slice bytes)
{
    if (a == NULL || (uintptr_t)bytes.data < (uintptr_t)a->data)
        return false;
    size_t at = (uintptr_t)bytes.data - (uintptr_t)a->data;
    return at <= a->size && bytes.size <= a->size - at;
}

uint64_t shm_arena_position(const struct shm_arena *a, const uint8_t *data)
{
    return (uint64_t)(data - a->data);
}

/* ---- blocks ---- */

/* In any thread. The arena lives at least until release: the block has a count of it. */
static void give_back(struct ref_owner *owner)
{
    struct shm_block *b = CONTAINER_OF(owner, struct shm_block, owner);
    struct shm_arena *a = b->arena;

    b->next = __atomic_load_n(&a->returned, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&a->returned, &b->next, b, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
    release(a);
}

static void take_returned(struct shm_arena *a)
{
    if (__atomic_load_n(&a->returned, __ATOMIC_RELAXED) == NULL)
        return;
    struct shm_block *b = __atomic_exchange_n(&a->returned, NULL, __ATOMIC_ACQUIRE);
    while (b != NULL) {
        struct shm_block *next = b->next;
        size_t at = (size_t)(b->data - a->data) / PAGE, count = b->capacity / PAGE;
        set_range(a->used, at, count, false);
        a->used_pages -= count;
        a->lowest = MIN(a->lowest, at);
        b->next = a->spare;
        a->spare = b;
        b = next;
    }
}

/* The first of count free pages in a row, or a->pages. */
static size_t find_room(struct shm_arena *a, size_t count)
{
    a->lowest = find_bit(a->used, a->lowest, a->pages, false);
    for (size_t at = a->lowest; count <= a->pages - at;) {
        size_t end = find_bit(a->used, at, at + count, true);
        if (end == at + count)
            return at;
        at = find_bit(a->used, end, a->pages, false);
    }
    return a->pages;
}

struct shm_block *shm_arena_alloc(struct shm_arena *a, size_t size)
{
    ASSERT(size > 0);
    take_returned(a);
    if (size > a->size)
        return NULL;
    size_t count = (size + PAGE - 1) / PAGE, at = find_room(a, count);
    if (at == a->pages)
        return NULL;
    struct shm_block *b = a->spare;
    if (b != NULL)
        a->spare = b->next;
    else
        b = xmalloc(sizeof *b);
    *b = (struct shm_block){.data = a->data + at * PAGE, .capacity = count * PAGE, .arena = a};
    ref_owner_init(&b->owner, give_back);
    set_range(a->used, at, count, true);
    set_range(a->recent, at, count, true);
    set_range(a->touched, at, count, true);
    a->used_pages += count;
    a->wants_trim = true;
    __atomic_add_fetch(&a->count, 1, __ATOMIC_RELAXED);
    return b;
}

bool shm_arena_trim(struct shm_arena *a)
{
    bool more = false;

    take_returned(a);
    a->wants_trim = false;
    /* What is given back is in recent no more: mark it there as the pages to look at. */
    for (size_t i = 0; i < a->words; i++) {
        uint64_t idle = a->touched[i] & ~a->used[i], out = idle & ~a->recent[i];
        more = more || (idle & a->recent[i]) != 0;
        a->recent[i] = out;
    }
    for (size_t at = find_bit(a->recent, 0, a->pages, true); at < a->pages;
         at = find_bit(a->recent, at, a->pages, true)) {
        size_t end = find_bit(a->recent, at, a->pages, false);
        if (fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(at * PAGE),
                      (off_t)((end - at) * PAGE)) == 0)
            set_range(a->touched, at, end - at, false);
        at = end;
    }
    memcpy(a->recent, a->used, a->words * sizeof *a->recent);
    return more;
}
