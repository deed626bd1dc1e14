/* api_update_features.c - UpdateFeatures (57), versions 0-2: the controller decides. */
#include "kafka/apis.h"
#include "kafka/update_features.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_update_features_response response;
    kafka_update_features_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    const struct kafka_update_features_request *q = r->body;
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), api_timeout(q->timeout_ms),
                    NULL);
}

const struct api_handler api_update_features = {.key = KAFKA_API_UPDATE_FEATURES,
                                                .version_min = 0,
                                                .version_max = 2,
                                                .at_controllers = true,
                                                .handle = handle,
                                                .fail = fail};
