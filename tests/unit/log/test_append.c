/* test_append.c - what is taken by a log, what is refused, and what of it comes back. */
#include "help.h"
#include "libs/base/bytes.h"
#include <criterion/criterion.h>
#include <stdlib.h>

Test(append, appends_get_offsets_and_come_back)
{
    struct log_options o = help_options(help_dir("append"));
    struct log *l = help_open(&o);
    struct log_append a;
    for (int i = 0; i < 200; i++) {
        struct help_batch b = HELP_BATCH;
        b.count = 1 + i % 7;
        b.codec = i % 5;
        b.timestamp = HELP_NOW_MS + i * 10;
        int64_t end = log_end(l);
        cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
        cr_assert_eq(a.base_offset, end);
        cr_assert_eq(a.next_offset, end + b.count);
        cr_assert_eq(a.append_time_ms, -1);
    }
    int64_t end = log_end(l);
    cr_assert_eq(help_read_all(l, 1), end);
    cr_assert_eq(help_read_all(l, 1000), end);
    cr_assert_eq(help_read_all(l, 1 << 20), end);
    struct log_range r;
    cr_assert_eq(log_locate(l, end, end, 100, true, &r), KERR_NONE);
    cr_assert_eq(r.size_bytes, 0);
    cr_assert_eq(log_locate(l, end + 1, end, 100, true, &r), KERR_OFFSET_OUT_OF_RANGE);
    cr_assert_eq(log_locate(l, 0, end, 10, false, &r), KERR_NONE);
    cr_assert_eq(r.size_bytes, 0, "the first batch does not fit");
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);

    o.clean = true;
    o.recovery_point = end;
    l = help_open(&o);
    cr_assert_eq(log_end(l), end);
    cr_assert_eq(help_read_all(l, 5000), end);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}

Test(append, bad_batches_are_refused)
{
    struct log_options o = help_options(help_dir("bad"));
    o.config.message_timestamp_after_max_ms = 3600000;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    struct log_append a;

    b.timestamp = HELP_NOW_MS + 3600001;
    cr_assert_eq(help_append(l, &b, &a), KERR_INVALID_TIMESTAMP);
    cr_assert_eq(a.record_error_count, 1);
    b = HELP_BATCH;
    b.attributes = BATCH_ATTR_TRANSACTIONAL;
    cr_assert_eq(help_append(l, &b, &a), KERR_INVALID_TXN_STATE);
    b = HELP_BATCH;
    b.value_bytes = 2000000;
    cr_assert_eq(help_append(l, &b, &a), KERR_MESSAGE_TOO_LARGE);

    b = HELP_BATCH;
    struct buf bytes = help_batch(&b);
    struct log_append raw = {.bytes = bytes.data, .now_wall_ms = HELP_NOW_MS};
    for (size_t n = 0; n < bytes.size; n++) {
        raw.size = n;
        cr_assert_eq(log_stage(l, &raw), KERR_INVALID_RECORD, "cut to %zu", n);
    }
    raw.size = bytes.size;
    bytes.data[bytes.size - 1] ^= 1;
    cr_assert_eq(log_stage(l, &raw), KERR_CORRUPT_MESSAGE);
    bytes.data[bytes.size - 1] ^= 1;
    bytes.data[BATCH_MAGIC] = 1;
    cr_assert_eq(log_stage(l, &raw), KERR_INVALID_RECORD);
    bytes.data[BATCH_MAGIC] = 2;
    put_i64(bytes.data, 1);
    cr_assert_eq(log_stage(l, &raw), KERR_INVALID_RECORD);
    put_i64(bytes.data, 0);
    size_t one = bytes.size;
    buf_reserve(&bytes, one);
    memcpy(bytes.data + one, bytes.data, one);
    raw.bytes = bytes.data;
    raw.size = 2 * one;
    cr_assert_eq(log_stage(l, &raw), KERR_INVALID_RECORD, "two batches");
    cr_assert_not(log_has_staged(l));
    cr_assert_eq(log_end(l), 0);
    buf_free(&bytes);
    log_abandon(l);
}

/* The header says that so many records follow. */
static void claim(struct buf *batch, int32_t count)
{
    put_i32(batch->data + BATCH_RECORD_COUNT, count);
    put_i32(batch->data + BATCH_LAST_OFFSET_DELTA, count - 1);
    help_reseal(batch);
}

/* A header that claims more or fewer records than there are would stop every reader of the partition. */
Test(append, records_are_as_many_as_the_header_says)
{
    struct log_options o = help_options(help_dir("counts"));
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    b.count = 3;
    struct buf bytes = help_batch(&b);
    struct log_append a = {.bytes = bytes.data, .size = bytes.size, .now_wall_ms = HELP_NOW_MS};
    static const int32_t counts[] = {1, 2, 4, 1000, INT32_MAX, 3};
    for (size_t i = 0; i < COUNTOF(counts); i++) {
        claim(&bytes, counts[i]);
        cr_assert_eq(log_stage(l, &a), counts[i] == 3 ? KERR_NONE : KERR_INVALID_RECORD, "%d", counts[i]);
        cr_assert_eq(a.record_error_count, 0);
    }
    cr_assert_eq(log_commit(l), 0);
    cr_assert_eq(log_end(l), 3);
    buf_free(&bytes);
    log_abandon(l);
}

Test(append, compacted_topics_need_keys)
{
    struct log_options o = help_options(help_dir("keys"));
    o.config.cleanup_compact = true;
    struct log *l = help_open(&o);
    struct buf out = {0};
    struct batch_builder b;
    batch_begin(&b, &out, &BATCH_OPTIONS);
    batch_add(&b, HELP_NOW_MS, SLICE_OF("k"), SLICE_OF("v"), NULL, 0);
    batch_add(&b, HELP_NOW_MS, SLICE_NULL, SLICE_OF("v"), NULL, 0);
    cr_assert_eq(batch_end(&b), 0);
    struct log_append a = {.bytes = out.data, .size = out.size, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_stage(l, &a), KERR_INVALID_RECORD);
    cr_assert_eq(a.record_error_count, 1);
    cr_assert_eq(a.record_errors[0].index, 1);
    free(a.record_errors);
    buf_free(&out);
    log_abandon(l);
}

/* Compressed batches are read record by record, in bounded memory: what lies about itself is refused. */
Test(append, compressed_batches_are_looked_into)
{
    struct log_options o = help_options(help_dir("packed"));
    o.config.max_message_bytes = 20000;
    struct log *l = help_open(&o);
    int64_t end = 0;
    for (int codec = COMPRESS_GZIP; codec <= COMPRESS_ZSTD; codec++) {
        struct help_batch b = HELP_BATCH;
        b.codec = codec;
        b.count = 3;
        struct buf bytes = help_batch(&b);
        struct log_append a = {.bytes = bytes.data, .size = bytes.size, .now_wall_ms = HELP_NOW_MS};
        for (int32_t count = 1; count <= 5; count++) {
            claim(&bytes, count);
            cr_assert_eq(log_stage(l, &a), count == 3 ? KERR_NONE : KERR_INVALID_RECORD, "%d of %d", count, codec);
        }
        end += 3;
        buf_free(&bytes);
        /* 64 times max.message.bytes is what may come out: 1.28 MB. */
        b.count = 1;
        for (b.value_bytes = 1000000; b.value_bytes < 2000000; b.value_bytes += 500000) {
            bool fits = b.value_bytes == 1000000;
            uint8_t *zeroes = xcalloc(1, b.value_bytes);
            struct buf bomb = {0};
            struct batch_options options = BATCH_OPTIONS;
            options.codec = codec;
            struct batch_builder builder;
            batch_begin(&builder, &bomb, &options);
            batch_add(&builder, HELP_NOW_MS, SLICE_NULL, slice_make(zeroes, b.value_bytes), NULL, 0);
            cr_assert_eq(batch_end(&builder), 0);
            a = (struct log_append){.bytes = bomb.data, .size = bomb.size, .now_wall_ms = HELP_NOW_MS};
            if (bomb.size < 20000) { /* snappy does not get that small */
                cr_assert_eq(log_stage(l, &a), fits ? KERR_NONE : KERR_MESSAGE_TOO_LARGE, "%d", codec);
                end += fits;
            }
            buf_free(&bomb);
            free(zeroes);
        }
    }
    cr_assert_eq(log_commit(l), 0);
    cr_assert_eq(log_end(l), end);
    log_abandon(l);
}

/* compression.type: what is written has the topic's codec, and the same records, times, producer and sequence. */
Test(append, batches_are_compressed_anew)
{
    struct log_options o = help_options(help_dir("anew"));
    struct log *l = help_open(&o);
    int64_t at = 0;
    for (int to = -1; to <= COMPRESS_ZSTD; to++) {
        o.config.compression = to;
        log_set_config(l, &o.config);
        for (int from = COMPRESS_NONE; from <= COMPRESS_ZSTD; from++, at += 50) {
            struct help_batch b = HELP_BATCH;
            b.codec = from;
            b.count = 50;
            b.value_bytes = 3000;
            b.producer_id = at;
            b.producer_epoch = 2;
            b.sequence = 7;
            struct log_append a;
            cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
            cr_assert_eq(a.base_offset, at);
            struct batch h;
            struct buf got = help_read_batch(l, at, &h), scratch = {0};
            cr_assert(batch_crc_holds(&h, buf_slice(&got)));
            cr_assert_eq(batch_codec(&h), to < 0 ? from : to);
            cr_assert(h.base_offset == at && h.producer_id == at && h.producer_epoch == 2 && h.base_sequence == 7);
            cr_assert(h.base_timestamp == HELP_NOW_MS && h.max_timestamp == HELP_NOW_MS + 49);
            struct record_iter it;
            struct record record;
            int n = 0;
            cr_assert_eq(record_iter_init(&it, &h, buf_slice(&got), &scratch, 1 << 20), 0);
            for (; record_iter_next(&it, &record) == 1; n++)
                cr_assert(record.offset == at + n && record.timestamp == HELP_NOW_MS + n && record.value.size == 3000);
            cr_assert_eq(n, 50);
            buf_free(&got);
            buf_free(&scratch);
        }
    }
    log_abandon(l);
}

Test(append, append_time)
{
    struct log_options o = help_options(help_dir("logappend"));
    o.config.log_append_time = true;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    struct log_append a;
    b.timestamp = 5;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_eq(a.append_time_ms, HELP_NOW_MS);
    struct log_offset found;
    cr_assert_eq(log_offset_by_time(l, HELP_NOW_MS, &found, NULL), KERR_NONE);
    cr_assert_eq(found.offset, 0);
    cr_assert_eq(found.timestamp, HELP_NOW_MS);
    cr_assert_eq(help_read_all(l, 1000), 1);
    log_abandon(l);
}
