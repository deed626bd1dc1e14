/* test_clean_faults.c - compaction on a disk that fails, and in a process that dies, at every single call: no record
 * that must stay is lost, none comes back that is gone for good, and every start opens the log. */
#include "clean_help.h"
#include <criterion/criterion.h>
#include <limits.h>
#include <stdlib.h>

struct life {
    struct clean_model model;
    int64_t point;      /* the recovery point that is written down */
    int64_t checkpoint; /* of the cleaner */
    bool cleaned;       /* to the end */
};

static void append(struct log *l, struct life *life, int from, int to, bool tombstone)
{
    for (int key = from; key < to; key++) {
        struct clean_batch b = CLEAN_BATCH;
        b.keys[0] = key;
        b.keys[1] = key + 1;
        b.count = 2;
        b.tombstones = tombstone && key % 3 == 0;
        (void)clean_append(l, &life->model, &b);
    }
}

/* The closed segments of a log, on a disk that works. */
static void fill(const struct log_options *o, struct life *life)
{
    struct log *l = help_open(o);
    for (int i = 0; i < 3; i++)
        append(l, life, 0, 14, i == 2);
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    append(l, life, 0, 3, false);
    cr_assert_eq(log_flush(l), 0);
    life->point = log_recovery_point(l);
    life->checkpoint = -1;
    log_abandon(l);
}

static int clean_twice(struct log *l, struct life *life)
{
    int err = 0;
    for (int i = 0; i < 2 && err == 0; i++) {
        /* The second round puts the small segments together. */
        err = clean_run(l, life->checkpoint, HELP_NOW_MS + i, 1 << 20, &life->checkpoint);
        if (err == 0 && i == 0)
            err = log_roll(l, HELP_NOW_MS);
    }
    return err == -EAGAIN ? 0 : err;
}

/* One life with call n failing. 1: it was not reached. */
static int live(int n, int error, int times, bool shorten)
{
    struct help_faults f = {.left = -1, .error = error, .times = times, .shorten = shorten};
    struct file_system fs = help_faulty(&f);
    struct log_options o = clean_options("clean_torture");
    struct life life = {0};
    fill(&o, &life);
    o.recovery_point = life.point;
    o.fs = &fs;
    struct log *l = help_open(&o);
    f.left = n;
    f.count = 0;
    int err = clean_twice(l, &life);
    f.left = -1;
    cr_assert(f.count > n || err == 0, "call %d: %d", n, err);
    bool passed = f.count <= n;
    int64_t end = log_end(l);
    if (error == -ENOSPC && times == 1)
        cr_assert(log_failed(l) == 0 || err == log_failed(l), "call %d", n);
    if (log_failed(l) == 0)
        clean_check(l, &life.model, err == 0 ? life.checkpoint : CLEAN_HALFWAY, true);
    log_abandon(l);
    o.fs = &file_system_real;
    o.compacted_to = life.checkpoint;
    l = help_open(&o);
    cr_assert_eq(log_start(l), 0, "call %d", n);
    cr_assert_eq(log_end(l), end, "call %d: %ld for %ld", n, (long)log_end(l), (long)end);
    clean_check(l, &life.model, CLEAN_HALFWAY, true);
    /* And it can be cleaned now. */
    cr_assert_eq(log_flush(l), 0);
    int64_t checkpoint = -1;
    err = clean_run(l, -1, HELP_NOW_MS, 1 << 20, &checkpoint);
    cr_assert_eq(err, 0, "call %d: %d", n, err);
    clean_check(l, &life.model, checkpoint, true);
    log_abandon(l);
    clean_model_free(&life.model);
    return passed;
}

static void torture(int error, int times, bool shorten)
{
    int n = 0;
    while (!live(n, error, times, shorten))
        cr_assert_lt(++n, 3000);
    cr_assert_gt(n, 100);
}

Test(clean_faults, every_call_fails_once_with_eio)
{
    torture(-EIO, 1, true);
}

Test(clean_faults, every_call_fails_once_with_enospc)
{
    torture(-ENOSPC, 1, true);
}

/* From call n on nothing works: what the disk holds then is what kill -9 would leave. */
Test(clean_faults, dies_at_every_call)
{
    torture(-EIO, INT_MAX, false);
}
