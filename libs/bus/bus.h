/* bus.h - calls between Karst's processes, over ZeroMQ or shared memory. The adapter around the link core (link.h),
 * which has no I/O.
 *
 * I1  a call that bus_call took ends exactly once: its done function runs once, never from inside bus_call.
 * I2  a call is executed at most once, and only by the incarnation that it was sent to.
 * I3  an rpc that a handler was given is answered exactly once, by rpc_reply or rpc_fail; until then it may be kept.
 * I4  what is in flight to a peer is bounded by its credit in calls and bytes, and what waits for credit or for a link
 * by as much again: a call beyond that ends as OUTCOME_NOT_SENT at once, a call that waits too long at its deadline.
 *
 * Peers are named by role and id; their addresses come from bus_set_peer (the metadata image, or the configuration for
 * controllers). One bus a worker. Threading: the loop's thread only. */
#ifndef KARST_BUS_BUS_H
#define KARST_BUS_BUS_H

#include "libs/bus/call.h"
#include "libs/loop/loop.h"

struct bus;
struct trust; /* trust.h */

struct bus_options {
    Karst__Bus__Role role;
    int32_t id;
    uint64_t incarnation;   /* random, one a life */
    const char *cluster_id; /* 22 characters */
    /* Where to listen, on the lanes of the kinds that the role serves: "ipc:///path/storage-1", "tcp://10.0.0.1:9300"
     * (the lane is added). For peers of this host and for others: one, both, or NULL: it only calls. */
    const char *address, *tcp_address;
    /* The keys that tcp connections are encrypted and known by, ours and those of all hosts; the caller's until
     * bus_free. NULL: tcp is refused, or with unencrypted open to everybody who reaches the port. */
    struct trust *trust;
    bool unencrypted;
    uint32_t credit_calls;      /* per peer and lane, in flight towards us; 0: the default 16384 */
    uint64_t credit_bytes;      /* 0: the default 128 MiB */
    uint32_t heartbeat_ms;      /* 0: the default 500; a link without a sign of life for 6 of them ends */
    uint64_t payload_max_bytes; /* of one payload that arrives, a longer one ends the connection; 0: 128 MiB */
    /* Links to peers of this kernel, at ipc addresses, go through shared memory (all lanes but control); a peer that
     * does not take part is called over ZeroMQ. */
    bool share;
};

/* 0, or -errno of binding an address (-EADDRINUSE: a twin is alive; -EPERM: tcp without trust). */
NODISCARD int bus_new(struct loop *loop, const struct bus_options *options, struct bus **ret_bus);
/* Ends every session: what is staged leaves, calls end as OUTCOME_UNKNOWN or OUTCOME_NOT_SENT before this returns, rpcs
 * are gone (their handlers still answer them, which goes nowhere). Afterwards nothing of the bus calls back. */
void bus_shutdown(struct bus *b);
/* bus_shutdown, if that was not called; rpcs that nobody answered are gone. Takes NULL, returns
 * NULL. */
struct bus *bus_free(struct bus *b);
/* Says goodbye to every peer: none sends a new call on its session, and calls of ours end as OUTCOME_NOT_SENT from here
 * on. */
void bus_goodbye(struct bus *b);

/* The arena that payloads of our calls lie in as REF_ARENA: memory sealed against shrinking, which the peers that we
 * call map for reading, where the bus shares; replies may then hold REF_FILEs. Before the first call; fd stays the
 * caller's, open until bus_free. id is never 0. */
void bus_set_arena(struct bus *b, int fd, uint64_t id, size_t size);

/* Names a peer's address and life; incarnation 0: not known, take who answers. A changed incarnation or address ends
 * the old link. NULL address: the peer is gone, and what waits for it ends as OUTCOME_NOT_SENT. */
void bus_set_peer(struct bus *b, Karst__Bus__Role role, int32_t id, uint64_t incarnation, const char *address);

/* The offset that our image has reached: goes into every Batch, and lets batches in that waited for it. */
void bus_set_metadata_offset(struct bus *b, int64_t offset);
/* The version of the bus that all of the cluster speak (image_bus_level): newer kinds end as OUTCOME_UNSUPPORTED. */
void bus_set_level(struct bus *b, uint32_t version);
uint32_t bus_level(const struct bus *b); /* the lowest that we speak, until one is set */

/* ---- calling ---- */

/* Since how many ms nothing has come from the peer on the lane of that kind, which carries all that it sends there in
 * order; a living one answers a heartbeat each half second. UINT64_MAX: no link is open. */
uint64_t bus_silence_ms(const struct bus *b, Karst__Bus__Role role, int32_t id, Karst__Bus__Call__BodyCase kind);

/* Queues the call for the end of this phase; the lane is that of its kind. Returns its id, never 0. */
uint64_t bus_call(struct bus *b, Karst__Bus__Role role, int32_t id, const struct bus_request *request,
                  bus_done_fn *done, void *ctx);
/* The caller has lost interest: done runs with OUTCOME_CANCELLED in this turn, and the peer is told. An id that has
 * ended is ignored. */
void bus_cancel(struct bus *b, uint64_t call_id);

/* ---- serving ---- */

/* Serves a kind. Kafka requests are served by API key: bus_serve_kafka. An unserved kind is answered
 * OUTCOME_UNSUPPORTED. */
void bus_serve(struct bus *b, Karst__Bus__Call__BodyCase kind, bus_handler_fn *handler, void *ctx);
void bus_serve_kafka(struct bus *b, int16_t api_key, bus_handler_fn *handler, void *ctx);

/* ---- Kafka's messages on the bus (kafka.c) ---- */

struct wire_type;
/* Encodes msg at WIRE_VERSION_BUS as the one payload of a KafkaRequest and calls. */
uint64_t bus_call_kafka(struct bus *b, Karst__Bus__Role role, int32_t id, int16_t api_key, int16_t api_version,
                        const void *msg, const Karst__Bus__Caller *caller, uint32_t timeout_ms, bus_done_fn *done,
                        void *ctx);
/* The request of an rpc, decoded into its arena; NULL, with the rpc answered OUTCOME_MALFORMED, when it is not
 * readable. */
NODISCARD const void *rpc_kafka_request(struct rpc *r);
void rpc_reply_kafka(struct rpc *r, const void *response, int64_t metadata_offset);
/* The response of a result, decoded into arena; its slices point into the payload, which must be retained as long.
 * -EBADMSG. */
NODISCARD int bus_kafka_response(const struct bus_result *result, int16_t api_key, struct arena *arena, void *ret_msg);

#endif
