/* remove.c - what goes away: DeleteGroups (0-2), OffsetDelete (0), the offsets of deleted topics, and what is kept too
 * long.
 *
 * All of it is tombstones. A group that is being deleted answers 14 until they are committed: nobody can join what is
 * about to vanish.
 *
 * Expiry (KIP-211): an offset goes offsets.retention.minutes after its group became empty, or, without a protocol,
 * after the commit; in a stable consumer group only offsets of topics that nobody subscribes to. The group follows its
 * last offset. */
#include "libs/groups/core.h"

#include <stdlib.h>

#include "kafka/apis.h"
#include "kafka/consumer_protocol_subscription.h"
#include "kafka/delete_groups.h"
#include "kafka/offset_delete.h"
#include "libs/base/bytes.h"
#include "libs/wire/wire.h"

static void stage_offset_tombstone(const struct offset_topic *t, struct offset *o)
{
    record_put_offset(t->group->shard->core, t->group->id, t->name, o->partition, NULL);
    o->queued++;
}

static void stage_group_tombstones(struct group *g)
{
    for (struct offset_topic *t = g->topics; t != NULL; t = t->hh.next)
        for (size_t i = 0; i < t->count; i++)
            stage_offset_tombstone(t, &t->offsets[i]);
    if (g->type != GROUP_CLASSIC)
        foreign_stage_tombstones(g);
    record_put_group_tombstone(g->shard->core, g->id);
    g->deleting = true;
}

/* ---- DeleteGroups ---- */

static enum kafka_error delete_group(struct groups *c, struct slice id, struct deferred *d, int32_t part)
{
    struct shard *s;
    struct group *g;
    enum kafka_error error = group_of(c, id, &s, &g);
    if (error != KERR_NONE)
        return error;
    if (g == NULL)
        return KERR_GROUP_ID_NOT_FOUND;
    if (!group_is_empty(g))
        return KERR_NON_EMPTY_GROUP;
    stage_group_tombstones(g);
    stage_commit(s, &(struct staged_op){.deferred = d, .part = part});
    return KERR_NONE;
}

void on_delete(struct groups *c, const struct groups_request *q)
{
    const struct kafka_delete_groups_request *in = q->message;
    struct deferred *d = deferred_new(q);
    struct kafka_delete_groups_response *r = arena_alloc(d->arena, sizeof *r);
    kafka_delete_groups_response_init(r);
    d->response = r;
    r->results = arena_calloc(d->arena, (size_t)in->groups_names_count + 1, sizeof r->results[0]);
    for (int32_t i = 0; i < in->groups_names_count; i++) {
        r->results[i].group_id = arena_dup(d->arena, in->groups_names[i]);
        r->results_count = i + 1;
        r->results[i].error_code = (int16_t)delete_group(c, in->groups_names[i], d, i);
    }
    deferred_done(c, d);
}

/* ---- who subscribes to what ---- */

static int compare(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

/* The topics in one member's subscription; false when it is none. */
static bool read_subscription(struct slice metadata, struct arena *arena,
                              struct kafka_consumer_protocol_subscription *ret_s)
{
    if (metadata.size < 2)
        return false;
    int16_t version = get_i16(metadata.data);
    if (version < 0)
        return false;
    /* A version that we do not know is read as the newest that we do (wire.md). */
    int newest = wire_version_max(&kafka_consumer_protocol_subscription_type);
    int v = version < newest ? version : newest;
    return wire_decode(&kafka_consumer_protocol_subscription_type, v, slice_make(metadata.data + 2, metadata.size - 2),
                       arena, ret_s, NULL) == 0;
}

int32_t group_subscriptions(const struct group *g, struct arena *arena, struct slice **ret_topics)
{
    struct kafka_consumer_protocol_subscription *all = arena_calloc(arena, HASH_COUNT(g->members) + 1, sizeof *all);
    int32_t members = 0;
    size_t topics = 0;
    for (const struct member *m = g->members; m != NULL; m = m->hh.next) {
        if (!read_subscription(member_metadata(m, g->protocol), arena, &all[members]))
            return -1;
        topics += (size_t)all[members++].topics_count;
    }
    if (topics > PARTITIONS_MAX)
        return -1;
    struct slice *out = arena_calloc(arena, topics + 1, sizeof *out);
    int32_t count = 0;
    for (int32_t i = 0; i < members; i++)
        for (int32_t t = 0; t < all[i].topics_count; t++)
            out[count++] = all[i].topics[t];
    qsort(out, (size_t)count, sizeof *out, compare);
    *ret_topics = out;
    return count;
}

bool subscriptions_have(const struct slice *topics, int32_t count, struct slice topic)
{
    return count > 0 && bsearch(&topic, topics, (size_t)count, sizeof *topics, compare) != NULL;
}

static bool speaks_consumer(const struct group *g)
{
    return slice_eq_str(g->protocol_type, "consumer");
}

/* ---- OffsetDelete ---- */

typedef struct kafka_offset_delete_request_offset_delete_request_topic topic_in;
typedef struct kafka_offset_delete_response_offset_delete_response_topic topic_out;

static void delete_offsets(struct group *g, const topic_in *in, int32_t partitions, enum kafka_error error,
                           topic_out *out)
{
    struct offset_topic *t = store_topic(g, in->name);
    for (int32_t i = 0; i < in->partitions_count; i++) {
        int32_t index = in->partitions[i].partition_index;
        enum kafka_error e =
            error == KERR_NONE && (index < 0 || index >= partitions) ? KERR_UNKNOWN_TOPIC_OR_PARTITION : error;
        struct offset *o = e == KERR_NONE && t != NULL ? store_find(t, index) : NULL;
        out->partitions[i].partition_index = index;
        out->partitions[i].error_code = (int16_t)e;
        if (o != NULL)
            stage_offset_tombstone(t, o);
    }
    out->partitions_count = in->partitions_count;
}

static enum kafka_error validate_delete(struct groups *c, struct slice id, struct shard **ret_shard,
                                        struct group **ret_group)
{
    if (id.size == 0)
        return KERR_INVALID_GROUP_ID;
    enum kafka_error error = group_of(c, id, ret_shard, ret_group);
    if (error != KERR_NONE)
        return error;
    const struct group *g = *ret_group;
    if (g == NULL)
        return KERR_GROUP_ID_NOT_FOUND;
    return group_is_empty(g) || (g->type == GROUP_CLASSIC && speaks_consumer(g)) ? KERR_NONE : KERR_NON_EMPTY_GROUP;
}

void on_offset_delete(struct groups *c, const struct groups_request *q)
{
    const struct kafka_offset_delete_request *in = q->message;
    struct deferred *d = deferred_new(q);
    struct kafka_offset_delete_response *r = arena_alloc(d->arena, sizeof *r);
    kafka_offset_delete_response_init(r);
    d->response = r;
    struct shard *s;
    struct group *g;
    r->error_code = (int16_t)validate_delete(c, in->group_id, &s, &g);
    struct slice *subscribed = NULL;
    /* Subscriptions that cannot be read may hold any topic. */
    int32_t subscribed_count = r->error_code == KERR_NONE ? group_subscriptions(g, c->arena, &subscribed) : 0;
    r->topics = arena_calloc(d->arena, (size_t)in->topics_count + 1, sizeof r->topics[0]);
    for (int32_t i = 0; i < in->topics_count && r->error_code == KERR_NONE; i++) {
        topic_out *out = &r->topics[r->topics_count++];
        struct uuid id;
        int32_t partitions = 0;
        enum kafka_error error = KERR_NONE;
        if (!c->env.topic_by_name(c->env.ctx, in->topics[i].name, &id, &partitions))
            error = KERR_UNKNOWN_TOPIC_OR_PARTITION;
        else if (subscribed_count < 0 || subscriptions_have(subscribed, subscribed_count, in->topics[i].name))
            error = KERR_GROUP_SUBSCRIBED_TO_TOPIC;
        out->name = arena_dup(d->arena, in->topics[i].name);
        out->partitions = arena_calloc(d->arena, (size_t)in->topics[i].partitions_count + 1, sizeof out->partitions[0]);
        delete_offsets(g, &in->topics[i], partitions, error, out);
    }
    if (c->scratch.record_count > 0)
        stage_commit(s, &(struct staged_op){.deferred = d, .part = -1});
    deferred_done(c, d);
}

/* ---- a topic was deleted ---- */

void remove_topic(struct groups *c, struct slice topic)
{
    for (struct shard *s = c->shards; s != NULL; s = s->hh.next) {
        if (s->state != SHARD_ACTIVE)
            continue;
        for (struct group *g = s->groups; g != NULL; g = g->hh.next) {
            struct offset_topic *t = g->deleting ? NULL : store_topic(g, topic);
            for (size_t i = 0; t != NULL && i < t->count; i++)
                stage_offset_tombstone(t, &t->offsets[i]);
        }
        stage_commit(s, NULL);
    }
}

/* ---- expiry ---- */

struct expiry {
    const struct groups *c;
    const struct group *g;
    struct slice *subscribed;
    int32_t subscribed_count;
    bool since_empty; /* count from the group's becoming empty, not from the commit */
};

static bool has_expired(const struct expiry *e, const struct offset *o)
{
    if (!o->committed || o->queued > 0 || o->open > 0)
        return false;
    if (o->value.expire_ms != -1)
        return e->c->now.wall_ms >= o->value.expire_ms;
    int64_t since = e->since_empty && e->g->state_ms != -1 ? e->g->state_ms : o->value.commit_ms;
    int64_t age; /* the log may hold any time */
    return since <= e->c->now.wall_ms &&
           (__builtin_sub_overflow(e->c->now.wall_ms, since, &age) || age >= e->c->config.retention_ms);
}

/* Which offsets of the group may expire at all; false: none. */
static bool may_expire(struct groups *c, const struct group *g, struct expiry *ret_e)
{
    *ret_e = (struct expiry){.c = c, .g = g};
    if (slice_is_null(g->protocol_type) || g->protocol_type.size == 0)
        return g->state == GROUP_EMPTY;
    if (g->state == GROUP_EMPTY) {
        ret_e->since_empty = true;
        return true;
    }
    if (g->state != GROUP_STABLE || !speaks_consumer(g))
        return false;
    ret_e->subscribed_count = group_subscriptions(g, c->arena, &ret_e->subscribed);
    return ret_e->subscribed_count >= 0;
}

/* True when no offset is left behind. */
static bool expire_offsets(const struct expiry *e)
{
    bool all = true;
    for (struct offset_topic *t = e->g->topics; t != NULL; t = t->hh.next) {
        bool subscribed = subscriptions_have(e->subscribed, e->subscribed_count, t->name);
        for (size_t i = 0; i < t->count; i++) {
            if (!subscribed && has_expired(e, &t->offsets[i]))
                stage_offset_tombstone(t, &t->offsets[i]);
            else
                all = false;
        }
    }
    return all;
}

static void expire_group(struct groups *c, struct group *g)
{
    struct expiry e;
    if (g->type != GROUP_CLASSIC || g->deleting)
        return;
    bool all = may_expire(c, g, &e) ? expire_offsets(&e) : g->topics == NULL;
    if (!all || g->state != GROUP_EMPTY || g->pendings != NULL)
        return;
    record_put_group_tombstone(c, g->id);
    g->deleting = true;
}

void remove_expired(struct groups *c)
{
    for (struct shard *s = c->shards; s != NULL; s = s->hh.next) {
        if (s->state != SHARD_ACTIVE)
            continue;
        for (struct group *g = s->groups; g != NULL; g = g->hh.next)
            expire_group(c, g);
        stage_commit(s, NULL);
    }
}
