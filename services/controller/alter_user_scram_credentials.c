/* alter_user_scram_credentials.c - AlterUserScramCredentials (51), all versions. Decided by libs/controller; answered
 * when it is committed. */
#include "kafka/alter_user_scram_credentials.h"
#include "services/controller/quorum.h"

void alter_user_scram_credentials_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_alter_user_scram_credentials_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_alter_user_scram_credentials_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    controller_alter_scram(q->controller, request, rpc_arena(rpc), response);
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
