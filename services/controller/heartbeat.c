/* heartbeat.c - bus request Heartbeat: a service is alive, or wants to go. */
#include "services/controller/quorum.h"

enum { LOG_DIRS_MAX = 1024 };

/* Those that are no uuid are left out: they name no directory. */
static void take_dirs(const Karst__Bus__HeartbeatRequest *m, struct arena *a, struct controller_heartbeat *h)
{
    size_t count = MIN(m->n_offline_log_dirs, (size_t)LOG_DIRS_MAX);
    struct uuid *dirs = arena_calloc(a, count + 1, sizeof *dirs);
    for (size_t i = 0; i < count; i++)
        if (m->offline_log_dirs[i].len == sizeof dirs->b)
            memcpy(dirs[h->offline_dir_count++].b, m->offline_log_dirs[i].data, sizeof dirs->b);
    h->offline_dirs = dirs;
}

void heartbeat_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
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
    take_dirs(m, rpc_arena(rpc), &h);
    Karst__Bus__HeartbeatReply *body = arena_alloc(rpc_arena(rpc), sizeof *body);
    karst__bus__heartbeat_reply__init(body);
    body->error = controller_heartbeat(q->controller, &h, loop_now_ms(q->loop), &answer);
    body->is_fenced = answer.is_fenced;
    body->should_shut_down = answer.should_shut_down;
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_HEARTBEAT, body);
}
