/* main.c - karst-txn: the transaction coordinator; in this release it gives out producer ids.
 *
 * Started by   karst up, or anybody: karst-txn --config FILE --id N. Any number of them: each has blocks of ids of its
 * own. Peers        front ends call it with InitProducerId; it calls the controller for blocks (AllocateProducerIds).
 * Keeps        nothing on disk. In memory: the rest of its block of producer ids.
 * Signals      SIGTERM, SIGINT: who waits for a block is told to ask again, then goodbye; a second one: at once.
 * A crash      loses the rest of the block, as with a Kafka broker: its ids are never used. */
#include <stdlib.h>
#include <uthash.h>

#include "kafka/allocate_producer_ids.h"
#include "kafka/apis.h"
#include "kafka/init_producer_id.h"
#include "libs/base/kafka_error.h"
#include "libs/base/log.h"
#include "libs/config/config.h"
#include "libs/metadata/image.h"
#include "libs/service/service.h"
#include "libs/txns/txns.h"

enum { ALLOCATE_TIMEOUT_MS = 5000, RETRY_MS = 50 };

struct request {
    UT_hash_handle hh;
    uint64_t id;
    struct rpc *rpc;
};

struct txn_service {
    struct service *service;
    struct txns *core;
    struct request *requests; /* by id: those that the core has not answered */
    uint64_t next_request;
    struct loop_timer *retry;
    int32_t asked; /* the controller that was asked */
    int tries;     /* of this allocation */
    bool draining;
};

static void step(struct txn_service *t, const struct txns_event *event);
static void allocate(struct txn_service *t);

/* ---- answers to clients ---- */

static void reply(struct txn_service *t, const struct txns_action *a)
{
    struct request *r;
    HASH_FIND(hh, t->requests, &a->request, sizeof a->request, r);
    ASSERT(r != NULL); /* the core answers what it was given, once */
    struct kafka_init_producer_id_response response;
    kafka_init_producer_id_response_init(&response);
    response.error_code = a->error;
    response.producer_id = a->producer_id;
    response.producer_epoch = a->producer_epoch;
    rpc_reply_kafka(r->rpc, &response, 0);
    HASH_DEL(t->requests, r);
    free(r);
}

static void on_init_producer_id(void *ctx, struct rpc *rpc)
{
    struct txn_service *t = ctx;
    const struct kafka_init_producer_id_request *message = rpc_kafka_request(rpc);
    if (message == NULL)
        return; /* answered as malformed */
    struct request *r = xcalloc(1, sizeof *r);
    r->id = ++t->next_request;
    r->rpc = rpc;
    HASH_ADD(hh, t->requests, id, sizeof r->id, r);
    step(t, &(struct txns_event){.kind = TXNS_EVENT_INIT_PRODUCER_ID,
                                 .request = r->id,
                                 .api_version = (int16_t)rpc_call(rpc)->kafka->api_version,
                                 .message = message});
}

/* ---- blocks of ids ---- */

static void on_retry(void *ctx)
{
    struct txn_service *t = ctx;
    t->retry = loop_timer_stop(t->retry);
    allocate(t);
}

/* Another controller may lead by now. After ALLOCATE_TIMEOUT_MS of tries, who waits is told to come again. */
static void failed(struct txn_service *t, const char *why)
{
    service_controller_failed(t->service, t->asked);
    if (!t->draining && ++t->tries < ALLOCATE_TIMEOUT_MS / RETRY_MS) {
        t->retry = loop_timer_start(service_loop(t->service), RETRY_MS, 0, on_retry, t);
        return;
    }
    log_warn("no block of producer ids from the controller: %s", why);
    step(t, &(struct txns_event){.kind = TXNS_EVENT_BLOCK_FAILED});
}

static void on_block(void *ctx, const struct bus_result *result)
{
    struct txn_service *t = ctx;
    if (t->draining)
        return; /* who waited has his answer */
    struct arena *arena = arena_new(0);
    struct kafka_allocate_producer_ids_response response;
    bool answered = result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK &&
                    bus_kafka_response(result, KAFKA_API_ALLOCATE_PRODUCER_IDS, arena, &response) == 0;
    arena_free(arena);
    if (!answered)
        failed(t, "no answer");
    else if (response.error_code != KERR_NONE)
        failed(t, kafka_error_name(response.error_code));
    else
        step(t, &(struct txns_event){.kind = TXNS_EVENT_BLOCK,
                                     .first_id = response.producer_id_start,
                                     .id_count = response.producer_id_len});
}

static void allocate(struct txn_service *t)
{
    if (t->draining)
        return;
    struct kafka_allocate_producer_ids_request request;
    kafka_allocate_producer_ids_request_init(&request);
    request.broker_id = service_id(t->service);
    request.broker_epoch = service_epoch(t->service);
    t->asked = service_controller(t->service);
    bus_call_kafka(service_bus(t->service), KARST__BUS__ROLE__ROLE_CONTROLLER, t->asked,
                   KAFKA_API_ALLOCATE_PRODUCER_IDS, 0, &request, NULL, ALLOCATE_TIMEOUT_MS, on_block, t);
}

static void step(struct txn_service *t, const struct txns_event *event)
{
    struct txns_out out;
    txns_step(t->core, event, &out);
    for (size_t i = 0; i < out.count; i++) {
        const struct txns_action *a = &out.actions[i];
        switch (a->kind) {
        case TXNS_ACTION_REPLY: reply(t, a); break;
        case TXNS_ACTION_ALLOCATE:
            t->tries = 0;
            allocate(t);
            break;
        }
    }
}

/* ---- the process ---- */

static void on_drain(void *ctx)
{
    struct txn_service *t = ctx;
    t->draining = true;
    t->retry = loop_timer_stop(t->retry);
    step(t, &(struct txns_event){.kind = TXNS_EVENT_BLOCK_FAILED});
    service_drained(t->service);
}

int main(int argc, char **argv)
{
    struct txn_service t = {0};
    struct service_options options = {.role = KARST__BUS__ROLE__ROLE_TXN, .ctx = &t, .on_drain = on_drain};
    int status = service_open(argc, argv, &options, &t.service);
    if (status != 0)
        return status;
    struct txns_config config = {.transaction_max_timeout_ms =
                                     config_int(service_config(t.service), "transaction.max.timeout.ms")};
    t.core = txns_new(&config);
    bus_serve_kafka(service_bus(t.service), KAFKA_API_INIT_PRODUCER_ID, on_init_producer_id, &t);
    service_join(t.service);
    status = service_run(t.service);
    t.draining = true;
    t.retry = loop_timer_stop(t.retry);
    t.service = service_close(t.service);
    t.core = txns_free(t.core);
    return status;
}
