/* test_flush.c - several logs flushed at once, and what a flush owes to rolled segments. */
#include "help.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOGS = 5 };

struct several {
    struct log *at[LOGS];
    struct log_flush *flushes[LOGS];
};

static void open_several(struct several *v, const struct file_system *fs, const char *name)
{
    for (int i = 0; i < LOGS; i++) {
        char dir[64];
        snprintf(dir, sizeof dir, "%s%d", name, i);
        struct log_options o = help_options(help_dir(dir));
        struct help_batch b = HELP_BATCH;
        o.fs = fs;
        o.config.flush_messages = 1;
        v->at[i] = help_open(&o);
        cr_assert_eq(help_append(v->at[i], &b, NULL), KERR_NONE);
        cr_assert_eq(log_high_watermark(v->at[i]), 0, "not shown before it is flushed");
    }
}

static void begin_several(struct several *v)
{
    for (int i = 0; i < LOGS; i++) {
        v->flushes[i] = log_flush_begin(v->at[i]);
        cr_assert_not_null(v->flushes[i]);
    }
}

static void abandon_several(struct several *v)
{
    for (int i = 0; i < LOGS; i++)
        log_abandon(v->at[i]);
}

Test(flush, several_logs_share_one_sync)
{
    struct help_faults f = {.call = "sync_all", .left = -1};
    struct file_system fs = help_faulty(&f);
    struct several v;
    open_several(&v, &fs, "together");
    begin_several(&v);
    cr_assert(log_flush_run_all(v.flushes, LOGS));
    cr_assert_eq(f.count, 1);
    for (int i = 0; i < LOGS; i++) {
        cr_assert_eq(log_flush_end(v.at[i], v.flushes[i]), 0);
        cr_assert_eq(log_flushed(v.at[i]), 1);
        cr_assert_eq(log_high_watermark(v.at[i]), 1);
    }
    abandon_several(&v);
}

Test(flush, each_by_itself_where_the_file_system_cannot)
{
    struct help_faults f = {.call = "sync_all", .error = -EOPNOTSUPP, .times = 1};
    struct file_system fs = help_faulty(&f);
    struct several v;
    open_several(&v, &fs, "apart");
    begin_several(&v);
    cr_assert_not(log_flush_run_all(v.flushes, LOGS));
    for (int i = 0; i < LOGS; i++) {
        log_flush_run(v.flushes[i]);
        cr_assert_eq(log_flush_end(v.at[i], v.flushes[i]), 0);
        cr_assert_eq(log_flushed(v.at[i]), 1);
    }
    abandon_several(&v);
}

Test(flush, a_shared_sync_that_fails_is_the_failure_of_all)
{
    struct help_faults f = {.call = "sync_all", .error = -EIO, .times = 1};
    struct file_system fs = help_faulty(&f);
    struct several v;
    open_several(&v, &fs, "failing");
    begin_several(&v);
    cr_assert(log_flush_run_all(v.flushes, LOGS));
    for (int i = 0; i < LOGS; i++) {
        cr_assert_eq(log_flush_end(v.at[i], v.flushes[i]), -EIO);
        cr_assert_eq(log_failed(v.at[i]), -EIO);
        cr_assert_eq(log_flushed(v.at[i]), 0);
        cr_assert_eq(log_high_watermark(v.at[i]), 0);
        cr_assert_null(log_flush_begin(v.at[i]), "never tried again");
    }
    abandon_several(&v);
}

Test(flush, without_descriptors_it_is_tried_again)
{
    struct help_faults f = {.call = "dup", .error = -EMFILE, .times = 1};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("emfile"));
    struct help_batch b = HELP_BATCH;
    o.fs = &fs;
    struct log *l = help_open(&o);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_flush(l), -EMFILE);
    cr_assert_eq(log_failed(l), 0, "the disk has done nothing wrong");
    cr_assert_eq(log_flushed(l), 0);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_flushed(l), 1);
    log_abandon(l);
}

Test(flush, a_roll_waits_for_no_disk_and_the_next_flush_takes_its_indexes)
{
    struct help_faults f = {.call = "fdatasync", .left = -1};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("rolled"));
    struct help_batch b = HELP_BATCH;
    o.fs = &fs;
    struct log *l = help_open(&o);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_recovery_point(l), 3);
    int before = f.count;
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    cr_assert_eq(f.count, before);
    cr_assert_eq(log_flushed(l), 3);
    cr_assert_eq(log_recovery_point(l), 2, "a start has to look at the segment whose indexes are not flushed");
    cr_assert(log_wants_flush(l));
    cr_assert_eq(log_flush(l), 0);
    cr_assert_gt(f.count, before);
    cr_assert_eq(log_recovery_point(l), 3);
    cr_assert_not(log_wants_flush(l));
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}
