/* heartbeat.c - bus request Heartbeat: a service is alive, or wants to go. */
#include "services/controller/quorum.h"

enum { LOG_DIRS_MAX = 1024 };

/* Those that are no uuid are left out: they name no directory. */
static const struct uuid *take_dirs(const ProtobufCBinaryData *from, size_t n, struct arena *a, int32_t *ret_count)
{
    size_t count = MIN(n, (size_t)LOG_DIRS_MAX);
    struct uuid *dirs = arena_calloc(a, count + 1, sizeof *dirs);
    *ret_count = 0;
    for (size_t i = 0; i < count; i++)
        if (from[i].len == sizeof dirs->b)
            memcpy(dirs[(*ret_count)++].b, from[i].data, sizeof dirs->b);
    return dirs;
}

void heartbeat_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const Karst__Bus__HeartbeatRequest *m = rpc_call(rpc)->heartbeat;
    const Karst__Bus__Peer *from = rpc_from(rpc);
    if ((int32_t)from->role != m->role || from->id != m->id || from->incarnation != m->incarnation) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
        return;
    }
    watching_heard(q, rpc);
    struct controller_heartbeat h = {
        .role = m->role,
        .id = m->id,
        .incarnation = m->incarnation,
        .epoch = m->epoch,
        .metadata_offset = m->metadata_offset,
        .want_shutdown = m->want_shutdown,
    };
    struct controller_heartbeat_answer answer;
    h.offline_dirs = take_dirs(m->offline_log_dirs, m->n_offline_log_dirs, rpc_arena(rpc), &h.offline_dir_count);
    h.cordoned_dirs = take_dirs(m->cordoned_log_dirs, m->n_cordoned_log_dirs, rpc_arena(rpc), &h.cordoned_dir_count);
    h.full_dirs = take_dirs(m->full_log_dirs, m->n_full_log_dirs, rpc_arena(rpc), &h.full_dir_count);
    Karst__Bus__HeartbeatReply *body = arena_alloc(rpc_arena(rpc), sizeof *body);
    karst__bus__heartbeat_reply__init(body);
    body->error = controller_heartbeat(q->controller, &h, loop_now_ms(q->loop), &answer);
    body->is_fenced = answer.is_fenced;
    body->should_shut_down = answer.should_shut_down;
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_HEARTBEAT, body);
}
