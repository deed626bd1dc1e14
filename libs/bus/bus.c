/* bus.c - the link core on ZeroMQ sockets, in the phases of a loop.
 *
 * One ROUTER a lane that our role serves, one DEALER a connection that the core asks for. ZeroMQ never reconnects or
 * drops by itself (socket_new). With ZMQ_IMMEDIATE a DEALER is writable exactly while its connection stands, so that
 * its events tell of connections made and lost, without a monitor. A dead listener of an ipc address, which ZeroMQ
 * keeps silent about, is found by a connect(2) of our own.
 *
 * ZMQ_FD is edge-triggered, and sending takes edges away. A socket whose descriptor was signalled is `due`: the next
 * RECEIVE drains it. One that was read from or written to is `touched`: at the end of the turn its events are read,
 * once, and while there is something the loop does not block. Each look costs system calls (poll, getpid), so there is
 * no further one. */
#include "libs/bus/bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>
#include <zmq.h>

#include "libs/base/bytes.h"
#include "libs/base/log.h"
#include "libs/bus/kind.h"
#include "libs/bus/link.h"

enum {
    KINDS_MAX = 32,
    KAFKA_KEYS_MAX = 128,
    DRAIN_MESSAGES = 64,    /* from one socket in one turn */
    COPY_BYTES = 512,       /* a payload up to here is copied into its frame: cheaper than counting it across threads */
    RECEIVE_MESSAGES = 256, /* ZMQ_RCVHWM: beyond it ZeroMQ stops reading the connection, it loses nothing */
    PAYLOAD_MAX = 128 << 20,
    ROUTING_ID_BYTES = 5,
    LINGER_MS = 200, /* for the last replies when we leave in good order */
};

struct handler {
    bus_handler_fn *fn;
    void *ctx;
};

struct sock {
    struct bus *bus;
    void *zmq;
    struct loop_poll *poll;
    uint64_t conn; /* a DEALER's; 0: a ROUTER */
    Karst__Bus__Lane lane;
    bool due, touched, connected, closed;
    struct sock *prev, *next;
};

struct bus {
    struct loop *loop;
    struct link_core *core;
    void *zmq;
    struct sock *socks;
    struct sock *routers[LINK_LANES];
    struct handler handlers[KINDS_MAX], kafka_handlers[KAFKA_KEYS_MAX];
    struct loop_timer *timer;
    uint64_t timer_at_ms;
    bool tick_due, turn_ends, pumping, is_shut;
    int64_t payload_max;
    struct ref *frames; /* of the message that is being read */
    size_t frame_capacity;
};

static const char *const lane_names[LINK_LANES] = {"control", "coordinator", "replica", "bulk"};

/* ---- addresses ---- */

static bool is_ipc(const char *address)
{
    return strncmp(address, "ipc://", 6) == 0;
}

/* The address of a lane; false: it is none, or too long. */
static bool lane_address(const char *address, Karst__Bus__Lane lane, char *out, size_t size)
{
    int n = 0;

    if (is_ipc(address)) {
        n = snprintf(out, size, "%s.%s", address, lane_names[lane]);
    } else {
        const char *colon = strrchr(address, ':');
        long port = colon ? strtol(colon + 1, NULL, 10) : 0;
        if (strncmp(address, "tcp://", 6) != 0 || port <= 0 || port > UINT16_MAX - LINK_LANES)
            return false;
        n = snprintf(out, size, "%.*s:%ld", (int)(colon - address), address, port + (long)lane);
    }
    return n > 0 && (size_t)n < size;
}

enum { ADDRESS_MAX = 256 };

/* Whether somebody listens at an ipc address. Also for a peer that is too busy to take the connection. */
static bool ipc_is_alive(const char *ipc)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const char *path = ipc + sizeof "ipc://" - 1;

    if (strlen(path) >= sizeof to.sun_path)
        return false;
    memcpy(to.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true;
    bool alive =
        connect(fd, (const struct sockaddr *)&to, sizeof to) == 0 || (errno != ENOENT && errno != ECONNREFUSED);
    close(fd);
    return alive;
}

/* ---- sockets ---- */

static void on_readable(void *ctx, int events)
{
    struct sock *s = ctx;

    (void)events;
    s->due = true;
}

static void set_int(void *zmq, int option, int value)
{
    if (zmq_setsockopt(zmq, option, &value, sizeof value) != 0)
        BUG("a ZeroMQ socket option is not known");
}

static struct sock *socket_new(struct bus *b, int type, Karst__Bus__Lane lane)
{
    void *zmq = zmq_socket(b->zmq, type);

    if (zmq == NULL)
        return NULL;
    set_int(zmq, ZMQ_LINGER, 0);
    set_int(zmq, ZMQ_SNDHWM, 0);
    set_int(zmq, ZMQ_RCVHWM, RECEIVE_MESSAGES);
    if (zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &b->payload_max, sizeof b->payload_max) != 0)
        BUG("a ZeroMQ socket option is not known");
    if (type == ZMQ_ROUTER) {
        set_int(zmq, ZMQ_ROUTER_MANDATORY, 1);
    } else {
        set_int(zmq, ZMQ_RECONNECT_IVL, -1);
        set_int(zmq, ZMQ_IMMEDIATE, 1);
        set_int(zmq, ZMQ_CONNECT_TIMEOUT, LINK_CONNECT_MAX_MS);
    }
    struct sock *s = xcalloc(1, sizeof *s);
    s->bus = b;
    s->zmq = zmq;
    s->lane = lane;
    s->touched = true;
    DL_APPEND(b->socks, s);
    return s;
}

static void socket_watch(struct sock *s)
{
    int fd = -1;
    size_t size = sizeof fd;

    if (zmq_getsockopt(s->zmq, ZMQ_FD, &fd, &size) != 0)
        BUG("a ZeroMQ socket without a descriptor");
    s->poll = loop_poll_start(s->bus->loop, fd, LOOP_READABLE, on_readable, s);
}

static void socket_close(struct sock *s)
{
    if (s->closed)
        return;
    s->closed = true;
    s->poll = loop_poll_stop(s->poll);
    zmq_close(s->zmq);
}

/* Frees those that were closed while somebody went through the list. */
static void sweep(struct bus *b)
{
    struct sock *s, *next;

    DL_FOREACH_SAFE(b->socks, s, next)
    {
        if (!s->closed)
            continue;
        DL_DELETE(b->socks, s);
        free(s);
    }
}

static int events_of(struct sock *s)
{
    int events = 0;
    size_t size = sizeof events;

    if (zmq_getsockopt(s->zmq, ZMQ_EVENTS, &events, &size) != 0)
        return 0;
    return events;
}

static struct sock *find_conn(struct bus *b, uint64_t conn)
{
    struct sock *s;

    DL_FOREACH (b->socks, s)
        if (s->conn == conn && !s->closed)
            return s;
    return NULL;
}

/* ---- receiving ---- */

struct frame {
    struct ref_owner owner;
    zmq_msg_t msg;
};

static void free_frame(struct ref_owner *o)
{
    struct frame *f = CONTAINER_OF(o, struct frame, owner);

    zmq_msg_close(&f->msg);
    free(f);
}

static size_t add_frame(struct bus *b, size_t count, zmq_msg_t *msg)
{
    struct frame *f;

    if (count > LINK_PAYLOADS_MAX) { /* the core refuses the message; what is more is not even kept */
        zmq_msg_close(msg);
        return count;
    }
    if (count == b->frame_capacity) {
        b->frame_capacity = b->frame_capacity ? 2 * b->frame_capacity : 64;
        b->frames = xrealloc(b->frames, b->frame_capacity * sizeof *b->frames);
    }
    f = xmalloc(sizeof *f);
    ref_owner_init(&f->owner, free_frame);
    zmq_msg_init(&f->msg);
    zmq_msg_move(&f->msg, msg);
    struct slice bytes = {zmq_msg_data(&f->msg), zmq_msg_size(&f->msg)};
    b->frames[count] = (struct ref){.kind = REF_INLINE, .owner = &f->owner, .bytes = bytes, .size_bytes = bytes.size};
    return count + 1;
}

/* The frames behind frame 0. A message arrives whole: ZeroMQ never gives a part of one. */
static size_t read_frames(struct sock *s, bool more)
{
    size_t count = 0;

    while (more) {
        zmq_msg_t msg;
        zmq_msg_init(&msg);
        if (zmq_msg_recv(&msg, s->zmq, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            break;
        }
        more = zmq_msg_more(&msg);
        count = add_frame(s->bus, count, &msg);
    }
    return count;
}

/* A ROUTER's first frame, the routing id that ZeroMQ made: zero and a number. A peer that chose its own is none of
 * ours. */
static uint64_t conn_of_id(const struct sock *s, zmq_msg_t *id)
{
    const uint8_t *p = zmq_msg_data(id);

    if (zmq_msg_size(id) != ROUTING_ID_BYTES || p[0] != 0)
        return 0;
    return link_conn_served(s->lane, get_u32(p + 1));
}

static bool receive_one(struct sock *s)
{
    zmq_msg_t msg;
    uint64_t conn = s->conn;

    zmq_msg_init(&msg);
    if (zmq_msg_recv(&msg, s->zmq, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&msg);
        return false;
    }
    if (conn == 0) {
        conn = conn_of_id(s, &msg);
        if (!zmq_msg_more(&msg) || zmq_msg_recv(&msg, s->zmq, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&msg);
            return true;
        }
    }
    size_t count = read_frames(s, zmq_msg_more(&msg));
    if (conn != 0) {
        struct slice frame0 = {zmq_msg_data(&msg), zmq_msg_size(&msg)};
        link_receive(s->bus->core, conn, frame0, s->bus->frames, count);
    } else {
        for (size_t i = 0; i < count; i++)
            ref_release(&s->bus->frames[i]);
    }
    zmq_msg_close(&msg);
    return true;
}

static void note_connection(struct sock *s, int events)
{
    struct bus *b = s->bus;

    if (!s->connected && (events & ZMQ_POLLOUT)) {
        s->connected = true;
        link_connected(b->core, s->conn);
    } else if (s->connected && !(events & (ZMQ_POLLOUT | ZMQ_POLLIN))) {
        socket_close(s);
        link_lost(b->core, s->conn);
    }
}

/* Until nothing is left, which ZeroMQ says after it has looked at all that its I/O thread has told. */
static void drain(struct sock *s)
{
    size_t n = 0;

    s->due = false;
    s->touched = true;
    while (n < DRAIN_MESSAGES && receive_one(s))
        n++;
    if (n == DRAIN_MESSAGES) {
        s->due = true;
        loop_again(s->bus->loop);
    } else if (n == 0 && s->conn != 0) {
        note_connection(s, events_of(s));
    }
}

/* ---- sending ---- */

static void release_sent(void *data, void *hint)
{
    (void)data;
    ref_owner_release(hint);
}

static void payload_frame(zmq_msg_t *msg, const struct ref *r)
{
    struct slice bytes = ref_bytes(r);
    union { /* ZeroMQ only reads what it sends */
        const uint8_t *in;
        uint8_t *out;
    } data = {.in = bytes.data};

    if (r->owner == NULL || bytes.size <= COPY_BYTES) {
        if (zmq_msg_init_size(msg, bytes.size) != 0)
            BUG("out of memory");
        if (bytes.size)
            memcpy(zmq_msg_data(msg), bytes.data, bytes.size);
        return;
    }
    ref_owner_retain(r->owner);
    if (zmq_msg_init_data(msg, data.out, bytes.size, release_sent, r->owner) != 0)
        BUG("out of memory");
}

static bool send_frame(struct sock *s, zmq_msg_t *msg, bool more)
{
    if (zmq_msg_send(msg, s->zmq, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) >= 0)
        return true;
    zmq_msg_close(msg);
    return false;
}

static bool send_message(struct sock *s, const struct link_action *a)
{
    zmq_msg_t msg;

    if (s->conn == 0) {
        uint8_t id[ROUTING_ID_BYTES] = {0};
        put_u32(id + 1, (uint32_t)a->conn);
        if (zmq_send(s->zmq, id, sizeof id, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
            return false;
    }
    if (zmq_msg_init_size(&msg, a->head.size + a->tail.size) != 0)
        BUG("out of memory");
    uint8_t *p = zmq_msg_data(&msg);
    memcpy(p, a->head.data, a->head.size);
    memcpy(p + a->head.size, a->tail.data, a->tail.size);
    if (!send_frame(s, &msg, a->frame_count > 0))
        return false;
    for (size_t i = 0; i < a->frame_count; i++) {
        payload_frame(&msg, &a->frames[i]);
        if (!send_frame(s, &msg, i + 1 < a->frame_count))
            return false;
    }
    return true;
}

static void do_send(struct bus *b, const struct link_action *a)
{
    struct sock *s = (a->conn & LINK_CONN_SERVED) ? b->routers[link_conn_lane(a->conn)] : find_conn(b, a->conn);

    if (s == NULL)
        return;
    s->touched = true;
    if (send_message(s, a))
        return;
    if (s->conn != 0)
        socket_close(s);
    link_lost(b->core, a->conn);
}

static void do_connect(struct bus *b, const struct link_action *a)
{
    char address[ADDRESS_MAX];
    struct sock *s = NULL;

    if (lane_address(a->address, a->lane, address, sizeof address) && (!is_ipc(address) || ipc_is_alive(address)))
        s = socket_new(b, ZMQ_DEALER, a->lane);
    if (s == NULL) {
        link_lost(b->core, a->conn);
        return;
    }
    s->conn = a->conn;
    socket_watch(s);
    if (zmq_connect(s->zmq, address) != 0) {
        socket_close(s);
        link_lost(b->core, a->conn);
    }
}

/* ---- actions ---- */

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
    struct sock *s;

    switch (a->kind) {
    case LINK_CONNECT: do_connect(b, a); break;
    case LINK_CLOSE:
        s = find_conn(b, a->conn);
        if (s != NULL)
            socket_close(s);
        break;
    case LINK_SEND: do_send(b, a); break;
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

/* At the end of a turn: whether the next on_receive has something to do. If not, the descriptor's next edge will tell.
 */
static bool has_news(struct sock *s)
{
    int events = events_of(s);

    s->touched = false;
    s->due = (events & ZMQ_POLLIN) || (s->conn != 0 && s->connected != ((events & ZMQ_POLLOUT) != 0));
    return s->due;
}

static void end_turn(struct bus *b)
{
    struct sock *s;

    DL_FOREACH (b->socks, s) {
        if (s->touched && !s->closed && has_news(s))
            loop_again(b->loop);
    }
    b->turn_ends = false;
}

static void on_timer(void *ctx)
{
    struct bus *b = ctx;

    b->timer_at_ms = UINT64_MAX;
    b->tick_due = true;
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
    if (b->turn_ends)
        end_turn(b);
    sweep(b);
    arm_timer(b);
}

static void on_receive(void *ctx)
{
    struct bus *b = ctx;
    struct sock *s;

    link_clock(b->core, loop_now_ms(b->loop));
    DL_FOREACH (b->socks, s) {
        if (s->closed || !s->due)
            continue;
        drain(s);
        pump(b);
    }
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

static int listen_lane(struct bus *b, const char *address, Karst__Bus__Lane lane)
{
    char at[ADDRESS_MAX];

    if (!lane_address(address, lane, at, sizeof at))
        return -EINVAL;
    if (is_ipc(at) && ipc_is_alive(at)) /* ZeroMQ would take the name from a twin that lives */
        return -EADDRINUSE;
    struct sock *s = socket_new(b, ZMQ_ROUTER, lane);
    if (s == NULL)
        return -EMFILE;
    if (zmq_bind(s->zmq, at) != 0)
        return -errno;
    socket_watch(s);
    b->routers[lane] = s;
    return 0;
}

static struct bus *close_all(struct bus *b, int linger_ms)
{
    struct sock *s;

    DL_FOREACH (b->socks, s) {
        if (!s->closed)
            set_int(s->zmq, ZMQ_LINGER, linger_ms);
        socket_close(s);
    }
    sweep(b);
    zmq_ctx_term(b->zmq);
    free(b->frames);
    free(b);
    return NULL;
}

int bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret_bus)
{
    struct bus *b = xcalloc(1, sizeof *b);
    uint32_t lanes = options->address ? link_kind_lanes_served(options->role) : 0;
    int failed = 0;

    b->loop = loop;
    b->zmq = zmq_ctx_new();
    if (b->zmq == NULL)
        BUG("no ZeroMQ context");
    b->payload_max = options->payload_max_bytes ? (int64_t)options->payload_max_bytes : PAYLOAD_MAX;
    for (int lane = 0; lane < LINK_LANES && failed == 0; lane++)
        if (lanes & 1u << lane)
            failed = listen_lane(b, options->address, (Karst__Bus__Lane)lane);
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
    b->core = link_new(&o, loop_now_ms(loop));
    b->timer_at_ms = UINT64_MAX;
    b->timer = loop_timer_start(loop, 0, 0, on_timer, b);
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
    link_shutdown(b->core);
    pump_out(b);
    b->timer = loop_timer_stop(b->timer);
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

void bus_set_metadata_offset(struct bus *b, int64_t offset)
{
    link_set_metadata_offset(b->core, offset);
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
