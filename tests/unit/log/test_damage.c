/* test_damage.c - bytes that changed in files no start checks: whoever reads them is told, nobody else is hurt, and an
 * index that is wrong never decides what is read or removed. */
#include "help.h"
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
    int fd = file_open(&file_system_real, path, O_RDWR);
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

Test(damage, retention_does_not_believe_a_time_index)
{
    struct log_options o = help_options(help_dir("damage-retention"));
    make(&o);
    o.config.retention_ms = 1000000;
    static const uint8_t old[12] = {0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 40};
    struct buf times = content(o.dir, 0, "timeindex");
    put(o.dir, 0, "timeindex", times.size - sizeof old, old, sizeof old);
    buf_free(&times);
    struct log *l = help_open(&o);
    cr_assert_eq(log_retain(l, HELP_NOW_MS + 500000), 0, "nothing is that old");
    cr_assert_eq(log_start(l), 0);
    cr_assert_gt(log_retain(l, HELP_NOW_MS + 1300000), 0);
    log_abandon(l);
}
