/* rebalance.c - the way from one generation to the next.
 *
 *   rebalance_or_complete: prepare (unless already preparing) -> wait for all members -> complete: new generation,
 * answers to the joins
 *
 * An empty group waits group.initial.rebalance.delay.ms for more members, and once more for each time that some came
 * during the wait, in all no longer than the longest rebalance timeout. Any other waits until all members and all
 * given-out member ids have joined, at most the longest rebalance timeout; dynamic members that have not come by then
 * are out, static ones stay. When nobody came, the wait starts over: session timeouts empty the group. After completion
 * members have the rebalance timeout again to send SyncGroup. */
#include "libs/groups/core.h"

#include "kafka/apis.h"

/* The least that the wait starts over with: clients may name a rebalance timeout of 0. */
enum { NOBODY_JOINED_MS = 1000 };

static void complete(struct group *g);

static uint64_t in_ms(const struct groups *c, int32_t delay_ms)
{
    return c->now.mono_ms + (uint64_t)MAX(delay_ms, 0);
}

static void start_join_timer(struct group *g, int32_t delay_ms)
{
    struct groups *c = g->shard->core;
    timer_set(&c->timers, &g->join_timer, TIMER_JOIN, in_ms(c, delay_ms));
}

static void complete_or_wait(struct group *g)
{
    if (group_all_joined(g))
        complete(g);
    else
        start_join_timer(g, group_rebalance_timeout(g));
}

/* Those that wait for an assignment learn that there will be none: they join again. */
static void cancel_syncs(struct group *g)
{
    struct groups *c = g->shard->core;
    for (struct member *m = g->members; m != NULL; m = m->hh.next) {
        disown(c, &m->next_assignment);
        own_replace(c, &m->assignment, SLICE_EMPTY);
        if (m->sync.waiting) {
            sync_answer(m, KERR_REBALANCE_IN_PROGRESS);
            member_expect(m);
        }
    }
    g->sync_number = 0;
}

static void forget_owed_syncs(struct group *g)
{
    for (struct member *m = g->members; m != NULL; m = m->hh.next)
        m->owes_sync = false;
    g->owing_sync = 0;
    timer_clear(&g->shard->core->timers, &g->sync_timer);
}

static void prepare(struct group *g)
{
    struct groups *c = g->shard->core;
    if (g->state == GROUP_COMPLETING)
        cancel_syncs(g);
    timer_clear(&c->timers, &g->sync_timer);
    bool initial = g->state == GROUP_EMPTY;
    group_set_state(g, GROUP_PREPARING);
    g->initial = initial;
    if (!initial) {
        complete_or_wait(g);
        return;
    }
    g->new_member_added = false;
    g->delay_ms = c->config.initial_rebalance_delay_ms;
    g->remaining_ms = MAX(group_rebalance_timeout(g) - g->delay_ms, 0);
    start_join_timer(g, g->delay_ms);
}

void rebalance_try_complete(struct group *g)
{
    if (g->state == GROUP_PREPARING && g->previous != GROUP_EMPTY && group_all_joined(g))
        complete(g);
}

void rebalance_or_complete(struct group *g)
{
    if (g->state == GROUP_PREPARING)
        rebalance_try_complete(g);
    else
        prepare(g);
}

static void drop_late_members(struct group *g)
{
    for (struct member *m = g->members, *next; m != NULL; m = next) {
        next = m->hh.next;
        if (m->join.waiting || !slice_is_null(m->instance))
            continue;
        ASSERT(!m->sync.waiting);
        member_remove(m);
    }
}

/* The leader has to be one that gets the members' list now. False: nobody has joined. */
static bool elect_joined_leader(struct group *g)
{
    if (g->leader != NULL && g->leader->join.waiting)
        return true;
    for (struct member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->join.waiting) {
            g->leader = m;
            return true;
        }
    }
    return false;
}

static void complete_empty(struct group *g)
{
    struct groups *c = g->shard->core;
    disown(c, &g->protocol);
    group_set_state(g, GROUP_EMPTY);
    record_put_group(g, false);
    stage_commit(g->shard, NULL);
}

static void complete(struct group *g)
{
    struct groups *c = g->shard->core;
    timer_clear(&c->timers, &g->join_timer);
    g->initial = false;
    drop_late_members(g);
    if (g->members != NULL && !elect_joined_leader(g)) {
        start_join_timer(g, MAX(group_rebalance_timeout(g), NOBODY_JOINED_MS));
        return;
    }
    forget_owed_syncs(g);
    /* 2^31 - 1 is followed by 0: a negative generation would mean "no member". */
    g->generation = g->generation == INT32_MAX ? 0 : g->generation + 1;
    if (g->members == NULL) {
        complete_empty(g);
        return;
    }
    own_replace(c, &g->protocol, group_select_protocol(g));
    group_set_state(g, GROUP_COMPLETING);
    for (struct member *m = g->members; m != NULL; m = m->hh.next) {
        if (m->join.waiting)
            join_answer_member(m);
        m->is_new = false;
        member_expect(m);
        m->owes_sync = true;
        g->owing_sync++;
    }
    timer_set(&c->timers, &g->sync_timer, TIMER_SYNC, in_ms(c, group_rebalance_timeout(g)));
}

void rebalance_drop_member(struct member *m, enum kafka_error error)
{
    struct group *g = m->group;
    struct groups *c = g->shard->core;
    if (m->join.waiting) {
        member_unpark_join(m);
        join_answer_error(c, &m->join, SLICE_EMPTY, error);
    }
    if (m->sync.waiting)
        sync_answer(m, error);
    member_remove(m);
    rebalance_or_complete(g);
}

/* ---- time is over ---- */

void rebalance_join_timer(struct group *g)
{
    ASSERT(g->state == GROUP_PREPARING);
    if (!g->initial || !g->new_member_added || g->remaining_ms == 0) {
        complete(g);
        return;
    }
    g->new_member_added = false;
    int32_t delay_ms = MIN(g->shard->core->config.initial_rebalance_delay_ms, g->remaining_ms);
    g->remaining_ms = MAX(g->remaining_ms - g->delay_ms, 0);
    g->delay_ms = delay_ms;
    start_join_timer(g, delay_ms);
}

void rebalance_sync_timer(struct group *g)
{
    if ((g->state != GROUP_COMPLETING && g->state != GROUP_STABLE) || g->owing_sync == 0)
        return;
    for (struct member *m = g->members, *next; m != NULL; m = next) {
        next = m->hh.next;
        if (!m->owes_sync)
            continue;
        ASSERT(!m->join.waiting && !m->sync.waiting);
        member_remove(m);
    }
    prepare(g);
}

void session_timer(struct member *m)
{
    /* Who waits for the others, or for the log, needs no heartbeat: the deadline starts again with the answer. */
    if (!m->is_new && (m->join.waiting || m->sync.waiting))
        return;
    rebalance_drop_member(m, KERR_UNKNOWN_MEMBER_ID);
}

void pending_timer(struct pending *p)
{
    struct group *g = p->group;
    pending_remove(p);
    rebalance_try_complete(g);
}
