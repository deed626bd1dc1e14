/* recover.c - what a start makes of the segments that it finds in the folder (found.c).
 *
 * After a clean stop nothing is scanned but the few batches behind the last index entry. After a crash every batch from
 * the segment of the recovery point on is checked: the first bad one and all behind it are cut, indexes, epochs and
 * producer state are built again. A bad batch before the recovery point was flushed and acknowledged: that is damage,
 * not a torn tail, and the log does not open. */
#include "libs/log/found.h"
#include <inttypes.h>
#include <stdatomic.h>

/* Tells how far it is; true: to be given up. */
static bool is_stopped(const struct log *l, uint64_t checked_bytes)
{
    if (l->progress == NULL)
        return false;
    atomic_fetch_add_explicit(&l->progress->checked_bytes, checked_bytes, memory_order_relaxed);
    return atomic_load_explicit(&l->progress->stop, memory_order_relaxed);
}

/* Producer state, and the index entry of a transaction that the batch aborts. */
static int replay_batch(struct log *l, struct segment *s, const struct batch *b, struct slice bytes)
{
    int32_t coordinator_epoch;
    int64_t first = -1;
    if (batch_is_control(b) && batch_has_producer(b) && log_marker_of(b, bytes, &coordinator_epoch) == CONTROL_ABORT)
        first = producers_open_since(l->producers, b->producer_id);
    log_replay_producer(l, b, bytes);
    if (first < 0)
        return 0;
    struct buf entry = {0};
    txn_index_stage(&entry, b->producer_id, first, batch_last_offset(b), log_stable_behind(l, b));
    int err = txn_index_append(s, slice_make(entry.data, entry.size));
    buf_free(&entry);
    return err;
}

/* Goes through the batches of a segment up to the first bad one: notes them in indexes, epochs and (replay) producer
 * state. 0 with *ret_good the bytes that are whole, and *ret_why NULL or what is wrong behind them; -ECANCELED; -errno
 * of the disk. */
static int check_batches(struct log *l, struct segment *s, struct scan *sc, bool replay, int64_t *next_offset,
                         uint64_t *ret_good, const char **ret_why)
{
    struct batch b;
    struct slice bytes;
    uint64_t position = 0;
    int err;
    *ret_good = sc->at;
    *ret_why = NULL;
    while ((err = scan_next(sc, &b, &position)) == 1) {
        if (b.base_offset < *next_offset || batch_last_offset(&b) - s->base > INT32_MAX) {
            *ret_why = "offsets out of order";
            return 0;
        }
        if ((err = scan_body(sc, &b, position, &bytes)) < 0)
            return err;
        if (!scan_crc_holds(&b, bytes)) {
            *ret_why = "CRC mismatch";
            return 0;
        }
        /* Where a flush failed the kernel takes its pages for written: the next one would say so without writing them.
         */
        if (l->rewrite && (err = file_write(l->fs, sc->fd, bytes.data, bytes.size, position)) < 0)
            return err;
        err = segment_note(s, &b, position, (uint32_t)l->config.index_interval_bytes);
        if (err < 0 && err != -ENOSPC)
            return err;
        /* The file may be of a past that a power cut undid, or of one that it brought back. */
        if (b.leader_epoch >= 0 && epochs_of_offset(&l->epochs, b.base_offset) != b.leader_epoch)
            epochs_truncate_end(&l->epochs, b.base_offset);
        epochs_assign(&l->epochs, b.leader_epoch, b.base_offset);
        if (replay && b.base_offset >= l->snapshot_offset && (err = replay_batch(l, s, &b, bytes)) < 0)
            return err;
        *next_offset = batch_next_offset(&b);
        *ret_good = position + b.size;
        if (is_stopped(l, b.size))
            return -ECANCELED;
    }
    if (err == -ENODATA)
        *ret_why = "a batch is cut short";
    else if (err == -EBADMSG)
        *ret_why = "bytes that are no batch";
    return *ret_why != NULL ? 0 : err;
}

/* Durable at once: what was flushed up to here is not flushed again, and the next records go to a new segment or
 * behind. */
static int cut_segment(struct log *l, struct segment *s, uint64_t size_bytes)
{
    int fd = segment_fd(s);
    int err = fd < 0 ? fd : file_ftruncate(l->fs, fd, size_bytes);
    if (err == 0)
        err = file_fdatasync(l->fs, fd);
    if (err == 0)
        s->size_bytes = size_bytes;
    return err;
}

/* Entries of markers before the snapshot that the producer state was loaded from are kept, for they were flushed before
 * it was; the others are found again. A file that cannot be right takes all of it, from the segment's beginning on. */
static int begin_aborted(struct log *l, struct segment *s, bool replay)
{
    int sound = txn_index_sound(s, INT64_MAX);
    if (sound == 1)
        return replay ? txn_index_truncate(s, MAX(l->snapshot_offset, s->base)) : 0;
    if (sound < 0 || !replay)
        return sound;
    log_notef(l, LOG_WARN, "%s: the index of aborted transactions of segment %" PRId64 " is built again", l->dir,
              s->base);
    int err = txn_index_reset(s);
    return err < 0 || l->snapshot_offset <= s->base ? err : log_load_producers_before(l, s->base);
}

/* Where checking the segment begins: behind the mark that the producer state was loaded from, or else at its beginning,
 * with empty indexes. 0 or -errno. */
static int begin_rebuild(struct log *l, struct segment *s, bool replay, uint64_t *ret_from)
{
    *ret_from = 0;
    /* What is in the files may be in memory alone, of the life before, also where nothing of it changes now. */
    s->offsets.dirty = s->times.dirty = true;
    int err = begin_aborted(l, s, replay);
    if (err == 0 && replay && l->snapshot_offset > s->base)
        err = segment_resume(s, l->snapshot_offset, ret_from);
    if (err == 0 && *ret_from > 0) {
        l->marked = true;
        l->mark_base = s->base;
        l->mark_bytes = *ret_from;
    }
    if (err < 0 || *ret_from > 0)
        return err;
    err = index_reset(&s->offsets);
    if (err == 0)
        err = index_reset(&s->times);
    s->max_timestamp = s->first_timestamp = RECORDS_NO_TIMESTAMP;
    s->max_offset = s->base;
    s->since_index_bytes = 0;
    s->max_known = s->max_proved = s->first_known = true;
    return err;
}

/* Checks the batches of a segment and builds its indexes, the epochs and (replay) producer state again. 1: something
 * was cut; 0; -errno. */
static int rebuild_segment(struct log *l, struct segment *s, int64_t *next_offset, int64_t protected_offset,
                           bool replay)
{
    struct scan sc;
    uint64_t good, from;
    const char *why;
    int err = begin_rebuild(l, s, replay, &from);
    if (err == 0)
        err = scan_begin(&sc, s, from, SCAN_BODIES);
    if (err < 0)
        return err;
    if (l->progress != NULL)
        atomic_fetch_add_explicit(&l->progress->found_bytes, s->size_bytes - from, memory_order_relaxed);
    err = check_batches(l, s, &sc, replay, next_offset, &good, &why);
    scan_end(&sc);
    if (err < 0)
        return err;
    s->since_index_bytes = 0;
    if (why != NULL && *next_offset < protected_offset) {
        log_notef(l, LOG_ERROR,
                  "%s: damaged at offset %" PRId64 ", byte %" PRIu64 " of segment %" PRId64
                  " (%s), which was flushed up to offset %" PRId64 ": not opened",
                  l->dir, *next_offset, good, s->base, why, protected_offset);
        return -EBADMSG;
    }
    if (why != NULL) {
        log_notef(l, LOG_WARN,
                  "%s: cut %" PRIu64 " bytes behind offset %" PRId64 ", at byte %" PRIu64 " of segment %" PRId64 ": %s",
                  l->dir, s->size_bytes - good, *next_offset, good, s->base, why);
        err = cut_segment(l, s, good);
    }
    if (err == 0)
        err = segment_retire(s);
    /* The life before may have cut off the zeroes behind the records, and died before that was flushed: nobody would
     * flush a closed segment again whose records are. */
    if (err == 0 && l->config.preallocate) {
        int fd = segment_fd(s);
        err = fd < 0 ? fd : file_fdatasync(l->fs, fd);
    }
    if (err == -ENOSPC) {
        /* What does not fit stays in memory, or is looked for in the records: a full disk must not keep the log from
         * opening. */
        log_notef(l, LOG_WARN, "%s: the disk is full: the indexes of segment %" PRId64 " are not whole", l->dir,
                  s->base);
        err = 0;
    }
    return err < 0 ? err : why != NULL;
}

static int drop_segments_from(struct log *l, size_t n)
{
    /* From the last one on, so that a crash leaves no gap; and not by way of *.deleted, which would make one pass for
     * what compaction left. */
    int err = 0;
    for (size_t i = l->segment_count; i > n; i--) {
        struct segment *s = l->segments[i - 1];
        log_notef(l, LOG_WARN, "%s: segment %" PRId64 " lies behind the cut and is removed", l->dir, s->base);
        err = err == 0 ? segment_unlink(s) : err;
        segment_free(s);
    }
    /* Or a power cut brings one back, under the name of a segment that was made since. */
    if (err == 0 && l->segment_count > n)
        err = file_sync_dir(l->fs, l->dir);
    l->segment_count = MIN(n, l->segment_count);
    return err;
}

/* The offset behind the last batch, from the last index entry on. 1: the tail is not what a clean stop leaves. */
static int find_end(struct segment *s, int64_t *ret_end)
{
    int64_t key = 0;
    int32_t position = 0;
    struct scan sc;
    struct batch b;
    uint64_t at;
    *ret_end = s->base;
    if (s->size_bytes == 0)
        return 0;
    int err = index_last(&s->offsets, &key, &position);
    if (err < 0 && err != -ENOENT)
        return err;
    err = err == 0 ? segment_entry_holds(s, key, position, &b) : 1;
    if (err <= 0)
        return err < 0 ? err : 1;
    err = scan_begin(&sc, s, (uint64_t)position, SCAN_HEADERS);
    if (err < 0)
        return err;
    while ((err = scan_next(&sc, &b, &at)) == 1)
        *ret_end = batch_next_offset(&b);
    scan_end(&sc);
    return err == -ENODATA || err == -EBADMSG ? 1 : err;
}

static int rebuild_epochs(struct log *l)
{
    l->epochs.count = 0;
    for (size_t i = 0; i < l->segment_count; i++) {
        struct scan sc;
        struct batch b;
        uint64_t at;
        int err = scan_begin(&sc, l->segments[i], 0, SCAN_HEADERS);
        if (err < 0)
            return err;
        while ((err = scan_next(&sc, &b, &at)) == 1)
            epochs_assign(&l->epochs, b.leader_epoch, b.base_offset);
        scan_end(&sc);
        if (err < 0)
            return err;
    }
    l->epochs.dirty = true;
    return 0;
}

struct loaded {
    bool recovered; /* something was read again */
    int64_t from;   /* base of the first segment that was */
    bool replayed;  /* producer state is that of the log end */
};

/* May compaction have left a hole that ends at offset? The checkpoint says how far it was; Kafka, dying within a round
 * before it wrote down its recovery point, leaves files that say it. (Those of retention lie before the first segment.)
 */
static bool may_be_hole(const struct found *f, const struct log_options *o, int64_t offset)
{
    if (offset <= MAX(o->compacted_to, f->max_unfinished))
        return true;
    size_t i = 0;
    while (i < f->base_count && f->bases[i] <= f->max_deleted)
        i++;
    return i < f->base_count && offset <= f->bases[i];
}

/* Are the entries of N.txnindex such as the segment can have? Most segments have no such file. 1, 0, -errno. */
static int aborted_sound(const struct found *f, size_t i, struct segment *s)
{
    bool there = f->swap_count > 0;
    for (size_t k = 0; k < f->aborted_count; k++)
        there |= f->aborted[k] == s->base;
    if (!there) {
        s->txn_index = SEGMENT_TXN_NONE;
        return 1;
    }
    return txn_index_sound(s, i + 1 < f->base_count ? f->bases[i + 1] : INT64_MAX);
}

/* Loads the segments that were found, recovering where it is needed. */
static int load_segments(struct log *l, const struct found *f, const struct log_options *o, struct loaded *ret)
{
    int64_t next = 0, recovery_base = 0;
    /* A segment that begins at the point itself may have been made after that was written down: then the indexes of the
     * one before need not be on the disk. */
    for (size_t i = 0; i < f->base_count && f->bases[i] < o->recovery_point; i++)
        recovery_base = f->bases[i];
    if (f->base_count > 0)
        l->start = MAX(f->bases[0], o->log_start_offset);
    for (size_t i = 0; i < f->base_count; i++) {
        struct segment *s = segment_new(l->fs, l->dir, f->bases[i], o->now_wall_ms);
        log_add_segment(l, s);
        int broken = segment_load(s), sound = broken < 0 ? broken : aborted_sound(f, i, s);
        if (sound < 0)
            return sound;
        broken |= !sound;
        bool last = i + 1 == f->base_count;
        bool rebuild = broken || (!o->clean && s->base >= recovery_base);
        if (!rebuild && !last) {
            broken = segment_load_closed(s, (uint32_t)l->config.segment_index_bytes);
            if (broken < 0)
                return broken;
            rebuild = broken;
        }
        if (!rebuild && last) {
            broken = find_end(s, &l->end);
            if (broken < 0)
                return broken;
            rebuild = broken;
        }
        if (!rebuild)
            continue;
        if (broken && (o->clean || s->base < recovery_base))
            log_notef(l, LOG_WARN, "%s: indexes of segment %" PRId64 " are built again", l->dir, s->base);
        /* From the first segment of the recovery on all are read whole: producer state comes along. */
        if (!o->clean && s->base >= recovery_base && !ret->replayed) {
            /* Not from the snapshot of a roll at the segment's end: it is no mark, this segment is read from before. */
            int64_t trusted = last ? o->recovery_point : MIN(o->recovery_point, f->bases[i + 1] - 1);
            int err = log_load_producers(l, s->base, trusted, o->now_wall_ms);
            if (err < 0)
                return err;
            ret->replayed = true;
        }
        /* Producer state as of this segment, for the transactions that it ends; that of the log end comes later. */
        if (!sound && !ret->replayed) {
            int err = log_load_producers_before(l, s->base);
            if (err < 0)
                return err;
        }
        ret->from = ret->recovered ? ret->from : s->base;
        ret->recovered = true;
        next = MAX(next, s->base);
        int cut = rebuild_segment(l, s, &next, o->recovery_point, ret->replayed || !sound);
        /* Before the recovery point the next start would take them as they are. */
        if (cut >= 0 && s->base < recovery_base) {
            int err = log_sync_indexes(l, s);
            cut = err < 0 ? err : cut;
        }
        if (cut < 0)
            return cut;
        l->end = next;
        /* A segment begins where the one before ends. One that begins later lost its neighbour's tail in a power cut;
         * one that begins earlier came back when a power cut undid its removal, and would hide what was written since.
         */
        if (!cut && !last && next >= o->recovery_point && f->bases[i + 1] != next &&
            (f->bases[i + 1] < next || !may_be_hole(f, o, f->bases[i + 1]))) {
            log_notef(l, LOG_WARN,
                      "%s: segment %" PRId64 " does not follow the one before it, which ends at offset %" PRId64,
                      l->dir, f->bases[i + 1], next);
            cut = 1;
        }
        /* An empty rest that was never written to is no cut: a power cut may leave it. */
        if (cut) {
            for (size_t k = i + 1; k < f->base_count; k++)
                log_add_segment(l, segment_new(l->fs, l->dir, f->bases[k], o->now_wall_ms));
            return drop_segments_from(l, i + 1);
        }
    }
    return 0;
}

static int load_epochs(struct log *l)
{
    int err = epochs_load(&l->epochs, l->fs, l->dir);
    if (err == -ENODATA) /* a Kafka leaves it so where nothing was written yet */
        return 1;
    if (err != -EBADMSG)
        return err;
    log_notef(l, LOG_WARN, "%s: " EPOCHS_FILE " is damaged; building it again from the log", l->dir);
    return 1;
}

/* The log starts behind its end (what was there is lost, or was never copied): it begins anew there. */
static int settle_start(struct log *l, const struct log_options *o, struct loaded *loaded)
{
    l->start = MAX(l->segments[0]->base, o->log_start_offset);
    if (l->start <= l->end)
        return 0;
    log_notef(l, LOG_WARN, "%s: the log start %" PRId64 " is behind the end %" PRId64 ": starting anew there", l->dir,
              l->start, l->end);
    int64_t start = l->start;
    int err = drop_segments_from(l, 0);
    if (err == 0)
        err = log_new_active(l, start, o->now_wall_ms);
    /* The checkpoint of log starts will not say so any more: records that were deleted must not come back. */
    if (err == 0)
        err = file_sync_dir(l->fs, l->dir);
    l->start = l->end = start;
    /* What producers wrote last is not known any more; without any state they may go on with any sequence. */
    producers_clear(l->producers);
    l->snapshot_offset = -1;
    loaded->replayed = true;
    return err;
}

static int load(struct log *l, const struct log_options *o, struct found *f)
{
    struct loaded loaded = {0};
    int rebuild = 0;
    int err = found_settle(f);
    if (err == 0)
        err = rebuild = load_epochs(l);
    if (err >= 0)
        err = load_segments(l, f, o, &loaded);
    if (err == 0 && l->segment_count == 0) {
        l->end = o->log_start_offset;
        err = log_new_active(l, l->end, o->now_wall_ms);
    }
    if (err == 0)
        err = settle_start(l, o, &loaded);
    if (err == 0)
        err = txn_index_truncate(log_active(l), l->end);
    /* A crash between a DeleteRecords and its checkpoint leaves epochs from a later start on. */
    if (err == 0 && !o->clean && epochs_of_offset(&l->epochs, l->start) < 0 && l->start < l->end)
        rebuild = 1;
    if (err == 0 && rebuild)
        err = rebuild_epochs(l);
    l->epochs.dirty = l->epochs.dirty || l->rewrite;
    if (err == 0 && !loaded.replayed)
        err = log_load_producers(l, l->end, o->clean && !loaded.recovered ? l->end : MIN(o->recovery_point, l->end),
                                 o->now_wall_ms);
    if (err < 0)
        return err;
    l->staged_end = l->end;
    l->hold_high_watermark = o->hold_high_watermark;
    l->high_watermark = l->end;
    if (o->hold_high_watermark)
        l->high_watermark = o->high_watermark < l->start ? l->start : MIN(o->high_watermark, l->end);
    l->recovery_point = o->clean && !loaded.recovered ? l->end : MIN(o->recovery_point, l->end);
    /* What a failed flush was to do besides writing bytes, as cutting a file, is to be flushed, too. */
    if (l->rewrite && loaded.recovered)
        l->recovery_point = MIN(l->recovery_point, loaded.from);
    if (loaded.recovered && loaded.from < log_active(l)->base)
        l->sides_from = loaded.from;
    /* The life before may have made files whose names nobody flushed. */
    if (!o->clean)
        l->dir_dirty = true;
    epochs_drop_idle(&l->epochs, l->end);
    epochs_truncate_start(&l->epochs, l->start);
    /* What was remembered beyond Kafka's snapshots, which hold one batch of a producer, must not be lost in the next
     * crash: those that are sent again after two of them would be out of order for ever. */
    if (loaded.recovered && l->end > l->start)
        err = l->marked || producers_remember_more(l->producers) ? log_write_mark(l) : log_write_snapshot(l, l->end);
    if (o->clean && !loaded.recovered) {
        l->mark_base = log_active(l)->base;
        l->mark_bytes = log_active(l)->size_bytes;
    }
    if (err == -ENOSPC)
        err = 0; /* the next start reads again what it would have said */
    /* Epochs that came or went are written with the next append or flush: until then a start finds them as this one
     * did. */
    if (err == 0)
        log_drop_snapshots(l);
    if (!o->clean)
        log_active(l)->reserved_to = UINT64_MAX; /* the life before may have asked for room */
    /* Twice: what was used since the first is closed by the second. */
    for (size_t i = 0; i < 2 * l->segment_count; i++)
        segment_idle(l->segments[i / 2]);
    return err;
}

int log_load(struct log *l, const struct log_options *o)
{
    struct found f;
    found_init(&f, l);
    l->listed = &f.snapshots; /* the folder is read once */
    int err = load(l, o, &f);
    l->listed = NULL;
    found_free(&f);
    return err;
}
