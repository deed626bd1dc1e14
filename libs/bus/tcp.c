/* tcp.c - connections to other hosts: encrypted, and only with those that the list of trust.h names.
 *
 * CURVE tells each end the other's public key. A caller gives ZeroMQ the key that it expects of the host; a served end
 * is asked by ZeroMQ for each key that comes (ZAP, a request to inproc://zeromq.zap.01). We answer in our loop. Without
 * anybody to ask ZeroMQ lets everybody in: so the socket that is asked is bound before any other is made, and closed
 * behind the last. What we answer, the name of the host, comes with each message of the connection (User-Id): the Hello
 * of a peer is held against it.
 *
 * Nobody tells of a connection that fails over tcp but a monitor of the socket: each has one. A cable that is pulled
 * out makes no sound at all: the link core gives the caller's end up after six heartbeats, ZeroMQ's own and
 * TCP_USER_TIMEOUT then end what the served end still has of the connection. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#include "libs/base/bytes.h"
#include "libs/base/log.h"
#include "libs/bus/bus_internal.h"
#include "libs/bus/kind.h"
#include "libs/bus/trust.h"

enum {
    HANDSHAKE_MS = 3000, /* a connection that has not shown a key by then is closed */
    ZMTP_HEARTBEAT_MS = 2000,
    ZMTP_SILENCE_MS = 6000,
    UNACKNOWLEDGED_MS = 6000, /* TCP_USER_TIMEOUT */
    QUIET_MS = 5000,
    LEAVERS = 8, /* within QUIET_MS are worth a line */
    TURN_QUESTIONS = 64,
    TURN_EVENTS = 64,
    MORE = 64, /* bytes of the words that may_say gives */
    EVENTS = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
             ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_CLOSED | ZMQ_EVENT_DISCONNECTED,
};

static const char zap_address[] = "inproc://zeromq.zap.01", zap_domain[] = "karst", tcp_scheme[] = "tcp://";

static void set_text(void *zmq, int option, const char *value, size_t size)
{
    if (zmq_setsockopt(zmq, option, value, size) != 0)
        BUG("a ZeroMQ socket option is not known");
}

/* Whether the line may be written; how many were left out since the last, in words. */
static bool may_say(struct bus *b, struct quiet *q, char more[MORE])
{
    uint64_t now = loop_now_ms(b->loop);

    if (now < q->until_ms) {
        q->left_out++;
        return false;
    }
    q->until_ms = now + QUIET_MS;
    more[0] = 0;
    if (q->left_out > 0)
        snprintf(more, MORE, " (and %u times more since it was last said)", q->left_out);
    q->left_out = 0;
    return true;
}

/* ---- who may come in ---- */

enum { ZAP_FRAMES = 7, ZAP_FRAME_MAX = 256 };
struct zap_request {
    struct {
        char data[ZAP_FRAME_MAX];
        size_t size;
    } frames[ZAP_FRAMES]; /* version, request id, domain, address, routing id, mechanism, credentials */
    size_t count;
    bool too_long;
};

/* False: there is none. */
static bool read_request(void *zap, struct zap_request *r)
{
    char rest[ZAP_FRAME_MAX];
    int more = 1;
    size_t size = sizeof more;

    *r = (struct zap_request){0};
    while (more) {
        bool fits = r->count < ZAP_FRAMES;
        int n = zmq_recv(zap, fits ? r->frames[r->count].data : rest, ZAP_FRAME_MAX, ZMQ_DONTWAIT);
        if (n < 0)
            return false;
        r->too_long = r->too_long || n > ZAP_FRAME_MAX;
        if (fits)
            r->frames[r->count].size = (size_t)MIN(n, ZAP_FRAME_MAX);
        r->count++;
        if (zmq_getsockopt(zap, ZMQ_RCVMORE, &more, &size) != 0)
            return false;
    }
    return true;
}

/* The host that the key is of, by the list; NULL: a stranger, and *key is what he has shown. */
static const char *host_of(struct bus *b, const struct zap_request *r, char key[TRUST_KEY_CHARS + 1])
{
    char *error = NULL;

    strcpy(key, "none");
    if (r->too_long || r->count != ZAP_FRAMES || r->frames[5].size != 5 || memcmp(r->frames[5].data, "CURVE", 5) != 0 ||
        r->frames[6].size != TRUST_KEY_BYTES ||
        zmq_z85_encode(key, (const uint8_t *)r->frames[6].data, TRUST_KEY_BYTES) == NULL)
        return NULL;
    if (trust_refresh(b->door.trust, &error) != 0)
        log_error("bus: the list of hosts stays as it was: %s", error);
    free(error);
    return trust_host_of(b->door.trust, key);
}

static void answer_request(struct bus *b, const struct zap_request *r)
{
    char key[TRUST_KEY_CHARS + 1], more[MORE];
    const char *host = host_of(b, r, key), *code = host ? "200" : "400", *text = host ? "OK" : "not on the list";
    void *zap = b->door.zap;

    if (host == NULL && may_say(b, &b->refusals, more))
        log_warn("bus: %.*s is refused: its key %s is not on the list of hosts%s",
                 r->count > 3 ? (int)r->frames[3].size : 0, r->frames[3].data, key, more);
    size_t id_size = r->count > 1 ? r->frames[1].size : 0;
    if (zmq_send(zap, "1.0", 3, ZMQ_SNDMORE) < 0 || zmq_send(zap, r->frames[1].data, id_size, ZMQ_SNDMORE) < 0 ||
        zmq_send(zap, code, 3, ZMQ_SNDMORE) < 0 || zmq_send(zap, text, strlen(text), ZMQ_SNDMORE) < 0 ||
        zmq_send(zap, host, host ? strlen(host) : 0, ZMQ_SNDMORE) < 0 || zmq_send(zap, "", 0, 0) < 0)
        log_error("bus: ZeroMQ does not take our answer about a key: %s", zmq_strerror(errno));
}

static void on_question(void *ctx, int events)
{
    struct bus *b = ctx;

    (void)events;
    b->door.due = true;
}

void bus_door_open(struct bus *b, struct trust *trust)
{
    struct door *d = &b->door;

    if (trust == NULL)
        return;
    d->trust = trust;
    d->zap = zmq_socket(b->zmq, ZMQ_REP);
    if (d->zap == NULL || zmq_bind(d->zap, zap_address) != 0)
        BUG("nobody can be asked who may come in");
    bus_zmq_set(d->zap, ZMQ_LINGER, 0);
    d->poll = loop_poll_start(b->loop, bus_zmq_fd(d->zap), LOOP_READABLE, on_question, b);
    d->due = true;
}

void bus_door_close(struct bus *b)
{
    b->door.poll = loop_poll_stop(b->door.poll);
    if (b->door.zap != NULL)
        zmq_close(b->door.zap);
    b->door.zap = NULL;
}

void bus_door_answer(struct bus *b)
{
    struct zap_request r;
    int n = 0;

    if (!b->door.due)
        return;
    b->door.due = false;
    while (n < TURN_QUESTIONS && read_request(b->door.zap, &r)) {
        answer_request(b, &r);
        n++;
    }
    if (n < TURN_QUESTIONS)
        return;
    b->door.due = true;
    loop_again(b->loop);
}

/* ---- who is who ---- */

/* "tcp://HOST:PORT", "tcp://[::1]:PORT" */
static void host_in(const char *address, char host[TRUST_HOST_MAX + 1])
{
    const char *from = address + sizeof tcp_scheme - 1, *to = strrchr(from, ':');
    size_t n = to ? (size_t)(to - from) : strlen(from);

    if (n >= 2 && from[0] == '[' && from[n - 1] == ']') {
        from++;
        n -= 2;
    }
    snprintf(host, TRUST_HOST_MAX + 1, "%.*s", (int)MIN(n, (size_t)TRUST_HOST_MAX), from);
}

/* The node that a process is of. */
static int32_t node_of(Karst__Bus__Role role, int32_t id)
{
    return role == KARST__BUS__ROLE__ROLE_FRONTEND ? id / TRUST_FRONTENDS_A_NODE : id;
}

/* The list may name no nodes; where controllers are our configuration always says. Those of our own host, which it
 * gives by their unix sockets, do not come over tcp. */
static bool is_controllers_host(const struct bus *b, const char *host, int32_t id)
{
    const char *address = link_peer_address(b->core, KARST__BUS__ROLE__ROLE_CONTROLLER, id);
    char its[TRUST_HOST_MAX + 1];

    if (address == NULL || strncmp(address, tcp_scheme, sizeof tcp_scheme - 1) != 0)
        return false;
    host_in(address, its);
    return trust_is_same_host(b->door.trust, host, its);
}

/* Why a process of this host is not role and id, until the next call; NULL: it may be. */
static const char *mistaken(struct bus *b, const char *host, Karst__Bus__Role role, int32_t id)
{
    const struct trust *t = b->door.trust;
    int32_t node = node_of(role, id);
    const char *at = trust_host_with(t, node);

    if (role == KARST__BUS__ROLE__ROLE_CONTROLLER && !is_controllers_host(b, host, id))
        snprintf(b->door.why, sizeof b->door.why, "karst.controllers does not have controller %" PRId32 " there", id);
    else if (trust_carries(t, host, node))
        return NULL;
    else if (at != NULL)
        snprintf(b->door.why, sizeof b->door.why, "the list of hosts has node %" PRId32 " at %s", node, at);
    else
        snprintf(b->door.why, sizeof b->door.why, "the list of hosts does not have node %" PRId32 " there", node);
    return b->door.why;
}

const char *bus_tcp_refuses(void *ctx, uint64_t conn, const Karst__Bus__Peer *from)
{
    struct bus *b = ctx;
    char more[MORE];

    if (!(conn & TCP_CONN) || b->door.trust == NULL)
        return NULL;
    const char *host = zmq_msg_gets(b->receiving, "User-Id");
    const char *why = host != NULL ? mistaken(b, host, from->role, from->id) : "its key is not known";
    size_t role = MIN((size_t)from->role, COUNTOF(b->impostors) - 1);
    if (why != NULL && may_say(b, &b->impostors[role], more))
        log_warn("bus: a peer at %s is refused, it says that it is %s %" PRId32 ": %s%s", host ? host : "?",
                 link_role_name(from->role), from->id, why, more);
    return why;
}

/* ---- sockets ---- */

static int set_keys(struct sock *s, const struct link_action *connect)
{
    struct trust *t = s->bus->door.trust;
    char host[TRUST_HOST_MAX + 1], more[MORE], *error = NULL;

    set_text(s->zmq, ZMQ_CURVE_SECRETKEY, trust_secret_key(t), TRUST_KEY_CHARS + 1);
    if (connect == NULL) {
        bus_zmq_set(s->zmq, ZMQ_CURVE_SERVER, 1);
        set_text(s->zmq, ZMQ_ZAP_DOMAIN, zap_domain, sizeof zap_domain - 1);
        return 0;
    }
    if (trust_refresh(t, &error) != 0)
        log_error("bus: the list of hosts stays as it was: %s", error);
    free(error);
    host_in(s->address, host);
    const char *key = trust_key_of(t, host);
    if (key == NULL) {
        if (may_say(s->bus, &s->bus->failures, more))
            log_warn("bus: no connection to %s: the list of hosts has no key of %s%s", s->address, host, more);
        return -ENOKEY;
    }
    const char *why = mistaken(s->bus, host, connect->role, connect->id);
    if (why != NULL) {
        if (may_say(s->bus, &s->bus->failures, more))
            log_warn("bus: no connection to %s %" PRId32 " at %s: %s%s", link_role_name(connect->role), connect->id,
                     s->address, why, more);
        return -ENOKEY;
    }
    set_text(s->zmq, ZMQ_CURVE_PUBLICKEY, trust_public_key(t), TRUST_KEY_CHARS + 1);
    set_text(s->zmq, ZMQ_CURVE_SERVERKEY, key, TRUST_KEY_CHARS + 1);
    return 0;
}

static void on_event(void *ctx, int events)
{
    struct sock *s = ctx;

    (void)events;
    s->monitor_due = true;
}

/* Before zmq_bind and zmq_connect, so that nothing is missed. */
static void watch(struct sock *s)
{
    char name[32];

    snprintf(name, sizeof name, "inproc://monitor-%u", ++s->bus->last_monitor);
    if (zmq_socket_monitor(s->zmq, name, EVENTS) != 0)
        return; /* out of descriptors: the link core's own times end what fails */
    s->monitor = zmq_socket(s->bus->zmq, ZMQ_PAIR);
    if (s->monitor == NULL)
        return;
    bus_zmq_set(s->monitor, ZMQ_LINGER, 0);
    if (zmq_connect(s->monitor, name) != 0) {
        zmq_close(s->monitor);
        s->monitor = NULL;
        return;
    }
    s->monitor_poll = loop_poll_start(s->bus->loop, bus_zmq_fd(s->monitor), LOOP_READABLE, on_event, s);
    s->monitor_due = true;
}

int bus_tcp_prepare(struct sock *s, const char *address, const struct link_action *connect)
{
    char more[MORE];

    s->is_tcp = true;
    s->address = xstrdup(address);
    if (s->bus->door.trust == NULL && !s->bus->unencrypted) {
        if (may_say(s->bus, &s->bus->failures, more))
            log_warn("bus: %s is not used: there are no keys for connections to other hosts%s", address, more);
        return -EPERM;
    }
    bus_zmq_set(s->zmq, ZMQ_IPV6, strchr(address, '[') != NULL);
    bus_zmq_set(s->zmq, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS);
    bus_zmq_set(s->zmq, ZMQ_HEARTBEAT_IVL, ZMTP_HEARTBEAT_MS);
    bus_zmq_set(s->zmq, ZMQ_HEARTBEAT_TIMEOUT, ZMTP_SILENCE_MS);
    bus_zmq_set(s->zmq, ZMQ_TCP_MAXRT, UNACKNOWLEDGED_MS);
    bus_zmq_set(s->zmq, ZMQ_TCP_KEEPALIVE, 1);
    int failed = s->bus->door.trust != NULL ? set_keys(s, connect) : 0;
    if (failed == 0)
        watch(s);
    return failed;
}

void bus_tcp_close(struct sock *s)
{
    if (s->monitor == NULL)
        return;
    s->monitor_poll = loop_poll_stop(s->monitor_poll);
    zmq_socket_monitor(s->zmq, NULL, 0);
    zmq_close(s->monitor);
    s->monitor = NULL;
}

/* ---- what became of connections ---- */

static bool are_many(struct bus *b, struct leavers *l)
{
    uint64_t now = loop_now_ms(b->loop);

    if (now >= l->since_ms + QUIET_MS)
        *l = (struct leavers){.since_ms = now};
    return ++l->count >= LEAVERS;
}

static void say_failed(struct sock *s, int event, uint32_t value)
{
    bool served = s->conn == 0;
    const char *why = NULL;
    char more[MORE];

    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        why = served ? NULL : "it does not have our key on its list of hosts";
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL)
        why = value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH ? "one side encrypts, and the other does not"
              : served ? "it has another key of us than ours, or is none of Karst"
                       : "it is none of Karst";
    else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        why = served ? "callers leave in their handshake, or are silent: their configuration may say why"
                     : "it has ended the handshake: its key may be another than the list of hosts has";
    bool left = event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL && (value == EPIPE || value == ECONNRESET);
    if (why == NULL || (left && !are_many(s->bus, served ? &s->bus->callers_left : &s->bus->called_left)) ||
        !may_say(s->bus, &s->bus->failures, more))
        return; /* of a key that is not on the list, bus_door_answer has told */
    log_warn("bus: %s %s fails: %s%s", served ? "a connection to us at" : "the connection to", s->address, why, more);
}

/* False: there is none. First frame: event, value; second: the address. */
static bool read_event(void *monitor, uint16_t *ret_event, uint32_t *ret_value)
{
    uint8_t event[6], address[256];

    if (zmq_recv(monitor, event, sizeof event, ZMQ_DONTWAIT) != sizeof event)
        return false;
    memcpy(ret_event, event, sizeof *ret_event); /* in the order of this machine, as ZeroMQ writes it */
    memcpy(ret_value, event + 2, sizeof *ret_value);
    return zmq_recv(monitor, address, sizeof address, ZMQ_DONTWAIT) >= 0;
}

/* A caller's connection that did not come about is lost at once, and not when the core has waited for it. One that was
 * there is read to its end first (note_connection). */
void bus_tcp_events(struct sock *s)
{
    uint16_t event;
    uint32_t value;
    int n = 0;
    bool ended = false, absent = true;

    s->monitor_due = false;
    while (n < TURN_EVENTS && read_event(s->monitor, &event, &value)) {
        n++;
        ended = ended || s->conn != 0;
        absent = absent && event == ZMQ_EVENT_CLOSED; /* all others are of somebody who was there */
        say_failed(s, event, value);
    }
    if (ended && !s->connected) {
        uint64_t conn = s->conn;
        bus_socket_close(s, 0);
        (absent ? link_absent : link_lost)(s->bus->core, conn);
    } else if (n == TURN_EVENTS) {
        s->monitor_due = true;
        loop_again(s->bus->loop);
    }
}
