/* read_answer.c - what a Read is answered with: references to slices of files, or copies; aborted transactions.
 *
 * All partitions are looked at before anything is copied. Where something is not in memory, the call waits until the
 * slow pool has brought it in, and all is looked at anew: the log may have changed. */
#include "services/storage/read.h"
#include "services/storage/replication.h"
#include <stdlib.h>

enum { REPLICA_CONSUMER = -1 };
enum { SHARE_FROM_BYTES = 65536 }; /* below that passing a reference and sendfile cost more than the copies */
enum { GIVEN_MAX = 16384 };        /* partitions of one answer with records; the others' come with the next */
enum { ABORTED_MAX = 1 << 20 };    /* of one partition: more than fit into the records of any answer */
enum { COLD_ROUNDS = 12 };         /* index, headers, records; then memory is so short that the loop waits itself */

/* A follower may answer consumers that ask for it; nobody else reads of one. */
static enum kafka_error check_role(const struct read_call *c, const struct replica *r, int32_t epoch)
{
    enum kafka_error error = replica_check_leader(c->storage, r, epoch);
    bool may_follow = c->request->of_follower && c->request->replica_id == REPLICA_CONSUMER;
    if (error == KERR_NOT_LEADER_OR_FOLLOWER && may_follow && r->core != NULL &&
        replica_role(r->core) == REPLICA_FOLLOWER)
        return KERR_NONE;
    return error;
}

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

enum kafka_error read_check(const struct read_part *p, struct look *k)
{
    const struct read_call *c = p->call;
    const struct replica *r = p->replica;
    k->diverging_epoch = -1;
    k->diverging_end = k->log_start = k->log_end = -1;
    if (r == NULL)
        return read_missing(p);
    enum kafka_error error = check_role(c, r, p->request->current_leader_epoch);
    bool follows = c->request->replica_id >= 0;
    if (error == KERR_NONE && follows)
        error = r->core != NULL ? replica_check_follower(r->core, c->request->replica_id, c->request->replica_epoch)
                                : KERR_UNKNOWN_LEADER_EPOCH;
    if (error == KERR_NONE)
        error = check_divergence(p, k);
    int64_t offset = p->request->fetch_offset;
    if (error == KERR_NONE && (offset < log_start(r->log) || (k->diverging_epoch < 0 && offset > log_end(r->log))))
        error = KERR_OFFSET_OUT_OF_RANGE;
    if (error == KERR_OFFSET_OUT_OF_RANGE && follows) { /* it finds its place by these */
        k->log_start = log_start(r->log);
        k->log_end = log_end(r->log);
    }
    return error;
}

void read_look_at(const struct read_part *p, size_t max_bytes, bool at_least_one, bool wait, struct look *k)
{
    const struct read_call *c = p->call;
    const struct replica *r = p->replica;
    *k = (struct look){.high_watermark = -1,
                       .last_stable = -1,
                       .log_start = -1,
                       .log_end = -1,
                       .preferred = -1,
                       .diverging_epoch = -1,
                       .diverging_end = -1};
    k->error = read_check(p, k);
    if (k->error != KERR_NONE)
        return;
    struct log *l = r->log;
    int64_t offset = p->request->fetch_offset, upper = upper_of(c, l);
    if (c->request->rack[0] != 0)
        k->preferred = nearest_replica(p);
    /* Behind it, but in the log: committed, perhaps, before this leader knows of it. Nothing yet, as in Kafka, and not
     * out of range. */
    if (k->diverging_epoch < 0 && offset <= upper && k->preferred < 0) {
        k->error = wait ? log_locate(l, offset, upper, max_bytes, at_least_one, &k->range)
                        : log_locate_now(l, offset, upper, max_bytes, at_least_one, &k->range, &k->cold);
    }
    if (c->request->replica_id >= 0 && !k->cold && k->range.size_bytes > 0 &&
        replication_throttles(r, c->request->replica_id)) {
        k->throttled = true;
        peers_held(c->storage, c->request->replica_id);
        k->range.size_bytes = 0;
    }
    if (k->error == KERR_KAFKA_STORAGE_ERROR && log_failed(l) != 0)
        directory_failed(r->dir, log_failed(l));
    if (k->error != KERR_NONE || k->cold)
        return;
    k->high_watermark = log_high_watermark(l);
    k->last_stable = log_last_stable(l);
    k->log_start = log_start(l);
    k->log_end = log_end(l);
}

/* ---- bytes ---- */

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
    uint8_t *bytes;
    *ret_ref = ref_new(k->range.size_bytes, &bytes);
    int err = log_copy(p->replica->log, &k->range, bytes);
    if (err == 0)
        return KERR_NONE;
    ref_release(ret_ref);
    if (log_failed(p->replica->log) != 0)
        directory_failed(p->replica->dir, err);
    return KERR_KAFKA_STORAGE_ERROR;
}

/* ---- aborted transactions ---- */

struct aborted_list {
    struct arena *arena;
    Karst__Bus__AbortedTransaction **at;
    size_t count, capacity;
};

static void add_aborted(void *ctx, int64_t producer_id, int64_t first_offset)
{
    struct aborted_list *x = ctx;
    if (x->count > ABORTED_MAX)
        return;
    if (x->count == x->capacity) {
        size_t more = x->capacity ? 2 * x->capacity : 8;
        Karst__Bus__AbortedTransaction **list = arena_alloc(x->arena, more * sizeof *list);
        if (x->capacity)
            memcpy(list, x->at, x->capacity * sizeof *list);
        x->at = list;
        x->capacity = more;
    }
    Karst__Bus__AbortedTransaction *a = arena_alloc(x->arena, sizeof *a);
    karst__bus__aborted_transaction__init(a);
    a->producer_id = producer_id;
    a->first_offset = first_offset;
    x->at[x->count++] = a;
}

/* Those of the range; k is cold when they cannot be told without waiting for the disk. */
static void look_for_aborted(const struct read_part *p, bool wait, struct arena *a, struct look *k)
{
    struct aborted_list *x = arena_calloc(a, 1, sizeof *x);
    x->arena = a;
    k->aborted = x;
    k->error =
        log_aborted(p->replica->log, p->request->fetch_offset, &k->range, add_aborted, x, wait ? NULL : &k->cold);
    if (x->count > ABORTED_MAX) /* no such file was ever written: without them the reader would be misled */
        k->error = KERR_UNKNOWN_SERVER_ERROR;
}

/* ---- the reply ---- */

static void fill_result(const struct read_part *p, const struct look *k, Karst__Bus__ReadResult *to)
{
    to->error = k->error;
    to->high_watermark = k->high_watermark;
    to->last_stable_offset = k->last_stable;
    to->log_start_offset = k->log_start;
    to->log_end_offset = k->log_end;
    to->diverging_epoch = k->diverging_epoch;
    to->diverging_end_offset = k->diverging_end;
    to->preferred_replica = k->preferred >= 0 ? (uint32_t)k->preferred + 1 : 0;
    to->payload = -1;
    to->leader_id = to->leader_epoch = -1;
    if ((k->error == KERR_NOT_LEADER_OR_FOLLOWER || k->error == KERR_FENCED_LEADER_EPOCH) && p->replica != NULL) {
        to->leader_id = p->replica->leader;
        to->leader_epoch = p->replica->leader_epoch;
    }
}

static void reply_with(struct read_call *c, struct look *looks, struct arena *a)
{
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    Karst__Bus__ReadResult *results = arena_alloc(a, c->count * sizeof *results + 1);
    struct ref *payloads = arena_alloc(a, c->count * sizeof *payloads + 1);
    size_t payload_count = 0;
    reply.results = arena_alloc(a, c->count * sizeof *reply.results + 1);
    reply.n_results = c->count;
    for (size_t i = 0; i < c->count; i++) {
        struct read_part *p = &c->parts[i];
        struct look *k = &looks[i];
        bool given = k->error == KERR_NONE && k->range.size_bytes > 0;
        reply.results[i] = &results[i];
        karst__bus__read_result__init(&results[i]);
        if (given)
            k->error = give_records(p, k, &payloads[payload_count]);
        fill_result(p, k, &results[i]);
        if (given && k->error == KERR_NONE)
            results[i].payload = (int32_t)payload_count++;
        if (given && c->request->replica_id >= 0)
            replication_given(p->replica, c->request->replica_id, k->range.size_bytes);
        if (given && k->error == KERR_NONE && k->aborted != NULL) {
            results[i].aborted = k->aborted->at;
            results[i].n_aborted = k->aborted->count;
        }
        if (p->interest != NULL)
            interest_told(p->interest, k, &results[i]);
    }
    read_reply(c->rpc, &reply, payloads, payload_count);
    for (size_t i = 0; i < payload_count; i++)
        ref_release(&payloads[i]);
}

/* ---- what is not in memory ---- */

static void add_cold(const struct read_part *p, struct cold_list *cold)
{
    struct log_warm *w = log_warm_begin(p->replica->log);
    if (w != NULL) {
        cold->at[cold->count].key = p->replica->key;
        cold->at[cold->count++].warm = w;
    }
}

static void look_at(const struct read_part *p, size_t max_bytes, bool at_least_one, bool wait, struct arena *a,
                    struct look *k)
{
    read_look_at(p, max_bytes, at_least_one, wait, k);
    if (p->call->request->read_committed && k->error == KERR_NONE && !k->cold && k->range.size_bytes > 0)
        look_for_aborted(p, wait, a, k);
}

/* Looks at all parts as they share max_bytes. Stops where cold is full. */
static void look_at_all(struct read_call *c, struct arena *a, struct look *looks, struct cold_list *cold)
{
    size_t left = c->request->max_bytes, given = 0;
    bool wait = c->cold_rounds >= COLD_ROUNDS;
    cold->count = 0;
    for (size_t i = 0; i < c->count && cold->count < COLD_RANGES; i++) {
        const struct read_part *p = &c->parts[i];
        struct look *k = &looks[i];
        size_t most = MIN((size_t)p->request->max_bytes, left), before = cold->count;
        look_at(p, most, given == 0, wait, a, k);
        if (k->cold) {
            add_cold(p, cold);
            if (cold->count == before) /* no descriptor is left for it */
                look_at(p, most, given == 0, true, a, k);
        }
        if (k->error != KERR_NONE || k->range.size_bytes == 0)
            continue;
        if (!wait && !k->cold && log_is_cold(p->replica->log, &k->range))
            add_cold(p, cold);
        left = ++given < GIVEN_MAX ? left - MIN(left, k->range.size_bytes) : 0;
    }
}

static void on_gone(void *ctx, struct rpc *rpc)
{
    rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    read_call_free(ctx);
}

void read_answer(struct read_call *c)
{
    struct arena *a = c->storage->read_arena;
    struct cold_list cold;
    read_unpark(c);
    c = interest_fill(c);
    struct look *looks = arena_alloc(a, c->count * sizeof *looks + 1);
    look_at_all(c, a, looks, &cold);
    if (cold.count > 0) {
        c->cold_rounds++;
        rpc_on_gone(c->rpc, on_gone, c);
        cold_start(c, &cold);
    } else {
        reply_with(c, looks, a);
        read_call_free(c);
    }
    arena_reset(a);
}
