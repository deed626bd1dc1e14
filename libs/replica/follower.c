/* follower.c - what a follower does with what its leader says of its log: append, cut where the two part ways
 * (KIP-101, KIP-279, by the epochs in the answer as KIP-595 has them), begin anew where the leader has nothing any
 * more. */
#include "libs/replica/internal.h"

enum { BACKOFF_LEAST_MS = 50, DOUBLINGS_MAX = 20 };

/* Most of what is wrong is over soon: a leader whose log is not open yet, an image that is on its way. */
static void wait_then_read(struct replica_core *c, uint64_t now_ms)
{
    uint64_t delay = (uint64_t)BACKOFF_LEAST_MS << MIN(c->waits, (uint32_t)DOUBLINGS_MAX);
    c->state = FOLLOWER_WAITS;
    c->due_ms = now_ms + MIN(delay, c->backoff_ms);
    c->waits++;
}

static void cut(struct replica_core *c, enum replica_action_kind kind, int64_t offset, struct replica_actions *out)
{
    c->state = FOLLOWER_WRITES;
    c->past++;
    replica_act(out, kind)->offset = offset;
}

void replica_follow_begin(struct replica_core *c, const struct replica_event *e, bool is_new_epoch,
                          struct replica_actions *out)
{
    if (!is_new_epoch)
        return;
    struct replica_action *a = replica_act(out, REPLICA_DO_FOLLOW);
    a->leader = e->state->leader;
    a->leader_epoch = e->state->leader_epoch;
    c->state = FOLLOWER_READS;
    c->due_ms = UINT64_MAX;
    c->appends = c->told = false;
    c->waits = 0;
    c->past++;
    /* Without epochs nothing says where it parts from the leader's but the high watermark. */
    if (e->log.latest_epoch < 0 && e->log.end > e->log.high_watermark)
        cut(c, REPLICA_DO_TRUNCATE, e->log.high_watermark, out);
}

/* The leader knows of the epochs up to diverging_epoch only, and there the last of them ends at diverging_end. */
static int64_t common_end(const struct replica_event *e)
{
    int64_t end = e->diverging_end;
    if (e->diverging_epoch < 0 || end < 0)
        end = e->log.high_watermark;
    else if (e->own_epoch >= 0 && e->own_epoch != e->diverging_epoch)
        end = e->own_end; /* an epoch that we do not have: to the end of the one before, and ask again */
    else if (e->own_epoch >= 0)
        end = MIN(end, e->own_end);
    return MIN(end, e->log.end);
}

static void out_of_range(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    if (e->leader_end >= 0 && e->leader_end < e->log.end)
        cut(c, REPLICA_DO_TRUNCATE, e->leader_end, out);
    else if (e->leader_start > e->log.end)
        cut(c, REPLICA_DO_RESTART, e->leader_start, out);
    else
        wait_then_read(c, e->now_ms);
}

static void take_bounds(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    int64_t mark = MIN(c->leader_high_watermark, e->log.end);
    if (mark > e->log.high_watermark)
        replica_act(out, REPLICA_DO_HIGH_WATERMARK)->offset = mark;
    if (c->leader_start > e->log.start && c->leader_start <= MAX(mark, e->log.high_watermark))
        replica_act(out, REPLICA_DO_LOG_START)->offset = c->leader_start;
}

static void take_records(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    /* The leader's log may begin inside its first batch, which comes whole: an empty log begins where that does. */
    if (e->log.start == e->log.end && e->first_offset < e->log.end && e->last_offset >= e->log.end)
        replica_act(out, REPLICA_DO_RESTART)->offset = e->first_offset;
    c->state = FOLLOWER_WRITES;
    c->appends = true;
    replica_act(out, REPLICA_DO_APPEND);
}

void replica_follow_told(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    if (e->id != c->past || e->offset != e->log.end || c->state != FOLLOWER_READS)
        return; /* said of another past of ours */
    c->told = c->told || e->error == KERR_NONE;
    c->leader_start = e->leader_start;
    c->leader_high_watermark = e->leader_high_watermark;
    if (e->error == KERR_OFFSET_OUT_OF_RANGE) {
        out_of_range(c, e, out);
        return;
    }
    if (e->error == KERR_FENCED_LEADER_EPOCH) {
        c->state = FOLLOWER_STOPPED; /* until the metadata says who leads now */
        return;
    }
    if (e->error != KERR_NONE) {
        wait_then_read(c, e->now_ms);
        return;
    }
    c->waits = 0;
    if (e->diverging_epoch >= 0 || e->diverging_end >= 0)
        cut(c, REPLICA_DO_TRUNCATE, common_end(e), out);
    else if (e->has_records)
        take_records(c, e, out);
    else
        take_bounds(c, e, out);
}

void replica_follow_written(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    if (c->state != FOLLOWER_WRITES)
        return;
    c->appends = false;
    if (e->error == KERR_NONE) {
        c->state = FOLLOWER_READS;
        take_bounds(c, e, out);
    } else if (e->error == KERR_KAFKA_STORAGE_ERROR) {
        c->state = FOLLOWER_STOPPED;
    } else {
        take_bounds(c, e, out); /* where the disk is full, a new log start makes room */
        wait_then_read(c, e->now_ms);
    }
}

void replica_follow_cut(struct replica_core *c, const struct replica_event *e, struct replica_actions *out UNUSED)
{
    if (c->state != FOLLOWER_WRITES)
        return;
    if (e->error == KERR_KAFKA_STORAGE_ERROR)
        c->state = FOLLOWER_STOPPED;
    else if (e->error != KERR_NONE)
        wait_then_read(c, e->now_ms);
    else if (!c->appends)
        c->state = FOLLOWER_READS;
}

void replica_follow_tick(struct replica_core *c, const struct replica_event *e)
{
    if (c->state != FOLLOWER_WAITS || e->now_ms < c->due_ms)
        return;
    c->state = FOLLOWER_READS;
    c->due_ms = UINT64_MAX;
}

bool replica_reads(const struct replica_core *c)
{
    return c->role == REPLICA_FOLLOWER && c->state == FOLLOWER_READS;
}

uint64_t replica_past(const struct replica_core *c)
{
    return c->past;
}

int64_t replica_lag(const struct replica_core *c, int64_t log_end)
{
    return c->told ? MAX(c->leader_high_watermark - log_end, (int64_t)0) : 1;
}

uint64_t replica_due(const struct replica_core *c)
{
    return c->role == REPLICA_FOLLOWER && c->state == FOLLOWER_WAITS ? c->due_ms : UINT64_MAX;
}
