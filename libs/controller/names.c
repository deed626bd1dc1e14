/* names.c - sorted names of a request. */
#include <stdlib.h>

#include "libs/base/arena.h"
#include "libs/controller/internal.h"

void name_set_init(struct name_set *s, struct arena *arena, size_t room)
{
    *s = (struct name_set){.items = arena_calloc(arena, room + 1, sizeof *s->items), .room = room};
}

void name_set_add(struct name_set *s, struct slice name, int32_t at)
{
    ASSERT(s->count < s->room);
    s->items[s->count++] = (struct name_at){name, at};
}

static int by_name_then_place(const void *a, const void *b)
{
    const struct name_at *x = a, *y = b;
    int order = slice_cmp(x->name, y->name);
    return order != 0 ? order : (x->at > y->at) - (x->at < y->at);
}

void name_set_seal(struct name_set *s)
{
    if (s->count > 0)
        qsort(s->items, s->count, sizeof s->items[0], by_name_then_place);
}

/* The first item that is not below the name (above it, if so asked). */
static size_t bound(const struct name_set *s, struct slice name, bool above)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_cmp(s->items[middle].name, name);
        if (order < 0 || (above && order == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t name_set_find(const struct name_set *s, struct slice name, int32_t *ret_first)
{
    size_t first = bound(s, name, false), end = bound(s, name, true);
    if (ret_first != NULL && end > first)
        *ret_first = s->items[first].at;
    return (int32_t)(end - first);
}
