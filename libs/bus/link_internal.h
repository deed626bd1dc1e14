/* link_internal.h - what the files of the link core share: link.c (events, actions, deadlines), caller.c, served.c,
 * rpc.c, message.c. */
#ifndef KARST_BUS_LINK_INTERNAL_H
#define KARST_BUS_LINK_INTERNAL_H

#include <uthash.h>

#include "libs/base/buf.h"
#include "libs/bus/kind.h"
#include "libs/bus/link.h"

/* ---- message.c: what arrives and what leaves ---- */

/* One that arrived: its Batch and payloads, shared by the calls and replies in it. */
struct message {
    uint32_t count;
    struct arena *arena;
    Karst__Bus__Batch *batch;
    struct ref *frames; /* moved out one by one to who owns them; in arena */
    size_t frame_count;
    struct message *next; /* in the pool */
};

/* One that will leave: body is the calls and replies, head the rest of the Batch, written last. */
struct outgoing {
    struct buf head, body;
    struct ref *frames;
    size_t frame_count, frame_capacity;
    uint64_t payload_bytes;
    struct outgoing *next; /* in the pool */
};

enum { OUTGOING_BODY_BYTES = 1 << 20, OUTGOING_PAYLOAD_BYTES = 16 << 20, OUTGOING_FRAMES = 1024 };

/* Takes the frames. NULL, with the frames released, when the bytes are no Batch or one of the bounds of link.h is
 * passed. */
NODISCARD struct message *link_message_read(struct link_core *l, struct slice frame0, struct ref *frames,
                                            size_t frame_count);
void link_message_release(struct link_core *l, struct message *m);
/* Moves the payloads of one call or reply out of m, which came on conn, into ret_refs (room for count, in m's arena).
 * Those of other references than frames and `shared` are -EBADMSG, as are a number that is none, or taken twice, and a
 * size that differs. */
NODISCARD int link_message_payloads(struct link_core *l, uint64_t conn, struct message *m, size_t count,
                                    Karst__Bus__Payload **payloads, Karst__Bus__Payload__ReferenceCase shared,
                                    struct ref *ret_refs);

struct outgoing *link_outgoing_new(struct link_core *l);
void link_outgoing_free(struct link_core *l, struct outgoing *o); /* takes NULL */
bool link_outgoing_is_full(const struct outgoing *o);
/* prepacked: the message's other fields, packed. Takes counts of the payloads that become frames; in_arena: those of
 * an arena do not. */
void link_outgoing_call(struct outgoing *o, uint64_t correlation_id, uint32_t remaining_ms, struct slice prepacked,
                        const struct ref *payloads, size_t payload_count, bool in_arena);
/* false, with nothing done: the body is larger than LINK_BODY_MAX, or it has too many payloads. */
NODISCARD bool link_outgoing_reply(struct outgoing *o, uint64_t correlation_id, Karst__Bus__Outcome outcome,
                                   int64_t metadata_offset, Karst__Bus__Reply__BodyCase kind, const void *body,
                                   const struct ref *payloads, size_t payload_count);

/* ---- deadline.c: a heap of calls and waiting rpcs ---- */

struct deadline {
    uint64_t at_ms;
    size_t index; /* in the heap, from 1; 0: not in it */
    bool is_rpc;
};

void link_deadline_set(struct link_core *l, struct deadline *d, uint64_t at_ms);
void link_deadline_clear(struct link_core *l, struct deadline *d);

/* ---- the caller's end ---- */

enum call_state { CALL_QUEUED, CALL_SENT, CALL_ENDED };

struct call {
    uint64_t id; /* sequence << CALL_SLOT_BITS | slot */
    struct caller *link;
    enum call_state state; /* CALL_ENDED: the caller has heard, the credit is still held */
    bool parks, in_arena, reply_in_files;
    uint32_t first_version; /* of the bus, that has its kind */
    Karst__Bus__Call__BodyCase kind;
    struct deadline deadline; /* of leaving, and then of the answer */
    uint64_t until_ms;        /* of the answer */
    uint64_t cost;
    bus_done_fn *done;
    void *ctx;
    struct call *prev, *next; /* in a queue or in sent */
    struct ref *payloads;
    size_t payload_count;
    struct slice packed; /* behind the struct */
};

enum { CALL_SLOT_BITS = 22, CALLS_MAX = 1 << CALL_SLOT_BITS };

struct peer {
    uint64_t key;
    Karst__Bus__Role role;
    int32_t id;
    uint64_t incarnation; /* 0: not known */
    char *address;        /* NULL: not known */
    struct caller *lanes[LINK_LANES];
    UT_hash_handle hh;
};

enum caller_state { CALLER_DOWN, CALLER_CONNECTING, CALLER_HELLO, CALLER_UP, CALLER_DRAINING };

struct credit {
    uint64_t calls, parked, bytes;
};

struct caller {
    struct peer *peer;
    Karst__Bus__Lane lane;
    enum caller_state state;
    uint64_t conn, session, incarnation; /* of this connection; the life that welcomed us */
    uint32_t version;                    /* of the bus, on this session; 0: not welcome yet */
    uint64_t send_sequence, receive_sequence;
    uint64_t since_ms, sent_ms, received_ms, heartbeat_ms, retry_at_ms;
    uint32_t attempts;
    bool heartbeat_due, staged, refusal_reported;
    bool absent;       /* the last attempt to connect found nobody who listens */
    unsigned refusals; /* in a row */
    struct credit granted, used, queued_use;
    struct call *queued, *queued_parks, *sent;
    uint64_t *cancels;
    size_t cancel_count, cancel_capacity;
    struct caller *next_staged;
    struct caller *prev, *next; /* of all */
    UT_hash_handle hh;          /* by conn, while there is one */
};

void link_caller_call(struct link_core *l, struct peer *p, struct call *c, const struct kind *kind);
void link_caller_stop_call(struct link_core *l, struct call *c, Karst__Bus__Outcome outcome);
void link_caller_flush(struct link_core *l, struct caller *c);
void link_caller_connected(struct link_core *l, struct caller *c);
void link_caller_receive(struct link_core *l, struct caller *c, struct message *m);
void link_caller_rubbish(struct link_core *l, struct caller *c);
void link_caller_lost(struct link_core *l, struct caller *c, bool absent);
void link_caller_end(struct link_core *l, struct caller *c, uint32_t backoff_ms);
void link_caller_reset_peer(struct link_core *l, struct peer *p, bool same_address); /* another life or address */
void link_caller_shutdown(struct link_core *l, struct caller *c);
uint64_t link_caller_tick(struct link_core *l, struct caller *c); /* when it wants the next */
void link_caller_free(struct link_core *l, struct caller *c);

/* ---- the served end ---- */

enum rpc_state { RPC_WAITING, RPC_DUE, RPC_EXECUTING };

struct served;

struct rpc {
    struct link_core *core;
    struct served *link; /* NULL: its session has ended */
    uint64_t correlation_id;
    enum rpc_state state;
    bool parks, reply_in_files;
    bool gone;        /* the caller has cancelled, or the session has ended */
    bool gone_staged; /* in core->gone */
    struct deadline deadline;
    uint64_t cost;
    int64_t metadata_offset; /* that it waits for */
    const Karst__Bus__Call *call;
    Karst__Bus__Peer from;
    struct message *message;
    struct ref *payloads; /* in the message's arena; each holds a count */
    size_t payload_count;
    struct arena *arena; /* NULL until asked for */
    bus_handler_fn *gone_fn;
    void *gone_ctx;
    struct rpc *prev, *next;           /* of all; in the pool by next */
    struct rpc *wait_prev, *wait_next; /* of the link's waiting ones */
    struct rpc *gone_prev, *gone_next; /* of core->gone */
    UT_hash_handle hh;                 /* of the link, by correlation id */
};

struct served {
    uint64_t conn, session;
    Karst__Bus__Peer peer; /* who calls */
    uint32_t version;      /* of the bus, on this session */
    uint64_t send_sequence, receive_sequence, received_ms, heartbeat_reply;
    bool staged, welcome, goodbye, peer_goodbye;
    uint64_t rpc_bytes;
    size_t rpc_count, rpc_parked; /* all; those of kinds that park */
    struct rpc *rpcs;             /* hash */
    struct rpc *waiting;          /* in order of arrival */
    struct outgoing *out;
    struct served *next_staged;
    UT_hash_handle hh; /* by conn */
};

void link_served_receive(struct link_core *l, uint64_t conn, struct message *m);
void link_served_rubbish(struct link_core *l, uint64_t conn);
void link_served_lost(struct link_core *l, uint64_t conn);
void link_served_flush(struct link_core *l, struct served *s);
void link_served_tick(struct link_core *l, uint64_t *wake_ms);
void link_served_unpark(struct link_core *l);
void link_served_goodbye(struct link_core *l);
void link_served_end_all(struct link_core *l);
void link_served_stage(struct link_core *l, struct served *s);

/* ---- rpc.c ---- */

struct rpc *link_rpc_new(struct link_core *l, struct served *s, struct message *m, const Karst__Bus__Call *call);
void link_rpc_orphan(struct rpc *r); /* its session has ended */
void link_rpc_cancel(struct rpc *r); /* by its caller */
void link_rpc_free(struct rpc *r);

/* ---- link.c ---- */

struct slot {
    struct link_action action;
    struct outgoing *outgoing; /* the rest: what is given back when the action has been carried out */
    struct message *message;
    struct ref *payloads; /* of the result */
    char *text;
};

struct link_core {
    struct link_options options;
    char *cluster_id;
    uint64_t now_ms, wake_ms;
    int64_t metadata_offset;
    uint32_t level; /* of the cluster: link_set_level */
    bool closing;
    uint64_t last_conn, last_session, last_call;

    struct peer *peers;
    struct caller *callers, *callers_by_conn;
    struct served *served;
    struct caller *staged_callers;
    struct served *staged_served;

    struct call **calls; /* by slot */
    uint32_t *free_slots;
    size_t call_capacity, free_slot_count;

    struct deadline **heap; /* from 1 */
    size_t heap_count, heap_capacity;

    struct slot *actions; /* a ring */
    size_t action_first, action_count, action_capacity;
    struct slot current; /* the action that was taken last */
    bool has_current;
    struct rpc *all_rpcs, *gone, *rpc_pool;
    struct arena *arena_pool[16];
    struct message *message_pool;
    struct outgoing *outgoing_pool;
    size_t rpc_pooled, arena_pooled, message_pooled, outgoing_pooled, rpc_total;
    uint64_t impostors;
    uint64_t refused[16]; /* connections that were told lately that they have no session */
    size_t refused_at;
};

enum { POOL_MAX = 64 };

struct slot *link_push(struct link_core *l, enum link_action_kind kind);
void link_report(struct link_core *l, const char *format, ...) PRINTF_LIKE(2, 3);
void link_wake_by(struct link_core *l, uint64_t at_ms);
bool link_shares(const struct link_core *l, uint64_t conn);
void link_close(struct link_core *l, uint64_t conn);
void link_hold(struct link_core *l, uint64_t conn, struct outgoing *o); /* the frames of o, which it takes */
/* Stages the news of call c's end for its owner. */
void link_done(struct link_core *l, const struct call *c, Karst__Bus__Outcome outcome);
void link_done_reply(struct link_core *l, const struct call *c, struct message *m, const Karst__Bus__Reply *reply);
void link_outgoing_hold(struct outgoing *o, const struct ref *r); /* o of a LINK_HOLD takes over the count */
void link_free_call(struct link_core *l, struct call *c);
/* Sends o (NULL: nothing but the head) with this head. */
void link_send(struct link_core *l, uint64_t conn, struct outgoing *o, const Karst__Bus__Batch *head);
uint32_t link_silent_ms(const struct link_core *l);

#endif
