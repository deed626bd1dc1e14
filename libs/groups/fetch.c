/* fetch.c - OffsetFetch, versions 1-10: one group up to version 7, several from 8 on; topic ids from 10 on.
 *
 * Groups need no member for it, nor do they have to exist: what was never committed has offset -1. RequireStable
 * (KIP-447) answers 88 for a partition that a transaction has commits for. An offset that was committed for a topic of
 * the same name that is gone by now counts as not committed. */
#include "libs/groups/core.h"

#include "kafka/apis.h"
#include "kafka/offset_fetch.h"

typedef struct kafka_offset_fetch_request request;
typedef struct kafka_offset_fetch_response response;
typedef struct kafka_offset_fetch_request_offset_fetch_request_group group_in;
typedef struct kafka_offset_fetch_response_offset_fetch_response_group group_out;
typedef struct kafka_offset_fetch_response_offset_fetch_response_topics topic_out;
typedef struct kafka_offset_fetch_response_offset_fetch_response_partitions partition_out;

static void put_offset(struct groups *c, const struct offset *o, int32_t partition, bool require_stable,
                       partition_out *out)
{
    *out = (partition_out){
        .partition_index = partition, .committed_offset = -1, .committed_leader_epoch = -1, .metadata = SLICE_EMPTY};
    if (o == NULL)
        return;
    if (require_stable && o->open > 0) {
        out->error_code = KERR_UNSTABLE_OFFSET_COMMIT;
        return;
    }
    if (!o->committed)
        return;
    out->committed_offset = o->value.offset;
    out->committed_leader_epoch = o->value.leader_epoch;
    if (answer_takes(c, o->value.metadata.size))
        out->metadata = arena_dup(c->arena, o->value.metadata);
}

/* Of another topic with the same name, that was deleted since. */
static bool is_stale(const struct offset *o, struct uuid topic_id)
{
    return !uuid_is_zero(topic_id) && !uuid_is_zero(o->value.topic_id) && !uuid_eq(o->value.topic_id, topic_id);
}

static struct uuid present_id(struct groups *c, struct slice name)
{
    struct uuid id;
    int32_t partitions;
    return c->env.topic_by_name(c->env.ctx, name, &id, &partitions) ? id : UUID_ZERO;
}

static void put_topic(struct groups *c, const struct group *g, struct slice name, struct uuid id,
                      const int32_t *partitions, int32_t count, bool require_stable, topic_out *out)
{
    const struct offset_topic *t = g != NULL ? store_topic(g, name) : NULL;
    if (!answer_takes(c, (size_t)count * sizeof out->partitions[0]))
        return;
    out->partitions = arena_calloc(c->arena, (size_t)count + 1, sizeof out->partitions[0]);
    for (int32_t i = 0; i < count; i++) {
        const struct offset *o = t != NULL ? store_find(t, partitions[i]) : NULL;
        put_offset(c, o != NULL && is_stale(o, id) ? NULL : o, partitions[i], require_stable,
                   &out->partitions[out->partitions_count++]);
    }
}

static void refuse_topic(struct groups *c, const int32_t *partitions, int32_t count, enum kafka_error error,
                         topic_out *out)
{
    out->partitions = arena_calloc(c->arena, (size_t)count + 1, sizeof out->partitions[0]);
    for (int32_t i = 0; i < count; i++) {
        put_offset(c, NULL, partitions[i], false, &out->partitions[i]);
        out->partitions[i].error_code = (int16_t)error;
    }
    out->partitions_count = count;
}

static void put_named(struct groups *c, const struct group *g, const group_in *in, int16_t version, bool require_stable,
                      group_out *out)
{
    out->topics = arena_calloc(c->arena, (size_t)in->topics_count + 1, sizeof out->topics[0]);
    for (int32_t i = 0; i < in->topics_count; i++) {
        topic_out *t = &out->topics[out->topics_count++];
        struct slice name = in->topics[i].name;
        struct uuid id = in->topics[i].topic_id;
        int32_t partitions;
        t->topic_id = id;
        if (version >= 10 && !c->env.topic_by_id(c->env.ctx, id, &name, &partitions)) {
            refuse_topic(c, in->topics[i].partition_indexes, in->topics[i].partition_indexes_count,
                         KERR_UNKNOWN_TOPIC_ID, t);
            t->name = SLICE_EMPTY;
            continue;
        }
        t->name = arena_dup(c->arena, name);
        put_topic(c, g, name, version >= 10 ? id : present_id(c, name), in->topics[i].partition_indexes,
                  in->topics[i].partition_indexes_count, require_stable, t);
    }
}

/* All that is committed. Topics that are gone have no id: version 10 leaves them out. */
static void put_all(struct groups *c, const struct group *g, int16_t version, bool require_stable, group_out *out)
{
    if (!answer_takes(c, HASH_COUNT(g->topics) * sizeof out->topics[0]))
        return;
    out->topics = arena_calloc(c->arena, HASH_COUNT(g->topics) + 1, sizeof out->topics[0]);
    for (const struct offset_topic *t = g->topics; t != NULL; t = t->hh.next) {
        struct uuid id = present_id(c, t->name);
        if (version >= 10 && uuid_is_zero(id))
            continue;
        if (!answer_takes(c, t->count * sizeof(partition_out)))
            return;
        topic_out *to = &out->topics[out->topics_count];
        to->name = arena_dup(c->arena, t->name);
        to->topic_id = id;
        to->partitions = arena_calloc(c->arena, t->count + 1, sizeof to->partitions[0]);
        for (size_t i = 0; i < t->count; i++)
            if (t->offsets[i].committed && !is_stale(&t->offsets[i], id))
                put_offset(c, &t->offsets[i], t->offsets[i].partition, require_stable,
                           &to->partitions[to->partitions_count++]);
        if (to->partitions_count > 0)
            out->topics_count++;
        else
            *to = (topic_out){0};
    }
}

static void fetch_group(struct groups *c, const group_in *in, int16_t version, bool require_stable, group_out *out)
{
    struct shard *s;
    out->group_id = arena_dup(c->arena, in->group_id);
    out->error_code = (int16_t)shard_of(c, in->group_id, &s);
    if (out->error_code != KERR_NONE)
        return;
    const struct group *g = group_find(s, in->group_id);
    if (g != NULL && g->type != GROUP_CLASSIC && in->member_epoch >= 0) {
        out->error_code = KERR_UNKNOWN_MEMBER_ID; /* it names itself a member of a group whose members are not served */
        return;
    }
    if (in->topics_count >= 0)
        put_named(c, g, in, version, require_stable, out);
    else if (g != NULL)
        put_all(c, g, version, require_stable, out);
}

/* ---- one group, up to version 7 ---- */

static group_in single_group(struct groups *c, const request *in)
{
    group_in g = {.group_id = in->group_id, .member_epoch = -1, .topics_count = in->topics_count};
    if (in->topics_count <= 0)
        return g;
    g.topics = arena_calloc(c->arena, (size_t)in->topics_count, sizeof g.topics[0]);
    for (int32_t i = 0; i < in->topics_count; i++) {
        g.topics[i].name = in->topics[i].name;
        g.topics[i].partition_indexes = in->topics[i].partition_indexes;
        g.topics[i].partition_indexes_count = in->topics[i].partition_indexes_count;
    }
    return g;
}

/* Version 1 has no error at the top: each partition carries it. */
static void spread_error(struct groups *c, const group_in *in, group_out *out)
{
    out->topics = arena_calloc(c->arena, (size_t)MAX(in->topics_count, 0) + 1, sizeof out->topics[0]);
    for (int32_t i = 0; i < in->topics_count; i++) {
        out->topics[i].name = arena_dup(c->arena, in->topics[i].name);
        refuse_topic(c, in->topics[i].partition_indexes, in->topics[i].partition_indexes_count,
                     (enum kafka_error)out->error_code, &out->topics[i]);
    }
    out->topics_count = MAX(in->topics_count, 0);
    out->error_code = KERR_NONE;
}

static void flatten(struct groups *c, const group_out *g, response *r)
{
    r->error_code = g->error_code;
    r->topics = arena_calloc(c->arena, (size_t)g->topics_count + 1, sizeof r->topics[0]);
    r->topics_count = g->topics_count;
    for (int32_t i = 0; i < g->topics_count; i++) {
        const topic_out *from = &g->topics[i];
        r->topics[i].name = from->name;
        r->topics[i].partitions =
            arena_calloc(c->arena, (size_t)from->partitions_count + 1, sizeof r->topics[i].partitions[0]);
        r->topics[i].partitions_count = from->partitions_count;
        for (int32_t p = 0; p < from->partitions_count; p++) {
            r->topics[i].partitions[p].partition_index = from->partitions[p].partition_index;
            r->topics[i].partitions[p].committed_offset = from->partitions[p].committed_offset;
            r->topics[i].partitions[p].committed_leader_epoch = from->partitions[p].committed_leader_epoch;
            r->topics[i].partitions[p].metadata = from->partitions[p].metadata;
            r->topics[i].partitions[p].error_code = from->partitions[p].error_code;
        }
    }
}

static bool too_many(const group_in *groups, int32_t count)
{
    int64_t sum = count;
    for (int32_t i = 0; i < count; i++)
        for (int32_t t = 0; t < groups[i].topics_count; t++)
            sum += 1 + groups[i].topics[t].partition_indexes_count;
    return sum > PARTITIONS_MAX;
}

void on_fetch(struct groups *c, const struct groups_request *q)
{
    const request *in = q->message;
    bool single = q->api_version <= 7;
    group_in one = single ? single_group(c, in) : (group_in){0};
    const group_in *groups = single ? &one : in->groups;
    int32_t count = single ? 1 : in->groups_count;
    bool refused = too_many(groups, count);
    group_out *out = arena_calloc(c->arena, (size_t)count + 1, sizeof *out);
    for (int32_t i = 0; i < count; i++) {
        if (!refused)
            fetch_group(c, &groups[i], q->api_version, in->require_stable, &out[i]);
        else
            out[i] = (group_out){.group_id = groups[i].group_id, .error_code = KERR_INVALID_REQUEST};
    }
    for (int32_t i = 0; i < count && c->answer_bytes > ANSWER_BYTES_MAX; i++)
        out[i] = (group_out){.group_id = groups[i].group_id, .error_code = KERR_INVALID_REQUEST};
    response *r = arena_alloc(c->arena, sizeof *r);
    kafka_offset_fetch_response_init(r);
    if (single) {
        if (q->api_version < 2 && out->error_code != KERR_NONE)
            spread_error(c, &one, out);
        flatten(c, out, r);
    } else {
        r->groups = out;
        r->groups_count = count;
    }
    answer(c, q, r);
}
