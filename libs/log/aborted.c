/* aborted.c - N.txnindex: the transactions whose abort marker is in segment N, 34 bytes each:
 *   int16 version 0, int64 producerId, int64 firstOffset, int64 lastOffset (the marker), int64 lastStableOffset at that
 * time
 *
 * Entries are in the order of their markers, so the first that matters to a reader is found by halves, and the rest are
 * read in blocks. An entry is written before its marker: a log whose marker is there has its entry, and one whose
 * marker could not be written has it cut off again. Unlike the other indexes it is not done without when it is wrong: a
 * reader of committed records would get aborted ones. So it is checked whole at each start, and built again by reading
 * the segment. */
#include "libs/base/bytes.h"
#include "libs/log/internal.h"
#include <stdlib.h>

enum { TXN_ENTRY = 34, TXN_BLOCK = 64, TXN_WHOLE = 30000 };

struct txn_entry {
    int64_t producer_id, first, last, last_stable;
};

static int parse(const uint8_t *e, struct txn_entry *ret)
{
    *ret = (struct txn_entry){get_i64(e + 2), get_i64(e + 10), get_i64(e + 18), get_i64(e + 26)};
    return get_i16(e) == 0 ? 0 : -EBADMSG;
}

/* ---- the file ---- */

static int txn_fd(struct segment *s, int flags)
{
    s->used = true;
    if (s->txn_file.fd >= 0)
        return descriptor_open(&s->txn_file, s->fs, "", flags);
    char *path = segment_path(s, "txnindex");
    int fd = descriptor_open(&s->txn_file, s->fs, path, flags);
    free(path);
    return fd;
}

/* Whether there is a file, and how many entries it has. 0; 1: its size cannot be right; -errno. */
static int look(struct segment *s)
{
    if (s->txn_index != SEGMENT_TXN_UNKNOWN)
        return 0;
    struct file_stat st;
    char *path = segment_path(s, "txnindex");
    int err = file_stat(s->fs, path, &st);
    free(path);
    if (err < 0 && err != -ENOENT)
        return err;
    s->txn_count = err == 0 ? (uint32_t)(st.size_bytes / TXN_ENTRY) : 0;
    s->txn_index = err == 0 ? SEGMENT_TXN_SOME : SEGMENT_TXN_NONE;
    return err == 0 && st.size_bytes % TXN_ENTRY != 0;
}

static int read_entries(struct segment *s, uint32_t from, uint32_t count, uint8_t *to)
{
    int fd = txn_fd(s, O_RDWR);
    int err = fd < 0 ? fd : read_with(s->fs, s->mode, fd, to, (size_t)count * TXN_ENTRY, (uint64_t)from * TXN_ENTRY);
    if (err == -EAGAIN && s->txn_count <= TXN_WHOLE) { /* at once, instead of step by step of the search */
        s->mode->at = 0;
        s->mode->size_bytes = (size_t)s->txn_count * TXN_ENTRY;
    }
    return err;
}

static int get(struct segment *s, uint32_t i, struct txn_entry *ret)
{
    uint8_t bytes[TXN_ENTRY];
    int err = read_entries(s, i, 1, bytes);
    return err < 0 ? err : parse(bytes, ret);
}

/* The first entry whose marker is at or behind offset. */
static int find(struct segment *s, int64_t offset, uint32_t *ret_i)
{
    uint32_t low = 0, high = s->txn_count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        struct txn_entry e;
        int err = get(s, mid, &e);
        if (err < 0)
            return err;
        if (e.last >= offset)
            high = mid;
        else
            low = mid + 1;
    }
    *ret_i = low;
    return 0;
}

static int cut(struct segment *s, uint32_t count)
{
    int fd = txn_fd(s, O_RDWR);
    int err = fd < 0 ? fd : file_ftruncate(s->fs, fd, (uint64_t)count * TXN_ENTRY);
    if (err == 0)
        s->txn_count = count;
    s->txn_dirty = true;
    return err;
}

int txn_index_append(struct segment *s, struct slice entries)
{
    int err = look(s);
    int fd = err < 0 ? err : txn_fd(s, O_RDWR | O_CREAT);
    if (fd < 0)
        return fd;
    uint32_t before = s->txn_count;
    s->txn_index = SEGMENT_TXN_SOME;
    s->txn_dirty = true;
    err = file_write(s->fs, fd, entries.data, entries.size, (uint64_t)before * TXN_ENTRY);
    if (err == 0)
        s->txn_count += (uint32_t)(entries.size / TXN_ENTRY);
    else if (cut(s, before) < 0)
        err = -EIO; /* half an entry stays: not a full disk any more */
    return err;
}

int txn_index_take_back(struct segment *s, size_t entries)
{
    return cut(s, s->txn_count - (uint32_t)entries);
}

int txn_index_truncate(struct segment *s, int64_t offset)
{
    uint32_t keep = 0;
    int err = look(s);
    if (err < 0 || s->txn_index == SEGMENT_TXN_NONE)
        return err;
    err = find(s, offset, &keep);
    return err < 0 ? err : cut(s, keep);
}

int txn_index_reset(struct segment *s)
{
    int err = look(s);
    return err < 0 || s->txn_index == SEGMENT_TXN_NONE ? MIN(err, 0) : cut(s, 0);
}

int txn_index_sound(struct segment *s, int64_t end)
{
    uint8_t block[TXN_BLOCK * TXN_ENTRY];
    int64_t last = s->base - 1;
    int err = look(s);
    if (err == 1)
        s->txn_index = SEGMENT_TXN_UNKNOWN; /* who asks again is to get the same answer */
    if (err != 0)
        return MIN(err, 0);
    for (uint32_t i = 0; i < s->txn_count; i += TXN_BLOCK) {
        uint32_t n = MIN(s->txn_count - i, (uint32_t)TXN_BLOCK);
        err = read_entries(s, i, n, block);
        if (err < 0)
            return err;
        for (uint32_t k = 0; k < n; k++) {
            struct txn_entry e;
            if (parse(block + (size_t)k * TXN_ENTRY, &e) < 0 || e.producer_id < 0 || e.first < 0 || e.first > e.last ||
                e.last <= last || e.last >= end || e.last_stable > e.last + 1)
                return 0;
            last = e.last;
        }
    }
    return 1;
}

/* ---- what an append adds ---- */

void txn_index_stage(struct buf *to, int64_t producer_id, int64_t first, int64_t last, int64_t last_stable)
{
    uint8_t *e = buf_grow(to, TXN_ENTRY);
    put_i16(e, 0);
    put_i64(e + 2, producer_id);
    put_i64(e + 10, first);
    put_i64(e + 18, last);
    put_i64(e + 26, last_stable);
}

size_t txn_index_staged(const struct buf *entries)
{
    return entries->size / TXN_ENTRY;
}

/* ---- for readers ---- */

/* An offset that no record of the range reaches: of the first index entry behind it, or where the segment ends. An
 * entry that is not true might let readers have what was aborted. */
static int upper_of(struct log *l, const struct log_range *range, int64_t *ret_upper)
{
    size_t i = log_segment_at(l, range->segment);
    struct segment *s = l->segments[i];
    uint64_t end = range->position + range->size_bytes;
    struct batch b;
    int64_t key;
    int32_t position;
    *ret_upper = i + 1 < l->segment_count ? l->segments[i + 1]->base : l->end;
    int found = end <= INT32_MAX ? index_ceiling(&s->offsets, (int32_t)end, &key, &position) : 0;
    if (found <= 0)
        return found;
    found = (uint64_t)position >= end ? segment_entry_holds(s, key, position, &b) : 0;
    if (found == 1)
        *ret_upper = s->base + key;
    if (found != 0)
        return MIN(found, 0);
    s->misled = true;
    return log_tell_damage(l, s, index_distrust(&s->offsets));
}

struct wanted {
    int64_t offset, upper;
    log_aborted_fn *fn;
    void *ctx;
};

/* Reports one segment's entries. 1: everything from upper on is behind the last stable offset of the last one, no later
 * file matters; 0; -errno. */
static int report(struct segment *s, const struct wanted *w)
{
    uint8_t block[TXN_BLOCK * TXN_ENTRY];
    uint32_t i;
    int err = find(s, w->offset, &i);
    for (uint32_t n; err == 0 && i < s->txn_count; i += n) {
        n = MIN(s->txn_count - i, (uint32_t)TXN_BLOCK);
        err = read_entries(s, i, n, block);
        for (uint32_t k = 0; err == 0 && k < n; k++) {
            struct txn_entry e;
            err = parse(block + (size_t)k * TXN_ENTRY, &e);
            if (err == 0 && e.last >= w->offset && e.first < w->upper)
                w->fn(w->ctx, e.producer_id, e.first);
            if (err == 0 && e.last_stable >= w->upper)
                return 1;
        }
    }
    return err;
}

static int report_all(struct log *l, const struct log_range *range, struct wanted *w)
{
    int err = 0;
    bool known = false;
    for (size_t i = log_segment_at(l, range->segment); i < l->segment_count && err == 0; i++) {
        struct segment *s = l->segments[i];
        err = look(s);
        if (err != 0 || s->txn_count == 0)
            continue;
        if (!known)
            err = upper_of(l, range, &w->upper);
        known = true;
        if (err == 0)
            err = report(s, w);
    }
    return err;
}

enum kafka_error log_aborted(struct log *l, int64_t offset, const struct log_range *range, log_aborted_fn *fn,
                             void *ctx, bool *ret_cold)
{
    struct wanted w = {.offset = offset, .fn = fn, .ctx = ctx};
    l->mode.now = ret_cold != NULL;
    int err = report_all(l, range, &w);
    l->mode.now = false;
    if (ret_cold != NULL)
        *ret_cold = err == -EAGAIN;
    if (err >= 0 || (err == -EAGAIN && ret_cold != NULL))
        return KERR_NONE;
    log_notef(l, LOG_ERROR, "%s: the index of aborted transactions cannot be read: %s", l->dir, strerror(-err));
    return KERR_UNKNOWN_SERVER_ERROR;
}
