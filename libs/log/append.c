/* append.c - staging and committing.
 *
 * log_stage takes every batch of an append into private memory (staging.h), checks it, and patches offset, epoch and
 * times into the private header; one that is compressed anew takes its place. log_commit writes them all with one
 * pwritev behind the active segment's end, and only then moves the log end, the indexes and what readers see. Producer
 * and epoch state change at staging, as later batches of the turn are checked against them, and are undone when the
 * write fails. */
#include "libs/base/bytes.h"
#include "libs/log/check.h"
#include "libs/log/internal.h"
#include <stdlib.h>

int log_check_alone(struct log *l)
{
    struct segment *s = log_active(l);
    struct file_stat st;
    if (s->preallocated)
        return 0;
    int fd = segment_fd(s);
    int err = fd < 0 ? fd : file_fstat(l->fs, fd, &st);
    return err < 0 ? err : st.size_bytes == s->size_bytes ? 0 : -EBUSY;
}

bool log_has_staged(const struct log *l)
{
    return l->staged != NULL && l->staged->kept.batches > 0;
}

int log_marker_of(const struct batch *b, struct slice bytes, int32_t *ret_coordinator_epoch)
{
    struct buf none = {0};
    struct record_iter it;
    struct record r;
    int type = -1;
    *ret_coordinator_epoch = -1;
    if (batch_is_control(b) && batch_codec(b) == COMPRESS_NONE && record_iter_init(&it, b, bytes, &none, 0) == 0 &&
        record_iter_next(&it, &r) == 1) {
        type = control_type_of(r.key);
        if (r.value.size >= 6)
            *ret_coordinator_epoch = get_i32(r.value.data + 2);
    }
    return type == CONTROL_ABORT || type == CONTROL_COMMIT ? type : -1;
}

static bool must_roll(struct log *l, size_t size, int64_t max_timestamp, int64_t last_offset, int64_t now_wall_ms)
{
    const struct segment *s = log_active(l);
    const struct log_config *c = &l->config;
    uint64_t segment_size = s->size_bytes + l->staged_bytes;
    if (segment_size == 0)
        return last_offset - s->base > INT32_MAX;
    int64_t since = s->first_timestamp;
    if (s->size_bytes == 0)
        since = l->staged->batches[0].batch.max_timestamp;
    int64_t waited = since >= 0 ? max_timestamp - since : now_wall_ms - s->born_ms;
    uint32_t offsets_max = (uint32_t)c->segment_index_bytes / INDEX_OFFSET_ENTRY;
    uint32_t times_max = (uint32_t)c->segment_index_bytes / INDEX_TIME_ENTRY;
    return segment_size + size > (uint64_t)c->segment_bytes || waited > log_config_roll_ms(c) - l->roll_jitter_ms ||
           index_count(&s->offsets) >= offsets_max || index_count(&s->times) + 1 >= times_max ||
           last_offset - s->base > INT32_MAX;
}

/* What all batches of an append come to, before any is staged. */
struct sum {
    int64_t max_timestamp;
    int64_t deltas;   /* offsets that they take */
    int64_t expected; /* the least base offset of the next batch of a leader */
    size_t count, size_bytes;
};

/* A header that is changed gets a new CRC, over bytes that nobody else writes to: what the CRC of before held for is
 * checked once more. Rare: the producer named another maxTimestamp than that of its records. */
static enum kafka_error check_again(struct log *l, struct check *c, struct staged_batch *t)
{
    struct buf *copy = &c->tools->made;
    copy->size = 0;
    uint8_t *to = buf_grow(copy, t->batch.size);
    memcpy(to, t->header, BATCH_HEADER_SIZE);
    bytes_take(to + BATCH_HEADER_SIZE, t->bytes.data + BATCH_HEADER_SIZE, t->batch.size - BATCH_HEADER_SIZE);
    staging_replace(l->pool, l->staged, buf_slice(copy));
    return check_body(c, &t->batch, t->header, t->bytes);
}

/* Takes one batch, header first. 1, or as batch_next; *ret_error is the client's, if it has one. */
static int take_batch(struct log *l, struct log_append *a, struct slice *rest, struct sum *sum,
                      enum kafka_error *ret_error)
{
    struct check c = {.config = &l->config, .partition = log_name(l), .append = a, .tools = log_pool_tools(l->pool)};
    const struct batch *b;
    int more = staging_take_header(l->staged, rest, &b);
    if (more != 1)
        return more;
    if (a->origin == LOG_FROM_CLIENT && rest->size > 0)
        *ret_error =
            append_refuse(a, KERR_INVALID_RECORD, "A produce request must hold exactly one whole batch a partition.");
    else
        *ret_error = check_header(&c, b);
    if (*ret_error != KERR_NONE)
        return 1;
    bool stamped = l->config.log_append_time && a->origin == LOG_FROM_CLIENT;
    bool whole = stamped || batch_is_control(b) || check_needs_copy(&c, b);
    struct staged_batch *t = staging_take_body(l->pool, l->staged, whole);
    *ret_error = check_body(&c, &t->batch, t->header, t->bytes);
    if (*ret_error == KERR_NONE && c.restamp && t->bytes.data != t->header)
        *ret_error = check_again(l, &c, t);
    if (*ret_error != KERR_NONE)
        return 1;
    if (c.made != NULL)
        staging_replace(l->pool, l->staged, buf_slice(c.made));
    t->restamp = c.restamp;
    t->batch.max_timestamp = c.max_timestamp;
    if (a->origin == LOG_FROM_LEADER && t->batch.base_offset < sum->expected)
        *ret_error = append_refuse(a, KERR_INVALID_RECORD, "The batches do not follow the log's end.");
    sum->expected = batch_next_offset(&t->batch);
    sum->max_timestamp = MAX(sum->max_timestamp, t->batch.max_timestamp);
    sum->deltas += (int64_t)t->batch.last_offset_delta + 1;
    sum->size_bytes += t->batch.size;
    sum->count++;
    return 1;
}

static enum kafka_error check_all(struct log *l, struct log_append *a, struct sum *sum)
{
    struct slice rest = slice_make(a->bytes, a->size);
    enum kafka_error error = KERR_NONE;
    int more;
    *sum = (struct sum){.max_timestamp = RECORDS_NO_TIMESTAMP, .expected = l->staged_end};
    while ((more = take_batch(l, a, &rest, sum, &error)) == 1) {
        if (error != KERR_NONE)
            return error;
    }
    if (more < 0 || sum->count == 0)
        return append_refuse(a, KERR_INVALID_RECORD, "The records are empty, cut short, or no batch of magic 2.");
    if (sum->size_bytes > (size_t)l->config.segment_bytes)
        return append_refuse(a, KERR_RECORD_LIST_TOO_LARGE, "The batches are larger than segment.bytes.");
    if (a->origin != LOG_FROM_LEADER && l->staged_end > INT64_MAX - sum->deltas)
        return append_refuse(a, KERR_INVALID_RECORD, "The log has no offsets left.");
    if (a->origin == LOG_FROM_LEADER)
        sum->deltas = sum->expected - l->staged_end;
    return KERR_NONE;
}

/* Sequence, epoch and duplicates of the one batch of a client. */
static enum kafka_error check_producer(struct log *l, struct log_append *a)
{
    size_t count;
    const struct batch *b = &staging_taken(l->staged, &count)->batch;
    struct producer_batch seen;
    if (a->origin != LOG_FROM_CLIENT || !batch_has_producer(b))
        return KERR_NONE;
    enum kafka_error error = producers_check(l->producers, b, &a->duplicate, &seen);
    if (error == KERR_INVALID_PRODUCER_EPOCH)
        return append_refuse(a, error, "The producer's epoch is older than the one that was seen last.");
    if (error != KERR_NONE)
        return append_refuse(a, error, "The batch's sequence does not follow the last one of its producer.");
    if (a->duplicate) {
        a->base_offset = seen.last_offset - seen.offset_delta;
        a->next_offset = seen.last_offset + 1;
        a->append_time_ms = seen.timestamp;
    }
    return KERR_NONE;
}

static int write_staged(struct log *l);

static int make_room(struct log *l, const struct log_append *a, const struct sum *sum)
{
    struct segment *s = log_active(l);
    int err = segment_load_max(s);
    if (err == 0)
        err = segment_load_first(s);
    if (err == 0 &&
        must_roll(l, sum->size_bytes, sum->max_timestamp, l->staged_end + sum->deltas - 1, a->now_wall_ms)) {
        err = log_has_staged(l) ? write_staged(l) : 0;
        if (err == 0)
            err = log_roll(l, a->now_wall_ms);
    }
    if (err == 0)
        err = index_grow(&log_active(l)->offsets, (uint32_t)l->config.segment_index_bytes);
    if (err == 0)
        err = index_grow(&log_active(l)->times, (uint32_t)l->config.segment_index_bytes);
    return err;
}

static void keep_batch(struct log *l, const struct staged_batch *t)
{
    const struct batch *b = &t->batch;
    if (l->staged_bytes == 0)
        l->epochs_staged = l->epochs.count;
    l->staged_bytes += b->size;
    l->staged_end = batch_next_offset(b);
    epochs_assign(&l->epochs, b->leader_epoch, b->base_offset);
    if (batch_has_producer(b)) {
        int32_t coordinator_epoch;
        int marker = log_marker_of(b, t->bytes, &coordinator_epoch);
        void *undo = staging_alloc(l->pool, l->staged, producers_undo_size());
        int64_t first = producers_open_since(l->producers, b->producer_id);
        producers_apply_staged(l->producers, b, marker, coordinator_epoch, undo, &l->undo);
        if (marker == CONTROL_ABORT && first >= 0)
            txn_index_stage(&l->aborted, b->producer_id, first, batch_last_offset(b), log_stable_behind(l, b));
    }
}

static void patch_and_keep(struct log *l, struct log_append *a)
{
    bool append_time = l->config.log_append_time && a->origin == LOG_FROM_CLIENT;
    size_t count;
    struct staged_batch *taken = staging_taken(l->staged, &count);
    for (struct staged_batch *t = taken; t < taken + count; t++) {
        if (a->origin != LOG_FROM_LEADER) {
            t->batch.base_offset = l->staged_end;
            t->batch.leader_epoch = a->leader_epoch;
            batch_set_offset(t->header, l->staged_end, a->leader_epoch);
        }
        if (t->restamp)
            batch_set_times(t->header, t->bytes, append_time, t->batch.max_timestamp);
        keep_batch(l, t);
    }
    staging_keep(l->staged);
    a->base_offset = taken->batch.base_offset;
    a->next_offset = l->staged_end;
    a->append_time_ms = append_time ? a->now_wall_ms : RECORDS_NO_TIMESTAMP;
}

/* What is staged and not kept goes; a log with nothing staged holds no staging. */
static void drop_taken(struct log *l)
{
    staging_drop(l->pool, l->staged);
    if (l->staged->batch_count == 0)
        l->staged = staging_put(l->pool, l->staged);
}

enum kafka_error log_stage(struct log *l, struct log_append *a)
{
    if (l->turn_over)
        l->undone_first = l->undos;
    l->turn_over = false;
    a->base_offset = a->next_offset = a->append_time_ms = -1;
    a->duplicate = false;
    a->undos = l->undos;
    a->message = NULL;
    a->record_errors = NULL;
    a->record_error_count = 0;
    if (l->failed != 0)
        return append_refuse(a, KERR_KAFKA_STORAGE_ERROR, "The partition's log directory is offline.");
    if (l->staged == NULL)
        l->staged = staging_get(l->pool);
    struct sum sum;
    enum kafka_error error = check_all(l, a, &sum);
    if (error == KERR_NONE)
        error = check_producer(l, a);
    if (error != KERR_NONE || a->duplicate) {
        drop_taken(l);
        return error;
    }
    int err = make_room(l, a, &sum);
    if (err < 0) {
        if (err != -ENOSPC)
            log_fail(l, err, "rolling");
        drop_taken(l);
        return append_refuse(a, KERR_KAFKA_STORAGE_ERROR, "The log could not be written.");
    }
    a->undos = l->undos;
    patch_and_keep(l, a);
    return KERR_NONE;
}

/* Every batch is counted, whatever becomes of its index entry: indexes are sparse, and one that a full disk did not
 * take is done without. */
static int note_staged(struct log *l)
{
    struct segment *s = log_active(l);
    int first = 0;
    for (size_t i = 0; i < l->staged->kept.batches; i++) {
        const struct batch *b = &l->staged->batches[i].batch;
        uint64_t position = s->size_bytes;
        s->size_bytes += b->size;
        int err = segment_note(s, b, position, (uint32_t)l->config.index_interval_bytes);
        if (err < 0 && err != -ENOSPC && first == 0)
            first = err;
        log_add_hint(&l->appended, (struct hint){b->base_offset, s->base, position, b->size});
    }
    return first;
}

static void note_undo(struct log *l)
{
    size_t n = l->undos++ - l->undone_first;
    if ((n & (n - 1)) == 0)
        l->undone_at = xrealloc(l->undone_at, (n ? 2 * n : 1) * sizeof *l->undone_at);
    l->undone_at[n] = l->end;
}

static void undo_staged(struct log *l, bool entries)
{
    struct segment *s = log_active(l);
    int taken_back = entries ? txn_index_take_back(s, txn_index_staged(&l->aborted)) : 0;
    note_undo(l);
    producers_undo(l->producers, &l->undo);
    if (l->epochs.count > l->epochs_staged)
        l->epochs.count = l->epochs_staged;
    l->staged_end = l->end;
    int fd = segment_fd(s);
    /* Nobody was ever given what lies behind size_bytes, not even of a file that was given away. */
    int err = fd < 0 ? fd : file_ftruncate(l->fs, fd, s->size_bytes);
    err = err < 0 ? err : taken_back;
    s->reserved_to = 0;
    /* Bytes of an unanswered append would come back as records at the next start; after a power cut, too, when the
     * flushes to come begin behind this segment. */
    if (err == 0)
        err = file_fdatasync(l->fs, fd);
    if (err < 0)
        log_fail(l, err, "undoing a failed append");
}

/* Writes what is staged, at the end of a turn or before a roll in the middle of one. */
static int write_staged(struct log *l)
{
    if (!log_has_staged(l))
        return l->failed;
    struct segment *s = log_active(l);
    size_t count;
    struct iovec last, *vectors = staging_vectors(l->staged, &count, &last);
    segment_reserve(s, l->staged_bytes, (uint64_t)l->config.segment_bytes);
    bool entries = l->aborted.size > 0;
    int err = entries ? txn_index_append(s, slice_make(l->aborted.data, l->aborted.size)) : 0;
    entries = entries && err == 0;
    int fd = err < 0 ? err : segment_fd(s);
    err = fd < 0 ? fd : file_write_all(l->fs, fd, vectors, count, s->size_bytes);
    if (err < 0) {
        undo_staged(l, entries);
        if (err != -ENOSPC)
            log_fail(l, err, "appending");
    } else {
        l->undo = NULL;
        l->end = l->staged_end;
        log_raise_high_watermark(l);
        /* The records are in; an index that cannot be written takes the log offline, but not them back. */
        int side = note_staged(l);
        if (side == 0)
            side = log_store_epochs(l);
        if (side < 0)
            log_fail(l, side, "writing an index");
    }
    buf_free(&l->aborted);
    l->staged_bytes = 0;
    staging_done(l->staged, last);
    if (l->staged->batch_count == 0)
        l->staged = staging_put(l->pool, l->staged);
    return err;
}

int log_commit(struct log *l)
{
    l->turn_over = true;
    return write_staged(l);
}

bool log_append_written(const struct log *l, const struct log_append *a)
{
    /* Offsets alone do not tell: what was staged after an undoing may have got the same ones. What was staged before it
     * is in the log if a roll in the middle of the turn had written it. */
    return a->next_offset <= (a->undos == l->undos ? l->end : l->undone_at[a->undos - l->undone_first]);
}
