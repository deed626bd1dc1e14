/* test_reserve.c - room on the disk that a growing log asks for ahead of its end: it goes back, sizes never show it,
 * and nothing hangs on it. */
#include "help.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/stat.h>

enum { VALUE = 100000, BATCHES = 40, PAGE = 4096 };

static struct stat stat_of(const char *dir, int64_t base)
{
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s/%020lld.log", dir, (long long)base);
    cr_assert_eq(stat(path, &st), 0);
    return st;
}

/* Has the file room on the disk behind its end? Beyond whole pages, and one that the file system may keep its list of
 * extents in. */
static bool has_room(const char *dir, int64_t base)
{
    struct stat st = stat_of(dir, base);
    return (int64_t)st.st_blocks * 512 > st.st_size + 2 * PAGE;
}

static void append(struct log *l, int count)
{
    struct help_batch b = HELP_BATCH;
    b.value_bytes = VALUE;
    for (int i = 0; i < count; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
}

static struct log *grown(struct log_options *o, const char *name)
{
    *o = help_options(help_dir(name));
    struct log *l = help_open(o);
    append(l, BATCHES);
    cr_assert_eq(stat_of(o->dir, 0).st_size, (off_t)log_size_bytes(l), "the file's size is that of its batches");
    cr_assert_eq(log_flush(l), 0); /* what is not written back counts no blocks where they are found late */
    cr_assert(has_room(o->dir, 0));
    return l;
}

Test(reserve, what_is_not_used_goes_back)
{
    struct log_options o;
    struct log *l = grown(&o, "reserve-roll");
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    cr_assert_not(has_room(o.dir, 0), "at a roll");
    append(l, BATCHES);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    cr_assert_not(has_room(o.dir, BATCHES), "at a clean stop");

    l = grown(&o, "reserve-idle");
    log_tick(l, HELP_NOW_MS);
    cr_assert(has_room(o.dir, 0), "it grew since the last look");
    log_tick(l, HELP_NOW_MS);
    cr_assert_not(has_room(o.dir, 0), "when nothing was appended for a while");
    append(l, 1);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);

    l = grown(&o, "reserve-crash");
    log_abandon(l);
    cr_assert(has_room(o.dir, 0));
    l = help_open(&o);
    cr_assert_eq(log_end(l), BATCHES);
    cr_assert_not(has_room(o.dir, 0), "at the start after a crash");
    log_abandon(l);

    l = grown(&o, "reserve-cut");
    cr_assert_eq(log_truncate(l, BATCHES / 2), 0);
    cr_assert_not(has_room(o.dir, 0), "when it is cut");
    log_abandon(l);
}

Test(reserve, a_log_never_asks_for_more_than_its_segment_holds)
{
    struct log_options o = help_options(help_dir("reserve-most"));
    o.config.segment_bytes = BATCHES * (VALUE + 200);
    struct log *l = help_open(&o);
    append(l, BATCHES - 4);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_leq((int64_t)stat_of(o.dir, 0).st_blocks * 512, (int64_t)o.config.segment_bytes + 2 * PAGE);
    log_abandon(l);
}

Test(reserve, nothing_hangs_on_it)
{
    static const int errors[] = {-ENOSPC, -EOPNOTSUPP, -EIO};
    for (size_t i = 0; i < COUNTOF(errors); i++) {
        struct help_faults f = {.call = "allocate", .left = 0, .error = errors[i], .times = 1000000};
        struct file_system fs = help_faulty(&f);
        struct log_options o = help_options(help_dir("reserve-fails"));
        o.fs = &fs;
        struct log *l = help_open(&o);
        append(l, BATCHES);
        cr_assert(f.count > 0 && f.count < BATCHES / 2, "it is not asked for again with each append");
        cr_assert_eq(log_end(l), BATCHES);
        cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    }
}
