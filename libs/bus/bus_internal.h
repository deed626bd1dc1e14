/* bus_internal.h - what bus.c (phases, actions, life), sockets.c (ZeroMQ) and local.c (shared memory) share. */
#ifndef KARST_BUS_BUS_INTERNAL_H
#define KARST_BUS_BUS_INTERNAL_H

#include "libs/bus/bus.h"
#include "libs/bus/link.h"

enum { KINDS_MAX = 32, KAFKA_KEYS_MAX = 128 };

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
    bool is_tcp;
    char *address; /* of a tcp socket, for the log */
    void *monitor; /* of a tcp socket: tells of its connections; NULL: none */
    struct loop_poll *monitor_poll;
    bool monitor_due;
    struct sock *prev, *next;
};

/* A line for the log that strangers can cause: one in a while, with the number of those that were left out. */
struct quiet {
    uint64_t until_ms;
    unsigned left_out;
};

/* Peers that leave in the handshake: now and then one is as it should be (it has found another way, or was stopped),
 * many in a row are not. */
struct leavers {
    uint64_t since_ms;
    unsigned count;
};

/* Of a bus with trust: who may connect, as ZeroMQ asks it (ZAP). */
struct door {
    struct trust *trust;
    void *zap;
    struct loop_poll *poll;
    bool due;
    char why[320]; /* somebody was refused last */
};

/* Numbers of connections served over tcp differ from those of the ipc addresses, and from local ones. */
#define TCP_CONN (UINT64_C(1) << 49)

struct locals;

struct bus {
    struct loop *loop;
    struct link_core *core;
    void *zmq;
    struct sock *socks;
    bool has_closed; /* one of them is, and not freed yet */
    struct sock *routers[LINK_LANES], *tcp_routers[LINK_LANES];
    struct door door;
    bool unencrypted;
    struct quiet refusals, failures;
    struct quiet impostors[KARST__BUS__ROLE__ROLE_TXN + 1]; /* by role, so that none hides behind another */
    struct leavers callers_left, called_left;
    unsigned last_monitor;
    struct locals *locals; /* NULL: everything goes over ZeroMQ */
    struct handler handlers[KINDS_MAX], kafka_handlers[KAFKA_KEYS_MAX];
    struct loop_timer *timer;
    uint64_t timer_at_ms;
    bool tick_due, turn_ends, pumping, is_shut;
    int64_t payload_max;
    void *receiving;    /* frame 0 of the message that the core is given just now, a zmq_msg_t; NULL: none */
    struct ref *frames; /* of the message that is being read */
    size_t frame_capacity;
};

/* Both open nothing when the address is wrong. The new socket is in b->socks, touched. */
NODISCARD int bus_socket_listen(struct bus *b, const char *address, Karst__Bus__Lane lane); /* 0 or -errno */
void bus_socket_connect(struct bus *b, const struct link_action *a); /* or tells the core that it is lost */
void bus_socket_close(struct sock *s, int linger_ms);                /* it stays in the list until bus_sockets_sweep */
void bus_sockets_sweep(struct bus *b);
struct sock *bus_socket_find(struct bus *b, uint64_t conn); /* NULL: closed, or never there */

/* Hands what has come to the link core, up to a cap; notes connections made and lost. */
void bus_socket_drain(struct sock *s);
/* At the end of a turn: whether the next drain has something to do. If not, the descriptor's next edge will tell. */
bool bus_socket_has_news(struct sock *s);
NODISCARD bool bus_socket_send(struct sock *s, const struct link_action *a); /* false: the connection is gone */

/* ---- zmq.c: of any ZeroMQ socket; they cannot fail ---- */
void bus_zmq_set(void *zmq, int option, int value);
int bus_zmq_fd(void *zmq);

/* ---- tcp.c: what a connection to another host needs beside ---- */

/* Before any socket is made. */
void bus_door_open(struct bus *b, struct trust *trust);
void bus_door_close(struct bus *b);
void bus_door_answer(struct bus *b); /* in each turn: says who may come in */
/* Before zmq_bind, or zmq_connect for a LINK_CONNECT. 0; -EPERM: tcp is not allowed; -ENOKEY: the list has no key for
 * the host, or not for whom we look for there, which is logged. */
NODISCARD int bus_tcp_prepare(struct sock *s, const char *address, const struct link_action *connect);
/* link_trust: of a connection over tcp the key says which host calls, and the list which nodes are there. */
const char *bus_tcp_refuses(void *ctx, uint64_t conn, const Karst__Bus__Peer *from);
void bus_tcp_events(struct sock *s); /* in each turn: what became of its connections */
void bus_tcp_close(struct sock *s);

#endif
