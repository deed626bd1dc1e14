// link: records base
/* fuzz_records.c - the batch decoder on any bytes: headers, records, every codec, control keys. */
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
