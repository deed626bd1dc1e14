/* frontend.h - how the handler of a Kafka API is written. One file an API (or a small family):
 * services/frontend/api_NAME.c holds
 *
 *     static void handle(struct request *r)
 *     {
 *         const struct kafka_delete_groups_request *q = r->body;
 *         ... request_reply(r, &response);
 *     }
 *     const struct api_handler api_delete_groups = {.key = KAFKA_API_DELETE_GROUPS, .version_min = 0, .version_max = 2,
 *                                                   .handle = handle, .fail = fail};
 *
 * and one line X(delete_groups) in api_list.h. ApiVersions is generated from that table: what is not in it is not
 * advertised, and a request for it closes the connection, as Kafka does.
 *
 * Life of a request: the pipeline (libs/pipeline) has read the whole frame; the header is decoded, the version is in
 * the handler's range, the body is decoded into the request's arena; the image is the one of the arrival. The handler
 * ends it exactly once, at once or later, by request_reply, request_reply_error, request_reply_refs, request_finish or
 * request_close; r is invalid afterwards. One connection's requests run one at a time, as in Kafka (Produce overlaps
 * Produce, see .overlaps), so a handler needs to think of no other request of its client. When the client goes away r
 * stays valid, must still be ended, and the answer goes nowhere.
 *
 * Threading: the loop's thread. */
#ifndef KARST_FRONTEND_FRONTEND_H
#define KARST_FRONTEND_FRONTEND_H

#include "libs/base/arena.h"
#include "libs/base/kafka_error.h"
#include "libs/bus/bus.h"
#include "libs/wire/wire.h"

struct config;
struct frontend;
struct image;
struct request;

struct api_handler {
    int16_t key;                      /* "kafka/apis.h" */
    int16_t version_min, version_max; /* what works */
    int16_t listed_min;               /* ApiVersions says so instead of version_min when .listed_lower (Produce: 0) */
    bool listed_lower;
    bool at_controllers; /* a controller listener serves it, too (KIP-919); the others are for clients alone */
    bool overlaps;       /* may run while earlier requests of the same API on the same connection are not answered */
    void (*handle)(struct request *r);
    /* Answers the whole request with one error, in each of its entries as Kafka does: build the response,
     * request_reply. message may be NULL. Called by request_reply_error and by request_forward when the call fails.
     * NULL: the connection is closed. */
    void (*fail)(struct request *r, enum kafka_error error, const char *message);
    /* The error that stands for a service that cannot be reached or did not answer in time; KERR_NONE (0):
     * KERR_REQUEST_TIMED_OUT for both. Coordinator APIs say COORDINATOR_NOT_AVAILABLE / REQUEST_TIMED_OUT, partition
     * APIs NOT_LEADER_OR_FOLLOWER ... */
    enum kafka_error unreachable, timed_out;
};

struct request_client {
    const char *principal; /* "User:ANONYMOUS" */
    const char *address;   /* "127.0.0.1" */
    const char *listener;  /* "PLAINTEXT" */
    int32_t broker_id;     /* the broker that the connection stands for; -1: none */
    int32_t controller_id; /* the controller that it stands for, of a controller listener; -1: a client's listener */
    uint16_t port;         /* the listener's own port */
};

struct request {
    struct frontend *frontend;
    const struct api_handler *handler;
    const struct wire_api *api;
    int16_t version;
    int32_t correlation_id;
    struct slice client_id; /* null when the client sent none */
    const void *body;       /* struct kafka_X_request; its slices live as long as the request */
    struct arena *arena;    /* the request's; build the response in it */
    struct image *image;    /* of the arrival; never NULL; released with the request. For a later one: frontend_image */
    struct request_client client;
    uint64_t arrived_ms; /* loop_now_ms */
};

/* ---- ending a request ---- */

/* response: struct kafka_X_response of this API, encoded before this returns. A response that cannot be encoded at
 * r->version is a bug of the handler: logged, the connection is closed. */
void request_reply(struct request *r, const void *response);
/* handler->fail. message may be NULL. */
void request_reply_error(struct request *r, enum kafka_error error, const char *message);
/* The same as request_reply, but each `records` field that is not null stands for refs[i] in order of the fields:
 * field.size must be refs[i].size_bytes, field.data anything but NULL. Takes counts of its own. */
void request_reply_refs(struct request *r, const void *response, const struct ref *refs, size_t ref_count);
/* No answer at all (acks=0); the next request's answer comes next. */
void request_finish(struct request *r);
/* No answer, and the connection is closed once what was answered before has left. */
void request_close(struct request *r);

/* ---- what is known ---- */

struct config *frontend_config(const struct frontend *f); /* libs/config */
struct loop *frontend_loop(const struct frontend *f);
struct bus *frontend_bus(const struct frontend *f);
struct image *frontend_image(const struct frontend *f); /* the newest, borrowed for this turn; NULL before the first */
int32_t frontend_controller(const struct frontend *f);  /* id of the active controller on the bus */
const char *frontend_cluster_id(const struct frontend *f);

/* Where clients of r's listener find broker id: the advertised address. False when the image has no such live broker.
 * *ret_host lives as long as r. ret_rack may be NULL. */
bool request_broker_address(const struct request *r, int32_t broker_id, struct slice *ret_host, uint16_t *ret_port,
                            struct slice *ret_rack);
/* The same of one that is fenced, too: where it is when it comes back. */
bool request_fenced_address(const struct request *r, int32_t broker_id, struct slice *ret_host, uint16_t *ret_port,
                            struct slice *ret_rack);
/* Where the coordinator of a group is said to be whose partition leader leads: at that broker, unless it is at another
 * front end since less than five minutes: then at the one that has been at its own for longest. Each front end serves
 * any group, and librdkafka takes a new address of its coordinator only together with another id. */
int32_t request_coordinator_at(const struct request *r, int32_t leader);
/* A live broker for ControllerId: the connection's own when it lives, else the first; -1: none. */
int32_t request_any_broker(const struct request *r);
/* Has the client gone? Then work that only serves the answer may stop. */
bool request_is_gone(const struct request *r);
/* fn runs once when the client goes away while r is not ended; r must still be ended, then or later. */
void request_on_gone(struct request *r, void (*fn)(struct request *r, void *ctx), void *ctx);

/* ---- asking other services ---- */

enum { REQUEST_TIMEOUT_MS = 30000 }; /* when the Kafka request names none (request.timeout.ms of clients) */

/* The whole request goes to a service, as it is; its response is the answer. timeout_ms 0: REQUEST_TIMEOUT_MS. A
 * response that changed metadata waits until our image has it. on_response, if not NULL, runs before and may change the
 * response (in r->arena, slices live as long as r) and must end r itself. Failures: handler->fail with .unreachable or
 * .timed_out. */
typedef void request_response_fn(struct request *r, void *response);
void request_forward(struct request *r, Karst__Bus__Role role, int32_t id, uint32_t timeout_ms,
                     request_response_fn *on_response);

/* The same to the storage node of the broker that the connection stands for, or of any when it stands for none.
 * BROKER_NOT_AVAILABLE when there is none. */
void request_forward_to_broker(struct request *r);

/* One call among several, of any API: for requests that scatter over nodes, or that need another API (CreateTopics for
 * FindCoordinator). done runs exactly once, never from inside request_call, with KERR_NONE and the response (as above),
 * or with KERR_NOT_LEADER_OR_FOLLOWER  certainly not executed: not sent, refused, overloaded KERR_REQUEST_TIMED_OUT
 * executed or not: timeout, link lost KERR_UNSUPPORTED_VERSION     the service does not serve it
 *   KERR_UNKNOWN_SERVER_ERROR    an answer that cannot be read
 * and response NULL. r must not be ended while calls are in flight. */
typedef void request_call_fn(struct request *r, void *ctx, enum kafka_error error, void *response);
void request_call(struct request *r, Karst__Bus__Role role, int32_t id, int16_t api_key, int16_t api_version,
                  const void *message, uint32_t timeout_ms, request_call_fn *done, void *ctx);

/* Who asks, for calls made by hand. Lives as long as r. */
const Karst__Bus__Caller *request_caller(struct request *r);

/* ---- topics that create themselves ---- */

/* Kafka's AutoTopicCreationManager: asks the controller in the background for a topic with num.partitions and
 * default.replication.factor, or, for __consumer_offsets and __transaction_state, with the counts and configs that the
 * broker keys say. While a creation of that name is under way, and beyond 1000 of them, a further one is not started.
 * The caller answers its client "not there yet". */
void frontend_auto_create(struct frontend *f, struct slice topic);

/* ---- the table ---- */

size_t api_handler_count(void);
const struct api_handler *api_handler_at(size_t i);    /* by rising key */
const struct api_handler *api_handler_of(int16_t key); /* NULL: not served */

#endif
