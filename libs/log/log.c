/* log.c - a log's life: open, close, what it is made of. */
#include "libs/log/internal.h"
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void log_config_init(struct log_config *config)
{
    *config = (struct log_config){
        .segment_bytes = 1073741824,
        .segment_ms = 604800000,
        .segment_index_bytes = 10485760,
        .index_interval_bytes = 4096,
        .retention_ms = 604800000,
        .retention_bytes = -1,
        .flush_messages = INT64_MAX,
        .flush_ms = INT64_MAX,
        .file_delete_delay_ms = 60000,
        .max_message_bytes = 1048588,
        .message_timestamp_before_max_ms = INT64_MAX,
        .message_timestamp_after_max_ms = 3600000,
        .cleanup_delete = true,
        .delete_retention_ms = 86400000,
        .max_compaction_lag_ms = INT64_MAX,
        .min_cleanable_dirty_ratio = 0.5,
        .compression = -1,
        .compression_level = COMPRESS_LEVEL_DEFAULT,
        .producer_id_expiration_ms = 86400000,
    };
}

int64_t log_config_roll_ms(const struct log_config *config)
{
    return config->cleanup_compact ? MIN(config->segment_ms, config->max_compaction_lag_ms) : config->segment_ms;
}

void log_notef(struct log *l, int level, const char *format, ...)
{
    if (l->note == NULL)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    l->note(l->note_ctx, level, text);
}

int log_fail(struct log *l, int err, const char *what)
{
    ASSERT(err < 0);
    if (l->failed == 0) {
        l->failed = err;
        log_notef(l, LOG_ERROR, "%s: %s failed: %s", l->dir, what, strerror(-err));
    }
    return err;
}

void log_add_segment(struct log *l, struct segment *s)
{
    ASSERT(l->segment_count == 0 || log_active(l)->base < s->base);
    if (l->segment_count == l->segment_capacity) {
        l->segment_capacity = l->segment_capacity ? l->segment_capacity * 2 : 1;
        l->segments = xrealloc(l->segments, l->segment_capacity * sizeof *l->segments);
    }
    segment_set_mode(s, &l->mode);
    segment_share_descriptors(s, l->descriptors);
    l->segments[l->segment_count++] = s;
}

size_t log_segment_at(const struct log *l, int64_t offset)
{
    size_t low = 0, high = l->segment_count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (l->segments[mid]->base <= offset)
            low = mid;
        else
            high = mid;
    }
    return low;
}

void log_clear_hints(struct log *l)
{
    for (size_t i = 0; i < LOG_HINTS; i++)
        l->appended.at[i].offset = l->read.at[i].offset = -1;
}

/* segment.jitter.ms spreads the rolls of many logs; the caller's seed decides where in it this segment falls. */
void log_new_jitter(struct log *l)
{
    l->jitter_seed = l->jitter_seed * 6364136223846793005U + 1442695040888963407U;
    int64_t span = MIN(l->config.segment_jitter_ms, l->config.segment_ms);
    l->roll_jitter_ms = span > 0 ? (int64_t)((l->jitter_seed >> 33) % (uint64_t)span) : 0;
}

int log_new_active(struct log *l, int64_t base, int64_t now_wall_ms)
{
    struct segment *s = segment_new(l->fs, l->dir, base, now_wall_ms);
    int err = segment_create(s, (uint32_t)l->config.segment_index_bytes, l->config.preallocate,
                             (uint32_t)l->config.segment_bytes);
    if (err < 0) {
        /* Nothing of it may stay: records that go to the segment before would be looked for in this one. */
        int gone = segment_unlink(s);
        l->dir_dirty = true;
        segment_free(s);
        return gone < 0 ? log_fail(l, gone, "removing a segment that could not be made") : err;
    }
    log_add_segment(l, s);
    log_new_jitter(l);
    l->dir_dirty = true;
    return 0;
}

static int write_partition_metadata(struct log *l)
{
    char text[64];
    int n = snprintf(text, sizeof text, "version: 0\ntopic_id: %s", uuid_to_text(l->topic_id).s);
    /* A new one becomes durable with the first flush; of the old one that was to be, nobody knows whether it was. */
    return file_replace(l->fs, l->dir, "partition.metadata", text, (size_t)n, l->rewrite);
}

int log_open(const struct log_options *o, struct log **ret_log)
{
    struct log *l = xcalloc(1, sizeof *l);
    l->fs = o->fs;
    l->dir = xstrdup(o->dir);
    l->config = o->config;
    l->topic_id = o->topic_id;
    l->own_pool = o->pool == NULL;
    l->pool = l->own_pool ? log_pool_new() : o->pool;
    l->note = o->note;
    l->note_ctx = o->note_ctx;
    l->progress = o->progress;
    l->rewrite = o->rewrite;
    l->jitter_seed = o->jitter_seed;
    l->snapshot_offset = l->mark_base = -1;
    l->sides_from = INT64_MAX;
    l->expire_due_ms = o->now_wall_ms + LOG_EXPIRE_EVERY_MS;
    l->producers = producers_new();
    log_clear_hints(l);

    struct uuid known = UUID_ZERO;
    int err = logdir_read_partition_metadata(l->fs, l->dir, &known);
    bool unnamed = err == -ENOENT;
    if (unnamed) {
        err = file_mkdir(l->fs, l->dir);
        l->dir_dirty = err == 0;
        if (err == 0 || err == -EEXIST)
            err = -ENOENT;
        unnamed = err == -ENOENT;
    }
    if (err == -EBADMSG && o->recovery_point == 0 && !uuid_is_zero(l->topic_id)) {
        log_notef(l, LOG_WARN, "%s: partition.metadata is damaged and nothing was flushed yet: writing it again",
                  l->dir);
        unnamed = true;
    } else if (err == -EBADMSG) {
        log_notef(l, LOG_ERROR, "%s: partition.metadata is damaged: not opened", l->dir);
    }
    if (unnamed)
        err = 0;
    if (err == 0 && !unnamed && !uuid_is_zero(l->topic_id) && !uuid_eq(known, l->topic_id))
        err = -EEXIST;
    if (err == 0 && !unnamed)
        l->topic_id = known;
    if (err == 0)
        err = log_load(l, o);
    if (err == 0 && (unnamed || l->rewrite) && !uuid_is_zero(l->topic_id))
        err = write_partition_metadata(l);
    if (err < 0) {
        log_abandon(l);
        return err;
    }
    l->progress = NULL;
    l->rewrite = false;
    if (!o->elsewhere)
        log_take(l);
    *ret_log = l;
    return 0;
}

void log_take(struct log *l)
{
    l->descriptors = log_pool_descriptors(l->pool);
    for (size_t i = 0; i < l->segment_count; i++)
        segment_share_descriptors(l->segments[i], l->descriptors);
}

struct log *log_abandon(struct log *l)
{
    if (l == NULL)
        return NULL;
    log_clean_detach(l);
    log_move_detach(l);
    for (size_t i = 0; i < l->segment_count; i++)
        segment_free(l->segments[i]);
    log_removal_end(l->doomed);
    staging_put(l->pool, l->staged);
    buf_free(&l->aborted);
    if (l->own_pool)
        log_pool_free(l->pool);
    producers_free(l->producers);
    epochs_free(&l->epochs);
    free(l->segments);
    free(l->undone_at);
    free(l->dir);
    free(l);
    return NULL;
}

int log_sync_file(struct log *l, const char *name)
{
    char *path = xasprintf("%s/%s", l->dir, name);
    int fd = file_open(l->fs, path, O_RDWR);
    int err = fd < 0 ? fd : file_fdatasync(l->fs, fd);
    file_close(l->fs, fd);
    free(path);
    return err;
}

/* What the next start trusts without looking, as it was stopped cleanly: a power cut must not tear it. */
static int close_active(struct log *l)
{
    struct segment *s = log_active(l);
    int err = segment_retire(s);
    if (err == 0)
        err = log_sync_indexes(l, s);
    if (err < 0 || (l->snapshot_offset == l->end && !l->marked))
        return err;
    err = log_write_snapshot(l, l->end);
    char name[64];
    snprintf(name, sizeof name, "%020" PRId64 ".snapshot", l->end);
    return err < 0 ? err : log_sync_file(l, name);
}

int log_close(struct log *l, int64_t now_wall_ms)
{
    int err = log_has_staged(l) ? log_commit(l) : 0;
    if (err == 0)
        err = l->failed;
    if (err == 0)
        err = log_flush(l);
    if (err == 0)
        err = close_active(l);
    if (err == 0 && l->mark_made)
        log_drop_snapshots(l);
    if (err == 0 && l->epochs.dirty)
        err = epochs_store(&l->epochs, l->fs, l->dir, true);
    if (err == 0)
        err = file_sync_dir(l->fs, l->dir);
    log_tick(l, now_wall_ms);
    log_abandon(l);
    return err;
}

int log_settle(struct log *l)
{
    int err = log_has_staged(l) ? log_commit(l) : 0;
    if (err == 0)
        err = l->failed;
    if (err == 0)
        err = segment_retire(log_active(l));
    if (err == 0)
        err = log_write_snapshot(l, l->end);
    if (err == 0 && l->mark_made)
        log_drop_snapshots(l);
    if (err == 0 && l->epochs.dirty)
        err = log_store_epochs(l);
    return err;
}

void log_settled(struct log *l)
{
    l->recovery_point = l->end;
}

void log_set_note(struct log *l, log_note_fn *note, void *ctx)
{
    l->note = note;
    l->note_ctx = ctx;
}

const char *log_dir(const struct log *l)
{
    return l->dir;
}

const char *log_name(const struct log *l)
{
    const char *slash = strrchr(l->dir, '/');
    return slash != NULL ? slash + 1 : l->dir;
}

struct uuid log_topic_id(const struct log *l)
{
    return l->topic_id;
}

void log_set_config(struct log *l, const struct log_config *config)
{
    l->config = *config;
}

const struct log_config *log_config(const struct log *l)
{
    return &l->config;
}

int log_failed(const struct log *l)
{
    return l->failed;
}

int64_t log_start(const struct log *l)
{
    return l->start;
}

int64_t log_end(const struct log *l)
{
    return l->end;
}

int64_t log_high_watermark(const struct log *l)
{
    return l->high_watermark;
}

int64_t log_last_stable(const struct log *l)
{
    int64_t open = producers_first_open(l->producers);
    return open >= 0 && open < l->high_watermark ? open : l->high_watermark;
}

int64_t log_recovery_point(const struct log *l)
{
    if (l->sides_from == INT64_MAX)
        return l->recovery_point;
    /* In the segment whose side files are not flushed: a start begins with the one that holds the point. */
    size_t next = log_segment_at(l, l->sides_from) + 1;
    return next < l->segment_count ? MIN(l->recovery_point, l->segments[next]->base - 1) : l->recovery_point;
}

int64_t log_flushed(const struct log *l)
{
    return l->recovery_point;
}

int64_t log_stable_behind(const struct log *l, const struct batch *marker)
{
    int64_t open = producers_first_open(l->producers);
    return open >= 0 ? open : batch_next_offset(marker);
}

uint64_t log_size_bytes(const struct log *l)
{
    uint64_t size = 0;
    for (size_t i = 0; i < l->segment_count; i++)
        size += l->segments[i]->size_bytes;
    return size;
}

size_t log_segment_count(const struct log *l)
{
    return l->segment_count;
}

int64_t log_first_segment(const struct log *l)
{
    return l->segments[0]->base;
}

void log_set_high_watermark(struct log *l, int64_t offset)
{
    if (offset > l->high_watermark)
        l->high_watermark = MIN(offset, l->end);
}

void log_hold_high_watermark(struct log *l, bool hold)
{
    l->hold_high_watermark = hold;
    log_raise_high_watermark(l);
}

void log_producers(const struct log *l, log_producer_fn *fn, void *ctx)
{
    producers_each(l->producers, fn, ctx);
}

int32_t log_epoch_of_offset(const struct log *l, int64_t offset)
{
    return epochs_of_offset(&l->epochs, offset);
}

int32_t log_latest_epoch(const struct log *l)
{
    return epochs_latest(&l->epochs);
}

void log_end_of_epoch(const struct log *l, int32_t epoch, int32_t *ret_epoch, int64_t *ret_end_offset)
{
    epochs_end_of(&l->epochs, epoch, l->end, ret_epoch, ret_end_offset);
}

void log_assign_epoch(struct log *l, int32_t epoch)
{
    ASSERT(!log_has_staged(l));
    epochs_begin(&l->epochs, epoch, l->end);
}

int log_store_epochs(struct log *l)
{
    if (!l->epochs.dirty && !l->epochs.idle)
        return 0;
    int err = epochs_store(&l->epochs, l->fs, l->dir, false);
    l->dir_dirty = true;
    /* Tried again with the next append, and before the next flush: records are in the epoch by now. */
    if (err == -ENOSPC) {
        l->epochs.dirty = true;
        return 0;
    }
    return err < 0 ? log_fail(l, err, "writing " EPOCHS_FILE) : 0;
}
