/* describe_producers.c - Kafka request DescribeProducers (61): the idempotent producers that a log remembers (KIP-664).
 */
#include "kafka/describe_producers.h"
#include "services/storage/storage.h"

typedef struct kafka_describe_producers_request request;
typedef struct kafka_describe_producers_response_topic_response topic_answer;
typedef struct kafka_describe_producers_response_partition_response answer;
typedef struct kafka_describe_producers_response_producer_state state;

/* Of one answer: the bus carries no more, and one partition may be named any number of times. */
enum { PRODUCERS_MAX = 100000 };

struct list {
    struct arena *arena;
    state *at;
    size_t count, capacity, max;
    bool is_cut;
};

static void add_producer(void *ctx, const struct log_producer *p)
{
    struct list *l = ctx;
    l->is_cut = l->is_cut || l->count == l->max;
    if (l->is_cut)
        return;
    if (l->count == l->capacity) {
        size_t more = l->capacity ? 2 * l->capacity : 8;
        state *at = arena_alloc(l->arena, more * sizeof *at);
        if (l->count > 0)
            memcpy(at, l->at, l->count * sizeof *at);
        l->at = at;
        l->capacity = more;
    }
    l->at[l->count++] = (state){
        .producer_id = p->producer_id,
        .producer_epoch = p->epoch,
        .last_sequence = p->last_sequence,
        .last_timestamp = p->last_timestamp,
        .coordinator_epoch = p->coordinator_epoch,
        .current_txn_start_offset = p->txn_start_offset,
    };
}

static void answer_one(struct storage *s, struct arena *a, struct slice topic, int32_t partition, size_t *left,
                       answer *to)
{
    struct replica *r;
    struct list l = {.arena = a, .max = *left};
    kafka_describe_producers_response_partition_response_init(to);
    to->partition_index = partition;
    enum kafka_error error = replica_look_up(s, topic, partition, -1, &r);
    /* A follower answers too. */
    if (error == KERR_NOT_LEADER_OR_FOLLOWER)
        error = KERR_NONE;
    if (error == KERR_NONE)
        log_producers(r->log, add_producer, &l);
    *left -= l.count;
    if (l.is_cut) {
        error = KERR_INVALID_REQUEST;
        to->error_message = SLICE_OF("There are too many producers for one answer.");
        *left = l.count = 0;
    }
    to->error_code = (int16_t)error;
    to->active_producers = l.at;
    to->active_producers_count = (int32_t)l.count;
}

void describe_producers_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    struct arena *a = rpc_arena(rpc);
    struct kafka_describe_producers_response response;
    size_t left = PRODUCERS_MAX;
    kafka_describe_producers_response_init(&response);
    response.topics = arena_calloc(a, (size_t)q->topics_count + 1, sizeof *response.topics);
    response.topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_answer *to = &response.topics[t];
        to->name = q->topics[t].name;
        to->partitions_count = q->topics[t].partition_indexes_count;
        to->partitions = arena_calloc(a, (size_t)to->partitions_count + 1, sizeof *to->partitions);
        for (int32_t p = 0; p < to->partitions_count; p++)
            answer_one(s, a, to->name, q->topics[t].partition_indexes[p], &left, &to->partitions[p]);
    }
    rpc_reply_kafka(rpc, &response, 0);
}
