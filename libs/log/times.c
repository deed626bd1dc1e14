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

static int find_in_segment(struct log *l, struct segment *s, int64_t time_ms, bool exact, struct log_offset *ret)
{
    int64_t key, from = s->base;
    int32_t value, position = 0;
    /* Before an entry of the time index no record of the segment is later than it. */
    int err = index_floor(&s->times, exact ? time_ms - 1 : time_ms, &key, &value);
    if (err < 0)
        return err;
    if (err == 1)
        from = s->base + value;
    from = MAX(from, l->start);
    err = index_floor(&s->offsets, from - s->base, &key, &position);
    if (err < 0)
        return err;
    if (err == 0)
        position = 0;

    struct scan sc;
    struct batch b;
    uint64_t at;
    err = scan_begin(&sc, s, (uint64_t)(uint32_t)position, SCAN_HEADERS);
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
    return err;
}

enum kafka_error log_offset_by_time(struct log *l, int64_t time_ms, struct log_offset *ret_offset)
{
    struct log_offset none = {-1, -1, -1};
    if (l->failed != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    int err = 0;
    for (size_t i = 0; err == 0 && i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        err = segment_load_max(s);
        if (err == 0 && s->size_bytes > 0 && s->max_timestamp >= time_ms)
            err = find_in_segment(l, s, time_ms, false, &none);
    }
    if (err < 0) {
        log_fail(l, err, "reading");
        return KERR_KAFKA_STORAGE_ERROR;
    }
    *ret_offset = none;
    return KERR_NONE;
}

enum kafka_error log_offset_of_max_time(struct log *l, struct log_offset *ret_offset)
{
    struct log_offset none = {-1, -1, -1};
    struct segment *best = NULL;
    if (l->failed != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    int err = 0;
    for (size_t i = 0; err == 0 && i < l->segment_count; i++) {
        struct segment *s = l->segments[i];
        err = segment_load_max(s);
        if (s->size_bytes > 0 && s->max_timestamp >= 0 && (best == NULL || s->max_timestamp > best->max_timestamp))
            best = s;
    }
    if (err == 0 && best != NULL)
        err = find_in_segment(l, best, best->max_timestamp, true, &none);
    if (err < 0) {
        log_fail(l, err, "reading");
        return KERR_KAFKA_STORAGE_ERROR;
    }
    *ret_offset = none;
    return KERR_NONE;
}
