/* txns.c - producer ids out of blocks. The next block is asked for when a tenth of the present one is left, so that
 * nobody waits.
 *
 * InitProducerId, versions 0-5 (6 is not stable in Kafka 4.3.1). Requests with a transactional id are checked as Kafka
 * checks them and then refused with UNSUPPORTED_VERSION, which clients report as fatal: transactions are not served by
 * this release. */
#include "libs/txns/txns.h"

#include <stdlib.h>

#include "kafka/init_producer_id.h"
#include "libs/base/kafka_error.h"

enum { NO_PRODUCER = -1, NO_EPOCH = -1, BLOCK_LOW_PARTS = 10 };

struct txns {
    struct txns_config config;
    int64_t next_id, end_id;     /* of the present block */
    int64_t spare_id, spare_end; /* of the next one, when it is here */
    int64_t low;                 /* ask for more when fewer are left */
    bool asking;
    uint64_t waiting[TXNS_WAITING_MAX]; /* requests, oldest first */
    size_t waiting_count;
    struct txns_action *actions;
    size_t action_count, action_capacity;
};

struct txns *txns_new(const struct txns_config *config)
{
    struct txns *t = xcalloc(1, sizeof *t);
    t->config = *config;
    return t;
}

struct txns *txns_free(struct txns *t)
{
    if (t != NULL)
        free(t->actions);
    free(t);
    return NULL;
}

static struct txns_action *action_add(struct txns *t, enum txns_action_kind kind)
{
    if (t->action_count == t->action_capacity) {
        t->action_capacity = t->action_capacity ? 2 * t->action_capacity : 16;
        t->actions = xrealloc(t->actions, t->action_capacity * sizeof t->actions[0]);
    }
    struct txns_action *a = &t->actions[t->action_count++];
    *a = (struct txns_action){.kind = kind, .producer_id = NO_PRODUCER, .producer_epoch = NO_EPOCH};
    return a;
}

static void refuse(struct txns *t, uint64_t request, enum kafka_error error)
{
    struct txns_action *a = action_add(t, TXNS_ACTION_REPLY);
    a->request = request;
    a->error = (int16_t)error;
}

static bool id_take(struct txns *t, int64_t *ret_id)
{
    if (t->next_id == t->end_id) {
        t->next_id = t->spare_id;
        t->end_id = t->spare_end;
        t->spare_id = t->spare_end = 0;
    }
    if (t->next_id == t->end_id)
        return false;
    *ret_id = t->next_id++;
    return true;
}

static void ask_when_low(struct txns *t)
{
    bool low = t->end_id - t->next_id <= t->low && t->spare_id == t->spare_end;
    if (t->asking || (!low && t->waiting_count == 0))
        return;
    t->asking = true;
    action_add(t, TXNS_ACTION_ALLOCATE);
}

static void give(struct txns *t, uint64_t request, int64_t id)
{
    struct txns_action *a = action_add(t, TXNS_ACTION_REPLY);
    a->request = request;
    a->producer_id = id;
    a->producer_epoch = 0;
}

static enum kafka_error validate(const struct txns *t, const struct kafka_init_producer_id_request *in)
{
    if ((in->producer_id == NO_PRODUCER) != (in->producer_epoch == NO_EPOCH))
        return KERR_INVALID_REQUEST;
    if (slice_is_null(in->transactional_id))
        return KERR_NONE; /* the timeout is not looked at */
    if (in->transactional_id.size == 0)
        return KERR_INVALID_REQUEST;
    if (in->transaction_timeout_ms <= 0 || in->transaction_timeout_ms > t->config.transaction_max_timeout_ms)
        return KERR_INVALID_TRANSACTION_TIMEOUT;
    return KERR_UNSUPPORTED_VERSION;
}

static void on_init(struct txns *t, const struct txns_event *e)
{
    enum kafka_error error = validate(t, e->message);
    int64_t id;
    if (error != KERR_NONE)
        refuse(t, e->request, error);
    else if (id_take(t, &id))
        give(t, e->request, id);
    else if (t->waiting_count == TXNS_WAITING_MAX)
        refuse(t, e->request, KERR_COORDINATOR_LOAD_IN_PROGRESS);
    else
        t->waiting[t->waiting_count++] = e->request;
    ask_when_low(t);
}

static void serve_waiting(struct txns *t)
{
    size_t served = 0;
    int64_t id;
    while (served < t->waiting_count && id_take(t, &id))
        give(t, t->waiting[served++], id);
    t->waiting_count -= served;
    memmove(t->waiting, t->waiting + served, t->waiting_count * sizeof t->waiting[0]);
}

static void on_failed(struct txns *t)
{
    t->asking = false;
    for (size_t i = 0; i < t->waiting_count; i++)
        refuse(t, t->waiting[i], KERR_COORDINATOR_LOAD_IN_PROGRESS);
    t->waiting_count = 0;
}

/* A block that makes no sense counts as no answer. */
static void on_block(struct txns *t, const struct txns_event *e)
{
    if (e->first_id < 0 || e->id_count <= 0 || e->first_id > INT64_MAX - e->id_count) {
        on_failed(t);
        return;
    }
    t->asking = false;
    t->spare_id = e->first_id;
    t->spare_end = e->first_id + e->id_count;
    t->low = e->id_count / BLOCK_LOW_PARTS;
    serve_waiting(t);
    ask_when_low(t);
}

void txns_step(struct txns *t, const struct txns_event *e, struct txns_out *ret_out)
{
    t->action_count = 0;
    switch (e->kind) {
    case TXNS_EVENT_INIT_PRODUCER_ID: on_init(t, e); break;
    case TXNS_EVENT_BLOCK: on_block(t, e); break;
    case TXNS_EVENT_BLOCK_FAILED: on_failed(t); break;
    }
    *ret_out = (struct txns_out){.actions = t->actions, .count = t->action_count};
}
