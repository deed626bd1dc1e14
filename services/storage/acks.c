/* acks.c - appends with acks=all to a partition with several replicas: answered when the high watermark has passed
 * them, when their leader is one no more, or when the producer's time is over (Kafka's DelayedProduce).
 *
 * What was written stays written whatever the answer: REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND say that
 * nobody knows whether it will be committed.
 *
 * I1  a part that waits is in its replica's waiting_acks, and counts in its call's waiting. */
#include "services/storage/replication.h"

static void on_due(void *ctx);

/* One timer, for the call whose time ends first; it fires for nothing when that has been answered, as most are. */
static void arm(struct storage *s, uint64_t due_ms)
{
    if (s->acks_timer != NULL && s->acks_due_ms <= due_ms)
        return;
    uint64_t now = loop_now_ms(s->loop), delay = due_ms > now ? due_ms - now : 0;
    s->acks_due_ms = due_ms;
    if (s->acks_timer == NULL)
        s->acks_timer = loop_timer_start(s->loop, delay, 0, on_due, s);
    else
        loop_timer_again(s->acks_timer, delay);
}

void acks_wait(struct append_part *p)
{
    struct replica *r = p->replica;
    LL_PREPEND2(r->waiting_acks, p, next_waiting);
    append_waits_for_acks(p->call);
    arm(r->storage, append_due_ms(p->call));
}

void acks_on_high_watermark(struct replica *r)
{
    struct append_part *p, *next, *waiting = TAKE_PTR(r->waiting_acks);
    int64_t mark = log_high_watermark(r->log);
    LL_FOREACH_SAFE2(waiting, p, next, next_waiting)
    {
        if (p->append.next_offset > mark)
            LL_PREPEND2(r->waiting_acks, p, next_waiting);
        else
            append_on_acks(p, replica_acknowledge(r->core));
    }
}

void acks_end(struct replica *r, enum kafka_error error)
{
    struct append_part *p, *next, *waiting = TAKE_PTR(r->waiting_acks);
    LL_FOREACH_SAFE2(waiting, p, next, next_waiting)
    append_on_acks(p, error);
}

void acks_end_all(struct storage *s)
{
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next)
        acks_end(r, KERR_NOT_LEADER_OR_FOLLOWER);
}

static void expire(struct replica *r, uint64_t now_ms, uint64_t *least_ms)
{
    struct append_part *p, *next, *waiting = TAKE_PTR(r->waiting_acks);
    LL_FOREACH_SAFE2(waiting, p, next, next_waiting)
    {
        uint64_t due = append_due_ms(p->call);
        if (due <= now_ms) {
            append_on_acks(p, KERR_REQUEST_TIMED_OUT);
            continue;
        }
        LL_PREPEND2(r->waiting_acks, p, next_waiting);
        *least_ms = MIN(*least_ms, due);
    }
}

static void on_due(void *ctx)
{
    struct storage *s = ctx;
    uint64_t now = loop_now_ms(s->loop), least = UINT64_MAX;
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        if (r->waiting_acks != NULL)
            expire(r, now, &least);
    }
    s->acks_timer = loop_timer_stop(s->acks_timer);
    if (least != UINT64_MAX)
        arm(s, least);
}

void acks_free(struct storage *s)
{
    s->acks_timer = loop_timer_stop(s->acks_timer);
}
