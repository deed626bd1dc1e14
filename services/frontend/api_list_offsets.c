/* api_list_offsets.c - ListOffsets (2), versions 1-11: each partition's question goes to the storage node that leads
 * it.
 *
 * Special times have versions: -3 (highest timestamp) from 7, -4 (local log start) from 8, -5 (tiered) from 9, -6
 * (first not tiered) from 11; any other negative one, and one of these before its version, is UNSUPPORTED_VERSION. A
 * partition that is asked for twice is answered once, with INVALID_REQUEST. */
#include "kafka/apis.h"
#include "kafka/list_offsets.h"
#include "services/frontend/api_common.h"
#include <stdlib.h>

typedef struct kafka_list_offsets_request list_request;
typedef struct kafka_list_offsets_request_list_offsets_topic topic_q;
typedef struct kafka_list_offsets_request_list_offsets_partition partition_q;
typedef struct kafka_list_offsets_response list_response;
typedef struct kafka_list_offsets_response_list_offsets_topic_response topic_row;
typedef struct kafka_list_offsets_response_list_offsets_partition_response partition_row;

static void init_row(partition_row *row, int32_t partition, enum kafka_error error)
{
    kafka_list_offsets_response_list_offsets_partition_response_init(row);
    row->partition_index = partition;
    row->error_code = (int16_t)error;
}

/* A row for each partition of the request, at the same positions. */
static void init_rows(struct request *r, const list_request *q, list_response *response, enum kafka_error error)
{
    kafka_list_offsets_response_init(response);
    response->topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *response->topics);
    response->topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_row *row = &response->topics[t];
        row->name = q->topics[t].name;
        row->partitions_count = q->topics[t].partitions_count;
        row->partitions = arena_calloc(r->arena, (size_t)row->partitions_count, sizeof *row->partitions);
        for (int32_t p = 0; p < row->partitions_count; p++)
            init_row(&row->partitions[p], q->topics[t].partitions[p].partition_index, error);
    }
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    list_response response;
    init_rows(r, r->body, &response, error);
    request_reply(r, &response);
}

static bool is_time_known(int16_t version, int64_t timestamp)
{
    static const int16_t since[] = {1, 1, 7, 8, 9, 11}; /* of -1, -2 ... */
    return timestamp >= 0 || (timestamp >= -(int64_t)COUNTOF(since) && version >= since[-timestamp - 1]);
}

/* ---- partitions that are asked for twice ---- */

struct place {
    struct slice topic;
    int32_t partition;
    struct api_part at;
};

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int c = slice_cmp(x->topic, y->topic);
    if (c == 0)
        c = (x->partition > y->partition) - (x->partition < y->partition);
    if (c == 0)
        c = x->at.a != y->at.a ? (x->at.a > y->at.a) - (x->at.a < y->at.a) : (x->at.b > y->at.b) - (x->at.b < y->at.b);
    return c;
}

enum { DUPLICATE = INT16_MAX }; /* in error_code: a later time of a partition, left out of the answer */

static void mark_duplicates(struct request *r, const list_request *q, list_response *response, size_t count)
{
    struct place *places = arena_calloc(r->arena, count, sizeof *places);
    size_t n = 0;
    for (int32_t t = 0; t < q->topics_count; t++)
        for (int32_t p = 0; p < q->topics[t].partitions_count; p++)
            places[n++] = (struct place){q->topics[t].name, q->topics[t].partitions[p].partition_index, {t, p}};
    qsort(places, n, sizeof *places, compare_places);
    for (size_t i = 1, first = 0; i < n; i++) {
        if (places[i].partition != places[first].partition || !slice_eq(places[i].topic, places[first].topic)) {
            first = i;
            continue;
        }
        response->topics[places[first].at.a].partitions[places[first].at.b].error_code = KERR_INVALID_REQUEST;
        response->topics[places[i].at.a].partitions[places[i].at.b].error_code = DUPLICATE;
    }
}

static void drop_duplicates(list_response *response)
{
    for (int32_t t = 0; t < response->topics_count; t++) {
        topic_row *row = &response->topics[t];
        int32_t kept = 0;
        for (int32_t p = 0; p < row->partitions_count; p++)
            if (row->partitions[p].error_code != DUPLICATE)
                row->partitions[kept++] = row->partitions[p];
        row->partitions_count = kept;
    }
}

/* ---- scatter ---- */

static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    (void)ctx;
    const list_request *q = r->body;
    list_request *m = arena_alloc(r->arena, sizeof *m);
    *m = *q;
    m->topics = arena_calloc(r->arena, count, sizeof *m->topics);
    m->topics_count = 0;
    int32_t last = -1;
    for (size_t i = 0; i < count; i++) {
        const topic_q *from = &q->topics[parts[i].a];
        if (parts[i].a != last) {
            topic_q *to = &m->topics[m->topics_count++];
            to->name = from->name;
            to->partitions = arena_calloc(r->arena, (size_t)from->partitions_count, sizeof *to->partitions);
            last = parts[i].a;
        }
        topic_q *to = &m->topics[m->topics_count - 1];
        to->partitions[to->partitions_count++] = from->partitions[parts[i].b];
    }
    return m;
}

static bool is_row(const list_response *response, struct api_part at, struct slice topic, int32_t partition)
{
    return at.a < response->topics_count && at.b < response->topics[at.a].partitions_count &&
           response->topics[at.a].partitions[at.b].partition_index == partition &&
           slice_eq(response->topics[at.a].name, topic);
}

/* The row at pos, where the question stood, when it is the partition's; else the first that is. */
static const partition_row *find(const list_response *response, struct slice topic, int32_t partition,
                                 struct api_part pos)
{
    if (is_row(response, pos, topic, partition))
        return &response->topics[pos.a].partitions[pos.b];
    for (int32_t t = 0; t < response->topics_count; t++)
        for (int32_t p = 0; slice_eq(response->topics[t].name, topic) && p < response->topics[t].partitions_count; p++)
            if (response->topics[t].partitions[p].partition_index == partition)
                return &response->topics[t].partitions[p];
    return NULL;
}

static void take(struct request *r, void *ctx, const struct api_part *parts, size_t count, enum kafka_error error,
                 void *response)
{
    const list_request *q = r->body;
    list_response *all = ctx;
    struct api_part pos = {0, 0};
    for (size_t i = 0; i < count; i++) {
        pos = api_position(parts, i, pos);
        const topic_q *topic = &q->topics[parts[i].a];
        int32_t partition = topic->partitions[parts[i].b].partition_index;
        partition_row *row = &all->topics[parts[i].a].partitions[parts[i].b];
        const partition_row *got = error == KERR_NONE ? find(response, topic->name, partition, pos) : NULL;
        if (got)
            *row = *got;
        else
            init_row(row, partition,
                     error == KERR_REQUEST_TIMED_OUT ? KERR_REQUEST_TIMED_OUT : KERR_NOT_LEADER_OR_FOLLOWER);
    }
}

static void finish(struct request *r, void *ctx)
{
    list_response *response = ctx;
    drop_duplicates(response);
    request_reply(r, response);
}

static void handle(struct request *r)
{
    static const struct api_scatter_ops ops = {KAFKA_API_LIST_OFFSETS, build, take, finish};
    const list_request *q = r->body;
    if (q->isolation_level != 0 && q->isolation_level != 1) {
        fail(r, KERR_INVALID_REQUEST, NULL);
        return;
    }
    size_t count = 0;
    for (int32_t t = 0; t < q->topics_count; t++)
        count += (size_t)q->topics[t].partitions_count;
    list_response *response = arena_alloc(r->arena, sizeof *response);
    init_rows(r, q, response, KERR_NONE);
    mark_duplicates(r, q, response, count);
    struct api_scatter *s = api_scatter_new(r, &ops, response, count);
    for (int32_t t = 0; t < q->topics_count; t++)
        for (int32_t p = 0; p < q->topics[t].partitions_count; p++) {
            const partition_q *ask = &q->topics[t].partitions[p];
            partition_row *row = &response->topics[t].partitions[p];
            int32_t node = -1;
            if (row->error_code == KERR_NONE && !is_time_known(r->version, ask->timestamp))
                row->error_code = KERR_UNSUPPORTED_VERSION;
            if (row->error_code == KERR_NONE)
                row->error_code =
                    (int16_t)api_partition_leader(r->image, q->topics[t].name, ask->partition_index, &node);
            if (row->error_code == KERR_NONE)
                api_scatter_add(s, KARST__BUS__ROLE__ROLE_STORAGE, node, (struct api_part){t, p});
        }
    bool has_timeout = r->version >= 10 && q->timeout_ms > 0;
    api_scatter_send(s, r->version, has_timeout ? (uint32_t)q->timeout_ms : REQUEST_TIMEOUT_MS);
}

const struct api_handler api_list_offsets = {
    .key = KAFKA_API_LIST_OFFSETS, .version_min = 1, .version_max = 11, .handle = handle, .fail = fail};
