/* node.c - keeps one partition as the storage service does: marker, checkpoints, log; and knows what it promised. */
#include "libs/records/records.h"
#include "tests/torture/torture.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { BIG_CACHE = 1 << 20, HOUR_MS = 3600000 };

static void note_line(void *ctx UNUSED, int level, const char *text)
{
    torture_note("    log says (%d) %s", level, text);
}

struct node *node_new(const struct theme *theme, uint64_t seed)
{
    struct node *n = xcalloc(1, sizeof *n);
    n->theme = theme;
    n->disk = disk_new(seed);
    n->fs = disk_fs(n->disk);
    n->dice.state = seed;
    n->now_ms = 1700000000000;
    n->topic = 1;
    n->may_start = -1;
    for (int i = 0; i < HELD; i++)
        n->held[i].fd = -1;
    known_clear(n->known);
    log_config_init(&n->config);
    n->config.segment_bytes = theme->segment_bytes;
    n->config.segment_ms = HOUR_MS;
    n->config.index_interval_bytes = 300;
    n->config.segment_index_bytes = 240;
    n->config.retention_bytes = theme->retention_bytes;
    n->config.file_delete_delay_ms = 500;
    n->config.message_timestamp_after_max_ms = INT64_MAX;
    n->config.producer_id_expiration_ms = INT64_MAX / 4;
    if (theme->flush_each)
        n->config.flush_messages = 1;
    if (file_mkdir(&n->fs, NODE_DIR) < 0 || file_sync_dir(&n->fs, "") < 0)
        torture_fail("no data directory");
    disk_count_all(n->disk, true);
    return n;
}

struct node *node_free(struct node *n)
{
    log_abandon(n->log);
    disk_free(n->disk);
    free(n->acked.at);
    free(n->flying.at);
    free(n->cut.at);
    free(n);
    return NULL;
}

bool node_is_up(const struct node *n)
{
    return n->log != NULL && !n->ended && log_failed(n->log) == 0 && !disk_is_dead(n->disk);
}

/* ---- start and stop ---- */

static int read_checkpoint(struct node *n, const char *name, int64_t *ret_offset)
{
    struct logdir_checkpoint *t;
    int err = logdir_read_checkpoint(&n->fs, NODE_DIR, name, &t);
    if (err == -EBADMSG)
        torture_fail("%s is damaged", name); /* nobody but us writes it, and it is replaced as a whole */
    if (err < 0)
        return err;
    *ret_offset = MAX((int64_t)0, logdir_checkpoint_get(t, SLICE_OF(NODE_TOPIC), 0));
    logdir_checkpoint_free(t);
    return 0;
}

/* What was kept under this name before, of a topic that is deleted: set aside, as storage does it. */
static int set_aside(struct node *n)
{
    char *to = xasprintf(NODE_LOG ".%032" PRIx64 "-stray", n->opens);
    int err = file_rename(&n->fs, NODE_LOG, to);
    if (err == 0)
        err = file_sync_dir(&n->fs, NODE_DIR);
    free(to);
    return err;
}

/* A new partition. What the checkpoints say of an older one of the name is struck out first. */
static int open_new(struct node *n, struct log_options *o)
{
    int err = node_write_checkpoints(n);
    o->recovery_point = o->log_start_offset = 0;
    o->clean = false;
    if (err < 0)
        return err;
    n->made_topic = n->topic;
    return log_open(o, &n->log);
}

/* What was read again was written again: once it is flushed the failed flush is made good. */
static int make_good(struct node *n)
{
    int err = log_flush(n->log);
    if (err == 0)
        err = logdir_forget_failed_flush(&n->fs, NODE_DIR);
    if (err < 0)
        n->log = log_abandon(n->log);
    else
        torture_cover("what a failed flush had left was written again");
    return err;
}

int node_start(struct node *n)
{
    int64_t point = 0, start = 0, broker_epoch;
    int clean = logdir_take_clean(&n->fs, NODE_DIR, &broker_epoch);
    int rewrite = clean < 0 ? clean : logdir_had_failed_flush(&n->fs, NODE_DIR);
    int err = MIN(rewrite, 0);
    if (err == 0)
        err = read_checkpoint(n, LOGDIR_RECOVERY_POINTS, &point);
    if (err == 0)
        err = read_checkpoint(n, LOGDIR_LOG_STARTS, &start);
    if (err < 0)
        return err;
    struct log_options o = {.fs = &n->fs,
                            .dir = NODE_LOG,
                            .config = n->config,
                            .topic_id = {{n->topic, 9}},
                            .clean = clean && !rewrite,
                            .rewrite = rewrite,
                            .recovery_point = point,
                            .log_start_offset = start,
                            .now_wall_ms = n->now_ms,
                            .jitter_seed = 7,
                            .note = note_line};
    n->opens++;
    struct file_stat st;
    err = file_stat(&n->fs, NODE_LOG, &st);
    if (err == -ENOENT)
        err = open_new(n, &o);
    else if (err == 0 && n->made_topic != n->topic)
        err = -EEXIST; /* the metadata says that it is gone */
    else if (err == 0)
        err = log_open(&o, &n->log);
    if (err == -EEXIST) {
        torture_cover("a folder of a deleted topic came back");
        err = set_aside(n);
        if (err == 0)
            err = open_new(n, &o);
    }
    if (err < 0)
        n->log = NULL;
    else if (rewrite)
        err = make_good(n);
    for (int i = 0; i < KNOWN; i++)
        n->known[i].reopened = true;
    torture_note("start (clean %d, point %" PRId64 ", start %" PRId64 "): %s, %" PRId64 " .. %" PRId64, clean, point,
                 start, strerror(-err), err ? -1 : log_start(n->log), err ? -1 : log_end(n->log));
    return err;
}

int node_write_checkpoint(struct node *n, const char *name, const struct logdir_offset *line, size_t count)
{
    int err = logdir_write_checkpoint(&n->fs, NODE_DIR, name, line, count);
    n->ended = n->ended || (err < 0 && err != -ENOSPC);
    return err;
}

int node_write_starts(struct node *n)
{
    struct logdir_offset line = {NODE_TOPIC, 0, n->log ? log_start(n->log) : 0};
    bool any = n->log != NULL && log_start(n->log) > log_first_segment(n->log);
    return node_write_checkpoint(n, LOGDIR_LOG_STARTS, &line, any);
}

int node_write_checkpoints(struct node *n)
{
    struct logdir_offset line = {NODE_TOPIC, 0, n->log ? log_recovery_point(n->log) : 0};
    int err = node_write_checkpoint(n, LOGDIR_RECOVERY_POINTS, &line, n->log != NULL);
    return err < 0 ? err : node_write_starts(n);
}

/* Who reads files lets go of them when the link to the node ends. */
static void forget_held(struct node *n)
{
    for (int i = 0; i < HELD; i++)
        n->held[i].fd = file_close(&n->fs, n->held[i].fd);
}

/* As storage does when a directory goes offline, and when a stop is not a clean one. Where the disk is full, too,
 * storage asks people to unmount it, which comes to the same. */
static void note_failure(struct node *n)
{
    if (disk_is_dead(n->disk))
        return;
    disk_disarm(n->disk);
    if (logdir_note_failed_flush(&n->fs, NODE_DIR) < 0)
        torture_fail("a failed flush cannot be noted, and nothing is wrong with the disk any more");
}

int node_stop(struct node *n)
{
    int64_t end = log_end(n->log);
    forget_held(n);
    int err = log_failed(n->log) ? log_failed(n->log) : log_flush(n->log);
    if (err == 0)
        err = node_write_checkpoints(n);
    if (err == 0)
        err = log_close(TAKE_PTR(n->log), n->now_ms);
    else
        n->log = log_abandon(n->log);
    if (err == 0)
        err = logdir_write_clean(&n->fs, NODE_DIR, 1);
    if (err == 0) {
        n->durable = end;
        n->unflushed_anew = false;
    } else if (err != -ENOSPC)
        note_failure(n);
    torture_note("stop: %s", strerror(-err));
    return err;
}

void node_die(struct node *n, bool power)
{
    if (n->ended || (n->log != NULL && log_failed(n->log) != 0))
        note_failure(n);
    n->log = log_abandon(n->log);
    n->ended = false;
    forget_held(n);
    if (power)
        disk_power_cut(n->disk);
    else
        disk_restart(n->disk);
    disk_set_capacity(n->disk, 0);
    torture_note("%s, disk %016" PRIx64, power ? "power cut" : "kill", disk_hash(n->disk));
}

/* ---- what is there against what was promised ---- */

static void recount(struct node *n)
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

static bool same(const struct fact *a, const struct fact *b)
{
    return a->body == b->body && a->producer_id == b->producer_id && a->producer_epoch == b->producer_epoch &&
           a->sequence == b->sequence && a->next - a->base == b->next - b->base;
}

struct walk {
    struct node *n;
    size_t i;      /* the next of the acked */
    size_t flying; /* the next of those in flight */
    bool adopt;    /* what was in flight may be there */
};

/* Does a batch come from before a truncation that failed? Then it takes the place of what was written since. */
static bool was_cut(struct walk *w, const struct fact *f)
{
    struct node *n = w->n;
    bool known = w->i < n->acked.count && same(&n->acked.at[w->i], f);
    for (size_t i = 0; w->adopt && !known && i < n->cut.count; i++) {
        if (same(&n->cut.at[i], f) && n->cut.at[i].base == f->base) {
            n->acked.count = w->i++;
            facts_push(&n->acked, &n->cut.at[i]);
            torture_cover("a power cut undid a truncation that had failed");
            return true;
        }
    }
    return false;
}

/* Of the next batch in the log. Behind the acked ones come those that were in flight, once and in their order, and then
 * they count as acked: the producer would be told so when it asks again. */
static void meet(struct walk *w, const struct fact *f)
{
    struct node *n = w->n;
    if (was_cut(w, f))
        return;
    if (w->i == n->acked.count) {
        struct facts *flying = &n->flying;
        while (w->adopt && w->flying < flying->count && !same(&flying->at[w->flying], f))
            w->flying++;
        if (!w->adopt || w->flying == flying->count)
            torture_fail("offset %" PRId64 " holds a batch that should not be there", f->base);
        struct fact adopted = flying->at[w->flying++];
        adopted.base = f->base;
        adopted.next = f->next;
        adopted.leader_epoch = f->leader_epoch;
        facts_push(&n->acked, &adopted);
        torture_cover("a batch in flight is there after all");
    }
    const struct fact *want = &n->acked.at[w->i++];
    if (want->base != f->base || want->next != f->next || !same(want, f) || want->leader_epoch != f->leader_epoch)
        torture_fail("offset %" PRId64 " of epoch %d holds another batch than the one acknowledged as %" PRId64
                     " of epoch %d",
                     f->base, f->leader_epoch, want->base, want->leader_epoch);
}

static struct walk walk_begin(struct node *n, int64_t from, bool adopt)
{
    struct walk w = {.n = n, .adopt = adopt};
    while (w.i < n->acked.count && n->acked.at[w.i].next <= from)
        w.i++;
    return w;
}

static void fact_of(const struct batch *b, struct slice bytes, struct fact *ret)
{
    *ret = (struct fact){
        .base = b->base_offset,
        .next = batch_next_offset(b),
        .body = torture_hash(bytes.data + BATCH_HEADER_SIZE, bytes.size - BATCH_HEADER_SIZE),
        .producer_id = b->producer_id,
        .producer_epoch = b->producer_epoch,
        .sequence = b->base_sequence,
        .leader_epoch = b->leader_epoch,
        .attributes = b->attributes,
    };
}

static void walk_log(struct node *n, bool adopt)
{
    int64_t at = log_start(n->log), end = log_end(n->log);
    struct walk w = walk_begin(n, at, adopt);
    uint8_t *bytes = xmalloc(BIG_CACHE);
    disk_count_all(n->disk, false); /* an armed fault is not for the check */
    while (at < end) {
        struct log_range range;
        struct batch b;
        struct slice rest, whole;
        enum kafka_error error = log_locate(n->log, at, end, BIG_CACHE, true, &range);
        if (error != KERR_NONE || range.size_bytes == 0 || log_copy(n->log, &range, bytes) < 0)
            torture_fail("nothing to read at offset %" PRId64 " (%s), the end is %" PRId64, at,
                         kafka_error_name((int)error), end);
        rest = slice_make(bytes, range.size_bytes);
        while (batch_next(&rest, &b, &whole) == 1) {
            struct fact f;
            if (!batch_crc_holds(&b, whole))
                torture_fail("the CRC at offset %" PRId64 " does not hold", b.base_offset);
            fact_of(&b, whole, &f);
            if (f.next <= log_start(n->log))
                continue;
            meet(&w, &f);
            at = f.next;
        }
    }
    free(bytes);
    disk_count_all(n->disk, true);
    if (w.i < n->acked.count)
        torture_fail("acknowledged offset %" PRId64 " is lost: the log ends at %" PRId64, n->acked.at[w.i].base, end);
    n->flying.count = 0;
}

void node_check_content(struct node *n)
{
    int64_t end = n->acked.count ? n->acked.at[n->acked.count - 1].next : log_end(n->log);
    end = MAX(end, log_start(n->log)); /* all of it was deleted, and lost before it was flushed */
    if (log_end(n->log) != end)
        torture_fail("the log ends at %" PRId64 ", acknowledged is up to %" PRId64, log_end(n->log), end);
    walk_log(n, false);
    n->start = log_start(n->log);
}

/* After a power cut: what was not flushed may be gone, from the end, or be there as what was in flight. */
static void forget_lost(struct node *n)
{
    int64_t end = log_end(n->log);
    if (end < n->durable)
        torture_fail("the log ends at %" PRId64 ", but it was flushed up to %" PRId64, end, n->durable);
    struct facts gone = {0};
    while (n->acked.count > 0 && n->acked.at[n->acked.count - 1].next > MAX(end, n->durable))
        facts_push(&gone, &n->acked.at[--n->acked.count]);
    if (gone.count > 0) {
        torture_cover("unflushed batches were lost in a power cut");
        n->flying.count = 0;
    }
    free(gone.at);
}

/* The log was begun anew and a power cut may have undone it: what is there is taken as it is. */
static void accept(void *ctx, const struct fact *f)
{
    facts_push(&((struct node *)ctx)->acked, f);
}

void node_check_after_death(struct node *n, bool power)
{
    if (n->anew_failed || (power && n->unflushed_anew)) {
        n->acked.count = n->flying.count = 0;
        n->unflushed_anew = n->anew_failed = false;
        n->accepted = true;
        n->durable = log_end(n->log);
        n->deleted_to = n->start = log_start(n->log);
        torture_cover("power cut after beginning anew");
        if (node_stop(n) < 0)
            torture_fail("does not stop");
        struct reader_result result;
        struct known_producer any[KNOWN];
        known_clear(any);
        for (int i = 0; i < KNOWN; i++)
            any[i].id = -2;
        reader_check(&n->fs, NODE_LOG, n->deleted_to, any, accept, n, &result);
        if (node_start(n) < 0)
            torture_fail("does not start again");
        recount(n);
        return;
    }
    if (log_start(n->log) < n->deleted_to)
        torture_fail("the log starts at %" PRId64 ", but all before %" PRId64 " was deleted", log_start(n->log),
                     n->deleted_to);
    if (log_start(n->log) > MAX(n->start, n->may_start))
        torture_fail("the log starts at %" PRId64 ", which was kept from %" PRId64 " on", log_start(n->log), n->start);
    if (power)
        forget_lost(n);
    walk_log(n, true);
    if (power)
        n->cut.count = 0;
    recount(n);
    n->start = log_start(n->log);
    n->may_start = -1;
    if (n->theme->flush_each) {
        /* As storage does it with what a recovery found. */
        if (log_flush(n->log) < 0)
            torture_fail("what was recovered cannot be flushed");
        n->durable = log_end(n->log);
    }
}

static void meet_in_file(void *ctx, const struct fact *f)
{
    struct walk *w = ctx;
    if (f->next > w->n->start)
        meet(w, f);
}

void node_check_files(struct node *n)
{
    struct reader_result result;
    struct walk w = walk_begin(n, n->start, false);
    disk_count_all(n->disk, false); /* an armed fault is not for the reader */
    reader_check(&n->fs, NODE_LOG, n->start, n->known, meet_in_file, &w, &result);
    disk_count_all(n->disk, true);
    if (w.i < n->acked.count)
        torture_fail("acknowledged offset %" PRId64 " is not in the files, which end at %" PRId64,
                     n->acked.at[w.i].base, result.end);
}
