/* check.c - what must hold of a batch before it is staged: Kafka's own checks, in Kafka's order (see check.h).
 *
 * A plain batch is summed up in one pass (all_good), which hardly any batch fails; one that fails, and each compressed
 * one, is read by a record_stream. Stricter than Kafka, because no consumer could read what it takes: a record that is
 * longer or shorter than its fields, an offset outside the batch, bytes behind the end of a stream. */
#include "libs/log/check.h"
#include "libs/base/bytes.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* So many times max.message.bytes may come out of a batch: what bounds the time that one takes. */
enum { CHECK_BODY_FACTOR = 64, CHECK_KEEP_MAX = 4 << 20 };

void check_tools_free(struct check_tools *t)
{
    t->reader = compress_reader_free(t->reader);
    t->writer = compress_writer_free(t->writer);
    buf_free(&t->made);
}

static enum kafka_error refuse(struct check *c, enum kafka_error error, const char *message)
{
    return append_refuse(c->append, error, message);
}

/* ---- the header ---- */

enum kafka_error check_header(struct check *c, const struct batch *b)
{
    if (c->append->origin == LOG_FROM_CLIENT && b->base_offset != 0)
        return refuse(c, KERR_INVALID_RECORD, "The base offset of a produced batch must be 0.");
    if (c->append->origin != LOG_FROM_LEADER && b->size > (uint32_t)c->config->max_message_bytes)
        return refuse(c, KERR_MESSAGE_TOO_LARGE, "The batch is larger than max.message.bytes.");
    return KERR_NONE;
}

/* The rules for what clients send, with nothing in it that is the leader's or a coordinator's to write. */
static enum kafka_error check_client(struct check *c, const struct batch *b)
{
    if (b->last_offset_delta < 0 || b->record_count <= 0 || b->record_count - 1 != b->last_offset_delta)
        return refuse(c, KERR_INVALID_RECORD, "The record count does not match the batch's offsets.");
    if (batch_is_control(b))
        return refuse(c, KERR_INVALID_RECORD, "Clients are not allowed to write control records.");
    if (batch_has_producer(b) && b->base_sequence < 0)
        return refuse(c, KERR_INVALID_RECORD, "A batch with a producer id needs a sequence.");
    if (batch_is_transactional(b))
        return refuse(c, KERR_INVALID_TXN_STATE, "This node takes no transactional batches.");
    return KERR_NONE;
}

/* Other origins are our own processes: theirs must be records' headers and no more. */
static enum kafka_error check_own(struct check *c, const struct batch *b)
{
    if (b->record_count < 0 || b->last_offset_delta < 0 || b->base_offset < 0 ||
        b->base_offset > INT64_MAX - b->last_offset_delta - 1)
        return refuse(c, KERR_INVALID_RECORD, "The batch has a negative count or offset.");
    return KERR_NONE;
}

/* ---- timestamps ---- */

static int64_t earliest(const struct check *c)
{
    return c->append->now_wall_ms - c->config->message_timestamp_before_max_ms;
}

static int64_t latest(const struct check *c)
{
    int64_t after = c->config->message_timestamp_after_max_ms;
    return after > INT64_MAX - c->append->now_wall_ms ? INT64_MAX : c->append->now_wall_ms + after;
}

/* ---- records that break a rule ---- */

static bool broken_key(const struct check *c, const struct record_facts *f)
{
    return c->config->cleanup_compact && f->key_size < 0;
}

/* Kafka looks at the key first, and says no more of a record than one thing. */
static void check_record(const struct check *c, const struct batch *b, int32_t index, const struct record_facts *f,
                         struct record_errors *e)
{
    bool timed = !c->config->log_append_time && f->timestamp != RECORDS_NO_TIMESTAMP;
    bool packed = batch_codec(b) != COMPRESS_NONE;
    if (broken_key(c, f))
        record_errors_add(e, index, false, "Compacted topic cannot accept message without key in topic partition %s",
                          c->partition);
    else if (timed && (f->timestamp < earliest(c) || f->timestamp > latest(c)))
        record_errors_add(e, index, true,
                          "Timestamp %" PRId64 " of message with offset %d is out of range. The timestamp should be "
                          "within [%" PRId64 ", %" PRId64 "]",
                          f->timestamp, f->offset_delta, earliest(c), latest(c));
    else if (!timed && (b->attributes & BATCH_ATTR_LOG_APPEND_TIME))
        record_errors_add(e, index, true,
                          "Invalid timestamp type in message %s(offset=%d, timestamp=%" PRId64 ", key=%" PRId64
                          " bytes, value=%" PRId64 " bytes). Producer should not set timestamp type to LogAppendTime.",
                          packed ? "PartialDefaultRecord" : "DefaultRecord", f->offset_delta, f->timestamp,
                          packed ? f->key_size : MAX(f->key_size, (int64_t)0),
                          packed ? f->value_size : MAX(f->value_size, (int64_t)0));
}

/* Are they records, and does none of them break a rule? Most are and do not, and then nobody asks which. */
static bool all_good(struct check *c, const struct batch *b, struct slice bytes)
{
    struct record_iter it;
    struct records_sum sum;
    if (b->attributes & BATCH_ATTR_LOG_APPEND_TIME || record_iter_init(&it, b, bytes, NULL, 0) < 0 ||
        record_iter_sum(&it, &sum) < 0)
        return false;
    bool key = c->config->cleanup_compact && sum.null_key;
    bool time = !c->config->log_append_time && (sum.min_timestamp < earliest(c) || sum.max_timestamp > latest(c));
    c->max_timestamp = MAX(sum.max_timestamp, (int64_t)RECORDS_NO_TIMESTAMP);
    return !key && !time;
}

static enum kafka_error unreadable(struct check *c, int err)
{
    if (err == -ENOSPC)
        return refuse(c, KERR_MESSAGE_TOO_LARGE, "Far more comes out of the batch than max.message.bytes.");
    if (err == -EIO)
        return refuse(c, KERR_UNKNOWN_SERVER_ERROR, "A compression library failed.");
    return refuse(c, KERR_INVALID_RECORD, "The batch holds bytes that are no records, or do not decompress.");
}

/* Reads every record. copy: what they are decompressed to goes there, too. */
static enum kafka_error read_records(struct check *c, const struct batch *b, struct slice bytes,
                                     struct compress_writer *copy)
{
    const struct record_tools tools = {c->tools->reader, copy};
    struct record_errors errors = {0};
    struct record_stream s;
    struct record_facts f;
    size_t limit = (size_t)c->config->max_message_bytes * CHECK_BODY_FACTOR;
    int more = record_stream_begin(&s, &tools, b, bytes, MAX(limit, (size_t)b->size));
    c->max_timestamp = RECORDS_NO_TIMESTAMP;
    if (more == 0)
        more = record_stream_next(&s, &f);
    for (int32_t i = 0; more == 1; i++) {
        bool in_place = batch_codec(b) == COMPRESS_NONE ? f.offset_delta >= 0 && f.offset_delta <= b->last_offset_delta
                                                        : f.offset_delta == i;
        if (!in_place) {
            more = -EBADMSG;
            break;
        }
        check_record(c, b, i, &f, &errors);
        c->max_timestamp = MAX(c->max_timestamp, f.timestamp);
        more = record_stream_next(&s, &f);
    }
    if (more < 0) {
        record_errors_free(&errors);
        return unreadable(c, more);
    }
    return record_errors_give(&errors, c->append);
}

/* ---- compression ---- */

/* The codec that the batch is written with: control batches are never compressed. */
static int codec_wanted(const struct check *c, const struct batch *b)
{
    bool own = c->append->origin != LOG_FROM_CLIENT;
    return own || c->config->compression < 0 ? batch_codec(b) : c->config->compression;
}

static enum kafka_error compress_anew(struct check *c, const struct batch *b, const uint8_t *header, struct slice bytes)
{
    struct buf *made = &c->tools->made;
    int codec = codec_wanted(c, b);
    if (c->tools->writer == NULL)
        c->tools->writer = compress_writer_new();
    made->size = 0;
    buf_append(made, header, BATCH_HEADER_SIZE);
    int err = compress_writer_begin(c->tools->writer, codec, c->config->compression_level, made);
    if (err < 0)
        return unreadable(c, err);
    enum kafka_error error = read_records(c, b, bytes, c->tools->writer);
    if (error != KERR_NONE)
        return error;
    err = compress_writer_end(c->tools->writer);
    if (err < 0)
        return unreadable(c, err);
    if (made->size > (size_t)c->config->max_message_bytes)
        return refuse(c, KERR_MESSAGE_TOO_LARGE, "Compressed as compression.type says the batch is too large.");
    put_u16(made->data + BATCH_ATTRIBUTES, (uint16_t)(b->attributes - batch_codec(b) + codec));
    put_i32(made->data + BATCH_LENGTH, (int32_t)(made->size - BATCH_LENGTH_OVERHEAD));
    c->made = made;
    return KERR_NONE;
}

/* ---- the body ---- */

bool check_needs_copy(const struct check *c, const struct batch *b)
{
    return c->append->origin == LOG_FROM_CLIENT &&
           (batch_codec(b) != COMPRESS_NONE || codec_wanted(c, b) != COMPRESS_NONE);
}

static enum kafka_error check_records(struct check *c, const struct batch *b, const uint8_t *header, struct slice bytes)
{
    if (c->tools->made.capacity > CHECK_KEEP_MAX)
        buf_free(&c->tools->made);
    if (c->tools->reader == NULL)
        c->tools->reader = compress_reader_new();
    if (codec_wanted(c, b) != batch_codec(b))
        return compress_anew(c, b, header, bytes);
    if (batch_codec(b) == COMPRESS_NONE && all_good(c, b, bytes))
        return KERR_NONE;
    return read_records(c, b, bytes, NULL);
}

enum kafka_error check_body(struct check *c, const struct batch *b, const uint8_t *header, struct slice bytes)
{
    bool client = c->append->origin == LOG_FROM_CLIENT;
    c->made = NULL;
    c->restamp = false;
    c->max_timestamp = b->max_timestamp;
    if (!batch_crc_holds_apart(b, header, bytes))
        return refuse(c, KERR_CORRUPT_MESSAGE, "The batch's CRC does not match its bytes.");
    if (batch_codec(b) > COMPRESS_ZSTD)
        return refuse(c, KERR_UNSUPPORTED_COMPRESSION_TYPE, "The batch names an unknown compression codec.");
    if (!client)
        return check_own(c, b);
    enum kafka_error error = check_client(c, b);
    if (error == KERR_NONE)
        error = check_records(c, b, header, bytes);
    if (c->config->log_append_time)
        c->max_timestamp = c->append->now_wall_ms;
    bool typed = b->attributes & BATCH_ATTR_LOG_APPEND_TIME;
    c->restamp = c->made != NULL || c->config->log_append_time || typed || c->max_timestamp != b->max_timestamp;
    return error;
}
