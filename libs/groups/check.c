/* check.c - groups_check: the invariants of groups.h, proved by counting again. For tests and the simulator. */
#include "libs/groups/core.h"

static void check_member(const struct group *g, const struct member *m)
{
    ASSERT(m->group == g);
    ASSERT(!(m->join.waiting && m->sync.waiting));
    ASSERT(!m->join.waiting || g->state == GROUP_PREPARING);
    ASSERT(!m->sync.waiting || g->state == GROUP_COMPLETING);
    ASSERT(!m->owes_sync || g->state == GROUP_COMPLETING || g->state == GROUP_STABLE || g->state == GROUP_PREPARING);
    ASSERT(slice_is_null(m->instance) || member_of_instance(g, m->instance) == m);
    /* Somebody who waits for nothing is waited for. */
    ASSERT(m->session.place != 0 || m->join.waiting || m->sync.waiting || g->shard->state == SHARD_LOADING);
}

static void check_votes(const struct group *g)
{
    uint64_t votes = 0, protocols = 0;
    for (const struct vote *v = g->votes; v != NULL; v = v->hh.next) {
        ASSERT(v->members > 0 && v->members <= HASH_COUNT(g->members));
        votes += v->members;
    }
    for (const struct member *m = g->members; m != NULL; m = m->hh.next)
        protocols += (uint64_t)m->protocol_count;
    ASSERT(votes == protocols);
}

static void check_offsets(const struct group *g)
{
    for (const struct offset_topic *t = g->topics; t != NULL; t = t->hh.next) {
        ASSERT(t->group == g && t->count > 0 && t->count <= t->capacity);
        for (size_t i = 0; i < t->count; i++) {
            ASSERT(i == 0 || t->offsets[i - 1].partition < t->offsets[i].partition);
            ASSERT(t->offsets[i].committed || t->offsets[i].queued > 0 || t->offsets[i].open > 0);
        }
    }
}

static void check_group(const struct groups *c, const struct group *g)
{
    uint32_t joining = 0, owing = 0, statics = 0;
    for (const struct member *m = g->members; m != NULL; m = m->hh.next) {
        check_member(g, m);
        joining += m->join.waiting;
        owing += m->owes_sync;
        statics += !slice_is_null(m->instance);
    }
    ASSERT(joining == g->joining && owing == g->owing_sync && statics == HASH_CNT(hh_instance, g->statics));
    ASSERT((g->leader == NULL) == (g->members == NULL));
    ASSERT(g->leader == NULL || member_find(g, g->leader->id) == g->leader);
    ASSERT(g->state != GROUP_EMPTY || g->members == NULL || g->type != GROUP_CLASSIC);
    ASSERT((g->state != GROUP_STABLE && g->state != GROUP_COMPLETING) || g->members != NULL);
    if (g->shard->state == SHARD_ACTIVE && g->type == GROUP_CLASSIC)
        ASSERT((g->state == GROUP_PREPARING) == (g->join_timer.place != 0));
    ASSERT(g->joining <= (uint32_t)c->config.group_max_size);
    check_votes(g);
    check_offsets(g);
}

static void check_timers(const struct groups *c)
{
    for (size_t i = 0; i < c->timers.count; i++) {
        ASSERT(c->timers.heap[i]->place == i + 1);
        ASSERT(i == 0 || c->timers.heap[(i - 1) / 2]->due_ms <= c->timers.heap[i]->due_ms);
    }
}

void groups_check(const struct groups *c)
{
    for (const struct shard *s = c->shards; s != NULL; s = s->hh.next) {
        ASSERT(s->state == SHARD_ACTIVE || (s->flight == NULL && s->queue == NULL));
        for (const struct group *g = s->groups; g != NULL; g = g->hh.next) {
            ASSERT(g->shard == s);
            check_group(c, g);
        }
    }
    check_timers(c);
}
