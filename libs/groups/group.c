/* group.c - groups, their members, the votes for a protocol, and the one place where a group's state changes.
 *
 * Every change to what members support, or to who waits, goes through here, so that the counts (votes, joining,
 * owing_sync) are right. */
#include "libs/groups/core.h"

#include <stdlib.h>

#include "kafka/apis.h"

struct group *group_find(const struct shard *s, struct slice id)
{
    struct group *g;
    HASH_FIND(hh, s->groups, id.data, id.size, g);
    return g;
}

struct group *group_create(struct shard *s, struct slice id)
{
    struct group *g = xcalloc(1, sizeof *g);
    g->shard = s;
    g->id = own(s->core, id);
    g->state_ms = s->state == SHARD_ACTIVE ? s->core->now.wall_ms : -1;
    HASH_ADD_KEYPTR(hh, s->groups, g->id.data, g->id.size, g);
    account(s->core, sizeof *g + STRUCT_OVERHEAD);
    return g;
}

static void keys_free(struct group *g)
{
    struct groups *c = g->shard->core;
    struct foreign_key *k, *next;
    HASH_ITER (hh, g->keys, k, next) {
        HASH_DEL(g->keys, k);
        disown(c, &k->key);
        unaccount(c, sizeof *k + STRUCT_OVERHEAD);
        free(k);
    }
    g->foreign_members = 0;
}

void group_free(struct group *g)
{
    struct groups *c = g->shard->core;
    struct member *m, *next;
    HASH_ITER (hh, g->members, m, next)
        member_remove(m);
    struct pending *p, *next_pending;
    HASH_ITER (hh, g->pendings, p, next_pending)
        pending_remove(p);
    ASSERT(g->votes == NULL && g->joining == 0 && g->owing_sync == 0);
    store_free(g);
    keys_free(g);
    timer_clear(&c->timers, &g->join_timer);
    timer_clear(&c->timers, &g->sync_timer);
    HASH_DEL(g->shard->groups, g);
    disown(c, &g->id);
    disown(c, &g->protocol_type);
    disown(c, &g->protocol);
    unaccount(c, sizeof *g + STRUCT_OVERHEAD);
    free(g);
}

void group_set_state(struct group *g, enum group_state state)
{
    g->previous = g->state;
    g->state = state;
    g->state_ms = g->shard->core->now.wall_ms;
}

const char *group_state_name(const struct group *g)
{
    if (g->type != GROUP_CLASSIC)
        return g->foreign_members == 0 ? "Empty" : "Unknown";
    switch (g->state) {
    case GROUP_EMPTY: return "Empty";
    case GROUP_PREPARING: return "PreparingRebalance";
    case GROUP_COMPLETING: return "CompletingRebalance";
    case GROUP_STABLE: return "Stable";
    }
    BUG("a group in no state");
}

const char *group_type_name(const struct group *g)
{
    switch (g->type) {
    case GROUP_CLASSIC: return "classic";
    case GROUP_CONSUMER: return "consumer";
    case GROUP_SHARE: return "share";
    case GROUP_STREAMS: return "streams";
    }
    BUG("a group of no type");
}

bool group_is_empty(const struct group *g)
{
    return g->type == GROUP_CLASSIC ? g->state == GROUP_EMPTY : g->foreign_members == 0;
}

bool group_all_joined(const struct group *g)
{
    return g->joining == HASH_COUNT(g->members) && g->pendings == NULL;
}

int32_t group_rebalance_timeout(const struct group *g)
{
    int32_t longest = 0;
    for (const struct member *m = g->members; m != NULL; m = m->hh.next)
        longest = MAX(longest, m->rebalance_timeout_ms);
    return longest;
}

/* ---- votes ---- */

static struct vote *vote_find(const struct group *g, struct slice name)
{
    struct vote *v;
    HASH_FIND(hh, g->votes, name.data, name.size, v);
    return v;
}

static void votes_add(struct group *g, struct slice name)
{
    struct groups *c = g->shard->core;
    struct vote *v = vote_find(g, name);
    if (v == NULL) {
        v = xcalloc(1, sizeof *v);
        v->name = own(c, name);
        HASH_ADD_KEYPTR(hh, g->votes, v->name.data, v->name.size, v);
        account(c, sizeof *v + STRUCT_OVERHEAD);
    }
    v->members++;
}

static void votes_take(struct group *g, struct slice name)
{
    struct groups *c = g->shard->core;
    struct vote *v = vote_find(g, name);
    ASSERT(v != NULL && v->members > 0);
    if (--v->members > 0)
        return;
    HASH_DEL(g->votes, v);
    disown(c, &v->name);
    unaccount(c, sizeof *v + STRUCT_OVERHEAD);
    free(v);
}

/* Of the protocols that all members support, each member votes for the first of its own list; the most votes win, and
 * among equals the one that an earlier member brought. */
struct slice group_select_protocol(struct group *g)
{
    uint32_t members = HASH_COUNT(g->members);
    for (struct vote *v = g->votes; v != NULL; v = v->hh.next)
        v->votes = 0;
    for (const struct member *m = g->members; m != NULL; m = m->hh.next) {
        for (int32_t i = 0; i < m->protocol_count; i++) {
            struct vote *v = vote_find(g, m->protocols[i].name);
            if (v->members == members) {
                v->votes++;
                break;
            }
        }
    }
    const struct vote *best = NULL;
    for (const struct vote *v = g->votes; v != NULL; v = v->hh.next)
        if (v->members == members && (best == NULL || v->votes > best->votes))
            best = v;
    return best != NULL ? best->name : SLICE_EMPTY; /* empty: only when a loaded group said so */
}

/* ---- members ---- */

struct member *member_find(const struct group *g, struct slice id)
{
    struct member *m;
    HASH_FIND(hh, g->members, id.data, id.size, m);
    return m;
}

struct member *member_of_instance(const struct group *g, struct slice instance)
{
    struct member *m;
    HASH_FIND(hh_instance, g->statics, instance.data, instance.size, m);
    return m;
}

struct member *member_add(struct group *g, struct slice id, struct slice instance, struct slice client_id,
                          struct slice client_host)
{
    struct groups *c = g->shard->core;
    struct member *m = xcalloc(1, sizeof *m);
    m->group = g;
    m->id = own(c, id);
    m->instance = own(c, instance);
    m->client_id = own(c, client_id);
    m->client_host = own(c, client_host);
    m->assignment = SLICE_EMPTY;
    HASH_ADD_KEYPTR(hh, g->members, m->id.data, m->id.size, m);
    if (!slice_is_null(m->instance))
        HASH_ADD_KEYPTR(hh_instance, g->statics, m->instance.data, m->instance.size, m);
    if (g->leader == NULL)
        g->leader = m;
    account(c, sizeof *m + STRUCT_OVERHEAD);
    return m;
}

static void protocols_free(struct member *m)
{
    struct groups *c = m->group->shard->core;
    for (int32_t i = 0; i < m->protocol_count; i++) {
        votes_take(m->group, m->protocols[i].name);
        disown(c, &m->protocols[i].name);
        disown(c, &m->protocols[i].metadata);
    }
    unaccount(c, (size_t)m->protocol_count * sizeof(struct protocol));
    free(m->protocols);
    m->protocols = NULL;
    m->protocol_count = 0;
}

void member_set_protocols(struct member *m, const struct protocol *protocols, int32_t count)
{
    struct groups *c = m->group->shard->core;
    protocols_free(m);
    m->protocols = xcalloc((size_t)count + 1, sizeof m->protocols[0]);
    for (int32_t i = 0; i < count; i++) {
        m->protocols[i].name = own(c, protocols[i].name);
        m->protocols[i].metadata = own(c, protocols[i].metadata);
        votes_add(m->group, protocols[i].name);
    }
    m->protocol_count = count;
    account(c, (size_t)count * sizeof(struct protocol));
}

struct slice member_metadata(const struct member *m, struct slice protocol)
{
    for (int32_t i = 0; i < m->protocol_count; i++)
        if (slice_eq(m->protocols[i].name, protocol))
            return m->protocols[i].metadata;
    return SLICE_EMPTY;
}

static void owes_sync_no_more(struct member *m)
{
    if (m->owes_sync) {
        m->owes_sync = false;
        m->group->owing_sync--;
    }
}

void member_remove(struct member *m)
{
    struct group *g = m->group;
    struct groups *c = g->shard->core;
    ASSERT(!m->join.waiting && !m->sync.waiting);
    protocols_free(m);
    owes_sync_no_more(m);
    timer_clear(&c->timers, &m->session);
    HASH_DEL(g->members, m);
    if (!slice_is_null(m->instance))
        HASH_DELETE(hh_instance, g->statics, m);
    if (g->leader == m)
        g->leader = g->members;
    disown(c, &m->id);
    disown(c, &m->instance);
    disown(c, &m->client_id);
    disown(c, &m->client_host);
    disown(c, &m->assignment);
    disown(c, &m->next_assignment);
    unaccount(c, sizeof *m + STRUCT_OVERHEAD);
    free(m);
}

void member_rename(struct member *m, struct slice id)
{
    HASH_DEL(m->group->members, m);
    own_replace(m->group->shard->core, &m->id, id);
    HASH_ADD_KEYPTR(hh, m->group->members, m->id.data, m->id.size, m);
}

void member_park_join(struct member *m, const struct groups_request *q)
{
    if (m->join.waiting)
        join_answer_error(m->group->shard->core, &m->join, m->id, KERR_REBALANCE_IN_PROGRESS);
    else
        m->group->joining++;
    m->join = (struct parked){.waiting = true, .version = q->api_version, .request = q->id};
}

void member_unpark_join(struct member *m)
{
    ASSERT(m->join.waiting && m->group->joining > 0);
    m->group->joining--;
}

void member_expect(struct member *m)
{
    struct groups *c = m->group->shard->core;
    timer_set(&c->timers, &m->session, TIMER_SESSION, c->now.mono_ms + (uint64_t)m->session_timeout_ms);
}

enum kafka_error member_validate(const struct group *g, struct slice id, struct slice instance,
                                 struct member **ret_member)
{
    if (!slice_is_null(instance)) {
        struct member *by_instance = member_of_instance(g, instance);
        if (by_instance == NULL)
            return KERR_UNKNOWN_MEMBER_ID;
        if (!slice_eq(by_instance->id, id))
            return KERR_FENCED_INSTANCE_ID;
    }
    struct member *m = member_find(g, id);
    if (m == NULL)
        return KERR_UNKNOWN_MEMBER_ID;
    *ret_member = m;
    return KERR_NONE;
}

/* ---- pending members ---- */

struct pending *pending_find(const struct group *g, struct slice id)
{
    struct pending *p;
    HASH_FIND(hh, g->pendings, id.data, id.size, p);
    return p;
}

void pending_add(struct group *g, struct slice id, int32_t timeout_ms)
{
    struct groups *c = g->shard->core;
    struct pending *p = xcalloc(1, sizeof *p);
    p->group = g;
    p->id = own(c, id);
    HASH_ADD_KEYPTR(hh, g->pendings, p->id.data, p->id.size, p);
    account(c, sizeof *p + STRUCT_OVERHEAD);
    timer_set(&c->timers, &p->timer, TIMER_PENDING, c->now.mono_ms + (uint64_t)timeout_ms);
}

void pending_remove(struct pending *p)
{
    struct groups *c = p->group->shard->core;
    timer_clear(&c->timers, &p->timer);
    HASH_DEL(p->group->pendings, p);
    disown(c, &p->id);
    unaccount(c, sizeof *p + STRUCT_OVERHEAD);
    free(p);
}
