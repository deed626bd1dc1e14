/* interest.c - what is kept of clients' fetch sessions between their Reads (set_id in proto/bus/storage.proto): a Read
 * names what has changed, and only partitions that may have something to tell are looked at.
 *
 *   closed --its log changes, the client changes it--> open --looked at: nothing to tell--> closed
 *
 * An open part is looked at by the set's next Read, or at once while one is parked. One that was told of stays open
 * until the Read after, which finds it quiet.
 *
 * I1  a part is watched (in its replica's list, replica is set) while it is closed, and while its set's Read is parked.
 * I2  a set does not change and does not go while a call of it is under way.
 *
 * Bounds: SET_PARTS_MAX a set, PARTS_MAX in all; the set unused longest gives way, and one unused for IDLE_MS goes. Its
 * front end is told that the set is unknown, and names all again. */
#include "services/storage/read.h"
#include "services/storage/replication.h"
#include <stdlib.h>

enum { SET_PARTS_MAX = 1 << 16, PARTS_MAX = 1 << 18, IDLE_MS = 300000 };

struct interest_part {
    struct interest *set;
    struct replica *replica;               /* NULL: not watched */
    struct interest_part *prev, *next;     /* of replica->interested */
    struct interest_part *o_prev, *o_next; /* of set->open */
    Karst__Bus__ReadPartition request;     /* topic_id is id */
    struct uuid id;
    size_t bytes; /* what it had when it was last looked at for the call under way */
    bool is_open;
};

struct interest {
    struct storage *storage;
    uint64_t id;
    int32_t replica_id; /* >= 0: of a follower */
    UT_hash_handle hh;
    struct interest *prev, *next; /* by use, the one used last at the end */
    struct interest_part **parts; /* by index; NULL: none */
    uint32_t capacity, count;
    struct interest_part *open;
    struct read_call *call; /* under way */
    uint64_t used_ms;
};

/* ---- parts ---- */

static void watch(struct interest_part *ip)
{
    if (ip->replica != NULL)
        return;
    ip->replica = replica_find(ip->set->storage, ip->id, ip->request.partition);
    if (ip->replica != NULL)
        DL_APPEND(ip->replica->interested, ip);
}

static void unwatch(struct interest_part *ip)
{
    if (ip->replica != NULL)
        DL_DELETE(ip->replica->interested, ip);
    ip->replica = NULL;
}

static void set_open(struct interest_part *ip, bool to)
{
    struct interest *set = ip->set;
    if (ip->is_open == to)
        return;
    ip->is_open = to;
    if (to)
        DL_APPEND2(set->open, ip, o_prev, o_next);
    else
        DL_DELETE2(set->open, ip, o_prev, o_next);
}

static void remove_part(struct interest *set, uint32_t index)
{
    struct interest_part *ip = index < set->capacity ? set->parts[index] : NULL;
    if (ip == NULL)
        return;
    struct replica *r = set->replica_id >= 0 ? replica_find(set->storage, ip->id, ip->request.partition) : NULL;
    if (r != NULL)
        replication_unwatched(r, set->replica_id);
    set_open(ip, false);
    unwatch(ip);
    set->parts[index] = NULL;
    set->count--;
    set->storage->interest_parts--;
    free(ip);
}

/* ---- sets ---- */

static void remove_set(struct interest *set)
{
    struct storage *s = set->storage;
    for (uint32_t i = 0; i < set->capacity; i++)
        remove_part(set, i);
    if (set->replica_id >= 0)
        peers_forget(s, set->replica_id, set);
    HASH_DEL(s->interests, set);
    DL_DELETE(s->interests_by_use, set);
    free(set->parts);
    free(set);
}

static struct interest *make_set(struct storage *s, uint64_t id, int32_t replica_id)
{
    struct interest *set = xcalloc(1, sizeof *set);
    set->storage = s;
    set->id = id;
    set->replica_id = replica_id;
    HASH_ADD(hh, s->interests, id, sizeof set->id, set);
    DL_APPEND(s->interests_by_use, set);
    return set;
}

/* Room for one more part; the sets unused longest give way, but for this one. */
static bool make_room(struct storage *s, const struct interest *set)
{
    struct interest *other, *next;
    DL_FOREACH_SAFE(s->interests_by_use, other, next)
    {
        if (s->interest_parts < PARTS_MAX)
            return true;
        if (other != set && other->call == NULL)
            remove_set(other);
    }
    return s->interest_parts < PARTS_MAX;
}

static struct interest_part *part_at(struct interest *set, uint32_t index)
{
    if (index >= SET_PARTS_MAX)
        return NULL;
    if (index >= set->capacity) {
        uint32_t more = MIN(MAX(2 * set->capacity, index + 1), (uint32_t)SET_PARTS_MAX);
        set->parts = xrealloc(set->parts, more * sizeof(struct interest_part *));
        memset(set->parts + set->capacity, 0, (more - set->capacity) * sizeof(struct interest_part *));
        set->capacity = more;
    }
    if (set->parts[index] == NULL && make_room(set->storage, set)) {
        set->parts[index] = xcalloc(1, sizeof(struct interest_part));
        set->parts[index]->set = set;
        set->count++;
        set->storage->interest_parts++;
    }
    return set->parts[index];
}

static bool put_part(struct interest *set, const Karst__Bus__ReadPartition *from)
{
    struct interest_part *ip = part_at(set, from->index);
    if (ip == NULL)
        return false;
    unwatch(ip);
    ip->id = read_topic_of(from);
    ip->request = *from;
    ip->request.base.n_unknown_fields = 0;
    ip->request.base.unknown_fields = NULL;
    ip->request.topic_id = (ProtobufCBinaryData){sizeof ip->id.b, ip->id.b};
    set_open(ip, true);
    return true;
}

/* False: it does not fit. */
static bool change(struct interest *set, const Karst__Bus__ReadRequest *q)
{
    for (size_t i = 0; i < q->n_set_forgotten; i++)
        remove_part(set, q->set_forgotten[i]);
    for (size_t i = 0; i < q->n_partitions; i++) {
        if (!put_part(set, q->partitions[i]))
            return false;
    }
    return true;
}

/* ---- reading ---- */

static struct read_part part_of(struct interest_part *ip, struct read_call *c)
{
    struct replica *r = ip->replica != NULL ? ip->replica : replica_find(c->storage, ip->id, ip->request.partition);
    return (struct read_part){.call = c, .replica = r, .request = &ip->request, .interest = ip};
}

static bool is_quiet(const struct interest_part *ip, const struct look *k)
{
    return k->error == KERR_NONE && !k->cold && !k->throttled && k->diverging_epoch < 0 && k->preferred < 0 &&
           k->range.size_bytes == 0 && k->high_watermark == ip->request.known_high_watermark &&
           k->log_start == ip->request.known_log_start_offset;
}

/* Looks at an open part; true: the wait is over. */
static bool refresh(struct interest_part *ip, struct read_call *c)
{
    struct read_part p = part_of(ip, c);
    struct look k;
    read_look_at(&p, ip->request.max_bytes, true, false, &k);
    size_t bytes = k.cold ? 0 : k.range.size_bytes;
    c->total += bytes - ip->bytes;
    ip->bytes = bytes;
    if (is_quiet(ip, &k)) {
        set_open(ip, false);
        watch(ip);
        return false;
    }
    return k.cold || read_ends_wait(&p, &k) || (c->total > 0 && c->total >= c->request->min_bytes);
}

static void refuse(struct rpc *rpc)
{
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    reply.set_unknown = true;
    read_reply(rpc, &reply, NULL, 0);
}

/* The set of q, with what q changes; NULL: there is none. */
static struct interest *set_of(struct storage *s, const Karst__Bus__ReadRequest *q)
{
    struct interest *set;
    HASH_FIND(hh, s->interests, &q->set_id, sizeof q->set_id, set);
    if ((set != NULL && (set->call != NULL || set->replica_id != q->replica_id)) || q->replica_id < -1)
        return NULL;
    if (q->set_new) {
        struct interest *older = q->replica_id >= 0 ? peers_set(s, q->replica_id) : set;
        if (older != NULL && older->call != NULL) /* of an earlier life, or link, of the follower */
            read_drop(older->call);
        if (older != NULL)
            remove_set(older);
        set = make_set(s, q->set_id, q->replica_id);
    }
    if (set != NULL && !change(set, q)) {
        remove_set(set);
        return NULL;
    }
    return set;
}

/* What a follower names it has up to there. */
static void take_acknowledgements(struct read_call *c, const Karst__Bus__ReadRequest *q)
{
    peers_read(c->storage, q->replica_id, c->interest);
    for (size_t i = 0; i < q->n_partitions; i++) {
        struct read_part p = part_of(c->interest->parts[q->partitions[i]->index], c);
        struct look k;
        if (read_check(&p, &k) == KERR_NONE && k.diverging_epoch < 0)
            replication_fetched(p.replica, q->replica_id, q->replica_epoch, p.request);
    }
    if (c->storage->deletions != NULL)
        deletions_look(c->storage, false);
}

void interest_on_call(struct storage *s, struct rpc *rpc)
{
    const Karst__Bus__ReadRequest *q = read_request_of(rpc);
    struct interest *set = set_of(s, q);
    struct interest_part *ip, *next;
    if (set == NULL) {
        refuse(rpc);
        return;
    }
    set->used_ms = loop_now_ms(s->loop);
    DL_DELETE(s->interests_by_use, set);
    DL_APPEND(s->interests_by_use, set);
    struct read_call *c = read_call_new(s, rpc, q, 0);
    c->interest = set;
    set->call = c;
    if (set->replica_id >= 0)
        take_acknowledgements(c, q);
    bool over = q->min_bytes == 0 || q->max_wait_ms == 0 || set->count == 0;
    for (ip = set->open; ip != NULL; ip = next) {
        next = ip->o_next;
        ip->bytes = 0;
        over = refresh(ip, c) || over;
    }
    if (over) {
        read_answer(c);
        return;
    }
    for (ip = set->open; ip != NULL; ip = ip->o_next)
        watch(ip);
    read_park(c);
}

struct read_call *interest_fill(struct read_call *c)
{
    struct interest *set = c->interest;
    struct interest_part *ip;
    size_t count = 0;
    if (set == NULL || c->filled)
        return c;
    for (ip = set->open; ip != NULL; ip = ip->o_next)
        count++;
    struct read_call *filled = read_call_new(c->storage, c->rpc, c->request, count);
    filled->interest = set;
    filled->filled = true;
    set->call = filled;
    count = 0;
    for (ip = set->open; ip != NULL; ip = ip->o_next)
        filled->parts[count++] = part_of(ip, filled);
    c->interest = NULL;
    read_call_free(c);
    return filled;
}

void interest_call_ended(struct read_call *c)
{
    if (c->interest != NULL)
        c->interest->call = NULL;
}

void interest_told(struct interest_part *ip, const struct look *k, Karst__Bus__ReadResult *to)
{
    bool is_error = k->error != KERR_NONE || k->diverging_epoch >= 0;
    to->index = ip->request.index;
    ip->request.known_high_watermark = is_error ? -1 : k->high_watermark;
    ip->request.known_log_start_offset = k->log_start;
    if (to->payload < 0)
        return;
    set_open(ip, false); /* the others come first next time */
    set_open(ip, true);
}

/* ---- changes of the log ---- */

void interest_wake(struct replica *r)
{
    struct interest_part *ip, *next;
    DL_FOREACH_SAFE(r->interested, ip, next)
    {
        struct read_call *c = ip->set->call;
        if (!ip->is_open)
            ip->bytes = 0;
        set_open(ip, true);
        if (c == NULL || c->state != READ_PARKED) {
            unwatch(ip);
            continue;
        }
        bool over = refresh(ip, c);
        if (over && ip->set->replica_id >= 0)
            peers_answer_later(r->storage, ip->set->replica_id);
        else if (over)
            read_answer(c);
    }
}

void interest_answer(struct interest *set)
{
    if (set->call != NULL && set->call->state == READ_PARKED)
        read_answer(set->call);
}

void interest_look_again(struct interest *set)
{
    struct read_call *c = set->call;
    struct interest_part *ip, *next;
    bool over = false;
    if (c == NULL || c->state != READ_PARKED)
        return;
    for (ip = set->open; ip != NULL; ip = next) {
        next = ip->o_next;
        over = refresh(ip, c) || over;
    }
    if (over)
        read_answer(c);
}

void interest_wake_all(struct replica *r)
{
    struct interest_part *ip, *next;
    DL_FOREACH_SAFE(r->interested, ip, next)
    {
        struct read_call *c = ip->set->call;
        set_open(ip, true);
        unwatch(ip);
        if (c != NULL && c->state == READ_PARKED)
            read_answer(c);
    }
}

void interest_forget(struct replica *r)
{
    while (r->interested != NULL) {
        set_open(r->interested, true);
        unwatch(r->interested);
    }
}

/* ---- life ---- */

void interests_idle(struct storage *s)
{
    uint64_t now = loop_now_ms(s->loop);
    struct interest *set, *next;
    DL_FOREACH_SAFE(s->interests_by_use, set, next)
    {
        if (now - set->used_ms < IDLE_MS)
            return;
        if (set->call == NULL)
            remove_set(set);
    }
}

void interests_free(struct storage *s)
{
    while (s->interests_by_use != NULL) {
        struct interest *set = s->interests_by_use;
        if (set->call != NULL)
            set->call->interest = NULL; /* its rpc ends with the bus */
        remove_set(set);
    }
}
