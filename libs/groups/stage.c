/* stage.c - records on their way to the log, and the answers that wait for them.
 *
 *   scratch (one event) --stage_commit--> queue of the partition --FLUSH--> flight (one batch) --APPENDED--> finished
 *
 * At most one batch of a partition is in flight: a later one can never be in the log without the earlier. What piles up
 * meanwhile leaves together. When an append fails, or nobody knows how it ended, everything after it is void too: the
 * partition is loaded again. */
#include "libs/groups/core.h"

#include <stdlib.h>

#include "kafka/apis.h"
#include "kafka/delete_groups.h"
#include "kafka/join_group.h"
#include "kafka/leave_group.h"
#include "kafka/offset_commit.h"
#include "kafka/offset_delete.h"

static size_t staged_size(const struct staged *b)
{
    return b->bytes.size + b->record_count * RECORD_OVERHEAD;
}

void stage_start(struct groups *c)
{
    c->scratch.bytes.size = 0;
    c->scratch.record_count = 0;
    c->scratch_broken = false;
}

bool stage_fits(const struct groups *c)
{
    return !c->scratch_broken && staged_size(&c->scratch) <= c->config.batch_max_bytes;
}

void staged_free(struct staged *b)
{
    buf_free(&b->bytes);
    free(b->records);
    free(b->ops);
    free(b);
}

void stage_free_finished(struct groups *c)
{
    struct staged *b, *next;
    DL_FOREACH_SAFE(c->finished, b, next)
    {
        DL_DELETE(c->finished, b);
        staged_free(b);
    }
    struct deferred *d, *next_answer;
    LL_FOREACH_SAFE(c->answered, d, next_answer)
    {
        arena_free(d->arena);
        free(d);
    }
    c->answered = NULL;
}

/* ---- answers that wait ---- */

struct deferred *deferred_new(const struct groups_request *q)
{
    struct deferred *d = xcalloc(1, sizeof *d);
    d->request = q->id;
    d->api_key = q->api_key;
    d->api_version = q->api_version;
    d->arena = arena_new(0);
    d->waiting = 1;
    return d;
}

void deferred_done(struct groups *c, struct deferred *d)
{
    ASSERT(d->waiting > 0);
    if (--d->waiting > 0)
        return;
    struct groups_action *a = action_add(c, GROUPS_ACTION_REPLY);
    a->request = d->request;
    a->api_key = d->api_key;
    a->api_version = d->api_version;
    a->response = d->response;
    LL_PREPEND(c->answered, d);
}

static void commit_set_error(struct kafka_offset_commit_response *r, int16_t error)
{
    for (int32_t t = 0; t < r->topics_count; t++)
        for (int32_t p = 0; p < r->topics[t].partitions_count; p++)
            if (r->topics[t].partitions[p].error_code == KERR_NONE)
                r->topics[t].partitions[p].error_code = error;
}

static void delete_set_error(struct kafka_delete_groups_response *r, int32_t part, int16_t error)
{
    for (int32_t i = 0; i < r->results_count; i++)
        if ((part == -1 || part == i) && r->results[i].error_code == KERR_NONE)
            r->results[i].error_code = error;
}

static void join_set_error(struct deferred *d, int16_t error)
{
    struct kafka_join_group_response *r = d->response;
    kafka_join_group_response_init(r);
    r->error_code = error;
    r->protocol_name = d->api_version >= 7 ? SLICE_NULL : SLICE_EMPTY;
}

void deferred_set_error(struct deferred *d, int32_t part, enum kafka_error error)
{
    int16_t code = (int16_t)error;
    switch (d->api_key) {
    case KAFKA_API_JOIN_GROUP: join_set_error(d, code); return;
    case KAFKA_API_OFFSET_COMMIT: commit_set_error(d->response, code); return;
    case KAFKA_API_DELETE_GROUPS: delete_set_error(d->response, part, code); return;
    case KAFKA_API_LEAVE_GROUP: {
        struct kafka_leave_group_response *r = d->response;
        r->error_code = code;
        r->members_count = 0;
        return;
    }
    case KAFKA_API_OFFSET_DELETE: {
        struct kafka_offset_delete_response *r = d->response;
        r->error_code = code;
        r->topics_count = 0;
        return;
    }
    default: BUG("an answer of this API never waits for the log");
    }
}

/* ---- the queue ---- */

static struct staged *queue_new(struct shard *s)
{
    struct staged *b = xcalloc(1, sizeof *b);
    DL_APPEND(s->queue, b);
    return b;
}

static struct staged *queue_last(const struct shard *s)
{
    return s->queue != NULL ? s->queue->prev : NULL; /* utlist: the head's prev is the tail */
}

static void copy_record(struct staged *to, const struct staged *from, const struct staged_record *r)
{
    if (to->record_count == to->record_capacity) {
        to->record_capacity = to->record_capacity ? 2 * to->record_capacity : 8;
        to->records = xrealloc(to->records, to->record_capacity * sizeof to->records[0]);
    }
    struct staged_record *out = &to->records[to->record_count++];
    *out = *r;
    out->key_at = to->bytes.size;
    buf_append(&to->bytes, from->bytes.data + r->key_at, r->key_size);
    out->value_at = to->bytes.size;
    if (r->value_size > 0)
        buf_append(&to->bytes, from->bytes.data + r->value_at, r->value_size);
}

static struct staged *move_scratch(struct shard *s)
{
    const struct staged *from = &s->core->scratch;
    size_t max = s->core->config.batch_max_bytes;
    struct staged *to = queue_last(s);
    if (to == NULL || (staged_size(to) + staged_size(from) > max && to->record_count > 0))
        to = queue_new(s);
    for (size_t i = 0; i < from->record_count; i++) {
        const struct staged_record *r = &from->records[i];
        if (to->record_count > 0 && staged_size(to) + r->key_size + r->value_size + RECORD_OVERHEAD > max)
            to = queue_new(s);
        copy_record(to, from, r);
    }
    stage_start(s->core);
    return to;
}

static void op_add(struct staged *b, const struct staged_op *op)
{
    if (b->op_count == b->op_capacity) {
        b->op_capacity = b->op_capacity ? 2 * b->op_capacity : 8;
        b->ops = xrealloc(b->ops, b->op_capacity * sizeof b->ops[0]);
    }
    b->ops[b->op_count++] = *op;
    if (op->deferred != NULL)
        op->deferred->waiting++;
}

void stage_commit(struct shard *s, const struct staged_op *op)
{
    struct staged *b = s->core->scratch.record_count > 0 ? move_scratch(s) : queue_last(s);
    if (b == NULL)
        b = s->flight;
    if (op == NULL || b == NULL)
        return; /* with nothing on its way there is nothing to wait for */
    op_add(b, op);
}

/* ---- to the log and back ---- */

static void flush_shard(struct shard *s)
{
    struct groups *c = s->core;
    struct staged *b = s->queue;
    DL_DELETE(s->queue, b);
    b->append = ++c->next_number;
    s->flight = b;
    struct groups_record *records = arena_calloc(c->arena, b->record_count + 1, sizeof *records);
    for (size_t i = 0; i < b->record_count; i++) {
        const struct staged_record *r = &b->records[i];
        records[i].producer_id = -1;
        records[i].producer_epoch = -1;
        records[i].key = slice_make(b->bytes.data + r->key_at, r->key_size);
        records[i].value = r->tombstone ? SLICE_NULL : slice_make(b->bytes.data + r->value_at, r->value_size);
    }
    struct groups_action *a = action_add(c, GROUPS_ACTION_APPEND);
    a->partition = s->partition;
    a->epoch = s->epoch;
    a->append = b->append;
    a->records = records;
    a->record_count = b->record_count;
    a->timestamp_ms = c->now.wall_ms;
}

void stage_flush(struct groups *c)
{
    for (struct shard *s = c->shards; s != NULL; s = s->hh.next)
        if (s->state == SHARD_ACTIVE && s->flight == NULL && s->queue != NULL)
            flush_shard(s);
}

static void op_committed(struct shard *s, const struct staged_op *op)
{
    if (op->deferred != NULL)
        deferred_done(s->core, op->deferred);
    if (slice_is_null(op->group))
        return;
    struct group *g = group_find(s, op->group);
    if (g != NULL && g->state == GROUP_COMPLETING && g->sync_number == op->sync_number)
        sync_committed(g);
}

static void finish(struct shard *s, struct staged *b)
{
    for (size_t i = 0; i < b->op_count; i++)
        if (!slice_is_null(b->ops[i].group))
            disown(s->core, &b->ops[i].group);
    DL_APPEND(s->core->finished, b);
}

/* How a failed append looks to a client: as in Kafka. */
static enum kafka_error error_of_append(enum kafka_error error)
{
    switch ((int)error) {
    case KERR_NOT_LEADER_OR_FOLLOWER:
    case KERR_KAFKA_STORAGE_ERROR:
    case KERR_FENCED_LEADER_EPOCH:
    case KERR_NOT_COORDINATOR: return KERR_NOT_COORDINATOR;
    case KERR_MESSAGE_TOO_LARGE:
    case KERR_RECORD_LIST_TOO_LARGE:
    case KERR_INVALID_RECORD:
    case KERR_CORRUPT_MESSAGE: return KERR_UNKNOWN_SERVER_ERROR;
    default: return KERR_COORDINATOR_NOT_AVAILABLE;
    }
}

void stage_appended(struct shard *s, uint64_t append, enum kafka_error error)
{
    ASSERT(s->flight != NULL && s->flight->append == append);
    if (error != KERR_NONE) {
        shard_reload(s, error_of_append(error));
        return;
    }
    struct staged *b = TAKE_PTR(s->flight);
    for (size_t i = 0; i < b->record_count; i++) {
        const struct staged_record *r = &b->records[i];
        load_own_record(s, slice_make(b->bytes.data + r->key_at, r->key_size),
                        r->tombstone ? SLICE_NULL : slice_make(b->bytes.data + r->value_at, r->value_size));
    }
    for (size_t i = 0; i < b->op_count; i++)
        op_committed(s, &b->ops[i]);
    finish(s, b);
}

static void fail(struct shard *s, struct staged *b, enum kafka_error error)
{
    for (size_t i = 0; i < b->op_count; i++) {
        if (b->ops[i].deferred == NULL)
            continue;
        deferred_set_error(b->ops[i].deferred, b->ops[i].part, error);
        deferred_done(s->core, b->ops[i].deferred);
    }
    finish(s, b);
}

void stage_fail(struct shard *s, enum kafka_error error)
{
    if (s->flight != NULL)
        fail(s, TAKE_PTR(s->flight), error);
    while (s->queue != NULL) {
        struct staged *b = s->queue;
        DL_DELETE(s->queue, b);
        fail(s, b, error);
    }
}
