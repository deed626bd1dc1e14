/* call.h - a call as its two ends see it: what the caller hands over and gets back, and the rpc that a handler answers.
 *
 * No I/O: bus.h (sockets) and the simulator serve the same handlers. Threading: the owning loop's thread only. */
#ifndef KARST_BUS_CALL_H
#define KARST_BUS_CALL_H

#include "bus.pb-c.h"
#include "libs/base/arena.h"
#include "libs/bus/ref.h"

struct rpc;

/* What a caller may do when a call of a kind ended as OUTCOME_UNKNOWN or OUTCOME_TIMEOUT, that is, executed or not. The
 * bus itself never sends a call twice. */
enum bus_retry {
    BUS_RETRY_PURE,  /* nothing changes by it: ask again */
    BUS_RETRY_KEYED, /* its content tells a second one from the first: ask again */
    BUS_RETRY_NEVER, /* do not; only the client may */
};

/* api_key: of a Kafka request; else ignored. A kind that is none: BUS_RETRY_NEVER. */
enum bus_retry bus_kind_retry(Karst__Bus__Call__BodyCase kind, int32_t api_key);

/* ---- the caller's end ---- */

struct bus_request {
    Karst__Bus__Call__BodyCase kind;
    const void *body;           /* the protobuf-c message of that kind; packed before bus_call returns */
    const struct ref *payloads; /* bus_call takes counts of its own */
    size_t payload_count;
    const Karst__Bus__Caller *caller; /* NULL: the process itself */
    uint32_t timeout_ms;              /* 1 .. 2^31-1 */
    /* 0: timeout_ms. Else it ends as OUTCOME_NOT_SENT when it has not left within so many ms; once it has, its answer
     * is waited for until timeout_ms. */
    uint32_t send_ms;
};

/* What came back: valid until the done function returns; payloads may be kept with ref_retain. */
struct bus_result {
    Karst__Bus__Outcome outcome;
    bool nobody; /* OUTCOME_NOT_SENT, and when last tried nobody listened there: the process that would is gone */
    const Karst__Bus__Reply *reply; /* NULL unless OUTCOME_OK */
    const struct ref *payloads;
    size_t payload_count;
};
typedef void bus_done_fn(void *ctx, const struct bus_result *result);

/* ---- the handler's end ---- */

typedef void bus_handler_fn(void *ctx, struct rpc *rpc);

/* Everything of an rpc lives until it is answered. */
const Karst__Bus__Call *rpc_call(const struct rpc *r);
struct arena *rpc_arena(struct rpc *r);
size_t rpc_payload_count(const struct rpc *r);
const struct ref *rpc_payload(const struct rpc *r, size_t i); /* to keep it longer: ref_retain */
const Karst__Bus__Peer *rpc_from(const struct rpc *r);
const Karst__Bus__Caller *rpc_caller(const struct rpc *r); /* never NULL */
uint64_t rpc_deadline_ms(const struct rpc *r);             /* in loop_now_ms of this process */
/* Runs when the caller cancels or its link ends while the rpc is unanswered; the rpc must still be answered (the reply
 * goes nowhere). */
void rpc_on_gone(struct rpc *r, bus_handler_fn *fn, void *ctx);

/* body is packed before this returns. metadata_offset > 0: the caller waits until its image is there. Takes counts of
 * the payloads. */
void rpc_reply(struct rpc *r, Karst__Bus__Reply__BodyCase kind, const void *body, const struct ref *payloads,
               size_t payload_count, int64_t metadata_offset);
void rpc_fail(struct rpc *r, Karst__Bus__Outcome outcome);
/* Can the caller take files at all? For whoever would have to open one first. */
NODISCARD bool rpc_shares_files(const struct rpc *r);
/* May payloads of the reply, given in this turn, be slices of f? Its descriptor is with the caller then. False: copy.
 */
NODISCARD bool rpc_share_file(struct rpc *r, struct ref_file *f);

#endif
