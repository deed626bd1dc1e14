/* world_kraft_check.c - the promises of the world `kraft`. */
#include "tests/sim/world_kraft.h"

#include <inttypes.h>
#include <stdlib.h>
#include <uthash.h>

#include "libs/kraft/snapshot.h"

/* A batch is known by its offset and epoch: with it come its bytes and the batch before it (Raft's log matching). */
struct known {
    struct {
        int64_t base;
        int32_t epoch, pad;
    } key;
    uint32_t crc;
    int64_t before_base; /* -1: not known */
    int32_t before_epoch;
    uint64_t voters; /* hash of those that count when it is the last; 0: not known */
    UT_hash_handle hh;
};

/* Whom a node gave its vote in an epoch. */
struct voted {
    struct {
        int32_t node, epoch;
    } key;
    int32_t candidate;
    UT_hash_handle hh;
};

struct kpromises {
    struct kworld *world;
    struct known *known;
    struct voted *voted;
    int32_t *leaders; /* by epoch; -1: none */
    int32_t epochs;
    struct kbatches committed;
    int64_t decided; /* the highest high watermark of all */
};

struct kpromises *kpromises_new(struct kworld *w)
{
    struct kpromises *p = xcalloc(1, sizeof *p);
    p->world = w;
    return p;
}

void kpromises_free(struct kpromises *p)
{
    struct known *k, *next;
    struct voted *v, *next_voted;
    HASH_ITER (hh, p->known, k, next) {
        HASH_DEL(p->known, k);
        free(k);
    }
    HASH_ITER (hh, p->voted, v, next_voted) {
        HASH_DEL(p->voted, v);
        free(v);
    }
    free(p->leaders);
    free(p->committed.at);
    free(p);
}

void kbatches_push(struct kbatches *l, struct kbatch b)
{
    if (l->count == l->room)
        l->at = xrealloc(l->at, (l->room = l->room * 2 + 64) * sizeof *l->at);
    l->at[l->count++] = b;
}

int64_t kcheck_committed_end(const struct kworld *w)
{
    const struct kbatches *c = &w->promises->committed;
    return c->count > 0 ? c->at[c->count - 1].next : 0;
}

/* One leader an epoch, and it has everything that was ever committed. */
void kcheck_leads(struct knode *n, int32_t epoch)
{
    struct kpromises *p = n->world->promises;
    struct sim *sim = n->world->sim;
    while (p->epochs <= epoch) {
        p->leaders = xrealloc(p->leaders, (size_t)(p->epochs + 1) * sizeof *p->leaders);
        p->leaders[p->epochs++] = -1;
    }
    if (p->leaders[epoch] >= 0)
        sim_fail(sim, "epoch %d has the leaders %d and %d", epoch, p->leaders[epoch], n->id);
    p->leaders[epoch] = n->id;
    if (p->committed.count == 0)
        return;
    struct kbatch last = p->committed.at[p->committed.count - 1];
    for (size_t i = n->log.count; i-- > 0;)
        if (n->log.at[i].base == last.base && n->log.at[i].epoch == last.epoch && n->log.at[i].crc == last.crc)
            return;
    int64_t end = -1;
    int32_t snapshot_epoch;
    if (!kraft_store_has_snapshot(n->store, &end, &snapshot_epoch) || end < last.next)
        sim_fail(sim, "node %d leads epoch %d without the committed batch at %" PRId64, n->id, epoch, last.base);
}

void kcheck_grants(struct knode *n, int32_t epoch, int32_t candidate)
{
    struct kpromises *p = n->world->promises;
    struct voted *v = NULL, key = {.key = {n->id, epoch}};
    HASH_FIND(hh, p->voted, &key.key, sizeof key.key, v);
    if (v != NULL && v->candidate != candidate)
        sim_fail(n->world->sim, "node %d votes for %d and for %d in epoch %d", n->id, v->candidate, candidate, epoch);
    if (v != NULL)
        return;
    v = xcalloc(1, sizeof *v);
    v->key = key.key;
    v->candidate = candidate;
    HASH_ADD(hh, p->voted, key, sizeof v->key, v);
}

void kcheck_saves(struct knode *n, const struct kraft_quorum_state *s)
{
    struct kraft_quorum_state before;
    if (kraft_store_state(n->store, &before) && before.leader_epoch > s->leader_epoch)
        sim_fail(n->world->sim, "node %d goes back from epoch %d to %d", n->id, before.leader_epoch, s->leader_epoch);
}

static struct known *find_known(const struct kpromises *p, struct kbatch b)
{
    struct known key, *k = NULL;
    memset(&key, 0, sizeof key);
    key.key.base = b.base;
    key.key.epoch = b.epoch;
    HASH_FIND(hh, p->known, &key.key, sizeof key.key, k);
    return k;
}

void kcheck_appends(struct knode *n, struct kbatch b)
{
    struct kpromises *p = n->world->promises;
    struct known *k = find_known(p, b);
    const struct kbatch *before = n->log.count > 0 ? &n->log.at[n->log.count - 1] : NULL;
    if (before != NULL && (before->next != b.base || before->epoch > b.epoch))
        sim_fail(n->world->sim, "node %d has a batch at %" PRId64 " behind one that ends at %" PRId64, n->id, b.base,
                 before->next);
    if (k == NULL) {
        k = xcalloc(1, sizeof *k);
        k->key.base = b.base;
        k->key.epoch = b.epoch;
        k->crc = b.crc;
        k->before_base = -1;
        HASH_ADD(hh, p->known, key, sizeof k->key, k);
    }
    if (k->crc != b.crc)
        sim_fail(n->world->sim, "node %d has other bytes at offset %" PRId64 " of epoch %d", n->id, b.base, b.epoch);
    if (before == NULL)
        return;
    if (k->before_base >= 0 && (k->before_base != before->base || k->before_epoch != before->epoch))
        sim_fail(n->world->sim, "logs match at offset %" PRId64 " of epoch %d and not before it, on node %d", b.base,
                 b.epoch, n->id);
    k->before_base = before->base;
    k->before_epoch = before->epoch;
}

/* The voters are those that the log names: the same log, the same voters, whether it was read, replicated, cut back or
 * came as a snapshot. */
void kcheck_voters(struct knode *n)
{
    const struct kbatch *last = n->log.count > 0 ? &n->log.at[n->log.count - 1] : NULL;
    const struct kraft_voters *v = kraft_voters(n->kraft);
    uint64_t hash = 0x9e3779b97f4a7c15u + (uint64_t)v->count;
    if (last == NULL || last->next != kraft_log_end(n->kraft))
        return;
    for (int32_t i = 0; i < v->count; i++) {
        const struct kraft_voter *one = &v->voter[i];
        uint64_t port = one->endpoint_count > 0 ? one->endpoints[0].port : 0;
        hash = (hash ^ (uint64_t)one->id ^ (uint64_t)one->directory_id.b[0] << 16 ^ port << 32) * 0x100000001b3u;
    }
    struct known *k = find_known(n->world->promises, *last);
    if (k->voters != 0 && k->voters != hash)
        sim_fail(n->world->sim, "node %d counts other voters than another node that has the same log up to %" PRId64,
                 n->id, last->next);
    k->voters = hash;
}

static const struct kbatch *find_batch(const struct kbatches *c, int64_t base)
{
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c->at[middle].base < base)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->count && c->at[low].base == base ? &c->at[low] : NULL;
}

static bool has_durably(const struct knode *n, const struct kbatch *b)
{
    const struct kbatch *own = find_batch(&n->log, b->base);
    return n->durable >= b->next && own != NULL && own->epoch == b->epoch && own->crc == b->crc;
}

/* Whoever is the first to take something for committed, a majority of the voters have it, durably. */
void kcheck_decides(struct knode *n)
{
    struct kworld *w = n->world;
    const struct kraft_voters *v = kraft_voters(n->kraft);
    const struct kbatch *last = NULL;
    int64_t end = kraft_high_watermark(n->kraft);
    int32_t have = 0;
    if (end <= w->promises->decided)
        return;
    for (size_t i = n->log.count; i-- > 0 && last == NULL;)
        last = n->log.at[i].next == end ? &n->log.at[i] : NULL;
    for (int32_t i = 0; i < v->count && last != NULL; i++)
        have += has_durably(&w->node[v->voter[i].id], last);
    if (have <= v->count / 2)
        sim_fail(w->sim, "node %d takes all up to %" PRId64 " for committed, and %d of %d voters have it", n->id, end,
                 have, v->count);
    w->promises->decided = end;
}

void kcheck_commits(struct knode *n, struct kbatch b)
{
    struct kbatches *c = &n->world->promises->committed;
    if (b.base == kcheck_committed_end(n->world)) {
        kbatches_push(c, b);
        return;
    }
    const struct kbatch *known = find_batch(c, b.base);
    if (known == NULL || known->epoch != b.epoch || known->crc != b.crc || known->next != b.next)
        sim_fail(n->world->sim, "node %d commits another batch at offset %" PRId64 " than was committed before", n->id,
                 b.base);
}

void kcheck_answers(struct knode *n)
{
    int64_t end = kraft_high_watermark(n->kraft);
    size_t done = 0;
    while (done < n->waiting.count && n->waiting.at[done].next <= end) {
        const struct kbatch *b = &n->waiting.at[done++];
        const struct kbatch *known = find_batch(&n->world->promises->committed, b->base);
        if (known == NULL || known->crc != b->crc)
            sim_fail(n->world->sim, "node %d answers for offset %" PRId64 ", which holds something else", n->id,
                     b->base);
        sim_cover("kraft: a record acknowledged");
    }
    n->waiting.count -= done;
    memmove(n->waiting.at, n->waiting.at + done, n->waiting.count * sizeof *n->waiting.at);
}

void kcheck_same_images(struct kworld *w)
{
    struct buf first CLEANUP(buf_free) = {0};
    for (int32_t i = 0; i < w->count; i++) {
        struct buf b CLEANUP(buf_free) = {0};
        kraft_snapshot_of(w->node[i].image, 0, &b);
        if (i == 0)
            buf_append(&first, b.data, b.size);
        else if (!slice_eq(buf_slice(&first), buf_slice(&b)))
            sim_fail(w->sim, "nodes %d and %d have other images of the same log, up to %" PRId64 " and %" PRId64,
                     w->node[0].id, w->node[i].id, image_offset(w->node[0].image), image_offset(w->node[i].image));
    }
}
