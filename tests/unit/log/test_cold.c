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

Test(cold, the_machines_own_file_system_brings_in_every_byte)
{
    const struct file_system *fs = &file_system_real;
    enum { SIZE = 5000000, PAGE = 4096 };
    uint8_t *bytes = xmalloc(SIZE), byte;
    memset(bytes, 'x', SIZE);
    char *path = xasprintf("%s.file", help_dir("prefetch"));
    int fd = file_open(fs, path, O_RDWR | O_CREAT | O_TRUNC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(file_write(fs, fd, bytes, SIZE, 0), 0);
    cr_assert_eq(file_fdatasync(fs, fd), 0);
    cr_assert_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0); /* where that does nothing, less is tested */
    cr_assert_eq(file_prefetch(fs, fd, 1000000, 3000000), 0);
    for (uint64_t at = 1000000; at < 4000000; at += PAGE)
        cr_assert_eq(file_read_now(fs, fd, &byte, 1, at), 0, "at %llu", (unsigned long long)at);
    cr_assert_eq(file_prefetch(fs, fd, SIZE - 10, 1000), 0, "the file's end is no error");
    cr_assert_eq(file_prefetch(fs, file_close(fs, fd), 0, 1000), -EBADF);
    (void)file_unlink(fs, path);
    free(path);
    free(bytes);
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
