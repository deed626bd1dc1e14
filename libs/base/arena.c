#include "libs/base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { ARENA_BLOCK = 4096 - 64, ARENA_ALIGN = 16 };

struct block {
    struct block *next;
    size_t size, used; /* of data */
    _Alignas(16) uint8_t data[];
};

struct arena {
    struct block *head;
    size_t used, limit;
};

struct arena *arena_new(size_t limit_bytes)
{
    struct arena *a = xcalloc(1, sizeof *a);
    a->limit = limit_bytes ? limit_bytes : SIZE_MAX;
    return a;
}

static void free_blocks(struct block *b)
{
    while (b != NULL) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
}

struct arena *arena_free(struct arena *a)
{
    if (a != NULL)
        free_blocks(a->head);
    free(a);
    return NULL;
}

void arena_reset(struct arena *a)
{
    if (a->head != NULL) {
        free_blocks(a->head->next);
        a->head->next = NULL;
        a->head->used = 0;
        if (a->head->size > ARENA_BLOCK) {
            free(a->head);
            a->head = NULL;
        }
    }
    a->used = 0;
}

size_t arena_used(const struct arena *a)
{
    return a->used;
}

void *arena_try_alloc(struct arena *a, size_t size)
{
    if (size > a->limit || a->used > a->limit - size || size > SIZE_MAX / 2)
        return NULL;
    size_t rounded = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct block *b = a->head;
    if (b == NULL || b->size - b->used < rounded) {
        size_t want = rounded > ARENA_BLOCK ? rounded : ARENA_BLOCK;
        b = xmalloc(sizeof *b + want);
        b->size = want;
        b->used = 0;
        b->next = a->head;
        a->head = b;
    }
    void *p = b->data + b->used;
    b->used += rounded;
    a->used += size;
    return p;
}

void *arena_alloc(struct arena *a, size_t size)
{
    void *p = arena_try_alloc(a, size);
    ASSERT(p != NULL);
    return p;
}

void *arena_grow(struct arena *a, void *items, size_t count, int32_t *room, size_t size)
{
    if (count < (size_t)*room)
        return items;
    *room = MAX(2 * *room, 16);
    void *more = arena_alloc(a, (size_t)*room * size);
    if (count > 0)
        memcpy(more, items, count * size);
    return more;
}

void *arena_calloc(struct arena *a, size_t count, size_t size)
{
    ASSERT(size == 0 || count <= SIZE_MAX / 2 / size);
    void *p = arena_alloc(a, count * size);
    memset(p, 0, count * size);
    return p;
}

struct slice arena_dup(struct arena *a, struct slice s)
{
    if (s.data == NULL)
        return s;
    uint8_t *p = arena_alloc(a, s.size);
    if (s.size)
        memcpy(p, s.data, s.size);
    return (struct slice){p, s.size};
}

char *arena_str(struct arena *a, struct slice s)
{
    char *p = arena_alloc(a, s.size + 1);
    if (s.size)
        memcpy(p, s.data, s.size);
    p[s.size] = '\0';
    return p;
}

char *arena_printf(struct arena *a, const char *format, ...)
{
    va_list first, again;

    va_start(first, format);
    va_copy(again, first);
    int n = vsnprintf(NULL, 0, format, first);
    va_end(first);
    ASSERT(n >= 0);
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    return p;
}
