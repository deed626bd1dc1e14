/* delete_records.c - Kafka request DeleteRecords (21): the log start moves; the files follow with the next retention
 * check. The new start is in the checkpoint before the answer leaves, so that a crash does not bring deleted records
 * back; and every replica that is alive has it, so that none of them does when it leads.
 *
 *   received --log starts durable--> waits for followers --their Reads say so--> answered
 *                                                        --its time is over--> answered, with REQUEST_TIMED_OUT */
#include "kafka/delete_records.h"
#include "services/storage/replication.h"

typedef struct kafka_delete_records_request request;
typedef struct kafka_delete_records_request_delete_records_partition question;
typedef struct kafka_delete_records_response_delete_records_topic_result topic_answer;
typedef struct kafka_delete_records_response_delete_records_partition_result answer;

enum { TO_HIGH_WATERMARK = -1 };

/* moved: of the directories, those whose log starts have moved. */
static enum kafka_error delete_one(struct storage *s, struct slice topic, int32_t partition, int64_t offset,
                                   bool *moved, int64_t *ret_low)
{
    struct replica *r;
    enum kafka_error error = replica_look_up(s, topic, partition, -1, &r);
    if (error != KERR_NONE)
        return error;
    if (r->internal)
        return KERR_INVALID_TOPIC_EXCEPTION;
    if (log_config(r->log)->cleanup_compact && !log_config(r->log)->cleanup_delete)
        return KERR_POLICY_VIOLATION;
    if (offset == TO_HIGH_WATERMARK)
        offset = log_high_watermark(r->log);
    int64_t before = log_start(r->log);
    int err = log_delete_before(r->log, offset);
    if (err == -ERANGE)
        return KERR_OFFSET_OUT_OF_RANGE;
    if (err < 0) {
        directory_failed(r->dir, err);
        return KERR_KAFKA_STORAGE_ERROR;
    }
    *ret_low = log_start(r->log);
    moved[r->dir - s->dirs] = true;
    if (before != *ret_low)
        read_wake(r);
    return KERR_NONE;
}

/* ---- the answer, when the starts are on the disk ---- */

struct deletion {                 /* in the rpc's arena */
    struct deletion *prev, *next; /* of storage->deletions, while it waits for followers */
    struct loop_timer *timer;
    struct storage *storage;
    struct rpc *rpc;
    struct kafka_delete_records_response response;
    size_t left; /* directories that are still being written */
    struct dir_wait {
        struct starts_wait wait;
        struct deletion *deletion;
    } waits[];
};

static void refuse_those_of(struct deletion *x, const struct directory *d)
{
    for (int32_t t = 0; t < x->response.topics_count; t++) {
        topic_answer *to = &x->response.topics[t];
        for (int32_t p = 0; p < to->partitions_count; p++) {
            const struct replica *r = replica_by_name(x->storage, to->name, to->partitions[p].partition_index);
            if (r != NULL && r->dir == d)
                to->partitions[p].error_code = KERR_KAFKA_STORAGE_ERROR;
        }
    }
}

/* Where the replicas are; false: some are not there yet. over: that is an error then. */
static bool settle_row(struct storage *s, struct slice topic, answer *row, bool over)
{
    struct replica *r;
    if (row->error_code != KERR_NONE)
        return true;
    enum kafka_error error = replica_look_up(s, topic, row->partition_index, -1, &r);
    int64_t wanted = row->low_watermark, low = wanted;
    if (error == KERR_NONE && r->core != NULL)
        low = replica_low_watermark(r->core, log_start(r->log));
    if (error == KERR_NONE && low < wanted && !over)
        return false;
    if (error == KERR_NONE && low < wanted)
        error = KERR_REQUEST_TIMED_OUT;
    row->error_code = (int16_t)error;
    row->low_watermark = error == KERR_NONE || error == KERR_REQUEST_TIMED_OUT ? low : -1;
    return true;
}

static bool settle(struct deletion *x, bool over)
{
    bool all = true;
    for (int32_t t = 0; t < x->response.topics_count; t++) {
        topic_answer *to = &x->response.topics[t];
        for (int32_t p = 0; p < to->partitions_count; p++)
            all = settle_row(x->storage, to->name, &to->partitions[p], over) && all;
    }
    return all;
}

static void unpark(struct deletion *x)
{
    DL_DELETE(x->storage->deletions, x);
    x->timer = loop_timer_stop(x->timer);
}

static void on_due(void *ctx)
{
    struct deletion *x = ctx;
    unpark(x);
    (void)settle(x, true);
    rpc_reply_kafka(x->rpc, &x->response, 0);
}

static void on_gone(void *ctx, struct rpc *rpc)
{
    unpark(ctx);
    rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
}

static void answer_or_park(struct deletion *x)
{
    struct storage *s = x->storage;
    uint64_t now = loop_now_ms(s->loop), due = rpc_deadline_ms(x->rpc);
    if (settle(x, s->draining || due <= now)) {
        rpc_reply_kafka(x->rpc, &x->response, 0);
        return;
    }
    DL_APPEND(s->deletions, x);
    x->timer = loop_timer_start(s->loop, due - now, 0, on_due, x);
    rpc_on_gone(x->rpc, on_gone, x);
}

void deletions_look(struct storage *s, bool over)
{
    struct deletion *x, *next;
    DL_FOREACH_SAFE(s->deletions, x, next)
    {
        if (!settle(x, over))
            continue;
        unpark(x);
        rpc_reply_kafka(x->rpc, &x->response, 0);
    }
}

static void on_durable(struct starts_wait *w, int err)
{
    struct deletion *x = CONTAINER_OF(w, struct dir_wait, wait)->deletion;
    /* On a full disk: this is how room is made; the checkpoint follows with its timer, as Kafka's always does. */
    if (err < 0 && err != -ENOSPC)
        refuse_those_of(x, w->dir);
    if (--x->left == 0)
        answer_or_park(x);
}

static void answer_when_durable(struct deletion *x, const bool *moved)
{
    struct storage *s = x->storage;
    x->left = 1; /* so that none of them answers before all are asked */
    for (size_t i = 0; i < s->dir_count; i++) {
        if (!moved[i])
            continue;
        x->left++;
        x->waits[i] = (struct dir_wait){.wait = {.dir = &s->dirs[i], .done = on_durable}, .deletion = x};
        checkpoints_make_starts_durable(&x->waits[i].wait);
    }
    if (--x->left == 0)
        answer_or_park(x);
}

void delete_records_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    if (s->draining) { /* the logs may be closed already, and a checkpoint of those that are left would forget them */
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_OVERLOADED);
        return;
    }
    turn_commit(s); /* what is staged in this turn is before the high watermark that is meant */
    struct arena *a = rpc_arena(rpc);
    bool *moved = arena_calloc(a, s->dir_count, sizeof *moved);
    struct deletion *x = arena_alloc(a, sizeof *x + s->dir_count * sizeof x->waits[0]);
    x->storage = s;
    x->rpc = rpc;
    x->timer = NULL;
    kafka_delete_records_response_init(&x->response);
    x->response.topics = arena_calloc(a, (size_t)q->topics_count + 1, sizeof *x->response.topics);
    x->response.topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_answer *to = &x->response.topics[t];
        to->name = q->topics[t].name;
        to->partitions_count = q->topics[t].partitions_count;
        to->partitions = arena_calloc(a, (size_t)to->partitions_count + 1, sizeof *to->partitions);
        for (int32_t p = 0; p < to->partitions_count; p++) {
            const question *from = &q->topics[t].partitions[p];
            answer *row = &to->partitions[p];
            row->partition_index = from->partition_index;
            row->low_watermark = -1;
            row->error_code =
                (int16_t)delete_one(s, to->name, from->partition_index, from->offset, moved, &row->low_watermark);
        }
    }
    answer_when_durable(x, moved);
}
