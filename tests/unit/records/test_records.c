/* test_records.c - batches: built, read back, broken. */
#include "libs/base/bytes.h"
#include "libs/records/records.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODY_LIMIT = 1 << 20 };

static void add_records(struct batch_builder *b, int n)
{
    for (int i = 0; i < n; i++) {
        char key[32], value[64];
        int k = snprintf(key, sizeof key, "key-%d", i), v = snprintf(value, sizeof value, "value-%d-%d", i, i * i);
        struct record_header h[2] = {{SLICE_OF("h1"), SLICE_OF("v1")}, {SLICE_OF("h2"), SLICE_NULL}};
        batch_add(b, 1000 + i, i % 3 ? slice_make(key, (size_t)k) : SLICE_NULL,
                  i % 5 ? slice_make(value, (size_t)v) : SLICE_NULL, h, i % 2 ? 2 : 0);
    }
}

static void build(struct buf *out, int codec, int n)
{
    struct batch_options o = BATCH_OPTIONS;
    o.base_offset = 77;
    o.codec = codec;
    o.producer_id = 5;
    o.producer_epoch = 1;
    o.base_sequence = INT32_MAX;
    struct batch_builder b;
    batch_begin(&b, out, &o);
    add_records(&b, n);
    cr_assert_eq(batch_end(&b), 0);
}

Test(records, every_codec_comes_back)
{
    for (int codec = COMPRESS_NONE; codec <= COMPRESS_ZSTD; codec++) {
        struct buf out = {0}, scratch = {0};
        build(&out, codec, 100);
        struct slice rest = buf_slice(&out), bytes;
        struct batch b;
        cr_assert_eq(batch_next(&rest, &b, &bytes), 1);
        cr_assert_eq(rest.size, 0);
        cr_assert(batch_crc_holds(&b, bytes));
        cr_assert_eq(b.base_offset, 77);
        cr_assert_eq(batch_next_offset(&b), 177);
        cr_assert_eq(b.record_count, 100);
        cr_assert_eq(b.max_timestamp, 1099);
        cr_assert_eq(batch_last_sequence(&b), 98);
        struct record_iter it;
        struct record r;
        cr_assert_eq(record_iter_init(&it, &b, bytes, &scratch, BODY_LIMIT), 0, "%s", compress_name(codec));
        int i = 0;
        for (; record_iter_next(&it, &r) == 1; i++) {
            cr_assert_eq(r.offset, 77 + i);
            cr_assert_eq(r.timestamp, 1000 + i);
            cr_assert_eq(slice_is_null(r.key), i % 3 == 0);
            cr_assert_eq(slice_is_null(r.value), i % 5 == 0);
            struct record_header h;
            int headers = 0;
            while (record_header_next(&r.headers, &h) == 1)
                headers++;
            cr_assert_eq(headers, i % 2 ? 2 : 0);
        }
        cr_assert_eq(i, 100);
        buf_free(&out);
        buf_free(&scratch);
    }
}

Test(records, decompression_is_bounded)
{
    size_t size = 1 << 20;
    uint8_t *zeroes = xcalloc(1, size);
    for (int codec = COMPRESS_NONE; codec <= COMPRESS_ZSTD; codec++) {
        struct buf packed = {0}, out = {0};
        cr_assert_eq(compress_encode(codec, slice_make(zeroes, size), &packed), 0);
        cr_assert_eq(compress_decode(codec, buf_slice(&packed), size - 1, &out), -ENOSPC, "%s", compress_name(codec));
        cr_assert_eq(out.size, 0);
        cr_assert_eq(compress_decode(codec, buf_slice(&packed), size, &out), 0, "%s", compress_name(codec));
        cr_assert_eq(out.size, size);
        if (codec != COMPRESS_NONE) {
            out.size = 0;
            cr_assert_eq(compress_decode(codec, slice_make(packed.data, packed.size - 5), size, &out), -EBADMSG, "%s",
                         compress_name(codec));
        }
        buf_free(&packed);
        buf_free(&out);
    }
    free(zeroes);
    cr_assert_eq(compress_decode(5, SLICE_EMPTY, 1, &(struct buf){0}), -EINVAL);
}

static size_t random_size(unsigned *seed)
{
    static const size_t bounds[] = {1, 10, 200, 3000, 100000};
    return (size_t)rand_r(seed) % bounds[(size_t)rand_r(seed) % COUNTOF(bounds)];
}

/* Records of all sizes, so that they end in, at and behind the ends of pieces: the stream says of each what the
 * iterator over all bytes says, and what it copies is what was compressed. */
Test(records, a_stream_reads_what_an_iterator_reads, .timeout = 60)
{
    struct compress_reader *reader = compress_reader_new();
    struct compress_writer *writer = compress_writer_new();
    uint8_t *noise = xmalloc(200000);
    unsigned seed = 5;
    for (size_t i = 0; i < 200000; i++)
        noise[i] = (uint8_t)(rand_r(&seed) % 7);
    for (int time = 0; time < 50; time++) {
        struct buf out = {0}, scratch = {0}, copy = {0}, back = {0};
        struct batch_options o = BATCH_OPTIONS;
        struct batch_builder w;
        o.codec = time % COMPRESS_CODECS;
        batch_begin(&w, &out, &o);
        for (int i = rand_r(&seed) % 60; i >= 0; i--) {
            struct record_header h = {SLICE_OF("header"), slice_make(noise, random_size(&seed) / 8)};
            struct slice key = rand_r(&seed) % 3 ? slice_make(noise, random_size(&seed)) : SLICE_NULL;
            batch_add(&w, 1000 + rand_r(&seed) % 100000, key, slice_make(noise, random_size(&seed)), &h,
                      rand_r(&seed) % 2);
        }
        cr_assert_eq(batch_end(&w), 0);
        struct batch b;
        struct record_iter it;
        struct record r;
        struct record_stream s;
        struct record_facts f;
        const struct record_tools tools = {reader, writer};
        int codec = (time / 5) % COMPRESS_CODECS, n = 0;
        cr_assert_eq(batch_read_header(buf_slice(&out), &b), 0);
        cr_assert_eq(record_iter_init(&it, &b, buf_slice(&out), &scratch, 1 << 28), 0);
        cr_assert_eq(compress_writer_begin(writer, codec, COMPRESS_LEVEL_DEFAULT, &copy), 0);
        cr_assert_eq(record_stream_begin(&s, &tools, &b, buf_slice(&out), 1 << 28), 0);
        for (; record_iter_next(&it, &r) == 1; n++) {
            cr_assert_eq(record_stream_next(&s, &f), 1, "record %d of batch %d", n, time);
            cr_assert(f.offset_delta == n && f.timestamp == r.timestamp);
            cr_assert_eq(f.key_size, slice_is_null(r.key) ? -1 : (int64_t)r.key.size);
            cr_assert_eq(f.value_size, (int64_t)r.value.size);
        }
        cr_assert(n == b.record_count && record_stream_next(&s, &f) == 0);
        cr_assert_eq(compress_writer_end(writer), 0);
        cr_assert_eq(compress_decode(codec, buf_slice(&copy), 1 << 28, &back), 0);
        struct slice body = slice_make(out.data + BATCH_HEADER_SIZE, out.size - BATCH_HEADER_SIZE);
        cr_assert(slice_eq(buf_slice(&back), o.codec == COMPRESS_NONE ? body : buf_slice(&scratch)));
        buf_free(&out);
        buf_free(&scratch);
        buf_free(&copy);
        buf_free(&back);
    }
    free(noise);
    compress_reader_free(reader);
    compress_writer_free(writer);
}

/* Every level that Kafka allows makes a stream that is read again. */
Test(records, levels)
{
    static const struct {
        int codec, first, last, step;
    } levels[] = {{COMPRESS_GZIP, 1, 9, 1},
                  {COMPRESS_GZIP, -1, -1, 1},
                  {COMPRESS_LZ4, 1, 17, 1},
                  {COMPRESS_ZSTD, -131072, 22, 26218},
                  {COMPRESS_ZSTD, 1, 22, 3}};
    uint8_t data[5000];
    struct compress_writer *writer = compress_writer_new();
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * i / 77);
    for (size_t i = 0; i < COUNTOF(levels); i++)
        for (int level = levels[i].first; level <= levels[i].last; level += levels[i].step) {
            struct buf out = {0}, back = {0};
            cr_assert_eq(compress_writer_begin(writer, levels[i].codec, level, &out), 0);
            cr_assert_eq(compress_writer_write(writer, slice_make(data, sizeof data)), 0);
            cr_assert_eq(compress_writer_end(writer), 0);
            cr_assert_eq(compress_decode(levels[i].codec, buf_slice(&out), sizeof data, &back), 0, "level %d", level);
            cr_assert(back.size == sizeof data && memcmp(back.data, data, sizeof data) == 0);
            buf_free(&out);
            buf_free(&back);
        }
    compress_writer_free(writer);
}

Test(records, bare_snappy_is_read)
{
    /* "abcabcabcabc" as one raw block: length 12, literal of 3, copy of 9 from 3 back. */
    static const uint8_t raw[] = {12, 2 << 2, 'a', 'b', 'c', (9 - 4) << 2 | 1, 3};
    struct buf out = {0};
    cr_assert_eq(compress_decode(COMPRESS_SNAPPY, slice_make(raw, sizeof raw), 100, &out), 0);
    cr_assert(slice_eq_str(buf_slice(&out), "abcabcabcabc"));
    buf_free(&out);
}

Test(records, every_truncation_is_refused)
{
    struct buf out = {0}, scratch = {0};
    build(&out, COMPRESS_NONE, 3);
    for (size_t n = 1; n < out.size; n++) {
        struct slice rest = slice_make(out.data, n);
        struct batch b;
        cr_assert_eq(batch_next(&rest, &b, NULL), -ENODATA);
    }
    /* A body that is cut while the header still counts all records. */
    struct batch b;
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), 0);
    for (size_t n = BATCH_HEADER_SIZE; n < out.size; n++) {
        struct batch cut = b;
        cut.size = (uint32_t)n;
        struct record_iter it;
        struct record r;
        cr_assert_eq(record_iter_init(&it, &cut, buf_slice(&out), &scratch, BODY_LIMIT), 0);
        int more;
        while ((more = record_iter_next(&it, &r)) == 1)
            ;
        cr_assert_eq(more, -EBADMSG);
    }
    buf_free(&out);
}

Test(records, headers_that_lie_are_refused)
{
    struct buf out = {0};
    struct batch b;
    build(&out, COMPRESS_NONE, 1);
    put_i32(out.data + BATCH_LENGTH, -1);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), -EBADMSG);
    put_i32(out.data + BATCH_LENGTH, INT32_MAX);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), -EBADMSG);
    put_i32(out.data + BATCH_LENGTH, 48);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), -EBADMSG);
    put_i32(out.data + BATCH_LENGTH, 49);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), 0);
    put_i32(out.data + BATCH_RECORD_COUNT, -1);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), -EBADMSG);
    put_i32(out.data + BATCH_RECORD_COUNT, 1);
    put_i64(out.data + BATCH_BASE_OFFSET, INT64_MAX);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), -EBADMSG);
    put_i64(out.data + BATCH_BASE_OFFSET, 0);
    out.data[BATCH_MAGIC] = 1;
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), -EPROTO);
    buf_free(&out);
}

Test(records, old_messages_may_be_shorter_than_a_header)
{
    uint8_t message[BATCH_OLD_SIZE_MIN] = {0};
    struct batch b;
    put_i64(message + BATCH_BASE_OFFSET, 7);
    put_i32(message + BATCH_LENGTH, (int32_t)sizeof message - BATCH_LENGTH_OVERHEAD);
    cr_assert_eq(batch_read_header(slice_make(message, sizeof message), &b), -EPROTO);
    cr_assert_eq(b.base_offset, 7);
    cr_assert_eq(b.size, sizeof message);
    cr_assert_eq(b.magic, 0);
    cr_assert_eq(batch_read_header(slice_make(message, sizeof message - 1), &b), -ENODATA);
    message[BATCH_MAGIC] = RECORDS_MAGIC;
    cr_assert_eq(batch_read_header(slice_make(message, sizeof message), &b), -ENODATA);
}

Test(records, append_time_keeps_the_crc_true)
{
    struct buf out = {0};
    build(&out, COMPRESS_LZ4, 10);
    struct batch b;
    batch_set_offset(out.data, 123456, 7);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), 0);
    cr_assert(batch_crc_holds(&b, buf_slice(&out)));
    batch_set_times(out.data, buf_slice(&out), true, 9999);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), 0);
    cr_assert(batch_crc_holds(&b, buf_slice(&out)));
    cr_assert_eq(b.max_timestamp, 9999);
    cr_assert(b.attributes & BATCH_ATTR_LOG_APPEND_TIME);
    cr_assert_eq(b.leader_epoch, 7);
    buf_free(&out);
}

Test(records, control_batches)
{
    struct buf out = {0}, scratch = {0};
    struct batch_options o = BATCH_OPTIONS;
    o.attributes = BATCH_ATTR_CONTROL;
    struct batch_builder b;
    batch_begin(&b, &out, &o);
    batch_add_control(&b, 5, CONTROL_LEADER_CHANGE, SLICE_OF("\0\0body"));
    cr_assert_eq(batch_end(&b), 0);
    struct batch h;
    struct record_iter it;
    struct record r;
    cr_assert_eq(batch_read_header(buf_slice(&out), &h), 0);
    cr_assert(batch_is_control(&h));
    cr_assert_eq(record_iter_init(&it, &h, buf_slice(&out), &scratch, 0), 0);
    cr_assert_eq(record_iter_next(&it, &r), 1);
    cr_assert_eq(control_type_of(r.key), CONTROL_LEADER_CHANGE);
    cr_assert_eq(control_type_of(SLICE_OF("abc")), -EBADMSG);
    buf_free(&out);
}

Test(records, an_empty_batch_is_taken_back)
{
    struct buf out = {0};
    buf_append(&out, "before", 6);
    struct batch_builder b;
    batch_begin(&b, &out, &BATCH_OPTIONS);
    cr_assert_eq(batch_end(&b), 0);
    cr_assert_eq(out.size, 6);
    buf_free(&out);
}

Test(records, the_sum_of_a_batch_is_that_of_its_records)
{
    struct buf out = {0};
    struct batch_builder builder;
    struct batch b;
    struct record_iter it;
    struct records_sum sum;
    static const int64_t times[] = {50, -1, 7, 900};
    batch_begin(&builder, &out, &BATCH_OPTIONS);
    for (size_t i = 0; i < COUNTOF(times); i++)
        batch_add(&builder, times[i], i == 2 ? SLICE_NULL : SLICE_OF("k"), SLICE_OF("v"), NULL, 0);
    cr_assert_eq(batch_end(&builder), 0);
    cr_assert_eq(batch_read_header(buf_slice(&out), &b), 0);
    cr_assert_eq(record_iter_init(&it, &b, buf_slice(&out), NULL, 0), 0);
    cr_assert_eq(record_iter_sum(&it, &sum), 0);
    cr_assert_eq(sum.min_timestamp, 7);
    cr_assert_eq(sum.max_timestamp, 900);
    cr_assert(sum.null_key);
    /* Any byte of the body that makes it no record for one makes it none for the other. */
    for (size_t i = BATCH_HEADER_SIZE; i < out.size; i++) {
        for (int bit = 0; bit < 8; bit++) {
            struct record r;
            int more;
            out.data[i] ^= (uint8_t)(1 << bit);
            cr_assert_eq(record_iter_init(&it, &b, buf_slice(&out), NULL, 0), 0);
            while ((more = record_iter_next(&it, &r)) == 1)
                ;
            cr_assert_eq(record_iter_init(&it, &b, buf_slice(&out), NULL, 0), 0);
            cr_assert_eq(record_iter_sum(&it, &sum), more);
            out.data[i] ^= (uint8_t)(1 << bit);
        }
    }
    buf_free(&out);
}
