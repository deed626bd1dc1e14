/* allocate_producer_ids.c - AllocateProducerIds (67), for the txn service. Decided by libs/controller; answered when it
 * is committed. */
#include "kafka/allocate_producer_ids.h"
#include "services/controller/quorum.h"

void allocate_producer_ids_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_allocate_producer_ids_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_allocate_producer_ids_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    controller_allocate_producer_ids(q->controller, request, response);
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
