/* api_describe_producers.c - DescribeProducers (61), version 0: the idempotent producers of partitions, as the broker
 * knows them that the connection stands for when it has a replica, else as the leader does. */
#include "kafka/apis.h"
#include "kafka/describe_producers.h"
#include "services/frontend/api_partitions.h"

typedef struct kafka_describe_producers_request producers_request;
typedef struct kafka_describe_producers_request_topic_request topic_q;
typedef struct kafka_describe_producers_response producers_response;
typedef struct kafka_describe_producers_response_topic_response topic_row;
typedef struct kafka_describe_producers_response_partition_response partition_row;

static const char NOT_HOSTED[] = "This server does not host this topic-partition.";

static void init_response(void *response)
{
    kafka_describe_producers_response_init(response);
}

static void init_row(void *to, int32_t partition, enum kafka_error error)
{
    partition_row *row = to;
    kafka_describe_producers_response_partition_response_init(row);
    row->partition_index = partition;
    row->error_code = (int16_t)error;
}

static const struct api_layout layout = {
    .api_key = KAFKA_API_DESCRIBE_PRODUCERS,
    .request = API_SHAPE(producers_request, topic_q, name, partition_indexes, int32_t, 0),
    .response = API_SHAPE(producers_response, topic_row, name, partitions, partition_row,
                          offsetof(partition_row, partition_index)),
    .init_response = init_response,
    .init_row = init_row,
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message;
    api_partitions_fail(r, &layout, error);
}

/* The replica on the broker that the connection stands for, else the leader. */
static int32_t node_of(struct request *r, struct slice topic, struct api_part at, void *to)
{
    (void)at;
    partition_row *row = to;
    const char *problem = api_topic_name_problem(r, topic);
    const struct image_topic *t = problem ? NULL : image_topic_by_name(r->image, topic);
    const struct image_partition *p = t ? image_partition(t, row->partition_index) : NULL;
    if (p == NULL) {
        row->error_code = problem ? KERR_INVALID_TOPIC_EXCEPTION : KERR_UNKNOWN_TOPIC_OR_PARTITION;
        row->error_message = api_text(problem ? problem : t ? NULL : NOT_HOSTED);
        return -1;
    }
    for (int32_t i = 0; i < p->replica_count; i++)
        if (p->replicas[i] == r->client.broker_id)
            return p->replicas[i];
    if (p->leader < 0)
        row->error_code = KERR_NOT_LEADER_OR_FOLLOWER;
    return p->leader;
}

static void handle(struct request *r)
{
    api_partitions_scatter(r, &layout, api_partitions_rows(r, &layout, KERR_NONE), REQUEST_TIMEOUT_MS, node_of,
                           api_partitions_reply);
}

const struct api_handler api_describe_producers = {
    .key = KAFKA_API_DESCRIBE_PRODUCERS, .version_min = 0, .version_max = 0, .handle = handle, .fail = fail};
