/* api_unregister_broker.c - UnregisterBroker (64), version 0: the controllers' leader decides. */
#include "kafka/apis.h"
#include "kafka/unregister_broker.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_unregister_broker_response response;
    kafka_unregister_broker_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), 0, NULL);
}

const struct api_handler api_unregister_broker = {.key = KAFKA_API_UNREGISTER_BROKER,
                                                  .version_min = 0,
                                                  .version_max = 0,
                                                  .at_controllers = true,
                                                  .handle = handle,
                                                  .fail = fail};
