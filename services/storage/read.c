/* read.c - bus request Read: records by partition, parked while there are too few.
 *
 * Kafka's rules (defaults.md, Fetch): partitions in the request's order share max_bytes; the first batch of the first
 * partition with data is given whole, whatever its size; an error of any partition ends the wait at once. */
#include "services/storage/read.h"
#include <stdlib.h>

enum { REPLICA_COORDINATOR = -3, NOT_COMPARED = -2 };
enum { POOL_PARTS = 4, POOL_CALLS = 1024 }; /* what of finished calls is kept for the next ones: some 400 KiB */

/* ---- memory: calls come and go with every turn ---- */

struct read_call *read_call_new(struct storage *s, struct rpc *rpc, const Karst__Bus__ReadRequest *request,
                                size_t count)
{
    struct read_call *c = s->read_pool;
    if (count <= POOL_PARTS && c != NULL) {
        s->read_pool = c->next;
        s->read_pooled--;
    } else {
        c = xmalloc(sizeof *c + MAX(count, (size_t)POOL_PARTS) * sizeof c->parts[0]);
    }
    *c = (struct read_call){.storage = s, .rpc = rpc, .request = request, .count = count};
    return c;
}

void read_unpark(struct read_call *c)
{
    struct storage *s = c->storage;
    if (c->state != READ_PARKED)
        return;
    for (size_t i = 0; i < c->count; i++) {
        if (c->parts[i].replica != NULL)
            DL_DELETE(c->parts[i].replica->readers, &c->parts[i]);
    }
    DL_DELETE(s->reads, c);
    parked_remove(s, c);
    c->state = READ_NEW;
}

void read_call_free(struct read_call *c)
{
    struct storage *s = c->storage;
    read_unpark(c);
    cold_forget(c);
    interest_call_ended(c);
    if (c->count > POOL_PARTS || s->read_pooled == POOL_CALLS) {
        free(c);
        return;
    }
    c->next = s->read_pool;
    s->read_pool = c;
    s->read_pooled++;
}

void read_end(struct storage *s)
{
    ASSERT(s->reads == NULL && s->cold == NULL);
    interests_free(s);
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next)
        files_drop(r);
}

void read_free(struct storage *s)
{
    interests_free(s);
    struct read_call *c, *next;
    LL_FOREACH_SAFE(s->read_pool, c, next)
    free(c);
    s->read_pool = NULL;
    free(s->parked);
    s->parked = NULL;
    s->parked_capacity = s->parked_count = 0;
}

struct uuid read_topic_of(const Karst__Bus__ReadPartition *request)
{
    struct uuid id = UUID_ZERO;
    if (request->topic_id.len == sizeof id.b)
        memcpy(id.b, request->topic_id.data, sizeof id.b);
    return id;
}

enum kafka_error read_missing(const struct read_part *p)
{
    struct storage *s = p->call->storage;
    const struct image_topic *t = s->image != NULL ? image_topic_by_id(s->image, read_topic_of(p->request)) : NULL;
    return replica_missing(s, t, p->request->partition);
}

/* An unknown partition does not: Kafka waits out the time beside it. */
bool read_ends_wait(const struct read_part *p, const struct look *k)
{
    if (k->error != KERR_NONE)
        return k->error != KERR_UNKNOWN_TOPIC_OR_PARTITION;
    if (k->diverging_epoch >= 0 || k->preferred >= 0)
        return true;
    int32_t reader = p->call->request->replica_id;
    if (reader != REPLICA_COORDINATOR && reader < 0)
        return false;
    /* A follower learns of a high watermark with the next records, as in Kafka. */
    return (reader == REPLICA_COORDINATOR && p->request->known_high_watermark != NOT_COMPARED &&
            p->request->known_high_watermark != k->high_watermark) ||
           (p->request->known_log_start_offset != NOT_COMPARED && p->request->known_log_start_offset != k->log_start);
}

/* ---- parking ---- */

static void on_gone(void *ctx, struct rpc *rpc)
{
    struct read_call *c = ctx;
    rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    read_call_free(c);
}

void read_park(struct read_call *c)
{
    struct storage *s = c->storage;
    uint64_t now = loop_now_ms(s->loop), wait = c->request->max_wait_ms, deadline = rpc_deadline_ms(c->rpc);
    if (deadline > now)
        wait = MIN(wait, deadline - now);
    c->state = READ_PARKED;
    c->due_ms = now + wait;
    parked_add(s, c);
    DL_APPEND(s->reads, c);
    for (size_t i = 0; i < c->count; i++) {
        if (c->parts[i].replica != NULL)
            DL_APPEND(c->parts[i].replica->readers, &c->parts[i]);
    }
    rpc_on_gone(c->rpc, on_gone, c);
}

/* Looks at one partition anew; true: the wait is over. */
static bool refresh(struct read_part *p)
{
    struct look k;
    read_look_at(p, p->request->max_bytes, true, false, &k);
    if (k.cold)
        return true; /* the answer waits for the disk */
    p->call->total = p->call->total - p->bytes + k.range.size_bytes;
    p->bytes = k.range.size_bytes;
    return read_ends_wait(p, &k) || (p->call->total > 0 && p->call->total >= p->call->request->min_bytes);
}

void read_drop(struct read_call *c)
{
    rpc_fail(c->rpc, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    read_call_free(c);
}

static bool is_of_follower(const struct rpc *rpc)
{
    return rpc_call(rpc)->body_case == KARST__BUS__CALL__BODY_REPLICA_READ;
}

const Karst__Bus__ReadRequest *read_request_of(const struct rpc *rpc)
{
    const Karst__Bus__Call *call = rpc_call(rpc);
    return is_of_follower(rpc) ? call->replica_read : call->read;
}

void read_reply(struct rpc *rpc, const Karst__Bus__ReadReply *reply, const struct ref *payloads, size_t payload_count)
{
    Karst__Bus__Reply__BodyCase kind =
        is_of_follower(rpc) ? KARST__BUS__REPLY__BODY_REPLICA_READ : KARST__BUS__REPLY__BODY_READ;
    rpc_reply(rpc, kind, reply, payloads, payload_count, 0);
}

void read_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const Karst__Bus__ReadRequest *q = read_request_of(rpc);
    bool follows = q->replica_id >= 0;
    if (is_of_follower(rpc) != follows || (follows && (q->set_id == 0 || q->replica_id != rpc_from(rpc)->id))) {
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
        return;
    }
    if (s->draining) { /* one behind the other they would keep the slow pool busy, and with it the drain */
        rpc_fail(rpc, KARST__BUS__OUTCOME__OUTCOME_OVERLOADED);
        return;
    }
    if (q->set_id != 0) {
        interest_on_call(s, rpc);
        return;
    }
    if (q->replica_id == REPLICA_COORDINATOR)
        turn_commit(s); /* what the owner of before has staged in this turn is in the log that the new one loads */
    struct read_call *c = read_call_new(s, rpc, q, q->n_partitions);
    bool over = q->min_bytes == 0 || q->max_wait_ms == 0 || q->n_partitions == 0;
    for (size_t i = 0; i < c->count; i++) {
        struct read_part *p = &c->parts[i];
        const Karst__Bus__ReadPartition *from = q->partitions[i];
        *p = (struct read_part){
            .call = c, .request = from, .replica = replica_find(s, read_topic_of(from), from->partition)};
        over = (!over && refresh(p)) || over;
    }
    if (over)
        read_answer(c);
    else
        read_park(c);
}

void read_wake(struct replica *r)
{
    struct read_part *p, *next;
    DL_FOREACH_SAFE(r->readers, p, next)
    {
        /* A call may read one partition twice: its parts follow each other, and both go with the answer. */
        while (next != NULL && next->call == p->call)
            next = next->next;
        if (refresh(p))
            read_answer(p->call);
    }
    interest_wake(r);
}

void read_wake_all(struct replica *r)
{
    while (r->readers != NULL)
        read_answer(r->readers->call);
    interest_wake_all(r);
}

void read_answer_all(struct storage *s)
{
    while (s->reads != NULL)
        read_answer(s->reads);
}
