// link: log records base
/* fuzz_log_recovery.c - a start on any bytes as segment, indexes, epochs and snapshot: it opens or says why not, what
 * it serves afterwards is whole batches in order, and it takes appends. On a file system in memory, a few files big. */
#include "tests/fuzz/mem_files.h"

/* From the log start to the end: each read gives exactly one whole batch, which ends behind the offset asked for, so
 * that a reader always gets on. What is not checked at the start, as in Kafka (all of it after a clean stop, what was
 * flushed after a crash), may have bytes that are no batch, or no batch where one should be: a read says so. */
static void check_readable(struct log *l, bool clean, int64_t flushed)
{
    int64_t at = log_start(l);
    while (at < log_end(l)) {
        struct log_range r;
        enum kafka_error error = log_locate(l, at, log_end(l), 1, true, &r);
        if (error != KERR_NONE || r.size_bytes == 0) {
            ASSERT(clean || at < flushed);
            return;
        }
        uint8_t *bytes = xmalloc(r.size_bytes);
        struct batch b;
        ASSERT(log_copy(l, &r, bytes) == 0);
        int err = batch_read_header(slice_make(bytes, r.size_bytes), &b);
        free(bytes);
        if (err == -EPROTO)
            b.last_offset_delta = 0; /* a message of Kafka before 0.11 */
        ASSERT((err == 0 || err == -EPROTO) && b.size == r.size_bytes && batch_next_offset(&b) > at);
        at = batch_next_offset(&b);
    }
}

static void append_one(struct log *l)
{
    struct buf out = {0};
    struct batch_builder b;
    batch_begin(&b, &out, &BATCH_OPTIONS);
    batch_add(&b, 1, SLICE_OF("k"), SLICE_OF("v"), NULL, 0);
    ASSERT(batch_end(&b) == 0);
    struct log_append a = {.bytes = out.data, .size = out.size, .leader_epoch = 0, .now_wall_ms = 1};
    int64_t end = log_end(l);
    if (log_stage(l, &a) == KERR_NONE && log_commit(l) == 0)
        ASSERT(a.base_offset == end && log_end(l) == end + 1);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(size ? data : (const uint8_t *)"", size);
    struct buf mended = {0};
    if (rest.size < 2)
        return 0;
    uint8_t flags = rest.data[0], point = rest.data[1];
    rest = slice_make(rest.data + 2, rest.size - 2);
    put_file("00000000000000000000.log", flags & 1 ? mend(take(&rest), &mended) : take(&rest));
    if (flags & 2)
        put_file("00000000000000000000.index", take(&rest));
    if (flags & 4)
        put_file("00000000000000000000.timeindex", take(&rest));
    if (flags & 8)
        put_file("leader-epoch-checkpoint", take(&rest));
    if (flags & 16)
        put_file("00000000000000000005.snapshot", take(&rest));
    if (flags & 32)
        put_file("00000000000000000005.log", take(&rest));
    const struct file_system fs = {&ops, NULL};
    struct log_options o = {.fs = &fs, .dir = "t-0", .clean = flags & 64, .recovery_point = point, .now_wall_ms = 1};
    log_config_init(&o.config);
    o.config.segment_index_bytes = 4096;
    struct log *l;
    if (log_open(&o, &l) == 0) {
        struct log_offset found;
        check_readable(l, o.clean, o.recovery_point);
        ASSERT(log_start(l) <= log_high_watermark(l) && log_high_watermark(l) <= log_end(l));
        (void)log_offset_by_time(l, 0, &found, NULL);
        (void)log_offset_of_max_time(l, &found, NULL);
        append_one(l);
        if (flags & 128)
            ASSERT(log_close(l, 1) <= 0);
        else
            log_abandon(l);
    }
    drop_files();
    buf_free(&mended);
    return 0;
}
