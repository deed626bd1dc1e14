/* snapshots.c - producer snapshot files M.snapshot, the state as of offset M: written at roll, at clean stop and after
 * recovery; kept for each segment's base offset, and the newest. */
#include "libs/log/internal.h"
#include "libs/log/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void add(struct snapshot_list *o, int64_t offset)
{
    if (o->count == o->capacity) {
        o->capacity = o->capacity ? 2 * o->capacity : 8;
        o->at = xrealloc(o->at, o->capacity * sizeof *o->at);
    }
    o->at[o->count++] = offset;
}

void snapshot_list_note(struct snapshot_list *list, const char *name)
{
    int64_t offset;
    if (strlen(name) == 29 && strcmp(name + 20, ".snapshot") == 0 &&
        text_int(slice_make(name, 20), INT64_MAX, &offset) && offset >= 0)
        add(list, offset);
}

static void note_snapshot(void *arg, const char *name)
{
    snapshot_list_note(arg, name);
}

static int descending(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x < *y) - (*x > *y);
}

static int list_snapshots(struct log *l, struct snapshot_list *ret)
{
    *ret = (struct snapshot_list){0};
    for (size_t i = 0; l->listed != NULL && i < l->listed->count; i++)
        add(ret, l->listed->at[i]);
    int err = l->listed != NULL ? 0 : file_list(l->fs, l->dir, note_snapshot, ret);
    if (err == 0 && ret->count > 0)
        qsort(ret->at, ret->count, sizeof *ret->at, descending);
    return err;
}

/* 0 or -errno. */
static int remove_snapshot(struct log *l, int64_t offset)
{
    char *path = xasprintf("%s/%020" PRId64 ".snapshot", l->dir, offset);
    int err = file_unlink(l->fs, path);
    free(path);
    for (size_t i = 0; l->listed != NULL && i < l->listed->count; i++) {
        if (l->listed->at[i] == offset)
            l->listed->at[i--] = l->listed->at[--l->listed->count];
    }
    return err == -ENOENT ? 0 : err;
}

static int write_snapshot(struct log *l, int64_t offset, bool every_batch)
{
    int err = producers_write_snapshot(l->producers, l->fs, l->dir, offset, every_batch);
    if (err == -ENOSPC)
        return err;
    if (err < 0)
        return log_fail(l, err, "writing a producer snapshot");
    l->snapshot_offset = offset;
    l->dir_dirty = true;
    if (l->listed != NULL)
        add(l->listed, offset);
    return 0;
}

int log_write_snapshot(struct log *l, int64_t offset)
{
    if (l->snapshot_offset == offset && !l->marked)
        return 0;
    int err = write_snapshot(l, offset, false);
    l->marked = l->marked && err < 0;
    return err;
}

int log_write_mark(struct log *l)
{
    ASSERT(!log_has_staged(l));
    log_drop_snapshots(l);
    l->marked = l->mark_made = true;
    return write_snapshot(l, l->end, true);
}

void log_drop_snapshot_at(struct log *l, int64_t offset)
{
    (void)remove_snapshot(l, offset);
    if (l->snapshot_offset == offset)
        l->snapshot_offset = -1;
}

void log_clear_snapshots(struct log *l)
{
    struct snapshot_list o;
    if (list_snapshots(l, &o) == 0) {
        for (size_t i = 0; i < o.count; i++)
            (void)remove_snapshot(l, o.at[i]);
    }
    free(o.at);
    l->snapshot_offset = -1;
}

void log_drop_snapshots(struct log *l)
{
    struct snapshot_list o;
    if (list_snapshots(l, &o) == 0) {
        bool newest = true;
        for (size_t i = 0; i < o.count; i++) {
            const struct segment *s = l->segments[log_segment_at(l, o.at[i])];
            if (i > 0 && o.at[i] == o.at[i - 1])
                continue; /* written twice since the folder was listed */
            bool keep = o.at[i] <= l->end && (newest || s->base == o.at[i]);
            newest = newest && o.at[i] > l->end;
            if (!keep)
                (void)remove_snapshot(l, o.at[i]);
        }
    }
    free(o.at);
}

void log_replay_producer(struct log *l, const struct batch *b, struct slice body)
{
    int32_t coordinator_epoch = -1;
    int marker = slice_is_null(body) ? -1 : log_marker_of(b, body, &coordinator_epoch);
    if (batch_has_producer(b))
        producers_apply(l->producers, b, marker, coordinator_epoch);
}

static int replay_segment(struct log *l, struct segment *s, int64_t from)
{
    struct batch b;
    uint64_t position;
    int err = segment_find(s, from, &b, &position);
    if (err <= 0)
        return err;
    struct scan sc;
    err = scan_begin(&sc, s, position, SCAN_HEADERS);
    if (err < 0)
        return err;
    while ((err = scan_next(&sc, &b, &position)) == 1) {
        struct slice body = SLICE_NULL;
        if (b.base_offset < from)
            continue; /* in the snapshot already */
        if (batch_is_control(&b) && (err = scan_body(&sc, &b, position, &body)) < 0)
            break;
        log_replay_producer(l, &b, body);
    }
    scan_end(&sc);
    return err;
}

/* Snapshots above trusted go: one that stayed would be taken, later, for what other records left. Those above most stay
 * and are not used. */
static int load_producers(struct log *l, int64_t offset, int64_t trusted, int64_t most, int64_t now_wall_ms)
{
    struct snapshot_list o;
    int err = list_snapshots(l, &o);
    /* From the first batch that is kept, also where the log starts later: that is what was known before the stop. */
    int64_t from = l->segments[0]->base;
    producers_clear(l->producers);
    l->snapshot_offset = -1;
    for (size_t i = 0; err == 0 && i < o.count; i++) {
        if (o.at[i] > trusted) {
            err = remove_snapshot(l, o.at[i]);
            continue;
        }
        if (o.at[i] > most)
            continue;
        if (o.at[i] < from)
            break; /* older than the log: worth nothing */
        int bad = producers_load_snapshot(l->producers, l->fs, l->dir, o.at[i], now_wall_ms,
                                          l->config.producer_id_expiration_ms);
        if (bad == 0) {
            from = l->snapshot_offset = o.at[i];
            l->marked = producers_remember_more(l->producers);
            break;
        }
        if (bad != -EBADMSG) {
            err = bad;
            break;
        }
        log_notef(l, LOG_WARN, "%s: producer snapshot %" PRId64 " is damaged; building it again from the log", l->dir,
                  o.at[i]);
        err = remove_snapshot(l, o.at[i]);
    }
    free(o.at);
    if (err == 0 && from < offset) {
        for (size_t i = log_segment_at(l, from); err == 0 && i < l->segment_count && l->segments[i]->base < offset; i++)
            err = replay_segment(l, l->segments[i], from);
    }
    return err;
}

int log_load_producers(struct log *l, int64_t offset, int64_t trusted, int64_t now_wall_ms)
{
    return load_producers(l, offset, trusted, INT64_MAX, now_wall_ms);
}

int log_load_producers_before(struct log *l, int64_t offset)
{
    return load_producers(l, offset, INT64_MAX, offset, 0);
}
