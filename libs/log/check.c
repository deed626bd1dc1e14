/* check.c - what must hold of a batch before it is staged: Kafka's own checks, in Kafka's order. The records of an
 * uncompressed batch must be as many as its header says, and nothing else: what is not would stop every reader.
 * Compressed ones are looked at only where a rule is about them: a compacted topic (null keys), and a timestamp range
 * that the header says is passed. */
#include "libs/log/check.h"
#include "libs/base/bytes.h"
#include <stdio.h>
#include <stdlib.h>

enum { CHECK_BODY_FACTOR = 64, CHECK_RECORD_ERRORS_MAX = 1000 };

static enum kafka_error refuse(struct log_append *a, enum kafka_error error, const char *message)
{
    a->message = message;
    return error;
}

static void add_record_error(struct log_append *a, int32_t index, const char *message)
{
    if (a->record_error_count == CHECK_RECORD_ERRORS_MAX)
        return;
    size_t n = (size_t)a->record_error_count;
    if ((n & (n - 1)) == 0)
        a->record_errors = xrealloc(a->record_errors, (n ? 2 * n : 1) * sizeof *a->record_errors);
    a->record_errors[a->record_error_count++] = (struct log_record_error){index, message};
}

static bool time_too_early(const struct log_config *c, int64_t timestamp, int64_t now_wall_ms)
{
    return timestamp >= 0 && timestamp < now_wall_ms && now_wall_ms - timestamp > c->message_timestamp_before_max_ms;
}

static bool time_too_late(const struct log_config *c, int64_t timestamp, int64_t now_wall_ms)
{
    return timestamp > now_wall_ms && timestamp - now_wall_ms > c->message_timestamp_after_max_ms;
}

static bool breaks_time(const struct log_config *c, const struct log_append *a, int64_t timestamp)
{
    return !c->log_append_time &&
           (time_too_early(c, timestamp, a->now_wall_ms) || time_too_late(c, timestamp, a->now_wall_ms));
}

/* Are they records, and does none of them break a rule? Most are and do not, and then nobody asks which. */
static bool all_good(const struct log_config *c, const struct batch *b, struct slice bytes, const struct log_append *a)
{
    struct record_iter it;
    struct records_sum sum;
    if (batch_codec(b) != COMPRESS_NONE || record_iter_init(&it, b, bytes, NULL, 0) < 0 ||
        record_iter_sum(&it, &sum) < 0)
        return false;
    bool key = c->cleanup_compact && sum.null_key && !batch_is_control(b);
    return !key && !breaks_time(c, a, sum.min_timestamp) && !breaks_time(c, a, sum.max_timestamp);
}

/* Reads every record for the rules that are about single records (KIP-467). */
static enum kafka_error check_records(const struct log_config *c, const struct batch *b, struct slice bytes,
                                      struct log_append *a)
{
    struct buf scratch = {0};
    struct record_iter it;
    struct record r;
    bool bad_time = false, bad_key = false;
    size_t limit = (size_t)c->max_message_bytes * CHECK_BODY_FACTOR;
    int more = record_iter_init(&it, b, bytes, &scratch, limit);
    for (int32_t i = 0; more == 0 && (more = record_iter_next(&it, &r)) == 1; i++, more = 0) {
        bool time = breaks_time(c, a, r.timestamp);
        bool key = c->cleanup_compact && slice_is_null(r.key) && !batch_is_control(b);
        if (key)
            add_record_error(a, i, "Compacted topic cannot accept message without key.");
        else if (time)
            add_record_error(a, i, "Timestamp is out of range: see message.timestamp.before.max.ms and .after.max.ms.");
        bad_time |= time && !key;
        bad_key |= key;
    }
    buf_free(&scratch);
    if (more < 0) {
        free(a->record_errors);
        a->record_errors = NULL;
        a->record_error_count = 0;
        return refuse(a, KERR_INVALID_RECORD, "The batch holds bytes that are no records, or do not decompress.");
    }
    /* Kafka answers the kind of the first one that it met. */
    if (bad_key)
        return refuse(a, KERR_INVALID_RECORD, "One or more records have been rejected: a compacted topic needs keys.");
    if (bad_time)
        return refuse(a, KERR_INVALID_TIMESTAMP, "One or more records have been rejected due to invalid timestamp.");
    return KERR_NONE;
}

/* The rules for what clients send: one batch, with nothing in it that is the leader's or a coordinator's to write. */
static enum kafka_error check_client(const struct log_config *c, const struct batch *b, struct log_append *a)
{
    if (b->base_offset != 0)
        return refuse(a, KERR_INVALID_RECORD, "The base offset of a produced batch must be 0.");
    if (b->record_count <= 0 || b->record_count != b->last_offset_delta + 1)
        return refuse(a, KERR_INVALID_RECORD, "The record count does not match the batch's offsets.");
    if (batch_is_control(b))
        return refuse(a, KERR_INVALID_RECORD, "Clients are not allowed to write control records.");
    if (batch_has_producer(b) && (b->base_sequence < 0 || b->producer_epoch < 0))
        return refuse(a, KERR_INVALID_RECORD, "A batch with a producer id needs its epoch and a sequence.");
    if (batch_is_transactional(b))
        return refuse(a, KERR_INVALID_TXN_STATE, "This node takes no transactional batches.");
    if (!c->log_append_time && (b->attributes & BATCH_ATTR_LOG_APPEND_TIME))
        return refuse(a, KERR_INVALID_TIMESTAMP, "Producers must not set the timestamp type to LogAppendTime.");
    return KERR_NONE;
}

enum kafka_error check_header(const struct log_config *c, const struct batch *b, struct log_append *a)
{
    enum kafka_error error = a->origin == LOG_FROM_CLIENT ? check_client(c, b, a) : KERR_NONE;
    if (error == KERR_NONE && a->origin != LOG_FROM_LEADER && b->size > (uint32_t)c->max_message_bytes)
        error = refuse(a, KERR_MESSAGE_TOO_LARGE, "The batch is larger than max.message.bytes.");
    return error;
}

/* Is there a rule about single records that the header alone does not answer? */
static bool looks_at_records(const struct log_config *c, const struct batch *b, const struct log_append *a)
{
    if (a->origin != LOG_FROM_CLIENT)
        return false;
    bool times = !c->log_append_time && (time_too_late(c, b->max_timestamp, a->now_wall_ms) ||
                                         c->message_timestamp_before_max_ms != INT64_MAX);
    return batch_codec(b) == COMPRESS_NONE || times || c->cleanup_compact;
}

bool check_needs_copy(const struct log_config *c, const struct batch *b, const struct log_append *a)
{
    return batch_codec(b) != COMPRESS_NONE && looks_at_records(c, b, a);
}

enum kafka_error check_body(const struct log_config *c, const struct batch *b, const uint8_t *header,
                            struct slice bytes, struct log_append *a)
{
    if (!batch_crc_holds_apart(b, header, bytes))
        return refuse(a, KERR_CORRUPT_MESSAGE, "The batch's CRC does not match its bytes.");
    if (batch_codec(b) > COMPRESS_ZSTD)
        return refuse(a, KERR_UNSUPPORTED_COMPRESSION_TYPE, "The batch names an unknown compression codec.");
    return looks_at_records(c, b, a) && !all_good(c, b, bytes, a) ? check_records(c, b, bytes, a) : KERR_NONE;
}
