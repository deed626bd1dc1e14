/* timer.c - deadlines in a binary heap; each timer knows its place, so that moving one costs O(log n). Equal deadlines
 * fire in an order that depends only on what was done before: the same steps give the same order. */
#include "libs/groups/core.h"

static void place(struct timers *h, size_t i, struct timer *t)
{
    h->heap[i] = t;
    t->place = i + 1;
}

static void sift_up(struct timers *h, size_t i)
{
    struct timer *t = h->heap[i];
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (h->heap[parent]->due_ms <= t->due_ms)
            break;
        place(h, i, h->heap[parent]);
        i = parent;
    }
    place(h, i, t);
}

static void sift_down(struct timers *h, size_t i)
{
    struct timer *t = h->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && h->heap[child + 1]->due_ms < h->heap[child]->due_ms)
            child++;
        if (t->due_ms <= h->heap[child]->due_ms)
            break;
        place(h, i, h->heap[child]);
        i = child;
    }
    place(h, i, t);
}

void timer_set(struct timers *h, struct timer *t, enum timer_kind kind, uint64_t due_ms)
{
    t->kind = kind;
    t->due_ms = due_ms;
    if (t->place == 0) {
        if (h->count == h->capacity) {
            h->capacity = h->capacity ? 2 * h->capacity : 64;
            h->heap = xrealloc(h->heap, h->capacity * sizeof(h->heap[0]));
        }
        place(h, h->count++, t);
    }
    size_t i = t->place - 1;
    ASSERT(h->heap[i] == t);
    sift_up(h, i);
    sift_down(h, t->place - 1);
}

void timer_clear(struct timers *h, struct timer *t)
{
    if (t->place == 0)
        return;
    size_t i = t->place - 1;
    ASSERT(i < h->count && h->heap[i] == t);
    struct timer *last = h->heap[--h->count];
    t->place = 0;
    if (last == t)
        return;
    place(h, i, last);
    sift_up(h, i);
    sift_down(h, last->place - 1);
}
