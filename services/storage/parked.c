/* parked.c - parked Reads by the end of their time: a heap, and one timer that never fires later than its first. A call
 * that leaves early, as most do, touches no timer; the timer then fires once for nothing. */
#include "services/storage/read.h"
#include <stdlib.h>

static void put(struct storage *s, size_t i, struct read_call *c)
{
    s->parked[i] = c;
    c->heap_at = i;
}

static void move_up(struct storage *s, size_t i, struct read_call *c)
{
    for (; i > 0 && s->parked[(i - 1) / 2]->due_ms > c->due_ms; i = (i - 1) / 2)
        put(s, i, s->parked[(i - 1) / 2]);
    put(s, i, c);
}

static void move_down(struct storage *s, size_t i, struct read_call *c)
{
    for (size_t child; (child = 2 * i + 1) < s->parked_count; i = child) {
        if (child + 1 < s->parked_count && s->parked[child + 1]->due_ms < s->parked[child]->due_ms)
            child++;
        if (s->parked[child]->due_ms >= c->due_ms)
            break;
        put(s, i, s->parked[child]);
    }
    put(s, i, c);
}

static void on_due(void *ctx);

/* The timer fires at or before the first call's time. */
static void arm(struct storage *s)
{
    if (s->parked_count == 0 || s->parked[0]->due_ms >= s->parked_due_ms)
        return;
    uint64_t now = loop_now_ms(s->loop), due = s->parked[0]->due_ms, delay = due > now ? due - now : 0;
    s->parked_due_ms = due;
    if (s->parked_timer == NULL)
        s->parked_timer = loop_timer_start(s->loop, delay, 0, on_due, s);
    else
        loop_timer_again(s->parked_timer, delay);
}

static void on_due(void *ctx)
{
    struct storage *s = ctx;
    uint64_t now = loop_now_ms(s->loop);
    while (s->parked_count > 0 && s->parked[0]->due_ms <= now)
        read_answer(s->parked[0]);
    s->parked_due_ms = UINT64_MAX;
    arm(s);
}

void parked_add(struct storage *s, struct read_call *c)
{
    if (s->parked_count == s->parked_capacity) {
        s->parked_capacity = s->parked_capacity ? 2 * s->parked_capacity : 64;
        s->parked = xrealloc(s->parked, s->parked_capacity * sizeof(struct read_call *));
    }
    if (s->parked_timer == NULL)
        s->parked_due_ms = UINT64_MAX;
    move_up(s, s->parked_count++, c);
    arm(s);
}

void parked_remove(struct storage *s, struct read_call *c)
{
    size_t i = c->heap_at;
    ASSERT(i < s->parked_count && s->parked[i] == c);
    struct read_call *last = s->parked[--s->parked_count];
    if (last == c)
        return;
    if (i > 0 && s->parked[(i - 1) / 2]->due_ms > last->due_ms)
        move_up(s, i, last);
    else
        move_down(s, i, last);
}
