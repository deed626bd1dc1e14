/* api_create_partitions.c - CreatePartitions (37), versions 0-3: the controller decides. */
#include "kafka/apis.h"
#include "kafka/create_partitions.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const struct kafka_create_partitions_request *q = r->body;
    struct kafka_create_partitions_response response;
    kafka_create_partitions_response_init(&response);
    response.results = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *response.results);
    response.results_count = q->topics_count;
    for (int32_t i = 0; i < q->topics_count; i++) {
        kafka_create_partitions_response_create_partitions_topic_result_init(&response.results[i]);
        response.results[i].name = q->topics[i].name;
        response.results[i].error_code = (int16_t)error;
        response.results[i].error_message = api_text(message);
    }
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    const struct kafka_create_partitions_request *q = r->body;
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), api_timeout(q->timeout_ms),
                    NULL);
}

const struct api_handler api_create_partitions = {.key = KAFKA_API_CREATE_PARTITIONS,
                                                  .version_min = 0,
                                                  .version_max = 3,
                                                  .at_controllers = true,
                                                  .handle = handle,
                                                  .fail = fail};
