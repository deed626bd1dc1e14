/* test_damage.c - bytes that changed in files no start checks: whoever reads them is told, nobody else is hurt, and an
 * index that is wrong never decides what is read or removed. */
#include "clean_help.h"
#include "help.h"
#include "libs/base/bytes.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { RECORDS = 400, VALUE = 900 };

/* 400 records of a second each in 10 segments of 41, closed cleanly. */
static void make(struct log_options *o)
{
    o->config.segment_bytes = 40000;
    o->config.index_interval_bytes = 2000;
    struct log *l = help_open(o);
    struct help_batch b = HELP_BATCH;
    b.value_bytes = VALUE;
    for (int i = 0; i < RECORDS; i++) {
        b.timestamp = HELP_NOW_MS + i * 1000;
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    }
    cr_assert_eq(log_segment_count(l), 10);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o->clean = true;
    o->recovery_point = RECORDS;
}

static char *path_of(const char *dir, int64_t base, const char *kind)
{
    return xasprintf("%s/%020" PRId64 ".%s", dir, base, kind);
}

static void put(const char *dir, int64_t base, const char *kind, uint64_t at, const void *bytes, size_t size)
{
    char *path = path_of(dir, base, kind);
    int fd = file_open(&file_system_real, path, O_RDWR | O_CREAT);
    cr_assert_geq(fd, 0);
    cr_assert_eq(file_write(&file_system_real, fd, bytes, size, at), 0);
    file_close(&file_system_real, fd);
    free(path);
}

static struct buf content(const char *dir, int64_t base, const char *kind)
{
    struct buf b = {0};
    char *path = path_of(dir, base, kind), *data = NULL;
    size_t size = 0;
    cr_assert_eq(file_slurp(&file_system_real, path, 1 << 24, &data, &size), 0);
    memcpy(buf_grow(&b, size), data, size);
    free(data);
    free(path);
    return b;
}

static enum kafka_error read_at(struct log *l, int64_t offset, int64_t *ret_first)
{
    struct log_range r;
    struct batch b;
    uint8_t bytes[2000];
    enum kafka_error error = log_locate(l, offset, log_end(l), sizeof bytes, true, &r);
    if (error == KERR_NONE) {
        cr_assert_eq(log_copy(l, &r, bytes), 0);
        cr_assert_eq(batch_read_header(slice_make(bytes, r.size_bytes), &b), 0);
        *ret_first = b.base_offset;
    }
    return error;
}

static void all_is_found(struct log *l)
{
    for (int64_t i = 0; i < RECORDS; i++) {
        int64_t first = -1;
        struct log_offset found;
        cr_assert_eq(read_at(l, i, &first), KERR_NONE);
        cr_assert_eq(first, i);
        cr_assert_eq(log_offset_by_time(l, HELP_NOW_MS + i * 1000, &found, NULL), KERR_NONE);
        cr_assert_eq(found.offset, i, "time of %" PRId64 ": %" PRId64, i, found.offset);
    }
}

Test(damage, of_one_batch_is_the_matter_of_its_reader)
{
    struct log_options o = help_options(help_dir("damage-batch"));
    make(&o);
    struct log *l = help_open(&o);
    int64_t size = (int64_t)log_size_bytes(l) / RECORDS, first;
    static const uint8_t nothing[70];
    put(o.dir, 41, "log", (uint64_t)size * 5, nothing, sizeof nothing); /* the batch at 46 */
    struct log_offset found;
    cr_assert_eq(read_at(l, 45, &first), KERR_NONE);
    cr_assert_eq(read_at(l, 46, &first), KERR_CORRUPT_MESSAGE);
    cr_assert_eq(log_offset_by_time(l, HELP_NOW_MS + 46000, &found, NULL), KERR_CORRUPT_MESSAGE);
    cr_assert_eq(log_failed(l), 0);
    for (int64_t i = 50; i < RECORDS; i++)
        cr_assert_eq(read_at(l, i, &first), KERR_NONE, "behind it the index leads past it: %" PRId64, i);
    struct help_batch b = HELP_BATCH;
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    l = help_open(&o);
    cr_assert_eq(log_end(l), RECORDS + 1);
    cr_assert_eq(read_at(l, 46, &first), KERR_CORRUPT_MESSAGE, "nothing is cut at a start either");
    log_abandon(l);
}

Test(damage, an_index_that_misleads_is_done_without_and_built_again)
{
    static const char *const kinds[] = {"index", "timeindex"};
    struct log_options o = help_options(help_dir("damage-index"));
    make(&o);
    for (size_t k = 0; k < COUNTOF(kinds); k++) {
        struct buf right = content(o.dir, 82, kinds[k]), other = content(o.dir, 205, kinds[k]);
        struct buf zeros = {0}, random = {0};
        memset(buf_grow(&zeros, right.size), 0, right.size);
        for (size_t i = 0; i < right.size; i++)
            *(uint8_t *)buf_grow(&random, 1) = (uint8_t)(i * 37 + 11);
        const struct buf *bad[] = {&other, &zeros, &random};
        for (size_t i = 0; i < COUNTOF(bad); i++) {
            put(o.dir, 82, kinds[k], 0, bad[i]->data, MIN(bad[i]->size, right.size));
            struct log *l = help_open(&o);
            all_is_found(l);
            cr_assert_eq(log_failed(l), 0);
            cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
            l = help_open(&o);
            cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
            struct buf built = content(o.dir, 82, kinds[k]);
            cr_assert_eq(built.size, right.size, "%s %zu", kinds[k], i);
            cr_assert(memcmp(built.data, right.data, right.size) == 0 || (k == 0 && i == 0), "%s %zu", kinds[k], i);
            put(o.dir, 82, kinds[k], 0, right.data, right.size);
            buf_free(&built);
        }
        buf_free(&right);
        buf_free(&other);
        buf_free(&zeros);
        buf_free(&random);
    }
}

Test(damage, indexes_that_were_never_cut_to_size_are_found_at_the_start)
{
    static const char *const kinds[] = {"index", "timeindex"};
    for (size_t k = 0; k < COUNTOF(kinds); k++) {
        struct log_options o = help_options(help_dir("damage-tail"));
        o.config.segment_index_bytes = 24 * 100; /* smaller than a segment: its size alone tells nothing */
        make(&o);
        struct buf right = content(o.dir, 82, kinds[k]), full = {0};
        memset(buf_grow(&full, 24 * 100), 0, 24 * 100);
        put(o.dir, 82, kinds[k], 0, full.data, full.size);
        struct log *l = help_open(&o);
        struct buf built = content(o.dir, 82, kinds[k]);
        cr_assert_eq(built.size, right.size);
        cr_assert_eq(memcmp(built.data, right.data, right.size), 0);
        all_is_found(l);
        log_abandon(l);
        buf_free(&right);
        buf_free(&full);
        buf_free(&built);
    }
}

static void shorten(const char *dir, int64_t base, const char *kind, uint64_t size)
{
    char *path = path_of(dir, base, kind);
    int fd = file_open(&file_system_real, path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(file_ftruncate(&file_system_real, fd, size), 0);
    file_close(&file_system_real, fd);
    free(path);
}

/* A record of 100 bytes that look like a message of magic 0 at offset 1, which ends where the record does. */
static void append_like_a_message(struct log *l)
{
    static const uint8_t like[100] = {[7] = 1, [11] = 88, [12] = 1};
    struct buf out = {0};
    struct batch_builder b;
    struct batch_options options = BATCH_OPTIONS;
    batch_begin(&b, &out, &options);
    batch_add(&b, HELP_NOW_MS, SLICE_OF("key"), slice_make(like, sizeof like), NULL, 0);
    cr_assert_eq(batch_end(&b), 0);
    struct log_append a = {.bytes = out.data, .size = out.size, .origin = LOG_FROM_CLIENT, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_stage(l, &a), KERR_NONE);
    cr_assert_eq(log_commit(l), 0);
    buf_free(&out);
}

Test(damage, an_entry_that_leads_into_a_batch_is_not_believed)
{
    struct log_options o = help_options(help_dir("damage-inside"));
    o.config.index_interval_bytes = 1;
    struct log *l = help_open(&o);
    for (int i = 0; i < 4; i++)
        append_like_a_message(l);
    uint64_t size = log_size_bytes(l) / 4;
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.clean = true;
    o.recovery_point = 4;
    struct buf right = content(o.dir, 0, "index");
    cr_assert_eq(right.size, 3 * 8);             /* of all but the first */
    for (uint32_t at = 1; at < 4 * size; at++) { /* the first entry leads there, under each of the offsets */
        for (uint8_t key = 0; key < 4; key++) {
            uint8_t entry[8] = {0, 0, 0, key};
            put_i32(entry + 4, (int32_t)at);
            put(o.dir, 0, "index", 0, entry, sizeof entry);
            l = help_open(&o);
            for (int64_t i = 0; i < 4; i++) {
                struct log_range r;
                cr_assert_eq(log_locate(l, i, 4, 1, true, &r), KERR_NONE);
                cr_assert_eq(r.position, (uint64_t)i * size, "offset %" PRId64 ", an entry %u to %u", i, key, at);
            }
            log_abandon(l);
            put(o.dir, 0, "index", 0, right.data, right.size);
        }
    }
    buf_free(&right);
}

static void count(void *ctx, int64_t producer_id UNUSED, int64_t first UNUSED)
{
    ++*(int *)ctx;
}

Test(damage, an_entry_that_is_not_true_hides_no_aborted_transaction)
{
    struct log_options o = help_options(help_dir("damage-aborted"));
    o.config.index_interval_bytes = 1;
    struct log *l = help_open(&o);
    for (int i = 0; i < 10; i++) { /* 2i: records of a transaction, 2i + 1: its abort marker */
        struct help_batch spec = HELP_BATCH;
        spec.producer_id = 7;
        spec.producer_epoch = 0;
        spec.sequence = i;
        spec.attributes = BATCH_ATTR_TRANSACTIONAL;
        struct buf b = help_batch(&spec);
        struct log_append a = {
            .bytes = b.data, .size = b.size, .origin = LOG_FROM_COORDINATOR, .now_wall_ms = HELP_NOW_MS};
        cr_assert_eq(log_stage(l, &a), KERR_NONE);
        cr_assert_eq(log_commit(l), 0);
        buf_free(&b);
        (void)clean_append_marker(l, 7, 0, false, HELP_NOW_MS);
    }
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.clean = true;
    o.recovery_point = 20;
    struct buf right = content(o.dir, 0, "index");
    for (size_t i = 8; i + 16 < right.size; i += 8) {
        uint8_t entry[8] = {0, 0, 0, 1};
        memcpy(entry + 4, right.data + i + 4, 4); /* says of a later batch that it ends at offset 1 */
        put(o.dir, 0, "index", i, entry, sizeof entry);
    }
    l = help_open(&o);
    struct log_range r;
    int n = 0;
    cr_assert_eq(log_locate(l, 0, 20, (size_t)log_size_bytes(l) / 2, true, &r), KERR_NONE);
    cr_assert_eq(log_aborted(l, 0, &r, count, &n, NULL), KERR_NONE);
    cr_assert_geq(n, 5);
    log_abandon(l);
    buf_free(&right);
}

Test(damage, a_time_index_without_its_end_is_found_out)
{
    struct log_options o = help_options(help_dir("damage-short"));
    make(&o);
    for (int64_t base = 0; base < RECORDS; base += 41)
        shorten(o.dir, base, "timeindex", 12);
    struct log *l = help_open(&o);
    all_is_found(l);
    log_abandon(l);
    l = help_open(&o); /* the files are gone */
    all_is_found(l);
    log_abandon(l);
}

static void retention_is_not_misled(const char *name, bool by_missing)
{
    struct log_options o = help_options(help_dir(name));
    make(&o);
    o.config.retention_ms = 1000000;
    static const uint8_t old[12] = {0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 40};
    struct buf times = content(o.dir, 0, "timeindex");
    if (by_missing)
        shorten(o.dir, 0, "timeindex", 12);
    else
        put(o.dir, 0, "timeindex", times.size - sizeof old, old, sizeof old);
    buf_free(&times);
    struct log *l = help_open(&o);
    /* By the first entry that is left of a shortened one the first segment would be old enough. */
    cr_assert_eq(log_retain(l, HELP_NOW_MS + (by_missing ? 1030000 : 500000)), 0, "nothing is that old");
    cr_assert_eq(log_start(l), 0);
    cr_assert_gt(log_retain(l, HELP_NOW_MS + 1300000), 0);
    log_abandon(l);
}

Test(damage, retention_does_not_believe_a_time_index)
{
    retention_is_not_misled("damage-retention", false);
    retention_is_not_misled("damage-retention-short", true);
}
