/* reader.c - reads the files of a stopped partition without a line of libs/log: the formats are records.md's. */
#include "libs/base/bytes.h"
#include "libs/records/records.h"
#include "tests/torture/torture.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct seen {
    struct fact fact;
    uint64_t position;
    int64_t max_time;
};

struct reader {
    const struct file_system *fs;
    const char *dir;
    int64_t log_start, next;
    int64_t *bases;
    size_t base_count;
    struct seen *seen; /* of one segment */
    size_t seen_count, seen_room;
    int32_t *epochs;
    int64_t *epoch_starts;
    size_t epoch_count;
    reader_batch_fn *fn;
    void *ctx;
    struct reader_result *result;
};

static void note_name(void *arg, const char *name)
{
    struct reader *r = arg;
    const char *dot = strchr(name, '.');
    if (dot == NULL) {
        if (strcmp(name, "leader-epoch-checkpoint") != 0)
            torture_fail("a stopped partition holds a file %s", name);
        return;
    }
    static const char *const kinds[] = {
        ".log",      ".index",       ".timeindex",     ".txnindex",          ".snapshot",
        ".metadata", ".log.deleted", ".index.deleted", ".timeindex.deleted", ".txnindex.deleted"};
    size_t k = 0;
    while (k < COUNTOF(kinds) && strcmp(dot, kinds[k]) != 0)
        k++;
    if (k == COUNTOF(kinds))
        torture_fail("a stopped partition holds a file %s", name);
    if (k == 0) {
        r->bases = xrealloc(r->bases, (r->base_count + 1) * sizeof *r->bases);
        r->bases[r->base_count++] = strtoll(name, NULL, 10);
    }
}

static int ascending(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The bytes of a file of the partition; false: there is none. */
static bool slurp(struct reader *r, const char *name, char **ret_bytes, size_t *ret_size)
{
    char *path = xasprintf("%s/%s", r->dir, name);
    int err = file_slurp(r->fs, path, 1 << 30, ret_bytes, ret_size);
    if (err < 0 && err != -ENOENT)
        torture_fail("%s cannot be read: %s", path, strerror(-err));
    free(path);
    return err == 0;
}

static bool slurp_kind(struct reader *r, int64_t base, const char *kind, char **ret_bytes, size_t *ret_size)
{
    char name[64];
    snprintf(name, sizeof name, "%020" PRId64 ".%s", base, kind);
    return slurp(r, name, ret_bytes, ret_size);
}

static int32_t epoch_at(const struct reader *r, int64_t offset)
{
    int32_t epoch = -1;
    for (size_t i = 0; i < r->epoch_count && r->epoch_starts[i] <= offset; i++)
        epoch = r->epochs[i];
    return epoch;
}

static void read_epochs(struct reader *r)
{
    char *text, *at;
    size_t size;
    if (!slurp(r, "leader-epoch-checkpoint", &text, &size))
        return;
    at = text;
    long version = strtol(at, &at, 10);
    r->epoch_count = (size_t)strtol(at, &at, 10);
    if (version != 0 || r->epoch_count > size)
        torture_fail("leader-epoch-checkpoint is damaged");
    r->epochs = xcalloc(r->epoch_count + 1, sizeof *r->epochs);
    r->epoch_starts = xcalloc(r->epoch_count + 1, sizeof *r->epoch_starts);
    for (size_t i = 0; i < r->epoch_count; i++) {
        r->epochs[i] = (int32_t)strtol(at, &at, 10);
        r->epoch_starts[i] = strtoll(at, &at, 10);
        if (i > 0 && (r->epochs[i] <= r->epochs[i - 1] || r->epoch_starts[i] <= r->epoch_starts[i - 1]))
            torture_fail("leader-epoch-checkpoint does not rise at line %zu", i);
    }
    if (strcmp(at, "\n") != 0 && r->epoch_count > 0)
        torture_fail("leader-epoch-checkpoint has bytes behind its %zu lines", r->epoch_count);
    free(text);
}

/* The records of one batch: how many, their times. */
static void read_records(const uint8_t *p, uint32_t size, struct fact *f)
{
    struct batch b;
    struct record_iter it;
    struct record record;
    struct buf scratch = {0};
    struct slice bytes = slice_make(p, size);
    if (batch_read_header(bytes, &b) < 0 || record_iter_init(&it, &b, bytes, &scratch, 1 << 24) < 0)
        torture_fail("the batch at offset %" PRId64 " does not decode", f->base);
    while (record_iter_next(&it, &record) == 1) {
        if (f->count == RECORDS_MAX)
            torture_fail("the batch at offset %" PRId64 " has too many records", f->base);
        f->times[f->count++] = record.timestamp;
        if ((f->attributes & BATCH_ATTR_CONTROL) && record.key.size == 4 && record.value.size == 6) {
            f->marker = get_i16(record.key.data + 2);
            f->coordinator_epoch = get_i32(record.value.data + 2);
        }
    }
    buf_free(&scratch);
    if (f->count != get_i32(p + BATCH_RECORD_COUNT))
        torture_fail("the batch at offset %" PRId64 " has %d records and says %d", f->base, f->count,
                     get_i32(p + BATCH_RECORD_COUNT));
}

static void read_segment(struct reader *r, int64_t base)
{
    char *bytes;
    size_t size;
    if (!slurp_kind(r, base, "log", &bytes, &size))
        torture_fail("segment %" PRId64 " is gone", base);
    r->seen_count = 0;
    for (size_t at = 0; at < size;) {
        const uint8_t *p = (const uint8_t *)bytes + at;
        if (size - at < BATCH_HEADER_SIZE || get_i32(p + BATCH_LENGTH) < BATCH_HEADER_SIZE - BATCH_LENGTH_OVERHEAD ||
            (size_t)get_i32(p + BATCH_LENGTH) + BATCH_LENGTH_OVERHEAD > size - at || p[BATCH_MAGIC] != 2)
            torture_fail("segment %" PRId64 " has no batch at byte %zu of %zu", base, at, size);
        uint32_t length = (uint32_t)get_i32(p + BATCH_LENGTH) + BATCH_LENGTH_OVERHEAD;
        struct fact f = {
            .base = get_i64(p),
            .next = get_i64(p) + get_i32(p + BATCH_LAST_OFFSET_DELTA) + 1,
            .body = torture_hash(p + BATCH_HEADER_SIZE, length - BATCH_HEADER_SIZE),
            .producer_id = get_i64(p + BATCH_PRODUCER_ID),
            .producer_epoch = get_i16(p + BATCH_PRODUCER_EPOCH),
            .sequence = get_i32(p + BATCH_BASE_SEQUENCE),
            .leader_epoch = get_i32(p + BATCH_LEADER_EPOCH),
            .attributes = get_i16(p + BATCH_ATTRIBUTES),
            .marker = -1,
        };
        if (bytes_crc32c(0, p + BATCH_ATTRIBUTES, length - BATCH_ATTRIBUTES) != get_u32(p + BATCH_CRC))
            torture_fail("the CRC of the batch at offset %" PRId64 " does not hold", f.base);
        if (f.base != r->next)
            torture_fail("offset %" PRId64 " follows %" PRId64 " in segment %" PRId64, f.base, r->next, base);
        read_records(p, length, &f);
        int64_t max_time = fact_max_time(&f);
        if (!(f.attributes & BATCH_ATTR_LOG_APPEND_TIME) && max_time != get_i64(p + BATCH_MAX_TIMESTAMP))
            torture_fail("the batch at offset %" PRId64 " has another largest timestamp than it says", f.base);
        if (f.next > r->log_start && epoch_at(r, MAX(f.base, r->log_start)) != f.leader_epoch)
            torture_fail("offset %" PRId64 " is of epoch %d, leader-epoch-checkpoint says %d", f.base, f.leader_epoch,
                         epoch_at(r, MAX(f.base, r->log_start)));
        if (r->seen_count == r->seen_room)
            r->seen = xrealloc(r->seen, (r->seen_room = r->seen_room * 2 + 64) * sizeof *r->seen);
        r->seen[r->seen_count++] = (struct seen){f, at, max_time};
        r->fn(r->ctx, &f);
        r->next = f.next;
        r->result->batches++;
        at += length;
    }
    free(bytes);
}

/* Each entry: the last offset of the batch that begins at the position; both rise. */
static void check_index(struct reader *r, int64_t base)
{
    char *bytes;
    size_t size, k = 0;
    int64_t last = -1;
    if (!slurp_kind(r, base, "index", &bytes, &size))
        torture_fail("segment %" PRId64 " has no index", base);
    if (size % 8 != 0)
        torture_fail("the index of segment %" PRId64 " has %zu bytes", base, size);
    for (size_t at = 0; at < size; at += 8) {
        int64_t offset = get_i32((uint8_t *)bytes + at);
        uint32_t position = get_u32((uint8_t *)bytes + at + 4);
        while (k < r->seen_count && r->seen[k].position < position)
            k++;
        if (offset <= last || k == r->seen_count || r->seen[k].position != position ||
            r->seen[k].fact.next - 1 != base + offset)
            torture_fail("entry %zu of the index of segment %" PRId64 " says offset %" PRId64 " at byte %u", at / 8,
                         base, base + offset, position);
        last = offset;
    }
    free(bytes);
}

/* Each entry: the largest time so far, and the last offset of the batch that has it; both rise. The last one is the
 * segment's largest. */
static void check_times(struct reader *r, int64_t base)
{
    char *bytes;
    size_t size, k = 0;
    int64_t last_time = -1, last_offset = -1, so_far = -1, largest = -1;
    if (!slurp_kind(r, base, "timeindex", &bytes, &size))
        torture_fail("segment %" PRId64 " has no time index", base);
    if (size % 12 != 0)
        torture_fail("the time index of segment %" PRId64 " has %zu bytes", base, size);
    for (size_t i = 0; i < r->seen_count; i++)
        largest = MAX(largest, r->seen[i].max_time);
    for (size_t at = 0; at < size; at += 12) {
        int64_t time = get_i64((uint8_t *)bytes + at), offset = get_i32((uint8_t *)bytes + at + 8);
        while (k < r->seen_count && r->seen[k].fact.next - 1 < base + offset)
            so_far = MAX(so_far, r->seen[k++].max_time);
        if (time <= last_time || offset <= last_offset || k == r->seen_count ||
            r->seen[k].fact.next - 1 != base + offset || r->seen[k].max_time != time || so_far >= time)
            torture_fail("entry %zu of the time index of segment %" PRId64 " says time %" PRId64 " at offset %" PRId64
                         ", where it is %" PRId64 " and before it %" PRId64,
                         at / 12, base, time, base + offset, k < r->seen_count ? r->seen[k].max_time : -1, so_far);
        last_time = time;
        last_offset = offset;
    }
    if (last_time != largest)
        torture_fail("the time index of segment %" PRId64 " ends with %" PRId64 ", the largest time is %" PRId64, base,
                     last_time, largest);
    free(bytes);
}

static const uint8_t *entry_of(const uint8_t *bytes, int32_t count, int64_t id)
{
    for (int32_t i = 0; i < count; i++) {
        if (get_i64(bytes + 10 + 46 * i) == id)
            return bytes + 10 + 46 * i;
    }
    return NULL;
}

/* The snapshot at the log end, against what the batches say. Producers whose records are all deleted may be forgotten.
 */
static void check_snapshot(struct reader *r, const struct known_producer *known)
{
    char *data;
    size_t size;
    if (!slurp_kind(r, r->next, "snapshot", &data, &size))
        torture_fail("there is no snapshot of the log end %" PRId64, r->next);
    const uint8_t *bytes = (const uint8_t *)data;
    int32_t count = size >= 10 ? get_i32(bytes + 6) : -1;
    if (count < 0 || size != 10 + 46 * (size_t)count || get_i16(bytes) != 1 ||
        get_u32(bytes + 2) != bytes_crc32c(0, bytes + 6, size - 6))
        torture_fail("the snapshot of offset %" PRId64 " is damaged", r->next);
    for (int i = 0; i < KNOWN; i++) {
        const struct known_producer *p = &known[i];
        const uint8_t *e = entry_of(bytes, count, p->id);
        if (e == NULL && p->last_offset >= r->log_start)
            torture_fail("the snapshot does not know producer %" PRId64, p->id);
        if (e == NULL)
            continue;
        if (p->last_offset < 0 && r->log_start == 0)
            torture_fail("the snapshot knows producer %" PRId64 ", who wrote nothing", p->id);
        bool any = p->batch_count > 0;
        size_t k = any ? p->batch_count - 1 : 0;
        int32_t sequence = any ? p->batches[k].last_sequence : -1;
        int64_t offset = any ? p->batches[k].last : -1;
        int32_t delta = any ? (int32_t)(p->batches[k].last - p->batches[k].base) : 0;
        /* What was in deleted records may be forgotten. */
        bool txn = get_i64(e + 38) != p->txn_first && (p->txn_first < 0 || p->txn_first >= r->log_start);
        bool records = p->data_offset >= r->log_start &&
                       (txn || get_i32(e + 10) != sequence || get_i64(e + 14) != offset || get_i32(e + 22) != delta);
        bool marker = p->marker_offset >= r->log_start && get_i32(e + 34) != p->coordinator_epoch;
        bool any_batch =
            p->last_offset >= r->log_start && (get_i16(e + 8) != p->epoch || get_i64(e + 26) != p->last_time);
        if (records || marker || any_batch)
            torture_fail("the snapshot has producer %" PRId64 " with epoch %d, sequence %d at %" PRId64
                         ", time %" PRId64 ", coordinator epoch %d and transaction %" PRId64
                         "; its batches say %d, %d, %" PRId64 ", %" PRId64 ", %d and %" PRId64,
                         p->id, get_i16(e + 8), get_i32(e + 10), get_i64(e + 14), get_i64(e + 26), get_i32(e + 34),
                         get_i64(e + 38), p->epoch, sequence, offset, p->last_time, p->coordinator_epoch, p->txn_first);
    }
    free(data);
}

void reader_check(const struct file_system *fs, const char *dir, int64_t log_start, const struct known_producer *known,
                  reader_batch_fn *fn, void *ctx, struct reader_result *ret)
{
    struct reader r = {.fs = fs, .dir = dir, .log_start = log_start, .fn = fn, .ctx = ctx, .result = ret};
    *ret = (struct reader_result){0};
    int err = file_list(fs, dir, note_name, &r);
    if (err < 0 || r.base_count == 0)
        torture_fail("%s cannot be listed or holds no segment: %s", dir, strerror(-err));
    qsort(r.bases, r.base_count, sizeof *r.bases, ascending);
    read_epochs(&r);
    r.next = r.bases[0];
    for (size_t i = 0; i < r.base_count; i++) {
        if (r.bases[i] != r.next)
            torture_fail("segment %" PRId64 " does not begin where the one before ends, at %" PRId64, r.bases[i],
                         r.next);
        read_segment(&r, r.bases[i]);
        check_index(&r, r.bases[i]);
        check_times(&r, r.bases[i]);
    }
    check_snapshot(&r, known);
    ret->end = r.next;
    ret->segments = r.base_count;
    free(r.bases);
    free(r.seen);
    free(r.epochs);
    free(r.epoch_starts);
}
