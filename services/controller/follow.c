/* follow.c - bus request Follow: the committed log, raw, from an offset on; parked while there is nothing new. A
 * follower from before the log, or a new one while there is a snapshot, gets the snapshot. */
#include <inttypes.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "services/controller/quorum.h"

enum { REPLY_BYTES_MAX = 8 << 20, PARK_MAX_MS = 60000 };

static void reply(struct quorum *q, struct rpc *rpc, Karst__Bus__FollowReply *body, const struct ref *payload)
{
    body->leader_id = q->kraft != NULL ? kraft_leader(q->kraft) : -1;
    body->high_watermark = q->kraft != NULL ? kraft_high_watermark(q->kraft) : -1;
    rpc_reply(rpc, KARST__BUS__REPLY__BODY_FOLLOW, body, payload, payload ? 1 : 0, 0);
}

static void reply_error(struct quorum *q, struct rpc *rpc, enum kafka_error error)
{
    Karst__Bus__FollowReply body = KARST__BUS__FOLLOW_REPLY__INIT;
    body.error = error;
    reply(q, rpc, &body, NULL);
}

static void reply_nothing(struct quorum *q, struct rpc *rpc, int64_t from)
{
    Karst__Bus__FollowReply body = KARST__BUS__FOLLOW_REPLY__INIT;
    body.next_offset = from;
    reply(q, rpc, &body, NULL);
}

static void reply_snapshot(struct quorum *q, struct rpc *rpc)
{
    Karst__Bus__FollowReply body = KARST__BUS__FOLLOW_REPLY__INIT;
    int32_t epoch;
    struct slice bytes = kraft_store_snapshot(q->store, &body.next_offset, &epoch);
    if (slice_is_null(bytes)) {
        reply_error(q, rpc, KERR_SNAPSHOT_NOT_FOUND);
        return;
    }
    struct ref payload = ref_copy(bytes);
    kraft_store_forget(q->store);
    body.is_snapshot = true;
    reply(q, rpc, &body, &payload);
    ref_release(&payload);
}

/* The offset behind the last of whole batches. */
static int64_t end_of(struct slice batches)
{
    struct batch b;
    int64_t end = -1;
    while (batch_next(&batches, &b, NULL) == 1)
        end = batch_next_offset(&b);
    return end;
}

static void reply_log(struct quorum *q, struct rpc *rpc, int64_t from, size_t max_bytes)
{
    Karst__Bus__FollowReply body = KARST__BUS__FOLLOW_REPLY__INIT;
    struct ref payload = REF_EMPTY;
    if (from == q->last_base && q->last.kind != REF_NONE) {
        payload = q->last;
        ref_retain(&payload);
    } else {
        struct buf b = {0};
        int error = kraft_store_read(q->store, from, kraft_high_watermark(q->kraft), max_bytes, &b);
        if (error != 0 || b.size == 0) {
            buf_free(&b);
            log_warn("a follower asks for offset %" PRId64 ", which cannot be read", from);
            reply_error(q, rpc, KERR_OFFSET_OUT_OF_RANGE);
            return;
        }
        payload = ref_take(b.data, b.size);
    }
    body.next_offset = end_of(ref_bytes(&payload));
    reply(q, rpc, &body, &payload);
    ref_release(&payload);
}

/* ---- parked ---- */

static struct rpc *unpark(struct follower *f)
{
    struct rpc *rpc = f->rpc; /* f is in its arena */
    f->timer = loop_timer_stop(f->timer);
    DL_DELETE(f->quorum->followers, f);
    f->quorum->follower_count--;
    return rpc;
}

static void on_time_over(void *ctx)
{
    struct follower *f = ctx;
    struct quorum *q = f->quorum;
    int64_t from = f->from;
    reply_nothing(q, unpark(f), from);
}

static void on_gone(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    struct follower *f;
    DL_FOREACH (q->followers, f) {
        if (f->rpc != rpc)
            continue;
        int64_t from = f->from;
        reply_nothing(q, unpark(f), from);
        return;
    }
}

static void park(struct quorum *q, struct rpc *rpc, int64_t from, size_t max_bytes, uint32_t wait_ms)
{
    struct follower *f = arena_calloc(rpc_arena(rpc), 1, sizeof *f);
    *f = (struct follower){.quorum = q, .rpc = rpc, .from = from, .max_bytes = max_bytes};
    f->timer = loop_timer_start(q->loop, wait_ms, 0, on_time_over, f);
    DL_APPEND(q->followers, f);
    q->follower_count++;
    rpc_on_gone(rpc, on_gone, q);
}

void follow_wake(struct quorum *q)
{
    int64_t end = kraft_high_watermark(q->kraft);
    struct follower *f, *next;
    DL_FOREACH_SAFE(q->followers, f, next)
    {
        int64_t from = f->from;
        size_t max_bytes = f->max_bytes;
        if (from < end)
            reply_log(q, unpark(f), from, max_bytes);
    }
}

void follow_end_all(struct quorum *q)
{
    while (q->followers != NULL)
        reply_error(q, unpark(q->followers), KERR_NOT_LEADER_OR_FOLLOWER);
}

/* ---- the request ---- */

void follow_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    const Karst__Bus__FollowRequest *m = rpc_call(rpc)->follow;
    const Karst__Bus__Peer *from = rpc_from(rpc);
    int64_t end = kraft_high_watermark(q->kraft), snapshot_end = 0;
    size_t max_bytes = MIN((size_t)m->max_bytes, (size_t)REPLY_BYTES_MAX);
    int32_t epoch;
    uint32_t wait_ms = MIN(m->max_wait_ms, (uint32_t)PARK_MAX_MS);
    if (!q->active || q->failed || service_is_draining(q->service) || m->from_offset < 0) {
        reply_error(q, rpc, m->from_offset < 0 ? KERR_OFFSET_OUT_OF_RANGE : KERR_NOT_LEADER_OR_FOLLOWER);
        return;
    }
    watching_heard(q, rpc);
    controller_followed(q->controller, (int32_t)from->role, from->id, from->incarnation, m->from_offset - 1);
    quorum_record(q);
    if (m->from_offset > end) {
        log_warn("a %d with id %d asks for offset %" PRId64 ", the log ends at %" PRId64, from->role, from->id,
                 m->from_offset, end);
        reply_error(q, rpc, KERR_OFFSET_OUT_OF_RANGE);
    } else if (m->from_offset < kraft_store_start(q->store) ||
               (m->from_offset == 0 && kraft_store_has_snapshot(q->store, &snapshot_end, &epoch) && snapshot_end > 0)) {
        reply_snapshot(q, rpc);
    } else if (m->from_offset < end) {
        reply_log(q, rpc, m->from_offset, max_bytes);
    } else if (wait_ms == 0 || q->follower_count >= FOLLOWERS_MAX) {
        reply_nothing(q, rpc, m->from_offset);
    } else {
        park(q, rpc, m->from_offset, max_bytes, wait_ms);
    }
}
