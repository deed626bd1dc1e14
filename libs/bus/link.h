/* link.h - the links of one worker to its peers: sessions, sequence numbers, credits, deadlines, heartbeats. Pure core:
 * no socket, clock, thread or random number. The ZeroMQ adapter (bus.c) and the simulator drive it over really encoded
 * bytes.
 *
 * The caller's end of a link (caller.c), one a peer and lane, opened by the first call:
 *
 *   down --a call is queued, the peer's address is known, back-off is over--> connecting --link_connected, Hello
 * leaves--> hello hello --Welcome--> up --Goodbye of the peer--> draining --last reply--> down connecting, hello, up,
 * draining --link_lost, Refusal, silence, a broken rule, another life of the peer--> down
 *
 * The served end (served.c), one a connection: --Hello of our cluster, version, name and life--> up --goodbye, silence,
 * a broken rule--> gone.
 *
 * I1  a call ends exactly once: LINK_DONE. Ended by timeout or cancel while in flight it keeps its credit until the
 * peer's reply or the end of the session, so that what a peer holds for us stays bounded. I2  a session lives on one
 * connection. Its messages carry its number, the life they are meant for, and sequence numbers without a gap; anything
 * else ends it. What was in flight then ends as OUTCOME_UNKNOWN and is in no later session. I3  calls in flight on a
 * link never exceed the credit that the peer's Welcome gave, in number and bytes (one call alone may be larger). Kinds
 * that park get three quarters of it, so that parked calls keep nobody else waiting. I4  an rpc reaches LINK_EXECUTE at
 * most once, before its deadline, when our image is no older than its sender's was. I5  everything else from a peer is
 * bounded: frame 0, what unpacking takes, links, payloads a message.
 *
 * I6  what a peer was told of in an arena is held until its reply, or, when the session ends before, until the peer has
 * hung up: LINK_HOLD. No deadline gives it back.
 *
 * Use: call any of the functions, then take actions with link_next until there is none. An action must be carried out
 * in order. Time is what link_clock said last, in ms, never going back. Threading: one thread. */
#ifndef KARST_BUS_LINK_H
#define KARST_BUS_LINK_H

#include "libs/bus/call.h"

enum {
    LINK_LANES = 4,
    LINK_FRAME0_MAX = 8 << 20,      /* bytes of a Batch; a longer one breaks the rules */
    LINK_BODY_MAX = 6 << 20,        /* of one call or reply, without payloads; a larger one is not sent */
    LINK_PAYLOADS_MAX = 65536,      /* frames behind a Batch */
    LINK_CALL_PAYLOADS_MAX = 32768, /* of one call or reply; one with more is not sent */
    LINK_SERVED_MAX = 1024,         /* connections that are served at once */
    LINK_CALL_OVERHEAD = 512,       /* a call's cost in credit bytes, beside its payloads */
    LINK_BACKOFF_MIN_MS = 20,
    LINK_BACKOFF_MAX_MS = 250,
    LINK_BACKOFF_REFUSED_MS = 1000, /* another cluster, version or role: it will not be better soon */
    LINK_CONNECT_MIN_MS = 100,      /* from LINK_CONNECT to link_connected; doubled with each attempt up to */
    LINK_CONNECT_MAX_MS = 1000,
    LINK_CONNECT_TCP_MS = 3000, /* the same over tcp, from the first attempt on: keys are exchanged, over a far way */
    LINK_SILENT_HEARTBEATS = 6,
    LINK_PASSING_REFUSALS = 20, /* in a row, some 4 s: a refusal that passes by itself is said only then */
};

struct link_core;

/* What connections can carry beside bytes, as the adapter knows it; all NULL: nothing. */
struct link_sharing {
    void *ctx;
    /* May arena slices and files travel on conn? */
    bool (*shares)(void *ctx, uint64_t conn);
    /* Gives the peer f's descriptor, once a connection, so that what is sent on conn from here on may name it. False:
     * it could not be given now. */
    bool (*pass_file)(void *ctx, uint64_t conn, struct ref_file *f);
    /* A slice or file that came on conn, as a ref with a count. -EBADMSG: none of that number and these bounds. */
    int (*resolve)(void *ctx, uint64_t conn, const Karst__Bus__Payload *p, struct ref *ret_ref);
};

/* What the adapter knows of who is at the other end, beside what he says; NULL: nothing, all are believed. */
struct link_trust {
    void *ctx;
    /* Why the other end of conn, which others opened, is not who it says it is: a sentence, valid until the next call.
     * NULL: it may be. */
    const char *(*refuses)(void *ctx, uint64_t conn, const Karst__Bus__Peer *from);
};

struct link_options {
    Karst__Bus__Role role;
    int32_t id;
    uint64_t incarnation;              /* not 0 */
    const char *cluster_id;            /* copied */
    uint32_t credit_calls;             /* 0: 16384 */
    uint64_t credit_bytes;             /* 0: 128 MiB, so that the largest Kafka request fits beside others */
    uint32_t heartbeat_ms;             /* 0: 500 */
    uint32_t version_min, version_max; /* 0: what this build speaks (version.h) */
    struct link_sharing sharing;
    struct link_trust trust;
};

NODISCARD struct link_core *link_new(const struct link_options *options, uint64_t now_ms);
/* Frees calls and rpcs as they are; link_shutdown first, where callers must hear. */
struct link_core *link_free(struct link_core *l);

/* ---- events ---- */

void link_clock(struct link_core *l, uint64_t now_ms);
/* Acts on what is due; the caller comes again at link_wake_ms at the latest, earlier does no harm. */
void link_tick(struct link_core *l);
uint64_t link_wake_ms(const struct link_core *l);

void link_set_peer(struct link_core *l, Karst__Bus__Role role, int32_t id, uint64_t incarnation, const char *address);
/* NULL: not known. */
const char *link_peer_address(const struct link_core *l, Karst__Bus__Role role, int32_t id);
/* bus_silence_ms */
uint64_t link_silence_ms(const struct link_core *l, Karst__Bus__Role role, int32_t id, Karst__Bus__Call__BodyCase kind,
                         uint64_t now_ms);
void link_set_metadata_offset(struct link_core *l, int64_t offset);
/* The version of the bus that all of the cluster speak, as far as is known; never below version_min, which it is at
 * first. Calls of kinds that came later end as OUTCOME_UNSUPPORTED, also where the one peer would know them. */
void link_set_level(struct link_core *l, uint32_t version);
uint32_t link_level(const struct link_core *l);
uint64_t link_call(struct link_core *l, Karst__Bus__Role role, int32_t id, const struct bus_request *request,
                   bus_done_fn *done, void *ctx);
void link_cancel(struct link_core *l, uint64_t call_id);
/* The end of a phase: everything staged becomes one LINK_SEND a link. */
void link_flush(struct link_core *l);
bool link_is_staged(const struct link_core *l); /* link_flush has something to do */
void link_goodbye(struct link_core *l);
/* Ends every session: calls as OUTCOME_UNKNOWN or OUTCOME_NOT_SENT, rpcs as gone. */
void link_shutdown(struct link_core *l);

/* Connections: the core numbers those it asked for with LINK_CONNECT; the adapter those that others opened: */
#define LINK_CONN_SERVED (UINT64_C(1) << 63)
static inline uint64_t link_conn_served(Karst__Bus__Lane lane, uint32_t number)
{
    return LINK_CONN_SERVED | (uint64_t)lane << 56 | number;
}
static inline Karst__Bus__Lane link_conn_lane(uint64_t served_conn)
{
    return (Karst__Bus__Lane)(served_conn >> 56 & (LINK_LANES - 1));
}
void link_connected(struct link_core *l, uint64_t conn);
void link_lost(struct link_core *l, uint64_t conn); /* ended by itself; no LINK_CLOSE follows */
/* The same; where it never came about nobody listens at the address. */
void link_absent(struct link_core *l, uint64_t conn);
/* A message arrived. Frames are those behind frame 0; their counts are taken over, also when the message is rubbish. */
void link_receive(struct link_core *l, uint64_t conn, struct slice frame0, struct ref *frames, size_t frame_count);

/* ---- actions ---- */

enum link_action_kind {
    LINK_CONNECT, /* open conn to address and lane, where role and id is; link_connected, link_lost or link_absent
                     follows */
    LINK_CLOSE,   /* conn, of either end: close it and forget what it still brings */
    LINK_SEND,    /* head and tail are frame 0 in two pieces; frames go behind it. If it cannot leave: link_lost */
    LINK_HOLD,    /* keep counts of frames until conn's peer has hung up; none if it has. Comes before LINK_CLOSE */
    LINK_EXECUTE, /* give rpc to its handler */
    LINK_GONE,    /* gone_fn(gone_ctx, rpc): the rpc's caller is gone */
    LINK_DONE,    /* done(ctx, &result): a call has ended */
    LINK_REPORT,  /* text is worth a line in the log */
};

struct link_action {
    enum link_action_kind kind;
    uint64_t conn;
    Karst__Bus__Lane lane;
    Karst__Bus__Role role;
    int32_t id;
    const char *address;
    struct slice head, tail;
    const struct ref *frames;
    size_t frame_count;
    struct rpc *rpc;
    bus_handler_fn *gone_fn;
    bus_done_fn *done;
    void *ctx;
    struct bus_result result;
    const char *text;
};

/* The next action, or false. What it points to is valid until the next link_next. */
NODISCARD bool link_next(struct link_core *l, struct link_action *ret_action);

/* ---- for tests and status ---- */

struct link_counts {
    size_t calls, calls_in_flight, calls_queued; /* calls: not yet freed, ended ones that hold credit included */
    size_t served, rpcs;
    uint64_t impostors; /* Hellos that link_trust refused */
    uint64_t rpc_bytes;
};
struct link_counts link_counts(const struct link_core *l);
void link_check(const struct link_core *l); /* asserts the invariants that hold between calls */

#endif
