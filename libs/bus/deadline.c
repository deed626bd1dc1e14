/* deadline.c - the heap of deadlines: calls that wait for their end, and rpcs that wait for metadata. Each knows its
 * place, so that it can leave from anywhere. */
#include <stdlib.h>

#include "libs/bus/link_internal.h"

static void heap_put(struct link_core *l, size_t i, struct deadline *d)
{
    l->heap[i] = d;
    d->index = i;
}

static void heap_up(struct link_core *l, size_t i, struct deadline *d)
{
    for (; i > 1 && l->heap[i / 2]->at_ms > d->at_ms; i /= 2)
        heap_put(l, i, l->heap[i / 2]);
    heap_put(l, i, d);
}

static void heap_down(struct link_core *l, size_t i, struct deadline *d)
{
    for (size_t child; (child = 2 * i) <= l->heap_count; i = child) {
        if (child < l->heap_count && l->heap[child + 1]->at_ms < l->heap[child]->at_ms)
            child++;
        if (l->heap[child]->at_ms >= d->at_ms)
            break;
        heap_put(l, i, l->heap[child]);
    }
    heap_put(l, i, d);
}

void link_deadline_set(struct link_core *l, struct deadline *d, uint64_t at_ms)
{
    ASSERT(d->index == 0);
    if (l->heap_count + 1 >= l->heap_capacity) {
        l->heap_capacity = l->heap_capacity ? 2 * l->heap_capacity : 64;
        l->heap = xrealloc(l->heap, l->heap_capacity * sizeof(struct deadline *));
    }
    d->at_ms = at_ms;
    heap_up(l, ++l->heap_count, d);
    link_wake_by(l, at_ms);
}

void link_deadline_clear(struct link_core *l, struct deadline *d)
{
    size_t i = d->index;

    if (i == 0)
        return;
    struct deadline *last = l->heap[l->heap_count--];
    d->index = 0;
    if (last == d)
        return;
    if (i > 1 && l->heap[i / 2]->at_ms > last->at_ms)
        heap_up(l, i, last);
    else
        heap_down(l, i, last);
}
