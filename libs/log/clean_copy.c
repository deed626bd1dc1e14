/* clean_copy.c - the worker's side of a cleaning: what stays of a group of segments is written to N.*.cleaned. */
#include "libs/log/clean_internal.h"
#include <inttypes.h>
#include <stdlib.h>

enum { SYNC_EVERY_BYTES = 32 << 20 };

/* ---- groups ---- */

/* An offset that the records of source i do not reach. */
static int64_t end_of(const struct log_clean *c, size_t i)
{
    return i + 1 < c->source_count ? c->sources[i + 1].base : c->end;
}

/* The next segments that fit into one together, by the size of their files as they are now
 * (Cleaner.groupSegmentsBySize). */
void clean_next_group(struct log_clean *c)
{
    if (c->group_to >= c->source_count) {
        c->phase = CLEAN_DONE;
        return;
    }
    size_t from = c->group_to, to = from + 1;
    const struct clean_source *s = &c->sources[from];
    uint64_t size = s->size_bytes, index = s->index_bytes, times = s->time_index_bytes;
    for (; to < c->source_count; to++) {
        s = &c->sources[to];
        size += s->size_bytes;
        index += s->index_bytes;
        times += s->time_index_bytes;
        bool offsets_fit = s->size_bytes == 0 || end_of(c, to) - 1 - c->sources[from].base <= INT32_MAX;
        if (size > c->segment_bytes || index > c->segment_index_bytes || times > c->segment_index_bytes || !offsets_fit)
            break;
    }
    c->group_from = c->at = from;
    c->group_to = to;
    c->phase = CLEAN_COPY;
}

/* ---- writing ---- */

static int open_out(struct log_clean *c)
{
    if (c->out != NULL)
        return 0;
    struct segment *s = segment_new(c->fs, c->dir, c->sources[c->group_from].base, c->options.now_wall_ms);
    segment_set_suffix(s, SEGMENT_CLEANED);
    c->out = s;
    c->filter.txn_index.size = c->pending.size = 0;
    c->unsynced = 0;
    return segment_create(s, 0, false, 0);
}

static int write_pending(struct log_clean *c)
{
    struct segment *s = c->out;
    int fd = segment_fd(s);
    int err = fd < 0 ? fd : file_write(c->fs, fd, c->pending.data, c->pending.size, s->size_bytes - c->pending.size);
    if (err < 0)
        return err;
    c->moved += c->pending.size;
    c->stats.bytes_written += c->pending.size;
    c->unsynced += c->pending.size;
    c->pending.size = 0;
    /* In pieces: the flush of a whole segment would keep the disk busy for seconds. */
    if (c->unsynced >= SYNC_EVERY_BYTES) {
        err = file_fdatasync(c->fs, fd);
        c->unsynced = 0;
    }
    return err;
}

static int copy_batch(struct log_clean *c, const struct batch *b, struct slice bytes)
{
    struct segment *s = c->out;
    struct batch kept;
    size_t before = c->pending.size;
    int err = clean_filter_batch(&c->filter, b, bytes, &c->pending, &kept);
    if (err == -EBADMSG)
        return clean_refuse(c, c->scan.at - b->size, b->base_offset, "its records cannot be read");
    if (err <= 0 && err != -EFBIG)
        return err;
    if (err == -EFBIG || s->size_bytes + (c->pending.size - before) > INT32_MAX)
        return clean_refuse(c, c->scan.at - b->size, b->base_offset, "written anew it would be too big for a segment");
    ASSERT(kept.size == c->pending.size - before);
    if (batch_last_offset(&kept) - s->base > INT32_MAX)
        return clean_refuse(c, c->scan.at - b->size, b->base_offset, "its offset is too far from the segment's first");
    err = segment_note(s, &kept, s->size_bytes, c->interval_bytes);
    s->size_bytes += kept.size;
    return err == 0 && c->pending.size >= c->options.io_bytes ? write_pending(c) : err;
}

/* ---- the end of a group ---- */

static int write_txn_index(struct log_clean *c)
{
    if (c->filter.txn_index.size == 0)
        return 0;
    char *path = segment_path(c->out, "txnindex");
    int fd = file_open(c->fs, path, O_RDWR | O_CREAT | O_TRUNC);
    free(path);
    int err = fd < 0 ? fd : file_write(c->fs, fd, c->filter.txn_index.data, c->filter.txn_index.size, 0);
    if (err == 0)
        err = file_fdatasync(c->fs, fd);
    file_close(c->fs, fd);
    return err;
}

/* Retention of records without timestamps goes by the file's: that of the newest source. */
static int settle(const struct log_clean *c, int fd)
{
    int err = fd < 0 ? fd : file_set_mtime(c->fs, fd, c->in_mtime_ms);
    return err < 0 ? err : file_fdatasync(c->fs, fd);
}

static int finish_group(struct log_clean *c)
{
    struct segment *s = c->out;
    s->born_ms = c->in_mtime_ms;
    int err = write_pending(c);
    if (err == 0)
        err = segment_retire(s);
    if (err == 0)
        err = write_txn_index(c);
    if (err == 0)
        err = settle(c, segment_fd(s));
    if (err == 0)
        err = settle(c, index_fd(&s->offsets));
    if (err == 0)
        err = settle(c, index_fd(&s->times));
    if (err == 0)
        err = file_sync_dir(c->fs, c->dir);
    s->txn_index = SEGMENT_TXN_UNKNOWN; /* looked at anew */
    c->stats.segments_before += c->group_to - c->group_from;
    c->stats.segments_after++;
    c->phase = CLEAN_TO_SWAP;
    return err;
}

int clean_copy_some(struct log_clean *c, uint64_t bytes)
{
    struct batch b;
    struct slice body;
    uint64_t until = c->moved + bytes;
    int err = open_out(c);
    while (err == 0 && c->moved < until && !atomic_load_explicit(&c->stop, memory_order_relaxed)) {
        err = clean_open_source(c, INT64_MIN);
        int more = err < 0 ? err : clean_next_batch(c, &b, &body);
        if (more == 1) {
            c->stats.bytes_read += b.size;
            err = copy_batch(c, &b, body);
        } else if (more == 0) {
            clean_close_source(c);
            c->at++;
            if (c->at == c->group_to)
                return finish_group(c);
        } else {
            err = more;
        }
    }
    return err;
}
