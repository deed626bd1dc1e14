/* api_alter_user_scram_credentials.c - AlterUserScramCredentials (51), version 0: the controller decides. */
#include "kafka/alter_user_scram_credentials.h"
#include "kafka/apis.h"
#include "services/frontend/api_common.h"

typedef struct kafka_alter_user_scram_credentials_response_alter_user_scram_credentials_result result;

/* Each user once. */
static void add(struct kafka_alter_user_scram_credentials_response *p, struct slice user, enum kafka_error error,
                const char *message)
{
    for (int32_t i = 0; i < p->results_count; i++)
        if (slice_eq(p->results[i].user, user))
            return;
    result *to = &p->results[p->results_count++];
    kafka_alter_user_scram_credentials_response_alter_user_scram_credentials_result_init(to);
    to->user = user;
    to->error_code = (int16_t)error;
    to->error_message = api_text(message);
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const struct kafka_alter_user_scram_credentials_request *q = r->body;
    struct kafka_alter_user_scram_credentials_response response;
    kafka_alter_user_scram_credentials_response_init(&response);
    response.results =
        arena_calloc(r->arena, (size_t)q->deletions_count + (size_t)q->upsertions_count + 1, sizeof *response.results);
    response.results_count = 0;
    for (int32_t i = 0; i < q->deletions_count; i++)
        add(&response, q->deletions[i].name, error, message);
    for (int32_t i = 0; i < q->upsertions_count; i++)
        add(&response, q->upsertions[i].name, error, message);
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), 0, NULL);
}

const struct api_handler api_alter_user_scram_credentials = {.key = KAFKA_API_ALTER_USER_SCRAM_CREDENTIALS,
                                                             .version_min = 0,
                                                             .version_max = 0,
                                                             .at_controllers = true,
                                                             .handle = handle,
                                                             .fail = fail};
