/* peers.c - the nodes that follow us: when each read last, and its one interest set, which names what it watches.
 *
 * A follower's parked Read is answered once a turn, at its end, with all that the turn has brought over all of its
 * partitions. */
#include "services/storage/read.h"
#include "services/storage/replication.h"
#include <stdlib.h>

struct peer {
    UT_hash_handle hh;
    int32_t id;
    struct interest *set;
    uint64_t read_ms;
    bool answer_due;
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
    for (struct peer *p = s->peers; p != NULL; p = p->hh.next) {
        bool due = p->answer_due;
        p->answer_due = false;
        if (due && p->set != NULL)
            interest_answer(p->set);
    }
}

void peers_free(struct storage *s)
{
    struct peer *p, *next;
    HASH_ITER (hh, s->peers, p, next) {
        HASH_DEL(s->peers, p);
        free(p);
    }
}
