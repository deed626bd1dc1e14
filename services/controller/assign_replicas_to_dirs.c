/* assign_replicas_to_dirs.c - AssignReplicasToDirs (73), from storage nodes. Decided by libs/controller; answered when
 * it is committed.
 */
#include "kafka/assign_replicas_to_dirs.h"
#include "services/controller/quorum.h"

void assign_replicas_to_dirs_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_assign_replicas_to_dirs_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    if (rpc_from(rpc)->role != KARST__BUS__ROLE__ROLE_STORAGE || rpc_from(rpc)->id != request->broker_id) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
        return;
    }
    struct kafka_assign_replicas_to_dirs_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    controller_assign_dirs(q->controller, request, rpc_arena(rpc), response);
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
