/* list_offsets.c - Kafka request ListOffsets (2): offsets by time and by the special times -1 to -6. */
#include "kafka/list_offsets.h"
#include "services/storage/storage.h"

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
enum { READ_COMMITTED = 1, CONSUMER = -1, LEADER_EPOCH_FROM = 4 };

static enum kafka_error look_up(struct log *l, int64_t time, int64_t upper, struct log_offset *ret)
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
    case MAX_TIMESTAMP: error = log_offset_of_max_time(l, &found); break;
    default:
        if (time < 0)
            return KERR_UNSUPPORTED_VERSION;
        error = log_offset_by_time(l, time, &found);
    }
    /* What a reader of that isolation cannot fetch yet is not there for it. */
    if (found.offset >= upper)
        found = (struct log_offset){-1, -1, -1};
    *ret = found;
    return error;
}

static void answer_one(struct storage *s, int version, const request *q, struct slice topic, const question *from,
                       answer *to)
{
    struct replica *r;
    struct log_offset found = {-1, -1, -1};
    kafka_list_offsets_response_list_offsets_partition_response_init(to);
    to->partition_index = from->partition_index;
    enum kafka_error error = replica_look_up(s, topic, from->partition_index, from->current_leader_epoch, &r);
    if (error == KERR_NONE) {
        int64_t upper = q->replica_id != CONSUMER              ? log_end(r->log)
                        : q->isolation_level == READ_COMMITTED ? log_last_stable(r->log)
                                                               : log_high_watermark(r->log);
        error = look_up(r->log, from->timestamp, upper, &found);
    }
    if (error == KERR_KAFKA_STORAGE_ERROR && r != NULL && log_failed(r->log) != 0)
        directory_failed(r->dir, log_failed(r->log));
    to->error_code = (int16_t)error;
    to->offset = found.offset;
    to->timestamp = found.timestamp;
    if (version >= LEADER_EPOCH_FROM)
        to->leader_epoch = found.leader_epoch;
}

void list_offsets_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    struct arena *a = rpc_arena(rpc);
    struct kafka_list_offsets_response response;
    kafka_list_offsets_response_init(&response);
    response.topics = arena_calloc(a, (size_t)q->topics_count + 1, sizeof *response.topics);
    response.topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_answer *to = &response.topics[t];
        to->name = q->topics[t].name;
        to->partitions_count = q->topics[t].partitions_count;
        to->partitions = arena_calloc(a, (size_t)to->partitions_count + 1, sizeof *to->partitions);
        for (int32_t p = 0; p < to->partitions_count; p++)
            answer_one(s, rpc_call(rpc)->kafka->api_version, q, to->name, &q->topics[t].partitions[p],
                       &to->partitions[p]);
    }
    rpc_reply_kafka(rpc, &response, 0);
}
