/* delete_records.c - Kafka request DeleteRecords (21): the log start moves; the files follow with the next retention
 * check. The new start is in the checkpoint before the answer leaves, so that a crash does not bring deleted records
 * back. */
#include "kafka/delete_records.h"
#include "services/storage/storage.h"

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

static void write_starts(struct storage *s, const bool *moved, struct kafka_delete_records_response *response)
{
    bool failed = false;
    for (size_t i = 0; i < s->dir_count; i++) {
        /* On a full disk: this is how room is made; the checkpoint follows with its timer, as Kafka's always does. */
        int err = moved[i] ? directory_write_starts(&s->dirs[i]) : 0;
        failed = failed || (err < 0 && err != -ENOSPC);
    }
    for (int32_t t = 0; failed && t < response->topics_count; t++) {
        topic_answer *to = &response->topics[t];
        for (int32_t p = 0; p < to->partitions_count; p++) {
            const struct replica *r = replica_by_name(s, to->name, to->partitions[p].partition_index);
            if (r != NULL && r->dir->failed != 0)
                to->partitions[p].error_code = KERR_KAFKA_STORAGE_ERROR;
        }
    }
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
    struct kafka_delete_records_response response;
    kafka_delete_records_response_init(&response);
    response.topics = arena_calloc(a, (size_t)q->topics_count + 1, sizeof *response.topics);
    response.topics_count = q->topics_count;
    for (int32_t t = 0; t < q->topics_count; t++) {
        topic_answer *to = &response.topics[t];
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
    write_starts(s, moved, &response);
    rpc_reply_kafka(rpc, &response, 0);
}
