/* test_references.c - a reader that has found its records, or was given their file, while the log under it changes: it
 * gets the bytes that were there or a clean "gone", never others; and in the end no descriptor is left. */
#include "help.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

enum { RECORDS = 120, VALUE = 900, AT = 50 };

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

static void append(struct log *l, int count, size_t value_bytes)
{
    struct help_batch b = HELP_BATCH;
    b.value_bytes = value_bytes;
    for (int i = 0; i < count; i++)
        cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
}

static void roll(struct log *l)
{
    cr_assert_eq(log_roll(l, HELP_NOW_MS), 0);
    append(l, 3, VALUE);
}

static void cut_before(struct log *l) /* what was found is gone, and other records lie in its place */
{
    cr_assert_eq(log_truncate(l, AT - 10), 0);
    append(l, 40, VALUE / 3);
}

static void cut_behind(struct log *l)
{
    cr_assert_eq(log_truncate(l, AT + 30), 0);
    append(l, 40, VALUE / 3);
}

static void remove_segments(struct log *l)
{
    cr_assert_eq(log_delete_before(l, AT + 30), 0);
    cr_assert_gt(log_retain(l, HELP_NOW_MS), 0);
    log_tick(l, HELP_NOW_MS + 1);
}

static void begin_anew(struct log *l)
{
    cr_assert_eq(log_restart_at(l, 0, HELP_NOW_MS), 0);
    append(l, RECORDS, VALUE / 3);
}

static void close_idle(struct log *l)
{
    log_tick(l, HELP_NOW_MS);
    log_tick(l, HELP_NOW_MS);
}

Test(references, hold_what_they_held)
{
    static const struct {
        void (*change)(struct log *l);
        bool stays; /* the records are in the log still */
    } cases[] = {{roll, true},        {cut_before, false}, {cut_behind, true}, {remove_segments, false},
                 {begin_anew, false}, {close_idle, true}};
    size_t before = open_files();
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct log_options o = help_options(help_dir("references"));
        o.config.segment_bytes = 20000;
        o.config.file_delete_delay_ms = 0;
        struct log *l = help_open(&o);
        append(l, RECORDS, VALUE);
        struct log_range r;
        struct log_file given;
        uint8_t was[3000], now[3000];
        cr_assert_eq(log_locate(l, AT, log_end(l), sizeof was, true, &r), KERR_NONE);
        cr_assert_eq(log_copy(l, &r, was), 0);
        cr_assert_eq(log_file(l, &r, &given), 0);
        cases[i].change(l);
        /* The file that was given away has what it had, whatever became of its name. */
        cr_assert_eq(pread(given.fd, now, r.size_bytes, (off_t)r.position), (ssize_t)r.size_bytes, "case %zu", i);
        cr_assert_eq(memcmp(was, now, r.size_bytes), 0, "case %zu", i);
        close(given.fd);
        /* Who comes with what it found before is told, where that is not there any more; a look anew is right. */
        if (cases[i].stays) {
            cr_assert_eq(log_copy(l, &r, now), 0, "case %zu", i);
            cr_assert_eq(memcmp(was, now, r.size_bytes), 0, "case %zu", i);
        }
        enum kafka_error error = log_locate(l, AT, log_end(l), sizeof now, true, &r);
        if (error == KERR_NONE) {
            struct batch b;
            cr_assert_eq(log_copy(l, &r, now), 0);
            cr_assert_eq(batch_read_header(slice_make(now, r.size_bytes), &b), 0);
            cr_assert_eq(b.base_offset, AT, "case %zu", i);
        } else {
            cr_assert_eq(error, KERR_OFFSET_OUT_OF_RANGE, "case %zu", i);
        }
        cr_assert_eq(log_failed(l), 0);
        cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
        cr_assert_eq(open_files(), before, "case %zu", i);
    }
}
