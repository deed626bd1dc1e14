/* append.c - the core's records into the log: one batch, acks -1, fenced by our coordinator epoch. The batch looks as
 * Kafka's coordinator writes it: no producer, but base sequence 0 (records.md). Sent once: an outcome that is not known
 * ends as an error, and the core reads the partition again. */
#include <stdlib.h>

#include "libs/base/kafka_error.h"
#include "libs/base/log.h"
#include "libs/records/records.h"
#include "services/group/group.h"

struct append {
    struct append *prev, *next; /* of g->ended */
    struct group_service *g;
    int32_t partition;
    uint64_t append;
    int error;
};

/* Told to the core in the next turn: we are inside a step. */
static void end_later(struct append *a, int error)
{
    a->error = error;
    DL_APPEND(a->g->ended, a);
    loop_again(a->g->loop);
}

static void tell(struct append *a)
{
    if (a->error != KERR_NONE)
        log_warn("append to __consumer_offsets-%d: %s; reading the partition again", a->partition,
                 kafka_error_name(a->error));
    group_step(a->g,
               &(struct groups_event){
                   .kind = GROUPS_EVENT_APPENDED, .partition = a->partition, .append = a->append, .error = a->error});
    free(a);
}

void append_tell_ended(struct group_service *g)
{
    struct append *a;
    while ((a = g->ended) != NULL) {
        DL_DELETE(g->ended, a);
        tell(a);
    }
}

static void on_done(void *ctx, const struct bus_result *result)
{
    struct append *a = ctx;
    const Karst__Bus__AppendReply *reply = NULL;
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK)
        reply = result->reply->append;
    /* Even what was certainly not sent is an end: later records rest on these. */
    a->error = reply != NULL && reply->n_results == 1 ? reply->results[0]->error : KERR_REQUEST_TIMED_OUT;
    tell(a);
}

static struct ref build_batch(const struct group_service *g, const struct groups_action *action)
{
    struct buf bytes = {0};
    struct batch_builder b;
    struct batch_options options = BATCH_OPTIONS;
    options.base_sequence = 0;
    options.codec = g->codec;
    batch_begin(&b, &bytes, &options);
    for (size_t i = 0; i < action->record_count; i++)
        batch_add(&b, action->timestamp_ms, action->records[i].key, action->records[i].value, NULL, 0);
    if (batch_end(&b) != 0)
        BUG("a batch of our own cannot be built");
    return ref_take(bytes.data, bytes.size);
}

void append_start(struct group_service *g, const struct groups_action *action)
{
    struct append *a = xcalloc(1, sizeof *a);
    a->g = g;
    a->partition = action->partition;
    a->append = action->append;
    int32_t leader, leader_epoch;
    if (!group_leader(g, action->partition, &leader, &leader_epoch)) {
        end_later(a, KERR_LEADER_NOT_AVAILABLE);
        return;
    }
    Karst__Bus__CoordinatorOwner owner = KARST__BUS__COORDINATOR_OWNER__INIT;
    owner.role = KARST__BUS__ROLE__ROLE_GROUP;
    owner.id = service_id(g->service);
    owner.incarnation = service_incarnation(g->service);
    owner.coordinator_epoch = action->epoch;
    Karst__Bus__AppendPartition partition = KARST__BUS__APPEND_PARTITION__INIT;
    partition.topic_id = (ProtobufCBinaryData){.len = sizeof g->topic_id.b, .data = g->topic_id.b};
    partition.partition = action->partition;
    partition.leader_epoch = leader_epoch;
    Karst__Bus__AppendPartition *partitions[] = {&partition};
    Karst__Bus__AppendRequest body = KARST__BUS__APPEND_REQUEST__INIT;
    body.partitions = partitions;
    body.n_partitions = 1;
    body.acks = -1;
    body.timeout_ms = g->append_timeout_ms;
    body.owner = &owner;
    struct ref batch = build_batch(g, action);
    bus_call(g->bus, KARST__BUS__ROLE__ROLE_STORAGE, leader,
             &(struct bus_request){.kind = KARST__BUS__CALL__BODY_APPEND,
                                   .body = &body,
                                   .payloads = &batch,
                                   .payload_count = 1,
                                   .timeout_ms = g->append_timeout_ms},
             on_done, a);
    ref_release(&batch);
}

/* Calls that are still under way are ended by the bus before this. */
void append_free_all(struct group_service *g)
{
    struct append *a, *next;
    DL_FOREACH_SAFE(g->ended, a, next)
    {
        DL_DELETE(g->ended, a);
        free(a);
    }
}
