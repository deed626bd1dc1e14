/* batch.c - batch headers: reading, checking, and what a leader sets. */
#include "libs/base/bytes.h"
#include "libs/records/records.h"

/* The layout, for the compiler to prove the offsets with; bytes are read through get_*, so that alignment does not
 * matter. */
struct batch_layout {
    uint8_t base_offset[8], length[4], leader_epoch[4], magic[1], crc[4], attributes[2], last_offset_delta[4];
    uint8_t base_timestamp[8], max_timestamp[8], producer_id[8], producer_epoch[2], base_sequence[4], record_count[4];
};
static_assert(sizeof(struct batch_layout) == BATCH_HEADER_SIZE, "batch header");
static_assert(offsetof(struct batch_layout, length) == BATCH_LENGTH, "batchLength");
static_assert(offsetof(struct batch_layout, leader_epoch) == BATCH_LEADER_EPOCH, "partitionLeaderEpoch");
static_assert(offsetof(struct batch_layout, magic) == BATCH_MAGIC, "magic");
static_assert(offsetof(struct batch_layout, crc) == BATCH_CRC, "crc");
static_assert(offsetof(struct batch_layout, attributes) == BATCH_ATTRIBUTES, "attributes");
static_assert(offsetof(struct batch_layout, last_offset_delta) == BATCH_LAST_OFFSET_DELTA, "lastOffsetDelta");
static_assert(offsetof(struct batch_layout, base_timestamp) == BATCH_BASE_TIMESTAMP, "baseTimestamp");
static_assert(offsetof(struct batch_layout, max_timestamp) == BATCH_MAX_TIMESTAMP, "maxTimestamp");
static_assert(offsetof(struct batch_layout, producer_id) == BATCH_PRODUCER_ID, "producerId");
static_assert(offsetof(struct batch_layout, producer_epoch) == BATCH_PRODUCER_EPOCH, "producerEpoch");
static_assert(offsetof(struct batch_layout, base_sequence) == BATCH_BASE_SEQUENCE, "baseSequence");
static_assert(offsetof(struct batch_layout, record_count) == BATCH_RECORD_COUNT, "recordCount");

int32_t records_sequence_add(int32_t sequence, int32_t n)
{
    return (int32_t)(((int64_t)sequence + n) & INT32_MAX);
}

int32_t batch_last_sequence(const struct batch *b)
{
    return b->base_sequence < 0 ? RECORDS_NO_SEQUENCE : records_sequence_add(b->base_sequence, b->last_offset_delta);
}

int batch_parse_header(struct slice bytes, struct batch *ret_batch)
{
    /* A whole message of magic 0 or 1 may be shorter than today's header. */
    if (bytes.size < BATCH_OLD_SIZE_MIN || (bytes.size < BATCH_HEADER_SIZE && bytes.data[BATCH_MAGIC] >= RECORDS_MAGIC))
        return -ENODATA;
    uint8_t h[BATCH_HEADER_SIZE] = {0};
    memcpy(h, bytes.data, MIN(bytes.size, sizeof h));
    int32_t length = get_i32(h + BATCH_LENGTH);
    struct batch b = {
        .base_offset = get_i64(h + BATCH_BASE_OFFSET),
        .size = (uint32_t)length + BATCH_LENGTH_OVERHEAD,
        .leader_epoch = get_i32(h + BATCH_LEADER_EPOCH),
        .magic = (int8_t)h[BATCH_MAGIC],
        .crc = get_u32(h + BATCH_CRC),
        .attributes = get_i16(h + BATCH_ATTRIBUTES),
        .last_offset_delta = get_i32(h + BATCH_LAST_OFFSET_DELTA),
        .base_timestamp = get_i64(h + BATCH_BASE_TIMESTAMP),
        .max_timestamp = get_i64(h + BATCH_MAX_TIMESTAMP),
        .producer_id = get_i64(h + BATCH_PRODUCER_ID),
        .producer_epoch = get_i16(h + BATCH_PRODUCER_EPOCH),
        .base_sequence = get_i32(h + BATCH_BASE_SEQUENCE),
        .record_count = get_i32(h + BATCH_RECORD_COUNT),
    };
    if (length < BATCH_OLD_SIZE_MIN - BATCH_LENGTH_OVERHEAD || length > BATCH_SIZE_MAX - BATCH_LENGTH_OVERHEAD)
        return -EBADMSG;
    if (b.magic != RECORDS_MAGIC) {
        *ret_batch = b;
        return b.magic == 0 || b.magic == 1 ? -EPROTO : -EBADMSG;
    }
    if (b.size < BATCH_HEADER_SIZE)
        return -EBADMSG;
    *ret_batch = b;
    return 0;
}

int batch_read_header(struct slice bytes, struct batch *ret_batch)
{
    struct batch b;
    int err = batch_parse_header(bytes, &b);
    if (err < 0) {
        if (err == -EPROTO)
            *ret_batch = b;
        return err;
    }
    if (b.record_count < 0 || b.last_offset_delta < 0 || b.base_offset < 0 ||
        b.base_offset > INT64_MAX - b.last_offset_delta - 1)
        return -EBADMSG;
    *ret_batch = b;
    return 0;
}

int batch_next(struct slice *rest, struct batch *ret_batch, struct slice *ret_bytes)
{
    if (rest->size == 0)
        return 0;
    struct batch b;
    int err = batch_read_header(*rest, &b);
    if (err < 0)
        return err;
    if (b.size > rest->size)
        return -ENODATA;
    *ret_batch = b;
    if (ret_bytes != NULL)
        *ret_bytes = slice_make(rest->data, b.size);
    *rest = slice_make(rest->data + b.size, rest->size - b.size);
    return 1;
}

bool batch_crc_holds(const struct batch *b, struct slice bytes)
{
    return b->size >= BATCH_HEADER_SIZE && bytes.size >= b->size &&
           bytes_crc32c(0, bytes.data + BATCH_ATTRIBUTES, b->size - BATCH_ATTRIBUTES) == b->crc;
}

static uint32_t crc_apart(const uint8_t *header, struct slice bytes)
{
    uint32_t crc = bytes_crc32c(0, header + BATCH_ATTRIBUTES, BATCH_HEADER_SIZE - BATCH_ATTRIBUTES);
    return bytes_crc32c(crc, bytes.data + BATCH_HEADER_SIZE, bytes.size - BATCH_HEADER_SIZE);
}

bool batch_crc_holds_apart(const struct batch *b, const uint8_t *header, struct slice bytes)
{
    return b->size >= BATCH_HEADER_SIZE && bytes.size >= b->size &&
           crc_apart(header, slice_make(bytes.data, b->size)) == b->crc;
}

void batch_set_offset(uint8_t *bytes, int64_t base_offset, int32_t leader_epoch)
{
    put_i64(bytes + BATCH_BASE_OFFSET, base_offset);
    put_i32(bytes + BATCH_LEADER_EPOCH, leader_epoch);
}

void batch_set_times(uint8_t *header, struct slice bytes, bool append_time, int64_t max_timestamp)
{
    uint16_t known = BATCH_ATTR_CODEC | BATCH_ATTR_TRANSACTIONAL | BATCH_ATTR_CONTROL | BATCH_ATTR_DELETE_HORIZON;
    uint16_t attributes = get_u16(header + BATCH_ATTRIBUTES) & known;
    put_u16(header + BATCH_ATTRIBUTES, append_time ? attributes | BATCH_ATTR_LOG_APPEND_TIME : attributes);
    put_i64(header + BATCH_MAX_TIMESTAMP, max_timestamp);
    put_u32(header + BATCH_CRC, crc_apart(header, bytes));
}
