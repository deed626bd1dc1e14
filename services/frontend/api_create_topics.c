/* api_create_topics.c - CreateTopics (19), versions 2-7: the controller decides; the answer leaves once our image holds
 * the topics, so that this client can use them at once. */
#include "kafka/apis.h"
#include "kafka/create_topics.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const struct kafka_create_topics_request *q = r->body;
    struct kafka_create_topics_response response;
    kafka_create_topics_response_init(&response);
    response.topics = arena_calloc(r->arena, (size_t)q->topics_count, sizeof *response.topics);
    response.topics_count = q->topics_count;
    for (int32_t i = 0; i < q->topics_count; i++) {
        kafka_create_topics_response_creatable_topic_result_init(&response.topics[i]);
        response.topics[i].name = q->topics[i].name;
        response.topics[i].error_code = (int16_t)error;
        response.topics[i].error_message = api_text(message);
    }
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    const struct kafka_create_topics_request *q = r->body;
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), api_timeout(q->timeout_ms),
                    NULL);
}

const struct api_handler api_create_topics = {.key = KAFKA_API_CREATE_TOPICS,
                                              .version_min = 2,
                                              .version_max = 7,
                                              .at_controllers = true,
                                              .handle = handle,
                                              .fail = fail};
