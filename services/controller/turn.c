/* turn.c - from decisions to answers: stage in the turn, one write and one flush at its end; once a majority of the
 * voters has it (one voter: at once), publish and answer. */
#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "libs/kraft/snapshot.h"
#include "services/controller/quorum.h"

enum { REPLAY_BYTES = 4 << 20 };

void quorum_fail(struct quorum *q, const char *action, int error)
{
    if (q->failed)
        return;
    q->failed = true;
    log_error("%s: %s: %s; the controller ends, as it does not know what is durable", q->log_dir, action,
              strerror(-error));
    service_fail(q->service, STATUS_STORAGE);
}

/* ---- decisions ---- */

/* The image behind a batch that is staged, for the time when it is committed. */
struct ahead {
    struct image *image;
    struct ahead *prev, *next;
};

static void push_ahead(struct quorum *q)
{
    struct ahead *a = xmalloc(sizeof *a);
    a->image = image_retain(controller_image(q->controller));
    DL_APPEND(q->ahead, a);
}

static void pop_ahead(struct quorum *q)
{
    struct ahead *a = q->ahead;
    DL_DELETE(q->ahead, a);
    image_release(a->image);
    free(a);
}

void quorum_record(struct quorum *q)
{
    struct buf b CLEANUP(buf_free) = {0};
    int64_t last;
    if (q->failed || !q->active || !controller_take(q->controller, loop_wall_ms(q->loop), &b, &last))
        return;
    int error = kraft_store_stage(q->store, buf_slice(&b), loop_wall_ms(q->loop));
    if (error != 0) {
        quorum_fail(q, "append to the metadata log", error);
        return;
    }
    push_ahead(q);
    quorum_step(q, &(struct kraft_event){.kind = KRAFT_APPENDED, .offset = last + 1});
}

void quorum_observe(struct quorum *q, struct slice batch)
{
    controller_observe(q->controller, batch);
    push_ahead(q);
}

/* ---- answers ---- */

bool quorum_refuses(struct quorum *q, struct rpc *rpc)
{
    if (q->active && !q->failed && !service_is_draining(q->service))
        return false;
    rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_OVERLOADED);
    return true;
}

static void reply(const struct waiting *w)
{
    struct rpc *rpc = w->rpc; /* w is in its arena */
    if (w->kind == KARST__BUS__REPLY__BODY_KAFKA)
        rpc_reply_kafka(rpc, w->body, w->after);
    else
        rpc_reply(rpc, w->kind, w->body, NULL, 0, w->after);
}

void quorum_answer(struct quorum *q, struct rpc *rpc, Karst__Bus__Reply__BodyCase kind, const void *body)
{
    quorum_record(q);
    struct waiting *w = arena_calloc(rpc_arena(rpc), 1, sizeof *w);
    *w = (struct waiting){
        .rpc = rpc, .kind = kind, .body = body, .after = image_offset(controller_image(q->controller))};
    if (w->after <= image_offset(q->committed))
        reply(w);
    else
        DL_APPEND(q->waiting, w);
}

static void answer_waiting(struct quorum *q)
{
    while (q->waiting != NULL && q->waiting->after <= image_offset(q->committed)) {
        struct waiting *w = q->waiting;
        DL_DELETE(q->waiting, w);
        reply(w);
    }
}

/* What they asked for is in the log of a leader that is none any more: the next one may have it or not. */
void quorum_deactivate(struct quorum *q)
{
    if (q->active)
        log_info("no leader of the metadata quorum any more");
    q->active = false;
    q->tick = loop_timer_stop(q->tick);
    while (q->waiting != NULL) {
        struct rpc *rpc = q->waiting->rpc;
        DL_DELETE(q->waiting, q->waiting);
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    }
    while (q->ahead != NULL)
        pop_ahead(q);
    follow_end_all(q);
}

/* ---- snapshots ---- */

static bool wants_snapshot(const struct quorum *q)
{
    uint64_t bytes = kraft_store_bytes_since_snapshot(q->store);
    if (bytes >= (uint64_t)config_long(q->config, "metadata.log.max.record.bytes.between.snapshots"))
        return true;
    return bytes > 0 && q->snapshot_due_wall_ms > 0 && loop_wall_ms(q->loop) >= q->snapshot_due_wall_ms;
}

static void plan_snapshot(struct quorum *q)
{
    int64_t interval = config_long(q->config, "metadata.log.max.snapshot.interval.ms");
    q->snapshot_due_wall_ms = interval > 0 ? loop_wall_ms(q->loop) + interval : 0;
}

static void snapshot(struct quorum *q)
{
    struct buf b CLEANUP(buf_free) = {0};
    if (!wants_snapshot(q) || image_in_transaction(q->committed) || kraft_store_has_staged(q->store))
        return;
    int64_t end = image_offset(q->committed) + 1;
    int32_t epoch = image_epoch(q->committed);
    kraft_snapshot_of(q->committed, loop_wall_ms(q->loop), &b);
    plan_snapshot(q);
    int error = kraft_store_put_snapshot(q->store, end, epoch, buf_slice(&b), loop_wall_ms(q->loop));
    if (error != 0) {
        quorum_fail(q, "write a snapshot", error);
        return;
    }
    log_info("snapshot of the metadata up to offset %" PRId64 ", %zu bytes", end - 1, b.size);
    quorum_step(q, &(struct kraft_event){
                       .kind = KRAFT_SNAPSHOT, .offset = end, .epoch = epoch, .start = kraft_store_start(q->store)});
}

/* ---- what is committed ---- */

static int load_snapshot(struct quorum *q)
{
    int64_t end = 0;
    int32_t epoch = 0;
    struct image *image;
    struct slice bytes = kraft_store_snapshot(q->store, &end, &epoch);
    int error = slice_is_null(bytes) ? -ENOENT : image_load(service_cluster_id(q->service), bytes, end, epoch, &image);
    kraft_store_forget(q->store);
    if (error != 0)
        return error;
    image_release(q->committed);
    q->committed = image;
    return 0;
}

/* One piece of the log onto the committed image. */
static int apply_piece(struct quorum *q, int64_t end)
{
    struct buf b CLEANUP(buf_free) = {0};
    struct image *next;
    int64_t bad = -1;
    int error = kraft_store_read(q->store, image_offset(q->committed) + 1, end, REPLAY_BYTES, &b);
    if (error == 0 && b.size == 0)
        error = -EBADMSG;
    if (error == 0)
        error = image_apply(q->committed, buf_slice(&b), &next, &bad);
    if (error != 0) {
        log_error("%s: the metadata log cannot be understood at offset %" PRId64, q->log_dir, bad);
        return error;
    }
    image_release(q->committed);
    q->committed = next;
    return 0;
}

static int catch_up(struct quorum *q)
{
    int64_t end = kraft_high_watermark(q->kraft);
    int error = q->installed ? load_snapshot(q) : 0;
    q->installed = false;
    while (q->ahead != NULL && image_offset(q->ahead->image) < end) {
        image_release(q->committed);
        q->committed = image_retain(q->ahead->image);
        pop_ahead(q);
    }
    while (error == 0 && image_offset(q->committed) + 1 < end)
        error = apply_piece(q, end);
    return error;
}

/* What was just committed is what the followers at the end want: read once for all of them. */
static void keep_last(struct quorum *q, int64_t base)
{
    struct buf b = {0};
    ref_release(&q->last);
    if (q->followers == NULL)
        return;
    int64_t end = kraft_high_watermark(q->kraft);
    if (kraft_store_read(q->store, base, end, INT32_MAX / 2, &b) == 0 && b.size > 0) {
        q->last = ref_take(b.data, b.size);
        q->last_base = base;
    } else {
        buf_free(&b);
    }
}

void quorum_publish(struct quorum *q)
{
    q->moved = false;
    int64_t base = image_offset(q->committed) + 1;
    int error = catch_up(q);
    if (error != 0) {
        quorum_fail(q, "apply the metadata log", error);
        return;
    }
    service_publish_image(q->service, q->committed);
    answer_waiting(q);
    keep_last(q, base);
    follow_wake(q);
    snapshot(q);
    if (!q->active && kraft_role(q->kraft) == KRAFT_LEADER)
        quorum_activate(q);
    if (!q->failed && !q->ended)
        registration_pump(q);
}

/* ---- the turn ---- */

void quorum_commit(void *ctx)
{
    struct quorum *q = ctx;
    if (q->failed || q->ended || !kraft_store_has_staged(q->store))
        return;
    int error = kraft_store_commit(q->store);
    if (error != 0)
        quorum_fail(q, error == -EBUSY ? "another process has written to the metadata log" : "write the metadata log",
                    error);
    else
        quorum_step(q, &(struct kraft_event){.kind = KRAFT_FLUSHED, .offset = kraft_store_end(q->store)});
}

void quorum_tick(void *ctx)
{
    struct quorum *q = ctx;
    uint64_t now = loop_now_ms(q->loop);
    uint64_t next = controller_tick(q->controller, now);
    quorum_record(q);
    uint64_t limit = 60000; /* a day far away is looked at again in between */
    if (q->tick != NULL)
        loop_timer_again(q->tick, MIN(next > now ? next - now : 1, limit));
}

/* ---- deciding ---- */

/* Our leader change is committed, and the image holds all before it: from here on this process decides. */
void quorum_activate(struct quorum *q)
{
    if (kraft_high_watermark(q->kraft) < kraft_log_end(q->kraft))
        return;
    struct image *bootstrap = quorum_read_bootstrap(q);
    controller_activate(q->controller, q->committed, kraft_log_end(q->kraft), kraft_epoch(q->kraft), bootstrap,
                        loop_now_ms(q->loop));
    image_release(bootstrap);
    q->active = true;
    plan_snapshot(q);
    log_info("leader of the metadata quorum in epoch %d, log from %" PRId64 " to %" PRId64, kraft_epoch(q->kraft),
             kraft_store_start(q->store), kraft_store_end(q->store));
    q->tick = loop_timer_start(q->loop, 1, 60000, quorum_tick, q);
    watching_tell_all(q);
    quorum_record(q);
}
