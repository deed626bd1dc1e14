/* aborted.c - N.txnindex: the transactions whose abort marker is in segment N, 34 bytes each:
 *   int16 version 0, int64 producerId, int64 firstOffset, int64 lastOffset (the marker), int64 lastStableOffset at that
 * time Written by Kafka; this release takes no transactions, but readers of what Kafka wrote must not see aborted
 * records. */
#include "libs/base/bytes.h"
#include "libs/log/internal.h"
#include <stdlib.h>

enum { TXN_ENTRY = 34, TXN_INDEX_MAX_BYTES = 64 * 1024 * 1024 };

/* An offset that no record of the range reaches: of the first index entry behind it, or where the segment ends. */
static int64_t upper_of(struct log *l, const struct log_range *range)
{
    size_t i = log_segment_at(l, range->segment);
    struct segment *s = l->segments[i];
    uint64_t end = range->position + range->size_bytes;
    int64_t key;
    if (end <= INT32_MAX && index_ceiling(&s->offsets, (int32_t)end, &key) == 1)
        return s->base + key;
    return i + 1 < l->segment_count ? l->segments[i + 1]->base : l->end;
}

/* The bytes of a segment's file; false: there is none. Most logs never have one. */
static bool load(struct log *l, struct segment *s, char **ret_data, size_t *ret_size)
{
    if (s->txn_index == SEGMENT_TXN_NONE)
        return false;
    char *path = segment_path(s, "txnindex");
    int err = file_slurp(l->fs, path, TXN_INDEX_MAX_BYTES, ret_data, ret_size);
    free(path);
    if (err == -ENOENT)
        s->txn_index = SEGMENT_TXN_NONE;
    if (err == 0)
        s->txn_index = SEGMENT_TXN_SOME;
    return err == 0;
}

/* Reports one segment's entries; true: everything from upper on is behind the last stable offset of the last one, no
 * later file matters. */
static bool report(struct slice data, int64_t offset, int64_t upper, log_aborted_fn *fn, void *ctx)
{
    bool done = false;
    for (size_t at = 0; at + TXN_ENTRY <= data.size && !done; at += TXN_ENTRY) {
        const uint8_t *e = data.data + at;
        int64_t first = get_i64(e + 10), last = get_i64(e + 18);
        if (get_i16(e) != 0)
            break;
        if (last >= offset && first < upper)
            fn(ctx, get_i64(e + 2), first);
        done = get_i64(e + 26) >= upper;
    }
    return done;
}

void log_aborted(struct log *l, int64_t offset, const struct log_range *range, log_aborted_fn *fn, void *ctx)
{
    int64_t upper = -1; /* not looked for yet */
    bool done = false;
    for (size_t i = log_segment_at(l, range->segment); i < l->segment_count && !done; i++) {
        char *data;
        size_t size;
        if (!load(l, l->segments[i], &data, &size))
            continue;
        if (upper < 0)
            upper = upper_of(l, range);
        done = report(slice_make(data, size), offset, upper, fn, ctx);
        free(data);
    }
}
