/* flush.c - making the log durable, in three steps so that the slow one can run on another thread: it works on
 * duplicated descriptors and touches nothing of the log.
 *
 * Index entries wait in memory (index.h); those that are in the files are flushed with the records: so what the files
 * say of records before the recovery point is true, and a start after a crash may trust it. A segment that was rolled
 * since the last flush has its producer snapshot flushed too.
 *
 * A mark is a flush that leaves nothing behind: waiting index entries are written, and a producer snapshot in the
 * middle of the segment. With the recovery point at or behind it, the next start reads only what lies behind it
 * (resume.c). */
#include "libs/log/internal.h"
#include <inttypes.h>
#include <stdlib.h>

struct log_flush {
    const struct file_system *fs;
    int *fds;
    size_t count, capacity;
    char *dir; /* to be flushed too; NULL: not needed */
    int64_t target;
    unsigned truncations;
    int64_t mark_base; /* the segment of a mark; -1: it is none */
    uint64_t mark_bytes;
    int err;
    bool full; /* err is that of a full disk, before anything was flushed */
};

static void add_fd(struct log_flush *f, int fd)
{
    int copy = fd < 0 ? fd : file_dup(f->fs, fd);
    if (copy < 0) {
        f->err = f->err ? f->err : copy;
        return;
    }
    if (f->count == f->capacity) {
        f->capacity = f->capacity ? 2 * f->capacity : 4;
        f->fds = xrealloc(f->fds, f->capacity * sizeof *f->fds);
    }
    f->fds[f->count++] = copy;
}

static void add_file(struct log_flush *f, char *path)
{
    int fd = file_open(f->fs, path, O_RDWR);
    if (fd != -ENOENT)
        add_fd(f, fd);
    file_close(f->fs, fd);
    free(path);
}

static void add_index(struct log_flush *f, struct index *x)
{
    if (!x->dirty)
        return;
    add_fd(f, index_fd(x));
    x->dirty = f->err != 0;
}

static void add_snapshot(struct log_flush *f, const struct log *l, int64_t offset)
{
    add_file(f, xasprintf("%s/%020" PRId64 ".snapshot", l->dir, offset));
}

/* Everything up to the log end that is not known to be durable. */
static struct log_flush *begin(struct log *l)
{
    struct log_flush *f = xcalloc(1, sizeof *f);
    f->fs = l->fs;
    f->target = l->end;
    f->truncations = l->truncations;
    f->mark_base = -1;
    if (l->epochs.dirty) {
        f->err = epochs_store(&l->epochs, l->fs, l->dir, false);
        f->full = f->err == -ENOSPC;
        l->dir_dirty = true;
        if (f->err != 0)
            return f;
    }
    for (size_t i = log_segment_at(l, l->recovery_point); i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        add_fd(f, segment_fd(s));
        add_index(f, &s->offsets);
        add_index(f, &s->times);
        if (i + 1 < l->segment_count)
            add_snapshot(f, l, l->segments[i + 1]->base);
    }
    if (f->err == 0 && l->dir_dirty) {
        add_file(f, xasprintf("%s/" EPOCHS_FILE, l->dir));
        add_file(f, xasprintf("%s/partition.metadata", l->dir));
        f->dir = xstrdup(l->dir);
        l->dir_dirty = false;
    }
    return f;
}

struct log_flush *log_flush_begin(struct log *l)
{
    return l->failed != 0 || l->recovery_point >= l->end ? NULL : begin(l);
}

struct log_flush *log_mark_begin(struct log *l)
{
    struct segment *s = log_active(l);
    if (l->failed != 0 || log_has_staged(l) || log_unmarked_bytes(l) == 0)
        return NULL;
    int err = index_write(&s->offsets);
    if (err == 0)
        err = index_write(&s->times);
    if (err == 0)
        err = log_write_mark(l);
    if (err < 0) {
        if (err != -ENOSPC)
            log_fail(l, err, "marking where to start from");
        return NULL;
    }
    struct log_flush *f = begin(l);
    if (f->err == 0)
        add_snapshot(f, l, l->end);
    f->mark_base = s->base;
    f->mark_bytes = s->size_bytes;
    return f;
}

void log_flush_run(struct log_flush *f)
{
    for (size_t i = 0; i < f->count && f->err == 0; i++)
        f->err = file_fdatasync(f->fs, f->fds[i]);
    if (f->dir != NULL && f->err == 0) {
        f->err = file_sync_dir(f->fs, f->dir);
        char *slash = strrchr(f->dir, '/');
        if (f->err == 0 && slash != NULL && slash != f->dir) {
            *slash = '\0'; /* the partition's own entry in the log directory */
            f->err = file_sync_dir(f->fs, f->dir);
        }
    }
}

int log_flush_end(struct log *l, struct log_flush *f)
{
    int err = f->err;
    if (l == NULL)
        err = 0;
    else if (err < 0 && !f->full)
        log_fail(l, err, "flushing");
    else if (err == 0 && f->truncations == l->truncations) {
        l->recovery_point = MAX(l->recovery_point, MIN(f->target, l->end));
        if (f->mark_base >= 0) {
            l->mark_base = f->mark_base;
            l->mark_bytes = f->mark_bytes;
        }
    }
    if (l != NULL && err == 0)
        log_raise_high_watermark(l);
    for (size_t i = 0; i < f->count; i++)
        file_close(f->fs, f->fds[i]);
    free(f->fds);
    free(f->dir);
    free(f);
    return err;
}

int log_flush(struct log *l)
{
    if (l->failed != 0)
        return l->failed;
    struct log_flush *f = log_flush_begin(l);
    if (f == NULL)
        return 0;
    log_flush_run(f);
    return log_flush_end(l, f);
}

void log_raise_high_watermark(struct log *l)
{
    if (l->hold_high_watermark)
        return;
    bool flush_is_due = log_unflushed_messages(l) >= l->config.flush_messages;
    l->high_watermark = MAX(l->high_watermark, flush_is_due ? l->recovery_point : l->end);
}

int64_t log_unflushed_messages(const struct log *l)
{
    return l->end - l->recovery_point;
}

bool log_wants_flush(const struct log *l)
{
    return l->recovery_point < log_active(l)->base;
}

uint64_t log_unmarked_bytes(const struct log *l)
{
    const struct segment *s = log_active(l);
    return s->size_bytes - (s->base == l->mark_base ? MIN(l->mark_bytes, s->size_bytes) : 0);
}
