/* api_offset_for_leader_epoch.c - OffsetForLeaderEpoch (23), versions 2-4: each partition's question goes to the
 * storage node that leads it. */
#include "kafka/apis.h"
#include "kafka/offset_for_leader_epoch.h"
#include "services/frontend/api_partitions.h"

typedef struct kafka_offset_for_leader_epoch_request epoch_request;
typedef struct kafka_offset_for_leader_epoch_request_offset_for_leader_topic topic_q;
typedef struct kafka_offset_for_leader_epoch_request_offset_for_leader_partition partition_q;
typedef struct kafka_offset_for_leader_epoch_response epoch_response;
typedef struct kafka_offset_for_leader_epoch_response_offset_for_leader_topic_result topic_row;
typedef struct kafka_offset_for_leader_epoch_response_epoch_end_offset partition_row;

static void init_response(void *response)
{
    kafka_offset_for_leader_epoch_response_init(response);
}

static void init_row(void *to, int32_t partition, enum kafka_error error)
{
    partition_row *row = to;
    kafka_offset_for_leader_epoch_response_epoch_end_offset_init(row);
    row->partition = partition;
    row->error_code = (int16_t)error;
}

static const struct api_layout layout = {
    .api_key = KAFKA_API_OFFSET_FOR_LEADER_EPOCH,
    .request = API_SHAPE(epoch_request, topic_q, topic, partitions, partition_q, offsetof(partition_q, partition)),
    .response =
        API_SHAPE(epoch_response, topic_row, topic, partitions, partition_row, offsetof(partition_row, partition)),
    .init_response = init_response,
    .init_row = init_row,
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    api_partitions_fail(r, &layout, error);
}

static int32_t node_of(struct request *r, struct slice topic, struct api_part at, void *to)
{
    (void)at;
    partition_row *row = to;
    int32_t node = -1;
    row->error_code = (int16_t)api_partition_leader(r->image, topic, row->partition, &node);
    return row->error_code == KERR_NONE ? node : -1;
}

static void handle(struct request *r)
{
    api_partitions_scatter(r, &layout, api_partitions_rows(r, &layout, KERR_NONE), REQUEST_TIMEOUT_MS, node_of,
                           api_partitions_reply);
}

const struct api_handler api_offset_for_leader_epoch = {
    .key = KAFKA_API_OFFSET_FOR_LEADER_EPOCH, .version_min = 2, .version_max = 4, .handle = handle, .fail = fail};
