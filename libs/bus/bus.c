/* bus.c - the link core on its connections, in the phases of a loop.
 *
 * Over ZeroMQ: one ROUTER a lane that our role serves, one DEALER a connection that the core asks for (sockets.c).
 * Between processes of one kernel: shared memory (local.c), on all lanes but control.
 *
 * ZMQ_FD is edge-triggered, and sending takes edges away. A socket whose descriptor was signalled is `due`: the next
 * RECEIVE drains it. One that was read from or written to is `touched`: at the end of the turn its events are read,
 * once, and while there is something the loop does not block. Each look costs system calls (poll, getpid), so there is
 * no further one. */
#include "libs/bus/bus.h"

#include <stdlib.h>
#include <utlist.h>
#include <zmq.h>

#include "libs/base/log.h"
#include "libs/bus/bus_internal.h"
#include "libs/bus/kind.h"
#include "libs/bus/local.h"

enum {
    PAYLOAD_MAX = 128 << 20,
    LINGER_MS = 200, /* for the last replies when we leave in good order */
};

/* ---- actions ---- */

static void do_send(struct bus *b, const struct link_action *a)
{
    struct local *l = local_find(b, a->conn);
    struct sock *s = NULL;

    if (l != NULL)
        local_send(l, a);
    else if (!(a->conn & LINK_CONN_SERVED))
        s = bus_socket_find(b, a->conn);
    else if (!(a->conn & LOCAL_CONN))
        s = (a->conn & TCP_CONN ? b->tcp_routers : b->routers)[link_conn_lane(a->conn)];
    if (s == NULL)
        return;
    s->touched = true;
    if (bus_socket_send(s, a))
        return;
    if (s->conn != 0)
        bus_socket_close(s, 0);
    link_lost(b->core, a->conn);
}

static void do_connect(struct bus *b, const struct link_action *a)
{
    bool may_share = b->locals != NULL && a->lane != KARST__BUS__LANE__LANE_CONTROL;

    if (may_share && local_connect(b, a->conn, a->address, a->lane))
        return;
    bus_socket_connect(b, a);
}

static void do_close(struct bus *b, uint64_t conn)
{
    struct local *l = local_find(b, conn);
    struct sock *s = l == NULL ? bus_socket_find(b, conn) : NULL;

    if (l != NULL)
        local_close(l);
    else if (s != NULL)
        bus_socket_close(s, 0);
}

/* Over ZeroMQ nothing lies in an arena. */
static void do_hold(struct bus *b, const struct link_action *a)
{
    struct local *l = local_find(b, a->conn);

    if (l != NULL)
        local_hold(l, a->frames, a->frame_count);
}

static void do_execute(struct bus *b, struct rpc *r)
{
    const Karst__Bus__Call *call = rpc_call(r);
    struct handler *h = NULL;

    if (call->body_case == KARST__BUS__CALL__BODY_KAFKA) {
        if (call->kafka->api_key >= 0 && call->kafka->api_key < KAFKA_KEYS_MAX)
            h = &b->kafka_handlers[call->kafka->api_key];
    } else if ((unsigned)call->body_case < KINDS_MAX) {
        h = &b->handlers[call->body_case];
    }
    if (h != NULL && h->fn != NULL)
        h->fn(h->ctx, r);
    else
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED);
}

static void act(struct bus *b, const struct link_action *a)
{
    switch (a->kind) {
    case LINK_CONNECT: do_connect(b, a); break;
    case LINK_CLOSE: do_close(b, a->conn); break;
    case LINK_SEND: do_send(b, a); break;
    case LINK_HOLD: do_hold(b, a); break;
    case LINK_EXECUTE: do_execute(b, a->rpc); break;
    case LINK_GONE: a->gone_fn(a->ctx, a->rpc); break;
    case LINK_DONE: a->done(a->ctx, &a->result); break;
    case LINK_REPORT: log_warn("bus: %s", a->text); break;
    }
}

static void arm_timer(struct bus *b)
{
    uint64_t wake = link_wake_ms(b->core), now = loop_now_ms(b->loop);

    if (wake >= b->timer_at_ms)
        return;
    b->timer_at_ms = wake;
    loop_timer_again(b->timer, wake > now ? wake - now : 0);
}

static void pump(struct bus *b)
{
    struct link_action a;

    ASSERT(!b->pumping);
    b->pumping = true;
    while (link_next(b->core, &a))
        act(b, &a);
    b->pumping = false;
}

/* ---- phases ---- */

static void end_turn(struct bus *b)
{
    struct sock *s;

    DL_FOREACH (b->socks, s) {
        if (s->touched && !s->closed && bus_socket_has_news(s))
            loop_again(b->loop);
    }
    if (b->locals != NULL)
        locals_end_turn(b);
    b->turn_ends = false;
}

static void sweep(struct bus *b)
{
    bus_sockets_sweep(b);
    if (b->locals != NULL)
        locals_sweep(b);
}

static void on_timer(void *ctx)
{
    struct bus *b = ctx;

    b->timer_at_ms = UINT64_MAX;
    b->tick_due = true;
}

static void on_serve(void *ctx)
{
    struct bus *b = ctx;

    if (b->locals != NULL)
        locals_wake(b);
}

static void on_send(void *ctx)
{
    struct bus *b = ctx; /* runs twice a turn, before and after on_receive */

    link_clock(b->core, loop_now_ms(b->loop));
    pump(b);
    for (int round = 0; round < 2 && link_is_staged(b->core); round++) {
        link_flush(b->core);
        pump(b);
    }
    if (link_is_staged(b->core))
        loop_again(b->loop);
    if (b->locals != NULL && locals_flush(b))
        pump(b);
    if (b->turn_ends)
        end_turn(b);
    sweep(b);
    arm_timer(b);
}

static void receive_locals(struct bus *b)
{
    struct local *l;

    locals_accept(b);
    DL_FOREACH (b->locals->all, l) {
        bool told = local_receive(l);
        if (b->tick_due)
            local_files_retire(l);
        if (told || b->tick_due)
            pump(b);
    }
}

static void on_receive(void *ctx)
{
    struct bus *b = ctx;
    struct sock *s;

    link_clock(b->core, loop_now_ms(b->loop));
    bus_door_answer(b);
    DL_FOREACH (b->socks, s) {
        if (s->monitor_due && !s->closed)
            bus_tcp_events(s);
        if (s->closed || !s->due)
            continue;
        bus_socket_drain(s);
        pump(b);
    }
    if (b->locals != NULL)
        receive_locals(b);
    if (b->tick_due) {
        b->tick_due = false;
        link_tick(b->core);
        pump(b);
    }
    b->turn_ends = true;
    sweep(b);
    arm_timer(b);
}

/* ---- life ---- */

static struct bus *close_all(struct bus *b, int linger_ms)
{
    struct sock *s;

    locals_free(b);
    DL_FOREACH (b->socks, s) {
        bus_socket_close(s, linger_ms);
    }
    bus_sockets_sweep(b);
    bus_door_close(b);
    zmq_ctx_term(b->zmq);
    free(b->frames);
    free(b);
    return NULL;
}

static int listen_on(struct bus *b, const char *address, uint32_t lanes)
{
    int failed = 0;

    for (int lane = 0; address != NULL && lane < LINK_LANES && failed == 0; lane++)
        if (lanes & 1u << lane)
            failed = bus_socket_listen(b, address, (Karst__Bus__Lane)lane);
    return failed;
}

int bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret_bus)
{
    struct bus *b = xcalloc(1, sizeof *b);
    uint32_t lanes = link_kind_lanes_served(options->role);
    int failed = 0;

    b->loop = loop;
    b->zmq = zmq_ctx_new();
    if (b->zmq == NULL)
        BUG("no ZeroMQ context");
    b->payload_max = options->payload_max_bytes ? (int64_t)options->payload_max_bytes : PAYLOAD_MAX;
    if (options->share)
        failed = locals_new(b, (lanes & ~(1u << KARST__BUS__LANE__LANE_CONTROL)) ? options->address : NULL);
    b->unencrypted = options->unencrypted;
    bus_door_open(b, options->trust);
    if (failed == 0)
        failed = listen_on(b, options->address, lanes);
    if (failed == 0)
        failed = listen_on(b, options->tcp_address, lanes);
    if (failed != 0) {
        close_all(b, 0);
        return failed;
    }
    struct link_options o = {.role = options->role,
                             .id = options->id,
                             .incarnation = options->incarnation,
                             .cluster_id = options->cluster_id,
                             .credit_calls = options->credit_calls,
                             .credit_bytes = options->credit_bytes,
                             .heartbeat_ms = options->heartbeat_ms};
    if (options->share)
        o.sharing = (struct link_sharing){b, local_shares, local_pass_file, local_resolve};
    if (options->trust != NULL)
        o.trust = (struct link_trust){b, bus_tcp_refuses};
    b->core = link_new(&o, loop_now_ms(loop));
    b->timer_at_ms = UINT64_MAX;
    b->timer = loop_timer_start(loop, 0, 0, on_timer, b);
    loop_hook(loop, LOOP_SERVE, on_serve, b);
    loop_hook(loop, LOOP_SEND, on_send, b);
    loop_hook(loop, LOOP_RECEIVE, on_receive, b);
    *ret_bus = b;
    return 0;
}

/* A done function may make a call again, which ends again: not for ever. */
static void pump_out(struct bus *b)
{
    enum { LAST_ACTIONS = 1 << 20 };
    struct link_action a;

    b->pumping = true;
    for (size_t n = 0; n < LAST_ACTIONS && link_next(b->core, &a); n++)
        act(b, &a);
}

void bus_shutdown(struct bus *b)
{
    if (b->is_shut)
        return;
    b->is_shut = true;
    pump(b);
    link_flush(b->core);
    pump(b);
    if (b->locals != NULL)
        locals_linger(b, LINGER_MS);
    link_shutdown(b->core);
    pump_out(b);
    b->timer = loop_timer_stop(b->timer);
    loop_unhook(b->loop, LOOP_SERVE, on_serve, b);
    loop_unhook(b->loop, LOOP_SEND, on_send, b);
    loop_unhook(b->loop, LOOP_RECEIVE, on_receive, b);
}

struct bus *bus_free(struct bus *b)
{
    if (b == NULL)
        return NULL;
    bus_shutdown(b);
    b->core = link_free(b->core);
    return close_all(b, LINGER_MS);
}

void bus_goodbye(struct bus *b)
{
    link_goodbye(b->core);
}

void bus_set_peer(struct bus *b, Karst__Bus__Role role, int32_t id, uint64_t incarnation, const char *address)
{
    link_set_peer(b->core, role, id, incarnation, address);
}

void bus_set_arena(struct bus *b, int fd, uint64_t id, size_t size)
{
    ASSERT(fd >= 0 && id != 0 && size > 0);
    if (b->locals == NULL)
        return;
    b->locals->arena_fd = fd;
    b->locals->arena_id = id;
    b->locals->arena_size = size;
}

void bus_set_metadata_offset(struct bus *b, int64_t offset)
{
    link_set_metadata_offset(b->core, offset);
}

void bus_set_level(struct bus *b, uint32_t version)
{
    link_set_level(b->core, version);
}

uint32_t bus_level(const struct bus *b)
{
    return link_level(b->core);
}

uint64_t bus_silence_ms(const struct bus *b, Karst__Bus__Role role, int32_t id, Karst__Bus__Call__BodyCase kind)
{
    return link_silence_ms(b->core, role, id, kind, loop_now_ms(b->loop));
}

uint64_t bus_call(struct bus *b, Karst__Bus__Role role, int32_t id, const struct bus_request *request,
                  bus_done_fn *done, void *ctx)
{
    link_clock(b->core, loop_now_ms(b->loop));
    return link_call(b->core, role, id, request, done, ctx);
}

void bus_cancel(struct bus *b, uint64_t call_id)
{
    link_cancel(b->core, call_id);
}

void bus_serve(struct bus *b, Karst__Bus__Call__BodyCase kind, bus_handler_fn *handler, void *ctx)
{
    ASSERT((unsigned)kind < KINDS_MAX && kind != KARST__BUS__CALL__BODY_KAFKA);
    b->handlers[kind] = (struct handler){handler, ctx};
}

void bus_serve_kafka(struct bus *b, int16_t api_key, bus_handler_fn *handler, void *ctx)
{
    ASSERT(api_key >= 0 && api_key < KAFKA_KEYS_MAX);
    b->kafka_handlers[api_key] = (struct handler){handler, ctx};
}
