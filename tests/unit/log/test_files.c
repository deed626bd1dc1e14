/* test_files.c - segment files that were given away: what a reader was given never changes under it. */
#include "help.h"
#include "libs/log/index.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH_VALUE = 300 };

/* A reader elsewhere: a descriptor, a slice of the file, and what it must hold. */
struct given {
    struct log_file file;
    struct log_range range;
    uint8_t *expected;
};

static struct given give(struct log *l, int64_t offset)
{
    struct given g;
    cr_assert_eq(log_locate(l, offset, log_end(l), 1 << 20, true, &g.range), KERR_NONE);
    cr_assert_gt(g.range.size_bytes, 0);
    cr_assert_eq(log_file(l, &g.range, &g.file), 0);
    cr_assert_eq(fcntl(g.file.fd, F_GETFL) & O_ACCMODE, O_RDONLY, "who is given it may not write");
    cr_assert_neq(g.file.instance, 0);
    cr_assert(log_has_file(l, g.range.segment, g.file.instance));
    g.expected = xmalloc(g.range.size_bytes);
    cr_assert_eq(log_copy(l, &g.range, g.expected), 0);
    return g;
}

static void still_whole(const struct given *g)
{
    uint8_t *now = xmalloc(g->range.size_bytes);
    cr_assert_eq(pread(g->file.fd, now, g->range.size_bytes, (off_t)g->range.position), (ssize_t)g->range.size_bytes);
    cr_assert_eq(memcmp(now, g->expected, g->range.size_bytes), 0);
    free(now);
}

static void let_go(struct given *g)
{
    still_whole(g);
    close(g->file.fd);
    free(g->expected);
}

static void append(struct log *l, int count, size_t value_bytes)
{
    struct help_batch b = HELP_BATCH;
    b.value_bytes = value_bytes;
    for (int i = 0; i < count; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
}

/* Every batch from the log start to its end, each with its own bytes. */
static void is_readable(struct log *l, int64_t end, int64_t first_new, size_t new_value_bytes)
{
    cr_assert_eq(log_end(l), end);
    for (int64_t at = log_start(l); at < end; at++) {
        struct log_range r;
        struct batch b;
        uint8_t bytes[2000];
        cr_assert_eq(log_locate(l, at, end, 1, true, &r), KERR_NONE);
        cr_assert_leq(r.size_bytes, sizeof bytes);
        cr_assert_eq(log_copy(l, &r, bytes), 0);
        cr_assert_eq(batch_read_header(slice_make(bytes, r.size_bytes), &b), 0);
        cr_assert_eq(b.base_offset, at);
        cr_assert(batch_crc_holds(&b, slice_make(bytes, r.size_bytes)));
        cr_assert_eq(b.size > new_value_bytes, at >= first_new ? true : BATCH_VALUE > new_value_bytes);
    }
}

Test(files, truncation_leaves_a_given_file_alone)
{
    const char *dir = help_dir("given");
    struct log_options o = help_options(dir);
    struct log *l = help_open(&o);
    append(l, 20, BATCH_VALUE);
    struct given first = give(l, 3), second = give(l, 0);
    cr_assert_neq(first.file.instance, second.file.instance);
    cr_assert_not(log_has_file(l, 0, first.file.instance), "the number of the last giving counts");
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(log_truncate(l, 5), 0);
    cr_assert_not(log_has_file(l, 0, second.file.instance));
    append(l, 30, 500);
    still_whole(&first);
    still_whole(&second);
    is_readable(l, 35, 5, 400);
    /* The new file was given to nobody: it is cut where it is. */
    struct stat before, after;
    char *path = xasprintf("%s/00000000000000000000.log", dir);
    cr_assert_eq(stat(path, &before), 0);
    cr_assert_eq(log_truncate(l, 10), 0);
    cr_assert_eq(stat(path, &after), 0);
    cr_assert_eq(before.st_ino, after.st_ino);
    struct given third = give(l, 0);
    cr_assert_gt(third.file.instance, second.file.instance);
    cr_assert_eq(log_truncate(l, 0), 0);
    cr_assert_eq(log_end(l), 0);
    append(l, 2, 500);
    let_go(&first);
    let_go(&second);
    let_go(&third);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.clean = true;
    l = help_open(&o);
    is_readable(l, 2, 0, 400);
    log_abandon(l);
    free(path);
}

Test(files, a_failed_append_takes_nothing_that_was_given)
{
    struct help_faults f = {.call = "pwritev", .left = -1, .error = -ENOSPC, .times = 1, .shorten = true};
    struct file_system fs = help_faulty(&f);
    struct log_options o = help_options(help_dir("undogiven"));
    o.fs = &fs;
    struct log *l = help_open(&o);
    append(l, 5, BATCH_VALUE);
    struct given g = give(l, 0);
    f.left = 0;
    struct help_batch b = HELP_BATCH;
    cr_assert_eq(help_append(l, &b, NULL), KERR_KAFKA_STORAGE_ERROR);
    cr_assert(log_has_file(l, 0, g.file.instance), "it is the same file, and goes on being it");
    append(l, 5, 500);
    cr_assert(log_has_file(l, 0, g.file.instance));
    let_go(&g);
    is_readable(l, 10, 5, 400);
    log_abandon(l);
}

Test(files, what_is_removed_or_begun_anew_was_another_file)
{
    struct log_options o = help_options(help_dir("removed"));
    o.config.segment_bytes = 2000;
    o.pool = log_pool_new();
    struct log *l = help_open(&o);
    append(l, 30, BATCH_VALUE);
    struct given old = give(l, 0), active = give(l, 29);
    cr_assert_neq(old.range.segment, active.range.segment);
    o.config.retention_bytes = 1000;
    log_set_config(l, &o.config);
    cr_assert_gt(log_retain(l, HELP_NOW_MS), 0);
    cr_assert_not(log_has_file(l, old.range.segment, old.file.instance));
    cr_assert(log_has_file(l, active.range.segment, active.file.instance));
    cr_assert_eq(log_copy(l, &old.range, old.expected), -ESTALE);
    struct log_file none;
    cr_assert_eq(log_file(l, &old.range, &none), -ESTALE);
    log_tick(l, HELP_NOW_MS + 1000000);
    still_whole(&old);
    cr_assert_eq(log_restart_at(l, active.range.segment, HELP_NOW_MS), 0);
    cr_assert_not(log_has_file(l, active.range.segment, active.file.instance));
    append(l, 3, 500);
    still_whole(&active);
    char *path;
    struct given last = give(l, log_start(l));
    cr_assert_gt(last.file.instance, active.file.instance);
    cr_assert_eq(log_delete(l, (struct uuid){{7}}, &path), 0);
    cr_assert_eq(file_remove_tree(&file_system_real, path), 0);
    free(path);
    let_go(&old);
    let_go(&active);
    let_go(&last);
    log_pool_free(o.pool);
}

/* Every call of the truncation fails once: the reader's file is whole, and so is what the next start finds. */
Test(files, a_truncation_that_fails)
{
    static const int errors[] = {-EIO, -ENOSPC};
    for (size_t e = 0; e < COUNTOF(errors); e++) {
        for (int n = 0;; n++) {
            struct help_faults f = {.left = -1, .error = errors[e], .times = 1, .shorten = true};
            struct file_system fs = help_faulty(&f);
            struct log_options o = help_options(help_dir("cutfault"));
            o.fs = &fs;
            struct log *l = help_open(&o);
            append(l, 20, BATCH_VALUE);
            cr_assert_eq(log_flush(l), 0);
            struct given g = give(l, 0);
            f.left = n;
            f.count = 0;
            int err = log_truncate(l, 7);
            bool passed = f.count <= n;
            f.left = -1;
            cr_assert(err == 0 || log_failed(l) != 0);
            int64_t kept = 20;
            if (err == 0) {
                append(l, 6, 500);
                kept = 13;
            }
            let_go(&g);
            log_abandon(l);
            o.fs = &file_system_real;
            o.recovery_point = 7;
            l = help_open(&o);
            if (err == 0)
                is_readable(l, kept, 7, 400);
            else
                cr_assert(log_end(l) == 20 || log_end(l) == 7);
            log_abandon(l);
            if (passed) {
                cr_assert_eq(err, 0);
                break;
            }
            cr_assert_lt(n, 200);
        }
    }
}

/* ---- the index, which finds where a reader goes on ---- */

Test(files, an_index_finds_the_same_however_its_entries_lie)
{
    enum { ENTRIES = 5000 };
    unsigned seed = 3;
    for (int shape = 0; shape < 4; shape++) {
        const char *dir = help_dir("index");
        (void)file_mkdir(&file_system_real, dir);
        char *path = xasprintf("%s/x.index", dir);
        struct index x;
        index_init(&x, &file_system_real, path, INDEX_OFFSET_ENTRY, 0);
        static int64_t keys[ENTRIES];
        int64_t key = 0;
        for (int i = 0; i < ENTRIES; i++) {
            int step = shape == 0   ? 40
                       : shape == 1 ? 1 + rand_r(&seed) % 400
                       : shape == 2 ? (i < ENTRIES / 2 ? 1 : 20000)
                                    : (i < ENTRIES - 10 ? 1 : 100000000);
            keys[i] = key += step;
            cr_assert_eq(index_add(&x, key, i * 5000), 0);
        }
        cr_assert_eq(index_write(&x), 0);
        for (int n = 0; n < 20000; n++) {
            int64_t want = n % 2 ? keys[rand_r(&seed) % ENTRIES] + rand_r(&seed) % 3 - 1
                                 : (int64_t)((double)rand_r(&seed) / RAND_MAX * 1.1 * (double)key);
            want = n == 0 ? -1 : want;
            int low = 0, high = ENTRIES;
            while (low < high) {
                int mid = (low + high) / 2;
                if (keys[mid] <= want)
                    low = mid + 1;
                else
                    high = mid;
            }
            int64_t found;
            int32_t value;
            int got = index_floor(&x, want, &found, &value);
            cr_assert_eq(got, low > 0);
            if (got)
                cr_assert(found == keys[low - 1] && value == (low - 1) * 5000);
        }
        index_free(&x);
        free(path);
    }
}
