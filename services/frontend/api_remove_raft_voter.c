/* api_remove_raft_voter.c - RemoveRaftVoter (81), version 0: the controllers' leader decides. */
#include "kafka/apis.h"
#include "kafka/remove_raft_voter.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_remove_raft_voter_response response;
    kafka_remove_raft_voter_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void handle(struct request *r)
{

    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), 0, NULL);
}

const struct api_handler api_remove_raft_voter = {.key = KAFKA_API_REMOVE_RAFT_VOTER,
                                                  .version_min = 0,
                                                  .version_max = 0,
                                                  .at_controllers = true,
                                                  .handle = handle,
                                                  .fail = fail};
