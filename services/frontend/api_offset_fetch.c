/* api_offset_fetch.c - OffsetFetch (9), versions 1-10: each group's offsets from the service that owns it.
 *
 * Services see the shape of version 8 and later, a list of groups; up to version 7 there is one, and up to version 1
 * its error stands with each partition. From version 10 on topics come by id: an unknown one is UNKNOWN_TOPIC_ID here,
 * the others are asked for by name, and among all offsets of a group (null topics) those of topics without an id are
 * left out. */
#include "kafka/apis.h"
#include "kafka/offset_fetch.h"
#include "services/frontend/api_common.h"

typedef struct kafka_offset_fetch_request fetch_request;
typedef struct kafka_offset_fetch_request_offset_fetch_request_group group_q;
typedef struct kafka_offset_fetch_request_offset_fetch_request_topics topic_q;
typedef struct kafka_offset_fetch_response fetch_response;
typedef struct kafka_offset_fetch_response_offset_fetch_response_group group_row;
typedef struct kafka_offset_fetch_response_offset_fetch_response_topics topic_row;
typedef struct kafka_offset_fetch_response_offset_fetch_response_partitions partition_row;

enum { WITH_GROUP_ERROR = 2, WITH_GROUPS = 8, WITH_IDS = 10 };

struct fetch {
    group_q *groups; /* of the request, in the newest shape, names filled in */
    group_row *rows;
    int32_t count;
};

/* ---- the request in the newest shape ---- */

static void copy_topics(struct request *r, group_q *to,
                        const struct kafka_offset_fetch_request_offset_fetch_request_topic *from, int32_t count)
{
    to->topics_count = count;
    if (count < 0)
        return;
    to->topics = arena_calloc(r->arena, (size_t)count, sizeof *to->topics);
    for (int32_t t = 0; t < count; t++) {
        to->topics[t].name = from[t].name;
        to->topics[t].partition_indexes = from[t].partition_indexes;
        to->topics[t].partition_indexes_count = from[t].partition_indexes_count;
    }
}

/* Names for ids and ids for names; a topic without a name stays: take_group answers it. */
static void complete_topics(struct request *r, group_q *g)
{
    topic_q *topics = arena_calloc(r->arena, (size_t)MAX(g->topics_count, 0), sizeof *topics);
    for (int32_t t = 0; t < g->topics_count; t++) {
        topics[t] = g->topics[t];
        const struct image_topic *known = r->version >= WITH_IDS ? image_topic_by_id(r->image, topics[t].topic_id)
                                                                 : image_topic_by_name(r->image, topics[t].name);
        if (r->version >= WITH_IDS)
            topics[t].name = known ? known->name : SLICE_EMPTY;
        else if (known)
            topics[t].topic_id = known->id;
    }
    g->topics = topics;
}

static struct fetch *fetch_of(struct request *r)
{
    const fetch_request *q = r->body;
    struct fetch *f = arena_calloc(r->arena, 1, sizeof *f);
    f->count = r->version >= WITH_GROUPS ? q->groups_count : 1;
    f->groups = arena_calloc(r->arena, (size_t)f->count, sizeof *f->groups);
    f->rows = arena_calloc(r->arena, (size_t)f->count, sizeof *f->rows);
    if (r->version < WITH_GROUPS) {
        kafka_offset_fetch_request_offset_fetch_request_group_init(&f->groups[0]);
        f->groups[0].group_id = q->group_id;
        copy_topics(r, &f->groups[0], q->topics, q->topics_count);
    } else if (f->count) {
        memcpy(f->groups, q->groups, (size_t)f->count * sizeof *f->groups);
    }
    for (int32_t i = 0; i < f->count; i++) {
        complete_topics(r, &f->groups[i]);
        kafka_offset_fetch_response_offset_fetch_response_group_init(&f->rows[i]);
        f->rows[i].group_id = f->groups[i].group_id;
    }
    return f;
}

/* ---- rows ---- */

static void init_partition(partition_row *row, int32_t partition, enum kafka_error error)
{
    kafka_offset_fetch_response_offset_fetch_response_partitions_init(row);
    row->partition_index = partition;
    row->committed_offset = -1;
    row->error_code = (int16_t)error;
}

/* All partitions of a topic of the request with one error and no offset. */
static void init_topic(struct request *r, topic_row *row, const topic_q *q, enum kafka_error error)
{
    kafka_offset_fetch_response_offset_fetch_response_topics_init(row);
    row->name = q->name;
    row->topic_id = q->topic_id;
    row->partitions_count = q->partition_indexes_count;
    row->partitions = arena_calloc(r->arena, (size_t)row->partitions_count, sizeof *row->partitions);
    for (int32_t p = 0; p < row->partitions_count; p++)
        init_partition(&row->partitions[p], q->partition_indexes[p], error);
}

/* The error of a group; up to version 1, with no field for it, that of each of its partitions. */
static void set_group_error(struct request *r, const group_q *q, group_row *row, enum kafka_error error)
{
    row->error_code = (int16_t)error;
    row->topics_count = 0;
    if (r->version >= WITH_GROUP_ERROR || q->topics_count <= 0)
        return;
    row->topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *row->topics);
    row->topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++)
        init_topic(r, &row->topics[t], &q->topics[t], error);
}

static void copy_old_shape(struct request *r, const group_row *row, fetch_response *response)
{
    response->error_code = row->error_code;
    response->topics_count = row->topics_count;
    response->topics = arena_calloc(r->arena, (size_t)row->topics_count, sizeof *response->topics);
    for (int32_t t = 0; t < row->topics_count; t++) {
        const topic_row *from = &row->topics[t];
        struct kafka_offset_fetch_response_offset_fetch_response_topic *to = &response->topics[t];
        to->name = from->name;
        to->partitions_count = from->partitions_count;
        to->partitions = arena_calloc(r->arena, (size_t)from->partitions_count, sizeof *to->partitions);
        for (int32_t p = 0; p < from->partitions_count; p++) {
            to->partitions[p].partition_index = from->partitions[p].partition_index;
            to->partitions[p].committed_offset = from->partitions[p].committed_offset;
            to->partitions[p].committed_leader_epoch = from->partitions[p].committed_leader_epoch;
            to->partitions[p].metadata = from->partitions[p].metadata;
            to->partitions[p].error_code = from->partitions[p].error_code;
        }
    }
}

static void reply(struct request *r, const struct fetch *f)
{
    fetch_response response;
    kafka_offset_fetch_response_init(&response);
    if (r->version >= WITH_GROUPS) {
        response.groups = f->rows;
        response.groups_count = f->count;
    } else {
        copy_old_shape(r, &f->rows[0], &response);
    }
    request_reply(r, &response);
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    struct fetch *f = fetch_of(r);
    for (int32_t i = 0; i < f->count; i++)
        set_group_error(r, &f->groups[i], &f->rows[i], error);
    reply(r, f);
}

/* ---- scatter ---- */

static bool is_asked(const struct request *r, const topic_q *topic)
{
    return r->version < WITH_IDS || topic->name.size > 0;
}

static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    const struct fetch *f = ctx;
    fetch_request *m = arena_alloc(r->arena, sizeof *m);
    kafka_offset_fetch_request_init(m);
    m->require_stable = ((const fetch_request *)r->body)->require_stable;
    m->groups = arena_calloc(r->arena, count, sizeof *m->groups);
    m->groups_count = (int32_t)count;
    for (size_t i = 0; i < count; i++) {
        const group_q *from = &f->groups[parts[i].a];
        group_q *to = &m->groups[i];
        *to = *from;
        if (from->topics_count <= 0)
            continue;
        to->topics = arena_calloc(r->arena, (size_t)from->topics_count, sizeof *to->topics);
        to->topics_count = 0;
        for (int32_t t = 0; t < from->topics_count; t++)
            if (is_asked(r, &from->topics[t]))
                to->topics[to->topics_count++] = from->topics[t];
    }
    return m;
}

/* All offsets of a group: what came, with ids; from version 10 on only of topics that have one. */
static void take_all(struct request *r, group_row *row, const group_row *got)
{
    row->topics = arena_calloc(r->arena, (size_t)got->topics_count, sizeof *row->topics);
    row->topics_count = 0;
    for (int32_t t = 0; t < got->topics_count; t++) {
        const struct image_topic *known = image_topic_by_name(r->image, got->topics[t].name);
        if (known == NULL && r->version >= WITH_IDS)
            continue;
        topic_row *to = &row->topics[row->topics_count++];
        *to = got->topics[t];
        if (known)
            to->topic_id = known->id;
    }
}

static const partition_row *find_partition(const topic_row *topic, int32_t partition, int32_t pos)
{
    if (pos < topic->partitions_count && topic->partitions[pos].partition_index == partition)
        return &topic->partitions[pos];
    for (int32_t p = 0; p < topic->partitions_count; p++)
        if (topic->partitions[p].partition_index == partition)
            return &topic->partitions[p];
    return NULL;
}

static const topic_row *find_topic(const group_row *group, struct slice name, int32_t pos)
{
    if (pos < group->topics_count && slice_eq(group->topics[pos].name, name))
        return &group->topics[pos];
    for (int32_t t = 0; t < group->topics_count; t++)
        if (slice_eq(group->topics[t].name, name))
            return &group->topics[t];
    return NULL;
}

/* The asked topics of a group, in the order of the request. */
static void take_asked(struct request *r, const group_q *q, group_row *row, const group_row *got)
{
    row->topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *row->topics);
    row->topics_count = q->topics_count;
    int32_t asked = 0; /* topics of the message so far */
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_row *to = &row->topics[t];
        const topic_row *from = NULL;
        init_topic(r, to, &q->topics[t], is_asked(r, &q->topics[t]) ? KERR_NONE : KERR_UNKNOWN_TOPIC_ID);
        if (is_asked(r, &q->topics[t]))
            from = find_topic(got, q->topics[t].name, asked++);
        for (int32_t p = 0; from && p < to->partitions_count; p++) {
            const partition_row *found = find_partition(from, to->partitions[p].partition_index, p);
            if (found)
                to->partitions[p] = *found;
        }
    }
}

static void take_group(struct request *r, const group_q *q, group_row *row, const group_row *got)
{
    if (got->error_code != KERR_NONE)
        set_group_error(r, q, row, (enum kafka_error)got->error_code);
    else if (q->topics_count < 0)
        take_all(r, row, got);
    else
        take_asked(r, q, row, got);
}

static const group_row *find_group(const fetch_response *response, struct slice group_id, size_t pos)
{
    if (pos < (size_t)response->groups_count && slice_eq(response->groups[pos].group_id, group_id))
        return &response->groups[pos];
    for (int32_t i = 0; i < response->groups_count; i++)
        if (slice_eq(response->groups[i].group_id, group_id))
            return &response->groups[i];
    return NULL;
}

static void take(struct request *r, void *ctx, const struct api_part *parts, size_t count, enum kafka_error error,
                 void *response)
{
    struct fetch *f = ctx;
    for (size_t i = 0; i < count; i++) {
        const group_q *q = &f->groups[parts[i].a];
        group_row *row = &f->rows[parts[i].a];
        const group_row *got = error == KERR_NONE ? find_group(response, q->group_id, i) : NULL;
        if (got)
            take_group(r, q, row, got);
        else
            set_group_error(r, q, row, api_group_call_error(error));
    }
}

static void finish(struct request *r, void *ctx)
{
    reply(r, ctx);
}

static void handle(struct request *r)
{
    static const struct api_scatter_ops ops = {KAFKA_API_OFFSET_FETCH, build, take, finish};
    struct fetch *f = fetch_of(r);
    struct api_scatter *s = api_scatter_new(r, &ops, f, (size_t)f->count);
    for (int32_t i = 0; i < f->count; i++) {
        int32_t service = -1;
        enum kafka_error error = api_group_owner(r->image, f->groups[i].group_id, &service);
        if (error == KERR_NONE)
            api_scatter_add(s, KARST__BUS__ROLE__ROLE_GROUP, service, (struct api_part){i, 0});
        else
            set_group_error(r, &f->groups[i], &f->rows[i], error);
    }
    api_scatter_send(s, r->version < WITH_GROUPS ? WITH_GROUPS : r->version, REQUEST_TIMEOUT_MS);
}

const struct api_handler api_offset_fetch = {
    .key = KAFKA_API_OFFSET_FETCH, .version_min = 1, .version_max = 10, .handle = handle, .fail = fail};
