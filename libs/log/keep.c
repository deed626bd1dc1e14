/* keep.c - rolling, and what leaves: retention, DeleteRecords, truncation, deletion of the whole. */
#include "libs/log/internal.h"
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

static int sync_index(struct log *l, struct index *x)
{
    if (!x->dirty)
        return 0;
    int fd = index_fd(x);
    int err = fd < 0 ? fd : file_fdatasync(l->fs, fd);
    x->dirty = err < 0;
    return err;
}

int log_sync_indexes(struct log *l, struct segment *s)
{
    int err = sync_index(l, &s->offsets);
    return err < 0 ? err : sync_index(l, &s->times);
}

int log_roll(struct log *l, int64_t now_wall_ms)
{
    struct segment *s = log_active(l);
    ASSERT(!log_has_staged(l));
    if (l->failed != 0)
        return -EIO;
    if (s->size_bytes == 0 && s->base == l->end)
        return 0;
    int err = segment_retire(s);
    if (err == 0)
        err = log_new_active(l, l->end, now_wall_ms);
    /* Behind the new segment, so that it is never taken for the one of a mark inside the old one (resume.c), whose
     * indexes were flushed. A start does without it. */
    if (err == 0 && (err = log_write_snapshot(l, l->end)) == -ENOSPC)
        err = 0;
    if (err == 0)
        l->sides_from = MIN(l->sides_from, s->base);
    return err;
}

void log_doom(struct log *l, struct segment *s, int64_t now_wall_ms)
{
    struct log_removal *d = xmalloc(sizeof *d);
    /* Descriptors go now; the files stay for whoever holds them open, for a while. */
    descriptor_close(&s->file, l->fs);
    descriptor_close(&s->txn_file, l->fs);
    index_free(&s->offsets);
    index_free(&s->times);
    *d = (struct log_removal){l->doomed, s, now_wall_ms + l->config.file_delete_delay_ms};
    l->doomed = d;
}

int log_doom_first(struct log *l, size_t n, int64_t now_wall_ms)
{
    ASSERT(n < l->segment_count);
    bool records_deleted = l->start > l->segments[0]->base, unflushed = l->recovery_point < l->segments[n]->base;
    if (n > 0)
        log_clean_interrupt(l);
    for (size_t i = 0; i < n; i++) {
        int err = segment_doom(l->segments[0]);
        if (err < 0)
            return log_fail(l, err, "removing a segment");
        log_drop_snapshot_at(l, l->segments[0]->base);
        log_doom(l, l->segments[0], now_wall_ms);
        l->segment_count--;
        memmove(l->segments, l->segments + 1, l->segment_count * sizeof *l->segments);
        l->dir_dirty = true;
    }
    /* What DeleteRecords took must not come back: the checkpoint of log starts says no more of it when the log's first
     * segment begins there. Nor must what was never flushed: torn by a power cut that undid its removal, it would lie
     * before the recovery point, and the log would not open. Nor would it without partition.metadata, from which the
     * recovery point takes that it may be written again. */
    int err = n > 0 && unflushed && !uuid_is_zero(l->topic_id) ? log_sync_file(l, "partition.metadata") : 0;
    if (err == 0 && n > 0 && (records_deleted || unflushed))
        err = file_sync_dir(l->fs, l->dir);
    if (err < 0)
        return log_fail(l, err, "removing a segment");
    if (n > 0) {
        l->start = MAX(l->start, l->segments[0]->base);
        /* Not the log start: that may be one of DeleteRecords, among records that were never flushed. */
        l->recovery_point = MAX(l->recovery_point, l->segments[0]->base);
        log_settle_sides(l);
        epochs_truncate_start(&l->epochs, l->start);
        return log_store_epochs(l);
    }
    return 0;
}

static int64_t segment_end(const struct log *l, size_t i)
{
    return i + 1 < l->segment_count ? l->segments[i + 1]->base : l->end;
}

/* The time that retention.ms counts from: the largest timestamp, or the file's last change. */
static int segment_age_from(struct segment *s, int64_t *ret_ms)
{
    int err = segment_load_max(s);
    if (err < 0 || s->max_timestamp >= 0) {
        *ret_ms = s->max_timestamp;
        return err;
    }
    struct file_stat st;
    err = file_stat(s->fs, s->path, &st);
    *ret_ms = err == 0 ? st.mtime_ms : 0;
    return err;
}

/* How many of the first segments may go. */
static int count_expired(struct log *l, int64_t now_wall_ms, size_t *ret_count)
{
    const struct log_config *c = &l->config;
    uint64_t size = log_size_bytes(l);
    bool time_on = c->cleanup_delete && c->retention_ms >= 0, size_on = c->cleanup_delete && c->retention_bytes >= 0;
    size_t n = 0;
    for (; n < l->segment_count; n++) {
        struct segment *s = l->segments[n];
        int64_t end = segment_end(l, n), from;
        if (end > l->high_watermark || (s->size_bytes == 0 && n + 1 == l->segment_count))
            break;
        bool go = end <= l->start && n + 1 < l->segment_count;
        if (!go && time_on) {
            int err = segment_age_from(s, &from);
            if (err < 0)
                return err;
            go = now_wall_ms - from > c->retention_ms;
            err = go ? log_tell_damage(l, s, segment_prove_max(s)) : 0;
            if (err < 0 && err != -EBADMSG && err != -ENODATA) /* damaged: nothing else is known of its age */
                return err;
            go = go && (s->max_timestamp < 0 || now_wall_ms - s->max_timestamp > c->retention_ms);
        }
        go = go || (size_on && size - s->size_bytes >= (uint64_t)c->retention_bytes);
        if (!go)
            break;
        size -= s->size_bytes;
    }
    *ret_count = n;
    return 0;
}

int log_retain(struct log *l, int64_t now_wall_ms)
{
    ASSERT(!log_has_staged(l));
    if (l->failed != 0)
        return -EIO;
    size_t n = 0;
    int err = count_expired(l, now_wall_ms, &n);
    if (err == 0 && n == l->segment_count) /* all of it: what is active is rolled first */
        err = log_roll(l, now_wall_ms);
    if (err == 0)
        err = log_doom_first(l, n, now_wall_ms);
    else if (err != -ENOSPC)
        log_fail(l, err, "retention");
    return err < 0 ? err : (int)MIN(n, (size_t)INT_MAX);
}

int log_delete_before(struct log *l, int64_t offset)
{
    if (l->failed != 0)
        return -EIO;
    if (offset < 0 || offset > l->high_watermark)
        return -ERANGE;
    if (offset <= l->start) {
        /* Retention was here before; nothing else says so if a power cut brings back what it took. */
        int err = l->dir_dirty && offset > 0 ? file_sync_dir(l->fs, l->dir) : 0;
        return err < 0 ? log_fail(l, err, "removing records") : 0;
    }
    l->start = offset;
    /* The file follows with the next append, flush or stop: the caller's checkpoint comes first. A start that knows
     * nothing of the new log start must find the epochs of the records before it. */
    epochs_truncate_start(&l->epochs, offset);
    return 0;
}

static int remove_last(struct log *l)
{
    int err = segment_unlink(log_active(l));
    if (err < 0)
        return err;
    segment_free(log_active(l));
    l->segment_count--;
    return 0;
}

static int truncate_files(struct log *l, int64_t offset)
{
    int err = 0;
    while (err == 0 && l->segment_count > 1 && log_active(l)->base >= offset)
        err = remove_last(l);
    struct segment *s = log_active(l);
    struct batch b;
    uint64_t position;
    if (err == 0)
        err = segment_find(s, offset, &b, &position);
    if (err == 1)
        err = segment_truncate(s, position, offset);
    /* Entries of what is cut must not come back for other records. */
    if (err == 0)
        err = log_sync_indexes(l, log_active(l));
    return err;
}

int log_truncate(struct log *l, int64_t offset)
{
    ASSERT(!log_has_staged(l));
    if (l->failed != 0)
        return -EIO;
    if (offset > l->end)
        return 0;
    if (offset == l->end) {
        epochs_truncate_end(&l->epochs, offset);
        return log_store_epochs(l);
    }
    if (offset < l->segments[0]->base)
        return log_restart_at(l, offset, log_active(l)->born_ms);
    log_clear_hints(l);
    log_clean_interrupt(l);
    l->truncations++;
    l->mark_base = -1;
    /* A recovery point behind the end would protect bytes that are yet to be written. */
    l->recovery_point = MIN(l->recovery_point, offset);
    int err = truncate_files(l, offset);
    /* A batch that holds offset in its middle goes as a whole. */
    struct segment *s = log_active(l);
    int64_t end = s->base;
    if (err == 0) {
        struct scan sc;
        struct batch b;
        uint64_t at;
        err = scan_begin(&sc, s, 0, SCAN_HEADERS);
        if (err == 0) {
            while ((err = scan_next(&sc, &b, &at)) == 1)
                end = batch_next_offset(&b);
            scan_end(&sc);
        }
    }
    if (err < 0)
        return log_fail(l, err, "truncating");
    l->end = l->staged_end = end;
    l->start = MIN(l->start, end);
    l->high_watermark = MIN(l->high_watermark, end);
    l->recovery_point = MIN(l->recovery_point, end);
    log_settle_sides(l);
    epochs_truncate_end(&l->epochs, end);
    l->epochs.dirty = true;
    err = log_load_producers(l, end, end, 0);
    if (err == 0)
        err = epochs_store(&l->epochs, l->fs, l->dir, true);
    l->dir_dirty = true;
    return err < 0 ? log_fail(l, err, "truncating") : 0;
}

int log_restart_at(struct log *l, int64_t offset, int64_t now_wall_ms)
{
    ASSERT(!log_has_staged(l) && offset >= 0);
    if (l->failed != 0)
        return -EIO;
    log_clear_hints(l);
    log_clean_interrupt(l);
    l->truncations++;
    l->mark_base = -1;
    int err = 0;
    while (err == 0 && l->segment_count > 0)
        err = remove_last(l);
    if (err == 0)
        err = log_new_active(l, offset, now_wall_ms);
    if (l->segment_count == 0) {
        /* I/O failed; the log stays whole in memory, but offline. */
        log_add_segment(l, segment_new(l->fs, l->dir, offset, now_wall_ms));
    }
    l->start = l->end = l->staged_end = l->high_watermark = l->recovery_point = offset;
    l->sides_from = INT64_MAX;
    l->epochs.count = 0;
    producers_clear(l->producers);
    log_clear_snapshots(l);
    if (err == 0)
        err = epochs_store(&l->epochs, l->fs, l->dir, true);
    /* From here on the recovery point says that the folder was flushed. */
    if (err == 0 && !uuid_is_zero(l->topic_id))
        err = log_sync_file(l, "partition.metadata");
    return err < 0 ? log_fail(l, err, "starting anew") : 0;
}

struct log_removal *log_removal_begin(struct log *l, int64_t now_wall_ms, struct log_removal *more)
{
    for (struct log_removal **at = &l->doomed; *at != NULL;) {
        struct log_removal *d = *at;
        if (d->due_ms > now_wall_ms) {
            at = &d->next;
            continue;
        }
        *at = d->next;
        d->next = more;
        more = d;
    }
    return more;
}

void log_removal_run(const struct log_removal *removal)
{
    for (const struct log_removal *d = removal; d != NULL; d = d->next)
        segment_unlink_doomed(d->segment);
}

void log_removal_end(struct log_removal *removal)
{
    for (struct log_removal *d = removal, *next; d != NULL; d = next) {
        next = d->next;
        segment_free(d->segment);
        free(d);
    }
}

void log_tick(struct log *l, int64_t now_wall_ms)
{
    struct log_removal *due = log_removal_begin(l, now_wall_ms, NULL);
    log_removal_run(due);
    log_removal_end(due);
    if (!log_has_staged(l) && now_wall_ms >= l->expire_due_ms) {
        l->expire_due_ms = now_wall_ms + LOG_EXPIRE_EVERY_MS;
        producers_expire(l->producers, now_wall_ms, l->config.producer_id_expiration_ms);
    }
    for (size_t i = 0; i < l->segment_count; i++)
        segment_idle(l->segments[i]);
}

int log_delete(struct log *l, struct uuid unique, char **ret_path)
{
    char *to = logdir_beside(l->dir, unique, "delete");
    const char *slash = strrchr(l->dir, '/');
    char *parent = slash ? xstrndup(l->dir, (size_t)(slash - l->dir)) : xstrdup(".");
    int err = file_rename(l->fs, l->dir, to);
    if (err == 0)
        err = file_sync_dir(l->fs, parent);
    free(parent);
    log_abandon(l);
    if (err < 0) {
        free(to);
        return err;
    }
    *ret_path = to;
    return 0;
}
