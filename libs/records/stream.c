/* stream.c - records of a batch one after the other, decompressed piece by piece: a record that lies in one piece is
 * read where it is; of one that goes over the end of a piece the fields are read byte by byte, and keys and values are
 * passed over. */
#include "libs/base/bytes.h"
#include "libs/records/fields.h"

int record_stream_begin(struct record_stream *s, const struct record_tools *tools, const struct batch *b,
                        struct slice bytes, size_t limit_bytes)
{
    ASSERT(bytes.size >= b->size && b->size >= BATCH_HEADER_SIZE);
    struct slice body = slice_make(bytes.data + BATCH_HEADER_SIZE, b->size - BATCH_HEADER_SIZE);
    *s = (struct record_stream){.tools = *tools, .batch = *b, .left = b->record_count};
    return compress_reader_begin(tools->reader, batch_codec(b), body, limit_bytes);
}

/* The next piece: 1; 0 at the end of the stream; or an error. */
static int refill(struct record_stream *s)
{
    struct slice piece;
    int more = compress_reader_next(s->tools.reader, &piece);
    if (more <= 0)
        return more;
    s->at = piece.data;
    s->end = piece.data + piece.size;
    int err = s->tools.copy != NULL ? compress_writer_write(s->tools.copy, piece) : 0;
    return err < 0 ? err : 1;
}

/* ---- a record over several pieces; *left: the bytes of it that are still to come ---- */

static int take_byte(struct record_stream *s, int64_t *left, uint8_t *ret)
{
    if (*left <= 0)
        return -EBADMSG;
    int more = s->at < s->end ? 1 : refill(s);
    if (more <= 0)
        return more < 0 ? more : -EBADMSG;
    *ret = *s->at++;
    (*left)--;
    return 0;
}

static int take_varint(struct record_stream *s, int64_t *left, int bits, int64_t *ret)
{
    uint8_t bytes[10];
    size_t n = 0, most = bits == 32 ? 5 : 10;
    int err;
    do {
        err = n < most ? take_byte(s, left, &bytes[n]) : -EBADMSG;
    } while (err == 0 && bytes[n++] >= 0x80);
    if (err < 0)
        return err;
    if (bits == 64)
        return get_varint64(bytes, bytes + n, ret) == n ? 0 : -EBADMSG;
    int32_t small = 0;
    if (get_varint32(bytes, bytes + n, &small) != n)
        return -EBADMSG;
    *ret = small;
    return 0;
}

static int skip(struct record_stream *s, int64_t *left, int64_t size)
{
    if (size > *left)
        return -EBADMSG;
    *left -= MAX(size, (int64_t)0);
    while (size > 0) {
        int more = s->at < s->end ? 1 : refill(s);
        if (more <= 0)
            return more < 0 ? more : -EBADMSG;
        int64_t step = MIN(size, (int64_t)(s->end - s->at));
        s->at += step;
        size -= step;
    }
    return 0;
}

/* A length and that many bytes; *ret_size -1: null. */
static int take_bytes(struct record_stream *s, int64_t *left, bool null_allowed, int64_t *ret_size)
{
    int err = take_varint(s, left, 32, ret_size);
    if (err == 0 && *ret_size < (null_allowed ? -1 : 0))
        err = -EBADMSG;
    return err < 0 ? err : skip(s, left, *ret_size);
}

static int take_headers(struct record_stream *s, int64_t *left)
{
    int64_t count, size;
    int err = take_varint(s, left, 32, &count);
    if (err == 0 && (count < 0 || count > *left))
        err = -EBADMSG;
    for (int64_t i = 0; err == 0 && i < count; i++) {
        err = take_bytes(s, left, false, &size);
        if (err == 0)
            err = take_bytes(s, left, true, &size);
    }
    return err;
}

static int take_record(struct record_stream *s, struct record_facts *f)
{
    uint8_t attributes;
    int64_t size, left = 5, delta, time_delta;
    int err = take_varint(s, &left, 32, &size);
    left = size;
    if (err == 0)
        err = take_byte(s, &left, &attributes);
    if (err == 0)
        err = take_varint(s, &left, 64, &time_delta);
    if (err == 0)
        err = take_varint(s, &left, 32, &delta);
    if (err < 0)
        return err;
    f->offset_delta = (int32_t)delta;
    f->timestamp = record_timestamp(&s->batch, time_delta);
    err = take_bytes(s, &left, true, &f->key_size);
    if (err == 0)
        err = take_bytes(s, &left, true, &f->value_size);
    if (err == 0)
        err = take_headers(s, &left);
    return err == 0 && left != 0 ? -EBADMSG : err;
}

static int64_t size_of(struct slice s)
{
    return slice_is_null(s) ? -1 : (int64_t)s.size;
}

int record_stream_next(struct record_stream *s, struct record_facts *ret_facts)
{
    if (s->left == 0) {
        int more = s->at < s->end ? 1 : refill(s);
        return more == 1 ? -EBADMSG : more;
    }
    s->left--;
    int32_t size;
    size_t n = get_varint32(s->at, s->end, &size);
    if (n == 0 || size < 0 || size > s->end - s->at - (ptrdiff_t)n) {
        int err = take_record(s, ret_facts);
        return err < 0 ? err : 1;
    }
    struct record_fields r;
    const uint8_t *p = s->at + n;
    if (!record_read_fields(p, p + size, &r))
        return -EBADMSG;
    s->at = p + size;
    *ret_facts = (struct record_facts){
        .timestamp = record_timestamp(&s->batch, r.time_delta),
        .offset_delta = r.offset_delta,
        .key_size = size_of(r.key),
        .value_size = size_of(r.value),
    };
    return 1;
}
