/* update_features.c - UpdateFeatures (57), all versions. Decided by libs/controller; answered when it is committed. */
#include "kafka/update_features.h"
#include "services/controller/quorum.h"

void update_features_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_update_features_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_update_features_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    controller_update_features(q->controller, request, (int16_t)rpc_call(rpc)->kafka->api_version, rpc_arena(rpc),
                               response);
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
