/* checkpoints.c - the checkpoint files of a log directory, and the clean stop. */
#include "libs/base/bytes.h"
#include "services/storage/replication.h"
#include <stdlib.h>
#include <sys/stat.h>

typedef int64_t offset_fn(const struct replica *r);

static int64_t point_of(const struct replica *r)
{
    return log_recovery_point(r->log);
}

static int64_t mark_of(const struct replica *r)
{
    return log_high_watermark(r->log);
}

/* Only where it is above what the files say themselves. */
static int64_t start_of(const struct replica *r)
{
    return log_start(r->log) > log_first_segment(r->log) ? log_start(r->log) : -1;
}

static int64_t clean_of(const struct replica *r)
{
    return r->clean_to;
}

struct checkpoint {
    struct directory *dir;
    const char *name;
    struct logdir_offset *offsets;
    size_t count;
    uint32_t crc;
    uint64_t count_of; /* among the contents of its file */
    struct checkpoint_state *last;
    bool written; /* not so when a newer one was there already */
    int err;
};

static void add_line(struct checkpoint *c, struct slice topic, int32_t partition, int64_t offset)
{
    if (offset < 0)
        return;
    c->offsets[c->count++] = (struct logdir_offset){slice_dup_str(topic), partition, offset};
    c->crc = bytes_crc32c(c->crc, topic.data, topic.size);
    c->crc = bytes_crc32c(c->crc, &partition, sizeof partition);
    c->crc = bytes_crc32c(c->crc, &offset, sizeof offset);
}

/* The line of a partition that is not open, as it was read. */
static int64_t kept_line(const struct unopened *u, offset_fn *fn)
{
    return fn == point_of   ? u->recovery_point
           : fn == mark_of  ? u->high_mark
           : fn == clean_of ? u->clean_to
                            : u->log_start;
}

static struct checkpoint *gather(struct directory *d, const char *name, offset_fn *fn, struct checkpoint_state *last)
{
    struct checkpoint *c = xcalloc(1, sizeof *c);
    *c = (struct checkpoint){.dir = d, .name = name, .last = last, .count_of = ++last->counted};
    c->offsets = xcalloc(d->replica_count + HASH_COUNT(d->unopened) + 1, sizeof *c->offsets);
    for (struct replica *r = d->storage->replicas; r != NULL; r = r->hh.next) {
        if (r->dir == d)
            add_line(c, slice_str(r->topic), r->key.partition, fn(r));
    }
    for (struct unopened *u = d->unopened; u != NULL; u = u->hh.next) {
        struct slice topic;
        int32_t partition;
        if (logdir_parse_name(u->name, &topic, &partition) == LOGDIR_PARTITION)
            add_line(c, topic, partition, kept_line(u, fn));
    }
    c->crc += 1; /* 0 is: never written */
    return c;
}

static struct checkpoint *gather_points(struct directory *d)
{
    return gather(d, LOGDIR_RECOVERY_POINTS, point_of, &d->points);
}

static struct checkpoint *gather_marks(struct directory *d)
{
    return gather(d, LOGDIR_HIGH_WATERMARKS, mark_of, &d->marks);
}

static struct checkpoint *gather_starts(struct directory *d)
{
    return gather(d, LOGDIR_LOG_STARTS, start_of, &d->starts);
}

static struct checkpoint *gather_cleaned(struct directory *d)
{
    return gather(d, LOGDIR_CLEANED, clean_of, &d->cleaned);
}

/* It is about to be written: what of the recovery points will be on the disk then. */
static void note_points(struct checkpoint *c, bool written)
{
    struct directory *d = c->dir;
    if (c->last != &d->points || (written && c->count_of != c->last->noted))
        return;
    c->last->noted = c->count_of;
    for (struct replica *r = d->storage->replicas; r != NULL; r = r->hh.next) {
        if (r->dir != d)
            continue;
        if (written)
            r->point_on_disk = r->point_writing;
        else
            r->point_writing = log_recovery_point(r->log);
    }
}

static void write_checkpoint(void *ctx)
{
    struct checkpoint *c = ctx;
    pthread_mutex_lock(&c->last->lock);
    if (c->count_of > c->last->written) {
        c->err = logdir_write_checkpoint(&file_system_real, c->dir->path, c->name, c->offsets, c->count);
        c->written = c->err == 0;
    }
    if (c->written)
        c->last->written = c->count_of;
    pthread_mutex_unlock(&c->last->lock);
}

static void checkpoint_free(struct checkpoint *c)
{
    for (size_t i = 0; i < c->count; i++)
        free((char *)(uintptr_t)c->offsets[i].topic);
    free(c->offsets);
    free(c);
}

/* A full disk is told once, and its end: the next timer tries again, and what the file says meanwhile is old but true.
 */
static void tell(const struct checkpoint *c)
{
    bool no_room = c->err == -ENOSPC;
    if (no_room && !c->last->no_room)
        log_error("%s/%s cannot be written: the disk is full; it stays as it was until there is room", c->dir->path,
                  c->name);
    else if (c->err < 0 && !no_room)
        log_error("%s/%s: %s", c->dir->path, c->name, strerror(-c->err));
    else if (c->err == 0 && c->last->no_room)
        log_info("%s/%s is written again", c->dir->path, c->name);
    c->last->no_room = no_room;
}

/* It is what the file says. */
static bool is_last(const struct checkpoint *c)
{
    pthread_mutex_lock(&c->last->lock);
    bool is = c->written && c->last->written == c->count_of;
    pthread_mutex_unlock(&c->last->lock);
    return is;
}

static int finish_checkpoint(struct checkpoint *c)
{
    struct directory *d = c->dir;
    int err = c->err;
    tell(c);
    if (is_last(c)) {
        c->last->crc = c->crc;
        note_points(c, true);
    }
    checkpoint_free(c);
    if (err < 0 && err != -ENOSPC)
        directory_failed(d, err);
    return err;
}

static void on_written(void *ctx)
{
    struct checkpoint *c = ctx;
    struct directory *d = c->dir;
    d->checkpointing = false;
    (void)finish_checkpoint(c);
    loop_again(d->storage->loop); /* a drain may wait for it */
}

static bool is_to_be_written(const struct checkpoint *c)
{
    return !c->dir->storage->draining && c->dir->failed == 0 && c->crc != c->last->crc;
}

/* On the slow pool, and only when something has changed. One at a time in a directory: the next timer brings what this
 * one left out. */
static void write_later(struct checkpoint *c)
{
    struct directory *d = c->dir;
    if (d->checkpointing || !is_to_be_written(c)) {
        checkpoint_free(c);
        return;
    }
    d->checkpointing = true;
    note_points(c, false);
    loop_work(d->storage->loop, write_checkpoint, on_written, c);
}

static int write_now(struct checkpoint *c)
{
    note_points(c, false);
    write_checkpoint(c);
    return finish_checkpoint(c);
}

bool checkpoints_under_way(const struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        if (s->dirs[i].checkpointing || s->dirs[i].writing_starts)
            return true;
    }
    return false;
}

void checkpoints_on_marks(void *ctx)
{
    struct storage *s = ctx;
    for (size_t i = 0; i < s->dir_count; i++)
        write_later(gather_marks(&s->dirs[i]));
}

/* ---- log starts: DeleteRecords waits for them, so they do not wait for the other files ---- */

static void on_starts_written(void *ctx);

static void write_starts(struct checkpoint *c)
{
    struct directory *d = c->dir;
    d->writing_starts = true;
    d->starts_now = TAKE_PTR(d->starts_next);
    loop_work(d->storage->loop, write_checkpoint, on_starts_written, c);
}

static void on_starts_written(void *ctx)
{
    struct checkpoint *c = ctx;
    struct directory *d = c->dir;
    struct starts_wait *w, *next, *waited = TAKE_PTR(d->starts_now);
    int err = finish_checkpoint(c);
    d->writing_starts = false;
    if (d->starts_next != NULL)
        write_starts(gather_starts(d));
    LL_FOREACH_SAFE(waited, w, next)
    w->done(w, err);
    loop_again(d->storage->loop); /* a drain may wait for it */
}

void checkpoints_make_starts_durable(struct starts_wait *w)
{
    struct directory *d = w->dir;
    LL_PREPEND(d->starts_next, w);
    if (!d->writing_starts)
        write_starts(gather_starts(d));
}

void checkpoints_on_starts(void *ctx)
{
    struct storage *s = ctx;
    for (size_t i = 0; i < s->dir_count; i++) {
        struct checkpoint *starts = gather_starts(&s->dirs[i]);
        if (!s->dirs[i].writing_starts && is_to_be_written(starts))
            write_starts(starts);
        else
            checkpoint_free(starts);
    }
}

void checkpoints_write_points(struct directory *d)
{
    write_later(gather_points(d));
}

void checkpoints_cut(struct replica *r)
{
    if (r->dir->failed == 0 && MAX(r->point_on_disk, r->point_writing) > log_end(r->log))
        (void)write_now(gather_points(r->dir)); /* a failure takes the directory offline */
}

/* Kafka makes the file before there is a line; who has none yet leaves it as it is. */
static bool is_worth_it(const struct checkpoint *c)
{
    return c->count > 0 || c->last->crc != 0;
}

void checkpoints_cleaned(struct directory *d)
{
    struct checkpoint *c = gather_cleaned(d);
    if (is_worth_it(c))
        write_later(c);
    else
        checkpoint_free(c);
}

static int rewrite(struct checkpoint *c, bool under_way)
{
    if (under_way || c->crc != c->last->crc) /* what is under way may be older, and its end the file's last */
        return write_now(c);
    checkpoint_free(c);
    return 0;
}

static int write_cleaned_now(struct directory *d)
{
    struct checkpoint *c = gather_cleaned(d);
    if (is_worth_it(c))
        return rewrite(c, d->checkpointing);
    checkpoint_free(c);
    return 0;
}

int checkpoints_arrival(struct directory *d)
{
    ASSERT(!d->checkpointing && !d->writing_starts);
    int err = checkpoints_strike_out(d);
    if (err == 0)
        err = rewrite(gather_starts(d), false);
    return err == 0 ? write_cleaned_now(d) : err;
}

int checkpoints_strike_out(struct directory *d)
{
    if (!d->names_gone || d->failed != 0)
        return d->failed;
    int err = rewrite(gather_starts(d), d->writing_starts);
    if (err == 0)
        err = rewrite(gather_points(d), d->checkpointing);
    if (err == 0)
        err = rewrite(gather_marks(d), d->checkpointing);
    if (err == 0)
        err = write_cleaned_now(d);
    d->names_gone = err < 0;
    return err;
}

/* ---- the clean stop ---- */

/* All logs are flushed first: their recovery points are their ends then, and go into the file before anything is
 * closed. */
static int flush_all(struct directory *d)
{
    for (struct replica *r = d->storage->replicas; r != NULL; r = r->hh.next) {
        if (r->dir != d)
            continue;
        int err = log_failed(r->log) ? log_failed(r->log) : log_flush(r->log);
        if (err < 0)
            return err;
    }
    return 0;
}

/* A flush of each of thousands of logs costs a commit of the file system's journal each, more than a supervisor waits
 * for. One of the whole file system costs little more than one of them, but writes what others have left there, too. */
static bool is_many(const struct directory *d)
{
    enum { MANY = 64 };
    struct stat here, there;
    if (d->replica_count < MANY || d->lock_fd < 0 || stat(d->path, &here) < 0)
        return false;
    for (const struct replica *r = d->storage->replicas; r != NULL; r = r->hh.next) {
        /* a partition's folder may be a mount, or lead to one */
        if (r->dir == d && (stat(log_dir(r->log), &there) < 0 || there.st_dev != here.st_dev))
            return false;
    }
    return true;
}

static int settle_all(struct directory *d)
{
    struct replica *r, *first = d->storage->replicas;
    int err = 0;
    for (r = first; r != NULL && err == 0; r = r->hh.next)
        err = r->dir == d ? log_settle(r->log) : 0;
    if (err == 0)
        err = logdir_sync_file_system(d->lock_fd);
    for (r = first; r != NULL && err == 0; r = r->hh.next) {
        if (r->dir == d)
            log_settled(r->log);
    }
    return err;
}

static int close_logs(struct directory *d, bool settled)
{
    struct storage *s = d->storage;
    struct replica *r, *next;
    int err = 0;
    HASH_ITER (hh, s->replicas, r, next) {
        if (r->dir != d)
            continue;
        replication_leave(r);
        HASH_DEL(s->replicas, r);
        int failed = settled ? 0 : log_close(r->log, loop_wall_ms(s->loop));
        if (settled)
            log_abandon(r->log);
        if (failed < 0)
            log_error("%s-%d: not closed cleanly: %s", r->topic, r->key.partition, strerror(-failed));
        err = err ? err : failed;
        free(r->topic);
        free(r);
    }
    return err;
}

static void close_directory(struct directory *d)
{
    size_t count = d->replica_count;
    bool many = d->failed == 0 && is_many(d);
    int err = d->failed ? d->failed : many ? settle_all(d) : flush_all(d);
    if (err == 0)
        err = write_now(gather_points(d));
    if (err == 0)
        err = write_now(gather_marks(d));
    if (err == 0)
        err = write_now(gather_starts(d));
    if (err == 0)
        err = write_cleaned_now(d);
    if (err == 0)
        err = close_logs(d, many);
    /* With the marker the next start would trust the files that this one could not open. */
    if (err == 0 && d->unopened == NULL)
        err = logdir_write_clean(&file_system_real, d->path, service_epoch(d->storage->service));
    if (err == 0) {
        log_info("%s: closed %zu partitions cleanly", d->path, count);
        return;
    }
    log_error("%s: stopped without the clean-stop marker: %s; the next start checks the logs", d->path, strerror(-err));
    if (err != -ENOSPC && d->failed == 0)
        directory_note_failure(d);
}

void directories_close(struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++)
        close_directory(&s->dirs[i]);
}
