// link: log records base
/* fuzz_log_clean.c - a cleaning of any bytes as segments, with any bytes as index of aborted transactions: it says why
 * not, or leaves whole batches, in order, each of which was there before or is a rest of one; and once more it finds
 * nothing to drop. */
#include "libs/log/clean.h"
#include "tests/fuzz/mem_files.h"

/* The offsets of all records from the log start on: whole batches in order. */
static size_t read_offsets(struct log *l, int64_t *offsets, size_t capacity)
{
    size_t n = 0;
    for (int64_t at = log_start(l); at < log_end(l);) {
        struct log_range r;
        ASSERT(log_locate(l, at, log_end(l), 1, true, &r) == KERR_NONE && r.size_bytes > 0);
        uint8_t *bytes = xmalloc(r.size_bytes);
        struct buf scratch = {0};
        struct record_iter it;
        struct record record;
        struct batch b;
        ASSERT(log_copy(l, &r, bytes) == 0);
        ASSERT(batch_read_header(slice_make(bytes, r.size_bytes), &b) == 0 && b.size == r.size_bytes);
        ASSERT(batch_crc_holds(&b, slice_make(bytes, r.size_bytes)) && batch_next_offset(&b) > at);
        ASSERT(record_iter_init(&it, &b, slice_make(bytes, r.size_bytes), &scratch, 1 << 26) == 0);
        int more;
        while ((more = record_iter_next(&it, &record)) == 1 && n < capacity)
            offsets[n++] = record.offset;
        ASSERT(more >= 0);
        buf_free(&scratch);
        free(bytes);
        at = batch_next_offset(&b);
    }
    return n;
}

static void append_keyed(struct log *l)
{
    struct buf out = {0};
    struct batch_builder b;
    batch_begin(&b, &out, &BATCH_OPTIONS);
    batch_add(&b, 1, SLICE_OF("k"), SLICE_OF("v"), NULL, 0);
    ASSERT(batch_end(&b) == 0);
    struct log_append a = {.bytes = out.data, .size = out.size, .leader_epoch = 0, .now_wall_ms = 1};
    if (log_stage(l, &a) == KERR_NONE)
        ASSERT(log_commit(l) == 0);
    buf_free(&out);
}

static int clean(struct log *l, uint8_t map_entries, int64_t now_ms)
{
    struct log_dirt d;
    struct log_clean_options o = {
        .map_bytes = 24u * map_entries, .map_load = 0.9, .io_bytes = 100, .now_wall_ms = now_ms};
    if (log_clean_look(l, -1, INT64_MAX, now_ms, &d) != 0)
        return -EAGAIN;
    struct log_clean *c = log_clean_begin(l, &d, &o);
    int more = -EAGAIN;
    while (c != NULL && more != 0) {
        log_clean_step(c, 200);
        more = log_clean_turn(c, now_ms);
        if (more < 0)
            break;
    }
    log_clean_end(c);
    return more;
}

static void try_log(struct log *l, uint8_t map_entries)
{
    enum { MOST = 4096 };
    static int64_t before[MOST], after[MOST];
    append_keyed(l);
    if (log_roll(l, 1) != 0 || log_flush(l) != 0)
        return;
    append_keyed(l);
    if (log_flush(l) != 0)
        return;
    int64_t start = log_start(l), end = log_end(l);
    int err = clean(l, map_entries, 5);
    ASSERT(err == 0 || err == -EAGAIN || err == -EBADMSG || err == -EFBIG || log_failed(l) != 0);
    ASSERT(log_start(l) == start && log_end(l) == end);
    if (err != 0 || log_failed(l) != 0)
        return;
    size_t n = read_offsets(l, before, MOST);
    for (size_t i = 1; i < n; i++)
        ASSERT(before[i] > before[i - 1]);
    /* The first may have got to a part of it only, or have left nothing. */
    err = clean(l, 255, 5);
    ASSERT(err == 0 || err == -EAGAIN || err == -EBADMSG);
    ASSERT(read_offsets(l, after, MOST) <= n);
}

/* Batches made as the input says, four bytes a record: most of what is random would be no batch at all. */
static struct slice build_batches(struct slice in, struct buf *out)
{
    int64_t offset = 0;
    for (size_t at = 0; at + 4 <= in.size;) {
        uint8_t kind = in.data[at], count = (uint8_t)(1 + in.data[at + 1] % 5);
        struct batch_options o = BATCH_OPTIONS;
        struct batch_builder b;
        o.base_offset = offset += kind >> 6;
        o.codec = kind & 1 ? in.data[at + 1] % 5 : 0;
        o.producer_id = kind & 2 ? in.data[at + 2] % 3 : -1;
        o.producer_epoch = kind & 2 ? 0 : -1;
        o.attributes = (int16_t)((kind & 6) == 6 ? BATCH_ATTR_TRANSACTIONAL : 0);
        bool marker = (kind & 14) == 14;
        o.attributes |= marker ? BATCH_ATTR_CONTROL : kind & 16 ? BATCH_ATTR_LOG_APPEND_TIME : 0;
        batch_begin(&b, out, &o);
        if (marker) {
            batch_add_control(&b, 1, in.data[at + 3] % 3, SLICE_OF("\0\0\0\0\0\0"));
            at += 4;
        }
        for (; !marker && count > 0 && at + 4 <= in.size; count--, at += 4)
            batch_add(&b, in.data[at + 3], slice_make(in.data + at + 2, in.data[at] & 32 ? 1 : 0),
                      in.data[at + 3] & 1 ? SLICE_NULL : slice_make(in.data + at, 4), NULL, 0);
        offset += batch_builder_count(&b);
        ASSERT(batch_end(&b) == 0);
    }
    return buf_slice(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(size ? data : (const uint8_t *)"", size);
    struct buf first = {0}, second = {0};
    if (rest.size < 2)
        return 0;
    uint8_t flags = rest.data[0], map_entries = rest.data[1];
    rest = slice_make(rest.data + 2, rest.size - 2);
    struct slice log = take(&rest);
    put_file("00000000000000000000.log", flags & 128 ? build_batches(log, &first)
                                         : flags & 1 ? mend(log, &first)
                                                     : log);
    if (flags & 2)
        put_file("00000000000000000005.log", flags & 1 ? mend(take(&rest), &second) : take(&rest));
    if (flags & 4)
        put_file("00000000000000000000.txnindex", take(&rest));
    if (flags & 8)
        put_file("00000000000000000000.index", take(&rest));
    if (flags & 16)
        put_file("00000000000000000000.timeindex", take(&rest));
    const struct file_system fs = {&ops, NULL};
    struct log_options o = {.fs = &fs, .dir = "t-0", .clean = flags & 64, .now_wall_ms = 1};
    log_config_init(&o.config);
    o.config.segment_index_bytes = 4096;
    o.config.cleanup_compact = true;
    o.config.delete_retention_ms = flags & 32 ? 0 : 1000;
    struct log *l;
    if (log_open(&o, &l) == 0) {
        try_log(l, map_entries);
        log_abandon(l);
    }
    drop_files();
    buf_free(&first);
    buf_free(&second);
    return 0;
}
