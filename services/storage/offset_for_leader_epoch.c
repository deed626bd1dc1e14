/* offset_for_leader_epoch.c - Kafka request OffsetForLeaderEpoch (23): where an epoch ends (KIP-101, KIP-279). */
#include "kafka/offset_for_leader_epoch.h"
#include "services/storage/storage.h"

typedef struct kafka_offset_for_leader_epoch_request request;
typedef struct kafka_offset_for_leader_epoch_request_offset_for_leader_partition question;
typedef struct kafka_offset_for_leader_epoch_response_offset_for_leader_topic_result topic_answer;
typedef struct kafka_offset_for_leader_epoch_response_epoch_end_offset answer;

static void answer_one(struct storage *s, struct slice topic, const question *from, answer *to)
{
    struct replica *r;
    kafka_offset_for_leader_epoch_response_epoch_end_offset_init(to);
    to->partition = from->partition;
    enum kafka_error error = replica_look_up(s, topic, from->partition, from->current_leader_epoch, &r);
    if (error == KERR_NONE)
        log_end_of_epoch(r->log, from->leader_epoch, &to->leader_epoch, &to->end_offset);
    to->error_code = (int16_t)error;
}

void offset_for_leader_epoch_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    struct arena *a = rpc_arena(rpc);
    struct kafka_offset_for_leader_epoch_response response;
    kafka_offset_for_leader_epoch_response_init(&response);
    response.topics = arena_calloc(a, (size_t)q->topics_count + 1, sizeof *response.topics);
    response.topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_answer *to = &response.topics[t];
        to->topic = q->topics[t].topic;
        to->partitions_count = q->topics[t].partitions_count;
        to->partitions = arena_calloc(a, (size_t)to->partitions_count + 1, sizeof *to->partitions);
        for (int32_t p = 0; p < to->partitions_count; p++)
            answer_one(s, to->topic, &q->topics[t].partitions[p], &to->partitions[p]);
    }
    rpc_reply_kafka(rpc, &response, 0);
}
