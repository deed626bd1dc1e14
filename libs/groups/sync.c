/* sync.c - SyncGroup, versions 0-5, and Heartbeat, versions 0-4.
 *
 * The leader's SyncGroup carries everybody's assignment: it goes to the log with the group's metadata, and once that is
 * committed the group is Stable and every parked SyncGroup is answered. A rebalance that starts in between makes it
 * void. */
#include "libs/groups/core.h"

#include "kafka/apis.h"
#include "kafka/heartbeat.h"
#include "kafka/sync_group.h"

typedef struct kafka_sync_group_request request;
typedef struct kafka_sync_group_response response;

static void refuse(struct groups *c, const struct groups_request *q, enum kafka_error error)
{
    response *r = arena_alloc(c->arena, sizeof *r);
    kafka_sync_group_response_init(r);
    r->error_code = (int16_t)error;
    answer(c, q, r);
}

static response *assignment_response(const struct member *m, struct arena *a, enum kafka_error error)
{
    response *r = arena_alloc(a, sizeof *r);
    kafka_sync_group_response_init(r);
    r->error_code = (int16_t)error;
    if (error == KERR_NONE) {
        r->protocol_type = arena_dup(a, m->group->protocol_type);
        r->protocol_name = arena_dup(a, m->group->protocol);
        r->assignment = arena_dup(a, m->assignment);
    }
    return r;
}

void sync_answer(struct member *m, enum kafka_error error)
{
    struct groups *c = m->group->shard->core;
    answer_parked(c, &m->sync, KAFKA_API_SYNC_GROUP, assignment_response(m, c->arena, error));
}

/* The assignment of the present generation is committed. */
void sync_committed(struct group *g)
{
    struct groups *c = g->shard->core;
    ASSERT(g->state == GROUP_COMPLETING);
    group_set_state(g, GROUP_STABLE);
    g->sync_number = 0;
    for (struct member *m = g->members; m != NULL; m = m->hh.next) {
        own_replace(c, &m->assignment, slice_is_null(m->next_assignment) ? SLICE_EMPTY : m->next_assignment);
        disown(c, &m->next_assignment);
        if (m->sync.waiting)
            sync_answer(m, KERR_NONE);
        member_expect(m);
    }
}

static bool differs(struct slice said, struct slice known)
{
    return !slice_is_null(said) && !slice_is_null(known) && !slice_eq(said, known);
}

static enum kafka_error validate(struct groups *c, const struct groups_request *q, struct member **ret_member)
{
    const request *in = q->message;
    if (q->api_version >= 5 && (slice_is_null(in->protocol_type) || slice_is_null(in->protocol_name)))
        return KERR_INCONSISTENT_GROUP_PROTOCOL;
    if (in->group_id.size == 0)
        return KERR_INVALID_GROUP_ID;
    struct shard *s;
    struct group *g;
    enum kafka_error error = group_of(c, in->group_id, &s, &g);
    if (error != KERR_NONE)
        return error;
    if (g == NULL || g->type != GROUP_CLASSIC)
        return KERR_UNKNOWN_MEMBER_ID;
    error = member_validate(g, in->member_id, in->group_instance_id, ret_member);
    if (error != KERR_NONE)
        return error;
    if (in->generation_id != g->generation)
        return KERR_ILLEGAL_GENERATION;
    if (differs(in->protocol_type, g->protocol_type) || differs(in->protocol_name, g->protocol))
        return KERR_INCONSISTENT_GROUP_PROTOCOL;
    if (g->state == GROUP_PREPARING)
        return KERR_REBALANCE_IN_PROGRESS;
    return KERR_NONE;
}

static void paid_sync(struct member *m)
{
    struct group *g = m->group;
    if (!m->owes_sync)
        return;
    m->owes_sync = false;
    if (--g->owing_sync == 0)
        timer_clear(&g->shard->core->timers, &g->sync_timer);
}

/* The leader's assignment could not be kept: everybody joins again. */
static void give_up(struct group *g, enum kafka_error error)
{
    struct groups *c = g->shard->core;
    for (struct member *m = g->members; m != NULL; m = m->hh.next) {
        disown(c, &m->next_assignment);
        if (m->sync.waiting) {
            sync_answer(m, error);
            member_expect(m);
        }
    }
    g->sync_number = 0;
    rebalance_or_complete(g);
}

static void store_assignments(struct groups *c, struct group *g, const request *in)
{
    size_t bytes = 0;
    for (struct member *m = g->members; m != NULL; m = m->hh.next)
        disown(c, &m->next_assignment);
    for (int32_t i = 0; i < in->assignments_count; i++) {
        struct member *m = member_find(g, in->assignments[i].member_id);
        if (m == NULL)
            continue;
        bytes += in->assignments[i].assignment.size;
        own_replace(c, &m->next_assignment, in->assignments[i].assignment);
    }
    record_put_group(g, true);
    if (!stage_fits(c) || !memory_allows(c, bytes)) {
        stage_start(c);
        give_up(g, KERR_UNKNOWN_SERVER_ERROR); /* as Kafka answers RECORD_LIST_TOO_LARGE here */
        return;
    }
    g->sync_number = ++c->next_number;
    stage_commit(g->shard, &(struct staged_op){.group = own(c, g->id), .part = -1, .sync_number = g->sync_number});
}

void on_sync(struct groups *c, const struct groups_request *q)
{
    const request *in = q->message;
    struct member *m;
    enum kafka_error error = validate(c, q, &m);
    if (error != KERR_NONE) {
        refuse(c, q, error);
        return;
    }
    struct group *g = m->group;
    paid_sync(m);
    if (g->state == GROUP_STABLE) {
        answer(c, q, assignment_response(m, c->arena, KERR_NONE));
        member_expect(m);
        return;
    }
    ASSERT(g->state == GROUP_COMPLETING);
    if (m->sync.waiting)
        sync_answer(m, KERR_REBALANCE_IN_PROGRESS); /* an earlier try of the same member */
    m->sync = (struct parked){.waiting = true, .version = q->api_version, .request = q->id};
    if (g->leader == m)
        store_assignments(c, g, in);
}

/* ---- Heartbeat ---- */

static enum kafka_error heartbeat(struct groups *c, const struct kafka_heartbeat_request *in)
{
    if (in->group_id.size == 0)
        return KERR_INVALID_GROUP_ID;
    struct shard *s;
    struct group *g;
    enum kafka_error error = group_of(c, in->group_id, &s, &g);
    if (error != KERR_NONE)
        return error;
    if (g == NULL || g->type != GROUP_CLASSIC)
        return KERR_UNKNOWN_MEMBER_ID;
    struct member *m;
    error = member_validate(g, in->member_id, in->group_instance_id, &m);
    if (error != KERR_NONE)
        return error;
    if (in->generation_id != g->generation)
        return KERR_ILLEGAL_GENERATION;
    if (!m->is_new)
        member_expect(m);
    return g->state == GROUP_PREPARING ? KERR_REBALANCE_IN_PROGRESS : KERR_NONE;
}

void on_heartbeat(struct groups *c, const struct groups_request *q)
{
    struct kafka_heartbeat_response *r = arena_alloc(c->arena, sizeof *r);
    kafka_heartbeat_response_init(r);
    r->error_code = (int16_t)heartbeat(c, q->message);
    answer(c, q, r);
}
