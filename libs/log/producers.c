/* producers.c - producer state: sequence checks, duplicates, open transactions. */
#include "libs/log/producers.h"
#include "libs/base/bytes.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

struct producer {
    int64_t id;
    int64_t last_timestamp;
    int64_t txn_first_offset; /* -1: none open */
    int32_t coordinator_epoch;
    int16_t epoch;
    int16_t batch_count;
    struct producer_batch batches[PRODUCER_BATCHES];
    UT_hash_handle hh;
};

struct producers {
    struct producer *by_id;
    size_t open_txns;
};

struct producer_undo {
    struct producer_undo *next;
    bool existed;
    struct producer was;
};

struct producers *producers_new(void)
{
    return xcalloc(1, sizeof(struct producers));
}

void producers_clear(struct producers *p)
{
    struct producer *e, *next;
    HASH_ITER (hh, p->by_id, e, next) {
        HASH_DEL(p->by_id, e);
        free(e);
    }
    p->open_txns = 0;
}

struct producers *producers_free(struct producers *p)
{
    if (p != NULL)
        producers_clear(p);
    free(p);
    return NULL;
}

size_t producers_count(const struct producers *p)
{
    return HASH_COUNT(p->by_id);
}

static struct producer *find(const struct producers *p, int64_t id)
{
    struct producer *e;
    HASH_FIND(hh, p->by_id, &id, sizeof id, e);
    return e;
}

static int32_t first_sequence(const struct producer_batch *b)
{
    return (int32_t)(((int64_t)b->last_sequence - b->offset_delta) & INT32_MAX);
}

enum kafka_error producers_check(const struct producers *p, const struct batch *b, bool *ret_duplicate,
                                 struct producer_batch *ret_seen)
{
    *ret_duplicate = false;
    const struct producer *e = find(p, b->producer_id);
    if (e == NULL)
        return KERR_NONE; /* any sequence: its state may have been removed with its records */
    if (b->producer_epoch < e->epoch)
        return KERR_INVALID_PRODUCER_EPOCH;
    if (b->producer_epoch > e->epoch)
        return b->base_sequence == 0 ? KERR_NONE : KERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    for (int i = 0; i < e->batch_count; i++) {
        const struct producer_batch *seen = &e->batches[i];
        if (first_sequence(seen) == b->base_sequence && seen->last_sequence == batch_last_sequence(b)) {
            *ret_duplicate = true;
            *ret_seen = *seen;
            return KERR_NONE;
        }
    }
    int32_t last = e->batch_count > 0 ? e->batches[e->batch_count - 1].last_sequence : RECORDS_NO_SEQUENCE;
    int32_t want = last == RECORDS_NO_SEQUENCE ? 0 : records_sequence_add(last, 1);
    return b->base_sequence == want ? KERR_NONE : KERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
}

static void set_txn_first(struct producers *p, struct producer *e, int64_t offset)
{
    if (e->txn_first_offset < 0 && offset >= 0)
        p->open_txns++;
    if (e->txn_first_offset >= 0 && offset < 0)
        p->open_txns--;
    e->txn_first_offset = offset;
}

static struct producer *find_or_add(struct producers *p, const struct batch *b)
{
    struct producer *e = find(p, b->producer_id);
    if (e == NULL) {
        e = xcalloc(1, sizeof *e);
        e->id = b->producer_id;
        e->epoch = b->producer_epoch;
        e->coordinator_epoch = -1;
        e->txn_first_offset = -1;
        HASH_ADD(hh, p->by_id, id, sizeof e->id, e);
    }
    return e;
}

static void set_epoch(struct producer *e, int16_t epoch)
{
    if (e->epoch != epoch)
        e->batch_count = 0;
    e->epoch = epoch;
}

static void remember(struct producer *e, const struct producer_batch *b)
{
    if (e->batch_count == PRODUCER_BATCHES) {
        memmove(e->batches, e->batches + 1, (PRODUCER_BATCHES - 1) * sizeof e->batches[0]);
        e->batch_count--;
    }
    e->batches[e->batch_count++] = *b;
}

void producers_apply(struct producers *p, const struct batch *b, int marker, int32_t coordinator_epoch)
{
    ASSERT(batch_has_producer(b));
    if (batch_is_control(b) && marker != CONTROL_ABORT && marker != CONTROL_COMMIT)
        return;
    struct producer *e = find_or_add(p, b);
    set_epoch(e, b->producer_epoch);
    e->last_timestamp = b->max_timestamp;
    if (batch_is_control(b)) {
        e->coordinator_epoch = coordinator_epoch;
        set_txn_first(p, e, -1);
        return;
    }
    remember(e, &(struct producer_batch){
                    .last_sequence = batch_last_sequence(b),
                    .offset_delta = b->last_offset_delta,
                    .last_offset = batch_last_offset(b),
                    .timestamp = b->max_timestamp,
                });
    if (batch_is_transactional(b) && e->txn_first_offset < 0)
        set_txn_first(p, e, b->base_offset);
}

size_t producers_undo_size(void)
{
    return sizeof(struct producer_undo);
}

void producers_apply_staged(struct producers *p, const struct batch *b, int marker, int32_t coordinator_epoch,
                            void *memory, struct producer_undo **undo)
{
    struct producer_undo *u = memory;
    const struct producer *e = find(p, b->producer_id);
    u->existed = e != NULL;
    if (e != NULL)
        u->was = *e;
    else
        u->was = (struct producer){.id = b->producer_id, .txn_first_offset = -1};
    u->next = *undo;
    *undo = u;
    producers_apply(p, b, marker, coordinator_epoch);
}

void producers_undo(struct producers *p, struct producer_undo **undo)
{
    for (const struct producer_undo *u = *undo; u != NULL; u = u->next) {
        struct producer *e = find(p, u->was.id);
        if (e != NULL) {
            set_txn_first(p, e, u->was.txn_first_offset);
            if (u->existed) {
                /* All but the links of the table. */
                memcpy(e, &u->was, offsetof(struct producer, hh));
            } else {
                HASH_DEL(p->by_id, e);
                free(e);
            }
        }
    }
    *undo = NULL;
}

void producers_expire(struct producers *p, int64_t now_wall_ms, int64_t expiration_ms)
{
    struct producer *e, *next;
    HASH_ITER (hh, p->by_id, e, next) {
        if (e->txn_first_offset < 0 && e->last_timestamp <= now_wall_ms - expiration_ms) {
            HASH_DEL(p->by_id, e);
            free(e);
        }
    }
}

int64_t producers_first_open(const struct producers *p)
{
    int64_t first = -1;
    if (p->open_txns == 0)
        return -1;
    for (const struct producer *e = p->by_id; e != NULL; e = e->hh.next) {
        if (e->txn_first_offset >= 0 && (first < 0 || e->txn_first_offset < first))
            first = e->txn_first_offset;
    }
    return first;
}

int64_t producers_open_since(const struct producers *p, int64_t producer_id)
{
    const struct producer *e = p->open_txns > 0 ? find(p, producer_id) : NULL;
    return e != NULL ? e->txn_first_offset : -1;
}

void producers_each(const struct producers *p, log_producer_fn *fn, void *ctx)
{
    for (const struct producer *e = p->by_id; e != NULL; e = e->hh.next) {
        struct log_producer v = {
            .producer_id = e->id,
            .epoch = e->epoch,
            .last_sequence = e->batch_count ? e->batches[e->batch_count - 1].last_sequence : RECORDS_NO_SEQUENCE,
            .last_timestamp = e->last_timestamp,
            .coordinator_epoch = e->coordinator_epoch,
            .txn_start_offset = e->txn_first_offset,
        };
        fn(ctx, &v);
    }
}

void producers_each_last(const struct producers *p, producers_last_fn *fn, void *ctx)
{
    for (const struct producer *e = p->by_id; e != NULL; e = e->hh.next)
        fn(ctx, e->id, e->epoch, e->batch_count > 0 ? e->batches[e->batch_count - 1].last_offset : -1);
}

/* ---- snapshots ---- */

static void put_entry(struct buf *out, const struct producer *e, const struct producer_batch *b, int64_t timestamp)
{
    uint8_t *at = buf_grow(out, PRODUCER_ENTRY_SIZE);
    put_i64(at, e->id);
    put_i16(at + 8, e->epoch);
    put_i32(at + 10, b->last_sequence);
    put_i64(at + 14, b->last_offset);
    put_i32(at + 22, b->offset_delta);
    put_i64(at + 26, timestamp);
    put_i32(at + 34, e->coordinator_epoch);
    put_i64(at + 38, e->txn_first_offset);
}

int producers_write_snapshot(const struct producers *p, const struct file_system *fs, const char *dir, int64_t offset,
                             bool every_batch)
{
    static const struct producer_batch none = {.last_sequence = -1, .last_offset = -1};
    struct buf out = {0};
    memset(buf_grow(&out, PRODUCER_SNAPSHOT_HEADER), 0, PRODUCER_SNAPSHOT_HEADER);
    for (const struct producer *e = p->by_id; e != NULL; e = e->hh.next) {
        for (int i = 0; every_batch && i + 1 < e->batch_count; i++)
            put_entry(&out, e, &e->batches[i], e->batches[i].timestamp);
        put_entry(&out, e, e->batch_count ? &e->batches[e->batch_count - 1] : &none, e->last_timestamp);
    }
    put_i16(out.data, 1);
    put_i32(out.data + 6, (int32_t)((out.size - PRODUCER_SNAPSHOT_HEADER) / PRODUCER_ENTRY_SIZE));
    put_u32(out.data + 2, bytes_crc32c(0, out.data + 6, out.size - 6));
    char name[64];
    snprintf(name, sizeof name, "%020" PRId64 ".snapshot", offset);
    /* Not made durable here: a snapshot that does not hold is rebuilt from the log. The flush after a roll covers it.
     */
    int err = file_replace(fs, dir, name, out.data, out.size, false);
    buf_free(&out);
    return err;
}

static void load_entry(struct producers *p, const uint8_t *at, int64_t now_wall_ms, int64_t expiration_ms)
{
    struct batch b = {.producer_id = get_i64(at), .producer_epoch = get_i16(at + 8)};
    int64_t timestamp = get_i64(at + 26), txn_first = get_i64(at + 38);
    if (b.producer_id < 0 || (txn_first < 0 && timestamp <= now_wall_ms - expiration_ms))
        return;
    struct producer *e = find_or_add(p, &b);
    set_epoch(e, b.producer_epoch);
    e->last_timestamp = timestamp;
    e->coordinator_epoch = get_i32(at + 34);
    set_txn_first(p, e, txn_first >= 0 ? txn_first : -1);
    if (get_i64(at + 14) >= 0 && get_i32(at + 10) >= 0) {
        remember(e, &(struct producer_batch){
                        .last_sequence = get_i32(at + 10),
                        .last_offset = get_i64(at + 14),
                        .offset_delta = MAX(0, get_i32(at + 22)),
                        .timestamp = timestamp,
                    });
    }
}

bool producers_remember_more(const struct producers *p)
{
    const struct producer *e = p->by_id;
    while (e != NULL && e->batch_count <= 1)
        e = e->hh.next;
    return e != NULL;
}

int producers_parse_snapshot(struct producers *p, struct slice bytes, int64_t now_wall_ms, int64_t expiration_ms)
{
    producers_clear(p);
    if (bytes.size < PRODUCER_SNAPSHOT_HEADER || get_i16(bytes.data) != 1)
        return -EBADMSG;
    int64_t count = get_i32(bytes.data + 6);
    if (count < 0 || bytes.size - PRODUCER_SNAPSHOT_HEADER != (size_t)count * PRODUCER_ENTRY_SIZE)
        return -EBADMSG;
    if (get_u32(bytes.data + 2) != bytes_crc32c(0, bytes.data + 6, bytes.size - 6))
        return -EBADMSG;
    for (int64_t i = 0; i < count; i++)
        load_entry(p, bytes.data + PRODUCER_SNAPSHOT_HEADER + i * PRODUCER_ENTRY_SIZE, now_wall_ms, expiration_ms);
    return 0;
}

int producers_load_snapshot(struct producers *p, const struct file_system *fs, const char *dir, int64_t offset,
                            int64_t now_wall_ms, int64_t expiration_ms)
{
    enum { SNAPSHOT_MAX_BYTES = 1 << 30 };
    char *path = xasprintf("%s/%020" PRId64 ".snapshot", dir, offset), *data;
    size_t size;
    int err = file_slurp(fs, path, SNAPSHOT_MAX_BYTES, &data, &size);
    free(path);
    if (err < 0)
        return err;
    err = producers_parse_snapshot(p, slice_make(data, size), now_wall_ms, expiration_ms);
    free(data);
    return err;
}
