/* clean.c - the owner's side of a cleaning: what there is to clean, and taking a cleaned group into use. */
#include "libs/log/clean_internal.h"
#include "libs/log/internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- what there is ---- */

static int64_t first_dirty_of(const struct log *l, int64_t checkpoint, bool *ret_fits)
{
    *ret_fits = checkpoint < 0 || (checkpoint >= l->start && checkpoint <= l->end);
    return checkpoint >= l->start && checkpoint <= l->end ? checkpoint : l->start;
}

/* The first dirty segment with a record younger than min.compaction.lag.ms; the active one when there is none. */
static int first_young(struct log *l, size_t from, int64_t now_wall_ms, size_t *ret_i)
{
    size_t i = from;
    for (; i + 1 < l->segment_count && l->config.min_compaction_lag_ms > 0; i++) {
        int err = segment_load_max(l->segments[i]);
        if (err < 0)
            return err;
        if (l->segments[i]->max_timestamp > now_wall_ms - l->config.min_compaction_lag_ms)
            break;
    }
    *ret_i = l->config.min_compaction_lag_ms > 0 ? i : l->segment_count - 1;
    return 0;
}

static int is_overdue(struct log *l, size_t from, int64_t now_wall_ms, bool *ret_overdue)
{
    *ret_overdue = false;
    if (l->config.max_compaction_lag_ms > now_wall_ms)
        return 0;
    for (size_t i = from; i + 1 < l->segment_count && !*ret_overdue; i++) {
        struct segment *s = l->segments[i];
        int err = segment_load_first(s);
        if (err < 0)
            return err;
        *ret_overdue = s->first_timestamp > 0 && s->first_timestamp < now_wall_ms - l->config.max_compaction_lag_ms;
    }
    return 0;
}

int log_clean_look(struct log *l, int64_t checkpoint, int64_t safe, int64_t now_wall_ms, struct log_dirt *ret_dirt)
{
    struct log_dirt d = {0};
    if (l->failed != 0)
        return -EIO;
    d.first_dirty = first_dirty_of(l, checkpoint, &d.checkpoint_fits);
    size_t dirty = log_segment_at(l, d.first_dirty), end = dirty;
    int err = first_young(l, dirty, now_wall_ms, &end);
    if (err == 0)
        err = is_overdue(l, dirty, now_wall_ms, &d.overdue);
    if (err < 0)
        return err == -EMFILE || err == -ENFILE ? err : log_fail(l, err, "looking for what to compact");
    int64_t stable = log_last_stable(l), bound = MIN(safe, l->recovery_point);
    bound = MIN(bound, stable);
    end = MIN(end, log_segment_at(l, MAX(bound, l->segments[0]->base)));
    d.end = l->segments[end]->base;
    for (size_t i = 0; i < l->segment_count && l->segments[i]->base < d.first_dirty; i++)
        d.clean_bytes += l->segments[i]->size_bytes;
    for (size_t i = dirty; i < end; i++)
        d.dirty_bytes += l->segments[i]->size_bytes;
    *ret_dirt = d;
    return 0;
}

double log_clean_ratio(const struct log_dirt *dirt)
{
    uint64_t all = dirt->clean_bytes + dirt->dirty_bytes;
    return all > 0 ? (double)dirt->dirty_bytes / (double)all : 0;
}

bool log_clean_is_due(const struct log *l, const struct log_dirt *dirt)
{
    return dirt->dirty_bytes > 0 && (dirt->overdue || log_clean_ratio(dirt) > l->config.min_cleanable_dirty_ratio);
}

/* ---- begin ---- */

static void note_producer(void *ctx, int64_t id, int16_t epoch, int64_t last_offset)
{
    struct log_clean *c = ctx;
    c->producers[c->filter.producer_count++] = (struct clean_producer){id, last_offset, epoch};
}

static int by_id(const void *a, const void *b)
{
    const struct clean_producer *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static void note_sources(struct log_clean *c, const struct log *l)
{
    c->sources = xcalloc(l->segment_count, sizeof *c->sources);
    c->bases = xcalloc(l->segment_count, sizeof *c->bases);
    for (size_t i = 0; i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        c->bases[c->base_count++] = s->base;
        if (s->base < c->end)
            c->sources[c->source_count++] =
                (struct clean_source){s->base, s->size_bytes, index_count(&s->offsets) * INDEX_OFFSET_ENTRY,
                                      index_count(&s->times) * INDEX_TIME_ENTRY};
    }
}

struct log_clean *log_clean_begin(struct log *l, const struct log_dirt *dirt, const struct log_clean_options *options)
{
    ASSERT(l->clean == NULL);
    if (l->failed != 0 || l->move != NULL || dirt->dirty_bytes == 0)
        return NULL;
    struct log_clean *c = xcalloc(1, sizeof *c);
    c->log = l;
    l->clean = c;
    c->fs = l->fs;
    c->dir = xstrdup(l->dir);
    c->options = *options;
    c->options.io_bytes = MAX(options->io_bytes, (size_t)BATCH_HEADER_SIZE);
    c->options.map_load = MIN(MAX(options->map_load, 0.01), 1.0);
    c->interval_bytes = (uint32_t)l->config.index_interval_bytes;
    c->segment_bytes = (uint32_t)l->config.segment_bytes;
    c->segment_index_bytes = (uint32_t)l->config.segment_index_bytes;
    c->first_dirty = c->mapped_to = dirt->first_dirty;
    c->end = dirt->end;
    note_sources(c, l);
    c->producers = xcalloc(producers_count(l->producers) + 1, sizeof *c->producers);
    producers_each_last(l->producers, note_producer, c);
    if (c->filter.producer_count > 0)
        qsort(c->producers, c->filter.producer_count, sizeof *c->producers, by_id);
    c->filter.producers = c->producers;
    c->filter.now_wall_ms = options->now_wall_ms;
    c->filter.horizon_ms = options->now_wall_ms + l->config.delete_retention_ms;
    ASSERT(c->source_count > 0 && c->source_count < l->segment_count);
    return c;
}

/* ---- taking a group into use ---- */

/* Where the present group's segments are in the log; false: they are not as they were any more. */
static bool find_group(const struct log_clean *c, size_t *ret_i)
{
    const struct log *l = c->log;
    size_t first = log_segment_at(l, c->sources[c->group_from].base), n = c->group_to - c->group_from;
    bool same = first + n < l->segment_count;
    for (size_t i = 0; i < n && same; i++) {
        const struct segment *s = l->segments[first + i];
        const struct clean_source *was = &c->sources[c->group_from + i];
        same = s->base == was->base && s->size_bytes == was->size_bytes;
    }
    *ret_i = first;
    return same;
}

static int to_swap(struct log_clean *c)
{
    size_t i;
    if (!find_group(c, &i))
        return -ECANCELED;
    int err = segment_rename(c->out, SEGMENT_SWAP, true);
    c->swapped = err == 0;
    c->phase = CLEAN_SWAPPED;
    return err;
}

/* The old segments leave, and the new one takes their place; under its .swap names, until it is sure that a power cut
 * does not bring an old one back beside it. */
static int replace(struct log_clean *c, int64_t now_wall_ms)
{
    struct log *l = c->log;
    size_t first, n = c->group_to - c->group_from;
    if (!find_group(c, &first))
        return -ECANCELED;
    for (size_t i = first; i < first + n; i++) {
        int err = segment_doom(l->segments[i]);
        if (err == 0)
            continue;
        /* Some of what is replaced has no name any more: the next start completes it from the .swap files. */
        c->swapped = false;
        c->out = segment_free(c->out);
        return log_fail(l, err, "replacing segments by their compacted one");
    }
    for (size_t i = first; i < first + n; i++)
        log_doom(l, l->segments[i], now_wall_ms);
    l->segments[first] = TAKE_PTR(c->out);
    segment_set_mode(l->segments[first], &l->mode);
    segment_share_descriptors(l->segments[first], l->descriptors);
    l->segment_count -= n - 1;
    memmove(l->segments + first + 1, l->segments + first + n, (l->segment_count - first - 1) * sizeof *l->segments);
    l->dir_dirty = true;
    log_clear_hints(l);
    c->swapped = false;
    c->phase = CLEAN_REPLACED;
    return 0;
}

static int to_name(struct log_clean *c)
{
    struct log *l = c->log;
    int64_t base = c->sources[c->group_from].base;
    struct segment *s = l->segments[log_segment_at(l, base)];
    int err = 0;
    /* Unless it left meanwhile. */
    if (s->base == base && strcmp(s->suffix, SEGMENT_SWAP) == 0)
        err = segment_rename(s, "", false);
    l->dir_dirty = true;
    clean_next_group(c);
    return err;
}

/* Errors that say nothing bad about the disk. */
static bool is_harmless(int err)
{
    return err == -ECANCELED || err == -EBADMSG || err == -ENOSPC || err == -EMFILE || err == -ENFILE || err == -ENOMEM;
}

static int act(struct log_clean *c, int64_t now_wall_ms)
{
    switch (c->phase) {
    case CLEAN_TO_SWAP: return to_swap(c);
    case CLEAN_REPLACE: return replace(c, now_wall_ms);
    case CLEAN_TO_NAME: return to_name(c);
    case CLEAN_LOAD:
    case CLEAN_MAP:
    case CLEAN_COPY:
    case CLEAN_SWAPPED:
    case CLEAN_REPLACED:
    case CLEAN_DONE: return 0;
    }
    BUG("a phase of cleaning");
}

int log_clean_turn(struct log_clean *c, int64_t now_wall_ms)
{
    struct log *l = c->log;
    if (l == NULL)
        return -ECANCELED;
    ASSERT(!log_has_staged(l));
    if (l->failed != 0)
        return l->failed;
    /* A group whose segments are gone gets its names first. */
    bool replaced = c->phase == CLEAN_REPLACED || c->phase == CLEAN_TO_NAME;
    if (!replaced && atomic_load(&c->stop))
        return -ECANCELED;
    if (c->err == 0)
        c->err = act(c, now_wall_ms);
    if (c->err < 0)
        return is_harmless(c->err) && !replaced ? c->err : log_fail(l, c->err, "compacting");
    if (c->phase == CLEAN_DONE)
        log_drop_snapshots(l);
    return c->phase == CLEAN_DONE ? 0 : atomic_load(&c->stop) && !replaced ? -ECANCELED : 1;
}

void log_clean_step(struct log_clean *c, uint64_t bytes)
{
    switch (c->phase) {
    case CLEAN_LOAD: c->err = clean_load(c); break;
    case CLEAN_MAP: c->err = clean_map_some(c, bytes); break;
    case CLEAN_COPY: c->err = clean_copy_some(c, bytes); break;
    case CLEAN_SWAPPED:
        c->err = file_sync_dir(c->fs, c->dir);
        c->phase = CLEAN_REPLACE;
        break;
    case CLEAN_REPLACED:
        c->err = file_sync_dir(c->fs, c->dir);
        c->phase = CLEAN_TO_NAME;
        break;
    case CLEAN_TO_SWAP:
    case CLEAN_REPLACE:
    case CLEAN_TO_NAME:
    case CLEAN_DONE: BUG("a step of cleaning where the owner's turn is");
    }
}

/* ---- the end ---- */

static void remove_files(const struct log_clean *c, const char *suffix)
{
    static const char *const kinds[] = {"log", "index", "timeindex", "txnindex"};
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        char *path = xasprintf("%s.%s%s", c->out->stem, kinds[i], suffix);
        (void)file_unlink(c->fs, path);
        free(path);
    }
}

void log_clean_interrupt(struct log *l)
{
    struct log_clean *c = l->clean;
    if (c == NULL)
        return;
    atomic_store(&c->stop, true);
    /* A crash from here on must not complete what replaces segments that are cut now. The step that may be running only
     * flushes the folder. */
    if (c->swapped)
        remove_files(c, SEGMENT_SWAP);
}

void log_clean_detach(struct log *l)
{
    if (l->clean == NULL)
        return;
    atomic_store(&l->clean->stop, true);
    l->clean->log = NULL;
    l->clean = NULL;
}

void log_clean_stop(struct log_clean *c)
{
    atomic_store(&c->stop, true);
}

struct log_clean *log_clean_end(struct log_clean *c)
{
    if (c == NULL)
        return NULL;
    clean_close_source(c);
    if (c->out != NULL && c->log != NULL) {
        remove_files(c, SEGMENT_CLEANED);
        remove_files(c, SEGMENT_SWAP);
    }
    if (c->log != NULL)
        c->log->clean = NULL;
    segment_free(c->out);
    clean_map_free(c->map);
    clean_txns_free(c->map_txns);
    clean_filter_free(&c->filter);
    clean_aborts_free(&c->aborts);
    buf_free(&c->pending);
    free(c->sources);
    free(c->bases);
    free(c->producers);
    free(c->dir);
    free(c->why);
    free(c);
    return NULL;
}

const char *log_clean_why(const struct log_clean *c)
{
    return c->why != NULL ? c->why : "";
}

int64_t log_clean_end_offset(const struct log_clean *c)
{
    return c->mapped_to;
}

uint64_t log_clean_take_bytes(struct log_clean *c)
{
    uint64_t moved = c->moved;
    c->moved = 0;
    return moved;
}

struct log_clean_stats log_clean_stats(const struct log_clean *c)
{
    struct log_clean_stats s = c->stats;
    s.records_read = c->filter.records_read;
    s.records_kept = c->filter.records_kept;
    return s;
}
