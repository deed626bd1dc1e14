/* api_delete_topics.c - DeleteTopics (20), versions 1-6: the controller decides. It sees the shape of version 6, in
 * which a topic is named or has its id; before it there is a list of names. */
#include "kafka/apis.h"
#include "kafka/delete_topics.h"
#include "services/frontend/api_common.h"

enum { WITH_TOPICS = 6 };

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const struct kafka_delete_topics_request *q = r->body;
    bool by_name = r->version < WITH_TOPICS;
    struct kafka_delete_topics_response response;
    kafka_delete_topics_response_init(&response);
    response.responses_count = by_name ? q->topic_names_count : q->topics_count;
    response.responses = arena_calloc(r->arena, (size_t)response.responses_count, sizeof *response.responses);
    for (int32_t i = 0; i < response.responses_count; i++) {
        kafka_delete_topics_response_deletable_topic_result_init(&response.responses[i]);
        response.responses[i].name = by_name ? q->topic_names[i] : q->topics[i].name;
        if (!by_name)
            response.responses[i].topic_id = q->topics[i].topic_id;
        response.responses[i].error_code = (int16_t)error;
        response.responses[i].error_message = api_text(message);
    }
    request_reply(r, &response);
}

static void on_response(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    (void)ctx;
    if (error != KERR_NONE)
        request_reply_error(r, KERR_REQUEST_TIMED_OUT, NULL);
    else
        request_reply(r, response);
}

static void handle(struct request *r)
{
    const struct kafka_delete_topics_request *q = r->body;
    struct kafka_delete_topics_request message = *q;
    if (r->version < WITH_TOPICS) {
        message.topics_count = q->topic_names_count;
        message.topics = arena_calloc(r->arena, (size_t)q->topic_names_count, sizeof *message.topics);
        for (int32_t i = 0; i < q->topic_names_count; i++) {
            kafka_delete_topics_request_delete_topic_state_init(&message.topics[i]);
            message.topics[i].name = q->topic_names[i];
        }
        message.topic_names_count = 0;
    }
    request_call(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), KAFKA_API_DELETE_TOPICS,
                 WITH_TOPICS, &message, api_timeout(q->timeout_ms), on_response, NULL);
}

const struct api_handler api_delete_topics = {.key = KAFKA_API_DELETE_TOPICS,
                                              .version_min = 1,
                                              .version_max = 6,
                                              .at_controllers = true,
                                              .handle = handle,
                                              .fail = fail};
