/* append.c - bus request Append: checks each partition's batches and stages them; the turn's end writes and answers.
 *
 *   received --staged--> LOOP_COMMIT: written --flush.messages reached--> waits for the flush --> answered
 *      |                 ^
 *      +-- prepare.c: compressed anew on the slow pool, or behind such a one
 *
 * acks 0 and 1 and -1 are the same to a node that keeps the only replica; beside others acks=all waits for them
 * (acks.c). Never runs twice for one call: the bus sees to that. */
#include "services/storage/replication.h"
#include <stdlib.h>

enum { POOL_PARTS = 4, POOL_CALLS = 256 }; /* what of finished calls is kept for the next ones: some 200 KiB */

struct append_call {
    struct append_call *next;
    struct storage *storage;
    struct rpc *rpc;
    size_t count, waiting; /* parts; parts that wait: to be compressed anew, for a flush, for other replicas */
    int32_t acks;
    uint64_t due_ms; /* of those that wait for other replicas */
    bool listed;     /* in storage->appends: answered at the turn's end at the earliest */
    struct append_part parts[];
};

static enum kafka_error refuse(struct append_part *p, enum kafka_error error, const char *message)
{
    p->error = error;
    p->message = message;
    return error;
}

/* Internal topics belong to their coordinators: only the owner that our image names may append, and nobody to the rest
 * in its name. */
static enum kafka_error check_owner(const struct storage *s, const struct replica *r,
                                    const Karst__Bus__CoordinatorOwner *owner, struct append_part *p)
{
    if (owner == NULL && !r->internal)
        return KERR_NONE;
    if (owner == NULL)
        return refuse(p, KERR_INVALID_TOPIC_EXCEPTION, "Clients may not write to an internal topic.");
    const struct image_owner *o = r->internal ? image_owner(s->image, r->key.topic_id, r->key.partition) : NULL;
    if (o == NULL || o->role != owner->role || o->id != owner->id || o->incarnation != owner->incarnation ||
        o->coordinator_epoch != owner->coordinator_epoch)
        return refuse(p, KERR_NOT_COORDINATOR, "Another coordinator owns the partition.");
    return KERR_NONE;
}

static struct uuid topic_of(const Karst__Bus__AppendPartition *request)
{
    struct uuid id = UUID_ZERO;
    if (request->topic_id.len == sizeof id.b)
        memcpy(id.b, request->topic_id.data, sizeof id.b);
    return id;
}

/* ---- memory: calls come and go with every turn ---- */

static struct append_call *call_new(struct storage *s, struct rpc *rpc, size_t count)
{
    struct append_call *c = s->append_pool;
    if (count <= POOL_PARTS && c != NULL) {
        s->append_pool = c->next;
        s->append_pooled--;
    } else {
        c = xmalloc(sizeof *c + MAX(count, (size_t)POOL_PARTS) * sizeof c->parts[0]);
    }
    *c = (struct append_call){.storage = s, .rpc = rpc, .count = count};
    memset(c->parts, 0, count * sizeof c->parts[0]);
    return c;
}

static void call_free(struct append_call *c)
{
    struct storage *s = c->storage;
    for (size_t i = 0; i < c->count; i++) {
        free(c->parts[i].append.record_errors);
        buf_free(&c->parts[i].made);
    }
    if (c->count > POOL_PARTS || s->append_pooled == POOL_CALLS) {
        free(c);
        return;
    }
    c->next = s->append_pool;
    s->append_pool = c;
    s->append_pooled++;
}

void append_free(struct storage *s)
{
    struct append_call *c, *next;
    LL_FOREACH_SAFE(s->append_pool, c, next)
    free(c);
    s->append_pool = NULL;
}

static void stage(struct append_part *p)
{
    refuse(p, log_stage(p->replica->log, &p->append), NULL);
    p->message = p->append.message;
    p->staged = p->error == KERR_NONE;
    if (p->error == KERR_KAFKA_STORAGE_ERROR && log_failed(p->replica->log) == 0)
        room_is_missing(p->replica); /* for the segment that it begins */
    replica_touch(p->replica);
}

static void take_part(struct storage *s, struct append_part *p, size_t i, const Karst__Bus__AppendRequest *q)
{
    struct rpc *rpc = p->call->rpc;
    struct uuid id = topic_of(q->partitions[i]);
    struct replica *r = replica_find(s, id, q->partitions[i]->partition);
    enum kafka_error error = r != NULL
                                 ? replica_check_leader(s, r, -1)
                                 : replica_missing(s, image_topic_by_id(s->image, id), q->partitions[i]->partition);
    p->log_start = -1;
    p->append.base_offset = p->append.next_offset = p->append.append_time_ms = -1;
    if (r != NULL && r->known)
        p->replica = r;
    if (error == KERR_NONE && q->partitions[i]->leader_epoch > r->leader_epoch)
        error = KERR_NOT_LEADER_OR_FOLLOWER;
    if (error == KERR_NONE && (q->acks < -1 || q->acks > 1))
        error = KERR_INVALID_REQUIRED_ACKS;
    if (error == KERR_NONE && r->core != NULL)
        error = replica_may_append(r->core, q->acks);
    if (error != KERR_NONE) {
        refuse(p, error, NULL);
        return;
    }
    if (check_owner(s, r, q->owner, p) != KERR_NONE)
        return;
    struct slice bytes = ref_bytes(rpc_payload(rpc, i)); /* the rpc keeps them until it is answered */
    p->log_start = log_start(r->log);
    p->append = (struct log_append){
        .bytes = bytes.data,
        .size = bytes.size,
        .origin = q->owner != NULL ? LOG_FROM_COORDINATOR : LOG_FROM_CLIENT,
        .leader_epoch = r->leader_epoch,
        .now_wall_ms = loop_wall_ms(s->loop),
    };
    if (prepare_is_wanted(p)) {
        p->call->waiting++;
        prepare_put(p);
    } else {
        stage(p);
    }
}

/* Answered, or looked at again, at the end of this turn. */
static void list_call(struct append_call *c)
{
    struct storage *s = c->storage;
    if (c->listed)
        return;
    c->listed = true;
    LL_PREPEND(s->appends, c);
    if (!s->commit_comes)
        loop_again(s->loop);
}

void append_on_prepared(struct append_part *p)
{
    struct append_call *c = p->call;
    struct replica *r = p->replica;
    if (p->error == KERR_NONE)
        refuse(p, replica_check_leader(c->storage, r, -1), NULL);
    if (p->error == KERR_NONE) {
        p->append.leader_epoch = r->leader_epoch;
        p->append.now_wall_ms = loop_wall_ms(c->storage->loop);
        stage(p);
    }
    c->waiting--;
    list_call(c);
}

void append_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const Karst__Bus__AppendRequest *q = rpc_call(rpc)->append;
    if (q->n_partitions != rpc_payload_count(rpc)) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
        return;
    }
    if (s->image == NULL || s->draining) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_OVERLOADED);
        return;
    }
    struct append_call *c = call_new(s, rpc, q->n_partitions);
    c->acks = q->acks;
    c->due_ms = loop_now_ms(s->loop) + q->timeout_ms;
    for (size_t i = 0; i < c->count; i++) {
        c->parts[i].call = c;
        take_part(s, &c->parts[i], i, q);
    }
    list_call(c);
}

/* ---- answers ---- */

/* *left: how many the answer still has room for. */
static void fill_record_errors(struct arena *a, const struct log_append *from, size_t *left,
                               Karst__Bus__AppendResult *to)
{
    to->n_record_errors = MIN((size_t)from->record_error_count, *left);
    if (to->n_record_errors == 0)
        return;
    *left -= to->n_record_errors;
    to->record_errors = arena_alloc(a, to->n_record_errors * sizeof *to->record_errors);
    for (size_t i = 0; i < to->n_record_errors; i++) {
        Karst__Bus__RecordError *e = arena_alloc(a, sizeof *e);
        karst__bus__record_error__init(e);
        e->batch_index = from->record_errors[i].index;
        e->message = arena_str(a, slice_str(from->record_errors[i].message));
        to->record_errors[i] = e;
    }
}

static void fill_result(const struct append_part *p, struct arena *a, size_t *record_errors_left,
                        Karst__Bus__AppendResult *to)
{
    karst__bus__append_result__init(to);
    to->error = p->error;
    to->base_offset = p->error == KERR_NONE ? p->append.base_offset : -1;
    to->next_offset = p->error == KERR_NONE ? p->append.next_offset : -1;
    to->log_append_time_ms = p->error == KERR_NONE ? p->append.append_time_ms : -1;
    to->log_start_offset = p->log_start;
    to->leader_id = to->leader_epoch = -1;
    if (p->message != NULL)
        to->error_message = arena_str(a, slice_str(p->message));
    if (p->error == KERR_NOT_LEADER_OR_FOLLOWER && p->replica != NULL) {
        to->leader_id = p->replica->leader;
        to->leader_epoch = p->replica->leader_epoch;
    }
    fill_record_errors(a, &p->append, record_errors_left, to);
}

static void answer(struct append_call *c)
{
    enum { FEW = 16, RECORD_ERRORS_MAX = 10000 };
    size_t record_errors_left = RECORD_ERRORS_MAX;
    Karst__Bus__AppendResult few[FEW], *few_list[FEW];
    Karst__Bus__AppendResult *results = few, **list = few_list;
    Karst__Bus__AppendReply reply = KARST__BUS__APPEND_REPLY__INIT;
    /* The arena is made only for what needs it: an error, or many partitions. */
    bool need_arena = c->count > FEW;
    for (size_t i = 0; i < c->count; i++)
        need_arena = need_arena || c->parts[i].error != KERR_NONE;
    struct arena *a = need_arena ? rpc_arena(c->rpc) : NULL;
    if (c->count > FEW) {
        results = arena_alloc(a, c->count * sizeof *results);
        list = arena_alloc(a, c->count * sizeof *list);
    }
    for (size_t i = 0; i < c->count; i++) {
        fill_result(&c->parts[i], a, &record_errors_left, &results[i]);
        list[i] = &results[i];
    }
    reply.n_results = c->count;
    reply.results = list;
    rpc_reply(c->rpc, KARST__BUS__REPLY__BODY_APPEND, &reply, NULL, 0, 0);
    call_free(c);
}

/* After the commit: what is behind the log end was not written. */
static void settle(struct append_part *p)
{
    if (!p->staged)
        return;
    p->staged = false;
    struct replica *r = p->replica;
    struct log *l = r->log;
    if (!log_append_written(l, &p->append)) {
        refuse(p, KERR_KAFKA_STORAGE_ERROR, "The log could not be written.");
        return;
    }
    p->log_start = log_start(l);
    if (r->core != NULL && p->call->acks == -1) {
        if (p->append.next_offset > log_high_watermark(l))
            acks_wait(p);
        else
            refuse(p, replica_acknowledge(r->core), NULL);
        return;
    }
    if (log_unflushed_messages(l) < log_config(l)->flush_messages || p->append.next_offset <= log_flushed(l))
        return;
    if (log_failed(l) != 0) { /* written, but no flush will come: an index could not be written */
        refuse(p, KERR_KAFKA_STORAGE_ERROR, "The records could not be flushed.");
        return;
    }
    LL_PREPEND2(p->replica->waiting_flush, p, next_waiting);
    p->call->waiting++;
}

void append_waits_for_acks(struct append_call *c)
{
    c->waiting++;
}

void append_on_acks(struct append_part *p, enum kafka_error error)
{
    refuse(p, error, NULL);
    if (--p->call->waiting == 0 && !p->call->listed)
        answer(p->call);
}

uint64_t append_due_ms(const struct append_call *c)
{
    return c->due_ms;
}

void append_answer_turn(struct storage *s)
{
    struct append_call *c, *next;
    LL_FOREACH_SAFE(s->appends, c, next)
    {
        c->listed = false;
        for (size_t i = 0; i < c->count; i++)
            settle(&c->parts[i]);
        if (c->waiting == 0)
            answer(c);
    }
    s->appends = NULL;
}

void append_on_flushed(struct replica *r, int err)
{
    struct append_part *p, *next, *waiting = r->waiting_flush;
    r->waiting_flush = NULL;
    LL_FOREACH_SAFE2(waiting, p, next, next_waiting)
    {
        if (err == 0 && p->append.next_offset > log_flushed(r->log)) {
            LL_PREPEND2(r->waiting_flush, p, next_waiting);
            continue;
        }
        if (err < 0)
            refuse(p, KERR_KAFKA_STORAGE_ERROR, "The records could not be flushed.");
        if (--p->call->waiting == 0 && !p->call->listed)
            answer(p->call);
    }
}
