/* join.c - JoinGroup, versions 0-9.
 *
 * A new dynamic member of version 4+ is told its id first (79, KIP-394) and is pending until it comes back with it. A
 * static member (KIP-345) takes its instance's place at once: the former holder is fenced (82), and in a stable group
 * whose protocol stays the same nothing is rebalanced, only the new member id is written down. Otherwise the request is
 * parked in the member until rebalance.c has closed the generation. */
#include "libs/groups/core.h"

#include "kafka/apis.h"
#include "kafka/join_group.h"

typedef struct kafka_join_group_request request;
typedef struct kafka_join_group_response response;

/* Version 7 made the protocol's name nullable; before, "none" is the empty string. */
static struct slice no_protocol(int16_t version)
{
    return version >= 7 ? SLICE_NULL : SLICE_EMPTY;
}

static response *error_response(struct groups *c, int16_t version, struct slice member_id, enum kafka_error error)
{
    response *r = arena_alloc(c->arena, sizeof *r);
    kafka_join_group_response_init(r);
    r->error_code = (int16_t)error;
    r->member_id = arena_dup(c->arena, member_id);
    r->protocol_name = no_protocol(version);
    return r;
}

static void refuse(struct groups *c, const struct groups_request *q, struct slice member_id, enum kafka_error error)
{
    answer(c, q, error_response(c, q->api_version, member_id, error));
}

void join_answer_error(struct groups *c, struct parked *p, struct slice member_id, enum kafka_error error)
{
    answer_parked(c, p, KAFKA_API_JOIN_GROUP, error_response(c, p->version, member_id, error));
}

/* The members with what they said about the generation's protocol, for the leader. */
static void put_members(const struct group *g, struct arena *a, response *r)
{
    r->members = arena_calloc(a, HASH_COUNT(g->members) + 1, sizeof r->members[0]);
    for (const struct member *m = g->members; m != NULL; m = m->hh.next) {
        struct kafka_join_group_response_join_group_response_member *out = &r->members[r->members_count++];
        out->member_id = arena_dup(a, m->id);
        out->group_instance_id = arena_dup(a, m->instance);
        out->metadata = arena_dup(a, member_metadata(m, g->protocol));
    }
}

/* The present generation as member m is told it. */
static response *generation_response(const struct member *m, struct arena *a, bool with_members)
{
    const struct group *g = m->group;
    response *r = arena_alloc(a, sizeof *r);
    kafka_join_group_response_init(r);
    r->generation_id = g->generation;
    r->protocol_type = arena_dup(a, g->protocol_type);
    r->protocol_name = arena_dup(a, g->protocol);
    r->leader = arena_dup(a, g->leader->id);
    r->member_id = arena_dup(a, m->id);
    if (with_members)
        put_members(g, a, r);
    return r;
}

void join_answer_member(struct member *m)
{
    struct groups *c = m->group->shard->core;
    member_unpark_join(m);
    answer_parked(c, &m->join, KAFKA_API_JOIN_GROUP, generation_response(m, c->arena, m->group->leader == m));
}

/* ---- what a request says ---- */

/* The protocols without doubles, the first of a name counting. */
static int32_t distinct_protocols(struct groups *c, const request *in, struct protocol **ret_protocols)
{
    struct protocol *list = arena_calloc(c->arena, (size_t)in->protocols_count + 1, sizeof *list);
    int32_t count = 0;
    for (int32_t i = 0; i < in->protocols_count; i++) {
        bool known = false;
        for (int32_t k = 0; k < count && !known; k++)
            known = slice_eq(list[k].name, in->protocols[i].name);
        if (!known)
            list[count++] = (struct protocol){.name = in->protocols[i].name, .metadata = in->protocols[i].metadata};
    }
    *ret_protocols = list;
    return count;
}

/* Has the group members of this type that all support one of these protocols? An empty group takes any, but not none.
 */
static bool supports(const struct group *g, const request *in)
{
    if (g == NULL || g->state == GROUP_EMPTY)
        return in->protocol_type.size > 0 && in->protocols_count > 0;
    if (!slice_eq(g->protocol_type, in->protocol_type))
        return false;
    uint32_t members = HASH_COUNT(g->members);
    for (int32_t i = 0; i < in->protocols_count; i++) {
        struct vote *v;
        HASH_FIND(hh, g->votes, in->protocols[i].name.data, in->protocols[i].name.size, v);
        if (v != NULL && v->members == members)
            return true;
    }
    return members == 0 && in->protocols_count > 0;
}

static bool same_protocols(const struct member *m, const struct protocol *protocols, int32_t count)
{
    if (m->protocol_count != count)
        return false;
    for (int32_t i = 0; i < count; i++)
        if (!slice_eq(m->protocols[i].name, protocols[i].name) ||
            !slice_eq(m->protocols[i].metadata, protocols[i].metadata))
            return false;
    return true;
}

static size_t bytes_of(const struct groups_request *q, const request *in)
{
    size_t bytes = sizeof(struct group) + sizeof(struct member) + 4 * STRUCT_OVERHEAD + q->client_id.size +
                   in->group_id.size + in->member_id.size + in->group_instance_id.size;
    for (int32_t i = 0; i < in->protocols_count; i++)
        bytes += in->protocols[i].name.size + in->protocols[i].metadata.size + sizeof(struct vote) + STRUCT_OVERHEAD;
    return bytes;
}

/* Is there room in the group? Members that are there already pass; who rejoins last into a group that became too large
 * does not. */
static bool accepts(const struct groups *c, const struct group *g, struct slice member_id)
{
    uint32_t max = (uint32_t)c->config.group_max_size;
    const struct member *m = member_find(g, member_id);
    switch (g->state) {
    case GROUP_EMPTY: return true;
    case GROUP_PREPARING: return (m != NULL && m->join.waiting) || g->joining < max;
    case GROUP_COMPLETING:
    case GROUP_STABLE: return m != NULL || HASH_COUNT(g->members) < max;
    }
    BUG("a group in no state");
}

static void set_member(struct groups *c, struct member *m, const struct groups_request *q)
{
    const request *in = q->message;
    struct protocol *protocols;
    int32_t count = distinct_protocols(c, in, &protocols);
    member_set_protocols(m, protocols, count);
    m->session_timeout_ms = in->session_timeout_ms;
    m->rebalance_timeout_ms = q->api_version == 0 ? in->session_timeout_ms : MAX(in->rebalance_timeout_ms, 0);
}

/* ---- the cases ---- */

static void join_added(struct groups *c, struct group *g, const struct groups_request *q, struct slice id)
{
    const request *in = q->message;
    struct pending *p = pending_find(g, id);
    if (g->members == NULL)
        own_replace(c, &g->protocol_type, in->protocol_type);
    if (g->state == GROUP_PREPARING && g->previous == GROUP_EMPTY)
        g->new_member_added = true;
    struct member *m = member_add(g, id, in->group_instance_id, q->client_id, q->client_host);
    if (p != NULL)
        pending_remove(p);
    set_member(c, m, q);
    member_park_join(m, q);
    m->is_new = true;
    /* It cannot heartbeat before its first answer; without a limit, clients that give up and retry would pile up. */
    timer_set(&c->timers, &m->session, TIMER_SESSION, c->now.mono_ms + (uint64_t)c->config.new_member_timeout_ms);
    rebalance_or_complete(g);
}

static void join_updated(struct groups *c, struct member *m, const struct groups_request *q)
{
    set_member(c, m, q);
    member_park_join(m, q);
    rebalance_or_complete(m->group);
}

static struct slice new_member_id(struct groups *c, struct slice prefix)
{
    uint8_t random[16];
    struct uuid id;
    do
        c->env.random(c->env.ctx, random);
    while (uuid_from_random(random, &id) != 0);
    prefix.size = MIN(prefix.size, (size_t)ID_PREFIX_MAX);
    char dashed[37];
    uuid_to_dashed(id, dashed);
    return slice_str(arena_printf(c->arena, SLICE_F "-%s", SLICE_A(prefix), dashed));
}

/* The former holder of an instance's name learns that it is fenced. */
static void fence(struct groups *c, struct member *m)
{
    if (m->join.waiting) {
        member_unpark_join(m);
        join_answer_error(c, &m->join, m->id, KERR_FENCED_INSTANCE_ID);
    }
    if (m->sync.waiting)
        sync_answer(m, KERR_FENCED_INSTANCE_ID);
}

/* A stable group goes on: the answer leaves when the new member id is in the log. */
static void replaced_in_stable(struct groups *c, struct member *m, const struct groups_request *q,
                               struct slice former_leader)
{
    record_put_group(m->group, false);
    if (!stage_fits(c)) {
        stage_start(c);
        refuse(c, q, SLICE_EMPTY, KERR_UNKNOWN_SERVER_ERROR);
        rebalance_drop_member(m, KERR_UNKNOWN_MEMBER_ID);
        return;
    }
    struct deferred *d = deferred_new(q);
    bool leads = q->api_version >= 9 && m->group->leader == m;
    response *r = generation_response(m, d->arena, leads);
    r->skip_assignment = leads;
    if (q->api_version < 9)
        r->leader = arena_dup(d->arena, former_leader); /* an old client that found itself leader would assign anew */
    d->response = r;
    stage_commit(m->group->shard, &(struct staged_op){.deferred = d, .part = -1});
    deferred_done(c, d);
}

static void join_static_again(struct groups *c, struct member *m, const struct groups_request *q)
{
    const request *in = q->message;
    struct group *g = m->group;
    struct slice former_leader = arena_dup(c->arena, g->leader->id);
    fence(c, m);
    member_rename(m, new_member_id(c, in->group_instance_id));
    set_member(c, m, q);
    member_expect(m);
    if (g->state == GROUP_STABLE && slice_eq(group_select_protocol(g), g->protocol)) {
        replaced_in_stable(c, m, q, former_leader);
        return;
    }
    /* In CompletingRebalance the leader may have been told the old member id: its assignment would miss the new one. */
    member_park_join(m, q);
    rebalance_or_complete(g);
}

static void join_new(struct groups *c, struct shard *s, struct group *g, const struct groups_request *q)
{
    const request *in = q->message;
    bool is_new_group = g == NULL;
    if (is_new_group) {
        g = group_create(s, in->group_id);
        record_put_group(g, false);
        stage_commit(s, NULL);
    }
    if (!slice_is_null(in->group_instance_id)) {
        struct member *m = member_of_instance(g, in->group_instance_id);
        if (m != NULL)
            join_static_again(c, m, q);
        else
            join_added(c, g, q, new_member_id(c, in->group_instance_id));
        return;
    }
    struct slice id = new_member_id(c, q->client_id);
    if (q->api_version >= 4) {
        pending_add(g, id, in->session_timeout_ms);
        refuse(c, q, id, KERR_MEMBER_ID_REQUIRED);
        return;
    }
    join_added(c, g, q, id);
}

/* The present generation once more: its answer was lost. */
static void join_answer_again(struct groups *c, const struct member *m, const struct groups_request *q,
                              bool with_members)
{
    answer(c, q, generation_response(m, c->arena, with_members));
}

static void join_known(struct groups *c, struct group *g, const struct groups_request *q)
{
    const request *in = q->message;
    if (pending_find(g, in->member_id) != NULL) {
        if (!slice_is_null(in->group_instance_id))
            refuse(c, q, in->member_id, KERR_UNKNOWN_MEMBER_ID); /* ids of static members are never pending */
        else
            join_added(c, g, q, in->member_id);
        return;
    }
    struct member *m;
    enum kafka_error error = member_validate(g, in->member_id, in->group_instance_id, &m);
    if (error != KERR_NONE) {
        refuse(c, q, in->member_id, error);
        return;
    }
    struct protocol *protocols;
    int32_t count = distinct_protocols(c, in, &protocols);
    bool same = same_protocols(m, protocols, count);
    switch (g->state) {
    case GROUP_PREPARING: join_updated(c, m, q); return;
    case GROUP_COMPLETING:
        if (same)
            join_answer_again(c, m, q, g->leader == m);
        else
            join_updated(c, m, q);
        return;
    case GROUP_STABLE:
        if (same && g->leader != m)
            join_answer_again(c, m, q, false);
        else
            join_updated(c, m, q); /* the leader rejoins to make a rebalance happen */
        return;
    case GROUP_EMPTY: BUG("an empty group with a member");
    }
}

/* An empty consumer or streams group gives way to a classic one, as in Kafka: its records are deleted, its offsets
 * stay. */
static enum kafka_error take_over(struct groups *c, struct group *g)
{
    if (g->type == GROUP_SHARE || !group_is_empty(g))
        return KERR_INCONSISTENT_GROUP_PROTOCOL;
    foreign_stage_tombstones(g);
    if (!stage_fits(c)) {
        stage_start(c);
        return KERR_INCONSISTENT_GROUP_PROTOCOL;
    }
    foreign_forget(g);
    record_put_group(g, false);
    stage_commit(g->shard, NULL);
    return KERR_NONE;
}

static enum kafka_error validate(const struct groups *c, const request *in)
{
    if (in->group_id.size == 0)
        return KERR_INVALID_GROUP_ID;
    if (in->session_timeout_ms < c->config.session_timeout_min_ms ||
        in->session_timeout_ms > c->config.session_timeout_max_ms)
        return KERR_INVALID_SESSION_TIMEOUT;
    if (in->protocols_count > PROTOCOLS_MAX)
        return KERR_INCONSISTENT_GROUP_PROTOCOL;
    return KERR_NONE;
}

static enum kafka_error admit(struct groups *c, struct group *g, const struct groups_request *q)
{
    const request *in = q->message;
    bool is_new = in->member_id.size == 0;
    if (g == NULL && !is_new)
        return KERR_UNKNOWN_MEMBER_ID;
    if (g != NULL && !accepts(c, g, in->member_id))
        return KERR_GROUP_MAX_SIZE_REACHED;
    if (!supports(g, in))
        return KERR_INCONSISTENT_GROUP_PROTOCOL;
    return memory_allows(c, bytes_of(q, in)) ? KERR_NONE : KERR_GROUP_MAX_SIZE_REACHED;
}

void on_join(struct groups *c, const struct groups_request *q)
{
    const request *in = q->message;
    struct shard *s;
    struct group *g;
    enum kafka_error error = validate(c, in);
    if (error == KERR_NONE)
        error = group_of(c, in->group_id, &s, &g);
    if (error == KERR_NONE && g != NULL && g->type != GROUP_CLASSIC)
        error = in->member_id.size == 0 ? take_over(c, g) : KERR_UNKNOWN_MEMBER_ID;
    if (error == KERR_NONE)
        error = admit(c, g, q);
    if (error == KERR_GROUP_MAX_SIZE_REACHED && g != NULL) {
        struct member *m = member_find(g, in->member_id);
        refuse(c, q, SLICE_EMPTY, error);
        if (m != NULL)
            rebalance_drop_member(m, KERR_UNKNOWN_MEMBER_ID);
        return;
    }
    if (error != KERR_NONE) {
        refuse(c, q, in->member_id, error);
        return;
    }
    if (in->member_id.size == 0)
        join_new(c, s, g, q);
    else
        join_known(c, g, q);
}
