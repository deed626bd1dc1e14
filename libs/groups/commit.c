/* commit.c - OffsetCommit, versions 2-10. Topics are named up to version 9 and have ids from 10 on (KIP-848).
 *
 * Unknown topics and partitions are refused one by one; the rest is committed together, in one batch, when the group
 * allows it. */
#include "libs/groups/core.h"

#include "kafka/apis.h"
#include "kafka/offset_commit.h"

typedef struct kafka_offset_commit_request request;
typedef struct kafka_offset_commit_response response;
typedef struct kafka_offset_commit_request_offset_commit_request_topic topic_in;
typedef struct kafka_offset_commit_request_offset_commit_request_partition partition_in;
typedef struct kafka_offset_commit_response_offset_commit_response_topic topic_out;

/* Topics as the image knows them now; name null: unknown. */
struct known_topic {
    struct slice name;
    struct uuid id;
};

struct commit {
    const struct groups_request *q;
    const request *in;
    response *out;
    struct known_topic *topics; /* one a topic of the request */
    int64_t good;               /* partitions that exist */
};

static enum kafka_error look_up(struct groups *c, int16_t version, const topic_in *t, struct known_topic *ret_topic,
                                int32_t *ret_partitions)
{
    if (version >= 10) {
        if (uuid_is_zero(t->topic_id) || !c->env.topic_by_id(c->env.ctx, t->topic_id, &ret_topic->name, ret_partitions))
            return KERR_UNKNOWN_TOPIC_ID;
        ret_topic->id = t->topic_id;
        return KERR_NONE;
    }
    if (!c->env.topic_by_name(c->env.ctx, t->name, &ret_topic->id, ret_partitions))
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    ret_topic->name = t->name;
    return KERR_NONE;
}

static void answer_topic(struct groups *c, struct commit *k, struct arena *a, int32_t i)
{
    const topic_in *t = &k->in->topics[i];
    topic_out *out = &k->out->topics[i];
    int32_t partitions = 0;
    enum kafka_error error = look_up(c, k->q->api_version, t, &k->topics[i], &partitions);
    out->name = arena_dup(a, t->name);
    out->topic_id = t->topic_id;
    out->partitions = arena_calloc(a, (size_t)t->partitions_count + 1, sizeof out->partitions[0]);
    out->partitions_count = t->partitions_count;
    for (int32_t p = 0; p < t->partitions_count; p++) {
        int32_t index = t->partitions[p].partition_index;
        bool exists = index >= 0 && index < partitions;
        out->partitions[p].partition_index = index;
        out->partitions[p].error_code =
            (int16_t)(error != KERR_NONE || exists ? error : KERR_UNKNOWN_TOPIC_OR_PARTITION);
        k->good += out->partitions[p].error_code == KERR_NONE;
    }
}

static bool too_many(const request *in)
{
    int64_t count = in->topics_count;
    for (int32_t i = 0; i < in->topics_count; i++)
        count += in->topics[i].partitions_count;
    return count > PARTITIONS_MAX;
}

static enum kafka_error validate_member(const struct groups_request *q, const struct group *g,
                                        struct member **ret_member)
{
    const request *in = q->message;
    int32_t generation = in->generation_id_or_member_epoch;
    if (g == NULL && generation >= 0)
        return q->api_version >= 9 ? KERR_GROUP_ID_NOT_FOUND : KERR_ILLEGAL_GENERATION;
    if (g == NULL)
        return KERR_NONE; /* an application that assigns partitions itself: a group of offsets alone is made */
    if (generation < 0 && group_is_empty(g))
        return KERR_NONE; /* an administrator, or the same */
    if (g->type != GROUP_CLASSIC)
        return KERR_UNKNOWN_MEMBER_ID;
    if (generation < 0 && in->member_id.size == 0 && slice_is_null(in->group_instance_id))
        return KERR_UNKNOWN_MEMBER_ID; /* members alone commit while there are members */
    enum kafka_error error = member_validate(g, in->member_id, in->group_instance_id, ret_member);
    if (error != KERR_NONE)
        return error;
    if (generation != g->generation)
        return KERR_ILLEGAL_GENERATION;
    /* It has joined but not yet synced: what it commits belongs to the former generation. */
    return g->state == GROUP_COMPLETING ? KERR_REBALANCE_IN_PROGRESS : KERR_NONE;
}

static int64_t expire_ms(const struct groups *c, const struct commit *k)
{
    int64_t retention = k->in->retention_time_ms, end;
    if (k->q->api_version > 4 || retention < 0)
        return -1;
    return __builtin_add_overflow(c->now.wall_ms, retention, &end) ? INT64_MAX : end;
}

static size_t stage_partitions(struct groups *c, const struct commit *k)
{
    size_t bytes = sizeof(struct group) + STRUCT_OVERHEAD;
    for (int32_t i = 0; i < k->in->topics_count; i++) {
        const topic_in *t = &k->in->topics[i];
        for (int32_t p = 0; p < t->partitions_count; p++) {
            const partition_in *in = &t->partitions[p];
            int16_t *error = &k->out->topics[i].partitions[p].error_code;
            if (*error != KERR_NONE)
                continue;
            if (in->committed_metadata.size > (size_t)c->config.metadata_max_bytes) {
                *error = KERR_OFFSET_METADATA_TOO_LARGE;
                continue;
            }
            struct offset_value v = {
                .offset = in->committed_offset,
                .leader_epoch = in->committed_leader_epoch,
                .commit_ms = c->now.wall_ms,
                .expire_ms = expire_ms(c, k),
                .topic_id = k->topics[i].id,
                .metadata = slice_is_null(in->committed_metadata) ? SLICE_EMPTY : in->committed_metadata,
            };
            record_put_offset(c, k->in->group_id, k->topics[i].name, in->partition_index, &v);
            bytes += 2 * sizeof(struct offset) + v.metadata.size + sizeof(struct offset_topic) + STRUCT_OVERHEAD;
        }
    }
    return bytes;
}

/* The entries that the staged records will fill. */
static void queue_partitions(struct group *g, const struct commit *k)
{
    for (int32_t i = 0; i < k->in->topics_count; i++)
        for (int32_t p = 0; p < k->in->topics[i].partitions_count; p++)
            if (k->out->topics[i].partitions[p].error_code == KERR_NONE)
                store_get(g, k->topics[i].name, k->in->topics[i].partitions[p].partition_index)->queued++;
}

static enum kafka_error commit(struct groups *c, struct commit *k, struct deferred *d)
{
    struct shard *s;
    struct group *g;
    struct member *m = NULL;
    enum kafka_error error = group_of(c, k->in->group_id, &s, &g);
    if (error == KERR_NONE)
        error = validate_member(k->q, g, &m);
    if (error != KERR_NONE)
        return error;
    if (m != NULL && !m->is_new)
        member_expect(m); /* a commit is a sign of life, too */
    size_t bytes = stage_partitions(c, k);
    if (c->scratch.record_count == 0)
        return KERR_NONE; /* all refused already */
    if (!stage_fits(c) || !memory_allows(c, bytes)) {
        error = stage_fits(c) ? KERR_COORDINATOR_NOT_AVAILABLE : KERR_INVALID_COMMIT_OFFSET_SIZE;
        stage_start(c);
        return error;
    }
    if (g == NULL)
        g = group_create(s, k->in->group_id);
    queue_partitions(g, k);
    stage_commit(s, &(struct staged_op){.deferred = d, .part = -1});
    return KERR_NONE;
}

void on_commit(struct groups *c, const struct groups_request *q)
{
    const request *in = q->message;
    struct deferred *d = deferred_new(q);
    response *r = arena_alloc(d->arena, sizeof *r);
    kafka_offset_commit_response_init(r);
    d->response = r;
    struct commit k = {.q = q, .in = in, .out = r};
    enum kafka_error error = KERR_NONE;
    k.topics = arena_calloc(c->arena, (size_t)in->topics_count + 1, sizeof k.topics[0]);
    r->topics = arena_calloc(d->arena, (size_t)in->topics_count + 1, sizeof r->topics[0]);
    r->topics_count = in->topics_count;
    for (int32_t i = 0; i < in->topics_count; i++)
        answer_topic(c, &k, d->arena, i);
    if (too_many(in))
        error = KERR_INVALID_COMMIT_OFFSET_SIZE;
    else if (k.good > 0)
        error = commit(c, &k, d);
    if (error != KERR_NONE)
        deferred_set_error(d, -1, error);
    deferred_done(c, d);
}
