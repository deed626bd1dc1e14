/* flush.c - making the log durable, in three steps so that the slow one can run on another thread: it works on
 * duplicated descriptors and touches nothing of the log.
 *
 * Of the active segment only the records are flushed: a start after a crash builds its indexes again anyway, as it
 * holds the recovery point. A segment that was rolled since the last flush has its indexes and its producer snapshot
 * flushed too. */
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

struct log_flush *log_flush_begin(struct log *l)
{
    if (l->failed != 0 || l->recovery_point >= l->end)
        return NULL;
    struct log_flush *f = xcalloc(1, sizeof *f);
    f->fs = l->fs;
    f->target = l->end;
    f->truncations = l->truncations;
    for (size_t i = log_segment_at(l, l->recovery_point); i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        add_fd(f, segment_fd(s));
        if (i + 1 < l->segment_count) {
            add_fd(f, index_fd(&s->offsets));
            add_fd(f, index_fd(&s->times));
            add_file(f, xasprintf("%s/%020" PRId64 ".snapshot", l->dir, l->segments[i + 1]->base));
        }
    }
    if (f->err == 0 && l->epochs.dirty) {
        f->err = epochs_store(&l->epochs, l->fs, l->dir, false);
        f->full = f->err == -ENOSPC;
        l->dir_dirty = true;
    }
    if (f->err == 0 && l->dir_dirty) {
        add_file(f, xasprintf("%s/" EPOCHS_FILE, l->dir));
        add_file(f, xasprintf("%s/partition.metadata", l->dir));
        f->dir = xstrdup(l->dir);
        l->dir_dirty = false;
    }
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
    else if (err == 0 && f->truncations == l->truncations)
        l->recovery_point = MAX(l->recovery_point, MIN(f->target, l->end));
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
