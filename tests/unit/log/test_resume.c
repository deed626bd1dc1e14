/* test_resume.c - marks: a start after a crash reads only what lies behind the last one, and comes to the same as one
 * that reads everything. */
#include "help.h"
#include "libs/log/file.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BEFORE = 3000, BEHIND = 50, VALUE = 9000, WHOLE_READS = 20 }; /* WHOLE_READS: as many as a read of all takes */

static void append(struct log *l, int count, int64_t time_step)
{
    struct help_batch b = HELP_BATCH;
    b.value_bytes = VALUE;
    for (int i = 0; i < count; i++) {
        b.timestamp = HELP_NOW_MS + log_end(l) * time_step;
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    }
}

static void mark(struct log *l)
{
    struct log_flush *f = log_mark_begin(l);
    cr_assert_not_null(f);
    log_flush_run(f);
    cr_assert_eq(log_flush_end(l, f), 0);
    cr_assert_eq(log_recovery_point(l), log_end(l));
    cr_assert_eq(log_unmarked_bytes(l), 0);
}

static char *index_of(const char *dir, const char *kind, size_t *ret_size)
{
    char *path = xasprintf("%s/00000000000000000000.%s", dir, kind), *data;
    cr_assert_eq(file_slurp(&file_system_real, path, 1 << 24, &data, ret_size), 0);
    free(path);
    return data;
}

static struct log_options after_crash(const char *dir, int64_t recovery_point, struct help_faults *f,
                                      struct file_system *fs)
{
    struct log_options o = help_options(dir);
    *f = (struct help_faults){.call = "pread", .left = -1};
    *fs = help_faulty(f);
    o.fs = fs;
    o.recovery_point = recovery_point;
    return o;
}

/* Opens it as after a crash, once from the mark on and once without it: both must come to the same. How many reads the
 * first one took. */
static int same_as_whole(const char *dir, int64_t recovery_point, int64_t end)
{
    struct help_faults f;
    struct file_system fs;
    struct log_options o = after_crash(dir, recovery_point, &f, &fs);
    struct log *l = help_open(&o);
    int reads = f.count;
    cr_assert_eq(log_end(l), end);
    append(l, 1, 1);
    log_abandon(l);
    size_t size[4];
    char *found[4] = {index_of(dir, "index", &size[0]), index_of(dir, "timeindex", &size[1])};

    o = after_crash(dir, 0, &f, &fs);
    l = help_open(&o);
    cr_assert_gt(f.count, WHOLE_READS);
    cr_assert_eq(log_end(l), end + 1);
    struct log_offset at;
    cr_assert_eq(log_offset_by_time(l, HELP_NOW_MS + BEFORE, &at, NULL), KERR_NONE);
    cr_assert_eq(at.offset, BEFORE);
    log_abandon(l);
    found[2] = index_of(dir, "index", &size[2]);
    found[3] = index_of(dir, "timeindex", &size[3]);
    for (size_t i = 0; i < 2; i++) {
        static const size_t entry[] = {8, 12};
        /* The last entry may have waited in memory when the first of the two was left. */
        size_t there = size[i];
        while (there > 0 && found[i][there - 1] == 0)
            there--;
        there = (there + entry[i] - 1) / entry[i] * entry[i];
        cr_assert(there == size[i + 2] || there + entry[i] == size[i + 2], "%zu and %zu bytes", there, size[i + 2]);
        /* A start seals the time index with an entry for its own end. */
        cr_assert_eq(memcmp(found[i], found[i + 2], there - (i == 1 ? entry[i] : 0)), 0, "index %zu differs", i);
    }
    for (int i = 0; i < 4; i++)
        free(found[i]);
    return reads;
}

static int64_t crashed(const char *dir, bool marks)
{
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    append(l, BEFORE, 1);
    if (marks)
        mark(l);
    else
        cr_assert_eq(log_flush(l), 0);
    int64_t point = log_recovery_point(l);
    append(l, BEHIND, 1);
    log_abandon(l);
    return point;
}

Test(log_resume, reads_what_lies_behind_the_mark)
{
    const char *dir = help_dir("resume");
    int64_t point = crashed(dir, true);
    cr_assert_eq(point, BEFORE);
    cr_assert_lt(same_as_whole(dir, point, BEFORE + BEHIND), WHOLE_READS);
}

Test(log_resume, without_a_mark_all_is_read)
{
    const char *dir = help_dir("resume-none");
    int64_t point = crashed(dir, false);
    cr_assert_gt(same_as_whole(dir, point, BEFORE + BEHIND), WHOLE_READS);
}

Test(log_resume, a_mark_above_the_recovery_point_is_not_trusted)
{
    const char *dir = help_dir("resume-above");
    (void)crashed(dir, true);
    cr_assert_gt(same_as_whole(dir, BEFORE - 1, BEFORE + BEHIND), WHOLE_READS);
}

/* Zeros from some entry on, as a power cut leaves them: what is before them is used. */
static void tear(const char *dir, const char *kind, off_t at)
{
    char *path = xasprintf("%s/00000000000000000000.%s", dir, kind);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(truncate(path, at), 0);
    cr_assert_eq(truncate(path, st.st_size), 0);
    free(path);
}

Test(log_resume, torn_indexes_are_built_again_from_where_they_hold)
{
    static const off_t cuts[] = {0, 8 * 3, 512, 8 * 1000};
    for (size_t i = 0; i < COUNTOF(cuts); i++) {
        const char *dir = help_dir("resume-torn");
        int64_t point = crashed(dir, true);
        tear(dir, "index", cuts[i]);
        (void)same_as_whole(dir, point, BEFORE + BEHIND);
    }
}

Test(log_resume, an_index_of_other_records_is_not_used)
{
    const char *dir = help_dir("resume-other");
    int64_t point = crashed(dir, true);
    char *path = xasprintf("%s/00000000000000000000.index", dir);
    int fd = open(path, O_RDWR);
    /* Every position one byte further: no batch begins there. */
    for (off_t at = 0; at < (off_t)8 * BEFORE; at += 8) {
        uint8_t e[8];
        cr_assert_eq(pread(fd, e, 8, at), 8);
        e[7]++;
        cr_assert_eq(pwrite(fd, e, 8, at), 8);
    }
    close(fd);
    free(path);
    cr_assert_gt(same_as_whole(dir, point, BEFORE + BEHIND), WHOLE_READS);
}

Test(log_resume, damage_behind_the_mark_is_cut_and_before_the_recovery_point_it_is_not)
{
    for (int flushed = 0; flushed < 2; flushed++) {
        const char *dir = help_dir("resume-damage");
        struct log_options o = help_options(dir);
        struct log *l = help_open(&o);
        append(l, BEFORE, 1);
        mark(l);
        uint64_t at = log_size_bytes(l);
        append(l, BEHIND, 1);
        if (flushed)
            cr_assert_eq(log_flush(l), 0);
        o.recovery_point = log_recovery_point(l);
        log_abandon(l);
        char *path = xasprintf("%s/00000000000000000000.log", dir);
        int fd = open(path, O_RDWR);
        cr_assert_eq(pwrite(fd, "xxxx", 4, (off_t)at + 200), 4);
        close(fd);
        free(path);
        int err = log_open(&o, &l);
        cr_assert_eq(err, flushed ? -EBADMSG : 0);
        if (!flushed) {
            cr_assert_eq(log_end(l), BEFORE);
            log_abandon(l);
        }
    }
}

/* A client that did not hear of its last batches sends them again after the crash: all five are known. */
Test(log_resume, a_mark_remembers_five_batches_of_each_producer)
{
    const char *dir = help_dir("resume-producers");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    append(l, BEFORE, 1);
    struct help_batch b = HELP_BATCH;
    b.producer_id = 77;
    b.producer_epoch = 0;
    int64_t first = log_end(l);
    for (b.sequence = 0; b.sequence < 5; b.sequence++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    mark(l);
    o.recovery_point = log_recovery_point(l);
    log_abandon(l);
    for (int crashes = 0; crashes < 2; crashes++) {
        l = help_open(&o);
        for (b.sequence = 0; b.sequence < 5; b.sequence++) {
            struct log_append a;
            cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
            cr_assert(a.duplicate);
            cr_assert_eq(a.base_offset, first + b.sequence);
        }
        log_abandon(l);
    }
    /* A clean stop leaves what Kafka would: one entry. */
    l = help_open(&o);
    int64_t end = log_end(l);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    char *path = xasprintf("%s/%020lld.snapshot", dir, (long long)end);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_size, 10 + 46);
    free(path);
}

Test(log_resume, nothing_to_mark_when_nothing_came)
{
    const char *dir = help_dir("resume-nothing");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    cr_assert_null(log_mark_begin(l));
    append(l, 3, 1);
    mark(l);
    cr_assert_null(log_mark_begin(l));
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    append(l, 1, 1);
    cr_assert_gt(log_unmarked_bytes(l), VALUE);
    mark(l);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
}

Test(log_resume, a_clean_start_finds_a_last_entry_that_is_wrong)
{
    const char *dir = help_dir("resume-clean");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    append(l, 100, 1);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    size_t size, again;
    char *good = index_of(dir, "index", &size), *path = xasprintf("%s/00000000000000000000.index", dir);
    cr_assert_gt(size, 8);
    int fd = open(path, O_RDWR);
    uint8_t key[4];
    memcpy(key, good + size - 8, sizeof key);
    key[3]++;
    cr_assert_eq(pwrite(fd, key, sizeof key, (off_t)size - 8), 4);
    close(fd);
    o.clean = true;
    o.recovery_point = 100;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 100);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    char *built = index_of(dir, "index", &again);
    cr_assert_eq(again, size);
    cr_assert_eq(memcmp(built, good, size), 0);
    free(built);
    free(good);
    free(path);
}
