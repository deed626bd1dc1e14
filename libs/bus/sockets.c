/* sockets.c - ZeroMQ for the bus: ROUTERs that listen, DEALERs that call, frames in and out.
 *
 * ZeroMQ never reconnects or drops by itself (socket_new). With ZMQ_IMMEDIATE a DEALER is writable exactly while its
 * connection stands, so that its events tell of connections made and lost, without a monitor. A dead listener of an ipc
 * address, which ZeroMQ keeps silent about, is found by a connect(2) of our own. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>
#include <zmq.h>

#include "libs/base/bytes.h"
#include "libs/bus/bus_internal.h"

enum {
    DRAIN_MESSAGES = 64,    /* from one socket in one turn */
    COPY_BYTES = 512,       /* a payload up to here is copied into its frame: cheaper than counting it across threads */
    RECEIVE_MESSAGES = 256, /* ZMQ_RCVHWM: beyond it ZeroMQ stops reading the connection, it loses nothing */
    ROUTING_ID_BYTES = 5,
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

static struct sock *socket_new(struct bus *b, int type, Karst__Bus__Lane lane)
{
    void *zmq = zmq_socket(b->zmq, type);

    if (zmq == NULL)
        return NULL;
    bus_zmq_set(zmq, ZMQ_LINGER, 0);
    bus_zmq_set(zmq, ZMQ_SNDHWM, 0);
    bus_zmq_set(zmq, ZMQ_RCVHWM, RECEIVE_MESSAGES);
    if (zmq_setsockopt(zmq, ZMQ_MAXMSGSIZE, &b->payload_max, sizeof b->payload_max) != 0)
        BUG("a ZeroMQ socket option is not known");
    if (type == ZMQ_ROUTER) {
        bus_zmq_set(zmq, ZMQ_ROUTER_MANDATORY, 1);
    } else {
        bus_zmq_set(zmq, ZMQ_RECONNECT_IVL, -1);
        bus_zmq_set(zmq, ZMQ_IMMEDIATE, 1);
        bus_zmq_set(zmq, ZMQ_CONNECT_TIMEOUT, LINK_CONNECT_MAX_MS);
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
    s->poll = loop_poll_start(s->bus->loop, bus_zmq_fd(s->zmq), LOOP_READABLE, on_readable, s);
}

void bus_socket_close(struct sock *s, int linger_ms)
{
    if (s->closed)
        return;
    s->closed = true;
    s->bus->has_closed = true;
    bus_tcp_close(s);
    s->poll = loop_poll_stop(s->poll);
    bus_zmq_set(s->zmq, ZMQ_LINGER, linger_ms);
    zmq_close(s->zmq);
}

/* Frees those that were closed while somebody went through the list. */
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
        free(s->address);
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

struct sock *bus_socket_find(struct bus *b, uint64_t conn)
{
    struct sock *s;

    DL_FOREACH (b->socks, s)
        if (s->conn == conn && !s->closed)
            return s;
    return NULL;
}

void bus_socket_connect(struct bus *b, const struct link_action *a)
{
    char at[ADDRESS_MAX];
    bool good = lane_address(a->address, a->lane, at, sizeof at);
    bool absent = good && is_ipc(at) && !ipc_is_alive(at);
    struct sock *s = good && !absent ? socket_new(b, ZMQ_DEALER, a->lane) : NULL;

    if (s != NULL) {
        s->conn = a->conn;
        if ((is_ipc(at) || bus_tcp_prepare(s, at, a) == 0) && zmq_connect(s->zmq, at) == 0) {
            socket_watch(s);
            return;
        }
        bus_socket_close(s, 0);
    }
    (absent ? link_absent : link_lost)(b->core, a->conn);
}

int bus_socket_listen(struct bus *b, const char *address, Karst__Bus__Lane lane)
{
    char at[ADDRESS_MAX];

    if (!lane_address(address, lane, at, sizeof at))
        return -EINVAL;
    if (is_ipc(at) && ipc_is_alive(at)) /* ZeroMQ would take the name from a twin that lives */
        return -EADDRINUSE;
    struct sock *s = socket_new(b, ZMQ_ROUTER, lane);
    if (s == NULL)
        return -EMFILE;
    int failed = is_ipc(at) ? 0 : bus_tcp_prepare(s, at, NULL);
    if (failed != 0)
        return failed;
    if (zmq_bind(s->zmq, at) != 0)
        return -errno;
    socket_watch(s);
    (is_ipc(at) ? b->routers : b->tcp_routers)[lane] = s;
    return 0;
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
    return link_conn_served(s->lane, get_u32(p + 1)) | (s->is_tcp ? TCP_CONN : 0);
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
        s->bus->receiving = &msg;
        link_receive(s->bus->core, conn, frame0, s->bus->frames, count);
        s->bus->receiving = NULL;
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
        bus_socket_close(s, 0);
        link_lost(b->core, s->conn);
    }
}

/* Until nothing is left, which ZeroMQ says after it has looked at all that its I/O thread has told. */
void bus_socket_drain(struct sock *s)
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

bool bus_socket_has_news(struct sock *s)
{
    int events = events_of(s);

    s->touched = false;
    s->due = (events & ZMQ_POLLIN) || (s->conn != 0 && s->connected != ((events & ZMQ_POLLOUT) != 0));
    return s->due;
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

bool bus_socket_send(struct sock *s, const struct link_action *a)
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
