/* turn.c - from decisions to answers: stage in the turn, one write and one flush at its end, then publish and answer.
 */
#include <inttypes.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "libs/kraft/snapshot.h"
#include "services/controller/quorum.h"

void quorum_fail(struct quorum *q, const char *action, int error)
{
    if (q->failed)
        return;
    q->failed = true;
    log_error("%s: %s: %s; the controller ends, as it does not know what is durable", q->log_dir, action,
              strerror(-error));
    service_fail(q->service, STATUS_STORAGE);
}

/* ---- the log ---- */

static int step(struct quorum *q, enum kraft_event_kind kind, int64_t offset, struct kraft_actions *ret_actions)
{
    struct kraft_event e = {.kind = kind, .offset = offset, .now_wall_ms = loop_wall_ms(q->loop)};
    kraft_step(q->kraft, &e, ret_actions);
    return ret_actions->save_state ? kraft_store_save_state(q->store, &ret_actions->state) : 0;
}

static int stage(struct quorum *q, struct slice batches, int64_t end)
{
    struct kraft_actions actions;
    int error = kraft_store_stage(q->store, batches, loop_wall_ms(q->loop));
    return error != 0 ? error : step(q, KRAFT_APPENDED, end, &actions);
}

void quorum_record(struct quorum *q)
{
    struct buf b CLEANUP(buf_free) = {0};
    int64_t last;
    if (q->failed || !controller_take(q->controller, loop_wall_ms(q->loop), &b, &last))
        return;
    int error = stage(q, buf_slice(&b), last + 1);
    if (error != 0)
        quorum_fail(q, "append to the metadata log", error);
}

/* ---- answers ---- */

bool quorum_refuses(struct quorum *q, struct rpc *rpc)
{
    if (!q->failed && !service_is_draining(q->service))
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
    if (!wants_snapshot(q) || image_in_transaction(q->committed))
        return;
    kraft_snapshot_of(q->committed, loop_wall_ms(q->loop), &b);
    plan_snapshot(q);
    int error = kraft_store_put_snapshot(q->store, image_offset(q->committed) + 1, image_epoch(q->committed),
                                         buf_slice(&b), loop_wall_ms(q->loop));
    if (error != 0)
        quorum_fail(q, "write a snapshot", error);
    else
        log_info("snapshot of the metadata up to offset %" PRId64 ", %zu bytes", image_offset(q->committed), b.size);
}

/* ---- the turn ---- */

/* What was just written is what the followers at the end want: read once for all of them. */
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

static void publish(struct quorum *q)
{
    int64_t base = image_offset(q->committed) + 1;
    image_release(q->committed);
    q->committed = image_retain(controller_image(q->controller));
    service_publish_image(q->service, q->committed);
    answer_waiting(q);
    keep_last(q, base);
    follow_wake(q);
    snapshot(q);
}

static int write_staged(struct quorum *q, struct kraft_actions *ret_actions)
{
    int error = kraft_store_commit(q->store);
    return error != 0 ? error : step(q, KRAFT_FLUSHED, kraft_store_end(q->store), ret_actions);
}

void quorum_commit(void *ctx)
{
    struct quorum *q = ctx;
    struct kraft_actions actions = {0};
    if (q->failed || !kraft_store_has_staged(q->store))
        return;
    int error = write_staged(q, &actions);
    if (error != 0) {
        quorum_fail(q, error == -EBUSY ? "another process has written to the metadata log" : "write the metadata log",
                    error);
        return;
    }
    ASSERT(kraft_high_watermark(q->kraft) == image_offset(controller_image(q->controller)) + 1);
    publish(q);
}

void quorum_tick(void *ctx)
{
    struct quorum *q = ctx;
    uint64_t now = loop_now_ms(q->loop);
    uint64_t next = controller_tick(q->controller, now);
    quorum_record(q);
    uint64_t limit = 60000; /* a day far away is looked at again in between */
    loop_timer_again(q->tick, MIN(next > now ? next - now : 1, limit));
}

/* ---- becoming leader ---- */

static int append_leader_change(struct quorum *q)
{
    struct kraft_actions actions;
    int error = step(q, KRAFT_ELECT, 0, &actions);
    if (error == 0)
        error = step(q, KRAFT_STATE_SAVED, 0, &actions);
    if (error != 0)
        return error;
    ASSERT(actions.became_leader);
    struct image *next;
    error = image_apply(q->committed, actions.append, &next, NULL);
    if (error != 0)
        return error;
    image_release(q->committed);
    q->committed = next;
    return stage(q, actions.append, image_offset(next) + 1);
}

int quorum_become_leader(struct quorum *q, const struct image *bootstrap)
{
    int error = append_leader_change(q);
    if (error == 0) {
        controller_activate(q->controller, q->committed, kraft_log_end(q->kraft), kraft_epoch(q->kraft), bootstrap,
                            loop_now_ms(q->loop));
        plan_snapshot(q);
        quorum_record(q);
        struct kraft_actions actions;
        error = q->failed ? -EIO : write_staged(q, &actions);
    }
    if (error != 0) {
        log_error("%s: become the leader of the metadata quorum: %s", q->log_dir, strerror(-error));
        return STATUS_STORAGE;
    }
    log_info("leader of the metadata quorum in epoch %d, log from %" PRId64 " to %" PRId64, kraft_epoch(q->kraft),
             kraft_store_start(q->store), kraft_store_end(q->store));
    publish(q);
    q->tick = loop_timer_start(q->loop, 1, 0, quorum_tick, q);
    return 0;
}
