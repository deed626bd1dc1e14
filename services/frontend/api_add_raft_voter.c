/* api_add_raft_voter.c - AddRaftVoter (80), versions 0-1: the controllers' leader decides. */
#include "kafka/add_raft_voter.h"
#include "kafka/apis.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_add_raft_voter_response response;
    kafka_add_raft_voter_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    const struct kafka_add_raft_voter_request *q = r->body;
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), api_timeout(q->timeout_ms),
                    NULL);
}

const struct api_handler api_add_raft_voter = {.key = KAFKA_API_ADD_RAFT_VOTER,
                                               .version_min = 0,
                                               .version_max = 1,
                                               .at_controllers = true,
                                               .handle = handle,
                                               .fail = fail};
