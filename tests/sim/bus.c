/* bus.c - libs/bus/bus.h over the simulated network: the link core as libs/bus/bus.c drives it, in the same phases. */
#include "tests/sim/machine.h"

#include <stdlib.h>
#include <utlist.h>

enum { KINDS_MAX = 32, KAFKA_KEYS_MAX = 128 };

struct handler {
    bus_handler_fn *fn;
    void *ctx;
};

struct bus {
    struct loop *loop;
    struct process *process;
    struct sim *sim;
    struct net *net;
    struct link_core *core;
    struct handler handlers[KINDS_MAX], kafka_handlers[KAFKA_KEYS_MAX];
    struct arrival *arrivals;
    struct loop_timer *timer;
    uint64_t timer_at_ms; /* UINT64_MAX: it does not run */
    bool pumping, is_shut;
};

static void do_execute(struct bus *b, struct rpc *r)
{
    const Karst__Bus__Call *call = rpc_call(r);
    struct handler *h = NULL;
    machine_saw(process_machine(b->process), b->process, r);
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

static void act_on_net(struct bus *b, const struct link_action *a)
{
    if (!process_acts(b->process) || (a->kind == LINK_CLOSE && (a->conn & LINK_CONN_SERVED)))
        return; /* a ROUTER does not end one of its connections */
    struct process *before = process_enter(NULL);
    if (a->kind == LINK_CONNECT)
        net_connect(b->net, b, a->conn, a->address, a->lane);
    else if (a->kind == LINK_CLOSE)
        net_close(b->net, b, a->conn);
    else
        net_send(b->net, b, a);
    process_leave(before);
}

static void act(struct bus *b, const struct link_action *a)
{
    switch (a->kind) {
    case LINK_CONNECT:
    case LINK_CLOSE:
    case LINK_SEND: act_on_net(b, a); break;
    case LINK_HOLD: break; /* nothing lies in an arena */
    case LINK_EXECUTE: do_execute(b, a->rpc); break;
    case LINK_GONE: a->gone_fn(a->ctx, a->rpc); break;
    case LINK_DONE: a->done(a->ctx, &a->result); break;
    case LINK_REPORT: sim_note(b->sim, "%s reports %s", process_name(b->process), a->text); break;
    }
}

static void pump(struct bus *b)
{
    struct link_action a;
    ASSERT(!b->pumping);
    b->pumping = true;
    while (link_next(b->core, &a))
        act(b, &a);
    b->pumping = false;
    link_check(b->core);
}

static void arm_timer(struct bus *b)
{
    uint64_t wake = link_wake_ms(b->core), now = loop_now_ms(b->loop);
    if (wake == b->timer_at_ms)
        return;
    b->timer_at_ms = wake;
    if (wake != UINT64_MAX)
        loop_timer_again(b->timer, wake > now ? wake - now : 1);
}

static void on_timer(void *ctx)
{
    struct bus *b = ctx;
    b->timer_at_ms = UINT64_MAX;
    link_clock(b->core, loop_now_ms(b->loop));
    link_tick(b->core);
}

static void on_send(void *ctx)
{
    struct bus *b = ctx;
    link_clock(b->core, loop_now_ms(b->loop));
    pump(b);
    for (int round = 0; round < 2 && link_is_staged(b->core); round++) {
        link_flush(b->core);
        pump(b);
    }
    if (link_is_staged(b->core))
        loop_again(b->loop);
    arm_timer(b);
}

static void take(struct bus *b, struct arrival *a)
{
    switch (a->kind) {
    case ARRIVAL_CONNECTED: link_connected(b->core, a->conn); break;
    case ARRIVAL_LOST: link_lost(b->core, a->conn); break;
    case ARRIVAL_MESSAGE: link_receive(b->core, a->conn, buf_slice(&a->frame0), a->frames, a->frame_count); break;
    }
    buf_free(&a->frame0);
    free(a->frames);
    free(a);
}

static void on_receive(void *ctx)
{
    struct bus *b = ctx;
    link_clock(b->core, loop_now_ms(b->loop));
    while (b->arrivals) {
        struct arrival *a = b->arrivals;
        LL_DELETE(b->arrivals, a);
        take(b, a);
        pump(b);
    }
    arm_timer(b);
}

void bus_arrive(struct bus *b, struct arrival *a)
{
    a->next = NULL;
    LL_APPEND(b->arrivals, a);
    loop_ask_turn(b->loop);
}

/* ---- life ---- */

int bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret_bus)
{
    struct bus *b = xcalloc(1, sizeof *b);
    struct link_options o = {.role = options->role,
                             .id = options->id,
                             .incarnation = options->incarnation,
                             .cluster_id = options->cluster_id,
                             .credit_calls = options->credit_calls,
                             .credit_bytes = options->credit_bytes,
                             .heartbeat_ms = options->heartbeat_ms};
    b->loop = loop;
    b->process = process_of_loop(loop);
    b->sim = machine_sim(process_machine(b->process));
    b->net = machine_net(process_machine(b->process));
    b->core = link_new(&o, loop_now_ms(loop));
    b->timer = loop_timer_start(loop, 0, 0, on_timer, b);
    loop_hook(loop, LOOP_SEND, on_send, b);
    loop_hook(loop, LOOP_RECEIVE, on_receive, b);
    process_set_bus(b->process, b);
    struct process *before = process_enter(NULL);
    if (options->address)
        net_listen(b->net, b, options->address);
    process_leave(before);
    *ret_bus = b;
    return 0;
}

struct bus *bus_drop(struct bus *b)
{
    while (b->arrivals) {
        struct arrival *a = b->arrivals;
        LL_DELETE(b->arrivals, a);
        for (size_t i = 0; i < a->frame_count; i++)
            ref_release(&a->frames[i]);
        buf_free(&a->frame0);
        free(a->frames);
        free(a);
    }
    link_free(b->core);
    free(b);
    return NULL;
}

void bus_shutdown(struct bus *b)
{
    if (b->is_shut)
        return;
    b->is_shut = true;
    link_flush(b->core);
    pump(b);
    link_shutdown(b->core);
    pump(b);
    loop_unhook(b->loop, LOOP_SEND, on_send, b);
    loop_unhook(b->loop, LOOP_RECEIVE, on_receive, b);
    b->timer = loop_timer_stop(b->timer);
}

struct bus *bus_free(struct bus *b)
{
    if (b == NULL)
        return NULL;
    bus_shutdown(b);
    struct process *before = process_enter(NULL);
    net_forget(b->net, b);
    process_leave(before);
    process_set_bus(b->process, NULL);
    return bus_drop(b);
}

void bus_goodbye(struct bus *b)
{
    link_goodbye(b->core);
    loop_ask_turn(b->loop);
}

void bus_set_peer(struct bus *b, Karst__Bus__Role role, int32_t id, uint64_t incarnation, const char *address)
{
    link_set_peer(b->core, role, id, incarnation, address);
    loop_ask_turn(b->loop);
}

void bus_set_metadata_offset(struct bus *b, int64_t offset)
{
    link_set_metadata_offset(b->core, offset);
    loop_ask_turn(b->loop);
}

uint64_t bus_call(struct bus *b, Karst__Bus__Role role, int32_t id, const struct bus_request *request,
                  bus_done_fn *done, void *ctx)
{
    link_clock(b->core, loop_now_ms(b->loop));
    loop_ask_turn(b->loop);
    return link_call(b->core, role, id, request, done, ctx);
}

void bus_cancel(struct bus *b, uint64_t call_id)
{
    link_cancel(b->core, call_id);
    loop_ask_turn(b->loop);
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
