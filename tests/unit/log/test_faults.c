/* test_faults.c - every call fails once: what was acknowledged is there afterwards, what was not is not there twice. */
#include "help.h"
#include <criterion/criterion.h>
#include <stdlib.h>

Test(faults, a_short_write_is_undone)
{
    struct help_faults f = {.call = "pwritev", .left = -1, .error = -ENOSPC, .times = 1, .shorten = true};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("short"));
    o.fs = &fs;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    struct log_append a;
    b.producer_id = 3;
    b.producer_epoch = 0;
    b.sequence = 0;
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    uint64_t size = log_size_bytes(l);
    f.left = 0;
    b.sequence = 1;
    cr_assert_eq(help_append(l, &b, &a), KERR_KAFKA_STORAGE_ERROR);
    cr_assert_eq(log_failed(l), 0, "a full disk is no broken disk");
    cr_assert_eq(log_end(l), 1);
    cr_assert_eq(log_size_bytes(l), size);
    /* The producer's retry is no duplicate and no gap. */
    cr_assert_eq(help_append(l, &b, &a), KERR_NONE);
    cr_assert_not(a.duplicate);
    cr_assert_eq(a.base_offset, 1);
    log_abandon(l);
    o.fs = &file_system_real;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 2);
    log_abandon(l);
}

/* The roll in the middle of a turn writes what was staged before it. When that fails, what is staged afterwards gets
 * the same offsets; only the later append is in the log. */
Test(faults, an_undone_append_is_not_taken_for_a_later_one)
{
    struct help_faults f = {.call = "pwritev", .left = -1, .error = -ENOSPC, .times = 1};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("undone"));
    o.fs = &fs;
    o.config.segment_bytes = 1000;
    struct log *l = help_open(&o);
    struct help_batch small = HELP_BATCH, big = HELP_BATCH;
    big.value_bytes = 900;
    struct buf bytes[3] = {help_batch(&small), help_batch(&big), help_batch(&small)};
    struct log_append a[3];
    enum kafka_error errors[3];
    f.left = 0;
    for (int i = 0; i < 3; i++) {
        a[i] = (struct log_append){.bytes = bytes[i].data, .size = bytes[i].size, .now_wall_ms = HELP_NOW_MS};
        errors[i] = log_stage(l, &a[i]);
    }
    cr_assert_eq(log_commit(l), 0);
    cr_assert_eq(errors[0], KERR_NONE);
    cr_assert_eq(errors[1], KERR_KAFKA_STORAGE_ERROR);
    cr_assert_eq(errors[2], KERR_NONE);
    cr_assert_not(log_append_written(l, &a[0]));
    cr_assert(log_append_written(l, &a[2]));
    cr_assert_eq(log_end(l), 1);
    for (int i = 0; i < 3; i++)
        buf_free(&bytes[i]);
    log_abandon(l);
}

Test(faults, a_failed_flush_is_final)
{
    struct help_faults f = {.call = "fdatasync", .left = 0, .error = -EIO, .times = 1};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("flush"));
    o.fs = &fs;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_flush(l), -EIO);
    cr_assert_eq(log_recovery_point(l), 0);
    cr_assert_eq(log_failed(l), -EIO);
    cr_assert_eq(log_flush(l), -EIO);
    cr_assert_eq(help_append(l, &b, NULL), KERR_KAFKA_STORAGE_ERROR);
    log_abandon(l);
}

/* An epoch that a full disk did not take is needed before the recovery point may pass its records; once there is room,
 * all goes on. */
Test(faults, a_full_disk_puts_a_flush_off)
{
    struct help_faults f = {.call = "pwritev", .left = -1, .error = -ENOSPC};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("fullflush"));
    o.fs = &fs;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    f.left = 1; /* the records go in, their epoch does not */
    f.times = 3;
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_flush(l), -ENOSPC);
    cr_assert_eq(log_flush(l), -ENOSPC);
    cr_assert_eq(log_failed(l), 0);
    cr_assert_eq(log_recovery_point(l), 0);
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_recovery_point(l), 1);
    log_abandon(l);
    o.recovery_point = 1;
    l = help_open(&o);
    cr_assert_eq(log_latest_epoch(l), 0);
    log_abandon(l);
    f = (struct help_faults){.call = "fdatasync", .left = 0, .error = -ENOSPC, .times = 1};
    o.recovery_point = 0;
    l = help_open(&o);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_flush(l), -ENOSPC);
    cr_assert_eq(log_failed(l), -ENOSPC, "what a flush lost is lost");
    log_abandon(l);
}

/* Appends with rolls, retention, a flush and a stop. Returns how many records were acknowledged; *ret_start is the log
 * start. */
static int64_t body(const struct log_options *o, int64_t *ret_start)
{
    struct log *l;
    int64_t acknowledged = 0;
    int err = 0;
    *ret_start = 0;
    if (log_open(o, &l) < 0)
        return 0;
    struct help_batch b = HELP_BATCH;
    b.producer_id = 9;
    b.producer_epoch = 0;
    for (int i = 0; i < 40; i++) {
        b.sequence = (int32_t)acknowledged;
        if (help_append(l, &b, NULL) == KERR_NONE)
            acknowledged++;
        if (i == 20)
            err |= log_flush(l);
        if (i == 30)
            err |= log_retain(l, HELP_NOW_MS);
    }
    *ret_start = log_start(l);
    err |= log_close(l, HELP_NOW_MS);
    /* With a call that failed some of these did; what matters is what the next start finds. */
    cr_assert_leq(err < 0 ? 1 : 0, 1);
    return acknowledged;
}

static void torture(int error)
{
    for (int n = 0;; n++) {
        struct help_faults f = {.left = n, .error = error, .times = 1, .shorten = true};
        struct file_system fs = help_faulty(&f);
        const char *dir = help_dir("torture");
        struct log_options o = help_options(dir);
        o.config.segment_bytes = 1000;
        o.config.retention_bytes = 3000;
        o.fs = &fs;
        int64_t start, acknowledged = body(&o, &start);
        bool passed = f.count <= n;
        o.fs = &file_system_real;
        struct log *l = help_open(&o);
        /* A write that was not acknowledged is cut off again, so the end is exact; unless the log went offline in
         * between. */
        cr_assert_geq(log_end(l), acknowledged, "call %d: %ld acknowledged, %ld there", n, (long)acknowledged,
                      (long)log_end(l));
        cr_assert_leq(log_end(l), acknowledged + 1, "call %d", n);
        cr_assert_leq(log_start(l), log_end(l));
        int64_t at = log_start(l);
        while (at < log_end(l)) {
            struct log_range r;
            uint8_t bytes[1000];
            struct batch h;
            cr_assert_eq(log_locate(l, at, log_end(l), 1, true, &r), KERR_NONE);
            cr_assert_leq(r.size_bytes, sizeof bytes);
            cr_assert_eq(log_copy(l, &r, bytes), 0);
            cr_assert_eq(batch_read_header(slice_make(bytes, r.size_bytes), &h), 0);
            cr_assert_eq(h.base_offset, at);
            cr_assert_eq(h.base_sequence, at, "call %d: each record once and in order", n);
            at = batch_next_offset(&h);
        }
        log_abandon(l);
        if (passed) {
            cr_assert_eq(acknowledged, 40);
            return;
        }
        cr_assert_lt(n, 5000);
    }
}

Test(faults, every_call_fails_once_with_eio)
{
    torture(-EIO);
}

Test(faults, every_call_fails_once_with_enospc)
{
    torture(-ENOSPC);
}
