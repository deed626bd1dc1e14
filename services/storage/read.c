/* read.c - bus request Read: records by partition, parked while there are too few.
 *
 *   received --enough, an error, or max_wait_ms 0--> answered
 *            --> parked --records arrive, max_wait_ms is over, the caller is gone--> answered
 *
 * Kafka's rules (defaults.md, Fetch): partitions in the request's order share max_bytes; the first batch of the first
 * partition with data is given whole, whatever its size; an error of any partition ends the wait at once. */
#include "services/storage/storage.h"
#include <stdlib.h>

enum { REPLICA_CONSUMER = -1, NOT_COMPARED = -2 };
enum { SHARE_FROM_BYTES = 65536 }; /* below that passing a reference and sendfile cost more than the copies */
enum { GIVEN_MAX = 16384 };        /* partitions of one answer with records; the others' come with the next */

struct read_call {
    struct read_call *prev, *next; /* of storage->reads, when parked */
    struct storage *storage;
    struct rpc *rpc;
    struct loop_timer *timer;
    const Karst__Bus__ReadRequest *request;
    bool parked;
    size_t total; /* of all parts' bytes */
    size_t count;
    struct read_part parts[];
};

/* What one partition would give now. */
struct look {
    enum kafka_error error;
    int64_t high_watermark, last_stable, log_start, log_end;
    int32_t diverging_epoch;
    int64_t diverging_end;
    struct log_range range;
};

static int64_t upper_of(const struct read_call *c, const struct log *l)
{
    if (c->request->replica_id != REPLICA_CONSUMER)
        return log_end(l);
    return c->request->read_committed ? log_last_stable(l) : log_high_watermark(l);
}

/* KIP-595: does the reader's last epoch end before where it reads from? Then it must cut its log first. */
static enum kafka_error check_divergence(const struct read_part *p, struct look *k)
{
    int32_t epoch = p->request->last_fetched_epoch, found;
    int64_t end;
    if (epoch < 0)
        return KERR_NONE;
    log_end_of_epoch(p->replica->log, epoch, &found, &end);
    if (found < 0 || end < 0)
        return KERR_OFFSET_OUT_OF_RANGE;
    if (found < epoch || end < p->request->fetch_offset) {
        k->diverging_epoch = found;
        k->diverging_end = end;
    }
    return KERR_NONE;
}

static struct uuid topic_of(const Karst__Bus__ReadPartition *request)
{
    struct uuid id = UUID_ZERO;
    if (request->topic_id.len == sizeof id.b)
        memcpy(id.b, request->topic_id.data, sizeof id.b);
    return id;
}

static enum kafka_error missing(const struct read_part *p)
{
    const struct storage *s = p->call->storage;
    const struct image_topic *t = s->image != NULL ? image_topic_by_id(s->image, topic_of(p->request)) : NULL;
    return replica_missing(s, t, p->request->partition);
}

static void look_at(const struct read_part *p, size_t max_bytes, bool at_least_one, struct look *k)
{
    const struct read_call *c = p->call;
    const struct replica *r = p->replica;
    *k = (struct look){.high_watermark = -1,
                       .last_stable = -1,
                       .log_start = -1,
                       .log_end = -1,
                       .diverging_epoch = -1,
                       .diverging_end = -1};
    k->error = r != NULL ? replica_check_leader(c->storage, r, p->request->current_leader_epoch) : missing(p);
    if (k->error != KERR_NONE)
        return;
    struct log *l = r->log;
    k->error = check_divergence(p, k);
    if (k->error == KERR_NONE && k->diverging_epoch < 0)
        k->error = log_locate(l, p->request->fetch_offset, upper_of(c, l), max_bytes, at_least_one, &k->range);
    if (k->error == KERR_KAFKA_STORAGE_ERROR)
        directory_failed(c->storage, log_failed(l));
    if (k->error != KERR_NONE)
        return;
    k->high_watermark = log_high_watermark(l);
    k->last_stable = log_last_stable(l);
    k->log_start = log_start(l);
    k->log_end = log_end(l);
}

/* Does what was seen end the wait whatever the bytes? An unknown partition does not: Kafka waits out the time beside
 * it. */
static bool ends_wait(const struct read_part *p, const struct look *k)
{
    if (k->error != KERR_NONE)
        return k->error != KERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (k->diverging_epoch >= 0)
        return true;
    if (p->call->request->replica_id == REPLICA_CONSUMER)
        return false;
    return (p->request->known_high_watermark != NOT_COMPARED &&
            p->request->known_high_watermark != k->high_watermark) ||
           (p->request->known_log_start_offset != NOT_COMPARED && p->request->known_log_start_offset != k->log_start);
}

/* ---- answers ---- */

static void fill_result(const struct read_part *p, const struct look *k, Karst__Bus__ReadResult *to)
{
    karst__bus__read_result__init(to);
    to->error = k->error;
    to->high_watermark = k->high_watermark;
    to->last_stable_offset = k->last_stable;
    to->log_start_offset = k->log_start;
    to->log_end_offset = k->log_end;
    to->diverging_epoch = k->diverging_epoch;
    to->diverging_end_offset = k->diverging_end;
    to->payload = -1;
    to->leader_id = to->leader_epoch = -1;
    if ((k->error == KERR_NOT_LEADER_OR_FOLLOWER || k->error == KERR_FENCED_LEADER_EPOCH) && p->replica != NULL) {
        to->leader_id = p->replica->leader;
        to->leader_epoch = p->replica->leader_epoch;
    }
}

struct aborted_list {
    struct arena *arena;
    Karst__Bus__ReadResult *to;
    size_t capacity;
};

static void add_aborted(void *ctx, int64_t producer_id, int64_t first_offset)
{
    struct aborted_list *x = ctx;
    if (x->to->n_aborted == x->capacity) {
        size_t more = x->capacity ? 2 * x->capacity : 8;
        Karst__Bus__AbortedTransaction **list = arena_alloc(x->arena, more * sizeof *list);
        if (x->capacity)
            memcpy(list, x->to->aborted, x->capacity * sizeof *list);
        x->to->aborted = list;
        x->capacity = more;
    }
    Karst__Bus__AbortedTransaction *a = arena_alloc(x->arena, sizeof *a);
    karst__bus__aborted_transaction__init(a);
    a->producer_id = producer_id;
    a->first_offset = first_offset;
    x->to->aborted[x->to->n_aborted++] = a;
}

/* A large range goes to a reader on this machine as a slice of the segment's file. */
static bool share_records(const struct read_part *p, const struct look *k, struct ref *ret_ref)
{
    struct rpc *rpc = p->call->rpc;
    if (k->range.size_bytes < SHARE_FROM_BYTES || !rpc_shares_files(rpc))
        return false;
    struct ref_file *f = files_get(p->replica, &k->range);
    if (f == NULL || !rpc_share_file(rpc, f))
        return false;
    *ret_ref = ref_of_file(f, k->range.position, k->range.size_bytes);
    return true;
}

/* Copies the range into a payload of its own, if it is not shared. */
static enum kafka_error give_records(struct read_part *p, const struct look *k, struct ref *ret_ref)
{
    if (share_records(p, k, ret_ref))
        return KERR_NONE;
    uint8_t *bytes = xmalloc(k->range.size_bytes);
    int err = log_copy(p->replica->log, &k->range, bytes);
    if (err < 0) {
        free(bytes);
        if (log_failed(p->replica->log) != 0)
            directory_failed(p->call->storage, err);
        return KERR_KAFKA_STORAGE_ERROR;
    }
    *ret_ref = ref_take(bytes, k->range.size_bytes);
    return KERR_NONE;
}

static void call_free(struct read_call *c)
{
    struct storage *s = c->storage;
    if (c->parked) {
        for (size_t i = 0; i < c->count; i++) {
            if (c->parts[i].replica != NULL)
                DL_DELETE(c->parts[i].replica->readers, &c->parts[i]);
        }
        DL_DELETE(s->reads, c);
    }
    c->timer = loop_timer_stop(c->timer);
    free(c);
}

static void answer(struct read_call *c)
{
    struct arena *a = rpc_arena(c->rpc);
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    Karst__Bus__ReadResult *results = arena_alloc(a, c->count * sizeof *results + 1);
    struct ref *payloads =
        xcalloc(c->count + 1, sizeof *payloads); /* released when the reply has taken the arena away */
    size_t payload_count = 0, left = c->request->max_bytes;
    bool at_least_one = true;
    reply.results = arena_alloc(a, c->count * sizeof *reply.results + 1);
    reply.n_results = c->count;
    for (size_t i = 0; i < c->count; i++) {
        struct read_part *p = &c->parts[i];
        struct look k;
        look_at(p, MIN((size_t)p->request->max_bytes, left), at_least_one, &k);
        reply.results[i] = &results[i];
        if (k.error == KERR_NONE && k.range.size_bytes > 0) {
            k.error = give_records(p, &k, &payloads[payload_count]);
            fill_result(p, &k, &results[i]);
            if (k.error != KERR_NONE)
                continue;
            results[i].payload = (int32_t)payload_count++;
            at_least_one = false;
            left = payload_count < GIVEN_MAX ? left - MIN(left, k.range.size_bytes) : 0;
            if (c->request->read_committed) {
                struct aborted_list x = {a, &results[i], 0};
                log_aborted(p->replica->log, p->request->fetch_offset, &k.range, add_aborted, &x);
            }
        } else {
            fill_result(p, &k, &results[i]);
        }
    }
    rpc_reply(c->rpc, KARST__BUS__REPLY__BODY_READ, &reply, payloads, payload_count, 0);
    for (size_t i = 0; i < payload_count; i++)
        ref_release(&payloads[i]);
    free(payloads);
    call_free(c);
}

/* ---- parking ---- */

static void on_timeout(void *ctx)
{
    answer(ctx);
}

static void on_gone(void *ctx, struct rpc *rpc)
{
    struct read_call *c = ctx;
    rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    call_free(c);
}

static void park(struct read_call *c, uint64_t now)
{
    struct storage *s = c->storage;
    uint64_t wait = c->request->max_wait_ms, deadline = rpc_deadline_ms(c->rpc);
    if (deadline > now)
        wait = MIN(wait, deadline - now);
    c->parked = true;
    c->timer = loop_timer_start(s->loop, wait, 0, on_timeout, c);
    DL_APPEND(s->reads, c);
    for (size_t i = 0; i < c->count; i++) {
        if (c->parts[i].replica != NULL)
            DL_APPEND(c->parts[i].replica->readers, &c->parts[i]);
    }
    rpc_on_gone(c->rpc, on_gone, c);
}

/* Looks at one partition anew; true: the wait is over. */
static bool refresh(struct read_part *p)
{
    struct look k;
    look_at(p, p->request->max_bytes, true, &k);
    p->call->total = p->call->total - p->bytes + k.range.size_bytes;
    p->bytes = k.range.size_bytes;
    return ends_wait(p, &k) || (p->call->total > 0 && p->call->total >= p->call->request->min_bytes);
}

void read_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const Karst__Bus__ReadRequest *q = rpc_call(rpc)->read;
    struct read_call *c = xcalloc(1, sizeof *c + q->n_partitions * sizeof c->parts[0]);
    *c = (struct read_call){.storage = s, .rpc = rpc, .request = q, .count = q->n_partitions};
    bool over = q->min_bytes == 0 || q->max_wait_ms == 0 || s->draining || q->n_partitions == 0;
    for (size_t i = 0; i < c->count; i++) {
        struct read_part *p = &c->parts[i];
        const Karst__Bus__ReadPartition *from = q->partitions[i];
        *p =
            (struct read_part){.call = c, .request = from, .replica = replica_find(s, topic_of(from), from->partition)};
        over = (!over && refresh(p)) || over;
    }
    if (over)
        answer(c);
    else
        park(c, loop_now_ms(s->loop));
}

void read_wake(struct replica *r)
{
    struct read_part *p, *next;
    DL_FOREACH_SAFE(r->readers, p, next)
    {
        /* A call may read one partition twice: its parts follow each other, and both go with the answer. */
        while (next != NULL && next->call == p->call)
            next = next->next;
        if (refresh(p))
            answer(p->call);
    }
}

void read_wake_all(struct replica *r)
{
    while (r->readers != NULL)
        answer(r->readers->call);
}

void read_answer_all(struct storage *s)
{
    while (s->reads != NULL)
        answer(s->reads);
}
