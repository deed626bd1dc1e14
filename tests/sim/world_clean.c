/* world_clean.c - one compacted log on the simulated disk: records with keys are appended while a cleaning goes on step
 * by step, and the machine is killed, loses power, runs full, or its disk fails, between and within any two steps.
 *
 * Promises: of each key the last record that was made durable is there, at its offset, whatever happened; a tombstone
 * at least for delete.retention.ms; nothing appears that was not sent; what a cleaning called clean holds each key
 * once; every offset leads to the next record; a log always opens again. */
#include "libs/log/clean.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEYS = 40, VALUE_MAX = 300, DELETE_RETENTION_MS = 20000 };

struct sent {
    int64_t offset;
    uint64_t value; /* 0: a tombstone */
    int64_t sent_ms;
    int key;
    bool there; /* as the last check saw it */
};

struct world {
    bool failed; /* the life before, by an error of the disk: a flush may have failed */
    struct sim *sim;
    struct disk *disk;
    struct file_system fs;
    struct log *log;
    struct log_config config;
    struct log_clean *clean; /* under way */
    struct sent *sent;       /* acknowledged, by offset */
    size_t count, room;
    struct sent flying[8]; /* staged when the process died */
    size_t flying_count;
    int64_t durable, checkpointed, cleaned;
    uint64_t value;
};

static void note_line(void *ctx, int level, const char *text)
{
    struct world *w = ctx;
    sim_note(w->sim, "log says (%d) %s", level, text);
}

static void open_log(struct world *w, bool clean)
{
    struct log_options o = {.fs = &w->fs,
                            .dir = "/data/topic-0",
                            .config = w->config,
                            .topic_id = {{1, 2, 3}},
                            .clean = clean,
                            .rewrite = w->failed,
                            .recovery_point = w->checkpointed,
                            .compacted_to = w->cleaned,
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
    sim_note(w->sim, "open: start %lld end %lld", (long long)log_start(w->log), (long long)log_end(w->log));
}

/* ---- what must be there ---- */

static void add_sent(struct world *w, struct sent s)
{
    if (w->count == w->room)
        w->sent = xrealloc(w->sent, (w->room = w->room * 2 + 64) * sizeof *w->sent);
    w->sent[w->count++] = s;
}

static struct sent *find_sent(struct world *w, int64_t offset)
{
    size_t low = 0, high = w->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (w->sent[mid].offset < offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low < w->count && w->sent[low].offset == offset ? &w->sent[low] : NULL;
}

static struct sent read_record(struct world *w, const struct record *r)
{
    struct sent s = {.offset = r->offset};
    uint32_t key;
    if (r->key.size != sizeof key || (!slice_is_null(r->value) && r->value.size < sizeof s.value))
        sim_fail(w->sim, "offset %lld holds no record of ours", (long long)r->offset);
    memcpy(&key, r->key.data, sizeof key);
    s.key = (int)key;
    if (!slice_is_null(r->value))
        memcpy(&s.value, r->value.data, sizeof s.value);
    return s;
}

/* A record that is behind the last acknowledged one was in flight; from now on it counts as acknowledged. */
static void see(struct world *w, const struct record *r)
{
    struct sent is = read_record(w, r), *was = find_sent(w, r->offset);
    for (size_t i = 0; i < w->flying_count && was == NULL; i++) {
        if (w->flying[i].key == is.key && w->flying[i].value == is.value &&
            (w->count == 0 || is.offset > w->sent[w->count - 1].offset)) {
            is.sent_ms = w->flying[i].sent_ms;
            add_sent(w, is);
            was = &w->sent[w->count - 1];
            sim_cover("a record in flight survived");
        }
    }
    if (was == NULL || was->key != is.key || was->value != is.value)
        sim_fail(w->sim, "offset %lld holds a record that was not sent there", (long long)r->offset);
    if (was->there)
        sim_fail(w->sim, "offset %lld is there twice", (long long)r->offset);
    was->there = true;
}

static int64_t see_range(struct world *w, struct slice bytes, int64_t at)
{
    struct batch b;
    struct slice whole;
    struct buf scratch = {0};
    while (batch_next(&bytes, &b, &whole) == 1) {
        struct record_iter it;
        struct record r;
        int more = -1;
        if (batch_last_offset(&b) < at)
            sim_fail(w->sim, "offset %lld comes behind %lld", (long long)b.base_offset, (long long)at);
        if (!batch_crc_holds(&b, whole) || record_iter_init(&it, &b, whole, &scratch, 1 << 20))
            sim_fail(w->sim, "the batch at offset %lld is damaged", (long long)b.base_offset);
        while ((more = record_iter_next(&it, &r)) == 1)
            see(w, &r);
        if (more < 0)
            sim_fail(w->sim, "the records at offset %lld are damaged", (long long)b.base_offset);
        at = batch_next_offset(&b);
    }
    buf_free(&scratch);
    return at;
}

static void check_last(struct world *w)
{
    bool last[KEYS];
    memset(last, true, sizeof last);
    for (size_t i = w->count; i > 0; i--) {
        const struct sent *s = &w->sent[i - 1];
        bool may_go = s->value == 0 && sim_wall_ms(w->sim) - s->sent_ms >= DELETE_RETENTION_MS;
        if (last[s->key] && !s->there && !may_go)
            sim_fail(w->sim, "offset %lld, the last one of key %d, is gone", (long long)s->offset, s->key);
        last[s->key] = false;
    }
}

static void check_content(struct world *w)
{
    int64_t at = log_start(w->log), end = log_end(w->log);
    uint8_t *bytes = xmalloc(1 << 16);

    for (size_t i = 0; i < w->count; i++)
        w->sent[i].there = false;
    while (at < end) {
        struct log_range range;
        if (log_locate(w->log, at, end, 1 << 16, true, &range) != KERR_NONE || range.size_bytes == 0)
            sim_fail(w->sim, "nothing to read at offset %lld, the end is %lld", (long long)at, (long long)end);
        if (log_copy(w->log, &range, bytes))
            sim_fail(w->sim, "the bytes at offset %lld cannot be read", (long long)at);
        at = see_range(w, slice_make(bytes, range.size_bytes), at);
    }
    free(bytes);
    check_last(w);
}

/* What was called clean holds each key once. */
static void check_clean(struct world *w)
{
    int seen[KEYS] = {0};
    check_content(w);
    for (size_t i = 0; i < w->count && w->sent[i].offset < w->cleaned; i++) {
        if (w->sent[i].there && seen[w->sent[i].key]++)
            sim_fail(w->sim, "offset %lld, of key %d, comes again before %lld", (long long)w->sent[i].offset,
                     w->sent[i].key, (long long)w->cleaned);
    }
}

static void forget_lost(struct world *w)
{
    int64_t end = log_end(w->log);
    if (end < w->durable)
        sim_fail(w->sim, "the log ends at %lld, but %lld was flushed", (long long)end, (long long)w->durable);
    while (w->count > 0 && w->sent[w->count - 1].offset >= end)
        w->count--;
}

/* ---- steps ---- */

static void note_name(void *arg, const char *name)
{
    struct world *w = arg;
    struct file_stat st = {0};
    char path[128];
    snprintf(path, sizeof path, "/data/topic-0/%.60s", name);
    (void)file_stat(&w->fs, path, &st);
    sim_note(w->sim, "  %s %llu", name, (unsigned long long)st.size_bytes);
}

static void revive(struct world *w)
{
    bool power = sim_chance(w->sim, 500);
    w->failed = log_failed(w->log) != 0;
    log_abandon(w->log);
    w->clean = log_clean_end(w->clean);
    if (power)
        disk_power_cut(w->disk);
    else
        disk_restart(w->disk);
    disk_set_capacity(w->disk, 0);
    sim_note(w->sim, "%s, disk %016llx", power ? "power cut" : "kill", (unsigned long long)disk_hash(w->disk));
    sim_cover(power ? "power cut" : "kill -9");
    (void)file_list(&w->fs, "/data/topic-0", note_name, w);
    open_log(w, false);
    if (power)
        forget_lost(w);
    else if (w->count > 0 && log_end(w->log) <= w->sent[w->count - 1].offset)
        sim_fail(w->sim, "acknowledged offset %lld is lost", (long long)w->sent[w->count - 1].offset);
    check_content(w);
    w->flying_count = 0;
}

static void step_append(struct world *w)
{
    static const int codecs[] = {0, 0, 0, 3, 4};
    struct buf out = {0};
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    uint8_t value[VALUE_MAX];
    size_t n = 1 + sim_below(w->sim, COUNTOF(w->flying));

    o.codec = codecs[sim_below(w->sim, COUNTOF(codecs))];
    batch_begin(&b, &out, &o);
    for (size_t i = 0; i < n; i++) {
        struct sent s = {.key = (int)sim_below(w->sim, KEYS), .sent_ms = sim_wall_ms(w->sim)};
        uint32_t key = (uint32_t)s.key;
        size_t size = 8 + sim_below(w->sim, VALUE_MAX - 8);
        s.value = sim_chance(w->sim, 100) ? 0 : ++w->value;
        memset(value, (int)(s.value & 0xff), size);
        memcpy(value, &s.value, sizeof s.value);
        batch_add(&b, s.sent_ms, slice_make(&key, sizeof key), s.value ? slice_make(value, size) : SLICE_NULL, NULL, 0);
        w->flying[i] = s;
    }
    w->flying_count = n;
    if (batch_end(&b))
        sim_fail(w->sim, "a batch cannot be built");
    struct log_append a = {.bytes = out.data, .size = out.size, .now_wall_ms = sim_wall_ms(w->sim)};
    enum kafka_error error = log_stage(w->log, &a);
    int err = log_commit(w->log);
    sim_note(w->sim, "append %zu: %d %d, end %lld", n, error, err, (long long)log_end(w->log));
    if (error == KERR_NONE && err == 0) {
        for (size_t i = 0; i < n; i++) {
            w->flying[i].offset = a.base_offset + (int64_t)i;
            add_sent(w, w->flying[i]);
        }
        w->flying_count = 0;
    } else if (!disk_is_dead(w->disk) && log_failed(w->log) == 0) {
        disk_set_capacity(w->disk, 0); /* it was full: none of it may be there */
        w->flying_count = 0;
        check_content(w);
    }
    buf_free(&out);
}

static void step_flush(struct world *w)
{
    int64_t end = log_end(w->log);
    int error = log_flush(w->log);
    if (error == 0) {
        w->durable = end;
        if (sim_chance(w->sim, 500))
            w->checkpointed = log_recovery_point(w->log);
    }
    sim_note(w->sim, "flush %d to %lld", error, (long long)end);
}

static void begin_clean(struct world *w)
{
    struct log_dirt d;
    struct log_clean_options o = {.map_bytes = sim_chance(w->sim, 300) ? 24 * 20 : 1 << 16,
                                  .map_load = 0.9,
                                  .io_bytes = 500 + sim_below(w->sim, 5000),
                                  .seed = {7},
                                  .now_wall_ms = sim_wall_ms(w->sim)};
    if (log_clean_look(w->log, w->cleaned, w->checkpointed, sim_wall_ms(w->sim), &d) || !log_clean_is_due(w->log, &d))
        return;
    w->clean = log_clean_begin(w->log, &d, &o);
    sim_note(w->sim, "clean from %lld to %lld", (long long)d.first_dirty, (long long)d.end);
}

static void step_clean(struct world *w)
{
    if (w->clean == NULL)
        begin_clean(w);
    for (uint64_t n = 1 + sim_below(w->sim, 8); w->clean != NULL && n > 0; n--) {
        log_clean_step(w->clean, 300 + sim_below(w->sim, 6000));
        if (sim_chance(w->sim, 20))
            log_clean_stop(w->clean);
        int more = log_clean_turn(w->clean, sim_wall_ms(w->sim));
        if (more == 1)
            continue;
        int64_t end = log_clean_end_offset(w->clean);
        sim_note(w->sim, "cleaned: %d to %lld %s", more, (long long)end, log_clean_why(w->clean));
        if (more == -EBADMSG)
            sim_fail(w->sim, "the log cannot be cleaned: %s", log_clean_why(w->clean));
        w->clean = log_clean_end(w->clean);
        if (disk_is_dead(w->disk))
            return;
        if (more == 0) {
            w->cleaned = end; /* the node writes it to its checkpoint */
            sim_cover("a log was cleaned");
            check_clean(w);
        } else if (log_failed(w->log) == 0) {
            sim_cover("a cleaning was given up");
            disk_set_capacity(w->disk, 0);
            check_content(w);
        }
    }
}

static void step_reopen(struct world *w)
{
    int64_t end = log_end(w->log);
    int error = log_close(w->log, sim_wall_ms(w->sim));
    w->clean = log_clean_end(w->clean);
    sim_note(w->sim, "close %d", error);
    w->failed = error < 0;
    if (error == 0)
        w->durable = w->checkpointed = end;
    disk_restart(w->disk);
    disk_set_capacity(w->disk, 0);
    open_log(w, error == 0);
    check_content(w);
}

static void step_fault(struct world *w)
{
    switch (sim_below(w->sim, 4)) {
    case 0:
    case 1: disk_die_after(w->disk, sim_below(w->sim, 40)); break;
    case 2: disk_set_capacity(w->disk, 1); break; /* nothing more fits */
    case 3: disk_fail_after(w->disk, sim_below(w->sim, 40), 1, EIO); break;
    }
}

static void step(struct world *w)
{
    uint64_t dice = sim_below(w->sim, 1000);
    sim_pass(w->sim, 1 + sim_below(w->sim, 400));
    if (dice < 80)
        step_flush(w);
    else if (dice < 120)
        step_fault(w);
    else if (dice < 135)
        step_reopen(w);
    else if (dice < 150)
        check_content(w);
    else if (dice < 450)
        step_clean(w);
    else if (dice < 460)
        log_tick(w->log, sim_wall_ms(w->sim));
    else
        step_append(w);
}

static void run(struct sim *sim, uint64_t steps)
{
    struct world w = {.sim = sim, .disk = disk_new(sim_random(sim)), .cleaned = -1};

    w.fs = disk_fs(w.disk);
    if (file_mkdir(&w.fs, "/data"))
        sim_fail(sim, "no folder");
    (void)file_sync_dir(&w.fs, "");
    log_config_init(&w.config);
    w.config.segment_bytes = 3000 + (int32_t)sim_below(sim, 8000);
    w.config.index_interval_bytes = 200 + (int32_t)sim_below(sim, 2000);
    w.config.segment_index_bytes = 800;
    w.config.cleanup_compact = true;
    w.config.cleanup_delete = false;
    w.config.min_cleanable_dirty_ratio = 0.01;
    w.config.delete_retention_ms = DELETE_RETENTION_MS;
    w.config.file_delete_delay_ms = 1000;
    open_log(&w, false);
    for (uint64_t i = 0; i < steps; i++) {
        step(&w);
        if (disk_is_dead(w.disk) || log_failed(w.log))
            revive(&w);
    }
    disk_set_capacity(w.disk, 0);
    check_content(&w);
    log_abandon(w.log);
    log_clean_end(w.clean);
    free(w.sent);
    disk_free(w.disk);
}

const struct sim_world world_clean = {"clean", run, 0};
