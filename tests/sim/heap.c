/* heap.c - small blocks know their owner (slabs.h); of large ones a hash table does, open addressing. Blocks that
 * neither knows are nobody's: those of shared libraries, and the simulator's own. */
#include "tests/sim/heap.h"

#include "tests/sim/slabs.h"

#include <stdlib.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
void __wrap_free(void *p);
void __wrap_base_tune_heap(void);
void __wrap_base_trim_heap(void);

struct slot {
    void *block; /* NULL: empty */
    uint32_t owner;
};

static struct slot *slots;
static size_t slot_count, used;
static uint32_t current;

static size_t home(const void *p)
{
    return (size_t)(((uintptr_t)p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (slot_count - 1);
}

static void put(void *p, uint32_t owner)
{
    size_t i = home(p);
    while (slots[i].block)
        i = (i + 1) & (slot_count - 1);
    slots[i] = (struct slot){p, owner};
}

static void grow(void)
{
    struct slot *old = slots;
    size_t old_count = slot_count;
    slot_count = slot_count ? 2 * slot_count : 1024;
    slots = __real_calloc(slot_count, sizeof *slots);
    for (size_t i = 0; i < old_count; i++)
        if (old[i].block)
            put(old[i].block, old[i].owner);
    __real_free(old);
}

static void *note(void *p, uint32_t owner)
{
    if (p == NULL || owner == 0)
        return p;
    if (2 * used >= slot_count)
        grow();
    put(p, owner);
    used++;
    return p;
}

/* Takes p out of the table and gives its owner; what followed it in its run moves up. */
static uint32_t forget(const void *p)
{
    if (p == NULL || used == 0)
        return 0;
    size_t i = home(p);
    while (slots[i].block != p) {
        if (slots[i].block == NULL)
            return 0;
        i = (i + 1) & (slot_count - 1);
    }
    uint32_t owner = slots[i].owner;
    slots[i].block = NULL;
    used--;
    for (size_t j = (i + 1) & (slot_count - 1); slots[j].block; j = (j + 1) & (slot_count - 1)) {
        struct slot moved = slots[j];
        slots[j].block = NULL;
        put(moved.block, moved.owner);
    }
    return owner;
}

uint32_t heap_enter(uint32_t owner)
{
    uint32_t before = current;
    if (owner != before)
        slabs_enter(owner);
    current = owner;
    return before;
}

void heap_free_all(uint32_t owner)
{
    slabs_give_back_all(owner);
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < slot_count; i++)
            while (slots[i].block && slots[i].owner == owner) {
                void *p = slots[i].block;
                forget(p);
                __real_free(p);
                again = true;
            }
    }
}

static void *take_large(size_t size)
{
    return note(__real_malloc(size), current);
}

void *__wrap_malloc(size_t size)
{
    void *p = slabs_take(size);
    return p != NULL ? p : take_large(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *p = slabs_take(bytes);
    return p != NULL ? memset(p, 0, bytes) : note(__real_calloc(count, size), current);
}

/* What grows out of the slabs. */
static void *move_out(void *p, size_t size)
{
    void *moved = note(__real_malloc(size), slabs_owner(p));
    if (moved != NULL) {
        memcpy(moved, p, slabs_size(p));
        slabs_give_back(p);
    }
    return moved;
}

/* A block keeps its owner. */
void *__wrap_realloc(void *p, size_t size)
{
    if (p == NULL)
        return __wrap_malloc(size);
    if (slabs_has(p)) {
        void *resized = slabs_resize(p, size);
        return resized != NULL ? resized : move_out(p, size);
    }
    uint32_t owner = forget(p);
    return note(__real_realloc(p, size), owner);
}

void __wrap_free(void *p)
{
    if (slabs_has(p)) {
        slabs_give_back(p);
        return;
    }
    (void)forget(p);
    __real_free(p);
}

/* One heap serves all processes: what one of them gives back is what the next one takes (main.c tunes it). */
void __wrap_base_tune_heap(void) {}

void __wrap_base_trim_heap(void) {}
