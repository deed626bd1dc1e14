/* api_describe_quorum.c - DescribeQuorum (55), versions 0-2: the leader of the controllers knows. */
#include "kafka/apis.h"
#include "kafka/describe_quorum.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_describe_quorum_response response;
    kafka_describe_quorum_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), 0, NULL);
}

const struct api_handler api_describe_quorum = {
    .key = KAFKA_API_DESCRIBE_QUORUM, .version_min = 0, .version_max = 2, .handle = handle, .fail = fail};
