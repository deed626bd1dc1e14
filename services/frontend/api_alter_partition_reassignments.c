/* api_alter_partition_reassignments.c - AlterPartitionReassignments (45), versions 0-1: the controller decides. */
#include "kafka/alter_partition_reassignments.h"
#include "kafka/apis.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_alter_partition_reassignments_response response;
    kafka_alter_partition_reassignments_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    const struct kafka_alter_partition_reassignments_request *q = r->body;
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), api_timeout(q->timeout_ms),
                    NULL);
}

const struct api_handler api_alter_partition_reassignments = {.key = KAFKA_API_ALTER_PARTITION_REASSIGNMENTS,
                                                              .version_min = 0,
                                                              .version_max = 1,
                                                              .at_controllers = true,
                                                              .handle = handle,
                                                              .fail = fail};
