/* alter_partition.c - AlterPartition (56), from the storage node that leads. Decided by libs/controller; answered when
 * it is committed. */
#include "kafka/alter_partition.h"
#include "services/controller/quorum.h"

void alter_partition_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_alter_partition_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    if (rpc_from(rpc)->role != KARST__BUS__ROLE__ROLE_STORAGE || rpc_from(rpc)->id != request->broker_id) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
        return;
    }
    struct kafka_alter_partition_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    controller_alter_partition(q->controller, request, rpc_arena(rpc), response);
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
