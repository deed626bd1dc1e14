/* incremental_alter_configs.c - IncrementalAlterConfigs (44), all versions. Decided by libs/controller; answered when
 * it is committed. */
#include "kafka/incremental_alter_configs.h"
#include "services/controller/quorum.h"

void incremental_alter_configs_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_incremental_alter_configs_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_incremental_alter_configs_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    controller_alter_configs(q->controller, request, rpc_arena(rpc), response);
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
