/* heartbeat.c - bus request Heartbeat: a service is alive, or wants to go. */
#include "services/controller/quorum.h"

void heartbeat_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    const Karst__Bus__HeartbeatRequest *m = rpc_call(rpc)->heartbeat;
    struct controller_heartbeat h = {
        .role = m->role,
        .id = m->id,
        .incarnation = m->incarnation,
        .epoch = m->epoch,
        .metadata_offset = m->metadata_offset,
        .want_shutdown = m->want_shutdown,
    };
    struct controller_heartbeat_answer answer;
    Karst__Bus__HeartbeatReply *body = arena_alloc(rpc_arena(rpc), sizeof *body);
    karst__bus__heartbeat_reply__init(body);
    body->error = controller_heartbeat(q->controller, &h, loop_now_ms(q->loop), &answer);
    body->is_fenced = answer.is_fenced;
    body->should_shut_down = answer.should_shut_down;
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_HEARTBEAT, body);
}
