/* test_read.c - what readers get from files that no Karst wrote, or that have holes. */
#include "help.h"
#include "libs/base/bytes.h"
#include <criterion/criterion.h>
#include <stdlib.h>

static void add_batch(struct buf *out, int64_t base_offset, int count, size_t value_bytes)
{
    struct batch_options bo = BATCH_OPTIONS;
    struct batch_builder b;
    uint8_t *value = xcalloc(1, value_bytes);
    bo.base_offset = base_offset;
    bo.leader_epoch = 0;
    batch_begin(&b, out, &bo);
    for (int i = 0; i < count; i++)
        batch_add(&b, HELP_NOW_MS, SLICE_OF("k"), slice_make(value, value_bytes), NULL, 0);
    cr_assert_eq(batch_end(&b), 0);
    free(value);
}

/* A message of magic 0, of which only what the log looks at means something. */
static void add_old(struct buf *out, int64_t offset, size_t size)
{
    uint8_t *m = buf_grow(out, size);
    memset(m, 0xff, size);
    put_i64(m, offset);
    put_i32(m + BATCH_LENGTH, (int32_t)(size - BATCH_LENGTH_OVERHEAD));
    m[BATCH_MAGIC] = m[BATCH_MAGIC + 1] = 0;
    put_u32(m + 12, bytes_crc32(m + BATCH_MAGIC, size - BATCH_MAGIC));
}

static void write_file(const char *dir, const char *name, const struct buf *bytes)
{
    (void)file_mkdir(&file_system_real, dir);
    char *path = xasprintf("%s/%s", dir, name);
    int fd = file_open(&file_system_real, path, O_RDWR | O_CREAT | O_TRUNC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(file_write(&file_system_real, fd, bytes->data, bytes->size, 0), 0);
    file_close(&file_system_real, fd);
    free(path);
}

/* Reads the one batch or old message that offset is served with; its base offset. */
static int64_t read_one(struct log *l, int64_t offset, size_t max_bytes)
{
    struct log_range r;
    struct batch b;
    cr_assert_eq(log_locate(l, offset, log_end(l), max_bytes, true, &r), KERR_NONE);
    cr_assert_gt(r.size_bytes, 0, "nothing at offset %lld", (long long)offset);
    uint8_t *bytes = xmalloc(r.size_bytes);
    cr_assert_eq(log_copy(l, &r, bytes), 0);
    int err = batch_read_header(slice_make(bytes, r.size_bytes), &b);
    cr_assert(err == 0 || err == -EPROTO);
    free(bytes);
    return b.base_offset;
}

static void append_leaders(struct log *l, int64_t base_offset, int count, size_t value_bytes)
{
    struct buf out = {0};
    add_batch(&out, base_offset, count, value_bytes);
    struct log_append a = {.bytes = out.data, .size = out.size, .origin = LOG_FROM_LEADER, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_stage(l, &a), KERR_NONE);
    cr_assert_eq(log_commit(l), 0);
    buf_free(&out);
}

Test(read, goes_on_behind_a_segment_whose_last_records_were_compacted_away)
{
    struct log_options o = help_options(help_dir("compacted"));
    struct log *l = help_open(&o);
    append_leaders(l, 0, 3, 10);
    append_leaders(l, 3, 2, 10);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    /* The segment ends at offset 5, the next begins at 8 and its first batch at 9. */
    struct buf next = {0};
    add_batch(&next, 9, 1, 10);
    write_file(o.dir, "00000000000000000008.log", &next);
    write_file(o.dir, "00000000000000000008.index", &(struct buf){0});
    write_file(o.dir, "00000000000000000008.timeindex", &(struct buf){0});
    buf_free(&next);
    o.clean = true;
    o.recovery_point = 10;
    for (size_t max_bytes = 1; max_bytes < 2000; max_bytes += 1998) {
        l = help_open(&o);
        cr_assert_eq(log_end(l), 10);
        cr_assert_eq(read_one(l, 0, max_bytes), 0);
        cr_assert_eq(read_one(l, 3, max_bytes), 3);
        cr_assert_eq(read_one(l, 5, max_bytes), 9, "read with %zu bytes", max_bytes);
        log_abandon(l);
    }
}

Test(read, gets_on_when_offsets_are_out_of_order)
{
    /* Kafka does not look at the batches after a clean stop, and serves the first one that ends at or behind. */
    struct log_options o = help_options(help_dir("disorder"));
    struct buf bytes = {0};
    add_batch(&bytes, 0, 60, 1);
    add_batch(&bytes, 10, 40, 1);
    add_batch(&bytes, 60, 5, 1);
    write_file(o.dir, "00000000000000000000.log", &bytes);
    write_file(o.dir, "00000000000000000000.index", &(struct buf){0});
    write_file(o.dir, "00000000000000000000.timeindex", &(struct buf){0});
    o.clean = true;
    o.recovery_point = 65;
    /* The read before ends within the next batch's header, behind it, and just before it. */
    for (size_t more = 0; more < 200; more += 40) {
        struct log *l = help_open(&o);
        struct batch b;
        cr_assert_eq(log_end(l), 65);
        cr_assert_eq(batch_read_header(buf_slice(&bytes), &b), 0);
        cr_assert_eq(read_one(l, 0, b.size + more), 0);
        cr_assert_eq(read_one(l, 60, 1), 60, "%zu bytes more", more);
        log_abandon(l);
    }
    buf_free(&bytes);
}

Test(read, messages_of_magic_0_are_kept_and_served)
{
    struct log_options o = help_options(help_dir("magic0"));
    struct buf bytes = {0};
    add_old(&bytes, 0, 100);
    add_old(&bytes, 1, BATCH_OLD_SIZE_MIN);
    add_old(&bytes, 2, 40);
    write_file(o.dir, "00000000000000000000.log", &bytes);
    buf_free(&bytes);
    for (int clean = 0; clean < 2; clean++) {
        o.clean = clean;
        o.recovery_point = clean ? 3 : 0;
        struct log *l = help_open(&o);
        cr_assert_eq(log_end(l), 3, "the last message is not today's torn header");
        cr_assert_eq(log_size_bytes(l), 100 + BATCH_OLD_SIZE_MIN + 40);
        for (int64_t at = 0; at < 3; at++)
            cr_assert_eq(read_one(l, at, 1), at);
        struct help_batch b = HELP_BATCH;
        if (clean)
            cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
        cr_assert_eq(log_end(l), clean ? 4 : 3);
        cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    }
}

Test(read, a_segment_that_came_back_hides_nothing)
{
    /* A truncation removed segment 5; the offsets were written again before it, and a power cut undid the removal. */
    struct log_options o = help_options(help_dir("comeback"));
    struct log *l = help_open(&o);
    append_leaders(l, 0, 4, 10);
    append_leaders(l, 4, 6, 10);
    log_abandon(l);
    struct buf old = {0};
    add_batch(&old, 5, 2, 10);
    write_file(o.dir, "00000000000000000005.log", &old);
    buf_free(&old);
    o.recovery_point = 4;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 10);
    cr_assert_eq(log_segment_count(l), 1);
    for (int64_t at = 0; at < 10; at++)
        cr_assert_eq(read_one(l, at, 1), at < 4 ? 0 : 4);
    log_abandon(l);
}
