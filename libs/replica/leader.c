/* leader.c - what the leader of a partition knows of its followers: the high watermark, and the ISR, which only the
 * controller changes (KIP-497). */
#include "libs/replica/internal.h"
#include <stdlib.h>

struct follower *replica_known_follower(const struct replica_core *c, int32_t id)
{
    for (size_t i = 0; i < c->follower_count; i++) {
        if (c->followers[i].id == id)
            return &c->followers[i];
    }
    return NULL;
}

/* ---- the ISR ---- */

static bool is_in_maximal_isr(const struct replica_core *c, int32_t id)
{
    return replica_ids_has(&c->isr, id) || (c->change == ISR_EXPANDS && c->joining == id);
}

static int32_t effective_min_isr(const struct replica_core *c)
{
    return MIN(c->min_isr, (int32_t)c->follower_count + 1);
}

static bool has_all(const struct replica_core *c, const struct follower *f, uint64_t now_ms)
{
    return f->end == c->log_end || (f->caught_up_ms > 0 && now_ms - f->caught_up_ms <= c->lag_max_ms);
}

/* KIP-841, KIP-903: neither fenced nor on its way out, and in the life that its Reads come from. And it can write. */
static bool is_eligible(const struct replica_core *c, const struct follower *f)
{
    struct replica_broker b;
    return !f->no_room && f->broker_epoch != EPOCH_NEVER_TOLD && c->env.broker(c->env.ctx, f->id, &b) && !b.fenced &&
           !b.shutting_down && (f->broker_epoch == -1 || f->broker_epoch == b.epoch);
}

static void drop_change(struct replica_core *c)
{
    c->change = ISR_COMMITTED;
    c->joining = REPLICA_NOBODY;
}

static void add_member(struct replica_core *c, int32_t id)
{
    const struct follower *f = replica_known_follower(c, id);
    int64_t epoch = f != NULL && f->broker_epoch != EPOCH_NEVER_TOLD ? f->broker_epoch : -1;
    c->proposed[c->proposed_count++] = (struct replica_member){id, epoch};
}

static void ask(struct replica_core *c, struct replica_actions *out)
{
    struct replica_action *a = replica_act(out, REPLICA_DO_ALTER);
    a->id = ++c->change_id;
    a->leader_epoch = c->leader_epoch;
    a->partition_epoch = c->partition_epoch;
    a->isr = c->proposed;
    a->isr_count = c->proposed_count;
}

static void begin_change(struct replica_core *c)
{
    c->proposed = xrealloc(c->proposed, ((size_t)c->isr.count + 1) * sizeof *c->proposed);
    c->proposed_count = 0;
}

static void maybe_expand(struct replica_core *c, const struct follower *f, const struct replica_log *log,
                         struct replica_actions *out)
{
    if (c->change != ISR_COMMITTED || replica_ids_has(&c->isr, f->id) || f->end < log->high_watermark ||
        f->end < c->epoch_start || !is_eligible(c, f))
        return;
    begin_change(c);
    for (int32_t i = 0; i < c->isr.count; i++)
        add_member(c, c->isr.at[i]);
    add_member(c, f->id);
    c->change = ISR_EXPANDS;
    c->joining = f->id;
    ask(c, out);
}

/* Followers that have all, and read without naming the partition, have nothing new to say of it; but what kept them out
 * may be over: another change that was pending, a fence. */
void replica_lead_expand_any(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    for (size_t i = 0; i < c->follower_count; i++) {
        if (c->followers[i].watched && c->followers[i].end == c->log_end)
            maybe_expand(c, &c->followers[i], &e->log, out);
    }
}

static bool is_out_of_sync(const struct replica_core *c, int32_t id, uint64_t now_ms)
{
    const struct follower *f = replica_known_follower(c, id);
    return id != c->env.node_id && (f == NULL || !has_all(c, f, now_ms));
}

static void maybe_shrink(struct replica_core *c, uint64_t now_ms, struct replica_actions *out)
{
    if (c->change != ISR_COMMITTED)
        return;
    begin_change(c);
    for (int32_t i = 0; i < c->isr.count; i++) {
        if (!is_out_of_sync(c, c->isr.at[i], now_ms))
            add_member(c, c->isr.at[i]);
    }
    if (c->proposed_count == c->isr.count)
        return;
    c->change = ISR_SHRINKS;
    ask(c, out);
}

/* ---- the high watermark ---- */

void replica_lead_raise(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    if (c->isr.count < effective_min_isr(c)) /* KIP-966 */
        return;
    int64_t to = e->log.safe_end;
    for (size_t i = 0; i < c->follower_count; i++) {
        const struct follower *f = &c->followers[i];
        /* Whoever is about to join holds it, too, or it would never get to where it may join. */
        if (f->end < to && (is_in_maximal_isr(c, f->id) || (has_all(c, f, e->now_ms) && is_eligible(c, f))))
            to = f->end;
    }
    if (to > e->log.high_watermark)
        replica_act(out, REPLICA_DO_HIGH_WATERMARK)->offset = to;
}

/* ---- events ---- */

/* Those of before keep what is known of them, within one leader epoch: in between two another may have led that we
 * never heard of, and a follower may have cut its log for that one. (Kafka keeps their ends when the leader is the
 * same.) */
static void set_followers(struct replica_core *c, bool new_epoch)
{
    struct follower *list = xcalloc((size_t)c->replicas.count + 1, sizeof *list);
    size_t count = 0;
    for (int32_t i = 0; i < c->replicas.count; i++) {
        int32_t id = c->replicas.at[i];
        const struct follower *known = new_epoch ? NULL : replica_known_follower(c, id);
        if (id == c->env.node_id)
            continue;
        list[count++] =
            known != NULL
                ? *known
                : (struct follower){
                      .id = id, .start = -1, .end = -1, .leader_end_at_fetch = -1, .broker_epoch = EPOCH_NEVER_TOLD};
    }
    free(c->followers);
    c->followers = list;
    c->follower_count = count;
}

/* Who is in the ISR has its time from now on; who is not does not hold the high watermark back. */
static void reset_times(struct replica_core *c, uint64_t now_ms)
{
    for (size_t i = 0; i < c->follower_count; i++)
        c->followers[i].caught_up_ms = replica_ids_has(&c->isr, c->followers[i].id) ? now_ms : 0;
}

void replica_lead_begin(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    bool new_epoch = e->state->leader_epoch > c->leader_epoch || c->epoch_start < 0;
    c->log_end = e->log.end;
    set_followers(c, new_epoch);
    /* Of a partition epoch that the controller has told us of already the image brings nothing new. (Kafka drops a
     * change that is pending then; the controller may still take it, and count on one whom we no longer wait for.) */
    if (new_epoch || e->state->partition_epoch > c->partition_epoch) {
        replica_ids_set(&c->isr, e->state->isr, e->state->isr_count);
        drop_change(c);
    }
    if (new_epoch) {
        c->epoch_start = e->log.end;
        reset_times(c, e->now_ms);
        replica_act(out, REPLICA_DO_LEAD)->leader_epoch = e->state->leader_epoch;
    }
    replica_lead_raise(c, e, out);
}

void replica_lead_end(struct replica_core *c)
{
    free(c->followers);
    free(c->isr.at);
    free(c->proposed);
    c->followers = NULL;
    c->follower_count = 0;
    c->isr = (struct replica_ids){0};
    c->proposed = NULL;
    c->proposed_count = 0;
    c->epoch_start = -1;
    drop_change(c);
}

void replica_lead_appended(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    for (size_t i = 0; i < c->follower_count && e->log.end != c->log_end; i++) {
        struct follower *f = &c->followers[i];
        if (!f->watched || f->end < c->log_end)
            continue;
        /* Its Reads since have said the same offset without naming it: at the last of them it had all there was. */
        uint64_t at = c->env.last_read_ms(c->env.ctx, f->id);
        f->fetch_ms = MAX(f->fetch_ms, at);
        f->caught_up_ms = MAX(f->caught_up_ms, at);
        f->leader_end_at_fetch = MAX(f->leader_end_at_fetch, c->log_end);
    }
    c->log_end = e->log.end;
    replica_lead_raise(c, e, out);
}

void replica_lead_fetched(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    struct follower *f = replica_known_follower(c, e->follower);
    if (f == NULL)
        return;
    int64_t before = f->end;
    if (e->offset >= e->log.end)
        f->caught_up_ms = MAX(f->caught_up_ms, e->now_ms);
    else if (e->offset >= f->leader_end_at_fetch && f->leader_end_at_fetch >= 0)
        f->caught_up_ms = MAX(f->caught_up_ms, f->fetch_ms);
    f->start = e->log_start;
    f->end = e->offset;
    f->leader_end_at_fetch = MAX(f->leader_end_at_fetch, e->log.end);
    f->fetch_ms = e->now_ms;
    f->broker_epoch = e->broker_epoch;
    f->watched = e->watched;
    bool gave_up = e->no_room && !f->no_room;
    f->no_room = e->no_room;
    maybe_expand(c, f, &e->log, out);
    if (before != f->end || gave_up)
        replica_lead_raise(c, e, out);
}

void replica_lead_unwatched(struct replica_core *c, const struct replica_event *e)
{
    struct follower *f = replica_known_follower(c, e->follower);
    if (f != NULL)
        f->watched = false;
}

void replica_lead_tick(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    c->log_end = e->log.end;
    maybe_shrink(c, e->now_ms, out);
    replica_lead_expand_any(c, e, out);
    replica_lead_raise(c, e, out); /* somebody may hold it back no more */
}

/* What the controller says of a change that did not come about. */
static void take_refusal(struct replica_core *c, enum kafka_error error, struct replica_actions *out)
{
    if (error == KERR_OPERATION_NOT_ATTEMPTED || error == KERR_INELIGIBLE_REPLICA) {
        /* Nothing was changed, and nothing will be by this request. */
        drop_change(c);
    } else if (error == KERR_UNKNOWN_TOPIC_OR_PARTITION || error == KERR_UNKNOWN_TOPIC_ID ||
               error == KERR_FENCED_LEADER_EPOCH || error == KERR_INVALID_UPDATE_VERSION ||
               error == KERR_INVALID_REQUEST || error == KERR_NEW_LEADER_ELECTED) {
        /* The metadata is ahead of us. It may have been changed: what is pending stays until it says so. */
    } else {
        ask(c, out);
    }
}

void replica_lead_altered(struct replica_core *c, const struct replica_event *e, struct replica_actions *out)
{
    if (c->change == ISR_COMMITTED || e->id != c->change_id)
        return; /* the metadata was here first */
    if (e->error != KERR_NONE) {
        take_refusal(c, e->error, out);
        return;
    }
    if (e->leader_epoch != c->leader_epoch || e->partition_epoch < c->partition_epoch)
        return;
    drop_change(c);
    replica_ids_set(&c->isr, e->isr, e->isr_count);
    c->partition_epoch = e->partition_epoch;
    replica_lead_raise(c, e, out);
    replica_lead_expand_any(c, e, out);
}

/* ---- looking at it ---- */

enum kafka_error replica_check_follower(const struct replica_core *c, int32_t id, int64_t broker_epoch)
{
    struct replica_broker b;
    if (c->role != REPLICA_LEADER)
        return KERR_NOT_LEADER_OR_FOLLOWER;
    if (replica_known_follower(c, id) == NULL)
        return KERR_UNKNOWN_LEADER_EPOCH;
    /* An earlier life, whose disk may have been another. */
    if (broker_epoch != -1 && c->env.broker(c->env.ctx, id, &b) && !b.fenced && b.epoch > broker_epoch)
        return KERR_NOT_LEADER_OR_FOLLOWER;
    return KERR_NONE;
}

enum kafka_error replica_may_append(const struct replica_core *c, int32_t acks)
{
    return acks == -1 && c->isr.count < effective_min_isr(c) ? KERR_NOT_ENOUGH_REPLICAS : KERR_NONE;
}

enum kafka_error replica_acknowledge(const struct replica_core *c)
{
    int32_t maximal = c->isr.count + (c->change == ISR_EXPANDS);
    return maximal < effective_min_isr(c) ? KERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND : KERR_NONE;
}

bool replica_is_in_sync(const struct replica_core *c, int32_t id)
{
    return replica_ids_has(&c->isr, id);
}

size_t replica_follower_count(const struct replica_core *c)
{
    return c->follower_count;
}

struct replica_follower replica_follower_at(const struct replica_core *c, size_t i)
{
    const struct follower *f = &c->followers[i];
    return (struct replica_follower){f->id, f->start, f->end, f->caught_up_ms};
}

int64_t replica_low_watermark(const struct replica_core *c, int64_t log_start)
{
    int64_t low = log_start;
    for (size_t i = 0; i < c->follower_count; i++) {
        struct replica_broker b;
        const struct follower *f = &c->followers[i];
        if (c->env.broker(c->env.ctx, f->id, &b) && !b.fenced)
            low = MIN(low, f->start);
    }
    return low;
}
