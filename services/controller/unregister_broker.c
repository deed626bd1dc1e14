/* unregister_broker.c - UnregisterBroker (64). Decided by libs/controller; answered when it is committed. */
#include "kafka/unregister_broker.h"
#include "services/controller/quorum.h"

void unregister_broker_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_unregister_broker_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_unregister_broker_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    kafka_unregister_broker_response_init(response);
    enum kafka_error error = controller_unregister_broker(q->controller, request->broker_id);
    response->error_code = (int16_t)error;
    if (error != KERR_NONE)
        response->error_message =
            slice_str(arena_printf(rpc_arena(rpc), "Broker ID %d is not currently registered", request->broker_id));
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
