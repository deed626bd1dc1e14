/* api_describe_producers.c - DescribeProducers (61), version 0: the idempotent producers of partitions, as the broker
 * knows them that the connection stands for when it has a replica, else as the leader does. */
#include "kafka/apis.h"
#include "kafka/describe_producers.h"
#include "services/frontend/api_common.h"

typedef struct kafka_describe_producers_request producers_request;
typedef struct kafka_describe_producers_request_topic_request topic_q;
typedef struct kafka_describe_producers_response producers_response;
typedef struct kafka_describe_producers_response_topic_response topic_row;
typedef struct kafka_describe_producers_response_partition_response partition_row;

static const char NOT_HOSTED[] = "This server does not host this topic-partition.";

static void init_row(partition_row *row, int32_t partition, enum kafka_error error, const char *message)
{
    kafka_describe_producers_response_partition_response_init(row);
    row->partition_index = partition;
    row->error_code = (int16_t)error;
    row->error_message = api_text(message);
}

/* A row for each partition of the request, at the same positions. */
static void init_rows(struct request *r, const producers_request *q, producers_response *response,
                      enum kafka_error error)
{
    kafka_describe_producers_response_init(response);
    response->topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *response->topics);
    response->topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_row *row = &response->topics[t];
        row->name = q->topics[t].name;
        row->partitions_count = q->topics[t].partition_indexes_count;
        row->partitions = arena_calloc(r->arena, (size_t)row->partitions_count, sizeof *row->partitions);
        for (int32_t p = 0; p < row->partitions_count; p++)
            init_row(&row->partitions[p], q->topics[t].partition_indexes[p], error, NULL);
    }
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message;
    producers_response response;
    init_rows(r, r->body, &response, error);
    request_reply(r, &response);
}

static const void *build(struct request *r, void *ctx, const struct api_part *parts, size_t count)
{
    (void)ctx;
    const producers_request *q = r->body;
    producers_request *m = arena_alloc(r->arena, sizeof *m);
    *m = *q;
    m->topics = arena_calloc(r->arena, count, sizeof *m->topics);
    m->topics_count = 0;
    int32_t last = -1;
    for (size_t i = 0; i < count; i++) {
        const topic_q *from = &q->topics[parts[i].a];
        if (parts[i].a != last) {
            topic_q *to = &m->topics[m->topics_count++];
            to->name = from->name;
            to->partition_indexes =
                arena_calloc(r->arena, (size_t)from->partition_indexes_count, sizeof *to->partition_indexes);
            last = parts[i].a;
        }
        topic_q *to = &m->topics[m->topics_count - 1];
        to->partition_indexes[to->partition_indexes_count++] = from->partition_indexes[parts[i].b];
    }
    return m;
}

static bool is_row(const producers_response *response, struct api_part at, struct slice topic, int32_t partition)
{
    return at.a < response->topics_count && at.b < response->topics[at.a].partitions_count &&
           response->topics[at.a].partitions[at.b].partition_index == partition &&
           slice_eq(response->topics[at.a].name, topic);
}

/* The row at pos, where the question stood, when it is the partition's; else the first that is. */
static const partition_row *find(const producers_response *response, struct slice topic, int32_t partition,
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
    const producers_request *q = r->body;
    producers_response *all = ctx;
    struct api_part pos = {0, 0};
    for (size_t i = 0; i < count; i++) {
        pos = api_position(parts, i, pos);
        const topic_q *topic = &q->topics[parts[i].a];
        int32_t partition = topic->partition_indexes[parts[i].b];
        partition_row *row = &all->topics[parts[i].a].partitions[parts[i].b];
        const partition_row *got = error == KERR_NONE ? find(response, topic->name, partition, pos) : NULL;
        if (got)
            *row = *got;
        else
            init_row(row, partition, KERR_NOT_LEADER_OR_FOLLOWER, NULL); /* it only reads: asking again is safe */
    }
}

static void finish(struct request *r, void *ctx)
{
    request_reply(r, ctx);
}

/* The storage node to ask about a partition, or the row with its error and -1. */
static int32_t node_of(struct request *r, const topic_q *topic, int32_t partition, partition_row *row)
{
    const char *problem = api_topic_name_problem(r, topic->name);
    const struct image_topic *t = problem ? NULL : image_topic_by_name(r->image, topic->name);
    const struct image_partition *p = t ? image_partition(t, partition) : NULL;
    if (p == NULL) {
        init_row(row, partition, problem ? KERR_INVALID_TOPIC_EXCEPTION : KERR_UNKNOWN_TOPIC_OR_PARTITION,
                 problem ? problem
                 : t     ? NULL
                         : NOT_HOSTED);
        return -1;
    }
    for (int32_t i = 0; i < p->replica_count; i++)
        if (p->replicas[i] == r->client.broker_id)
            return p->replicas[i];
    if (p->leader < 0)
        init_row(row, partition, KERR_NOT_LEADER_OR_FOLLOWER, NULL);
    return p->leader;
}

static void handle(struct request *r)
{
    static const struct api_scatter_ops ops = {KAFKA_API_DESCRIBE_PRODUCERS, build, take, finish};
    const producers_request *q = r->body;
    size_t count = 0;
    for (int32_t t = 0; t < q->topics_count; t++)
        count += (size_t)q->topics[t].partition_indexes_count;
    producers_response *response = arena_alloc(r->arena, sizeof *response);
    init_rows(r, q, response, KERR_NONE);
    struct api_scatter *s = api_scatter_new(r, &ops, response, count);
    for (int32_t t = 0; t < q->topics_count; t++)
        for (int32_t p = 0; p < q->topics[t].partition_indexes_count; p++) {
            int32_t node =
                node_of(r, &q->topics[t], q->topics[t].partition_indexes[p], &response->topics[t].partitions[p]);
            if (node >= 0)
                api_scatter_add(s, KARST__BUS__ROLE__ROLE_STORAGE, node, (struct api_part){t, p});
        }
    api_scatter_send(s, r->version, REQUEST_TIMEOUT_MS);
}

const struct api_handler api_describe_producers = {
    .key = KAFKA_API_DESCRIBE_PRODUCERS, .version_min = 0, .version_max = 0, .handle = handle, .fail = fail};
