/* steps.c - what is done to the log, and what its answers must be. */
#include "libs/base/bytes.h"
#include "libs/records/records.h"
#include "tests/torture/torture.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { TURN = 4, VALUE_MAX = 160, READ_MAX = 1 << 16 };

/* ---- appending ---- */

enum kind {
    KIND_PLAIN,
    KIND_NEXT,        /* of a producer, in order */
    KIND_DUPLICATE,   /* one of its last batches once more */
    KIND_GAP,         /* a sequence too far on */
    KIND_FENCED,      /* an epoch that is over */
    KIND_BUMPED,      /* a new epoch, from sequence 0 */
    KIND_BUMPED_LATE, /* a new epoch, and another sequence */
    KIND_DATA,        /* of a transaction, from a coordinator */
    KIND_MARKER,      /* its end */
    KIND_BROKEN,      /* with a CRC that does not hold */
    KIND_COUNT,
};

struct sending {
    struct fact fact;
    struct buf bytes;
    struct log_append append;
    enum kafka_error expected;
    bool duplicate;  /* must be answered as one, as base */
    bool may_be_gap; /* a duplicate that need not be remembered any more */
    int64_t duplicate_base;
    bool unsure; /* of a producer that may have written in a past that is not known */
    bool staged;
};

static void build(struct node *n, struct sending *s, const struct batch_options *options)
{
    struct batch_builder b;
    uint8_t value[VALUE_MAX];
    batch_begin(&b, &s->bytes, options);
    if (s->fact.marker >= 0) {
        uint8_t body[6] = {0};
        put_i32(body + 2, s->fact.coordinator_epoch);
        s->fact.count = 1;
        s->fact.times[0] = n->now_ms;
        batch_add_control(&b, n->now_ms, (int16_t)s->fact.marker, slice_make(body, sizeof body));
    } else {
        for (int32_t i = 0; i < s->fact.count; i++) {
            uint64_t unique = ++n->unique;
            size_t size = 8 + dice_below(&n->dice, VALUE_MAX - 8);
            memset(value, (int)(unique & 0xff), size);
            memcpy(value, &unique, sizeof unique);
            s->fact.times[i] = n->now_ms - (int64_t)(dice_chance(&n->dice, 30) ? dice_below(&n->dice, 5000) : 0);
            batch_add(&b, s->fact.times[i], slice_make(value, 8), slice_make(value, size), NULL, 0);
        }
    }
    if (batch_end(&b) < 0)
        torture_fail("a batch cannot be built");
    s->fact.body = torture_hash(s->bytes.data + BATCH_HEADER_SIZE, s->bytes.size - BATCH_HEADER_SIZE);
    s->fact.attributes = get_i16(s->bytes.data + BATCH_ATTRIBUTES);
}

static struct known_producer *pick_producer(struct node *n, enum kind kind)
{
    bool transactional = kind == KIND_DATA || kind == KIND_MARKER;
    return &n->known[transactional ? PRODUCERS + (int)dice_below(&n->dice, TRANSACTIONAL)
                                   : (int)dice_below(&n->dice, PRODUCERS)];
}

/* Sequence, epoch and what the answer has to be, of what an idempotent producer sends. */
static void plan_idempotent(struct node *n, enum kind kind, const struct known_producer *p, struct sending *s)
{
    bool has = p->batch_count > 0;
    int32_t next = has ? p->batches[p->batch_count - 1].last_sequence + 1 : 0;
    /* Whose records were all deleted may be known or not. */
    bool sure = p->epoch >= 0 && (p->last_offset >= n->start || !p->reopened);
    s->fact.producer_epoch = p->epoch < 0 ? 0 : p->epoch;
    s->fact.sequence = next;
    s->unsure = n->accepted && p->epoch < 0;
    if (kind == KIND_GAP && sure && has) {
        s->fact.sequence = next + 1 + (int32_t)dice_below(&n->dice, 5);
        s->expected = KERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    } else if (kind == KIND_FENCED && sure && p->epoch > 0) {
        s->fact.producer_epoch = (int16_t)(p->epoch - 1);
        s->expected = KERR_INVALID_PRODUCER_EPOCH;
    } else if (kind == KIND_BUMPED && p->epoch >= 0) {
        s->fact.producer_epoch = (int16_t)(p->epoch + 1);
        s->fact.sequence = 0;
    } else if (kind == KIND_BUMPED_LATE && sure) {
        s->fact.producer_epoch = (int16_t)(p->epoch + 1);
        s->fact.sequence = 3;
        s->expected = KERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    } else if (kind == KIND_DUPLICATE && has && sure) {
        size_t back = dice_below(&n->dice, p->batch_count), k = p->batch_count - 1 - back;
        s->fact.sequence = p->batches[k].first_sequence;
        s->fact.count = p->batches[k].last_sequence - p->batches[k].first_sequence + 1;
        s->duplicate = true;
        s->duplicate_base = p->batches[k].base;
        s->may_be_gap = p->reopened && back > 0;
    }
}

static void plan(struct node *n, enum kind kind, struct sending *s)
{
    struct batch_options o = BATCH_OPTIONS;
    *s = (struct sending){.fact = {.producer_id = -1, .producer_epoch = -1, .sequence = -1, .marker = -1}};
    s->fact.count = 1 + (int32_t)dice_below(&n->dice, RECORDS_MAX);
    const struct known_producer *p = pick_producer(n, kind);
    if (kind == KIND_MARKER && p->txn_first < 0)
        kind = KIND_DATA;
    if (kind != KIND_PLAIN && kind != KIND_BROKEN)
        s->fact.producer_id = p->id;
    if (kind == KIND_DATA || kind == KIND_MARKER) {
        s->append.origin = LOG_FROM_COORDINATOR;
        o.attributes = BATCH_ATTR_TRANSACTIONAL;
        s->fact.producer_epoch = p->epoch < 0 ? 0 : p->epoch;
        s->fact.sequence = p->batch_count ? p->batches[p->batch_count - 1].last_sequence + 1 : 0;
    } else if (s->fact.producer_id >= 0) {
        plan_idempotent(n, kind, p, s);
    }
    if (kind == KIND_MARKER) {
        o.attributes |= BATCH_ATTR_CONTROL;
        s->fact.marker = dice_chance(&n->dice, 50) ? CONTROL_ABORT : CONTROL_COMMIT;
        s->fact.coordinator_epoch = (int32_t)dice_below(&n->dice, 3);
        s->fact.sequence = -1;
    }
    static const int codecs[] = {COMPRESS_NONE, COMPRESS_NONE, COMPRESS_NONE, COMPRESS_LZ4, COMPRESS_ZSTD};
    o.codec = kind == KIND_MARKER ? COMPRESS_NONE : codecs[dice_below(&n->dice, COUNTOF(codecs))];
    o.producer_id = s->fact.producer_id;
    o.producer_epoch = s->fact.producer_epoch;
    o.base_sequence = s->fact.sequence;
    build(n, s, &o);
    if (kind == KIND_BROKEN) {
        s->bytes.data[s->bytes.size - 1] ^= 1;
        s->expected = KERR_CORRUPT_MESSAGE;
    }
}

static enum kind pick_kind(struct node *n)
{
    static const uint8_t weights[KIND_COUNT] = {30, 40, 12, 4, 3, 4, 2, 14, 8, 3};
    static const uint8_t idempotent[KIND_COUNT] = {0, 70, 20, 4, 3, 4, 2, 0, 0, 0};
    const uint8_t *w = n->theme->idempotent ? idempotent : weights;
    uint64_t sum = 0, dice;
    for (int i = 0; i < KIND_COUNT; i++)
        sum += w[i];
    dice = dice_below(&n->dice, sum);
    int k = 0;
    while (dice >= w[k])
        dice -= w[k++];
    return (enum kind)k;
}

/* Stages one, and looks at the answer where it does not depend on the disk. False: the disk did not let it. */
static bool stage(struct node *n, struct sending *s)
{
    s->append.bytes = s->bytes.data;
    s->append.size = s->bytes.size;
    s->append.leader_epoch = (int32_t)n->epoch;
    s->append.now_wall_ms = n->now_ms;
    enum kafka_error error = log_stage(n->log, &s->append);
    free(s->append.record_errors);
    if (error == KERR_KAFKA_STORAGE_ERROR)
        return false;
    if (s->duplicate) {
        bool answered = error == KERR_NONE && s->append.duplicate && s->append.base_offset == s->duplicate_base;
        if (!answered && !(s->may_be_gap && error == KERR_OUT_OF_ORDER_SEQUENCE_NUMBER))
            torture_fail("a duplicate of offset %" PRId64 " of producer %" PRId64 " is answered %s, offset %" PRId64,
                         s->duplicate_base, s->fact.producer_id, kafka_error_name((int)error), s->append.base_offset);
        torture_cover(answered ? "duplicate known" : "duplicate forgotten after a start");
        return true;
    }
    if (s->unsure && error != KERR_NONE)
        return true;
    if (error != s->expected || s->append.duplicate)
        torture_fail("sequence %d, epoch %d of producer %" PRId64 " is answered %s, not %s", s->fact.sequence,
                     s->fact.producer_epoch, s->fact.producer_id, kafka_error_name((int)error),
                     kafka_error_name((int)s->expected));
    if (error != KERR_NONE) {
        torture_cover(kafka_error_name((int)error));
        return true;
    }
    s->staged = true;
    s->fact.base = s->append.base_offset;
    s->fact.next = s->append.next_offset;
    s->fact.leader_epoch = (int32_t)n->epoch;
    s->fact.append_time = n->config.log_append_time && s->append.origin == LOG_FROM_CLIENT;
    if (s->fact.append_time) {
        s->fact.attributes |= BATCH_ATTR_LOG_APPEND_TIME;
        for (int32_t i = 0; i < s->fact.count; i++)
            s->fact.times[i] = n->now_ms;
    }
    known_apply(n->known, &s->fact);
    return true;
}

static void relearn(struct node *n)
{
    bool reopened[KNOWN];
    for (int i = 0; i < KNOWN; i++)
        reopened[i] = n->known[i].reopened;
    known_clear(n->known);
    for (size_t i = 0; i < n->acked.count; i++)
        known_apply(n->known, &n->acked.at[i]);
    for (int i = 0; i < KNOWN; i++)
        n->known[i].reopened = reopened[i];
}

/* Commits; with flush.messages=1 the answer follows a flush. True: what log_append_written says is answered. */
static bool settle(struct node *n)
{
    int err = log_commit(n->log);
    if (err == 0 && n->theme->flush_each) {
        int64_t end = log_end(n->log);
        err = log_flush(n->log);
        if (err == 0)
            n->durable = end;
    }
    torture_note("  commit: %s, end %" PRId64, strerror(-err), log_end(n->log));
    return err == 0;
}

static void step_append(struct node *n)
{
    struct sending s[TURN];
    size_t count = 1 + dice_below(&n->dice, TURN);
    for (size_t i = 0; i < count; i++) {
        plan(n, pick_kind(n), &s[i]);
        /* What was staged before may have been taken back, too: what comes next would be out of order. */
        if (!stage(n, &s[i]))
            count = i + 1;
    }
    bool answered = settle(n), all = true;
    /* Not answered, but the log goes on: it was taken back, unless only the flush was put off. */
    bool up = node_is_up(n);
    for (size_t i = 0; i < count; i++) {
        if (!s[i].staged)
            continue;
        bool written = log_append_written(n->log, &s[i].append);
        if (written && up)
            facts_push(&n->acked, &s[i].fact);
        else if (!up)
            facts_push(answered && written ? &n->acked : &n->flying, &s[i].fact);
        else
            torture_cover("an append was taken back");
        all = all && written;
    }
    if (!all)
        relearn(n);
    for (size_t i = 0; i < count; i++)
        buf_free(&s[i].bytes);
}

/* ---- reading ---- */

static void check_batch(struct node *n, int64_t offset, const uint8_t *p, size_t size)
{
    size_t low = 0, high = n->acked.count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (n->acked.at[mid].next <= offset)
            low = mid + 1;
        else
            high = mid;
    }
    const struct fact *f = low < n->acked.count ? &n->acked.at[low] : NULL;
    if (f == NULL || size < BATCH_HEADER_SIZE || get_i64(p) != f->base)
        torture_fail("offset %" PRId64 " is read as a batch at %" PRId64 " of %zu bytes", offset,
                     size >= 8 ? get_i64(p) : -1, size);
    size_t length = (size_t)get_u32(p + BATCH_LENGTH) + BATCH_LENGTH_OVERHEAD;
    if (length <= size && torture_hash(p + BATCH_HEADER_SIZE, length - BATCH_HEADER_SIZE) != f->body)
        torture_fail("offset %" PRId64 " is read with other records", offset);
}

static void check_held(struct node *n, struct held *h)
{
    uint8_t *bytes = xmalloc(h->size_bytes);
    int err = file_read_all(&n->fs, h->fd, bytes, h->size_bytes, h->position);
    if (err < 0 ? err != -EIO && err != -ENOSPC && err != -EBADF : torture_hash(bytes, h->size_bytes) != h->hash)
        torture_fail("what a reader was given has changed: %s", strerror(-err));
    free(bytes);
    if (dice_chance(&n->dice, 50))
        h->fd = file_close(&n->fs, h->fd);
}

static void hold(struct node *n, const struct log_range *range, const uint8_t *bytes)
{
    struct held *h = &n->held[dice_below(&n->dice, HELD)];
    struct log_file file;
    if (h->fd >= 0)
        check_held(n, h);
    h->fd = file_close(&n->fs, h->fd);
    if (log_file(n->log, range, &file) == 0)
        *h = (struct held){file.fd, range->position, range->size_bytes, torture_hash(bytes, range->size_bytes)};
}

static void step_read(struct node *n)
{
    struct log_range range;
    int64_t start = log_start(n->log), end = log_end(n->log);
    int64_t offset = start - 1 + (int64_t)dice_below(&n->dice, (uint64_t)(end - start) + 3);
    int64_t upper = dice_chance(&n->dice, 70) ? end : log_last_stable(n->log);
    size_t max_bytes = dice_below(&n->dice, 3000);
    enum kafka_error error = log_locate(n->log, offset, upper, max_bytes, true, &range);
    if (error == KERR_KAFKA_STORAGE_ERROR && !node_is_up(n))
        return;
    if (error != (offset < start || offset > end ? KERR_OFFSET_OUT_OF_RANGE : KERR_NONE))
        torture_fail("a read at %" PRId64 " of %" PRId64 " .. %" PRId64 " is answered %s", offset, start, end,
                     kafka_error_name((int)error));
    if (error != KERR_NONE)
        return;
    if ((range.size_bytes > 0) != (offset < upper) && n->acked.count > 0 && offset < end)
        torture_fail("a read at %" PRId64 " below %" PRId64 " gives %zu bytes", offset, upper, range.size_bytes);
    if (range.size_bytes == 0 || range.size_bytes > READ_MAX)
        return;
    uint8_t *bytes = xmalloc(range.size_bytes);
    if (log_copy(n->log, &range, bytes) == 0) {
        check_batch(n, offset, bytes, range.size_bytes);
        if (dice_chance(&n->dice, 40))
            hold(n, &range, bytes);
    }
    free(bytes);
    for (int i = 0; i < HELD; i++) {
        if (n->held[i].fd >= 0 && node_is_up(n))
            check_held(n, &n->held[i]);
    }
}

/* ---- look-ups ---- */

static void look_up_time(struct node *n, int64_t time_ms)
{
    struct log_offset found;
    int64_t want = -1, want_time = -1, start = log_start(n->log);
    if (log_offset_by_time(n->log, time_ms, &found, NULL) != KERR_NONE)
        return;
    for (size_t i = 0; i < n->acked.count && want < 0; i++) {
        const struct fact *f = &n->acked.at[i];
        for (int32_t k = 0; k < f->count && want < 0; k++) {
            if (f->base + k >= start && f->times[k] >= time_ms) {
                want = f->base + k;
                want_time = f->times[k];
            }
        }
    }
    if (found.offset != want || found.timestamp != want_time)
        torture_fail("time %" PRId64 " is looked up as offset %" PRId64 " with time %" PRId64 ", it is %" PRId64
                     " with %" PRId64,
                     time_ms, found.offset, found.timestamp, want, want_time);
}

static void look_up_max(struct node *n)
{
    struct log_offset found;
    int64_t start = log_start(n->log), max = -1, at = -1;
    bool whole = true; /* the largest time of the records that DeleteRecords left */
    if (log_offset_of_max_time(n->log, &found, NULL) != KERR_NONE)
        return;
    for (size_t i = 0; i < n->acked.count; i++) {
        const struct fact *f = &n->acked.at[i];
        for (int32_t k = 0; k < f->count; k++) {
            if (f->base + k < start && f->next > log_first_segment(n->log))
                whole = false;
            if (f->base + k >= start && f->times[k] > max) {
                max = f->times[k];
                at = f->base + k;
            }
        }
    }
    if (whole && (found.offset != at || found.timestamp != max))
        torture_fail("the largest time is looked up as %" PRId64 " at offset %" PRId64 ", it is %" PRId64
                     " at %" PRId64,
                     found.timestamp, found.offset, max, at);
}

static void look_up_epoch(struct node *n)
{
    int64_t start = log_start(n->log), want_end = -1;
    int32_t want = -1, got, asked = (int32_t)dice_below(&n->dice, (uint64_t)n->epoch + 2);
    int64_t got_end;
    log_end_of_epoch(n->log, asked, &got, &got_end);
    for (size_t i = 0; i < n->acked.count; i++) {
        const struct fact *f = &n->acked.at[i];
        if (f->next <= start)
            continue;
        if (log_epoch_of_offset(n->log, MAX(f->base, start)) != f->leader_epoch)
            torture_fail("offset %" PRId64 " has epoch %d, not %d", f->base, f->leader_epoch,
                         log_epoch_of_offset(n->log, MAX(f->base, start)));
        if (f->leader_epoch > asked) {
            want = MAX(want, 0);
            want_end = MAX(f->base, start);
            break;
        }
        want = f->leader_epoch;
    }
    if (want_end >= 0 && got_end != want_end)
        torture_fail("epoch %d ends at %" PRId64 ", not %" PRId64, asked, got_end, want_end);
}

static void look_up_stable(struct node *n)
{
    int64_t want = log_high_watermark(n->log);
    for (int i = 0; i < KNOWN; i++) {
        if (n->known[i].txn_first >= 0)
            want = MIN(want, n->known[i].txn_first);
    }
    /* The records of an open transaction may be deleted, and a start need not know of it then. */
    if (log_last_stable(n->log) != want && want >= n->start)
        torture_fail("the last stable offset is %" PRId64 ", not %" PRId64, log_last_stable(n->log), want);
}

static void step_look_up(struct node *n)
{
    switch (dice_below(&n->dice, 4)) {
    case 0: look_up_time(n, n->now_ms - (int64_t)dice_below(&n->dice, 20000)); break;
    case 1: look_up_max(n); break;
    case 2: look_up_epoch(n); break;
    case 3: look_up_stable(n); break;
    }
}

/* ---- keeping and removing ---- */

static void step_roll(struct node *n)
{
    int err = log_roll(n->log, n->now_ms);
    torture_note("  roll: %s", strerror(-err));
    n->ended = n->ended || (err < 0 && err != -ENOSPC);
}

static void step_retain(struct node *n)
{
    uint64_t before = log_size_bytes(n->log);
    int64_t start = log_start(n->log);
    n->may_start = log_end(n->log);
    int removed = log_retain(n->log, n->now_ms);
    torture_note("  retain: %d, start %" PRId64, removed, log_start(n->log));
    if (!node_is_up(n))
        return;
    int64_t limit = n->config.retention_bytes;
    if (removed > 0 && limit >= 0 && log_first_segment(n->log) > start &&
        log_size_bytes(n->log) < MIN(before, (uint64_t)limit))
        torture_fail("retention left %" PRIu64 " of %" PRIu64 " bytes", log_size_bytes(n->log), before);
    if (removed > 0)
        torture_cover("segments retired");
    n->start = log_start(n->log);
    n->may_start = -1;
}

static void step_truncate(struct node *n)
{
    int64_t start = log_start(n->log), end = log_end(n->log);
    int64_t to = start + (int64_t)dice_below(&n->dice, (uint64_t)(end - start) + 1);
    if (to >= end)
        return;
    /* The checkpoint comes first: it must not promise what is about to be cut. */
    size_t keep = n->acked.count;
    while (keep > 0 && n->acked.at[keep - 1].next > to)
        keep--;
    int64_t cut = keep > 0 ? n->acked.at[keep - 1].next : log_first_segment(n->log);
    struct logdir_offset line = {NODE_TOPIC, 0, MIN(cut, log_recovery_point(n->log))};
    if (node_write_checkpoint(n, LOGDIR_RECOVERY_POINTS, &line, 1) < 0)
        return;
    n->may_start = start;
    int err = log_truncate(n->log, to);
    if (err == 0 && log_start(n->log) < start && node_write_starts(n) == 0)
        n->may_start = -1;
    torture_note("  truncate to %" PRId64 ": %s, end %" PRId64, to, strerror(-err), log_end(n->log));
    n->durable = MIN(n->durable, cut);
    if (err < 0) {
        for (size_t i = keep; i < n->acked.count; i++) {
            facts_push(&n->flying, &n->acked.at[i]);
            facts_push(&n->cut, &n->acked.at[i]);
        }
    }
    n->acked.count = keep;
    relearn(n);
    n->deleted_to = MIN(n->deleted_to, log_end(n->log));
    n->start = MIN(n->start, log_end(n->log));
    for (int i = 0; i < KNOWN; i++)
        n->known[i].reopened = true;
    torture_cover("truncated");
}

static void step_delete_records(struct node *n)
{
    int64_t low = log_start(n->log), high = log_high_watermark(n->log);
    int64_t to = low + (int64_t)dice_below(&n->dice, (uint64_t)(high - low) + 1);
    n->may_start = to;
    int err = log_delete_before(n->log, to);
    if (err == 0)
        err = node_write_starts(n);
    torture_note("  delete before %" PRId64 ": %s", to, strerror(-err));
    n->start = MAX(n->start, log_start(n->log));
    if (err < 0)
        return; /* a full disk: it holds once the next checkpoint is written */
    n->deleted_to = MAX(n->deleted_to, to);
    n->may_start = -1;
    torture_cover("records deleted");
}

static void step_restart_at(struct node *n)
{
    int64_t to = log_end(n->log) + (int64_t)dice_below(&n->dice, 50);
    struct logdir_offset line = {NODE_TOPIC, 0, 0};
    if (node_write_checkpoint(n, LOGDIR_RECOVERY_POINTS, &line, 1) < 0)
        return;
    int err = log_restart_at(n->log, to, n->now_ms);
    torture_note("  begin anew at %" PRId64 ": %s", to, strerror(-err));
    n->unflushed_anew = true;
    n->anew_failed = err < 0;
    n->acked.count = 0;
    n->durable = to;
    n->start = to;
    known_clear(n->known);
    torture_cover("begun anew");
}

/* The topic is deleted and made again. */
static void step_delete_log(struct node *n)
{
    char *path = NULL;
    struct uuid unique = {{(uint8_t)n->opens, (uint8_t)(n->opens >> 8), 1}};
    n->topic++;
    n->acked.count = n->flying.count = n->cut.count = 0;
    n->durable = n->start = n->deleted_to = 0;
    n->epoch = 0;
    n->unflushed_anew = false;
    known_clear(n->known);
    int err = log_delete(TAKE_PTR(n->log), unique, &path);
    torture_note("  delete: %s", strerror(-err));
    if (err == 0)
        err = node_write_checkpoints(n);
    if (err == 0)
        err = file_remove_tree(&n->fs, path);
    free(path);
    if (err == 0)
        err = node_start(n);
    torture_cover("deleted and made again");
}

/* ---- flushing, settings, time ---- */

static void step_flush(struct node *n)
{
    int64_t end = log_end(n->log);
    int err = log_flush(n->log);
    torture_note("  flush to %" PRId64 ": %s", end, strerror(-err));
    if (err == 0 && log_recovery_point(n->log) != end)
        torture_fail("flushed to %" PRId64 ", the recovery point is %" PRId64, end, log_recovery_point(n->log));
    if (err == 0) {
        n->durable = end;
        n->cut.count = 0;
        n->unflushed_anew = n->unflushed_anew && end == log_first_segment(n->log);
    }
}

static void step_checkpoint(struct node *n)
{
    torture_note("  checkpoints: %s", strerror(-node_write_checkpoints(n)));
}

static void step_epoch(struct node *n)
{
    n->epoch += 1 + (int64_t)dice_below(&n->dice, 2);
    log_assign_epoch(n->log, (int32_t)n->epoch);
}

static void step_settings(struct node *n)
{
    struct log_config *c = &n->config;
    switch (dice_below(&n->dice, 6)) {
    case 0: c->segment_bytes = n->theme->segment_bytes + (int32_t)dice_below(&n->dice, 3000); break;
    case 1: c->index_interval_bytes = (int32_t)dice_below(&n->dice, 1000); break;
    case 2: c->log_append_time = !c->log_append_time; break;
    case 3: c->segment_ms = 1000 + (int64_t)dice_below(&n->dice, 100000); break;
    case 4: c->preallocate = !c->preallocate; break;
    case 5: c->segment_index_bytes = 60 + (int32_t)dice_below(&n->dice, 400); break;
    }
    log_set_config(n->log, c);
}

static void step_tick(struct node *n)
{
    n->now_ms += (int64_t)dice_below(&n->dice, 2000);
    log_tick(n->log, n->now_ms);
}

static void step_stop(struct node *n)
{
    if (node_stop(n) == 0) {
        node_check_files(n);
        if (node_start(n) == 0 && node_is_up(n))
            node_check_content(n);
    }
}

static void do_step(struct node *n, enum step step);

static enum step pick_step(struct node *n)
{
    uint64_t sum = 0, dice;
    for (int i = 0; i < STEP_COUNT; i++)
        sum += n->theme->weights[i];
    dice = dice_below(&n->dice, sum);
    int k = 0;
    while (dice >= n->theme->weights[k])
        dice -= n->theme->weights[k++];
    return (enum step)k;
}

/* The slow part may run while the log is written on, rolled, cut. */
static void step_slow_flush(struct node *n)
{
    int64_t end = log_end(n->log);
    unsigned cut = 0;
    struct log_flush *f = log_flush_begin(n->log);
    if (f == NULL)
        return;
    if (dice_chance(&n->dice, 50))
        log_flush_run(f);
    for (int i = 0; i < 2 && node_is_up(n); i++) {
        enum step between = pick_step(n);
        /* There is one flush at a time of a log, as in storage. */
        bool apart = between == STEP_STOP || between == STEP_FLUSH || between == STEP_DELETE_LOG ||
                     between == STEP_SLOW_FLUSH || between == STEP_RESTART_AT;
        cut += between == STEP_TRUNCATE;
        if (!apart)
            do_step(n, between);
    }
    log_flush_run(f);
    int err = log_flush_end(n->log, f);
    if (err == 0 && cut == 0 && node_is_up(n))
        n->durable = MAX(n->durable, end);
}

static void do_step(struct node *n, enum step step)
{
    static const char *const names[STEP_COUNT] = {"append", "read",       "look up", "roll",      "retain", "truncate",
                                                  "delete", "flush",      "slow",    "check",     "epoch",  "settings",
                                                  "tick",   "clean stop", "anew",    "delete log"};
    torture_note("step %" PRIu64 " %s", n->steps, names[step]);
    switch (step) {
    case STEP_APPEND: step_append(n); break;
    case STEP_READ: step_read(n); break;
    case STEP_LOOK_UP: step_look_up(n); break;
    case STEP_ROLL: step_roll(n); break;
    case STEP_RETAIN: step_retain(n); break;
    case STEP_TRUNCATE: step_truncate(n); break;
    case STEP_DELETE_RECORDS: step_delete_records(n); break;
    case STEP_FLUSH: step_flush(n); break;
    case STEP_SLOW_FLUSH: step_slow_flush(n); break;
    case STEP_CHECKPOINT: step_checkpoint(n); break;
    case STEP_EPOCH: step_epoch(n); break;
    case STEP_SETTINGS: step_settings(n); break;
    case STEP_TICK: step_tick(n); break;
    case STEP_STOP: step_stop(n); break;
    case STEP_RESTART_AT: step_restart_at(n); break;
    case STEP_DELETE_LOG: step_delete_log(n); break;
    case STEP_COUNT: break;
    }
}

bool node_step(struct node *n)
{
    n->steps++;
    n->now_ms += (int64_t)dice_below(&n->dice, 300);
    do_step(n, pick_step(n));
    return node_is_up(n);
}
