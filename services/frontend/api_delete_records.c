/* api_delete_records.c - DeleteRecords (21), versions 0-2: each partition's new log start goes to the storage node that
 * leads it. Internal topics are refused here; whether cleanup.policy allows it is the storage node's to say. */
#include "kafka/apis.h"
#include "kafka/delete_records.h"
#include "services/frontend/api_partitions.h"

typedef struct kafka_delete_records_request delete_request;
typedef struct kafka_delete_records_request_delete_records_topic topic_q;
typedef struct kafka_delete_records_request_delete_records_partition partition_q;
typedef struct kafka_delete_records_response delete_response;
typedef struct kafka_delete_records_response_delete_records_topic_result topic_row;
typedef struct kafka_delete_records_response_delete_records_partition_result partition_row;

static void init_response(void *response)
{
    kafka_delete_records_response_init(response);
}

static void init_row(void *to, int32_t partition, enum kafka_error error)
{
    partition_row *row = to;
    kafka_delete_records_response_delete_records_partition_result_init(row);
    row->partition_index = partition;
    row->low_watermark = -1;
    row->error_code = (int16_t)error;
}

static const struct api_layout layout = {
    .api_key = KAFKA_API_DELETE_RECORDS,
    .request =
        API_SHAPE(delete_request, topic_q, name, partitions, partition_q, offsetof(partition_q, partition_index)),
    .response = API_SHAPE(delete_response, topic_row, name, partitions, partition_row,
                          offsetof(partition_row, partition_index)),
    .init_response = init_response,
    .init_row = init_row,
    .writes = true,
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
    row->error_code = (int16_t)api_partition_leader(r->image, topic, row->partition_index, &node);
    if (row->error_code != KERR_UNKNOWN_TOPIC_OR_PARTITION && api_topic_is_internal(topic))
        row->error_code = KERR_INVALID_TOPIC_EXCEPTION;
    return row->error_code == KERR_NONE ? node : -1;
}

static void handle(struct request *r)
{
    const delete_request *q = r->body;
    api_partitions_scatter(r, &layout, api_partitions_rows(r, &layout, KERR_NONE), api_timeout(q->timeout_ms), node_of,
                           api_partitions_reply);
}

const struct api_handler api_delete_records = {
    .key = KAFKA_API_DELETE_RECORDS, .version_min = 0, .version_max = 2, .handle = handle, .fail = fail};
