/* clean_help.c - see clean_help.h. */
#include "clean_help.h"
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

void clean_model_free(struct clean_model *m)
{
    free(m->records);
    *m = (struct clean_model){0};
}

struct log_options clean_options(const char *name)
{
    struct log_options o = help_options(help_dir(name));
    o.config.cleanup_compact = true;
    o.config.cleanup_delete = false;
    o.config.segment_bytes = 2000;
    o.config.index_interval_bytes = 300;
    o.config.min_cleanable_dirty_ratio = 0;
    return o;
}

static void note(struct clean_model *m, struct clean_record r)
{
    if (m->count == m->capacity) {
        m->capacity = m->capacity ? 2 * m->capacity : 64;
        m->records = xrealloc(m->records, m->capacity * sizeof *m->records);
    }
    m->records[m->count++] = r;
}

static int64_t stage(struct log *l, struct buf *b, enum log_origin origin)
{
    struct log_append a = {
        .bytes = b->data, .size = b->size, .origin = origin, .leader_epoch = 0, .now_wall_ms = HELP_NOW_MS};
    enum kafka_error error = log_stage(l, &a);
    cr_assert_eq(error, KERR_NONE, "%d %s", error, a.message ? a.message : "");
    cr_assert_eq(log_commit(l), 0);
    buf_free(b);
    return a.base_offset;
}

int64_t clean_append(struct log *l, struct clean_model *m, const struct clean_batch *spec)
{
    struct buf out = {0};
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.producer_id = spec->producer_id;
    o.producer_epoch = spec->producer_epoch;
    o.base_sequence = spec->sequence;
    o.codec = spec->codec;
    o.attributes = spec->transactional ? BATCH_ATTR_TRANSACTIONAL : 0;
    batch_begin(&b, &out, &o);
    size_t first = m->count;
    for (int i = 0; i < spec->count; i++) {
        char key[32], value[160];
        int64_t at = (spec->timestamp ? spec->timestamp : HELP_NOW_MS) + (i * 7) % 5;
        int v = spec->tombstones ? -1 : m->next_value++;
        int k = snprintf(key, sizeof key, "key-%d", spec->keys[i]);
        int n = snprintf(value, sizeof value, "value-%d-%*d", v, 20 + spec->keys[i] % 60, v);
        struct record_header h = {SLICE_OF("h"), SLICE_OF("1")};
        batch_add(&b, at, slice_make(key, (size_t)k), v < 0 ? SLICE_NULL : slice_make(value, (size_t)n), &h, i % 2);
        note(m, (struct clean_record){.timestamp = at, .key = spec->keys[i], .value = v, .aborted = spec->aborted});
    }
    cr_assert_eq(batch_end(&b), 0);
    int64_t offset = stage(l, &out, spec->transactional ? LOG_FROM_COORDINATOR : LOG_FROM_CLIENT);
    for (size_t i = first; i < m->count; i++)
        m->records[i].offset = offset + (int64_t)(i - first);
    return offset;
}

int64_t clean_append_marker(struct log *l, int64_t producer_id, int16_t epoch, bool commit, int64_t timestamp)
{
    struct buf out = {0};
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.producer_id = producer_id;
    o.producer_epoch = epoch;
    o.attributes = BATCH_ATTR_TRANSACTIONAL | BATCH_ATTR_CONTROL;
    batch_begin(&b, &out, &o);
    batch_add_control(&b, timestamp, commit ? CONTROL_COMMIT : CONTROL_ABORT, SLICE_OF("\0\0\0\0\0\0"));
    cr_assert_eq(batch_end(&b), 0);
    return stage(l, &out, LOG_FROM_COORDINATOR);
}

int clean_run(struct log *l, int64_t checkpoint, int64_t now_ms, uint64_t map_bytes, int64_t *ret_end)
{
    struct log_dirt d;
    struct log_clean_options o = {
        .map_bytes = map_bytes, .map_load = 0.9, .io_bytes = 700, .seed = {1, 2, 3}, .now_wall_ms = now_ms};
    int err = log_clean_look(l, checkpoint, log_recovery_point(l), now_ms, &d);
    if (err < 0)
        return err;
    struct log_clean *c = log_clean_begin(l, &d, &o);
    if (c == NULL)
        return -EAGAIN;
    do {
        log_clean_step(c, 500);
    } while ((err = log_clean_turn(c, now_ms)) == 1);
    if (ret_end != NULL && err == 0)
        *ret_end = log_clean_end_offset(c);
    if (getenv("HELP_NOTES"))
        fprintf(stderr, "cleaned: %d %s\n", err, log_clean_why(c));
    log_clean_end(c);
    return err;
}

void clean_must(struct log *l, int64_t *checkpoint, int64_t now_ms)
{
    cr_assert_eq(log_flush(l), 0);
    cr_assert_eq(clean_run(l, *checkpoint, now_ms, 1 << 20, checkpoint), 0);
}

/* ---- reading ---- */

struct bytes_of {
    uint8_t data[1 << 16];
    size_t size;
};

static bool fetch(struct log *l, int64_t offset, struct bytes_of *ret)
{
    struct log_range r;
    cr_assert_eq(log_locate(l, offset, log_end(l), 3000, true, &r), KERR_NONE, "offset %" PRId64, offset);
    cr_assert_leq(r.size_bytes, sizeof ret->data);
    cr_assert_eq(log_copy(l, &r, ret->data), 0);
    ret->size = r.size_bytes;
    return r.size_bytes > 0;
}

static bool must_stay(const struct clean_model *m, const struct clean_record *r, int64_t end, bool tombstones_stay)
{
    if (r->offset >= end)
        return true;
    if (r->aborted || (r->value < 0 && !tombstones_stay))
        return false;
    for (const struct clean_record *later = r + 1; later < m->records + m->count && later->offset < end; later++) {
        if (later->key == r->key && !later->aborted)
            return false;
    }
    return true;
}

static struct clean_record *find_record(struct clean_model *m, int64_t offset)
{
    for (size_t i = 0; i < m->count; i++) {
        if (m->records[i].offset == offset)
            return &m->records[i];
    }
    return NULL;
}

static void see_record(struct clean_model *m, const struct record *r, int64_t end, bool tombstones_stay)
{
    struct clean_record *was = find_record(m, r->offset);
    char key[32], value[32];
    cr_assert_not_null(was, "a record at offset %" PRId64 " that was never written", r->offset);
    cr_assert(was->gone, "offset %" PRId64 " twice", r->offset);
    was->gone = false;
    snprintf(key, sizeof key, "key-%d", was->key);
    snprintf(value, sizeof value, "value-%d-", was->value);
    cr_assert(slice_eq_str(r->key, key), "the key at offset %" PRId64, r->offset);
    cr_assert_eq(was->value < 0, slice_is_null(r->value));
    if (was->value >= 0)
        cr_assert(r->value.size > strlen(value) && memcmp(r->value.data, value, strlen(value)) == 0);
    cr_assert_eq(r->timestamp, was->timestamp, "the time at offset %" PRId64, r->offset);
    cr_assert(end < 0 || must_stay(m, was, end, tombstones_stay), "offset %" PRId64 " should be gone", r->offset);
}

static int64_t see_batches(struct clean_model *m, const struct bytes_of *bytes, int64_t at, int64_t end,
                           bool tombstones_stay)
{
    struct slice rest = slice_make(bytes->data, bytes->size), whole;
    struct batch b;
    struct buf scratch = {0};
    while (batch_next(&rest, &b, &whole) == 1) {
        struct record_iter it;
        struct record r;
        cr_assert_geq(b.base_offset + b.last_offset_delta, at, "a batch before what was asked for");
        cr_assert(batch_crc_holds(&b, whole), "CRC at offset %" PRId64, b.base_offset);
        cr_assert_eq(record_iter_init(&it, &b, whole, &scratch, 1 << 20), 0);
        int more, n = 0;
        while ((more = record_iter_next(&it, &r)) == 1) {
            if (!batch_is_control(&b))
                see_record(m, &r, end, tombstones_stay);
            n++;
        }
        cr_assert_eq(more, 0);
        cr_assert_eq(n, b.record_count);
        at = batch_next_offset(&b);
    }
    buf_free(&scratch);
    return at;
}

void clean_check(struct log *l, struct clean_model *m, int64_t end, bool tombstones_stay)
{
    struct bytes_of *bytes = xmalloc(sizeof *bytes);
    for (size_t i = 0; i < m->count; i++)
        m->records[i].gone = true;
    for (int64_t at = log_start(l); at < log_end(l);) {
        if (!fetch(l, at, bytes) && end == CLEAN_CUT)
            break;
        cr_assert_gt(bytes->size, 0, "nothing at offset %" PRId64 " of %" PRId64, at, log_end(l));
        int64_t next = see_batches(m, bytes, at, end, tombstones_stay);
        cr_assert_gt(next, at, "a reader stalls at offset %" PRId64, at);
        at = next;
    }
    for (size_t i = 0; i < m->count; i++) {
        if (m->records[i].gone && m->records[i].offset >= log_start(l) && end != CLEAN_CUT)
            cr_assert_not(must_stay(m, &m->records[i], end < 0 ? INT64_MAX : end, tombstones_stay),
                          "offset %" PRId64 " is lost", m->records[i].offset);
    }
    for (int64_t at = log_start(l); at < log_end(l) && end != CLEAN_CUT; at++) {
        struct batch b;
        cr_assert(fetch(l, at, bytes));
        cr_assert_eq(batch_read_header(slice_make(bytes->data, bytes->size), &b), 0);
        cr_assert_geq(b.base_offset + b.last_offset_delta, at, "the batch at or behind offset %" PRId64, at);
    }
    free(bytes);
}

struct buf clean_dump(struct log *l)
{
    struct buf out = {0};
    struct bytes_of *bytes = xmalloc(sizeof *bytes);
    for (int64_t at = log_start(l); at < log_end(l);) {
        struct batch b;
        struct slice rest;
        cr_assert(fetch(l, at, bytes));
        rest = slice_make(bytes->data, bytes->size);
        while (batch_next(&rest, &b, NULL) == 1) {
            buf_printf(&out, "%" PRId64 "+%d n %d attr %d\n", b.base_offset, b.last_offset_delta, b.record_count,
                       b.attributes);
            at = batch_next_offset(&b);
        }
    }
    buf_append(&out, "", 1);
    free(bytes);
    return out;
}
