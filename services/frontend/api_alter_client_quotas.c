/* api_alter_client_quotas.c - AlterClientQuotas (49), versions 0-1: the controller decides. */
#include "kafka/alter_client_quotas.h"
#include "kafka/apis.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const struct kafka_alter_client_quotas_request *q = r->body;
    struct kafka_alter_client_quotas_response response;
    kafka_alter_client_quotas_response_init(&response);
    response.entries = arena_calloc(r->arena, (size_t)q->entries_count + 1, sizeof *response.entries);
    response.entries_count = q->entries_count;
    for (int32_t i = 0; i < q->entries_count; i++) {
        struct kafka_alter_client_quotas_response_entry_data *to = &response.entries[i];
        const struct kafka_alter_client_quotas_request_entry_data *from = &q->entries[i];
        kafka_alter_client_quotas_response_entry_data_init(to);
        to->error_code = (int16_t)error;
        to->error_message = api_text(message);
        to->entity = arena_calloc(r->arena, (size_t)from->entity_count + 1, sizeof *to->entity);
        to->entity_count = from->entity_count;
        for (int32_t n = 0; n < from->entity_count; n++)
            to->entity[n] = (struct kafka_alter_client_quotas_response_entity_data){from->entity[n].entity_type,
                                                                                    from->entity[n].entity_name};
    }
    request_reply(r, &response);
}

static void handle(struct request *r)
{
    request_forward(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend), 0, NULL);
}

const struct api_handler api_alter_client_quotas = {.key = KAFKA_API_ALTER_CLIENT_QUOTAS,
                                                    .version_min = 0,
                                                    .version_max = 1,
                                                    .at_controllers = true,
                                                    .handle = handle,
                                                    .fail = fail};
