#include "libs/pipeline/slots.h"

#include <stdlib.h>

uint64_t slots_add(struct slots *s, void *item)
{
    ASSERT(item != NULL);
    if (s->first_free == 0) {
        uint32_t size = s->size ? s->size * 2 : 16;
        s->slots = xrealloc(s->slots, size * sizeof *s->slots);
        for (uint32_t i = size; i-- > s->size;) {
            s->slots[i] = (struct slot){.generation = 1, .next_free = s->first_free};
            s->first_free = i + 1;
        }
        s->size = size;
    }
    uint32_t at = s->first_free - 1;
    s->first_free = s->slots[at].next_free;
    s->slots[at].item = item;
    s->used++;
    return (uint64_t)s->slots[at].generation << 32 | at;
}

void *slots_get(const struct slots *s, uint64_t id)
{
    uint32_t at = (uint32_t)id;

    if (at >= s->size || s->slots[at].generation != id >> 32)
        return NULL;
    return s->slots[at].item;
}

void slots_remove(struct slots *s, uint64_t id)
{
    uint32_t at = (uint32_t)id;

    ASSERT(slots_get(s, id) != NULL);
    s->slots[at].item = NULL;
    s->used--;
    /* A slot whose generations are used up is never used again, so that no id comes twice. */
    if (++s->slots[at].generation == 0)
        return;
    s->slots[at].next_free = s->first_free;
    s->first_free = at + 1;
}

void slots_free(struct slots *s)
{
    free(s->slots);
    *s = (struct slots){0};
}
