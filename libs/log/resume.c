/* resume.c - where a start after a crash begins to read inside a segment.
 *
 * A producer snapshot in the middle of a segment, at or before the recovery point, is that of a mark or of a clean stop
 * (flush.c): all before it was flushed, index entries that are in the files included, before the recovery point was
 * written. So entries of the records before it are kept, as far as they are such as are written, and the segment is
 * read from the last of them on: a few batches that are known, then all that came later. Whatever does not fit leads to
 * reading all of it.
 *
 *   .index      key and position rise, from above 0 on; the batch at the last position ends at the last key
 *   .timeindex  times rise, and none is of a batch behind the last entry of .index
 *   .txnindex   was looked at before (recover.c): entries of markers before the mark are kept */
#include "libs/log/internal.h"
#include <limits.h>
#include <stdlib.h>

/* The entries of batches before the mark. Keys of .index are what .timeindex has as values. */
static int count_sound(struct segment *s, int64_t mark, uint32_t *ret_offsets, uint32_t *ret_times, int32_t *ret_key,
                       int32_t *ret_position)
{
    int64_t key, time;
    int32_t value;
    int err = index_sound(&s->offsets, MIN(mark - s->base, (int64_t)INT32_MAX),
                          (int32_t)MIN(s->size_bytes, (uint64_t)INT32_MAX), ret_offsets, &key, ret_position);
    if (err < 0 || *ret_offsets == 0)
        return err;
    *ret_key = (int32_t)key;
    return index_sound(&s->times, INT64_MAX, (int32_t)MIN(key + 1, (int64_t)INT32_MAX), ret_times, &time, &value);
}

/* Is no batch from `from` to the one at `position` later than that time? The entry that would say so may have been in
 * the memory of the life before only. Looked for in the first 1,024. 1, 0, -errno. */
static int none_later_before(struct segment *s, uint64_t from, uint64_t position, int64_t time)
{
    struct scan sc;
    struct batch b;
    uint64_t at;
    int left = 1024, err = scan_begin(&sc, s, from, SCAN_HEADERS);
    if (err < 0)
        return err;
    while (left-- > 0 && (err = scan_next(&sc, &b, &at)) == 1 && at <= position && b.max_timestamp <= time) {
        if (at == position)
            left = 0;
    }
    scan_end(&sc);
    if (err == -ENODATA || err == -EBADMSG)
        return 0;
    return err < 0 ? err : err == 1 && (at > position || b.max_timestamp <= time);
}

/* Is the last entry that is kept of .timeindex true of its batch, and of those up to `position`? One that was written
 * behind the last flush may be torn and look like one of before. 1, 0, -errno. */
static int times_hold(struct segment *s, uint64_t position)
{
    int64_t time;
    int32_t value;
    struct batch b;
    uint64_t at;
    int err = index_last(&s->times, &time, &value);
    if (err == -ENOENT)
        return none_later_before(s, 0, position, RECORDS_NO_TIMESTAMP);
    if (err < 0)
        return err;
    err = segment_find(s, s->base + value, &b, &at);
    if (err == -ENODATA || err == -EBADMSG)
        return 0;
    if (err != 1 || batch_last_offset(&b) != s->base + value || b.max_timestamp != time)
        return MIN(err, 0);
    return none_later_before(s, at, position, time);
}

int segment_resume(struct segment *s, int64_t mark, uint64_t *ret_position)
{
    uint32_t offsets = 0, times = 0;
    int32_t key = 0, position = 0;
    struct batch b;
    *ret_position = 0;
    int err = count_sound(s, mark, &offsets, &times, &key, &position);
    if (err < 0 || offsets == 0 || position <= 0)
        return err;
    err = segment_entry_holds(s, key, position, &b);
    if (err <= 0 || (times == 0 && b.max_timestamp >= 0))
        return MIN(err, 0);
    err = index_keep(&s->offsets, offsets);
    if (err == 0)
        err = index_keep(&s->times, times);
    if (err == 0)
        err = times_hold(s, (uint64_t)position);
    if (err <= 0)
        return err;
    s->max_known = s->first_known = false;
    s->since_index_bytes = 0;
    err = segment_load_max(s);
    *ret_position = (uint64_t)position;
    return err;
}
