/* leave.c - LeaveGroup, versions 0-5. Version 3 made it a batch with an answer for each member (KIP-345); an
 * administrator removes a static member by its instance id alone. */
#include "libs/groups/core.h"

#include "kafka/apis.h"
#include "kafka/leave_group.h"

typedef struct kafka_leave_group_request request;
typedef struct kafka_leave_group_response response;
typedef struct kafka_leave_group_request_member_identity identity;

static void drop(struct groups *c, struct member *m)
{
    if (m->join.waiting) {
        member_unpark_join(m);
        join_answer_error(c, &m->join, SLICE_EMPTY, KERR_UNKNOWN_MEMBER_ID);
    }
    if (m->sync.waiting)
        sync_answer(m, KERR_UNKNOWN_MEMBER_ID);
    member_remove(m);
}

static enum kafka_error leave(struct groups *c, struct group *g, const identity *who, bool *ret_left)
{
    if (g == NULL || g->type != GROUP_CLASSIC)
        return KERR_UNKNOWN_MEMBER_ID;
    struct member *m = NULL;
    if (who->member_id.size == 0) {
        if (!slice_is_null(who->group_instance_id))
            m = member_of_instance(g, who->group_instance_id);
        if (m == NULL)
            return KERR_UNKNOWN_MEMBER_ID;
    } else {
        struct pending *p = pending_find(g, who->member_id);
        if (p != NULL) {
            pending_remove(p);
            *ret_left = true;
            return KERR_NONE;
        }
        enum kafka_error error = member_validate(g, who->member_id, who->group_instance_id, &m);
        if (error != KERR_NONE)
            return error;
    }
    drop(c, m);
    *ret_left = true;
    return KERR_NONE;
}

static void leave_all(struct groups *c, struct group *g, const identity *members, int32_t count, struct arena *a,
                      response *r)
{
    bool left = false;
    r->members = arena_calloc(a, (size_t)count + 1, sizeof r->members[0]);
    for (int32_t i = 0; i < count; i++) {
        r->members[i].member_id = arena_dup(a, members[i].member_id);
        r->members[i].group_instance_id = arena_dup(a, members[i].group_instance_id);
        r->members[i].error_code = (int16_t)leave(c, g, &members[i], &left);
    }
    r->members_count = count;
    if (!left)
        return;
    /* A pending member that left an empty group leaves nothing to rebalance. */
    if (g->state == GROUP_PREPARING)
        rebalance_try_complete(g);
    else if (g->state != GROUP_EMPTY)
        rebalance_or_complete(g);
}

/* Versions 0-2 know one member and one error. */
static void flatten(const struct groups_request *q, response *r)
{
    if (q->api_version > 2)
        return;
    if (r->error_code == KERR_NONE && r->members_count > 0)
        r->error_code = r->members[0].error_code;
    r->members_count = 0;
}

void on_leave(struct groups *c, const struct groups_request *q)
{
    const request *in = q->message;
    identity single = {.member_id = in->member_id, .group_instance_id = SLICE_NULL};
    bool old = q->api_version <= 2;
    struct deferred *d = deferred_new(q);
    response *r = arena_alloc(d->arena, sizeof *r);
    kafka_leave_group_response_init(r);
    d->response = r;
    struct shard *s = NULL;
    struct group *g = NULL;
    r->error_code = in->group_id.size == 0 ? KERR_INVALID_GROUP_ID : (int16_t)group_of(c, in->group_id, &s, &g);
    if (r->error_code == KERR_NONE)
        leave_all(c, g, old ? &single : in->members, old ? 1 : in->members_count, d->arena, r);
    flatten(q, r);
    /* When the last member's going was written down, the answer waits for that. */
    if (g != NULL && g->state == GROUP_EMPTY)
        stage_commit(s, &(struct staged_op){.deferred = d, .part = -1});
    deferred_done(c, d);
}
