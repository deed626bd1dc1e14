/* world_log.c - one partition log on the simulated disk: a producer that knows what was acknowledged, a reader that
 * checks every byte, and a machine that is killed, loses power, runs full, or whose disk fails. The log is cut as a
 * follower's is, and moves between two directories while it is written.
 *
 * Promises: what log_commit acknowledged survives kill -9 at any call; what log_flush made durable survives a power cut
 * at any call; nothing appears that was not sent, nothing twice, nothing out of order; a log always opens again. */
#include "libs/log/log.h"
#include "libs/log/logdir.h"
#include "tests/sim/log_mover.h"

#include <stdio.h>
#include <stdlib.h>

enum { PRODUCERS = 3, VALUE_MAX = 700, FOLDER_BYTES = 64 };

/* A batch that was sent, in the order of the log. */
struct sent {
    int64_t base_offset, next_offset; /* where it was acknowledged */
    uint32_t crc;
    int32_t producer; /* -1: none */
    int32_t sequence;
};

struct world {
    bool failed; /* the life before, by an error of the disk: a flush may have failed */
    struct sim *sim;
    struct disk *disk;
    struct file_system fs;
    struct log *log;
    struct log_config config;
    struct sent *sent; /* acknowledged, by offset */
    size_t count, room;
    struct sent *flying; /* staged and not acknowledged when the process died */
    size_t flying_count, flying_room;
    struct sent *cut; /* by truncations and power cuts since the last flush: another power cut may bring it back */
    size_t cut_count, cut_room;
    bool cut_failed; /* the last one: what it was to cut may be there without a power cut, too */
    struct log_mover mover;
    int64_t start;        /* the log start that was acknowledged */
    int64_t durable;      /* everything before it survives a power cut */
    int64_t checkpointed; /* the recovery point that the node has written down */
    int32_t next_sequence[PRODUCERS];
    uint64_t value;
    int lives;
};

static void note_line(void *ctx, int level, const char *text)
{
    struct world *w = ctx;
    sim_note(w->sim, "log says (%d) %s", level, text);
}

static void push(struct sent **list, size_t *count, size_t *room, struct sent s)
{
    if (*count == *room)
        *list = xrealloc(*list, (*room = *room * 2 + 64) * sizeof **list);
    (*list)[(*count)++] = s;
}

/* Opens until it works: a fault that was armed may hit the opening, too. */
static void open_log(struct world *w, bool clean)
{
    struct log_options o = {.fs = &w->fs,
                            .dir = mover_dir(&w->mover),
                            .config = w->config,
                            .topic_id = {{1, 2, 3}},
                            .clean = clean,
                            .rewrite = w->failed,
                            .recovery_point = w->checkpointed,
                            .log_start_offset = w->start,
                            .high_watermark = w->checkpointed,
                            .now_wall_ms = sim_wall_ms(w->sim),
                            .jitter_seed = 7,
                            .note = note_line,
                            .note_ctx = w};
    int error = log_open(&o, &w->log);
    if (error)
        sim_fail(w->sim, "the log does not open: %s", strerror(-error));
    /* As storage does it: what a failed flush left is written and flushed before anything builds on it. */
    if (w->failed && log_flush(w->log) < 0)
        sim_fail(w->sim, "what is written again cannot be flushed");
    w->failed = false;
    w->lives++;
    sim_note(w->sim, "open: start %lld end %lld", (long long)log_start(w->log), (long long)log_end(w->log));
}

/* Everything from the log start on, batch by batch, against what was sent. Batches behind the last acknowledged one
 * must be those in flight, in their order, and count as acknowledged from now on (a client that retried would be told
 * so). */
static void check_content(struct world *w)
{
    int64_t at = log_start(w->log), end = log_end(w->log);
    size_t i = 0, flying = 0;
    uint8_t *bytes = xmalloc(1 << 20);

    while (i < w->count && w->sent[i].next_offset <= at)
        i++;
    while (at < end) {
        struct log_range range;
        struct batch b;
        struct slice rest, whole;
        if (log_locate(w->log, at, end, 1 << 20, true, &range) != KERR_NONE || range.size_bytes == 0)
            sim_fail(w->sim, "nothing to read at offset %lld, the end is %lld", (long long)at, (long long)end);
        if (log_copy(w->log, &range, bytes))
            sim_fail(w->sim, "the bytes at offset %lld cannot be read", (long long)at);
        rest = slice_make(bytes, range.size_bytes);
        while (batch_next(&rest, &b, &whole) == 1) {
            if (batch_next_offset(&b) <= at)
                continue;
            if (!batch_crc_holds(&b, whole))
                sim_fail(w->sim, "the CRC at offset %lld is wrong", (long long)b.base_offset);
            if (i == w->count) {
                flying = w->cut_count > 0 ? 0 : flying; /* old and new bytes side by side have no order */
                while (flying < w->flying_count && w->flying[flying].crc != b.crc)
                    flying++;
                if (flying == w->flying_count)
                    sim_fail(w->sim, "offset %lld holds a batch that was never sent", (long long)b.base_offset);
                struct sent s = w->flying[flying++];
                s.base_offset = b.base_offset;
                s.next_offset = batch_next_offset(&b);
                push(&w->sent, &w->count, &w->room, s);
                if (s.producer >= 0)
                    w->next_sequence[s.producer] =
                        records_sequence_add(s.sequence, (int32_t)(s.next_offset - s.base_offset));
                sim_cover("a batch in flight survived");
            }
            const struct sent *s = &w->sent[i++];
            if (s->base_offset != b.base_offset || s->next_offset != batch_next_offset(&b) || s->crc != b.crc)
                sim_fail(w->sim, "offset %lld holds another batch than the one acknowledged as %lld",
                         (long long)b.base_offset, (long long)s->base_offset);
            at = batch_next_offset(&b);
        }
    }
    free(bytes);
    if (i < w->count)
        sim_fail(w->sim, "acknowledged offset %lld is lost: the log ends at %lld", (long long)w->sent[i].base_offset,
                 (long long)end);
    w->flying_count = 0;
}

/* After a power cut: what was not durable may be gone, from the end. */
static void forget_lost(struct world *w)
{
    int64_t end = log_end(w->log);

    if (end < w->durable && log_start(w->log) < w->durable)
        sim_fail(w->sim, "the log ends at %lld, but %lld was flushed", (long long)end, (long long)w->durable);
    /* Where something was cut, older bytes may be in the place of later ones. */
    int64_t known = w->cut_count > 0 ? MAX(w->durable, w->start) : MAX(end, w->durable);
    while (w->count > 0 && w->sent[w->count - 1].next_offset > known) {
        /* What is gone may come again as what was in flight. */
        push(&w->cut, &w->cut_count, &w->cut_room, w->sent[--w->count]);
        sim_cover("a batch was lost in a power cut, unflushed");
    }
}

/* What a producer that asks anew would go on with. */
static void recount_sequences(struct world *w)
{
    for (int p = 0; p < PRODUCERS; p++)
        w->next_sequence[p] = 0;
    for (size_t i = 0; i < w->count; i++) {
        const struct sent *s = &w->sent[i];
        if (s->producer >= 0)
            w->next_sequence[s->producer] =
                records_sequence_add(s->sequence, (int32_t)(s->next_offset - s->base_offset));
    }
}

static void note_name(void *arg, const char *name)
{
    struct world *w = arg;
    struct file_stat st = {0};
    char path[2 * FOLDER_BYTES];

    snprintf(path, sizeof path, "%s/%.60s", mover_dir(&w->mover), name);
    (void)file_stat(&w->fs, path, &st);
    sim_note(w->sim, "  %s %llu", name, (unsigned long long)st.size_bytes);
}

static void revive(struct world *w)
{
    bool power = sim_chance(w->sim, 400);

    mover_stop(&w->mover);
    w->failed = log_failed(w->log) != 0;
    log_abandon(w->log);
    if (power)
        disk_power_cut(w->disk);
    else
        disk_restart(w->disk);
    disk_set_capacity(w->disk, 0);
    mover_find(&w->mover, w->durable > 0);
    sim_note(w->sim, "%s, disk %016llx", power ? "power cut" : "kill", (unsigned long long)disk_hash(w->disk));
    sim_cover(power ? "power cut" : "kill -9");
    (void)file_list(&w->fs, mover_dir(&w->mover), note_name, w);
    open_log(w, false);
    if (power)
        forget_lost(w);
    for (size_t i = 0; i < w->cut_count && (power || w->cut_failed); i++)
        push(&w->flying, &w->flying_count, &w->flying_room, w->cut[i]);
    recount_sequences(w);
    check_content(w);
    w->cut_failed = false;
    w->start = log_start(w->log);
}

static struct buf build(struct world *w, struct sent *s)
{
    static const int codecs[] = {0, 0, 0, 0, 3, 4};
    struct buf out = {0};
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    uint8_t value[VALUE_MAX];
    int records = 1 + (int)sim_below(w->sim, 5);

    o.base_offset = 0;
    o.codec = codecs[sim_below(w->sim, COUNTOF(codecs))];
    s->producer = (int32_t)sim_below(w->sim, PRODUCERS + 1) - 1;
    s->sequence = -1;
    if (s->producer >= 0) {
        o.producer_id = 1000 + s->producer;
        o.producer_epoch = 0;
        o.base_sequence = s->sequence = w->next_sequence[s->producer];
    }
    batch_begin(&b, &out, &o);
    for (int i = 0; i < records; i++) {
        uint64_t unique = ++w->value;
        size_t size = 8 + sim_below(w->sim, VALUE_MAX - 8);
        memset(value, (int)(unique & 0xff), size);
        memcpy(value, &unique, sizeof unique);
        batch_add(&b, sim_wall_ms(w->sim), slice_make(value, 8), slice_make(value, size), NULL, 0);
    }
    if (batch_end(&b))
        sim_fail(w->sim, "a batch cannot be built");
    return out;
}

static void step_append(struct world *w)
{
    enum { TURN = 4 };
    struct log_append a[TURN];
    struct buf bytes[TURN];
    struct sent s[TURN];
    size_t n = 1 + sim_below(w->sim, TURN), staged = 0;

    for (size_t i = 0; i < n; i++) {
        bytes[i] = build(w, &s[i]);
        a[i] = (struct log_append){.bytes = bytes[i].data,
                                   .size = bytes[i].size,
                                   .origin = LOG_FROM_CLIENT,
                                   .now_wall_ms = sim_wall_ms(w->sim)};
        enum kafka_error error = log_stage(w->log, &a[i]);
        if (error != KERR_NONE && !disk_is_dead(w->disk) && !log_failed(w->log) && error != KERR_KAFKA_STORAGE_ERROR)
            sim_fail(w->sim, "a good batch is refused: %s", kafka_error_name((int)error));
        struct batch b;
        if (batch_read_header(buf_slice(&bytes[i]), &b))
            sim_fail(w->sim, "a built batch has no header");
        s[i].crc = b.crc;
        if (error != KERR_NONE) {
            n = i + 1;
            break;
        }
        s[i].base_offset = a[i].base_offset;
        s[i].next_offset = a[i].next_offset;
        if (s[i].producer >= 0)
            w->next_sequence[s[i].producer] =
                records_sequence_add(s[i].sequence, (int32_t)(a[i].next_offset - a[i].base_offset));
        staged++;
    }
    int error = log_commit(w->log);
    for (size_t i = 0; i < staged; i++) {
        if (error == 0 && s[i].next_offset <= log_end(w->log))
            push(&w->sent, &w->count, &w->room, s[i]);
        else
            push(&w->flying, &w->flying_count, &w->flying_room, s[i]);
    }
    sim_note(w->sim, "append %zu of %zu: %d, end %lld", staged, n, error, (long long)log_end(w->log));
    for (size_t i = 0; i < n; i++)
        buf_free(&bytes[i]);
    recount_sequences(w);
    if (error == -ENOSPC && log_failed(w->log) == 0) {
        sim_cover("append on a full disk");
        disk_set_capacity(w->disk, 0);
        /* The log goes on as before: none of it may be there. */
        w->flying_count -= staged;
        check_content(w);
    }
}

/* A flush, or one that leaves a mark for the next start. */
static int flush(struct world *w)
{
    if (!sim_chance(w->sim, 400))
        return log_flush(w->log);
    struct log_flush *f = log_mark_begin(w->log);
    if (f == NULL)
        return log_flush(w->log);
    log_flush_run(f);
    sim_cover("marked");
    return log_flush_end(w->log, f);
}

static void step_flush(struct world *w)
{
    int64_t end = log_end(w->log);
    int error = flush(w);

    if (error == 0) {
        w->durable = end;
        w->cut_count = 0;
        if (sim_chance(w->sim, 500))
            w->checkpointed = log_recovery_point(w->log);
    }
    sim_note(w->sim, "flush %d to %lld", error, (long long)end);
}

static void step_delete(struct world *w)
{
    int64_t low = log_start(w->log), high = log_high_watermark(w->log);
    if (w->cut_count >
        0) /* what is before the start is not read again: nobody could tell what a power cut leaves there */
        high = MIN(high, MAX(low, w->durable));
    int64_t to = low + (int64_t)sim_below(w->sim, (uint64_t)(high - low) + 1);
    int error = log_delete_before(w->log, to);

    sim_note(w->sim, "delete before %lld: %d", (long long)to, error);
    if (error == 0) {
        w->start = to; /* the node writes it to its checkpoint before it answers */
        sim_cover("records deleted");
    }
}

/* As a follower whose leader has other records: what is cut is nobody's any more. The node writes the recovery points
 * down before it goes on. */
static void step_truncate(struct world *w)
{
    int64_t end = log_end(w->log), low = MAX(log_start(w->log), end - 40);
    int64_t to = low + (int64_t)sim_below(w->sim, (uint64_t)(end - low) + 1);
    int error = log_truncate(w->log, to);

    sim_note(w->sim, "truncate to %lld: %d, end %lld", (long long)to, error, (long long)log_end(w->log));
    if (error != 0 && !disk_is_dead(w->disk) && log_failed(w->log) == 0) {
        check_content(w);
        return;
    }
    if (error == 0 && log_end(w->log) > to)
        sim_fail(w->sim, "truncated to %lld, the log ends at %lld", (long long)to, (long long)log_end(w->log));
    size_t kept = w->count;
    w->cut_failed = error != 0;
    while (kept > 0 && w->sent[kept - 1].next_offset > to)
        kept--;
    for (size_t i = kept; i < w->count; i++)
        push(&w->cut, &w->cut_count, &w->cut_room, w->sent[i]);
    sim_cover(kept < w->count ? "a log was truncated" : "a log was truncated at its end");
    w->count = kept;
    w->durable = MIN(w->durable, kept > 0 ? w->sent[kept - 1].next_offset : w->start);
    w->checkpointed = MIN(w->checkpointed, w->durable);
    recount_sequences(w);
    if (error == 0)
        check_content(w);
}

static void step_move(struct world *w)
{
    mover_step(&w->mover, w->log);
}

static void step_time_lookup(struct world *w)
{
    struct log_offset o;
    int64_t time_ms = sim_wall_ms(w->sim) - (int64_t)sim_below(w->sim, 20000);

    if (log_offset_by_time(w->log, time_ms, &o, NULL) != KERR_NONE)
        return;
    if (o.offset >= 0 && (o.offset < log_start(w->log) || o.offset >= log_end(w->log) || o.timestamp < time_ms))
        sim_fail(w->sim, "offset %lld with time %lld for time %lld", (long long)o.offset, (long long)o.timestamp,
                 (long long)time_ms);
    sim_note(w->sim, "time %lld is offset %lld", (long long)time_ms, (long long)o.offset);
}

static void step_reopen(struct world *w)
{
    int64_t end = log_end(w->log);
    mover_stop(&w->mover);
    int error = log_close(w->log, sim_wall_ms(w->sim));

    sim_note(w->sim, "close %d", error);
    w->failed = error < 0;
    if (error == 0) {
        w->cut_count = 0;
        w->durable = end;
        w->checkpointed = end;
        sim_cover("clean stop");
    }
    disk_restart(w->disk);
    disk_set_capacity(w->disk, 0);
    mover_find(&w->mover, w->durable > 0);
    open_log(w, error == 0);
    check_content(w);
}

static void step_fault(struct world *w)
{
    switch (sim_below(w->sim, 4)) {
    case 0: disk_die_after(w->disk, sim_below(w->sim, 12)); break;
    case 1:
        disk_short_after(w->disk, sim_below(w->sim, 6));
        sim_cover("short write armed");
        break;
    case 2:
        disk_set_capacity(w->disk, 1); /* nothing more fits */
        break;
    case 3:
        disk_fail_after(w->disk, sim_below(w->sim, 12), 1, EIO);
        sim_cover("EIO armed");
        break;
    }
}

static void step(struct world *w)
{
    static void (*const steps[])(struct world *) = {step_flush, step_delete,   step_time_lookup, step_fault,
                                                    step_move,  step_truncate, step_reopen};
    static const uint64_t weights[] = {80, 10, 60, 40, 350, 15, 15};
    uint64_t dice = sim_below(w->sim, 1000);

    sim_pass(w->sim, 1 + sim_below(w->sim, 400));
    for (size_t i = 0; i < COUNTOF(steps); i++) {
        if (dice < weights[i]) {
            steps[i](w);
            return;
        }
        dice -= weights[i];
    }
    if (dice < 10) {
        int n = log_retain(w->log, sim_wall_ms(w->sim));
        sim_note(w->sim, "retain: %d", n);
        w->start = log_start(w->log);
        return;
    }
    if (dice < 30)
        check_content(w);
    step_append(w);
}

static void run(struct sim *sim, uint64_t steps)
{
    struct world w = {.sim = sim, .disk = disk_new(sim_random(sim))};

    w.fs = disk_fs(w.disk);
    mover_init(&w.mover, sim, w.disk);
    log_config_init(&w.config);
    w.config.segment_bytes = 5000 + (int32_t)sim_below(sim, 20000);
    w.config.index_interval_bytes = 200 + (int32_t)sim_below(sim, 4000);
    w.config.segment_index_bytes = 800;
    w.config.segment_ms = 60000;
    w.config.retention_bytes = sim_chance(sim, 500) ? 60000 : -1;
    w.config.file_delete_delay_ms = 1000;
    open_log(&w, false);
    for (uint64_t i = 0; i < steps; i++) {
        step(&w);
        if (disk_is_dead(w.disk) || log_failed(w.log))
            revive(&w);
    }
    disk_set_capacity(w.disk, 0);
    check_content(&w);
    mover_stop(&w.mover);
    log_abandon(w.log);
    free(w.sent);
    free(w.flying);
    free(w.cut);
    disk_free(w.disk);
}

const struct sim_world world_log = {"log", run, 200};
