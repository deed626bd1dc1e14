/* help.c - see help.h. */
#include "help.h"
#include "libs/base/bytes.h"
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each test is a process of its own, a child of the one that runs them all and lives longest. */
static const char *scratch_of(pid_t runner)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/karst-unit-log-%d", (int)runner);
    return path;
}

static int remove_it(const char *path, const struct stat *st UNUSED, int kind UNUSED, struct FTW *where UNUSED)
{
    return remove(path);
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats UNUSED)
{
    (void)nftw(scratch_of(getpid()), remove_it, 16, FTW_DEPTH | FTW_PHYS);
}

const char *help_dir(const char *name)
{
    static char path[256], partition[300];
    (void)mkdir(scratch_of(getppid()), 0755);
    snprintf(path, sizeof path, "%s/%s.%d", scratch_of(getppid()), name, (int)getpid());
    (void)mkdir(path, 0755);
    snprintf(partition, sizeof partition, "%s/topic-0", path);
    cr_assert_eq(file_remove_tree(&file_system_real, partition), 0);
    return partition;
}

static void print_note(void *ctx UNUSED, int level UNUSED, const char *text)
{
    if (getenv("HELP_NOTES"))
        fprintf(stderr, "%s\n", text);
}

struct log_options help_options(const char *dir)
{
    struct log_options o = {
        .fs = &file_system_real,
        .dir = dir,
        .topic_id = {{1, 2, 3, 4, 5, 6, 7, 8, 9}},
        .now_wall_ms = HELP_NOW_MS,
        .note = print_note,
    };
    log_config_init(&o.config);
    o.config.message_timestamp_after_max_ms = INT64_MAX;
    return o;
}

struct log *help_open(const struct log_options *o)
{
    struct log *l = NULL;
    int err = log_open(o, &l);
    cr_assert_eq(err, 0, "log_open: %s", strerror(-err));
    return l;
}

struct buf help_batch(const struct help_batch *spec)
{
    struct buf out = {0};
    struct batch_options o = BATCH_OPTIONS;
    o.producer_id = spec->producer_id;
    o.producer_epoch = spec->producer_epoch;
    o.base_sequence = spec->sequence;
    o.codec = spec->codec;
    o.attributes = spec->attributes;
    struct batch_builder b;
    batch_begin(&b, &out, &o);
    uint8_t *value = xmalloc(spec->value_bytes + 1);
    for (size_t i = 0; i < spec->value_bytes; i++)
        value[i] = (uint8_t)('a' + (i * 7 + spec->value_bytes) % 26);
    for (int i = 0; i < spec->count; i++)
        batch_add(&b, (spec->timestamp ? spec->timestamp : HELP_NOW_MS) + i, SLICE_OF("key"),
                  slice_make(value, spec->value_bytes), NULL, 0);
    free(value);
    cr_assert_eq(batch_end(&b), 0);
    return out;
}

void help_reseal(struct buf *batch)
{
    put_u32(batch->data + BATCH_CRC, bytes_crc32c(0, batch->data + BATCH_ATTRIBUTES, batch->size - BATCH_ATTRIBUTES));
}

enum kafka_error help_append(struct log *l, const struct help_batch *spec, struct log_append *ret)
{
    struct buf b = help_batch(spec);
    struct log_append a = {
        .bytes = b.data, .size = b.size, .leader_epoch = MAX(0, log_latest_epoch(l)), .now_wall_ms = HELP_NOW_MS};
    enum kafka_error error = log_stage(l, &a);
    if (error == KERR_NONE && log_commit(l) < 0)
        error = KERR_KAFKA_STORAGE_ERROR;
    buf_free(&b);
    free(a.record_errors);
    a.record_errors = NULL;
    if (ret != NULL)
        *ret = a;
    return error;
}

/* ---- the failing file system ---- */

static int fails(struct help_faults *f, const char *call)
{
    if (f->call != NULL && strcmp(f->call, call) != 0)
        return 0;
    f->count++;
    if (f->left < 0)
        return 0;
    if (f->left > 0) {
        f->left--;
        return 0;
    }
    if (f->times == 0)
        return 0;
    f->times--;
    return f->error;
}

#define REAL file_system_real.ops
#define GUARD(name)                                                                                                    \
    do {                                                                                                               \
        int guard_ = fails(ctx, name);                                                                                 \
        if (guard_ != 0)                                                                                               \
            return guard_;                                                                                             \
    } while (0)

static int f_open(void *ctx, const char *path, int flags)
{
    GUARD("open");
    return REAL->open(NULL, path, flags);
}
static int f_dup(void *ctx, int fd)
{
    GUARD("dup");
    return REAL->dup(NULL, fd);
}
static int f_close(void *ctx UNUSED, int fd)
{
    return REAL->close(NULL, fd);
}
static ssize_t f_pread(void *ctx, int fd, void *p, size_t n, uint64_t at)
{
    GUARD("pread");
    return REAL->pread(NULL, fd, p, n, at);
}
static ssize_t f_pwritev(void *ctx, int fd, const struct iovec *iov, int count, uint64_t at)
{
    struct help_faults *f = ctx;
    int error = fails(f, "pwritev");
    f->vectors = count;
    if (error != 0) {
        if (f->shorten && iov[0].iov_len > 1) {
            struct iovec half = {iov[0].iov_base, iov[0].iov_len / 2};
            (void)REAL->pwritev(NULL, fd, &half, 1, at);
        }
        return error;
    }
    return REAL->pwritev(NULL, fd, iov, count, at);
}
static int f_fdatasync(void *ctx, int fd)
{
    GUARD("fdatasync");
    return REAL->fdatasync(NULL, fd);
}
static int f_ftruncate(void *ctx, int fd, uint64_t size)
{
    GUARD("ftruncate");
    return REAL->ftruncate(NULL, fd, size);
}
static int f_allocate(void *ctx, int fd, uint64_t at, uint64_t n)
{
    GUARD("allocate");
    return REAL->allocate(NULL, fd, at, n);
}
static int f_fstat(void *ctx, int fd, struct file_stat *s)
{
    GUARD("fstat");
    return REAL->fstat(NULL, fd, s);
}
static int f_stat(void *ctx, const char *path, struct file_stat *s)
{
    GUARD("stat");
    return REAL->stat(NULL, path, s);
}
static int f_rename(void *ctx, const char *a, const char *b)
{
    GUARD("rename");
    return REAL->rename(NULL, a, b);
}
static int f_unlink(void *ctx, const char *path)
{
    GUARD("unlink");
    return REAL->unlink(NULL, path);
}
static int f_mkdir(void *ctx, const char *path)
{
    GUARD("mkdir");
    return REAL->mkdir(NULL, path);
}
static int f_rmdir(void *ctx, const char *path)
{
    GUARD("rmdir");
    return REAL->rmdir(NULL, path);
}
static int f_sync_dir(void *ctx, const char *path)
{
    GUARD("sync_dir");
    return REAL->sync_dir(NULL, path);
}
static int f_list(void *ctx, const char *path, file_list_fn *fn, void *arg)
{
    GUARD("list");
    return REAL->list(NULL, path, fn, arg);
}

static uint64_t inode_of(int fd)
{
    struct stat st;
    cr_assert_eq(fstat(fd, &st), 0);
    return st.st_ino;
}

static ssize_t f_pread_now(void *ctx, int fd, void *p, size_t n, uint64_t at)
{
    const struct help_faults *f = ctx;
    bool warm = !f->cold;
    for (size_t i = 0; i < f->warm_count && !warm; i++)
        warm = f->warm[i].inode == inode_of(fd) && f->warm[i].from <= at && at + n <= f->warm[i].to;
    return warm ? f_pread(ctx, fd, p, n, at) : -EAGAIN;
}

static int f_prefetch(void *ctx, int fd, uint64_t at, size_t n)
{
    struct help_faults *f = ctx;
    GUARD("prefetch");
    f->warm[f->warm_count].inode = inode_of(fd);
    f->warm[f->warm_count].from = at;
    f->warm[f->warm_count].to = at + n;
    f->warm_count = (f->warm_count + 1) % COUNTOF(f->warm);
    return 0;
}

static int f_set_mtime(void *ctx, int fd, int64_t mtime_ms)
{
    GUARD("set_mtime");
    return REAL->set_mtime(NULL, fd, mtime_ms);
}

static int f_sync_all(void *ctx, const struct file_sync *what, size_t count)
{
    GUARD("sync_all");
    int err = 0;
    for (size_t i = 0; err == 0 && i < count; i++)
        err = what[i].dir != NULL ? REAL->sync_dir(NULL, what[i].dir) : REAL->fdatasync(NULL, what[i].fd);
    return err;
}

struct file_system help_faulty(struct help_faults *f)
{
    static const struct file_ops ops = {f_open,      f_dup,       f_close,    f_pread,     f_pwritev,
                                        f_fdatasync, f_ftruncate, f_fstat,    f_stat,      f_rename,
                                        f_unlink,    f_mkdir,     f_rmdir,    f_sync_dir,  f_list,
                                        f_pread_now, f_prefetch,  f_allocate, f_set_mtime, f_sync_all};
    return (struct file_system){&ops, f};
}

struct buf help_read_batch(struct log *l, int64_t offset, struct batch *ret_batch)
{
    struct log_range r;
    struct buf out = {0};
    cr_assert_eq(log_locate(l, offset, log_end(l), 1, true, &r), KERR_NONE);
    cr_assert_eq(log_copy(l, &r, buf_grow(&out, r.size_bytes)), 0);
    cr_assert_eq(batch_read_header(buf_slice(&out), ret_batch), 0);
    return out;
}

int64_t help_read_all(struct log *l, size_t max_bytes)
{
    int64_t at = log_start(l), records = 0;
    while (at < log_end(l)) {
        struct log_range r;
        cr_assert_eq(log_locate(l, at, log_high_watermark(l), max_bytes, true, &r), KERR_NONE);
        cr_assert_gt(r.size_bytes, 0);
        uint8_t *bytes = xmalloc(r.size_bytes);
        cr_assert_eq(log_copy(l, &r, bytes), 0);
        struct slice rest = slice_make(bytes, r.size_bytes), whole;
        struct batch b;
        int n = 0;
        for (; batch_next(&rest, &b, &whole) == 1; n++) {
            cr_assert(batch_crc_holds(&b, whole));
            cr_assert_leq(b.base_offset, at);
            cr_assert_gt(batch_next_offset(&b), at);
            records += batch_next_offset(&b) - at;
            at = batch_next_offset(&b);
        }
        cr_assert_gt(n, 0);
        free(bytes);
    }
    return records;
}
