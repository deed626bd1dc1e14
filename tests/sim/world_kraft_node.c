/* world_kraft_node.c - one controller of the world `kraft`: what services/controller does around the core, with a
 * process that may die before each action, and by its disk. */
#include "tests/sim/world_kraft.h"

#include <stdio.h>
#include <stdlib.h>

#include "kafka/config_record.h"
#include "libs/kraft/snapshot.h"
#include "libs/metadata/metarecord.h"
#include "libs/records/records.h"

enum { READ_BYTES = 1 << 20, KEYS = 12, RESTART_MS = 3000, FLUSH_MS = 4 };

bool knode_is_up(const struct knode *n)
{
    return n->store != NULL;
}

bool knode_decides(const struct knode *n)
{
    return knode_is_up(n) && kraft_role(n->kraft) == KRAFT_LEADER &&
           kraft_high_watermark(n->kraft) > kraft_epoch_start(n->kraft);
}

/* ---- a life ---- */

static int32_t lives_of(struct knode *n, int32_t ids[KNODES_MAX])
{
    int32_t count = 0;
    for (int32_t i = 0; i < n->world->count; i++)
        ids[count++] = n->world->node[i].id;
    return count;
}

static void take_batch(struct knode *n, const struct batch *b, bool check)
{
    struct kbatch one = {b->base_offset, batch_next_offset(b), b->leader_epoch, b->crc};
    if (check)
        kcheck_appends(n, one);
    kbatches_push(&n->log, one);
}

static void load_image(struct knode *n)
{
    int64_t end = 0;
    int32_t epoch = 0;
    struct slice bytes = kraft_store_snapshot(n->store, &end, &epoch);
    n->image = image_release(n->image);
    if (slice_is_null(bytes))
        n->image = image_empty("sim");
    else if (image_load("sim", bytes, end, epoch, &n->image) != 0)
        sim_fail(n->world->sim, "node %d cannot understand its snapshot", n->id);
    kraft_store_forget(n->store);
}

/* The log's batches: those behind the snapshot for the core, all for the promises. */
static void replay(struct knode *n)
{
    int64_t at = kraft_store_start(n->store), end = kraft_store_end(n->store), from = image_offset(n->image) + 1;
    struct batch batch;
    n->log.count = 0;
    while (at < end) {
        struct buf b CLEANUP(buf_free) = {0};
        struct slice rest, one;
        if (kraft_store_read(n->store, at, end, READ_BYTES, &b) != 0 || b.size == 0)
            sim_fail(n->world->sim, "node %d cannot read its log at %lld", n->id, (long long)at);
        rest = buf_slice(&b);
        while (batch_next(&rest, &batch, &one) == 1) {
            take_batch(n, &batch, true);
            if (batch.base_offset >= from && kraft_replay(n->kraft, one) != 0)
                sim_fail(n->world->sim, "node %d does not understand its log at %lld", n->id,
                         (long long)batch.base_offset);
            at = batch_next_offset(&batch);
        }
    }
}

static void fill_options(struct knode *n, struct kraft_options *o, int32_t ids[KNODES_MAX])
{
    struct kworld *w = n->world;
    struct slice value = image_voters(n->image);
    *o = (struct kraft_options){
        .node_id = n->id,
        .directory_id = n->directory_id,
        .state = {.leader_id = -1, .voted_id = -1},
        .log_start = kraft_store_start(n->store),
        .log_end = kraft_store_end(n->store),
        .snapshot_end = -1,
        .others = ids,
        .other_count = (size_t)lives_of(n, ids),
        .seed = sim_random(w->sim),
        .now_ms = sim_now_ms(w->sim),
        .kraft_version = 1,
    };
    o->self = (struct kraft_voter){.kraft_version_max = 1, .endpoint_count = 1};
    strcpy(o->self.endpoints[0].name, "CONTROLLER");
    o->self.endpoints[0].port = (uint16_t)(9000 + n->life); /* found elsewhere in each life: its record is changed */
    o->auto_join = o->update_self = w->auto_join;
    (void)kraft_store_has_snapshot(n->store, &o->snapshot_end, &o->snapshot_epoch);
    (void)kraft_store_state(n->store, &o->state);
    if (!slice_is_null(value) && kraft_voters_decode(value, &o->voters) == 0)
        o->log_has_voters = true;
    else if (n->id < w->first_voters)
        o->voters = w->voters;
    else
        o->kraft_version = 0;
}

static bool open_store(struct knode *n)
{
    struct kraft_store_options o = {.fs = &n->fs,
                                    .log_dir = "/data",
                                    .segment_bytes = 3000,
                                    .segment_ms = 1 << 30,
                                    .roll_bytes = 2000,
                                    .now_wall_ms = sim_wall_ms(n->world->sim)};
    char *message = NULL;
    int error = kraft_store_open(&o, &n->store, &message);
    if (error != 0 && error != -ENOSPC && !disk_is_dead(n->disk))
        sim_fail(n->world->sim, "node %d does not open: %s", n->id, message);
    free(message);
    if (error != 0)
        n->store = NULL;
    if (disk_is_dead(n->disk))
        disk_restart(n->disk);
    return error == 0;
}

static void on_restart(void *ctx)
{
    struct knode *n = ctx;
    n->restart = 0;
    knode_start(n);
}

static void start_later(struct knode *n)
{
    struct sim *sim = n->world->sim;
    uint64_t delay = sim_chance(sim, 300) ? sim_below(sim, 50) : sim_below(sim, RESTART_MS);
    if (n->slow_restart)
        delay = 3 * RESTART_MS;
    n->slow_restart = false;
    if (n->restart == 0)
        n->restart = sim_at(sim, 1 + delay, on_restart, n);
}

void knode_start(struct knode *n)
{
    struct kraft_options *o;
    struct kraft_epoch_start *epochs = NULL;
    int32_t ids[KNODES_MAX];
    if (knode_is_up(n))
        return;
    if (!open_store(n)) {
        sim_fault("kraft: no start for its disk");
        start_later(n);
        return;
    }
    load_image(n);
    o = xcalloc(1, sizeof *o);
    fill_options(n, o, ids);
    kraft_store_epochs(n->store, &epochs, &o->epoch_count);
    o->epochs = epochs;
    if (kraft_new(o, &n->kraft) != 0)
        sim_fail(n->world->sim, "node %d: the core does not start (log %lld to %lld, %zu epochs)", n->id,
                 (long long)o->log_start, (long long)o->log_end, o->epoch_count);
    free(epochs);
    free(o);
    n->life++;
    n->paused_until = 0;
    n->waiting.count = 0;
    replay(n);
    n->durable = kraft_store_end(n->store);
    sim_note(n->world->sim, "node %d starts, log %lld to %lld", n->id, (long long)kraft_store_start(n->store),
             (long long)kraft_store_end(n->store));
    knode_step(n, &(struct kraft_event){.kind = KRAFT_TICK});
}

void knode_stop(struct knode *n, bool power_cut)
{
    struct sim *sim = n->world->sim;
    if (!knode_is_up(n))
        return;
    disk_die_after(n->disk, 0); /* nothing is written any more, also not by closing */
    (void)!kraft_store_close(n->store, sim_wall_ms(sim));
    n->store = NULL;
    n->kraft = kraft_free(n->kraft);
    sim_cancel(sim, n->tick);
    sim_cancel(sim, n->flush);
    n->tick = n->flush = 0;
    n->dies = n->moved = n->installed = false;
    knet_forget(n);
    if (power_cut)
        disk_power_cut(n->disk);
    else
        disk_restart(n->disk);
    sim_note(sim, "node %d %s", n->id, power_cut ? "loses power" : "is killed");
    sim_fault(power_cut ? "kraft: power cut" : "kraft: kill -9");
    start_later(n);
}

/* ---- the owner of the core ---- */

/* Stands still: what is due waits until it wakes. */
static bool put_off(struct knode *n, sim_fn *fn, uint64_t *ret_event)
{
    uint64_t now = sim_now_ms(n->world->sim);
    *ret_event = n->paused_until > now ? sim_at(n->world->sim, n->paused_until - now, fn, n) : 0;
    return *ret_event != 0;
}

static void on_tick(void *ctx)
{
    struct knode *n = ctx;
    if (put_off(n, on_tick, &n->tick))
        return;
    knode_step(n, &(struct kraft_event){.kind = KRAFT_TICK});
}

static void on_flush(void *ctx)
{
    struct knode *n = ctx;
    if (put_off(n, on_flush, &n->flush))
        return;
    if (kraft_store_commit(n->store) != 0) {
        knode_stop(n, sim_chance(n->world->sim, 300));
        return;
    }
    n->durable = kraft_store_end(n->store);
    knode_step(n, &(struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_store_end(n->store)});
}

static void flush_soon(struct knode *n)
{
    if (n->flush == 0)
        n->flush = sim_at(n->world->sim, sim_below(n->world->sim, FLUSH_MS), on_flush, n);
}

static int append(struct knode *n, struct slice bytes)
{
    struct slice rest = bytes;
    struct batch b;
    int error = kraft_store_stage(n->store, bytes, sim_wall_ms(n->world->sim));
    while (error == 0 && batch_next(&rest, &b, NULL) == 1)
        take_batch(n, &b, true);
    flush_soon(n);
    return error;
}

static int cut_log(struct knode *n, int64_t offset)
{
    while (n->log.count > 0 && n->log.at[n->log.count - 1].next > offset)
        n->log.count--;
    n->durable = MIN(n->durable, offset);
    sim_note(n->world->sim, "node %d cuts its log to %lld", n->id, (long long)offset);
    sim_cover("kraft: a log cut to the leader's");
    return kraft_store_truncate(n->store, offset);
}

static int install(struct knode *n, const struct kraft_action *a)
{
    n->log.count = 0;
    n->durable = a->offset;
    n->installed = true;
    sim_note(n->world->sim, "node %d takes the snapshot %lld", n->id, (long long)a->offset);
    sim_cover("kraft: a snapshot taken from the leader");
    if (a->offset > kcheck_committed_end(n->world))
        sim_fail(n->world->sim, "node %d takes a snapshot of what is not committed", n->id);
    return kraft_store_install(n->store, a->offset, a->epoch, a->bytes, sim_wall_ms(n->world->sim));
}

static void add_bytes(struct knode *n, const struct kraft_action *a, struct kraft_message *m, struct buf *b)
{
    if (m->kind == KRAFT_FETCH && m->max_bytes > 0 && m->diverging_end < 0) {
        if (kraft_store_read(n->store, m->offset, a->offset, m->max_bytes, b) != 0)
            m->error = KERR_UNKNOWN_SERVER_ERROR;
    } else if (m->kind == KRAFT_FETCH_SNAPSHOT) {
        int64_t end = -1;
        int32_t epoch = -1;
        struct slice all = kraft_store_snapshot(n->store, &end, &epoch);
        if (slice_is_null(all) || end != m->snapshot_end || epoch != m->snapshot_epoch) {
            m->error = KERR_SNAPSHOT_NOT_FOUND;
        } else {
            m->size = (int64_t)all.size;
            buf_append(b, all.data + m->position, MIN(all.size - (size_t)m->position, (size_t)m->max_bytes));
        }
    }
    m->bytes = buf_slice(b);
}

static void reply(struct knode *n, const struct kraft_action *a)
{
    struct kraft_message m = a->message;
    struct buf b CLEANUP(buf_free) = {0};
    if (m.error == KERR_NONE)
        add_bytes(n, a, &m, &b);
    knet_reply(n, a->id, &m);
    /* Right behind a promise is where a power cut hurts. */
    bool promised = m.granted && !m.pre_vote;
    if (!n->world->calm && promised && sim_chance(n->world->sim, n->world->fragile))
        n->dies = true;
}

/* A vote counts when it is saved: before, nobody has heard of it. */
static int save(struct knode *n, const struct kraft_quorum_state *s)
{
    kcheck_saves(n, s);
    int error = kraft_store_save_state(n->store, s);
    sim_note(n->world->sim, "node %d: epoch %d leader %d vote %d: %d", n->id, s->leader_epoch, s->leader_id,
             s->voted_id, error);
    if (error == 0 && s->voted_id >= 0)
        kcheck_grants(n, s->leader_epoch, s->voted_id);
    return error;
}

static int do_action(struct knode *n, const struct kraft_action *a)
{
    struct sim *sim = n->world->sim;
    switch (a->kind) {
    case KRAFT_DO_SAVE: return save(n, &a->state);
    case KRAFT_DO_APPEND: return append(n, a->bytes);
    case KRAFT_DO_TRUNCATE: return cut_log(n, a->offset);
    case KRAFT_DO_INSTALL: return install(n, a);
    case KRAFT_DO_SEND:
        knet_send(n, a);
        if (!n->world->calm && sim_chance(sim, n->world->fragile / 20))
            n->dies = true;
        return 0;
    case KRAFT_DO_REPLY: reply(n, a); return 0;
    case KRAFT_DO_LEAD:
        kcheck_leads(n, a->epoch);
        sim_note(sim, "node %d leads epoch %d", n->id, a->epoch);
        sim_cover("kraft: a leader elected");
        return 0;
    case KRAFT_DO_UNLEAD:
        n->waiting.count = 0;
        sim_cover("kraft: a leader deposed");
        return 0;
    case KRAFT_DO_COMMIT:
        n->moved = true;
        kcheck_decides(n);
        if (!n->world->calm && kraft_role(n->kraft) == KRAFT_LEADER && sim_chance(sim, n->world->fragile / 10))
            (void)sim_at(sim, 0, kworld_outage, n->world);
        return 0;
    case KRAFT_DO_HALT: sim_fail(sim, "node %d: %s", n->id, a->text);
    }
    return 0;
}

static void apply(struct knode *n)
{
    struct sim *sim = n->world->sim;
    int64_t end = kraft_high_watermark(n->kraft);
    if (n->installed)
        load_image(n);
    n->installed = n->moved = false;
    while (image_offset(n->image) + 1 < end) {
        struct buf b CLEANUP(buf_free) = {0};
        struct image *next;
        struct batch batch;
        int64_t at = image_offset(n->image) + 1;
        if (kraft_store_read(n->store, at, end, READ_BYTES, &b) != 0 || b.size == 0)
            sim_fail(sim, "node %d cannot read what is committed at %lld of %lld", n->id, (long long)at,
                     (long long)end);
        struct slice rest = buf_slice(&b);
        while (batch_next(&rest, &batch, NULL) == 1) {
            if (batch_next_offset(&batch) > end)
                sim_fail(sim, "node %d: the high watermark %lld is within a batch", n->id, (long long)end);
            kcheck_commits(
                n, (struct kbatch){batch.base_offset, batch_next_offset(&batch), batch.leader_epoch, batch.crc});
        }
        if (image_apply(n->image, buf_slice(&b), &next, NULL) != 0)
            sim_fail(sim, "node %d cannot apply its log", n->id);
        image_release(n->image);
        n->image = next;
    }
    if (kraft_role(n->kraft) == KRAFT_LEADER && end <= kraft_epoch_start(n->kraft))
        sim_fail(sim, "node %d commits records of an earlier epoch by counting alone", n->id);
    if (kraft_role(n->kraft) == KRAFT_LEADER)
        kcheck_answers(n);
}

static void arm(struct knode *n)
{
    struct sim *sim = n->world->sim;
    uint64_t at = kraft_deadline(n->kraft), now = sim_now_ms(sim);
    sim_cancel(sim, n->tick);
    n->tick = sim_at(sim, at > now ? MIN(at - now, (uint64_t)60000) : 1, on_tick, n);
}

void knode_step(struct knode *n, const struct kraft_event *event)
{
    struct kraft_event e = *event;
    struct sim *sim = n->world->sim;
    if (!knode_is_up(n))
        return;
    e.now_ms = sim_now_ms(sim);
    e.now_wall_ms = sim_wall_ms(sim) + n->wall_jump_ms;
    int64_t before = kraft_high_watermark(n->kraft);
    struct kraft_actions actions = kraft_step(n->kraft, &e);
    if (kraft_high_watermark(n->kraft) < before)
        sim_fail(sim, "node %d: the high watermark goes back", n->id);
    for (size_t i = 0; i < actions.count && !n->dies; i++) {
        bool killed = !n->world->calm && sim_chance(sim, n->world->dying);
        if (killed || do_action(n, &actions.action[i]) != 0)
            n->dies = true;
        if (killed)
            sim_fault("kraft: killed between two actions");
    }
    if (n->dies) {
        knode_stop(n, sim_chance(sim, 400));
        return;
    }
    kcheck_voters(n);
    arm(n);
    if (n->moved)
        apply(n);
}

/* ---- what clients do ---- */

void knode_append(struct knode *n)
{
    struct batch_options options = BATCH_OPTIONS;
    struct batch_builder b;
    struct batch header;
    struct buf out CLEANUP(buf_free) = {0}, value CLEANUP(buf_free) = {0};
    char name[32], text[160];
    snprintf(name, sizeof name, "key-%d", (int)sim_below(n->world->sim, KEYS));
    snprintf(text, sizeof text, "%0*llu", 1 + (int)sim_below(n->world->sim, 140),
             (unsigned long long)++n->world->value);
    struct kafka_config_record m = {
        .resource_type = IMAGE_BROKER, .resource_name = SLICE_EMPTY, .name = slice_str(name), .value = slice_str(text)};
    if (metarecord_write(&value, METARECORD_CONFIG, 0, &m) != 0)
        sim_fail(n->world->sim, "a record cannot be written");
    options.base_offset = kraft_log_end(n->kraft);
    options.leader_epoch = kraft_epoch(n->kraft);
    batch_begin(&b, &out, &options);
    batch_add(&b, sim_wall_ms(n->world->sim), SLICE_NULL, buf_slice(&value), NULL, 0);
    if (batch_end(&b) != 0 || batch_read_header(buf_slice(&out), &header) != 0)
        sim_fail(n->world->sim, "a batch cannot be built");
    if (append(n, buf_slice(&out)) != 0) {
        knode_stop(n, false);
        return;
    }
    kbatches_push(&n->waiting,
                  (struct kbatch){header.base_offset, batch_next_offset(&header), header.leader_epoch, header.crc});
    knode_step(n, &(struct kraft_event){.kind = KRAFT_APPENDED, .offset = batch_next_offset(&header)});
}

void knode_snapshot(struct knode *n)
{
    struct buf b CLEANUP(buf_free) = {0};
    int64_t end = image_offset(n->image) + 1, newest = -1;
    int32_t epoch = image_epoch(n->image), newest_epoch;
    if (!knode_is_up(n) || n->paused_until > sim_now_ms(n->world->sim) || end <= 0 ||
        kraft_high_watermark(n->kraft) < end || kraft_store_has_staged(n->store))
        return;
    if (kraft_store_has_snapshot(n->store, &newest, &newest_epoch) && newest >= end)
        return;
    kraft_snapshot_of(n->image, sim_wall_ms(n->world->sim), &b);
    if (kraft_store_put_snapshot(n->store, end, epoch, buf_slice(&b), sim_wall_ms(n->world->sim)) != 0) {
        knode_stop(n, sim_chance(n->world->sim, 300));
        return;
    }
    sim_note(n->world->sim, "node %d writes the snapshot %lld, log from %lld", n->id, (long long)end,
             (long long)kraft_store_start(n->store));
    sim_cover("kraft: a snapshot written");
    knode_step(n, &(struct kraft_event){
                      .kind = KRAFT_SNAPSHOT, .offset = end, .epoch = epoch, .start = kraft_store_start(n->store)});
}
