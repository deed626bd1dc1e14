/* test_cold.c - reads of what is not in memory: they say so instead of waiting, and find it after it was brought in. */
#include "help.h"
#include <criterion/criterion.h>
#include <stdlib.h>

enum { BATCHES = 3000, VALUE = 900 };

static struct log *cold_log(struct help_faults *f, const char *name, struct file_system *fs)
{
    *fs = help_faulty(f);
    struct log_options o = help_options(help_dir(name));
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    b.value_bytes = VALUE;
    for (int i = 0; i < BATCHES; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.fs = fs;
    o.clean = true;
    l = help_open(&o);
    f->cold = true;
    return l;
}

/* As a server does it; how many times something was brought in. */
static int locate_warm(struct log *l, int64_t offset, size_t max_bytes, struct log_range *ret)
{
    for (int rounds = 0;; rounds++) {
        bool cold;
        cr_assert_eq(log_locate_now(l, offset, log_end(l), max_bytes, true, ret, &cold), KERR_NONE);
        if (!cold && !log_is_cold(l, ret))
            return rounds;
        cr_assert_lt(rounds, 20);
        struct log_warm *w = log_warm_begin(l);
        cr_assert_not_null(w);
        log_warm_run(w);
        cr_assert_eq(log_warm_end(l, w), 0);
    }
}

static void is_batch(struct log *l, const struct log_range *r, int64_t offset)
{
    struct batch b;
    uint8_t *bytes = xmalloc(r->size_bytes);
    cr_assert_eq(log_copy(l, r, bytes), 0);
    cr_assert_eq(batch_read_header(slice_make(bytes, r->size_bytes), &b), 0);
    cr_assert_eq(b.base_offset, offset);
    free(bytes);
}

Test(cold, a_read_says_so_and_finds_it_later)
{
    struct help_faults f = {.left = -1};
    struct file_system fs;
    struct log *l = cold_log(&f, "cold", &fs);
    for (int64_t at = 0; at < BATCHES; at += 117) {
        struct log_range r, again;
        cr_assert_gt(locate_warm(l, at, 100000, &r), 0);
        cr_assert_eq(locate_warm(l, at, 100000, &again), 0, "it is in memory now");
        cr_assert_eq(memcmp(&r, &again, sizeof r), 0);
        is_batch(l, &r, at);
        /* Whoever does wait finds the same. */
        cr_assert_eq(log_locate(l, at, log_end(l), 100000, true, &again), KERR_NONE);
        cr_assert_eq(memcmp(&r, &again, sizeof r), 0);
    }
    cr_assert_eq(log_failed(l), 0);
    log_abandon(l);
}

/* A reader in sequence, from the start of a segment on, gets more than it asked for; one that jumps does not. */
Test(cold, what_follows_is_asked_for)
{
    struct help_faults f = {.left = -1};
    struct file_system fs;
    struct log *l = cold_log(&f, "ahead", &fs);
    struct log_range r;
    int64_t at = 0;
    for (int i = 0; i < 5; i++) {
        locate_warm(l, at, 200000, &r);
        cr_assert_gt(f.ahead, 0, "round %d", i);
        uint8_t *bytes = xmalloc(r.size_bytes);
        cr_assert_eq(log_copy(l, &r, bytes), 0);
        struct slice rest = slice_make(bytes, r.size_bytes);
        struct batch b;
        while (batch_next(&rest, &b, NULL) == 1)
            at = batch_next_offset(&b);
        free(bytes);
    }
    locate_warm(l, at + 1000, 200000, &r);
    cr_assert_eq(f.ahead, 0);
    log_abandon(l);
}

Test(cold, what_was_just_written_is_in_memory)
{
    struct help_faults f = {.left = -1, .cold = true};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("fresh"));
    o.fs = &fs;
    struct log *l = help_open(&o);
    struct help_batch b = HELP_BATCH;
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    struct log_range r;
    cr_assert_eq(locate_warm(l, 0, 1 << 20, &r), 0);
    is_batch(l, &r, 0);
    /* The log may go while something is brought in for it. */
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    bool cold;
    cr_assert_eq(log_locate_now(l, 0, 1, 1 << 20, true, &r, &cold), KERR_NONE);
    cr_assert(cold || log_is_cold(l, &r));
    struct log_warm *w = log_warm_begin(l);
    log_abandon(l);
    log_warm_run(w);
    cr_assert_eq(log_warm_end(NULL, w), 0);
}

Test(cold, a_broken_disk)
{
    struct help_faults f = {.left = -1, .error = -EIO, .times = 1};
    struct file_system fs;
    struct log *l = cold_log(&f, "coldfault", &fs);
    struct log_range r;
    bool cold;
    cr_assert_eq(log_locate_now(l, 2000, log_end(l), 1000, true, &r, &cold), KERR_NONE);
    cr_assert(cold);
    f.call = "dup";
    f.left = 0;
    cr_assert_null(log_warm_begin(l));
    cr_assert_eq(log_failed(l), 0);
    f.call = "prefetch";
    f.times = 1;
    struct log_warm *w = log_warm_begin(l);
    log_warm_run(w);
    cr_assert_eq(log_warm_end(l, w), -EIO);
    cr_assert_eq(log_failed(l), -EIO);
    log_abandon(l);
}
