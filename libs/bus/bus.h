/* bus.h - calls between Karst's processes, over ZeroMQ. The adapter around the link core (link.h), which has no I/O.
 *
 * I1  a call that bus_call took ends exactly once: its done function runs once, never from inside bus_call.
 * I2  a call is executed at most once, and only by the incarnation that it was sent to.
 * I3  an rpc that a handler was given is answered exactly once, by rpc_reply or rpc_fail; until then it may be kept (parked).
 * I4  what is queued for a peer is bounded by its credit in calls and bytes; beyond that a call ends as OUTCOME_NOT_SENT at its deadline.
 *
 * Peers are named by role and id; their addresses come from bus_set_peer (the metadata image, or the configuration for controllers).
 * One bus a worker. Threading: the loop's thread only. */
#ifndef KARST_BUS_BUS_H
#define KARST_BUS_BUS_H

#include "bus.pb-c.h"
#include "libs/base/arena.h"
#include "libs/bus/ref.h"
#include "libs/loop/loop.h"

struct bus;
struct rpc;

struct bus_options {
    Karst__Bus__Role role;
    int32_t id;
    uint64_t incarnation;     /* random, one a life */
    const char *cluster_id;   /* 22 characters */
    const char *address;      /* where to listen: "ipc:///path/storage-1", "tcp://127.0.0.1:9300" (lane is added); NULL: only calls */
    uint32_t credit_calls;    /* per peer and lane, in flight towards us; 0: the default 4096 */
    uint64_t credit_bytes;    /* 0: the default 64 MiB */
    uint32_t heartbeat_ms;    /* 0: the default 500; a link without a sign of life for 6 of them ends */
};

/* 0, or -errno of binding the address (-EADDRINUSE: a twin is alive). */
NODISCARD int bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret_bus);
struct bus *bus_free(struct bus *b); /* every call still in flight ends as OUTCOME_UNKNOWN first; takes NULL, returns NULL */

/* Names a peer's address and life; incarnation 0: not known, take who answers. A changed incarnation or address ends the old link. NULL
 * address: the peer is gone. */
void bus_set_peer(struct bus *b, Karst__Bus__Role role, int32_t id, uint64_t incarnation, const char *address);

/* The offset that our image has reached: goes into every Batch, and lets batches in that waited for it. */
void bus_set_metadata_offset(struct bus *b, int64_t offset);

/* ---- calling ---- */

struct bus_request {
    Karst__Bus__Call__BodyCase kind;
    const void *body;              /* the protobuf-c message of that kind; packed before bus_call returns */
    const struct ref *payloads;    /* bus_call takes counts of its own */
    size_t payload_count;
    const Karst__Bus__Caller *caller; /* NULL: the process itself */
    uint32_t timeout_ms;           /* 1 .. 2^31-1 */
};

/* What came back: valid until the done function returns; payloads may be kept with ref_retain. */
struct bus_result {
    Karst__Bus__Outcome outcome;
    const Karst__Bus__Reply *reply; /* NULL unless OUTCOME_OK */
    const struct ref *payloads;
    size_t payload_count;
};
typedef void bus_done_fn(void *ctx, const struct bus_result *result);

/* Queues the call for the end of this phase; the lane is that of its kind. Returns its id, never 0. */
uint64_t bus_call(struct bus *b, Karst__Bus__Role role, int32_t id, const struct bus_request *request, bus_done_fn *done, void *ctx);
/* The caller has lost interest: done runs with OUTCOME_CANCELLED in this turn, and the peer is told. An id that has ended is ignored. */
void bus_cancel(struct bus *b, uint64_t call_id);

/* ---- serving ---- */

typedef void bus_handler_fn(void *ctx, struct rpc *rpc);

/* Serves a kind. Kafka requests are served by API key: bus_serve_kafka. An unserved kind is answered OUTCOME_UNSUPPORTED. */
void bus_serve(struct bus *b, Karst__Bus__Call__BodyCase kind, bus_handler_fn *handler, void *ctx);
void bus_serve_kafka(struct bus *b, int16_t api_key, bus_handler_fn *handler, void *ctx);

/* Everything of an rpc lives until it is answered. */
const Karst__Bus__Call *rpc_call(const struct rpc *r);
struct arena *rpc_arena(struct rpc *r);
size_t rpc_payload_count(const struct rpc *r);
const struct ref *rpc_payload(const struct rpc *r, size_t i); /* to keep it longer: ref_retain */
/* The same bytes to write into (a storage worker patches offsets in place); NULL when they are shared with somebody. Only before the reply. */
uint8_t *rpc_payload_own(struct rpc *r, size_t i);
const Karst__Bus__Peer *rpc_from(const struct rpc *r);
const Karst__Bus__Caller *rpc_caller(const struct rpc *r);    /* never NULL */
uint64_t rpc_deadline_ms(const struct rpc *r);                /* in loop_now_ms of this process */
/* Runs when the caller cancels or its link ends while the rpc is unanswered; the rpc must still be answered (the reply goes nowhere). */
void rpc_on_gone(struct rpc *r, bus_handler_fn *fn, void *ctx);

/* body is packed before this returns. metadata_offset > 0: the caller waits until its image is there. Takes counts of the payloads. */
void rpc_reply(struct rpc *r, Karst__Bus__Reply__BodyCase kind, const void *body, const struct ref *payloads, size_t payload_count,
               int64_t metadata_offset);
void rpc_fail(struct rpc *r, Karst__Bus__Outcome outcome);

/* ---- Kafka's messages on the bus (kafka.c) ---- */

struct wire_type;
/* Encodes msg at WIRE_VERSION_BUS as the one payload of a KafkaRequest and calls. */
uint64_t bus_call_kafka(struct bus *b, Karst__Bus__Role role, int32_t id, int16_t api_key, int16_t api_version, const void *msg,
                        const Karst__Bus__Caller *caller, uint32_t timeout_ms, bus_done_fn *done, void *ctx);
/* The request of an rpc, decoded into its arena; NULL, with the rpc answered OUTCOME_MALFORMED, when it is not readable. */
NODISCARD const void *rpc_kafka_request(struct rpc *r);
void rpc_reply_kafka(struct rpc *r, const void *response, int64_t metadata_offset);
/* The response of a result, decoded into arena; its slices point into the payload, which must be retained as long. -EBADMSG. */
NODISCARD int bus_kafka_response(const struct bus_result *result, int16_t api_key, struct arena *arena, void *ret_msg);

#endif
