/* api_elect_leaders.c - ElectLeaders (43), versions 0-2: the controller decides. */
#include "kafka/apis.h"
#include "kafka/elect_leaders.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const struct kafka_elect_leaders_request *q = r->body;
    struct kafka_elect_leaders_response response;
    int32_t topics = MAX(q->topic_partitions_count, 0);
    kafka_elect_leaders_response_init(&response);
    response.error_code = (int16_t)error;
    response.replica_election_results =
        arena_calloc(r->arena, (size_t)topics + 1, sizeof *response.replica_election_results);
    response.replica_election_results_count = topics;
    for (int32_t i = 0; i < topics; i++) {
        const struct kafka_elect_leaders_request_topic_partitions *from = &q->topic_partitions[i];
        struct kafka_elect_leaders_response_replica_election_result *to = &response.replica_election_results[i];
        kafka_elect_leaders_response_replica_election_result_init(to);
        to->topic = from->topic;
        to->partition_result = arena_calloc(r->arena, (size_t)from->partitions_count + 1, sizeof *to->partition_result);
        to->partition_result_count = from->partitions_count;
        for (int32_t n = 0; n < from->partitions_count; n++) {
            kafka_elect_leaders_response_partition_result_init(&to->partition_result[n]);
            to->partition_result[n].partition_id = from->partitions[n];
            to->partition_result[n].error_code = (int16_t)error;
            to->partition_result[n].error_message = api_text(message);
        }
    }
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    const struct kafka_elect_leaders_request *q = r->body;
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), api_timeout(q->timeout_ms),
                    NULL);
}

const struct api_handler api_elect_leaders = {.key = KAFKA_API_ELECT_LEADERS,
                                              .version_min = 0,
                                              .version_max = 2,
                                              .at_controllers = true,
                                              .handle = handle,
                                              .fail = fail};
