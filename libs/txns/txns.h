/* txns.h - the transaction coordinator, as a core without I/O. In this release: producer ids, for InitProducerId
 * without a transactional id.
 *
 * Ids come in blocks that the controller gives out (AllocateProducerIds) and never gives twice, so that nothing has to
 * be remembered: a process that dies loses the rest of its block, as a Kafka broker does. The next block is asked for
 * before the present one is used up.
 *
 * I1  no producer id is given out twice.
 * I2  a request is answered exactly once, possibly in a later step.
 * I3  at most TXNS_WAITING_MAX requests wait for a block; further ones are answered COORDINATOR_LOAD_IN_PROGRESS.
 *
 * Threading: one thread. */
#ifndef KARST_TXNS_TXNS_H
#define KARST_TXNS_TXNS_H

#include "libs/base/base.h"

struct txns;
struct kafka_init_producer_id_request;

enum { TXNS_WAITING_MAX = 4096 };

struct txns_config {
    int32_t transaction_max_timeout_ms; /* transaction.max.timeout.ms */
};

enum txns_event_kind {
    TXNS_EVENT_INIT_PRODUCER_ID, /* request, api_version, message */
    TXNS_EVENT_BLOCK,            /* first_id, id_count: the controller's answer to TXNS_ACTION_ALLOCATE */
    TXNS_EVENT_BLOCK_FAILED,     /* no answer, or an error: who waits is answered COORDINATOR_LOAD_IN_PROGRESS */
};

struct txns_event {
    enum txns_event_kind kind;
    uint64_t request; /* the adapter's name for it */
    int16_t api_version;
    const struct kafka_init_producer_id_request *message;
    int64_t first_id;
    int32_t id_count;
};

enum txns_action_kind {
    TXNS_ACTION_REPLY,    /* request, error, producer_id, producer_epoch */
    TXNS_ACTION_ALLOCATE, /* ask the controller for a block; one at a time */
};

struct txns_action {
    enum txns_action_kind kind;
    uint64_t request;
    int16_t error; /* Kafka error code */
    int64_t producer_id;
    int16_t producer_epoch;
};

/* Valid until the next step. */
struct txns_out {
    const struct txns_action *actions;
    size_t count;
};

NODISCARD struct txns *txns_new(const struct txns_config *config);
struct txns *txns_free(struct txns *t); /* takes NULL; returns NULL */
void txns_step(struct txns *t, const struct txns_event *event, struct txns_out *ret_out);

#endif
