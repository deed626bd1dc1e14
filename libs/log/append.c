/* append.c - staging and committing.
 *
 * log_stage checks every batch of an append, patches offset and epoch into the caller's bytes and notes them.
 * log_commit writes them all with one pwritev behind the active segment's end, and only then moves the log end, the
 * indexes and what readers see. Producer and epoch state change at staging, as later batches of the turn are checked
 * against them, and are undone when the write fails. */
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
    return l->staged.count > 0;
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

static void stage_batch(struct log *l, const struct batch *b, uint8_t *bytes)
{
    struct staged *s = &l->staged;
    if (s->count == 0)
        l->epochs_staged = l->epochs.count;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? s->capacity * 2 : 4;
        s->iov = xrealloc(s->iov, s->capacity * sizeof *s->iov);
        s->batches = xrealloc(s->batches, s->capacity * sizeof *s->batches);
    }
    s->iov[s->count] = (struct iovec){bytes, b->size};
    s->batches[s->count++] = *b;
    s->size_bytes += b->size;
    l->staged_end = batch_next_offset(b);
    epochs_assign(&l->epochs, b->leader_epoch, b->base_offset);
    if (batch_has_producer(b)) {
        int32_t coordinator_epoch;
        int marker = log_marker_of(b, slice_make(bytes, b->size), &coordinator_epoch);
        producers_apply_staged(l->producers, b, marker, coordinator_epoch, &s->undo);
    }
}

static bool must_roll(struct log *l, size_t size, int64_t max_timestamp, int64_t last_offset, int64_t now_wall_ms)
{
    const struct segment *s = log_active(l);
    const struct log_config *c = &l->config;
    uint64_t segment_size = s->size_bytes + l->staged.size_bytes;
    if (segment_size == 0)
        return last_offset - s->base > INT32_MAX;
    int64_t since = s->first_timestamp;
    if (s->size_bytes == 0)
        since = l->staged.batches[0].max_timestamp;
    int64_t waited = since >= 0 ? max_timestamp - since : now_wall_ms - s->born_ms;
    uint32_t offsets_max = (uint32_t)c->segment_index_bytes / INDEX_OFFSET_ENTRY;
    uint32_t times_max = (uint32_t)c->segment_index_bytes / INDEX_TIME_ENTRY;
    return segment_size + size > (uint64_t)c->segment_bytes || waited > c->segment_ms - l->roll_jitter_ms ||
           index_count(&s->offsets) >= offsets_max || index_count(&s->times) + 1 >= times_max ||
           last_offset - s->base > INT32_MAX;
}

/* What all batches of an append come to, before any is staged. */
struct sum {
    int64_t max_timestamp;
    int64_t deltas; /* offsets that they take */
    size_t count;
};

static enum kafka_error refuse(struct log_append *a, enum kafka_error error, const char *message)
{
    a->message = message;
    return error;
}

static enum kafka_error check_all(struct log *l, struct log_append *a, struct sum *ret_sum)
{
    struct slice rest = slice_make(a->bytes, a->size), bytes;
    struct sum sum = {.max_timestamp = RECORDS_NO_TIMESTAMP};
    struct batch b;
    int64_t expected = l->staged_end;
    int more;
    while ((more = batch_next(&rest, &b, &bytes)) == 1) {
        if (a->origin == LOG_FROM_CLIENT && rest.size > 0)
            return refuse(a, KERR_INVALID_RECORD, "A produce request must hold exactly one whole batch a partition.");
        enum kafka_error error = check_batch(&l->config, &b, bytes, a);
        if (error != KERR_NONE)
            return error;
        if (a->origin == LOG_FROM_LEADER && b.base_offset < expected)
            return refuse(a, KERR_INVALID_RECORD, "The batches do not follow the log's end.");
        expected = batch_next_offset(&b);
        sum.max_timestamp = MAX(sum.max_timestamp, b.max_timestamp);
        sum.deltas += (int64_t)b.last_offset_delta + 1;
        sum.count++;
    }
    if (more < 0 || sum.count == 0)
        return refuse(a, KERR_INVALID_RECORD, "The records are empty, cut short, or no batch of magic 2.");
    if (a->size > (size_t)l->config.segment_bytes)
        return refuse(a, KERR_RECORD_LIST_TOO_LARGE, "The batches are larger than segment.bytes.");
    if (a->origin != LOG_FROM_LEADER && l->staged_end > INT64_MAX - sum.deltas)
        return refuse(a, KERR_INVALID_RECORD, "The log has no offsets left.");
    if (a->origin == LOG_FROM_LEADER)
        sum.deltas = expected - l->staged_end;
    *ret_sum = sum;
    return KERR_NONE;
}

/* Sequence, epoch and duplicates of the one batch of a client. */
static enum kafka_error check_producer(struct log *l, struct log_append *a, bool *ret_duplicate)
{
    struct batch b;
    struct producer_batch seen;
    *ret_duplicate = false;
    if (a->origin != LOG_FROM_CLIENT || batch_read_header(slice_make(a->bytes, a->size), &b) < 0 ||
        !batch_has_producer(&b))
        return KERR_NONE;
    enum kafka_error error = producers_check(l->producers, &b, ret_duplicate, &seen);
    if (error == KERR_INVALID_PRODUCER_EPOCH)
        return refuse(a, error, "The producer's epoch is older than the one that was seen last.");
    if (error != KERR_NONE)
        return refuse(a, error, "The batch's sequence does not follow the last one of its producer.");
    if (*ret_duplicate) {
        a->duplicate = true;
        a->base_offset = seen.last_offset - seen.offset_delta;
        a->next_offset = seen.last_offset + 1;
        a->append_time_ms = seen.timestamp;
    }
    return KERR_NONE;
}

static int make_room(struct log *l, const struct log_append *a, const struct sum *sum)
{
    struct segment *s = log_active(l);
    int err = segment_load_max(s);
    if (err == 0)
        err = segment_load_first(s);
    if (err == 0 && must_roll(l, a->size, sum->max_timestamp, l->staged_end + sum->deltas - 1, a->now_wall_ms)) {
        err = log_has_staged(l) ? log_commit(l) : 0;
        if (err == 0)
            err = log_roll(l, a->now_wall_ms);
    }
    if (err == 0)
        err = index_grow(&log_active(l)->offsets, (uint32_t)l->config.segment_index_bytes);
    if (err == 0)
        err = index_grow(&log_active(l)->times, (uint32_t)l->config.segment_index_bytes);
    return err;
}

static void patch_and_stage(struct log *l, struct log_append *a)
{
    bool append_time = l->config.log_append_time && a->origin == LOG_FROM_CLIENT;
    size_t at = 0;
    while (at < a->size) {
        uint8_t *bytes = a->bytes + at;
        struct batch b;
        if (batch_read_header(slice_make(bytes, a->size - at), &b) < 0)
            BUG("a batch changed between its check and its staging");
        if (a->origin != LOG_FROM_LEADER) {
            b.base_offset = l->staged_end;
            b.leader_epoch = a->leader_epoch;
            batch_set_offset(bytes, b.base_offset, b.leader_epoch);
        }
        if (append_time) {
            b.max_timestamp = a->now_wall_ms;
            batch_set_append_time(bytes, b.size, a->now_wall_ms);
        }
        if (at == 0)
            a->base_offset = b.base_offset;
        stage_batch(l, &b, bytes);
        at += b.size;
    }
    a->next_offset = l->staged_end;
    a->append_time_ms = append_time ? a->now_wall_ms : RECORDS_NO_TIMESTAMP;
}

enum kafka_error log_stage(struct log *l, struct log_append *a)
{
    a->base_offset = a->next_offset = a->append_time_ms = -1;
    a->duplicate = false;
    a->undos = l->undos;
    a->message = NULL;
    a->record_errors = NULL;
    a->record_error_count = 0;
    if (l->failed != 0)
        return refuse(a, KERR_KAFKA_STORAGE_ERROR, "The partition's log directory is offline.");
    struct sum sum;
    bool duplicate;
    enum kafka_error error = check_all(l, a, &sum);
    if (error == KERR_NONE)
        error = check_producer(l, a, &duplicate);
    if (error != KERR_NONE || duplicate)
        return error;
    int err = make_room(l, a, &sum);
    if (err < 0) {
        if (err != -ENOSPC)
            log_fail(l, err, "rolling");
        return refuse(a, KERR_KAFKA_STORAGE_ERROR, "The log could not be written.");
    }
    a->undos = l->undos;
    patch_and_stage(l, a);
    return KERR_NONE;
}

/* Every batch is counted, whatever becomes of its index entry: indexes are sparse, and one that a full disk did not
 * take is done without. */
static int note_staged(struct log *l)
{
    struct segment *s = log_active(l);
    int first = 0;
    for (size_t i = 0; i < l->staged.count; i++) {
        const struct batch *b = &l->staged.batches[i];
        uint64_t position = s->size_bytes;
        s->size_bytes += b->size;
        int err = segment_note(s, b, position, (uint32_t)l->config.index_interval_bytes);
        if (err < 0 && err != -ENOSPC && first == 0)
            first = err;
        log_add_hint(&l->appended, (struct hint){b->base_offset, s->base, position, b->size});
    }
    return first;
}

static void undo_staged(struct log *l)
{
    struct segment *s = log_active(l);
    l->undos++;
    producers_undo(l->producers, &l->staged.undo);
    if (l->epochs.count > l->epochs_staged)
        l->epochs.count = l->epochs_staged;
    l->staged_end = l->end;
    int fd = segment_fd(s);
    int err = fd < 0 ? fd : file_ftruncate(l->fs, fd, s->size_bytes);
    /* Bytes of an unanswered append would come back as records at the next start; after a power cut, too, when the
     * flushes to come begin behind this segment. */
    if (err == 0)
        err = file_fdatasync(l->fs, fd);
    if (err < 0)
        log_fail(l, err, "undoing a failed append");
}

int log_commit(struct log *l)
{
    if (l->staged.count == 0)
        return l->failed;
    struct segment *s = log_active(l);
    int fd = segment_fd(s);
    int err = fd < 0 ? fd : file_write_all(l->fs, fd, l->staged.iov, l->staged.count, s->size_bytes);
    if (err < 0) {
        undo_staged(l);
        if (err != -ENOSPC)
            log_fail(l, err, "appending");
    } else {
        producers_settle(&l->staged.undo);
        l->end = l->staged_end;
        if (!l->hold_high_watermark)
            l->high_watermark = l->end;
        /* The records are in; an index that cannot be written takes the log offline, but not them back. */
        int side = note_staged(l);
        if (side == 0)
            side = log_store_epochs(l);
        if (side < 0)
            log_fail(l, side, "writing an index");
    }
    l->staged.count = 0;
    l->staged.size_bytes = 0;
    return err;
}

bool log_append_written(const struct log *l, const struct log_append *a)
{
    /* Offsets alone do not tell: what was staged after an undoing may have got the same ones. */
    return a->undos == l->undos && a->next_offset <= l->end;
}
