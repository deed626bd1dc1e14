/* clean_filter.c - see clean_filter.h. */
#include "libs/log/clean_filter.h"
#include "libs/base/bytes.h"
#include <stdlib.h>

enum { BODY_LIMIT = 1 << 30 };

/* A record that stays: from its length on, and from its key on. */
struct clean_piece {
    const uint8_t *at, *key, *end;
    int64_t offset, timestamp;
};

/* What the records of a batch come to. */
struct kept {
    size_t count;
    bool all;        /* none is dropped */
    bool tombstones; /* one that stays has no value */
};

void clean_filter_free(struct clean_filter *f)
{
    f->txns = clean_txns_free(f->txns);
    buf_free(&f->txn_index);
    buf_free(&f->scratch);
    buf_free(&f->body);
    f->reader = compress_reader_free(f->reader);
    f->writer = compress_writer_free(f->writer);
    free(f->pieces);
    f->pieces = NULL;
}

int clean_records(struct clean_filter *f, const struct batch *b, struct slice bytes, struct record_iter *it)
{
    if (batch_codec(b) != COMPRESS_NONE && f->reader == NULL)
        f->reader = compress_reader_new();
    return record_iter_init_with(it, f->reader, b, bytes, &f->scratch, BODY_LIMIT);
}

int clean_control_type(struct clean_filter *f, const struct batch *b, struct slice bytes, int *ret_type)
{
    struct record_iter it;
    struct record r;
    *ret_type = -1;
    int err = clean_records(f, b, bytes, &it);
    if (err == 0)
        err = record_iter_next(&it, &r);
    if (err <= 0)
        return err == 0 ? 0 : -EBADMSG;
    int type = control_type_of(r.key);
    if (type < 0)
        return type;
    *ret_type = type;
    return 0;
}

static const struct clean_producer *find_producer(const struct clean_filter *f, int64_t id)
{
    size_t low = 0, high = f->producer_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (f->producers[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < f->producer_count && f->producers[low].id == id ? &f->producers[low] : NULL;
}

/* Does the batch hold what is known last of a live producer: its last sequence, or, when it has only markers, its
 * epoch, which fences older ones? */
static bool is_last_of_producer(const struct clean_filter *f, const struct batch *b)
{
    const struct clean_producer *p = batch_has_producer(b) ? find_producer(f, b->producer_id) : NULL;
    if (p == NULL)
        return false;
    return p->last_offset >= 0 ? batch_last_offset(b) == p->last_offset
                               : batch_is_control(b) && b->producer_epoch == p->epoch;
}

static bool has_horizon(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_DELETE_HORIZON;
}

static bool stays(const struct clean_filter *f, const struct batch *b, const struct record *r)
{
    if (batch_is_control(b) || r->offset >= f->mapped_to)
        return true;
    if (slice_is_null(r->key))
        return false; /* of before the topic was compacted: no reader could ask for it by key */
    if (r->offset < clean_map_get(f->map, r->key))
        return false;
    return !slice_is_null(r->value) || !has_horizon(b) || f->now_wall_ms < b->base_timestamp;
}

static void add_piece(struct clean_filter *f, size_t i, const uint8_t *from, const uint8_t *to, const struct record *r)
{
    if (i == f->piece_capacity) {
        f->piece_capacity = i ? 2 * i : 64;
        f->pieces = xrealloc(f->pieces, f->piece_capacity * sizeof *f->pieces);
    }
    f->pieces[i] = (struct clean_piece){.at = from, .end = to, .offset = r->offset, .timestamp = r->timestamp};
}

/* Goes through the records; pieces has those that stay, pointing into bytes or f->scratch. */
static int choose(struct clean_filter *f, const struct batch *b, struct slice bytes, struct kept *ret)
{
    struct record_iter it;
    struct record r;
    struct kept k = {.all = true};
    int err = clean_records(f, b, bytes, &it), more = 0;
    if (err < 0)
        return err == -ENOSPC ? -EFBIG : -EBADMSG;
    for (const uint8_t *from = it.at; (more = record_iter_next(&it, &r)) == 1; from = it.at) {
        f->records_read++;
        if (!stays(f, b, &r)) {
            k.all = false;
            continue;
        }
        add_piece(f, k.count++, from, it.at, &r);
        k.tombstones |= slice_is_null(r.value);
    }
    f->records_kept += k.count;
    *ret = k;
    return more;
}

/* ---- writing ---- */

/* The header, over what lies behind start in out; returns it in host order. */
static struct batch write_header(struct buf *out, size_t start, const struct batch *b)
{
    struct batch w = *b;
    uint8_t *h = out->data + start;
    w.size = (uint32_t)(out->size - start);
    put_i64(h + BATCH_BASE_OFFSET, w.base_offset);
    put_i32(h + BATCH_LENGTH, (int32_t)(w.size - BATCH_LENGTH_OVERHEAD));
    put_i32(h + BATCH_LEADER_EPOCH, w.leader_epoch);
    h[BATCH_MAGIC] = RECORDS_MAGIC;
    put_i16(h + BATCH_ATTRIBUTES, w.attributes);
    put_i32(h + BATCH_LAST_OFFSET_DELTA, w.last_offset_delta);
    put_i64(h + BATCH_BASE_TIMESTAMP, w.base_timestamp);
    put_i64(h + BATCH_MAX_TIMESTAMP, w.max_timestamp);
    put_i64(h + BATCH_PRODUCER_ID, w.producer_id);
    put_i16(h + BATCH_PRODUCER_EPOCH, w.producer_epoch);
    put_i32(h + BATCH_BASE_SEQUENCE, w.base_sequence);
    put_i32(h + BATCH_RECORD_COUNT, w.record_count);
    w.crc = bytes_crc32c(0, h + BATCH_ATTRIBUTES, w.size - BATCH_ATTRIBUTES);
    put_u32(h + BATCH_CRC, w.crc);
    return w;
}

/* What is left of a batch whose end must not be forgotten (DefaultRecordBatch.writeEmptyHeader). */
static void write_empty(const struct batch *b, struct buf *out, struct batch *ret_kept)
{
    struct batch w = *b;
    size_t start = out->size;
    w.attributes &= BATCH_ATTR_LOG_APPEND_TIME | BATCH_ATTR_TRANSACTIONAL | BATCH_ATTR_CONTROL;
    w.base_timestamp = RECORDS_NO_TIMESTAMP;
    w.record_count = 0;
    (void)buf_grow(out, BATCH_HEADER_SIZE);
    *ret_kept = write_header(out, start, &w);
}

/* A record under another base timestamp. */
static void add_record(struct buf *body, const struct clean_piece *p, const struct batch *w)
{
    uint8_t head[32];
    size_t n = 0;
    head[n++] = 0; /* attributes */
    n += put_varint64(head + n, (int64_t)((uint64_t)p->timestamp - (uint64_t)w->base_timestamp));
    n += put_varint64(head + n, p->offset - w->base_offset);
    size_t rest = (size_t)(p->end - p->key);
    uint8_t length[10];
    size_t k = put_varint64(length, (int64_t)(n + rest));
    uint8_t *to = buf_grow(body, k + n + rest);
    memcpy(to, length, k);
    memcpy(to + k, head, n);
    memcpy(to + k + n, p->key, rest);
}

/* Where the record's key begins: behind length, attributes and the two deltas, which have been read before. */
static const uint8_t *key_of(const struct clean_piece *p)
{
    int64_t v;
    const uint8_t *at = p->at;
    at += get_varint64(at, p->end, &v) + 1;
    at += get_varint64(at, p->end, &v);
    return at + get_varint64(at, p->end, &v);
}

/* The records that stay, as they are where nothing about them changes: neighbours in one piece. */
static void fill_body(struct clean_filter *f, size_t count, const struct batch *w, bool as_they_are, struct buf *body)
{
    for (size_t i = 0; i < count;) {
        struct clean_piece *p = &f->pieces[i++];
        if (!as_they_are) {
            p->key = key_of(p);
            add_record(body, p, w);
            continue;
        }
        const uint8_t *end = p->end;
        while (i < count && f->pieces[i].at == end)
            end = f->pieces[i++].end;
        buf_append(body, p->at, (size_t)(end - p->at));
    }
}

static int write_some(struct clean_filter *f, const struct batch *b, size_t count, bool mark, struct buf *out,
                      struct batch *ret_kept)
{
    struct batch w = *b;
    size_t start = out->size;
    bool append_time = b->attributes & BATCH_ATTR_LOG_APPEND_TIME;
    int codec = batch_codec(b), err = 0;
    w.record_count = (int32_t)count;
    if (mark)
        w.attributes |= BATCH_ATTR_DELETE_HORIZON;
    w.base_timestamp = mark ? f->horizon_ms : has_horizon(b) ? b->base_timestamp : f->pieces[0].timestamp;
    if (!append_time) {
        w.max_timestamp = RECORDS_NO_TIMESTAMP;
        for (size_t i = 0; i < count; i++)
            w.max_timestamp = MAX(w.max_timestamp, f->pieces[i].timestamp);
    }
    (void)buf_grow(out, BATCH_HEADER_SIZE);
    f->body.size = 0;
    struct buf *body = codec == COMPRESS_NONE ? out : &f->body;
    fill_body(f, count, &w, !append_time && w.base_timestamp == b->base_timestamp, body);
    if (codec != COMPRESS_NONE && f->writer == NULL)
        f->writer = compress_writer_new();
    if (codec != COMPRESS_NONE)
        err = compress_writer_encode(f->writer, codec, COMPRESS_LEVEL_DEFAULT, buf_slice(&f->body), out);
    if (err == 0 && out->size - start > BATCH_SIZE_MAX)
        err = -EFBIG;
    if (err < 0) {
        out->size = start;
        return err;
    }
    *ret_kept = write_header(out, start, &w);
    return 1;
}

int clean_filter_batch(struct clean_filter *f, const struct batch *b, struct slice bytes, struct buf *out,
                       struct batch *ret_kept)
{
    bool control = batch_is_control(b), drop, must_stay = batch_next_offset(b) == f->round_end;
    int type = -1, err = control ? clean_control_type(f, b, bytes, &type) : 0;
    if (err < 0)
        return -EBADMSG;
    bool may_go = control ? clean_txns_on_control(f->txns, b, type, &f->txn_index) : clean_txns_on_batch(f->txns, b);
    drop = may_go && (!control || (has_horizon(b) && b->base_timestamp <= f->now_wall_ms));
    must_stay |= is_last_of_producer(f, b);
    struct kept k = {0};
    if (drop)
        f->records_read += (uint64_t)b->record_count;
    else
        err = choose(f, b, bytes, &k);
    if (err < 0)
        return err;
    if (k.count == 0) {
        if (must_stay)
            write_empty(b, out, ret_kept);
        return must_stay;
    }
    bool mark = (k.tombstones || (control && may_go)) && !has_horizon(b);
    if (!k.all || mark)
        return write_some(f, b, k.count, mark, out, ret_kept);
    buf_append(out, bytes.data, b->size);
    *ret_kept = *b;
    return 1;
}
