/* slabs.c - see slabs.h. An owner has chunks of 64 KiB; a chunk has blocks of one size, and at its start says whose it
 * is. With the address sanitizer every block is too large: malloc is to see them all. */
#include "tests/sim/slabs.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <utlist.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
enum { BLOCK_MAX = 0 };
#else
enum { BLOCK_MAX = 16 << 10 };
#endif
enum { CHUNK_BYTES = 64 << 10, STEP = 16, SMALL_MAX = 512, SIZES = 64 };
#define RESERVED_BYTES (UINT64_C(64) << 30)

struct free_block {
    struct free_block *next;
};

struct chunk {
    struct holder *holder;
    uint32_t size, size_class; /* of its blocks */
    uint32_t used, next_fresh; /* blocks that are out; where those begin that never were */
    struct free_block *free;
    bool is_full;
    struct chunk *prev, *next;
};

/* What an owner has. */
struct holder {
    uint32_t owner;
    struct chunk *open[SIZES], *full; /* by size */
};

static uint8_t *reserved, *reserved_next;
static uint64_t reserved_bytes; /* 0: not yet */
static struct chunk *free_chunks;
static struct holder **holders; /* by owner */
static size_t holder_room;
static struct holder *current;

void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);

/* ---- sizes: by 16 up to 512, then four to each doubling ---- */

static uint32_t class_of(size_t size)
{
    if (size <= SMALL_MAX)
        return size == 0 ? 0 : (uint32_t)(size - 1) / STEP;
    uint32_t log = 63 - (uint32_t)__builtin_clzll(size - 1);
    return SMALL_MAX / STEP + (log - 9) * 4 + (uint32_t)((size - 1) >> (log - 2) & 3);
}

static uint32_t size_of_class(uint32_t c)
{
    if (c < SMALL_MAX / STEP)
        return (c + 1) * STEP;
    uint32_t large = c - SMALL_MAX / STEP;
    return (large % 4 + 5) << (large / 4 + 7);
}

/* ---- chunks ---- */

static void reserve(void)
{
    void *p = mmap(NULL, RESERVED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        BUG("no address space for blocks");
    reserved = p;
    reserved_bytes = RESERVED_BYTES;
    reserved_next = reserved + (CHUNK_BYTES - (uintptr_t)reserved % CHUNK_BYTES);
}

static struct chunk *new_chunk(struct holder *h, uint32_t size_class)
{
    struct chunk *c = free_chunks;
    if (c != NULL) {
        free_chunks = c->next;
    } else {
        if (reserved_next + CHUNK_BYTES > reserved + RESERVED_BYTES)
            BUG("no room for blocks");
        c = (struct chunk *)(void *)reserved_next;
        reserved_next += CHUNK_BYTES;
    }
    *c = (struct chunk){.holder = h, .size_class = size_class, .size = size_of_class(size_class)};
    c->next_fresh = (sizeof *c + STEP - 1) / STEP * STEP;
    DL_PREPEND(h->open[size_class], c);
    return c;
}

static void drop_chunk(struct chunk *c)
{
    c->next = free_chunks;
    free_chunks = c;
}

static struct chunk *chunk_of(const void *block)
{
    return (struct chunk *)((uintptr_t)block & ~(uintptr_t)(CHUNK_BYTES - 1));
}

bool slabs_has(const void *block)
{
    return (uintptr_t)block - (uintptr_t)reserved < reserved_bytes;
}

size_t slabs_size(const void *block)
{
    return chunk_of(block)->size;
}

uint32_t slabs_owner(const void *block)
{
    return chunk_of(block)->holder->owner;
}

/* ---- owners ---- */

static void make_holder(uint32_t owner)
{
    if (owner >= holder_room) {
        size_t room = MAX((size_t)owner + 1, 2 * holder_room + 64);
        holders = __real_realloc(holders, room * sizeof(struct holder *));
        if (holders == NULL)
            BUG("out of memory");
        memset(holders + holder_room, 0, (room - holder_room) * sizeof(struct holder *));
        holder_room = room;
    }
    holders[owner] = __real_calloc(1, sizeof(struct holder));
    if (holders[owner] == NULL)
        BUG("out of memory");
    holders[owner]->owner = owner;
}

void slabs_enter(uint32_t owner)
{
    if (owner >= holder_room || holders[owner] == NULL)
        make_holder(owner);
    current = holders[owner];
}

void slabs_give_back_all(uint32_t owner)
{
    struct holder *h = owner < holder_room ? holders[owner] : NULL;
    if (h == NULL)
        return;
    ASSERT(h != current);
    struct chunk *c, *next;
    for (uint32_t i = 0; i < SIZES; i++)
        DL_FOREACH_SAFE(h->open[i], c, next) drop_chunk(c);
    DL_FOREACH_SAFE(h->full, c, next) drop_chunk(c);
    __real_free(h);
    holders[owner] = NULL;
}

/* ---- blocks ---- */

static void *take_from(struct chunk *c)
{
    struct free_block *b = c->free;
    if (b != NULL) {
        c->free = b->next;
    } else {
        b = (struct free_block *)(void *)((uint8_t *)c + c->next_fresh);
        c->next_fresh += c->size;
    }
    c->used++;
    return b;
}

static void *take(struct holder *h, size_t size)
{
    uint32_t size_class = class_of(size);
    struct chunk *c = h->open[size_class] != NULL ? h->open[size_class] : new_chunk(h, size_class);
    void *block = take_from(c);
    if (c->free == NULL && c->next_fresh + c->size > CHUNK_BYTES) {
        DL_DELETE(h->open[size_class], c);
        DL_PREPEND(h->full, c);
        c->is_full = true;
    }
    return block;
}

void *slabs_take(size_t size)
{
    if (size > BLOCK_MAX)
        return NULL;
    if (reserved == NULL)
        reserve();
    if (current == NULL)
        slabs_enter(0);
    return take(current, size);
}

void slabs_give_back(void *block)
{
    struct chunk *c = chunk_of(block);
    struct holder *h = c->holder;
    struct free_block *b = block;
    ASSERT(c->used > 0);
    b->next = c->free;
    c->free = b;
    c->used--;
    if (c->is_full) {
        DL_DELETE(h->full, c);
        DL_PREPEND(h->open[c->size_class], c);
        c->is_full = false;
    } else if (c->used == 0 && h->open[c->size_class] != c) {
        DL_DELETE(h->open[c->size_class], c);
        drop_chunk(c);
    }
}

void *slabs_resize(void *block, size_t size)
{
    const struct chunk *c = chunk_of(block);
    if (size > BLOCK_MAX)
        return NULL;
    if (class_of(size) == c->size_class)
        return block;
    void *moved = take(c->holder, size);
    memcpy(moved, block, MIN(size, (size_t)c->size));
    slabs_give_back(block);
    return moved;
}
