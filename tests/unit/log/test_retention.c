/* test_retention.c - which segments are rolled and which go, in virtual time. What Kafka does with the same is compared
 * in tests/acceptance/test_retention.py. */
#include "help.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HOUR = 3600000 };

struct life {
    struct log_options o;
    struct log *l;
};

static struct life start(const char *name)
{
    struct life t = {.o = help_options(help_dir(name))};
    t.o.config.segment_bytes = 1 << 20;
    t.o.config.retention_ms = -1;
    return t;
}

static void open_log(struct life *t)
{
    if (t->l == NULL)
        t->l = help_open(&t->o);
    else
        log_set_config(t->l, &t->o.config);
}

static void put_at(struct life *t, int64_t timestamp)
{
    struct help_batch b = HELP_BATCH;
    b.timestamp = timestamp;
    cr_assert_eq(help_append(t->l, &b, NULL), KERR_NONE);
}

/* The base offsets of the segments, "0 2 5". */
static const char *bases(struct life *t)
{
    static char text[256];
    size_t n = 0;
    text[0] = 0;
    for (int64_t base = 0; base <= log_end(t->l); base++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%020lld.log", t->o.dir, (long long)base);
        if (access(path, F_OK) == 0)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%lld", n > 0 ? " " : "", (long long)base);
    }
    return text;
}

/* Five segments whose records are 9, 7, 5, 3 and 1 hours old. */
static struct life five_ages(const char *name)
{
    struct life t = start(name);
    t.o.config.segment_ms = HOUR;
    open_log(&t);
    for (int hours = 9; hours > 0; hours -= 2)
        put_at(&t, HELP_NOW_MS - (int64_t)hours * HOUR);
    cr_assert_str_eq(bases(&t), "0 1 2 3 4");
    return t;
}

static void retains(struct life *t, int64_t now_ms, const char *left, int64_t start_offset)
{
    cr_assert_geq(log_retain(t->l, now_ms), 0);
    cr_assert_str_eq(bases(t), left);
    cr_assert_eq(log_start(t->l), start_offset);
}

Test(retention, by_the_time_of_records)
{
    struct life t = five_ages("r-time");
    retains(&t, HELP_NOW_MS, "0 1 2 3 4", 0);
    t.o.config.retention_ms = 7 * HOUR;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "1 2 3 4", 1); /* exactly as old as allowed stays */
    retains(&t, HELP_NOW_MS + 1, "2 3 4", 2);
    retains(&t, HELP_NOW_MS + 2 * HOUR, "2 3 4", 2);
    retains(&t, HELP_NOW_MS + 5 * HOUR, "4", 4);
    retains(&t, HELP_NOW_MS + 6 * HOUR + 1, "5", 5);        /* the active one, too, behind a new one */
    retains(&t, HELP_NOW_MS + 600 * (int64_t)HOUR, "5", 5); /* which is empty, and stays */
    log_abandon(t.l);
}

Test(retention, a_young_segment_keeps_the_older_ones_behind_it)
{
    struct life t = start("r-young");
    t.o.config.segment_ms = HOUR;
    t.o.config.retention_ms = 2 * HOUR;
    open_log(&t);
    put_at(&t, HELP_NOW_MS + 100 * (int64_t)HOUR); /* the future */
    cr_assert_eq(log_roll(t.l, HELP_NOW_MS), 0);
    put_at(&t, HELP_NOW_MS - 9 * HOUR);
    put_at(&t, HELP_NOW_MS - 7 * HOUR);
    cr_assert_str_eq(bases(&t), "0 1 2");
    retains(&t, HELP_NOW_MS, "0 1 2", 0);
    retains(&t, HELP_NOW_MS + 102 * (int64_t)HOUR, "0 1 2", 0);
    retains(&t, HELP_NOW_MS + 102 * (int64_t)HOUR + 1, "3", 3);
    log_abandon(t.l);
}

Test(retention, nothing_stays_with_retention_ms_0)
{
    struct life t = five_ages("r-zero");
    t.o.config.retention_ms = 0;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "5", 5);
    put_at(&t, HELP_NOW_MS);
    retains(&t, HELP_NOW_MS, "5", 5); /* of this very millisecond */
    retains(&t, HELP_NOW_MS + 1, "6", 6);
    log_abandon(t.l);
}

Test(retention, by_size)
{
    struct life t = five_ages("r-size");
    int64_t one = (int64_t)log_size_bytes(t.l) / 5;
    t.o.config.retention_bytes = 4 * one + 1;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "0 1 2 3 4", 0); /* would fall below it */
    t.o.config.retention_bytes = 4 * one;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "1 2 3 4", 1);
    t.o.config.retention_bytes = one + one / 2;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "3 4", 3);
    t.o.config.retention_bytes = 0;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "5", 5);
    log_abandon(t.l);
}

Test(retention, by_a_raised_log_start)
{
    struct life t = start("r-start");
    open_log(&t);
    for (int i = 0; i < 9; i++) {
        put_at(&t, HELP_NOW_MS);
        if (i % 3 == 2)
            cr_assert_eq(log_roll(t.l, HELP_NOW_MS), 0);
    }
    cr_assert_str_eq(bases(&t), "0 3 6 9");
    cr_assert_eq(log_delete_before(t.l, 5), 0);
    retains(&t, HELP_NOW_MS, "3 6 9", 5);
    t.o.config.cleanup_delete = false; /* without any policy these go all the same */
    t.o.config.retention_ms = t.o.config.retention_bytes = 0;
    open_log(&t);
    cr_assert_eq(log_delete_before(t.l, 6), 0);
    retains(&t, HELP_NOW_MS, "6 9", 6);
    t.o.config.cleanup_compact = true;
    open_log(&t);
    cr_assert_eq(log_delete_before(t.l, 9), 0);
    retains(&t, HELP_NOW_MS + HOUR, "9", 9);
    log_abandon(t.l);
}

Test(retention, cleanup_policy_changes)
{
    struct life t = five_ages("r-policy");
    t.o.config.retention_ms = 4 * HOUR;
    t.o.config.retention_bytes = 0;
    t.o.config.cleanup_delete = false;
    open_log(&t);
    retains(&t, HELP_NOW_MS + 99 * HOUR, "0 1 2 3 4", 0);
    t.o.config.cleanup_compact = true;
    open_log(&t);
    retains(&t, HELP_NOW_MS + 99 * HOUR, "0 1 2 3 4", 0); /* and an old active segment is not rolled by looking */
    t.o.config.cleanup_delete = true;
    t.o.config.retention_bytes = -1;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "3 4", 3);
    log_abandon(t.l);
}

Test(retention, what_is_above_the_high_watermark_stays)
{
    struct life t = start("r-mark");
    t.o.config.segment_ms = HOUR;
    t.o.config.retention_ms = 0;
    t.o.hold_high_watermark = true;
    open_log(&t);
    for (int hours = 9; hours > 0; hours -= 2)
        put_at(&t, HELP_NOW_MS - (int64_t)hours * HOUR);
    log_set_high_watermark(t.l, 2);
    retains(&t, HELP_NOW_MS, "2 3 4", 2);
    log_set_high_watermark(t.l, 3);
    retains(&t, HELP_NOW_MS, "3 4", 3);
    log_abandon(t.l);
}

Test(retention, removed_files_stay_for_a_while)
{
    struct life t = five_ages("r-delay");
    char path[512];
    t.o.config.retention_ms = 8 * HOUR;
    t.o.config.file_delete_delay_ms = 5000;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "1 2 3 4", 1);
    snprintf(path, sizeof path, "%s/%020d.log.deleted", t.o.dir, 0);
    log_tick(t.l, HELP_NOW_MS + 4999);
    cr_assert_eq(access(path, F_OK), 0);
    log_tick(t.l, HELP_NOW_MS + 5000);
    cr_assert_neq(access(path, F_OK), 0);
    log_abandon(t.l);
}

/* As a server does it, which unlinks them on another thread; the log may go meanwhile. */
Test(retention, files_that_are_due_are_taken_out_of_the_log)
{
    struct life t = five_ages("r-removal");
    char path[512];
    t.o.config.retention_ms = 8 * HOUR;
    t.o.config.file_delete_delay_ms = 5000;
    open_log(&t);
    retains(&t, HELP_NOW_MS, "1 2 3 4", 1);
    snprintf(path, sizeof path, "%s/%020d.log.deleted", t.o.dir, 0);
    cr_assert_null(log_removal_begin(t.l, HELP_NOW_MS + 4999, NULL));
    struct log_removal *removal = log_removal_begin(t.l, HELP_NOW_MS + 5000, NULL);
    cr_assert_not_null(removal);
    cr_assert_null(log_removal_begin(t.l, HELP_NOW_MS + 5000, NULL));
    log_tick(t.l, HELP_NOW_MS + 5000);
    cr_assert_eq(access(path, F_OK), 0);
    log_abandon(t.l);
    log_removal_run(removal);
    cr_assert_neq(access(path, F_OK), 0);
    log_removal_end(removal);
}

Test(rolling, by_the_time_of_records)
{
    struct life t = start("roll-time");
    t.o.config.segment_ms = HOUR;
    open_log(&t);
    put_at(&t, HELP_NOW_MS - 9 * HOUR);
    put_at(&t, HELP_NOW_MS - 8 * HOUR); /* exactly an hour later: the same one */
    cr_assert_str_eq(bases(&t), "0");
    put_at(&t, HELP_NOW_MS - 8 * HOUR + 1);
    cr_assert_str_eq(bases(&t), "0 2");
    put_at(&t, HELP_NOW_MS - 100 * (int64_t)HOUR); /* back in time never rolls */
    cr_assert_str_eq(bases(&t), "0 2");
    t.o.config.segment_ms = 1000; /* at once */
    open_log(&t);
    put_at(&t, HELP_NOW_MS - 7 * HOUR);
    cr_assert_str_eq(bases(&t), "0 2 4");
    log_abandon(t.l);
}

/* With LogAppendTime the clock is what counts, whatever the records say. */
Test(rolling, by_append_time)
{
    struct life t = start("roll-append");
    t.o.config.segment_ms = HOUR;
    t.o.config.log_append_time = true;
    open_log(&t);
    for (int i = 0; i < 4; i++)
        put_at(&t, HELP_NOW_MS - (int64_t)i * 50 * HOUR);
    cr_assert_str_eq(bases(&t), "0");
    struct help_batch b = HELP_BATCH;
    struct buf bytes = help_batch(&b);
    struct log_append a = {.bytes = bytes.data, .size = bytes.size, .now_wall_ms = HELP_NOW_MS + HOUR + 1};
    cr_assert_eq(log_stage(t.l, &a), KERR_NONE);
    cr_assert_eq(log_commit(t.l), 0);
    cr_assert_str_eq(bases(&t), "0 4");
    buf_free(&bytes);
    log_abandon(t.l);
}

/* Jitter takes at most segment.jitter.ms off, another amount for each segment of each log. */
Test(rolling, jitter)
{
    int different = 0;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct life t = start("roll-jitter");
        t.o.config.segment_ms = 10 * HOUR;
        t.o.config.segment_jitter_ms = 2 * HOUR;
        t.o.jitter_seed = seed;
        open_log(&t);
        put_at(&t, HELP_NOW_MS);
        put_at(&t, HELP_NOW_MS + 8 * HOUR);
        cr_assert_str_eq(bases(&t), "0");
        put_at(&t, HELP_NOW_MS + 9 * HOUR);
        different += strcmp(bases(&t), "0") != 0;
        put_at(&t, HELP_NOW_MS + 10 * HOUR + 1);
        cr_assert_str_neq(bases(&t), "0");
        log_abandon(t.l);
    }
    cr_assert(different > 0 && different < 8);
}
