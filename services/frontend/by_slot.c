#include "services/frontend/server.h"

#include <stdlib.h>

void by_slot_set(struct by_slot *s, uint64_t id, void *item)
{
    uint32_t at = (uint32_t)id;

    if (at >= s->size) {
        uint32_t size = MAX(at + 1, s->size * 2 + SLOTS_GROWTH);
        s->items = xrealloc(s->items, size * sizeof *s->items);
        memset(s->items + s->size, 0, (size - s->size) * sizeof *s->items);
        s->size = size;
    }
    s->items[at] = item;
}

void *by_slot_get(const struct by_slot *s, uint64_t id)
{
    return (uint32_t)id < s->size ? s->items[(uint32_t)id] : NULL;
}
