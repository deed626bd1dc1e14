/* aborted.c - N.txnindex: the transactions whose abort marker is in segment N, 34 bytes each:
 *   int16 version 0, int64 producerId, int64 firstOffset, int64 lastOffset (the marker), int64 lastStableOffset at that
 * time Written by Kafka; this release takes no transactions, but readers of what Kafka wrote must not see aborted
 * records. */
#include "libs/base/bytes.h"
#include "libs/log/internal.h"
#include <stdlib.h>

enum { TXN_ENTRY = 34, TXN_INDEX_MAX_BYTES = 64 * 1024 * 1024 };

/* Reports one segment's entries; true: everything from upper on is behind the last stable offset of the last one, no
 * later file matters. */
static bool report(struct log *l, struct segment *s, int64_t offset, int64_t upper, log_aborted_fn *fn, void *ctx)
{
    if (s->txn_index == SEGMENT_TXN_NONE)
        return false;
    char *path = xasprintf("%.*s.txnindex", (int)(strlen(s->path) - strlen(".log")), s->path), *data;
    size_t size;
    int err = file_slurp(l->fs, path, TXN_INDEX_MAX_BYTES, &data, &size);
    free(path);
    if (err == -ENOENT)
        s->txn_index = SEGMENT_TXN_NONE;
    if (err < 0)
        return false;
    s->txn_index = SEGMENT_TXN_SOME;
    bool done = false;
    for (size_t at = 0; at + TXN_ENTRY <= size && !done; at += TXN_ENTRY) {
        const uint8_t *e = (const uint8_t *)data + at;
        int64_t first = get_i64(e + 10), last = get_i64(e + 18);
        if (get_i16(e) != 0)
            break;
        if (last >= offset && first < upper)
            fn(ctx, get_i64(e + 2), first);
        done = get_i64(e + 26) >= upper;
    }
    free(data);
    return done;
}

void log_aborted(struct log *l, int64_t offset, const struct log_range *range, log_aborted_fn *fn, void *ctx)
{
    size_t i = log_segment_at(l, range->segment);
    int64_t upper = i + 1 < l->segment_count ? l->segments[i + 1]->base : l->end;
    bool done = false;
    for (; i < l->segment_count && !done; i++)
        done = report(l, l->segments[i], offset, upper, fn, ctx);
}
