/* api_alter_replica_log_dirs.c - AlterReplicaLogDirs (34), versions 1-2: replicas of one storage node go to other
 * directories of it. The request names no broker: it is the one that the connection stands for. */
#include "kafka/alter_replica_log_dirs.h"
#include "kafka/apis.h"
#include "services/frontend/api_common.h"

typedef struct kafka_alter_replica_log_dirs_request alter_request;
typedef struct kafka_alter_replica_log_dirs_response_alter_replica_log_dir_topic_result topic_row;

static void fail_topic(struct request *r,
                       const struct kafka_alter_replica_log_dirs_request_alter_replica_log_dir_topic *q,
                       enum kafka_error error, topic_row *row)
{
    kafka_alter_replica_log_dirs_response_alter_replica_log_dir_topic_result_init(row);
    row->topic_name = q->name;
    row->partitions = arena_calloc(r->arena, (size_t)q->partitions_count + 1, sizeof *row->partitions);
    row->partitions_count = q->partitions_count;
    for (int32_t i = 0; i < q->partitions_count; i++) {
        kafka_alter_replica_log_dirs_response_alter_replica_log_dir_partition_result_init(&row->partitions[i]);
        row->partitions[i].partition_index = q->partitions[i];
        row->partitions[i].error_code = (int16_t)error;
    }
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const alter_request *q = r->body;
    struct kafka_alter_replica_log_dirs_response response;
    size_t count = 0;
    (void)message; /* the response has no room for one */
    kafka_alter_replica_log_dirs_response_init(&response);
    for (int32_t d = 0; d < q->dirs_count; d++)
        count += (size_t)q->dirs[d].topics_count;
    response.results = arena_calloc(r->arena, count + 1, sizeof *response.results);
    for (int32_t d = 0; d < q->dirs_count; d++)
        for (int32_t t = 0; t < q->dirs[d].topics_count; t++)
            fail_topic(r, &q->dirs[d].topics[t], error, &response.results[response.results_count++]);
    request_reply(r, &response);
}

const struct api_handler api_alter_replica_log_dirs = {.key = KAFKA_API_ALTER_REPLICA_LOG_DIRS,
                                                       .version_min = 1,
                                                       .version_max = 2,
                                                       .handle = request_forward_to_broker,
                                                       .fail = fail};
