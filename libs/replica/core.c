/* core.c - events to the role that they are for; roles by what the metadata says. */
#include "libs/replica/internal.h"
#include <stdlib.h>

struct replica_core *replica_new(const struct replica_env *env)
{
    struct replica_core *c = xcalloc(1, sizeof *c);
    c->env = *env;
    c->leader = REPLICA_NOBODY;
    c->leader_epoch = c->partition_epoch = -1;
    c->epoch_start = -1;
    c->due_ms = UINT64_MAX;
    return c;
}

struct replica_core *replica_free(struct replica_core *c)
{
    if (c == NULL)
        return NULL;
    replica_lead_end(c);
    free(c->replicas.at);
    free(c);
    return NULL;
}

void replica_configure(struct replica_core *c, int32_t min_isr, uint64_t lag_max_ms, uint64_t backoff_ms)
{
    c->backoff_ms = backoff_ms;
    c->min_isr = min_isr;
    c->lag_max_ms = lag_max_ms;
}

struct replica_action *replica_act(struct replica_actions *out, enum replica_action_kind kind)
{
    ASSERT(out->count < REPLICA_ACTIONS_MAX);
    struct replica_action *a = &out->at[out->count++];
    *a = (struct replica_action){.kind = kind};
    return a;
}

void replica_ids_set(struct replica_ids *l, const int32_t *from, int32_t count)
{
    l->at = xrealloc(l->at, (size_t)MAX(count, 1) * sizeof *l->at);
    if (count > 0)
        memcpy(l->at, from, (size_t)count * sizeof *l->at);
    l->count = count;
}

/* The metadata may be behind what the controller has answered us: an older partition epoch says nothing. */
static void take_state(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    const struct replica_state *s = e->state;
    if (s->partition_epoch < c->partition_epoch || s->leader_epoch < c->leader_epoch)
        return;
    enum replica_role was = c->role;
    bool new_epoch = s->leader_epoch > c->leader_epoch || s->leader != c->leader;
    c->role = s->leader == c->env.node_id ? REPLICA_LEADER : s->leader >= 0 ? REPLICA_FOLLOWER : REPLICA_IDLE;
    c->leader = s->leader;
    replica_ids_set(&c->replicas, s->replicas, s->replica_count);
    if (was == REPLICA_LEADER && c->role != REPLICA_LEADER) {
        replica_lead_end(c);
        replica_act(out, REPLICA_DO_END_WAITS);
    }
    switch (c->role) {
    case REPLICA_LEADER:
        if (was == REPLICA_FOLLOWER)
            replica_act(out, REPLICA_DO_REST);
        replica_lead_begin(c, e, out);
        break;
    case REPLICA_FOLLOWER: replica_follow_begin(c, e, new_epoch || was != REPLICA_FOLLOWER, out); break;
    case REPLICA_IDLE:
        if (was == REPLICA_FOLLOWER)
            replica_act(out, REPLICA_DO_REST);
        break;
    }
    c->leader_epoch = s->leader_epoch;
    c->partition_epoch = s->partition_epoch;
    if (c->role == REPLICA_LEADER)
        replica_lead_expand_any(c, e, out);
}

static void step_leader(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    switch (e->kind) {
    case REPLICA_CONFIGURED: replica_lead_raise(c, e, out); break;
    case REPLICA_APPENDED: replica_lead_appended(c, e, out); break;
    case REPLICA_FETCHED: replica_lead_fetched(c, e, out); break;
    case REPLICA_UNWATCHED: replica_lead_unwatched(c, e); break;
    case REPLICA_TICK: replica_lead_tick(c, e, out); break;
    case REPLICA_ALTERED: replica_lead_altered(c, e, out); break;
    case REPLICA_STATE:
    case REPLICA_TOLD:
    case REPLICA_WRITTEN:
    case REPLICA_CUT: break; /* of the follower that we were */
    }
}

static void step_follower(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    switch (e->kind) {
    case REPLICA_TICK: replica_follow_tick(c, e); break;
    case REPLICA_TOLD: replica_follow_told(c, e, out); break;
    case REPLICA_WRITTEN: replica_follow_written(c, e, out); break;
    case REPLICA_CUT: replica_follow_cut(c, e, out); break;
    case REPLICA_STATE:
    case REPLICA_CONFIGURED:
    case REPLICA_APPENDED:
    case REPLICA_FETCHED:
    case REPLICA_UNWATCHED:
    case REPLICA_ALTERED: break; /* of the leader that we were */
    }
}

void replica_step(struct replica_core *c, const struct replica_event *e, struct replica_actions *ret_actions)
{
    ret_actions->count = 0;
    if (e->kind == REPLICA_STATE)
        take_state(c, e, ret_actions);
    else if (c->role == REPLICA_LEADER)
        step_leader(c, e, ret_actions);
    else if (c->role == REPLICA_FOLLOWER)
        step_follower(c, e, ret_actions);
}

enum replica_role replica_role(const struct replica_core *c)
{
    return c->role;
}

int32_t replica_leader(const struct replica_core *c)
{
    return c->leader;
}

int32_t replica_leader_epoch(const struct replica_core *c)
{
    return c->leader_epoch;
}

int32_t replica_partition_epoch(const struct replica_core *c)
{
    return c->partition_epoch;
}

int64_t replica_epoch_start(const struct replica_core *c)
{
    return c->epoch_start;
}

bool replica_is_assigned(const struct replica_core *c, int32_t id)
{
    return replica_ids_has(&c->replicas, id);
}

void replica_check(const struct replica_core *c, const struct replica_log *log)
{
    ASSERT(log->start <= log->high_watermark && log->high_watermark <= log->end);
    ASSERT((c->role == REPLICA_LEADER) == (c->epoch_start >= 0));
    ASSERT(c->role == REPLICA_LEADER || (c->followers == NULL && c->change == ISR_COMMITTED));
    ASSERT(c->change == ISR_COMMITTED || c->proposed_count > 0);
    for (size_t i = 0; i < c->follower_count; i++) {
        const struct follower *f = &c->followers[i];
        ASSERT(f->id != c->env.node_id && replica_ids_has(&c->replicas, f->id));
    }
}
