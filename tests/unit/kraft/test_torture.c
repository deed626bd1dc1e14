/* test_torture.c - every call to the file system fails once, and from there on for good (the process would have ended):
 * the next start finds everything that was committed, and the last state that was saved. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/kraft/snapshot.h"
#include "libs/kraft/store.h"
#include "tests/unit/kraft/help.h"

enum { CALLS_MAX = 2000, BATCH_BYTES = 200000 };

/* The real file system until `left` calls are used up. Closing and reading directories always works, as the end of a
 * process closes, too. */
static int left, calls;

static bool fails(void)
{
    calls++;
    return left-- <= 0;
}

#define REAL file_system_real.ops
#define CALL(type, name, arguments, ...)                                                                               \
    static type fail_##name arguments                                                                                  \
    {                                                                                                                  \
        (void)ctx;                                                                                                     \
        return fails() ? -EIO : REAL->name(NULL, __VA_ARGS__);                                                         \
    }
CALL(int, open, (void *ctx, const char *path, int flags), path, flags)
CALL(ssize_t, pwritev, (void *ctx, int fd, const struct iovec *iov, int count, uint64_t at), fd, iov, count, at)
CALL(int, fdatasync, (void *ctx, int fd), fd)
CALL(int, ftruncate, (void *ctx, int fd, uint64_t size), fd, size)
CALL(int, rename, (void *ctx, const char *from, const char *to), from, to)
CALL(int, unlink, (void *ctx, const char *path), path)
CALL(int, mkdir, (void *ctx, const char *path), path)
CALL(int, sync_dir, (void *ctx, const char *path), path)

static struct file_system faulty(struct file_ops *ops)
{
    *ops = *REAL;
    ops->open = fail_open;
    ops->pwritev = fail_pwritev;
    ops->fdatasync = fail_fdatasync;
    ops->ftruncate = fail_ftruncate;
    ops->rename = fail_rename;
    ops->unlink = fail_unlink;
    ops->mkdir = fail_mkdir;
    ops->sync_dir = fail_sync_dir;
    return (struct file_system){.ops = ops};
}

static struct kraft_store *open_store(const struct file_system *fs, const char *dir)
{
    struct kraft_store_options o = {
        .fs = fs, .log_dir = dir, .segment_bytes = 1 << 20, .segment_ms = 1000000000, .now_wall_ms = WALL_MS};
    struct kraft_store *s = NULL;
    char *message = NULL;
    if (kraft_store_open(&o, &s, &message) != 0)
        free(message);
    return s;
}

struct promised {
    int64_t end;   /* committed before this offset */
    int32_t epoch; /* saved */
};

static int append(struct kraft_store *s, int64_t offset, int32_t epoch)
{
    struct buf batch = help_batch(offset, epoch, BATCH_BYTES);
    int error = kraft_store_stage(s, buf_slice(&batch), WALL_MS);
    if (error == 0)
        error = kraft_store_commit(s);
    buf_free(&batch);
    return error;
}

static int snapshot(struct kraft_store *s, int64_t end, int32_t epoch)
{
    struct buf b = {0};
    struct image *i = image_empty("cluster");
    kraft_snapshot_of(i, WALL_MS, &b);
    image_release(i);
    int error = kraft_store_put_snapshot(s, end, epoch, buf_slice(&b), WALL_MS);
    buf_free(&b);
    return error;
}

/* A life: an election, records over several segments, a snapshot in between, a stop. Ends at the first error, as the
 * service does. */
static void live(const struct file_system *fs, const char *dir, struct promised *p)
{
    struct kraft_store *s = open_store(fs, dir);
    if (s == NULL)
        return;
    struct kraft_quorum_state state = {.leader_id = 1, .leader_epoch = p->epoch + 1, .voted_id = -1};
    int error = kraft_store_save_state(s, &state);
    if (error == 0)
        p->epoch = state.leader_epoch;
    for (int n = 0; n < 8 && error == 0; n++) {
        error = append(s, p->end, state.leader_epoch);
        if (error == 0)
            p->end++;
        if (error == 0 && n == 6)
            error = snapshot(s, p->end, state.leader_epoch);
    }
    (void)!kraft_store_close(s, WALL_MS);
}

static void check(const char *dir, const struct promised *p)
{
    struct kraft_store *s = open_store(&file_system_real, dir);
    struct kraft_quorum_state state = {.leader_epoch = 0};
    int64_t end = 0;
    int32_t epoch = 0;
    cr_assert_not_null(s, "after %d calls", calls);
    kraft_store_state(s, &state);
    cr_assert_geq(state.leader_epoch, p->epoch);
    cr_assert_geq(kraft_store_end(s), p->end);
    kraft_store_has_snapshot(s, &end, &epoch);
    cr_assert_leq(kraft_store_start(s), end);
    cr_assert_leq(end, p->end);
    struct buf b = {0};
    for (int64_t at = MAX(end, kraft_store_start(s)); at < kraft_store_end(s); at++) {
        struct batch batch;
        b.size = 0;
        cr_assert_eq(kraft_store_read(s, at, kraft_store_end(s), 1, &b), 0);
        cr_assert_eq(batch_read_header(buf_slice(&b), &batch), 0);
        cr_assert(batch.base_offset == at && batch_crc_holds(&batch, buf_slice(&b)));
    }
    buf_free(&b);
    cr_assert_eq(kraft_store_close(s, WALL_MS), 0);
}

Test(torture, what_was_committed_is_there)
{
    struct file_ops ops;
    struct file_system fs = faulty(&ops);
    int limit = 1;
    for (bool whole = false; !whole; limit++) {
        char dir[] = "/tmp/karst-torture-XXXXXX";
        struct promised p = {0};
        cr_assert_not_null(mkdtemp(dir));
        left = CALLS_MAX;
        live(&fs, dir, &p); /* a first life that goes well */
        cr_assert(p.end == 8 && p.epoch == 1);
        left = limit;
        calls = 0;
        live(&fs, dir, &p);
        whole = calls < limit;
        check(dir, &p);
        help_remove_dir(dir);
        cr_assert_lt(limit, CALLS_MAX);
    }
    cr_assert_gt(limit, 30);
}

/* ---- the folder's own name ---- */

static const char *parent;
static bool is_named, was_renamed; /* is_named: a power cut leaves the folder where it is */

static int note_sync_dir(void *ctx UNUSED, const char *path)
{
    is_named |= strcmp(path, parent) == 0;
    return REAL->sync_dir(NULL, path);
}

static int note_rename(void *ctx UNUSED, const char *from, const char *to)
{
    cr_assert(is_named, "%s is written to a folder whose name is not durable", to);
    was_renamed = true;
    return REAL->rename(NULL, from, to);
}

static void save_epoch(const struct file_system *fs, const char *dir)
{
    struct kraft_quorum_state state = {.leader_id = -1, .leader_epoch = 1, .voted_id = 2};
    struct kraft_store *s = open_store(fs, dir);
    cr_assert_not_null(s);
    cr_assert_eq(kraft_store_save_state(s, &state), 0);
    cr_assert_eq(kraft_store_close(s, WALL_MS), 0);
    cr_assert(was_renamed);
}

Test(torture, a_vote_is_not_lost_with_its_folder)
{
    char dir[] = "/tmp/karst-named-XXXXXX";
    struct file_ops ops = *REAL;
    struct file_system fs = {.ops = &ops};
    cr_assert_not_null(mkdtemp(dir));
    parent = dir;
    ops.sync_dir = note_sync_dir;
    ops.rename = note_rename;
    save_epoch(&fs, dir);
    is_named = was_renamed = false; /* as one that was killed behind its mkdir leaves it */
    save_epoch(&fs, dir);
    help_remove_dir(dir);
}

/* ---- a flush that fails is final, across a start, too ---- */

static bool flushes_fail;
static uint64_t written, flushed_of; /* bytes; those of `written` that a flush has made durable */

static ssize_t count_pwritev(void *ctx UNUSED, int fd, const struct iovec *iov, int count, uint64_t at)
{
    ssize_t n = REAL->pwritev(NULL, fd, iov, count, at);
    written += n > 0 ? (uint64_t)n : 0;
    return n;
}

static int count_fdatasync(void *ctx UNUSED, int fd)
{
    if (flushes_fail)
        return -EIO;
    flushed_of = written;
    return REAL->fdatasync(NULL, fd);
}

static bool is_noted(const char *dir)
{
    char *path = xasprintf("%s/__cluster_metadata-0/.karst_flush_failed", dir);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

static void append_torn(const char *dir)
{
    char *path = xasprintf("%s/__cluster_metadata-0/00000000000000000000.log", dir);
    FILE *f = fopen(path, "a");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite("torn", 1, 4, f), 4);
    fclose(f);
    free(path);
}

/* A folder with three batches in its log, through a file system whose flushes fail when they are to. */
struct flushing {
    struct file_ops ops;
    struct file_system fs;
    char dir[32];
    struct kraft_store *s;
};

static void open_it(struct flushing *f)
{
    f->s = open_store(&f->fs, f->dir);
    cr_assert_not_null(f->s);
}

static void close_it(struct flushing *f)
{
    cr_assert_eq(kraft_store_close(f->s, WALL_MS), 0);
}

static void begin_flushing(struct flushing *f)
{
    *f = (struct flushing){.ops = *REAL, .dir = "/tmp/karst-torture-XXXXXX"};
    f->fs.ops = &f->ops;
    f->ops.pwritev = count_pwritev;
    f->ops.fdatasync = count_fdatasync;
    flushes_fail = false;
    cr_assert_not_null(mkdtemp(f->dir));
    open_it(f);
    for (int64_t at = 0; at < 3; at++)
        cr_assert_eq(append(f->s, at, 1), 0);
}

/* No start while the disk fails; the next one writes all that there is again. */
static void expect_all_again(struct flushing *f, uint64_t batches)
{
    flushes_fail = true;
    cr_assert_null(open_store(&f->fs, f->dir), "nothing counts while the disk fails");
    cr_assert(is_noted(f->dir));
    flushes_fail = false;
    written = flushed_of = 0;
    open_it(f);
    cr_expect_geq(flushed_of, batches * BATCH_BYTES, "all of the log was written again, and flushed");
    cr_expect(!is_noted(f->dir));
}

/* What a killed life has left in memory is flushed with what a start cuts off. */
Test(torture, a_start_whose_flush_fails_is_behind_a_failed_flush)
{
    struct flushing f;
    begin_flushing(&f);
    close_it(&f);
    append_torn(f.dir);
    expect_all_again(&f, 3);
    close_it(&f);
    help_remove_dir(f.dir);
}

Test(torture, a_start_behind_a_failed_flush_writes_again)
{
    struct flushing f;
    begin_flushing(&f);
    flushes_fail = true;
    cr_assert_neq(append(f.s, 3, 1), 0);
    cr_assert(is_noted(f.dir));
    (void)!kraft_store_close(f.s, WALL_MS);

    expect_all_again(&f, 4);
    cr_expect_eq(kraft_store_end(f.s), 4, "the page cache has it still");
    close_it(&f);

    written = 0;
    open_it(&f);
    cr_expect_lt(written, BATCH_BYTES, "once is enough");
    close_it(&f);
    help_remove_dir(f.dir);
}
