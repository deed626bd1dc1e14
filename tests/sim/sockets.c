/* sockets.c - ZeroMQ as libs/bus/bus.c sees it (libs/bus/bus_internal.h), over the simulated network. */
#include "tests/sim/machine.h"

#include "libs/bus/bus_internal.h"
#include "libs/bus/kind.h"
#include "libs/bus/link_internal.h"
#include "libs/bus/local.h"
#include "libs/bus/version.h"

#include <stdlib.h>
#include <utlist.h>

enum { DRAIN_MESSAGES = 64 };

struct sim_sock {
    struct sock sock;
    struct arrival *arrivals;
};

void *__wrap_zmq_ctx_new(void);
int __wrap_zmq_ctx_term(void *context);
uint32_t __real_bus_version_max(void);
uint32_t __wrap_bus_version_max(void);
bool __real_link_next(struct link_core *l, struct link_action *ret_action);
bool __wrap_link_next(struct link_core *l, struct link_action *ret_action);

void *__wrap_zmq_ctx_new(void)
{
    static char context;
    return &context;
}

int __wrap_zmq_ctx_term(void *context)
{
    (void)context;
    return 0;
}

/* In every other run some processes are of the release before: which, follows from the seed alone, as drawing them
 * would give all that comes behind other numbers. */
uint32_t __wrap_bus_version_max(void)
{
    struct process *p = process_current();
    if (p == NULL)
        return __real_bus_version_max();
    uint64_t seed = sim_seed(machine_sim(process_machine(p)));
    uint64_t drawn = (seed * 64 + process_life(p)) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
    if (seed % 2 != 0 || drawn % 3 != 0)
        return __real_bus_version_max();
    sim_cover("a process of the release before");
    return BUS_VERSION_BEFORE;
}

/* A call that waits for its sender's image has it. */
static void check_image(const struct link_core *l, const struct rpc *r)
{
    const Karst__Bus__Call *call = r->call;
    int32_t api_key = call->body_case == KARST__BUS__CALL__BODY_KAFKA ? call->kafka->api_key : 0;
    const struct kind *k = link_kind_of(call->body_case, api_key);
    struct process *p = process_current();
    if (p != NULL && k != NULL && k->waits && r->message->batch->metadata_offset > l->metadata_offset)
        sim_fail(machine_sim(process_machine(p)),
                 "%s runs a call on the metadata up to offset %lld, and its sender knew all up to %lld",
                 process_name(p), (long long)l->metadata_offset, (long long)r->message->batch->metadata_offset);
}

bool __wrap_link_next(struct link_core *l, struct link_action *ret_action)
{
    struct process *p = process_current();
    if (!__real_link_next(l, ret_action)) {
        link_check(l);
        return false;
    }
    if (ret_action->kind == LINK_EXECUTE)
        check_image(l, ret_action->rpc);
    if (ret_action->kind == LINK_EXECUTE && p != NULL)
        machine_saw(process_machine(p), p, ret_action->rpc);
    return true;
}

static struct net *net_of(const struct bus *b)
{
    return machine_net(process_machine(process_of_loop(b->loop)));
}

static struct sim_sock *sock_new(struct bus *b, uint64_t conn, Karst__Bus__Lane lane)
{
    struct sim_sock *s = xcalloc(1, sizeof *s);
    s->sock = (struct sock){.bus = b, .conn = conn, .lane = lane, .touched = true};
    struct sock *base = &s->sock;
    DL_APPEND(b->socks, base);
    return s;
}

int bus_socket_listen(struct bus *b, const char *address, Karst__Bus__Lane lane)
{
    struct sim_sock *s = sock_new(b, 0, lane);
    b->routers[lane] = &s->sock;
    if (!process_acts(process_of_loop(b->loop)))
        return 0;
    struct process *before = process_enter(NULL);
    net_listen(net_of(b), b, address, lane);
    process_leave(before);
    return 0;
}

void bus_socket_connect(struct bus *b, const struct link_action *a)
{
    (void)sock_new(b, a->conn, a->lane);
    if (!process_acts(process_of_loop(b->loop)))
        return;
    struct process *before = process_enter(NULL);
    net_connect(net_of(b), b, a->conn, a->address, a->lane);
    process_leave(before);
}

void bus_socket_close(struct sock *s, int linger_ms)
{
    struct bus *b = s->bus;
    (void)linger_ms;
    if (s->closed)
        return;
    s->closed = b->has_closed = true;
    if (!process_acts(process_of_loop(b->loop)))
        return;
    struct process *before = process_enter(NULL);
    if (s->conn != 0)
        net_close(net_of(b), b, s->conn);
    else
        net_unlisten(net_of(b), b, s->lane);
    process_leave(before);
}

static void drop_arrivals(struct sim_sock *s)
{
    while (s->arrivals) {
        struct arrival *a = s->arrivals;
        LL_DELETE(s->arrivals, a);
        arrival_free(a);
    }
}

void bus_sockets_sweep(struct bus *b)
{
    struct sock *s, *next;
    if (!b->has_closed)
        return;
    b->has_closed = false;
    DL_FOREACH_SAFE(b->socks, s, next)
    {
        if (!s->closed)
            continue;
        DL_DELETE(b->socks, s);
        drop_arrivals(CONTAINER_OF(s, struct sim_sock, sock));
        free(s);
    }
}

struct sock *bus_socket_find(struct bus *b, uint64_t conn)
{
    struct sock *s;
    DL_FOREACH (b->socks, s)
        if (s->conn == conn && !s->closed)
            return s;
    return NULL;
}

/* The frames become the process's own memory, as if they had been read. */
static void receive(struct sock *s, const struct arrival *a)
{
    struct ref *frames = xcalloc(a->frame_count, sizeof *frames);
    for (size_t i = 0; i < a->frame_count; i++)
        frames[i] = ref_copy(ref_bytes(&a->frames[i]));
    link_receive(s->bus->core, a->conn, buf_slice(&a->frame0), frames, a->frame_count);
    free(frames);
}

void bus_socket_drain(struct sock *s)
{
    struct sim_sock *own = CONTAINER_OF(s, struct sim_sock, sock);
    s->due = false;
    s->touched = true;
    for (int n = 0; n < DRAIN_MESSAGES && own->arrivals && !s->closed; n++) {
        struct arrival *a = own->arrivals;
        LL_DELETE(own->arrivals, a);
        switch (a->kind) {
        case ARRIVAL_CONNECTED: link_connected(s->bus->core, a->conn); break;
        case ARRIVAL_MESSAGE: receive(s, a); break;
        case ARRIVAL_LOST:
            if (s->conn != 0)
                bus_socket_close(s, 0);
            link_absent(s->bus->core, a->conn); /* lost, where it had come about */
            break;
        }
        arrival_free(a);
    }
}

bool bus_socket_has_news(struct sock *s)
{
    s->touched = false;
    s->due = CONTAINER_OF(s, struct sim_sock, sock)->arrivals != NULL;
    return s->due;
}

bool bus_socket_send(struct sock *s, const struct link_action *a)
{
    struct bus *b = s->bus;
    if (!process_acts(process_of_loop(b->loop)))
        return true;
    struct process *before = process_enter(NULL);
    net_send(net_of(b), b, a);
    process_leave(before);
    return true;
}

void bus_arrive(struct bus *b, struct arrival *a)
{
    struct sock *s = a->conn & LINK_CONN_SERVED ? b->routers[link_conn_lane(a->conn)] : bus_socket_find(b, a->conn);
    if (s == NULL || s->closed) {
        arrival_free(a);
        return;
    }
    struct sim_sock *own = CONTAINER_OF(s, struct sim_sock, sock);
    a->next = NULL;
    LL_APPEND(own->arrivals, a);
    s->due = true;
    loop_ask_turn(b->loop);
}

/* ---- between any two changes of a ring ---- */

bool __real_ring_publish(struct ring_writer *w);
bool __wrap_ring_publish(struct ring_writer *w);
int __real_ring_wait(struct ring_writer *w);
int __wrap_ring_wait(struct ring_writer *w);
bool __real_ring_release(struct ring_reader *r);
bool __wrap_ring_release(struct ring_reader *r);
int __real_ring_sleep(struct ring_reader *r);
int __wrap_ring_sleep(struct ring_reader *r);
int __real_local_map(struct local *l, int fd, const struct local_hello *h, bool is_served);
int __wrap_local_map(struct local *l, int fd, const struct local_hello *h, bool is_served);

static void act(uint64_t yields)
{
    (void)process_acts(process_current());
    process_yield(process_current(), yields);
}

bool __wrap_ring_publish(struct ring_writer *w)
{
    act(20);
    return __real_ring_publish(w);
}

int __wrap_ring_wait(struct ring_writer *w)
{
    act(20);
    sim_cover("a ring was full");
    return __real_ring_wait(w);
}

bool __wrap_ring_release(struct ring_reader *r)
{
    act(20);
    return __real_ring_release(r);
}

int __wrap_ring_sleep(struct ring_reader *r)
{
    act(200);
    return __real_ring_sleep(r);
}

/* The caller chooses how large the rings are: mostly so small that they are always full. */
int __wrap_local_map(struct local *l, int fd, const struct local_hello *h, bool is_served)
{
    union {
        const struct local_hello *in;
        struct local_hello *out;
    } hello = {.in = h};
    struct process *p = process_current();
    if (!is_served && sim_chance(machine_sim(process_machine(p)), 800)) {
        hello.out->to_served = (uint32_t)RING_CAPACITY_MIN << sim_below(machine_sim(process_machine(p)), 3);
        hello.out->to_caller = (uint32_t)RING_CAPACITY_MIN << sim_below(machine_sim(process_machine(p)), 3);
    }
    return __real_local_map(l, fd, h, is_served);
}
