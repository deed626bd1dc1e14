/* peers.c - the nodes that follow us: when each read last, and its one interest set, which names what it watches.
 *
 * A follower's parked Read is answered once a turn, at its end, with all that the turn has brought over all of its
 * partitions.
 *
 * Followers whom the leader's throttle holds back are looked at when it may let somebody through again, those first who
 * got something longest ago: or one that asks a moment earlier than another each time would get all, and the other
 * nothing for as long as that takes. */
#include "services/storage/read.h"
#include "services/storage/replication.h"
#include <stdlib.h>

struct peer {
    UT_hash_handle hh;
    int32_t id;
    struct interest *set;
    uint64_t read_ms;
    bool answer_due;
    bool held; /* the throttle has held something back of its parked Read */
};

static struct peer *find(struct storage *s, int32_t id)
{
    struct peer *p;
    HASH_FIND(hh, s->peers, &id, sizeof id, p);
    return p;
}

void peers_read(struct storage *s, int32_t id, struct interest *set)
{
    struct peer *p = find(s, id);
    if (p == NULL) {
        p = xcalloc(1, sizeof *p);
        p->id = id;
        HASH_ADD(hh, s->peers, id, sizeof p->id, p);
    }
    p->set = set;
    p->read_ms = loop_now_ms(s->loop);
}

void peers_forget(struct storage *s, int32_t id, const struct interest *set)
{
    struct peer *p = find(s, id);
    if (p != NULL && p->set == set)
        p->set = NULL;
}

struct interest *peers_set(struct storage *s, int32_t id)
{
    struct peer *p = find(s, id);
    return p != NULL ? p->set : NULL;
}

uint64_t peers_last_read_ms(void *ctx, int32_t id)
{
    struct peer *p = find(ctx, id);
    return p != NULL ? p->read_ms : 0;
}

void peers_answer_later(struct storage *s, int32_t id)
{
    struct peer *p = find(s, id);
    if (p == NULL || p->answer_due)
        return;
    p->answer_due = true;
    if (!s->commit_comes)
        loop_again(s->loop);
}

void peers_answer(struct storage *s)
{
    struct peer *p, *next;
    HASH_ITER (hh, s->peers, p, next) { /* who is given something moves to the end, and is not due any more there */
        bool due = p->answer_due;
        p->answer_due = false;
        if (due && p->set != NULL)
            interest_answer(p->set);
    }
}

/* ---- the leader's throttle ---- */

static void on_throttle_timer(void *ctx)
{
    struct storage *s = ctx;
    struct peer *p, *next;
    s->peers_timer = loop_timer_stop(s->peers_timer);
    HASH_ITER (hh, s->peers, p, next) {
        bool held = p->held;
        p->held = false;
        if (held && p->set != NULL)
            interest_look_again(p->set);
    }
    loop_again(s->loop);
}

void peers_held(struct storage *s, int32_t id)
{
    struct peer *p = find(s, id);
    if (p == NULL)
        return;
    p->held = true;
    uint64_t now = loop_now_ms(s->loop);
    if (s->peers_timer == NULL && !s->draining)
        s->peers_timer = loop_timer_start(s->loop, throttle_next_ms(now) - now, 0, on_throttle_timer, s);
}

void peers_given(struct storage *s, int32_t id)
{
    struct peer *p = find(s, id);
    if (p == NULL)
        return;
    HASH_DEL(s->peers, p); /* to the end */
    HASH_ADD(hh, s->peers, id, sizeof p->id, p);
}

void peers_stop(struct storage *s)
{
    s->peers_timer = loop_timer_stop(s->peers_timer);
}

void peers_free(struct storage *s)
{
    struct peer *p, *next;
    peers_stop(s);
    HASH_ITER (hh, s->peers, p, next) {
        HASH_DEL(s->peers, p);
        free(p);
    }
}
