/* api_delete_records.c - DeleteRecords (21), versions 0-2: each partition's new log start goes to the storage node that
 * leads it. Internal topics are refused here; whether cleanup.policy allows it is the storage node's to say. */
#include "kafka/apis.h"
#include "kafka/delete_records.h"
#include "services/frontend/api_common.h"

typedef struct kafka_delete_records_request delete_request;
typedef struct kafka_delete_records_request_delete_records_topic topic_q;
typedef struct kafka_delete_records_response delete_response;
typedef struct kafka_delete_records_response_delete_records_topic_result topic_row;
typedef struct kafka_delete_records_response_delete_records_partition_result partition_row;

static void init_row(partition_row *row, int32_t partition, enum kafka_error error)
{
    kafka_delete_records_response_delete_records_partition_result_init(row);
    row->partition_index = partition;
    row->low_watermark = -1;
    row->error_code = (int16_t)error;
}

/* A row for each partition of the request, at the same positions. */
static void init_rows(struct request *r, const delete_request *q, delete_response *response, enum kafka_error error)
{
    kafka_delete_records_response_init(response);
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
    delete_response response;
    init_rows(r, r->body, &response, error);
    request_reply(r, &response);
}

static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    (void)ctx;
    const delete_request *q = r->body;
    delete_request *m = arena_alloc(r->arena, sizeof *m);
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

static bool is_row(const delete_response *response, struct api_part at, struct slice topic, int32_t partition)
{
    return at.a < response->topics_count && at.b < response->topics[at.a].partitions_count &&
           response->topics[at.a].partitions[at.b].partition_index == partition &&
           slice_eq(response->topics[at.a].name, topic);
}

/* The row at pos, where the question stood, when it is the partition's; else the first that is. */
static const partition_row *find(const delete_response *response, struct slice topic, int32_t partition,
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
    const delete_request *q = r->body;
    delete_response *all = ctx;
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
            init_row(row, partition, error == KERR_NOT_LEADER_OR_FOLLOWER ? error : KERR_REQUEST_TIMED_OUT);
    }
}

static void finish(struct request *r, void *ctx)
{
    request_reply(r, ctx);
}

static void handle(struct request *r)
{
    static const struct api_scatter_ops ops = {KAFKA_API_DELETE_RECORDS, build, take, finish};
    const delete_request *q = r->body;
    size_t count = 0;
    for (int32_t t = 0; t < q->topics_count; t++)
        count += (size_t)q->topics[t].partitions_count;
    delete_response *response = arena_alloc(r->arena, sizeof *response);
    init_rows(r, q, response, KERR_NONE);
    struct api_scatter *s = api_scatter_new(r, &ops, response, count);
    for (int32_t t = 0; t < q->topics_count; t++)
        for (int32_t p = 0; p < q->topics[t].partitions_count; p++) {
            partition_row *row = &response->topics[t].partitions[p];
            int32_t node = -1;
            row->error_code = (int16_t)api_partition_leader(r->image, q->topics[t].name, row->partition_index, &node);
            if (row->error_code != KERR_UNKNOWN_TOPIC_OR_PARTITION && api_topic_is_internal(q->topics[t].name))
                row->error_code = KERR_INVALID_TOPIC_EXCEPTION;
            if (row->error_code == KERR_NONE)
                api_scatter_add(s, KARST__BUS__ROLE__ROLE_STORAGE, node, (struct api_part){t, p});
        }
    api_scatter_send(s, r->version, api_timeout(q->timeout_ms));
}

const struct api_handler api_delete_records = {
    .key = KAFKA_API_DELETE_RECORDS, .version_min = 0, .version_max = 2, .handle = handle, .fail = fail};
