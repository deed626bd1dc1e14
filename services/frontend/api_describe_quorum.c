/* api_describe_quorum.c - DescribeQuorum (55), versions 0-2: the leader of the controllers knows. */
#include "kafka/apis.h"
#include "kafka/describe_quorum.h"
#include "services/frontend/api_common.h"

enum { WITH_DIRECTORIES = 2 };

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_describe_quorum_response response;
    kafka_describe_quorum_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void forget_directories(struct kafka_describe_quorum_response_replica_state *replicas, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        replicas[i].replica_directory_id = (struct uuid){0};
}

/* What the controller says is of the newest version; in an older one directory ids and nodes have no place. */
static void on_response(struct request *r, void *response)
{
    struct kafka_describe_quorum_response *answer = response;

    if (r->version < WITH_DIRECTORIES) {
        answer->nodes_count = 0;
        for (int32_t t = 0; t < answer->topics_count; t++)
            for (int32_t i = 0; i < answer->topics[t].partitions_count; i++) {
                struct kafka_describe_quorum_response_partition_data *p = &answer->topics[t].partitions[i];
                forget_directories(p->current_voters, p->current_voters_count);
                forget_directories(p->observers, p->observers_count);
            }
    }
    request_reply(r, answer);
}

static void handle(struct request *r)
{
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), 0, on_response);
}

const struct api_handler api_describe_quorum = {.key = KAFKA_API_DESCRIBE_QUORUM,
                                                .version_min = 0,
                                                .version_max = 2,
                                                .at_controllers = true,
                                                .handle = handle,
                                                .fail = fail};
