/* times.c - looking records up by their timestamps: the time index finds a place to start, records are read from there.
 */
#include "libs/log/internal.h"
#include <stdlib.h>

enum { TIMES_BODY_LIMIT = 1 << 30 };

/* In one batch, the first record that matches: at or after time_ms (exact: with just that timestamp), at or behind
 * from_offset. 1, 0, or -errno. A batch whose records cannot be read has no match. */
static int find_in_batch(struct scan *sc, const struct batch *b, uint64_t position, int64_t time_ms, bool exact,
                         int64_t from_offset, struct log_offset *ret)
{
    struct slice bytes;
    struct buf scratch = {0};
    struct record_iter it;
    struct record r;
    if (b->magic != RECORDS_MAGIC)
        return 0;
    int err = scan_body(sc, b, position, &bytes);
    if (err < 0)
        return err;
    int found = 0;
    if (record_iter_init(&it, b, bytes, &scratch, TIMES_BODY_LIMIT) == 0) {
        while (!found && record_iter_next(&it, &r) == 1)
            found = r.offset >= from_offset && (exact ? r.timestamp == time_ms : r.timestamp >= time_ms);
    }
    buf_free(&scratch);
    if (found)
        *ret = (struct log_offset){r.offset, r.timestamp, b->leader_epoch};
    return found;
}

/* Where to begin: before an entry of the time index no record of the segment is later than it. 1 with the position; 0:
 * nothing of the segment is left; -errno. An entry is believed when the batch that it names has that time, and the
 * segment's first batch no later one. */
static int find_start(struct log *l, struct segment *s, int64_t time_ms, uint64_t *ret_position)
{
    int64_t key;
    int32_t value;
    struct batch b;
    int err = index_floor(&s->times, time_ms, &key, &value);
    int64_t from = err == 1 ? s->base + value : s->base;
    if (err == 1 && from >= l->start) {
        err = segment_load_first(s);
        if (err == 0)
            err = segment_find(s, from, &b, ret_position);
        if (err < 0 || (err == 1 && b.max_timestamp == key && b.base_offset <= from && s->first_timestamp <= key))
            return err;
        s->misled = true;
        err = index_distrust(&s->times);
        from = s->base;
    }
    return err < 0 ? err : segment_find(s, MAX(from, l->start), &b, ret_position);
}

static int find_in_segment(struct log *l, struct segment *s, int64_t time_ms, bool exact, struct log_offset *ret)
{
    uint64_t at;
    int err = find_start(l, s, exact ? time_ms - 1 : time_ms, &at);
    if (err <= 0)
        return log_tell_damage(l, s, err);
    struct scan sc;
    struct batch b;
    err = log_tell_damage(l, s, scan_begin(&sc, s, at, SCAN_HEADERS));
    if (err < 0)
        return err;
    while ((err = scan_next(&sc, &b, &at)) == 1) {
        bool candidate = exact ? b.max_timestamp == time_ms : b.max_timestamp >= time_ms;
        if (!candidate || batch_last_offset(&b) < l->start)
            continue;
        int found = find_in_batch(&sc, &b, at, time_ms, exact, l->start, ret);
        if (found != 0) {
            err = found;
            break;
        }
    }
    scan_end(&sc);
    return log_tell_damage(l, s, err);
}

static int by_time(struct log *l, int64_t time_ms, struct log_offset *ret)
{
    int err = 0;
    for (size_t i = 0; err == 0 && i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        err = log_tell_damage(l, s, segment_prove_max(s));
        if (err == 0 && s->size_bytes > 0 && s->max_timestamp >= time_ms)
            err = find_in_segment(l, s, time_ms, false, ret);
    }
    return err;
}

static int of_max_time(struct log *l, int64_t time_ms UNUSED, struct log_offset *ret)
{
    struct segment *best = NULL;
    for (size_t i = 0; i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        int err = log_tell_damage(l, s, segment_prove_max(s));
        if (err < 0)
            return err;
        if (s->size_bytes > 0 && s->max_timestamp >= 0 && (best == NULL || s->max_timestamp > best->max_timestamp))
            best = s;
    }
    return best != NULL ? find_in_segment(l, best, best->max_timestamp, true, ret) : 0;
}

typedef int look_up_fn(struct log *l, int64_t time_ms, struct log_offset *ret);

static enum kafka_error look_up(struct log *l, look_up_fn *fn, int64_t time_ms, struct log_offset *ret, bool *ret_cold)
{
    struct log_offset found = {-1, -1, -1};
    if (ret_cold != NULL)
        *ret_cold = false;
    if (l->failed != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    l->mode.now = ret_cold != NULL;
    int err = fn(l, time_ms, &found);
    l->mode.now = false;
    if (err == -EAGAIN && ret_cold != NULL) {
        *ret_cold = true;
        return KERR_NONE;
    }
    if (err < 0)
        return log_read_error(l, err);
    *ret = found;
    return KERR_NONE;
}

enum kafka_error log_offset_by_time(struct log *l, int64_t time_ms, struct log_offset *ret_offset, bool *ret_cold)
{
    return look_up(l, by_time, time_ms, ret_offset, ret_cold);
}

enum kafka_error log_offset_of_max_time(struct log *l, struct log_offset *ret_offset, bool *ret_cold)
{
    return look_up(l, of_max_time, 0, ret_offset, ret_cold);
}
