/* test_aborted.c - N.txnindex: written with the markers, truncated and removed with the log, built again, and searched
 * without waiting for the disk. */
#include "clean_help.h"
#include "help.h"
#include "libs/base/bytes.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ENTRY = 34 };

static void append_open(struct log *l, int64_t producer_id, int32_t sequence)
{
    struct help_batch spec = HELP_BATCH;
    spec.producer_id = producer_id;
    spec.producer_epoch = 0;
    spec.sequence = sequence;
    spec.attributes = BATCH_ATTR_TRANSACTIONAL;
    struct buf b = help_batch(&spec);
    struct log_append a = {.bytes = b.data, .size = b.size, .origin = LOG_FROM_COORDINATOR, .now_wall_ms = HELP_NOW_MS};
    cr_assert_eq(log_stage(l, &a), KERR_NONE);
    cr_assert_eq(log_commit(l), 0);
    buf_free(&b);
}

static int64_t append_abort(struct log *l, int64_t producer_id)
{
    return clean_append_marker(l, producer_id, 0, false, HELP_NOW_MS);
}

/* The file's entries as "producer first last stable\n". */
static const char *entries(const char *dir, int64_t base)
{
    static char text[4096];
    char *path = xasprintf("%s/%020" PRId64 ".txnindex", dir, base), *data;
    size_t size, at = 0;
    text[0] = '\0';
    int err = file_slurp(&file_system_real, path, 1 << 20, &data, &size);
    free(path);
    if (err == -ENOENT)
        return "none";
    cr_assert_eq(err, 0);
    cr_assert_eq(size % ENTRY, 0);
    for (size_t i = 0; i < size; i += ENTRY) {
        const uint8_t *e = (const uint8_t *)data + i;
        cr_assert_eq(get_i16(e), 0);
        at += (size_t)snprintf(text + at, sizeof text - at, "%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n",
                               get_i64(e + 2), get_i64(e + 10), get_i64(e + 18), get_i64(e + 26));
    }
    free(data);
    return text;
}

static void overwrite(const char *dir, int64_t base, const void *bytes, size_t size)
{
    char *path = xasprintf("%s/%020" PRId64 ".txnindex", dir, base);
    int fd = file_open(&file_system_real, path, O_RDWR | O_CREAT | O_TRUNC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(file_write(&file_system_real, fd, bytes, size, 0), 0);
    file_close(&file_system_real, fd);
    free(path);
}

static void note(void *ctx, int64_t producer_id, int64_t first)
{
    char *text = ctx;
    snprintf(text + strlen(text), 200 - strlen(text), "%" PRId64 "@%" PRId64 " ", producer_id, first);
}

static void is_aborted(struct log *l, int64_t offset, const char *expected)
{
    struct log_range r;
    char text[200] = "";
    cr_assert_eq(log_locate(l, offset, log_end(l), 1 << 20, true, &r), KERR_NONE);
    cr_assert_eq(log_aborted(l, offset, &r, note, text, NULL), KERR_NONE);
    cr_assert_str_eq(text, expected);
}

/* Two transactions that overlap, one after the other aborted, and one that is committed. */
static struct log *make(struct log_options *o)
{
    struct log *l = help_open(o);
    append_open(l, 7, 0);                                  /* 0 */
    append_open(l, 8, 0);                                  /* 1 */
    append_open(l, 9, 0);                                  /* 2 */
    cr_assert_eq(append_abort(l, 8), 3);                   /* 3: 7 and 9 stay open */
    (void)clean_append_marker(l, 9, 0, true, HELP_NOW_MS); /* 4 */
    cr_assert_eq(append_abort(l, 7), 5);                   /* 5: nothing stays open */
    (void)append_abort(l, 7);                              /* 6: ends nothing */
    return l;
}

#define MADE "8 1 3 0\n7 0 5 6\n"

Test(aborted, the_file_is_written_with_the_markers)
{
    struct log_options o = help_options(help_dir("aborted"));
    struct log *l = make(&o);
    cr_assert_str_eq(entries(o.dir, 0), MADE);
    is_aborted(l, 0, "8@1 7@0 ");
    is_aborted(l, 4, "7@0 ");
    is_aborted(l, 6, "");
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    append_open(l, 7, 1); /* 7 */
    cr_assert_str_eq(entries(o.dir, 7), "none");
    cr_assert_eq(append_abort(l, 7), 8);
    cr_assert_str_eq(entries(o.dir, 7), "7 7 8 9\n");
    cr_assert_str_eq(entries(o.dir, 0), MADE);
    is_aborted(l, 0, "8@1 7@0 ");
    is_aborted(l, 7, "7@7 ");
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}

Test(aborted, the_file_goes_with_what_it_is_about)
{
    struct log_options o = help_options(help_dir("aborted-truncated"));
    o.config.file_delete_delay_ms = 0;
    struct log *l = make(&o);
    cr_assert_eq(log_truncate(l, 5), 0);
    cr_assert_str_eq(entries(o.dir, 0), "8 1 3 0\n");
    is_aborted(l, 0, "8@1 ");
    cr_assert_eq(append_abort(l, 7), 5);
    cr_assert_str_eq(entries(o.dir, 0), "8 1 3 0\n7 0 5 6\n");
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    append_open(l, 7, 1);
    cr_assert_eq(log_delete_before(l, 6), 0);
    cr_assert_eq(log_retain(l, HELP_NOW_MS), 1);
    log_tick(l, HELP_NOW_MS + 1);
    cr_assert_str_eq(entries(o.dir, 0), "none");
    cr_assert_eq(log_restart_at(l, 0, HELP_NOW_MS), 0);
    append_open(l, 1, 0);
    cr_assert_eq(append_abort(l, 1), 1);
    cr_assert_str_eq(entries(o.dir, 0), "1 0 1 2\n");
    log_abandon(l);
}

Test(aborted, a_start_after_a_crash_finds_them_again)
{
    static const char torn[] = "\0\0torn", older[ENTRY] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 1};
    const struct {
        const void *bytes;
        size_t size;
        int64_t recovery_point;
        bool clean;
    } cases[] = {
        {"", 0, 0, false},  {torn, 6, 0, false},     {older, ENTRY, 0, false}, {older, ENTRY, 7, false},
        {torn, 6, 7, true}, {older, ENTRY, 7, true}, {torn, 6, 5, false},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct log_options o = help_options(help_dir("aborted-crash"));
        struct log *l = make(&o);
        if (cases[i].clean)
            cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
        else
            log_abandon(l);
        overwrite(o.dir, 0, cases[i].bytes, cases[i].size);
        o.recovery_point = cases[i].recovery_point;
        o.clean = cases[i].clean;
        l = help_open(&o);
        cr_assert_str_eq(entries(o.dir, 0), MADE, "case %zu: %s", i, entries(o.dir, 0));
        is_aborted(l, 0, "8@1 7@0 ");
        cr_assert_eq(log_last_stable(l), 7);
        log_abandon(l);
    }
}

/* All that is left of it before the mark looks right, but for its size. */
Test(aborted, a_torn_file_is_built_again_from_before_the_mark)
{
    static const uint8_t torn[ENTRY + 4] = {[9] = 8, [17] = 1, [25] = 3};
    struct log_options o = help_options(help_dir("aborted-mark"));
    struct log *l = make(&o);
    struct log_flush *f = log_mark_begin(l);
    cr_assert_not_null(f);
    log_flush_run(f);
    cr_assert_eq(log_flush_end(l, f), 0);
    append_open(l, 5, 0); /* 7 */
    log_abandon(l);
    overwrite(o.dir, 0, torn, sizeof torn);
    o.recovery_point = 7;
    l = help_open(&o);
    cr_assert_str_eq(entries(o.dir, 0), MADE);
    is_aborted(l, 0, "8@1 7@0 ");
    log_abandon(l);
}

Test(aborted, of_an_older_segment_too_without_its_file)
{
    struct log_options o = help_options(help_dir("aborted-older"));
    struct log *l = make(&o);
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    append_open(l, 5, 0); /* 7, stays open */
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    overwrite(o.dir, 0, "xx", 2);
    o.clean = true;
    o.recovery_point = 8;
    l = help_open(&o);
    cr_assert_str_eq(entries(o.dir, 0), MADE);
    cr_assert_eq(log_last_stable(l), 7, "the state of the end is that of all segments");
    log_abandon(l);
}

Test(aborted, a_full_disk_refuses_the_marker_and_tells_readers_nothing_wrong)
{
    for (int left = 0; left < 2; left++) { /* the entry, then the marker */
        struct help_faults f = {.left = -1, .call = "pwritev", .error = -ENOSPC, .times = 1, .shorten = true};
        struct file_system fs = help_faulty(&f);
        struct log_options o = help_options(help_dir("aborted-full"));
        o.fs = &fs;
        struct log *l = help_open(&o);
        append_open(l, 7, 0);
        append_open(l, 8, 0);
        cr_assert_eq(append_abort(l, 8), 2);
        f.left = left;
        struct buf out = {0};
        struct batch_options options = BATCH_OPTIONS;
        struct batch_builder b;
        options.producer_id = 7;
        options.producer_epoch = 0;
        options.attributes = BATCH_ATTR_TRANSACTIONAL | BATCH_ATTR_CONTROL;
        batch_begin(&b, &out, &options);
        batch_add_control(&b, HELP_NOW_MS, CONTROL_ABORT, SLICE_OF("\0\0\0\0\0\0"));
        cr_assert_eq(batch_end(&b), 0);
        struct log_append a = {
            .bytes = out.data, .size = out.size, .origin = LOG_FROM_COORDINATOR, .now_wall_ms = HELP_NOW_MS};
        cr_assert_eq(log_stage(l, &a), KERR_NONE);
        cr_assert_eq(log_commit(l), -ENOSPC);
        cr_assert_eq(log_failed(l), 0);
        cr_assert_eq(log_last_stable(l), 0, "the transaction is open as before");
        cr_assert_str_eq(entries(o.dir, 0), "8 1 2 0\n");
        cr_assert_eq(log_stage(l, &a), KERR_NONE);
        cr_assert_eq(log_commit(l), 0);
        buf_free(&out);
        cr_assert_str_eq(entries(o.dir, 0), "8 1 2 0\n7 0 3 4\n");
        is_aborted(l, 0, "8@1 7@0 ");
        log_abandon(l);
    }
}

static void count(void *ctx, int64_t producer_id UNUSED, int64_t first UNUSED)
{
    ++*(int *)ctx;
}

Test(aborted, a_look_up_reads_little_and_does_not_wait)
{
    enum { MANY = 3000 };
    struct help_faults f = {.left = -1, .call = "pread"};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("aborted-many"));
    struct log *l = help_open(&o);
    for (int i = 0; i < MANY; i++) {
        append_open(l, 7, i);
        (void)append_abort(l, 7);
    }
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.fs = &fs;
    o.clean = true;
    l = help_open(&o);
    struct log_range r;
    int n = 0, before;
    bool cold;
    cr_assert_eq(log_locate(l, 4000, log_end(l), 700, true, &r), KERR_NONE);
    before = f.count;
    cr_assert_eq(log_aborted(l, 4000, &r, count, &n, &cold), KERR_NONE);
    cr_assert_not(cold);
    cr_assert_geq(n, 2);
    cr_assert_lt(n, 60, "those of the range, as far as the sparse index tells it");
    cr_assert_leq(f.count - before, 40, "by halves, not from the beginning");
    f.cold = true;
    f.warm_count = 0;
    int rounds = 0;
    for (cold = true; cold; rounds++) {
        n = 0;
        cr_assert_eq(log_aborted(l, 4000, &r, count, &n, &cold), KERR_NONE);
        if (cold) {
            struct log_warm *w = log_warm_begin(l);
            cr_assert_not_null(w);
            log_warm_run(w);
            cr_assert_eq(log_warm_end(l, w), 0);
        }
        cr_assert_lt(rounds, 24);
    }
    cr_assert_gt(rounds, 1);
    cr_assert_geq(n, 2);
    log_abandon(l);
}
