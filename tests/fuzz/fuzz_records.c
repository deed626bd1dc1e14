// link: records base
/* fuzz_records.c - the batch decoder on any bytes: headers, records, every codec, control keys, and the stream of
 * records that appends are checked with. */
#include "libs/records/records.h"

enum { BODY_LIMIT = 1 << 20 };

static void walk(const struct batch *b, struct slice bytes, struct buf *scratch)
{
    struct record_iter it;
    struct record r;
    if (record_iter_init(&it, b, bytes, scratch, BODY_LIMIT) < 0)
        return;
    while (record_iter_next(&it, &r) == 1) {
        struct record_header h;
        int32_t headers = 0;
        while (record_header_next(&r.headers, &h) == 1)
            headers++;
        ASSERT(headers == r.header_count);
        ASSERT(r.offset >= b->base_offset && r.offset <= batch_last_offset(b));
        if (batch_is_control(b))
            ASSERT(control_type_of(r.key) >= -EBADMSG);
    }
}

/* The stream takes no record that the iterator does not, says the same of those that both take, and never makes more
 * than the limit, also where it compresses anew. */
static void stream(const struct batch *b, struct slice bytes, struct buf *scratch)
{
    static struct compress_reader *reader;
    static struct compress_writer *writer;
    struct buf copy = {0};
    struct record_iter it;
    struct record r;
    struct record_stream s;
    struct record_facts f;
    if (reader == NULL) {
        reader = compress_reader_new();
        writer = compress_writer_new();
    }
    const struct record_tools tools = {reader, writer};
    int whole = record_iter_init(&it, b, bytes, scratch, BODY_LIMIT);
    ASSERT(compress_writer_begin(writer, COMPRESS_NONE, COMPRESS_LEVEL_DEFAULT, &copy) == 0);
    int more = record_stream_begin(&s, &tools, b, bytes, BODY_LIMIT);
    for (int32_t i = 0; more == 0 && (more = record_stream_next(&s, &f)) == 1; i++, more = 0) {
        ASSERT(i < b->record_count && f.key_size >= -1 && f.value_size >= -1);
        if (whole == 0 && f.offset_delta >= 0 && f.offset_delta <= b->last_offset_delta) {
            ASSERT(record_iter_next(&it, &r) == 1);
            ASSERT(r.timestamp == f.timestamp && r.offset == b->base_offset + f.offset_delta);
            ASSERT(f.key_size == (slice_is_null(r.key) ? -1 : (int64_t)r.key.size));
        } else {
            whole = -EBADMSG;
        }
    }
    ASSERT(more <= 0 && copy.size <= BODY_LIMIT);
    buf_free(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(size ? data : (const uint8_t *)"", size), bytes;
    struct batch b;
    struct buf scratch = {0};
    while (batch_next(&rest, &b, &bytes) == 1) {
        ASSERT(bytes.size == b.size);
        if (batch_crc_holds(&b, bytes))
            ASSERT(b.magic == RECORDS_MAGIC);
        walk(&b, bytes, &scratch); /* also with a wrong CRC, or the fuzzer would never get in */
        stream(&b, bytes, &scratch);
    }
    /* And straight into the codecs. */
    for (int codec = COMPRESS_NONE; size > 0 && codec <= COMPRESS_ZSTD; codec++) {
        scratch.size = 0;
        if (compress_decode(codec, slice_make(data, size), BODY_LIMIT, &scratch) == 0)
            ASSERT(scratch.size <= BODY_LIMIT);
        else
            ASSERT(scratch.size == 0);
    }
    buf_free(&scratch);
    return 0;
}
