/* record.c - the records inside a batch:
 *   length varint, attributes int8, timestampDelta varlong, offsetDelta varint, key, value, headerCount varint, headers
 * with key and value as varint length (-1 null) and bytes. */
#include "libs/base/bytes.h"
#include "libs/records/fields.h"

int record_iter_init(struct record_iter *it, const struct batch *b, struct slice bytes, struct buf *scratch,
                     size_t limit_bytes)
{
    return record_iter_init_with(it, NULL, b, bytes, scratch, limit_bytes);
}

int record_iter_init_with(struct record_iter *it, struct compress_reader *reader, const struct batch *b,
                          struct slice bytes, struct buf *scratch, size_t limit_bytes)
{
    ASSERT(bytes.size >= b->size && b->size >= BATCH_HEADER_SIZE);
    struct slice body = slice_make(bytes.data + BATCH_HEADER_SIZE, b->size - BATCH_HEADER_SIZE);
    if (batch_codec(b) != COMPRESS_NONE) {
        scratch->size = 0;
        int err = reader != NULL ? compress_reader_decode(reader, batch_codec(b), body, limit_bytes, scratch)
                                 : compress_decode(batch_codec(b), body, limit_bytes, scratch);
        if (err < 0)
            return err;
        body = buf_slice(scratch);
    }
    *it = (struct record_iter){.batch = *b, .at = body.data, .end = body.data + body.size, .left = b->record_count};
    return 0;
}

static inline bool read_record(const uint8_t *p, const uint8_t *end, const struct batch *b, struct record *r)
{
    struct record_fields f;
    if (!record_read_fields(p, end, &f) || f.offset_delta < 0 || f.offset_delta > b->last_offset_delta)
        return false;
    *r = (struct record){
        .offset = b->base_offset + f.offset_delta,
        .timestamp = record_timestamp(b, f.time_delta),
        .key = f.key,
        .value = f.value,
        .header_count = f.header_count,
        .headers = f.headers,
    };
    return true;
}

static inline int next_record(struct record_iter *it, struct record *r)
{
    if (it->left == 0)
        return it->at == it->end ? 0 : -EBADMSG;
    int32_t size;
    size_t n = get_varint32(it->at, it->end, &size);
    if (n == 0 || size < 0 || size > it->end - it->at - (ptrdiff_t)n)
        return -EBADMSG;
    const uint8_t *p = it->at + n;
    if (!read_record(p, p + size, &it->batch, r))
        return -EBADMSG;
    it->at = p + size;
    it->left--;
    return 1;
}

int record_iter_next(struct record_iter *it, struct record *ret_record)
{
    struct record r;
    int more = next_record(it, &r);
    if (more == 1)
        *ret_record = r;
    return more;
}

int record_iter_sum(struct record_iter *it, struct records_sum *ret_sum)
{
    struct records_sum sum = {INT64_MAX, INT64_MIN, false};
    struct record_iter at = *it;
    struct record r;
    int more;
    while ((more = next_record(&at, &r)) == 1) {
        if (r.timestamp != RECORDS_NO_TIMESTAMP)
            sum.min_timestamp = MIN(sum.min_timestamp, r.timestamp);
        sum.max_timestamp = MAX(sum.max_timestamp, r.timestamp);
        sum.null_key |= slice_is_null(r.key);
    }
    *it = at;
    *ret_sum = sum;
    return more;
}

int record_header_next(struct slice *headers, struct record_header *ret_header)
{
    if (headers->size == 0)
        return 0;
    const uint8_t *p = headers->data, *end = p + headers->size;
    struct record_header h;
    if (!record_read_bytes(&p, end, false, &h.key) || !record_read_bytes(&p, end, true, &h.value))
        return -EBADMSG;
    *headers = slice_make(p, (size_t)(end - p));
    *ret_header = h;
    return 1;
}

int control_type_of(struct slice key)
{
    if (key.size < 4 || get_i16(key.data) < 0 || get_i16(key.data + 2) < 0)
        return -EBADMSG;
    return get_i16(key.data + 2);
}
