/* elect_leaders.c - ElectLeaders (43), all versions. Decided by libs/controller; answered when it is committed. */
#include "kafka/elect_leaders.h"
#include "services/controller/quorum.h"

void elect_leaders_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_elect_leaders_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_elect_leaders_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    controller_elect_leaders(q->controller, request, rpc_arena(rpc), response);
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
