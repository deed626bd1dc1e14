/* test_move.c - a log goes to another directory: byte for byte, with all that it is in memory, and whatever call fails
 * or is the last one there is exactly one folder that holds every acknowledged record. */
#include "help.h"
#include "libs/log/move.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { STEP = 5000 };

/* The folders of a test: a partition in one directory, its new place and the copy in another. */
struct places {
    char old[300], target[300], folder[320], doomed[320], other[300];
};

static struct places make_places(const char *name)
{
    struct places p;
    char base[280];
    snprintf(p.old, sizeof p.old, "%s", help_dir(name));
    snprintf(base, sizeof base, "%.*s", (int)(strlen(p.old) - strlen("/topic-0")), p.old);
    snprintf(p.other, sizeof p.other, "%s/other", base);
    mkdir(p.other, 0755);
    snprintf(p.target, sizeof p.target, "%.270s/topic-0", p.other);
    snprintf(p.folder, sizeof p.folder, "%.270s/topic-0.x-future", p.other);
    snprintf(p.doomed, sizeof p.doomed, "%s.x-delete", p.old);
    cr_assert_eq(file_remove_tree(&file_system_real, p.target), 0);
    cr_assert_eq(file_remove_tree(&file_system_real, p.folder), 0);
    cr_assert_eq(file_remove_tree(&file_system_real, p.doomed), 0);
    return p;
}

static void append(struct log *l, int sequence, size_t value_bytes)
{
    struct help_batch b = HELP_BATCH;
    b.producer_id = 7;
    b.producer_epoch = 0;
    b.sequence = sequence;
    b.value_bytes = value_bytes;
    cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
}

static int step(struct log_move *m, bool *ret_target)
{
    uint64_t bytes;
    int err = log_move_begin(m, STEP);
    *ret_target = false;
    if (err < 0)
        return err;
    log_move_run(m);
    return log_move_end(m, ret_target, &bytes);
}

/* Steps until it is near. */
static int approach(struct log_move *m, bool *ret_target)
{
    int err = 0;
    for (int i = 0; err == 0 && !log_move_is_near(m); i++) {
        cr_assert_lt(i, 10000);
        err = step(m, ret_target);
    }
    return err;
}

/* As its owner does: what was appended since may have made it far again. */
static int finish(struct log_move *m, const struct places *p, bool *ret_target)
{
    int err;
    while ((err = log_move_finish(m, p->doomed, ret_target)) == -EAGAIN) {
        err = approach(m, ret_target);
        if (err < 0)
            break;
    }
    return err;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static void expect_same_files(const char *a, const char *b)
{
    DIR *d = opendir(a);
    cr_assert_not_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char from[700], to[700], *x, *y;
        size_t n, k;
        if (e->d_name[0] == '.' || strstr(e->d_name, ".deleted") != NULL)
            continue;
        snprintf(from, sizeof from, "%s/%s", a, e->d_name);
        snprintf(to, sizeof to, "%s/%s", b, e->d_name);
        cr_assert_eq(file_slurp(&file_system_real, from, SIZE_MAX, &x, &n), 0);
        cr_assert_eq(file_slurp(&file_system_real, to, SIZE_MAX, &y, &k), 0, "%s is not copied", e->d_name);
        cr_assert(n == k && memcmp(x, y, n) == 0, "%s differs", e->d_name);
        free(x);
        free(y);
    }
    closedir(d);
}

static int64_t read_everything(struct log *l)
{
    int64_t at = log_start(l);
    while (at < log_end(l)) {
        struct log_range range;
        cr_assert_eq(log_locate(l, at, log_end(l), 1 << 20, true, &range), KERR_NONE);
        uint8_t *bytes = malloc(range.size_bytes);
        cr_assert_eq(log_copy(l, &range, bytes), 0);
        struct slice rest = slice_make(bytes, range.size_bytes);
        struct batch b;
        while (rest.size > 0 && batch_next(&rest, &b, NULL) == 1)
            at = batch_next_offset(&b);
        free(bytes);
    }
    return at;
}

Test(move, all_of_it_comes_along)
{
    struct places p = make_places("move");
    struct log_options o = help_options(p.old);
    bool target;
    o.config.segment_bytes = 4000;
    struct log *l = help_open(&o);
    for (int i = 0; i < 100; i++)
        append(l, i, 300);
    log_assign_epoch(l, 4);
    cr_assert_eq(log_delete_before(l, 30), 0);
    struct log_move *m = log_move_new(l, p.folder, p.target);
    /* Written, rolled and retained while it is copied. */
    for (int i = 100; i < 200; i++) {
        append(l, i, 300);
        cr_assert_eq(step(m, &target), 0);
        if (i == 140)
            cr_assert_gt(log_retain(l, HELP_NOW_MS), 0);
    }
    cr_assert_eq(approach(m, &target), 0);
    append(l, 200, 300); /* the rest is copied with the change of names, unless it made a new segment */
    cr_assert_eq(finish(m, &p, &target), 0);
    m = log_move_free(m);
    cr_assert(exists(p.target) && exists(p.doomed) && !exists(p.old) && !exists(p.folder));
    expect_same_files(p.doomed, p.target);
    expect_same_files(p.target, p.doomed);
    cr_assert_str_eq(log_dir(l), p.target);
    cr_assert_eq(log_start(l), 30);
    cr_assert_eq(log_end(l), 201);
    cr_assert_eq(read_everything(l), 201);
    struct help_batch again = HELP_BATCH;
    struct log_append a;
    again.producer_id = 7;
    again.producer_epoch = 0;
    again.sequence = 199;
    again.value_bytes = 300;
    cr_assert_eq(help_append(l, &again, &a), KERR_NONE);
    cr_assert(a.duplicate && a.base_offset == 199);
    append(l, 201, 300);
    cr_assert_eq(log_close(l, HELP_NOW_MS), 0);
    o.dir = p.target;
    o.clean = true;
    o.log_start_offset = 30;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 202);
    cr_assert_eq(log_latest_epoch(l), 4);
    cr_assert_eq(read_everything(l), 202);
    log_abandon(l);
}

/* A truncation makes the copy start anew. */
Test(move, truncated_meanwhile)
{
    struct places p = make_places("movetrunc");
    struct log_options o = help_options(p.old);
    bool target;
    o.config.segment_bytes = 4000;
    struct log *l = help_open(&o);
    struct log_move *m = log_move_new(l, p.folder, p.target);
    for (int i = 0; i < 50; i++)
        append(l, i, 300);
    cr_assert_eq(approach(m, &target), 0);
    cr_assert_eq(log_truncate(l, 20), 0);
    cr_assert_not(log_move_is_near(m));
    append(l, 20, 200);
    cr_assert_eq(approach(m, &target), 0);
    cr_assert_eq(log_move_finish(m, p.doomed, &target), 0);
    m = log_move_free(m);
    expect_same_files(p.doomed, p.target);
    cr_assert_eq(log_end(l), 21);
    log_abandon(l);
}

/* With preallocated segments, and what was given away stays whole for who holds it. */
Test(move, preallocated_and_given_away)
{
    struct places p = make_places("movepre");
    struct log_options o = help_options(p.old);
    struct log_range range;
    struct log_file file;
    bool target;
    o.config.preallocate = true;
    o.config.segment_bytes = 20000;
    struct log *l = help_open(&o);
    struct log_move *m = log_move_new(l, p.folder, p.target);
    for (int i = 0; i < 30; i++)
        append(l, i, 300);
    cr_assert_eq(log_locate(l, 0, log_end(l), 1 << 20, true, &range), KERR_NONE);
    cr_assert_eq(log_file(l, &range, &file), 0);
    cr_assert_eq(approach(m, &target), 0);
    cr_assert_eq(log_move_finish(m, p.doomed, &target), 0);
    m = log_move_free(m);
    cr_assert_not(log_has_file(l, range.segment, file.instance));
    cr_assert_eq(file_remove_tree(&file_system_real, p.doomed), 0);
    uint8_t *given = malloc(range.size_bytes), *now = malloc(range.size_bytes);
    cr_assert_eq(file_read_all(&file_system_real, file.fd, given, range.size_bytes, range.position), 0);
    cr_assert_eq(log_copy(l, &range, now), 0);
    cr_assert_eq(memcmp(given, now, range.size_bytes), 0);
    file_close(&file_system_real, file.fd);
    free(given);
    free(now);
    for (int i = 30; i < 100; i++)
        append(l, i, 300);
    cr_assert_eq(read_everything(l), 100);
    log_abandon(l);
    o.dir = p.target;
    l = help_open(&o);
    cr_assert_eq(log_end(l), 100);
    log_abandon(l);
}

/* Another target while a step runs: the first copy is left, the second goes on. */
Test(move, another_target)
{
    struct places p = make_places("moveagain"), q = p;
    struct log_options o = help_options(p.old);
    uint64_t bytes;
    bool target;
    snprintf(q.folder, sizeof q.folder, "%.270s/topic-0.y-future", p.other);
    cr_assert_eq(file_remove_tree(&file_system_real, q.folder), 0);
    struct log *l = help_open(&o);
    for (int i = 0; i < 30; i++)
        append(l, i, 300);
    struct log_move *first = log_move_new(l, p.folder, p.target), *second;
    cr_assert_eq(log_move_begin(first, STEP), 0);
    log_move_cancel(first);
    second = log_move_new(l, q.folder, p.target);
    log_move_run(first);
    cr_assert_eq(log_move_end(first, &target, &bytes), 0);
    cr_assert_not(log_move_is_near(first));
    first = log_move_free(first);
    cr_assert_eq(approach(second, &target), 0);
    cr_assert_eq(finish(second, &p, &target), 0);
    second = log_move_free(second);
    cr_assert(exists(p.folder) && !exists(q.folder));
    cr_assert_eq(read_everything(l), 30);
    log_abandon(l);
}

/* Appends with steps between them, then the change of names. How many records were acknowledged; *ret_done: the log is
 * in its new folder. */
static int64_t move_once(struct log *l, const struct places *p, bool *ret_done)
{
    struct log_move *m = log_move_new(l, p->folder, p->target);
    struct help_batch b = HELP_BATCH;
    bool target;
    int err = 0;
    *ret_done = false;
    for (int i = 0; i < 8; i++) {
        b.value_bytes = 300;
        if (help_append(l, &b, NULL) != KERR_NONE)
            break;
        if (err == 0)
            err = step(m, &target);
    }
    if (err == 0 && log_failed(l) == 0)
        err = approach(m, &target);
    if (err == 0 && log_failed(l) == 0)
        err = help_append(l, &b, NULL) == KERR_NONE ? finish(m, p, &target) : -EIO;
    *ret_done = err == 0 && log_failed(l) == 0 && strcmp(log_dir(l), p->target) == 0;
    log_move_free(m);
    return log_end(l);
}

/* What a start finds: one folder, or none but the copy, which is whole then. */
static void expect_one_whole_folder(const struct places *p, struct log_options o, int64_t acknowledged, int n)
{
    bool old = exists(p->old), target = exists(p->target);
    cr_assert_not(old && target, "call %d: two", n);
    o.fs = &file_system_real;
    o.dir = old ? p->old : target ? p->target : p->folder;
    struct log *l = help_open(&o);
    cr_assert_geq(log_end(l), acknowledged, "call %d: %lld of %lld records", n, (long long)log_end(l),
                  (long long)acknowledged);
    cr_assert_eq(read_everything(l), log_end(l));
    log_abandon(l);
}

/* One call fails, or it and all behind it do, as if the process had died there. */
static void torture(const char *name, int error, int times)
{
    bool done = false;
    for (int n = 0; !done; n++) {
        struct places p = make_places(name);
        struct help_faults f = {.left = -1, .error = error, .times = times};
        struct file_system fs = help_faulty(&f);
        struct log_options o = help_options(p.old);
        o.fs = &fs;
        o.config.segment_bytes = 1500;
        struct log *l = help_open(&o);
        f.left = n;
        int64_t acknowledged = move_once(l, &p, &done);
        bool reached = f.left == 0;
        f.left = -1;
        if (times == 1 && log_failed(l) == 0) { /* it goes on where it is */
            struct help_batch b = HELP_BATCH;
            cr_assert_eq(help_append(l, &b, NULL), KERR_NONE);
            acknowledged = log_end(l);
            cr_assert_eq(read_everything(l), acknowledged);
        }
        log_abandon(l);
        expect_one_whole_folder(&p, o, acknowledged, n);
        done = done && !reached;
        cr_assert_lt(n, 5000);
    }
}

Test(move, a_call_fails)
{
    torture("movefail", -EIO, 1);
}

Test(move, the_disk_is_full)
{
    torture("movefull", -ENOSPC, 1);
}

Test(move, the_process_dies)
{
    torture("movedie", -EIO, INT_MAX);
}
