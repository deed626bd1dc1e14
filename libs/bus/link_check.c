/* link_check.c - what tests and status see of a link core. */
#include <utlist.h>

#include "libs/bus/link_internal.h"

uint32_t link_level(const struct link_core *l)
{
    return l->level;
}

struct link_counts link_counts(const struct link_core *l)
{
    struct link_counts n = {.served = HASH_COUNT(l->served), .rpcs = l->rpc_total, .impostors = l->impostors};
    const struct served *s;
    const struct caller *c;

    n.calls = l->call_capacity - l->free_slot_count;
    DL_FOREACH (l->callers, c) {
        n.calls_in_flight += c->used.calls;
        n.calls_queued += c->queued_use.calls;
    }
    for (s = l->served; s != NULL; s = s->hh.next)
        n.rpc_bytes += s->rpc_bytes;
    return n;
}

void link_check(const struct link_core *l)
{
    const struct served *s;
    const struct caller *c;
    const struct call *k;
    size_t calls = 0;

    for (size_t i = 2; i <= l->heap_count; i++)
        ASSERT(l->heap[i / 2]->at_ms <= l->heap[i]->at_ms && l->heap[i]->index == i);
    DL_FOREACH (l->callers, c) {
        size_t in_flight = 0, queued = 0;
        DL_FOREACH (c->sent, k)
            in_flight++;
        DL_FOREACH (c->queued, k)
            queued++;
        DL_FOREACH (c->queued_parks, k)
            queued++;
        ASSERT(in_flight == c->used.calls && queued == c->queued_use.calls);
        ASSERT(in_flight == 0 || c->state >= CALLER_UP);
        ASSERT(c->used.calls <= c->granted.calls);
        calls += in_flight + queued;
    }
    ASSERT(calls == l->call_capacity - l->free_slot_count);
    for (s = l->served; s != NULL; s = s->hh.next)
        ASSERT(s->rpc_count == HASH_COUNT(s->rpcs) && s->rpc_count <= l->options.credit_calls);
}
