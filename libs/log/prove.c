/* prove.c - looking into a segment by its indexes, which are believed after the records bear them out: a file that was
 * stopped cleanly is taken as it is, and damage to an index must not decide what is read, or removed.
 *
 *   .index: a batch begins at the position, and one ends at the key: that batch, or one behind it (Kafka before 4 wrote
 *   one entry for several batches). Bytes inside a batch may look like one: another has to follow it, or its CRC holds.
 *
 *   .timeindex: the batch has that time; no batch before the first of all is later (times.c); and none behind the last
 *   entry is: entries may be missing. */
#include "libs/log/internal.h"

enum {
    PROVE_BYTES = 16 << 20, /* a batch whose CRC is asked for; longer ones are not believed by it */
    PROVE_BATCHES = 1024,   /* behind the last time; of those behind them only the last few are looked at */
};

/* 1, 0, -errno. */
static int crc_holds(struct scan *sc, const struct batch *b, uint64_t position)
{
    struct slice bytes;
    int err = b->size <= PROVE_BYTES ? scan_body(sc, b, position, &bytes) : 0;
    return err < 0 || b->size > PROVE_BYTES ? err : scan_crc_holds(b, bytes);
}

/* Of the scan's next batch: does it, or one behind it, end at that offset, and is it one? 1, 0, -errno. */
static int entry_holds(struct scan *sc, int64_t last, struct batch *ret_batch)
{
    struct batch b, next;
    uint64_t at, position;
    int err = scan_next(sc, &b, &at);
    if (err != 1)
        return err;
    *ret_batch = next = b;
    while (err == 1 && batch_last_offset(&next) < last) {
        int64_t before = batch_last_offset(&next);
        err = scan_next(sc, &next, &position);
        if (err == 1 && next.base_offset <= before)
            return 0;
    }
    if (err != 1 || batch_last_offset(&next) != last)
        return MIN(err, 0);
    if (b.base_offset != next.base_offset)
        return 1;
    err = scan_next(sc, &next, &position);
    if (b.magic == RECORDS_MAGIC && (err == 0 || (err == 1 && next.magic == RECORDS_MAGIC && next.base_offset > last)))
        return 1;
    return err >= 0 || err == -EBADMSG || err == -ENODATA ? crc_holds(sc, &b, at) : err;
}

int segment_entry_holds(struct segment *s, int64_t key, int32_t position, struct batch *ret_batch)
{
    struct scan sc;
    if (position <= 0 || (uint64_t)position >= s->size_bytes || key < 0) /* no entry is of the first batch */
        return 0;
    int err = scan_begin(&sc, s, (uint64_t)position, SCAN_HEADERS);
    if (err < 0)
        return err;
    err = entry_holds(&sc, s->base + key, ret_batch);
    scan_end(&sc);
    return err == -EBADMSG || err == -ENODATA ? 0 : err;
}

/* Goes through the batches from a position on. */
static int find_from(struct segment *s, int64_t offset, uint64_t from, struct batch *ret_batch, uint64_t *ret_position)
{
    struct scan sc;
    int err = scan_begin(&sc, s, from, SCAN_HEADERS);
    if (err < 0)
        return err;
    while ((err = scan_next(&sc, ret_batch, ret_position)) == 1) {
        if (batch_last_offset(ret_batch) >= offset)
            break;
    }
    scan_end(&sc);
    return err;
}

int segment_find(struct segment *s, int64_t offset, struct batch *ret_batch, uint64_t *ret_position)
{
    int64_t key;
    int32_t from;
    struct batch first;
    int err = index_floor(&s->offsets, offset - s->base, &key, &from);
    if (err == 1 && (from <= 0 || from != s->proved.position || key != s->proved.key)) {
        err = segment_entry_holds(s, key, from, &first);
        if (err == 1) {
            s->proved.key = key;
            s->proved.position = from;
        } else if (err == 0) {
            s->misled = true;
            err = index_distrust(&s->offsets);
        }
    }
    return err < 0 ? err : find_from(s, offset, err == 1 ? (uint64_t)from : 0, ret_batch, ret_position);
}

/* The time index is gone: the headers of all batches say it, too. */
static int scan_max(struct segment *s)
{
    struct scan sc;
    struct batch b;
    uint64_t at;
    int64_t max = RECORDS_NO_TIMESTAMP, offset = s->base;
    int err = scan_begin(&sc, s, 0, SCAN_HEADERS);
    if (err < 0)
        return err;
    while ((err = scan_next(&sc, &b, &at)) == 1) {
        if (b.max_timestamp > max) {
            max = b.max_timestamp;
            offset = batch_last_offset(&b);
        }
    }
    scan_end(&sc);
    if (err < 0)
        return err;
    s->max_timestamp = max;
    s->max_offset = offset;
    s->max_known = true;
    return 0;
}

/* Is a batch from that position on later than the largest time that is known? 1, with *ret_all: none of all of them, or
 * up to damage, which is its readers' matter; 0; -errno. */
static int none_is_later(struct segment *s, uint64_t from, bool *ret_all)
{
    struct scan sc;
    struct batch b;
    uint64_t at;
    int left = PROVE_BATCHES, err = scan_begin(&sc, s, from, SCAN_HEADERS);
    if (err < 0)
        return err;
    while (left > 0 && (err = scan_next(&sc, &b, &at)) == 1 && b.max_timestamp <= s->max_timestamp)
        left--;
    scan_end(&sc);
    *ret_all = left > 0;
    return left == 0 || err == -EBADMSG || err == -ENODATA ? 1 : err < 0 ? err : err == 0;
}

/* 1, 0, -errno. */
static int max_holds(struct segment *s)
{
    struct batch b;
    uint64_t position;
    int64_t key;
    int32_t last;
    bool all;
    int err = segment_find(s, s->max_offset, &b, &position);
    if (err <= 0)
        return err;
    if (b.max_timestamp != s->max_timestamp || batch_last_offset(&b) < s->max_offset || b.base_offset > s->max_offset)
        return 0;
    err = none_is_later(s, position, &all);
    if (err != 1 || all || index_count(&s->offsets) == 0)
        return err;
    err = index_last(&s->offsets, &key, &last);
    if (err == 0)
        err = segment_entry_holds(s, key, last, &b);
    return err == 1 ? none_is_later(s, (uint64_t)last, &all) : err < 0 ? err : 1;
}

int segment_prove_max(struct segment *s)
{
    int err = segment_load_max(s);
    if (err < 0 || s->max_proved || s->size_bytes == 0)
        return err;
    err = max_holds(s);
    if (err == 0) {
        if (index_count(&s->times) > 0)
            s->misled = true;
        err = index_distrust(&s->times);
        if (err == 0)
            err = scan_max(s);
    }
    s->max_proved = err >= 0;
    return MIN(err, 0);
}
