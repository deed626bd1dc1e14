/* isr.c - what leaders want changed of their ISRs, told to the controller (AlterPartition, KIP-497): one call at a time
 * with all that there is. A call that fails is sent again until it is answered; the core ends what a newer image has
 * overtaken. */
#include "kafka/alter_partition.h"
#include "kafka/apis.h"
#include "services/storage/replication.h"
#include <stdlib.h>

enum { VERSION = 3, TIMEOUT_MS = 10000, AGAIN_MS = 50 };

typedef struct kafka_alter_partition_request_topic_data topic_request;
typedef struct kafka_alter_partition_request_partition_data partition_request;
typedef struct kafka_alter_partition_request_broker_state member_request;
typedef struct kafka_alter_partition_response_partition_data partition_answer;

struct isr_change {
    struct isr_change *prev, *next; /* of storage->isr_changes */
    struct replica *replica;
    uint64_t id, sent_id; /* sent_id 0: not in the call under way */
    int32_t leader_epoch, partition_epoch;
    struct replica_member *isr;
    int32_t isr_count;
};

void isr_forget(struct replica *r)
{
    struct isr_change *c = TAKE_PTR(r->isr_change);
    if (c == NULL)
        return;
    DL_DELETE(r->storage->isr_changes, c);
    free(c->isr);
    free(c);
}

void isr_ask(struct replica *r, const struct replica_action *a)
{
    struct storage *s = r->storage;
    isr_forget(r);
    struct isr_change *c = xcalloc(1, sizeof *c);
    c->replica = r;
    c->id = a->id;
    c->leader_epoch = a->leader_epoch;
    c->partition_epoch = a->partition_epoch;
    c->isr_count = a->isr_count;
    c->isr = xcalloc((size_t)a->isr_count, sizeof *c->isr);
    memcpy(c->isr, a->isr, (size_t)a->isr_count * sizeof *c->isr);
    r->isr_change = c;
    DL_APPEND(s->isr_changes, c);
    loop_again(s->loop);
}

/* ---- the answer ---- */

static void again_later(struct storage *s);

static void take_partition(struct storage *s, struct uuid topic_id, const partition_answer *from)
{
    struct replica *r = replica_find(s, topic_id, from->partition_index);
    struct isr_change *c = r != NULL ? r->isr_change : NULL;
    if (c == NULL || c->sent_id == 0)
        return;
    const struct replication_answer answer = {.id = c->sent_id,
                                              .error = from->error_code,
                                              .leader_epoch = from->leader_epoch,
                                              .partition_epoch = from->partition_epoch,
                                              .isr = from->isr,
                                              .isr_count = from->isr_count};
    if (answer.error == KERR_NONE && s->isr_changed++ == 0)
        log_info("%s-%d: %d replicas in sync", r->topic, r->key.partition, from->isr_count);
    isr_forget(r); /* the core may ask for the next one now */
    replication_altered(r, &answer);
    if (r->isr_change != NULL && answer.error != KERR_NONE)
        again_later(s);
}

static int16_t take_answer(struct storage *s, const struct bus_result *result)
{
    struct kafka_alter_partition_response r;
    struct arena *a = arena_new(0);
    int16_t error = KERR_UNKNOWN_SERVER_ERROR;
    s->isr_changed = 0;
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK &&
        bus_kafka_response(result, KAFKA_API_ALTER_PARTITION, a, &r) == 0) {
        error = r.error_code;
        for (int32_t t = 0; error == KERR_NONE && t < r.topics_count; t++)
            for (int32_t p = 0; p < r.topics[t].partitions_count; p++)
                take_partition(s, r.topics[t].topic_id, &r.topics[t].partitions[p]);
    }
    if (error == KERR_UNKNOWN_SERVER_ERROR || error == KERR_NOT_CONTROLLER)
        service_controller_failed(s->service, service_controller(s->service));
    if (s->isr_changed > 1)
        log_info("and %zu other partitions have another ISR", s->isr_changed - 1);
    arena_free(a);
    return error;
}

static void on_again(void *ctx)
{
    struct storage *s = ctx;
    s->isr_timer = loop_timer_stop(s->isr_timer);
    loop_again(s->loop);
}

static void again_later(struct storage *s)
{
    if (s->isr_timer == NULL)
        s->isr_timer = loop_timer_start(s->loop, AGAIN_MS, 0, on_again, s);
}

static void on_answer(void *ctx, const struct bus_result *result)
{
    struct storage *s = ctx;
    struct isr_change *c;
    s->isr_asking = false;
    if (s->drained)
        return;
    if (take_answer(s, result) != KERR_NONE)
        again_later(s);
    DL_FOREACH (s->isr_changes, c)
        c->sent_id = 0;
    loop_again(s->loop);
}

/* ---- the call ---- */

static void fill(const struct storage *s, struct isr_change *c, struct arena *a, topic_request *topic)
{
    partition_request *p = arena_calloc(a, 1, sizeof *p);
    topic->topic_id = c->replica->key.topic_id;
    topic->partitions = p;
    topic->partitions_count = 1;
    p->partition_index = c->replica->key.partition;
    p->leader_epoch = c->leader_epoch;
    p->partition_epoch = c->partition_epoch;
    p->new_isr_with_epochs_count = c->isr_count;
    p->new_isr_with_epochs = arena_calloc(a, (size_t)c->isr_count, sizeof *p->new_isr_with_epochs);
    for (int32_t i = 0; i < c->isr_count; i++) {
        member_request *to = &p->new_isr_with_epochs[i];
        to->broker_id = c->isr[i].id;
        to->broker_epoch = c->isr[i].id == service_id(s->service) ? service_epoch(s->service) : c->isr[i].broker_epoch;
    }
    c->sent_id = c->id;
}

void isr_turn(void *ctx)
{
    struct storage *s = ctx;
    struct isr_change *c;
    if (s->isr_changes == NULL || s->isr_asking || s->isr_timer != NULL || s->drained || !service_is_ready(s->service))
        return;
    struct arena *a = arena_new(0);
    struct kafka_alter_partition_request q;
    int32_t count = 0, i = 0;
    DL_COUNT(s->isr_changes, c, count);
    kafka_alter_partition_request_init(&q);
    q.broker_id = service_id(s->service);
    q.broker_epoch = service_epoch(s->service);
    q.topics = arena_calloc(a, (size_t)count, sizeof *q.topics);
    q.topics_count = count;
    DL_FOREACH (s->isr_changes, c)
        fill(s, c, a, &q.topics[i++]);
    s->isr_asking = true;
    bus_call_kafka(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, service_controller(s->service), KAFKA_API_ALTER_PARTITION,
                   VERSION, &q, NULL, TIMEOUT_MS, on_answer, s);
    arena_free(a);
}

void isr_free(struct storage *s)
{
    s->isr_timer = loop_timer_stop(s->isr_timer);
}
