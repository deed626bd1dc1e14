/* flush.c - making the log durable, in three steps so that the slow one can run on another thread: it works on
 * duplicated descriptors and touches nothing of the log.
 *
 * Index entries wait in memory (index.h); those that are in the files are flushed with the records: so what the files
 * say of records before the recovery point is true, and a start after a crash may trust it. A segment that was rolled
 * has what is left of its indexes and its producer snapshot flushed by the first flush that comes: until then the
 * recovery point that a checkpoint gets stays before its end (log_recovery_point).
 *
 * A mark is a flush that leaves nothing behind: waiting index entries are written, and a producer snapshot in the
 * middle of the segment. With the recovery point at or behind it, the next start reads only what lies behind it
 * (resume.c).
 *
 * Several logs are flushed at once for little more than the price of one (log_flush_run_all). */
#include "libs/log/internal.h"
#include <inttypes.h>
#include <stdlib.h>

struct log_flush {
    const struct file_system *fs;
    struct file_sync *what; /* files first: a name is made durable after what it leads to */
    size_t count, capacity;
    int64_t target;
    int64_t sides_to; /* segments before it have their side files flushed by this */
    unsigned truncations;
    int64_t mark_base; /* the segment of a mark; -1: it is none */
    uint64_t mark_bytes;
    int err;
    bool early; /* err came before anything was flushed, and says nothing about the disk: to be tried again */
};

static struct file_sync *add(struct log_flush *f)
{
    if (f->count == f->capacity) {
        f->capacity = f->capacity ? 2 * f->capacity : 1;
        f->what = xrealloc(f->what, f->capacity * sizeof *f->what);
    }
    return &f->what[f->count++];
}

static void add_fd(struct log_flush *f, int fd)
{
    int copy = fd < 0 ? fd : file_dup(f->fs, fd);
    if (copy < 0)
        f->err = f->err ? f->err : copy;
    else
        *add(f) = (struct file_sync){copy, NULL};
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

static void add_aborted(struct log_flush *f, struct segment *s)
{
    if (!s->txn_dirty)
        return;
    add_file(f, segment_path(s, "txnindex"));
    s->txn_dirty = f->err != 0;
}

static void add_snapshot(struct log_flush *f, const struct log *l, int64_t offset)
{
    add_file(f, xasprintf("%s/%020" PRId64 ".snapshot", l->dir, offset));
}

static void add_dir(struct log_flush *f, char *path)
{
    *add(f) = (struct file_sync){-1, path};
}

/* The names in the partition's folder, and its own in the log directory. */
static void add_names(struct log_flush *f, const struct log *l)
{
    add_file(f, xasprintf("%s/" EPOCHS_FILE, l->dir));
    add_file(f, xasprintf("%s/partition.metadata", l->dir));
    add_dir(f, xstrdup(l->dir));
    const char *slash = strrchr(l->dir, '/');
    if (slash != NULL && slash != l->dir)
        add_dir(f, xstrndup(l->dir, (size_t)(slash - l->dir)));
}

static void add_segments(struct log_flush *f, struct log *l)
{
    for (size_t i = log_segment_at(l, MIN(l->recovery_point, l->sides_from)); i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        bool active = i + 1 == l->segment_count;
        if ((active ? l->end : l->segments[i + 1]->base) > l->recovery_point)
            add_fd(f, segment_fd(s));
        add_index(f, &s->offsets);
        add_index(f, &s->times);
        add_aborted(f, s);
        if (!active && s->base >= l->sides_from)
            add_snapshot(f, l, l->segments[i + 1]->base);
    }
}

/* Everything up to the log end that is not known to be durable. */
static struct log_flush *begin(struct log *l)
{
    struct log_flush *f = xcalloc(1, sizeof *f);
    f->fs = l->fs;
    f->target = l->end;
    f->sides_to = log_active(l)->base;
    f->truncations = l->truncations;
    f->mark_base = -1;
    if (l->epochs.dirty) {
        f->err = epochs_store(&l->epochs, l->fs, l->dir, false);
        l->dir_dirty = true;
    }
    if (f->err == 0)
        add_segments(f, l);
    return f;
}

/* The names come last; what went wrong up to here says nothing about the disk. */
static struct log_flush *begun(struct log *l, struct log_flush *f)
{
    if (f->err == 0 && l->dir_dirty) {
        add_names(f, l);
        l->dir_dirty = f->err < 0;
    }
    f->early = f->err == -ENOSPC || f->err == -EMFILE || f->err == -ENFILE;
    return f;
}

struct log_flush *log_flush_begin(struct log *l)
{
    if (l->failed != 0 || (l->recovery_point >= l->end && l->sides_from == INT64_MAX))
        return NULL;
    return begun(l, begin(l));
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
    return begun(l, f);
}

void log_flush_run(struct log_flush *f)
{
    for (size_t i = 0; i < f->count && f->err == 0; i++) {
        const struct file_sync *w = &f->what[i];
        f->err = w->dir != NULL ? file_sync_dir(f->fs, w->dir) : file_fdatasync(f->fs, w->fd);
    }
}

bool log_flush_run_all(struct log_flush *const *flushes, size_t count)
{
    struct file_sync *all = NULL;
    size_t n = 0, capacity = 0;
    for (size_t i = 0; i < count; i++) {
        if (flushes[i]->err == 0)
            capacity += flushes[i]->count;
    }
    all = xmalloc((capacity + 1) * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; flushes[i]->err == 0 && k < flushes[i]->count; k++)
            all[n++] = flushes[i]->what[k];
    }
    int err = n > 0 ? file_sync_all(flushes[0]->fs, all, n) : 0;
    free(all);
    if (err == -EOPNOTSUPP)
        return false;
    for (size_t i = 0; i < count; i++)
        flushes[i]->err = flushes[i]->err ? flushes[i]->err : err;
    return true;
}

void log_settle_sides(struct log *l)
{
    if (l->sides_from >= log_active(l)->base)
        l->sides_from = INT64_MAX;
    else
        l->sides_from = MAX(l->sides_from, l->segments[0]->base);
}

static void note_flushed(struct log *l, const struct log_flush *f)
{
    l->recovery_point = MAX(l->recovery_point, MIN(f->target, l->end));
    if (l->sides_from < f->sides_to)
        l->sides_from = f->sides_to;
    log_settle_sides(l);
    if (f->mark_base >= 0) {
        l->mark_base = f->mark_base;
        l->mark_bytes = f->mark_bytes;
    }
}

int log_flush_end(struct log *l, struct log_flush *f)
{
    int err = f->err;
    if (l == NULL)
        err = 0;
    else if (err < 0 && !f->early)
        log_fail(l, err, "flushing");
    else if (err == 0 && f->truncations == l->truncations)
        note_flushed(l, f);
    if (l != NULL && err == 0)
        log_raise_high_watermark(l);
    for (size_t i = 0; i < f->count; i++) {
        file_close(f->fs, f->what[i].fd);
        free((char *)(uintptr_t)f->what[i].dir);
    }
    free(f->what);
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
    if (!l->hold_high_watermark)
        l->high_watermark = MAX(l->high_watermark, log_safe_end(l));
}

int64_t log_safe_end(const struct log *l)
{
    return log_unflushed_messages(l) >= l->config.flush_messages ? l->recovery_point : l->end;
}

int64_t log_unflushed_messages(const struct log *l)
{
    return l->end - l->recovery_point;
}

bool log_wants_flush(const struct log *l)
{
    return MIN(l->recovery_point, l->sides_from) < log_active(l)->base;
}

uint64_t log_unmarked_bytes(const struct log *l)
{
    const struct segment *s = log_active(l);
    return s->size_bytes - (s->base == l->mark_base ? MIN(l->mark_bytes, s->size_bytes) : 0);
}
