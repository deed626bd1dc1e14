/* list_offsets.c - Kafka request ListOffsets (2): offsets by time and by the special times -1 to -6.
 *
 * What is not in memory does not hold up the loop:
 *   received --all is in memory--> answered
 *            --some is not--> brought in on the slow pool, and all is looked at anew */
#include "kafka/list_offsets.h"
#include "services/storage/replication.h"
#include <stdlib.h>

typedef struct kafka_list_offsets_request request;
typedef struct kafka_list_offsets_request_list_offsets_partition question;
typedef struct kafka_list_offsets_response_list_offsets_topic_response topic_answer;
typedef struct kafka_list_offsets_response_list_offsets_partition_response answer;

enum {
    LATEST = -1,
    EARLIEST = -2,
    MAX_TIMESTAMP = -3,
    EARLIEST_LOCAL = -4,
    LATEST_TIERED = -5,
    EARLIEST_PENDING_UPLOAD = -6
};
enum { READ_COMMITTED = 1, CONSUMER = -1, LEADER_EPOCH_FROM = 4, NOT_AVAILABLE_FROM = 5 };
enum { COLD_MAX = 64, ROUNDS_MAX = 4096 }; /* then memory is so short that the loop waits itself */

/* A call on its way; what it waits for, while it does. */
struct offsets_call {
    struct storage *storage;
    struct rpc *rpc; /* NULL: the caller is gone */
    const request *request;
    int rounds;
    size_t cold_count;
    struct {
        struct replica_key key;
        struct log_warm *warm;
    } cold[COLD_MAX];
};

static enum kafka_error look_up(struct log *l, int64_t time, int64_t upper, struct log_offset *ret, bool *ret_cold)
{
    struct log_offset found = {-1, -1, -1};
    enum kafka_error error = KERR_NONE;
    switch (time) {
    case LATEST: *ret = (struct log_offset){upper, -1, log_latest_epoch(l)}; return KERR_NONE;
    case EARLIEST:
    case EARLIEST_LOCAL:
        *ret = (struct log_offset){log_start(l), -1, log_epoch_of_offset(l, log_start(l))};
        return KERR_NONE;
    case LATEST_TIERED: /* nothing is tiered */
    case EARLIEST_PENDING_UPLOAD: *ret = found; return KERR_NONE;
    case MAX_TIMESTAMP: error = log_offset_of_max_time(l, &found, ret_cold); break;
    default:
        if (time < 0)
            return KERR_UNSUPPORTED_VERSION;
        error = log_offset_by_time(l, time, &found, ret_cold);
    }
    /* What a reader of that isolation cannot fetch yet is not there for it. */
    if (found.offset >= upper)
        found = (struct log_offset){-1, -1, -1};
    *ret = found;
    return error;
}

/* A leader that was elected lately may not know yet how far its partition is committed: it must not send a client back
 * behind what that has seen (KIP-207). */
static bool is_behind(const struct offsets_call *c, const struct replica *r)
{
    return c->request->replica_id == CONSUMER && r->core != NULL &&
           replica_epoch_start(r->core) > log_high_watermark(r->log);
}

static enum kafka_error check_behind(const struct offsets_call *c, const struct replica *r, int64_t time,
                                     const struct log_offset *found)
{
    bool asks_for_end = time == LATEST || time == MAX_TIMESTAMP || time >= 0;
    if (!asks_for_end || !is_behind(c, r) || (time != LATEST && found->offset >= 0))
        return KERR_NONE;
    return rpc_call(c->rpc)->kafka->api_version >= NOT_AVAILABLE_FROM ? KERR_OFFSET_NOT_AVAILABLE
                                                                      : KERR_LEADER_NOT_AVAILABLE;
}

static void add_cold(struct offsets_call *c, struct replica *r)
{
    struct log_warm *w = log_warm_begin(r->log);
    if (w == NULL)
        return;
    c->cold[c->cold_count].key = r->key;
    c->cold[c->cold_count++].warm = w;
}

static void answer_one(struct offsets_call *c, struct slice topic, const question *from, answer *to)
{
    struct storage *s = c->storage;
    const request *q = c->request;
    struct replica *r = replica_by_name(s, topic, from->partition_index);
    struct log_offset found = {-1, -1, -1};
    kafka_list_offsets_response_list_offsets_partition_response_init(to);
    to->partition_index = from->partition_index;
    enum kafka_error error = replica_look_up(s, topic, from->partition_index, from->current_leader_epoch, &r);
    if (error == KERR_NONE && c->cold_count < COLD_MAX) {
        bool cold = false;
        int64_t upper = q->replica_id != CONSUMER              ? log_end(r->log)
                        : q->isolation_level == READ_COMMITTED ? log_last_stable(r->log)
                                                               : log_high_watermark(r->log);
        error = look_up(r->log, from->timestamp, upper, &found, c->rounds < ROUNDS_MAX ? &cold : NULL);
        size_t before = c->cold_count;
        if (cold)
            add_cold(c, r);
        if (cold && c->cold_count == before) /* no descriptor is left for it */
            error = look_up(r->log, from->timestamp, upper, &found, NULL);
        if (error == KERR_NONE && c->cold_count == before)
            error = check_behind(c, r, from->timestamp, &found);
        if (error != KERR_NONE)
            found = (struct log_offset){-1, -1, -1};
    }
    if (error == KERR_KAFKA_STORAGE_ERROR && r != NULL && log_failed(r->log) != 0)
        directory_failed(r->dir, log_failed(r->log));
    to->error_code = (int16_t)error;
    to->offset = found.offset;
    to->timestamp = found.timestamp;
    if (rpc_call(c->rpc)->kafka->api_version >= LEADER_EPOCH_FROM)
        to->leader_epoch = found.leader_epoch;
}

/* Looks at all of it; false: something is not in memory. */
static bool answer_all(struct offsets_call *c)
{
    const request *q = c->request;
    struct arena *a = rpc_arena(c->rpc);
    struct kafka_list_offsets_response response;
    kafka_list_offsets_response_init(&response);
    response.topics = arena_calloc(a, (size_t)q->topics_count + 1, sizeof *response.topics);
    response.topics_count = q->topics_count;
    c->cold_count = 0;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_answer *to = &response.topics[t];
        to->name = q->topics[t].name;
        to->partitions_count = q->topics[t].partitions_count;
        to->partitions = arena_calloc(a, (size_t)to->partitions_count + 1, sizeof *to->partitions);
        for (int32_t p = 0; p < to->partitions_count; p++)
            answer_one(c, to->name, &q->topics[t].partitions[p], &to->partitions[p]);
    }
    if (c->cold_count > 0)
        return false;
    rpc_reply_kafka(c->rpc, &response, 0);
    return true;
}

/* ---- waiting for the disk ---- */

static void advance(struct offsets_call *c);

static void run(void *ctx)
{
    struct offsets_call *c = ctx;
    for (size_t i = 0; i < c->cold_count; i++)
        log_warm_run(c->cold[i].warm);
}

static void on_done(void *ctx)
{
    struct offsets_call *c = ctx;
    struct storage *s = c->storage;
    s->look_ups--;
    for (size_t i = 0; i < c->cold_count; i++) {
        struct replica *r = replica_find(s, c->cold[i].key.topic_id, c->cold[i].key.partition);
        int err = log_warm_end(r != NULL ? r->log : NULL, c->cold[i].warm);
        if (err < 0 && r != NULL)
            directory_failed(r->dir, err);
    }
    if (c->rpc != NULL)
        advance(c);
    else
        free(c);
    loop_again(s->loop); /* a drain may wait for it */
}

static void on_gone(void *ctx, struct rpc *rpc)
{
    struct offsets_call *c = ctx;
    rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    c->rpc = NULL;
}

static void advance(struct offsets_call *c)
{
    if (answer_all(c)) {
        free(c);
        return;
    }
    if (c->rounds++ == 0)
        rpc_on_gone(c->rpc, on_gone, c);
    c->storage->look_ups++;
    loop_work(c->storage->loop, run, on_done, c);
}

void list_offsets_on_call(void *ctx, struct rpc *rpc)
{
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    struct offsets_call *c = xcalloc(1, sizeof *c);
    c->storage = ctx;
    c->rpc = rpc;
    c->request = q;
    advance(c);
}
