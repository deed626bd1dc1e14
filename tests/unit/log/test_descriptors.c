/* test_descriptors.c - the open files of many logs are bounded, whatever is done with them. */
#include "help.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>

enum { LOGS = 60, BOUND = 20 };

static size_t open_files(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    cr_assert_not_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static void write_and_read(struct log *l, int32_t times)
{
    struct help_batch b = HELP_BATCH;
    struct log_range range;
    uint8_t bytes[1024];
    for (int32_t i = 0; i < times; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
    cr_assert_eq(log_locate(l, 0, log_end(l), sizeof bytes, true, &range), KERR_NONE);
    cr_assert_gt(range.size_bytes, 0);
    cr_assert_eq(log_copy(l, &range, bytes), 0);
}

Test(descriptors, of_many_logs_are_bounded)
{
    struct log *logs[LOGS];
    struct log_pool *pool = log_pool_new();
    log_pool_bound_descriptors(pool, BOUND);
    size_t before = open_files();
    for (int i = 0; i < LOGS; i++) {
        char name[64];
        snprintf(name, sizeof name, "many%d", i);
        struct log_options o = help_options(help_dir(name));
        o.pool = pool;
        o.config.segment_bytes = 2000;
        logs[i] = help_open(&o);
        write_and_read(logs[i], 20); /* with rolls: an index each */
        cr_assert_leq(open_files(), before + BOUND);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < LOGS; i++) {
            write_and_read(logs[i], 3);
            if (round == 1)
                cr_assert_eq(log_flush(logs[i]), 0);
            if (round == 2)
                cr_assert_eq(log_truncate(logs[i], log_end(logs[i]) - 5), 0);
            cr_assert_leq(open_files(), before + BOUND);
        }
    }
    for (int i = 0; i < LOGS; i++)
        cr_assert_eq(log_close(logs[i], HELP_NOW_MS), 0);
    log_pool_free(pool);
    cr_assert_eq(open_files(), before);
}

Test(descriptors, give_way_when_the_process_has_none_left)
{
    struct help_faults f = {.call = "open", .left = -1, .error = -EMFILE, .times = 1};
    struct file_system fs = help_faulty(&f);
    struct log_pool *pool = log_pool_new();
    struct log *logs[LOGS];
    for (int i = 0; i < LOGS; i++) {
        char name[64];
        snprintf(name, sizeof name, "none%d", i);
        struct log_options o = help_options(help_dir(name));
        o.pool = pool;
        o.fs = &fs;
        logs[i] = help_open(&o);
        if (i + 1 < LOGS)
            write_and_read(logs[i], 1);
    }
    size_t before = open_files();
    f.left = 0;
    write_and_read(logs[LOGS - 1], 1);
    cr_assert_eq(f.times, 0, "an open failed");
    cr_assert_leq(open_files(), before);
    for (int i = 0; i < LOGS; i++)
        log_abandon(logs[i]);
    log_pool_free(pool);
}
