/* builder.c - writes batches. */
#include "libs/base/bytes.h"
#include "libs/records/records.h"

void batch_begin(struct batch_builder *b, struct buf *out, const struct batch_options *options)
{
    *b = (struct batch_builder){
        .out = out, .start = out->size, .options = *options, .max_timestamp = RECORDS_NO_TIMESTAMP};
    memset(buf_grow(out, BATCH_HEADER_SIZE), 0, BATCH_HEADER_SIZE);
}

static size_t size_varint(int64_t v)
{
    return size_uvarint64(((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

static size_t size_bytes(struct slice s)
{
    return slice_is_null(s) ? 1 : size_varint((int64_t)s.size) + s.size;
}

static uint8_t *put_bytes(uint8_t *p, struct slice s)
{
    if (slice_is_null(s))
        return p + put_varint64(p, -1);
    p += put_varint64(p, (int64_t)s.size);
    if (s.size > 0)
        memcpy(p, s.data, s.size);
    return p + s.size;
}

void batch_add(struct batch_builder *b, int64_t timestamp, struct slice key, struct slice value,
               const struct record_header *headers, int32_t header_count)
{
    if (b->count == 0)
        b->base_timestamp = timestamp;
    b->max_timestamp = MAX(b->max_timestamp, timestamp);
    int64_t time_delta = timestamp - b->base_timestamp;
    size_t size = 1 + size_varint(time_delta) + size_varint(b->count) + size_bytes(key) + size_bytes(value) +
                  size_varint(header_count);
    for (int32_t i = 0; i < header_count; i++)
        size += size_bytes(headers[i].key) + size_bytes(headers[i].value);

    uint8_t *p = buf_grow(b->out, size_varint((int64_t)size) + size);
    p += put_varint64(p, (int64_t)size);
    *p++ = 0;
    p += put_varint64(p, time_delta);
    p += put_varint64(p, b->count);
    p = put_bytes(p, key);
    p = put_bytes(p, value);
    p += put_varint64(p, header_count);
    for (int32_t i = 0; i < header_count; i++) {
        p = put_bytes(p, headers[i].key);
        p = put_bytes(p, headers[i].value);
    }
    b->count++;
}

void batch_add_control(struct batch_builder *b, int64_t timestamp, int16_t type, struct slice value)
{
    ASSERT(b->options.attributes & BATCH_ATTR_CONTROL);
    uint8_t key[4];
    put_i16(key, 0);
    put_i16(key + 2, type);
    batch_add(b, timestamp, slice_make(key, sizeof key), value, NULL, 0);
}

size_t batch_builder_size(const struct batch_builder *b)
{
    return b->out->size - b->start;
}

int32_t batch_builder_count(const struct batch_builder *b)
{
    return b->count;
}

static int compress_body(struct batch_builder *b)
{
    if (b->options.codec == COMPRESS_NONE)
        return 0;
    struct buf packed = {0};
    size_t start = b->start + BATCH_HEADER_SIZE;
    struct slice body = slice_make(b->out->data + start, b->out->size - start);
    struct compress_writer *kept = b->options.writer, *w = kept != NULL ? kept : compress_writer_new();
    int err = compress_writer_encode(w, b->options.codec, b->options.level, body, &packed);
    if (err == 0) {
        b->out->size = start;
        buf_append(b->out, packed.data, packed.size);
    }
    buf_free(&packed);
    if (w != kept)
        compress_writer_free(w);
    return err;
}

int batch_end(struct batch_builder *b)
{
    int err = b->count > 0 ? compress_body(b) : 0;
    if (err < 0 || b->count == 0) {
        b->out->size = b->start;
        return err;
    }
    const struct batch_options *o = &b->options;
    uint8_t *h = b->out->data + b->start;
    size_t size = batch_builder_size(b);
    put_i64(h + BATCH_BASE_OFFSET, o->base_offset);
    put_i32(h + BATCH_LENGTH, (int32_t)(size - BATCH_LENGTH_OVERHEAD));
    put_i32(h + BATCH_LEADER_EPOCH, o->leader_epoch);
    h[BATCH_MAGIC] = RECORDS_MAGIC;
    put_i16(h + BATCH_ATTRIBUTES, (int16_t)(o->attributes | o->codec));
    put_i32(h + BATCH_LAST_OFFSET_DELTA, b->count - 1);
    put_i64(h + BATCH_BASE_TIMESTAMP, b->base_timestamp);
    put_i64(h + BATCH_MAX_TIMESTAMP, b->max_timestamp);
    put_i64(h + BATCH_PRODUCER_ID, o->producer_id);
    put_i16(h + BATCH_PRODUCER_EPOCH, o->producer_epoch);
    put_i32(h + BATCH_BASE_SEQUENCE, o->base_sequence);
    put_i32(h + BATCH_RECORD_COUNT, b->count);
    put_u32(h + BATCH_CRC, bytes_crc32c(0, h + BATCH_ATTRIBUTES, size - BATCH_ATTRIBUTES));
    return 0;
}
