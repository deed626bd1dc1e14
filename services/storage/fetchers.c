/* fetchers.c - Reads of ours from the nodes that lead partitions which we follow: one to each of them at a time, parked
 * there until any of those partitions has something to tell.
 *
 * What a Read names is what has changed since the one before it: a partition's new end is what acknowledges its
 * records. The rest is in the set that the leader keeps (set_id in proto/bus/storage.proto).
 *
 *   out --fetchers_look, it may read--> dirty --named in a Read--> in the set --told something--> dirty
 *                                         ^                            |--told an error, or not durable yet--> out
 *                                         +--- the set is lost --------+
 *
 * I1  a member has a place (index) in its fetcher's set from the Read that first names it to the one that takes it out;
 *     places change while no Read is under way only.
 * I2  what is told is of the Read that named the member last: `past` and `offset` are those of then. */
#include "services/storage/replication.h"
#include <stdlib.h>
#include <sys/random.h>

enum { NO_PLACE = UINT32_MAX, AGAIN_LEAST_MS = 50, LOOK_MS = 50, DOUBLINGS_MAX = 10, TIMEOUT_EXTRA_MS = 10000 };

struct fetch_member {
    struct fetcher *fetcher;
    struct replica *replica;              /* NULL: it has left; its place goes with the next Read */
    struct fetch_member *prev, *next;     /* of fetcher->members */
    struct fetch_member *d_prev, *d_next; /* of fetcher->dirty */
    bool dirty;
    uint32_t place;
    uint64_t past; /* as it was named last */
    int64_t offset, log_start;
};

struct fetcher {
    UT_hash_handle hh;
    struct storage *storage;
    int32_t leader;
    struct fetch_member *members, *dirty;
    struct fetch_member **places;
    uint32_t place_count, place_capacity;
    uint32_t *free_places;
    uint32_t free_count, free_capacity;
    uint32_t *gone; /* places that the leader is to forget */
    uint32_t gone_count, gone_capacity;
    uint64_t set_id;
    bool set_known; /* by the leader */
    int64_t epoch;  /* of our registration, as it was told then */
    uint64_t call;  /* 0: none is under way */
    uint64_t not_before_ms;
    uint32_t failures;
};

/* ---- places ---- */

static void push(uint32_t **list, uint32_t *count, uint32_t *capacity, uint32_t value)
{
    if (*count == *capacity) {
        *capacity = *capacity ? 2 * *capacity : 16;
        *list = xrealloc(*list, *capacity * sizeof **list);
    }
    (*list)[(*count)++] = value;
}

static void give_place(struct fetcher *f, struct fetch_member *m)
{
    if (f->free_count > 0) {
        m->place = f->free_places[--f->free_count];
    } else {
        if (f->place_count == f->place_capacity) {
            f->place_capacity = f->place_capacity ? 2 * f->place_capacity : 16;
            f->places = xrealloc(f->places, f->place_capacity * sizeof(struct fetch_member *));
        }
        m->place = f->place_count++;
    }
    f->places[m->place] = m;
}

static void leave_set(struct fetch_member *m)
{
    struct fetcher *f = m->fetcher;
    if (m->place == NO_PLACE)
        return;
    f->places[m->place] = NULL;
    push(&f->gone, &f->gone_count, &f->gone_capacity, m->place);
    m->place = NO_PLACE;
}

static void set_dirty(struct fetch_member *m, bool to)
{
    struct fetcher *f = m->fetcher;
    if (m->dirty == to)
        return;
    m->dirty = to;
    if (to)
        DL_APPEND2(f->dirty, m, d_prev, d_next);
    else
        DL_DELETE2(f->dirty, m, d_prev, d_next);
}

/* The leader has forgotten the set, or never had it: all are named again. */
static void lose_set(struct fetcher *f)
{
    struct fetch_member *m;
    f->set_known = false;
    f->place_count = f->free_count = f->gone_count = 0;
    DL_FOREACH (f->members, m) {
        m->place = NO_PLACE;
        set_dirty(m, true);
    }
}

/* ---- members ---- */

static void look_again_later(struct storage *s);

static struct fetcher *fetcher_of(struct storage *s, int32_t leader)
{
    struct fetcher *f;
    HASH_FIND(hh, s->fetchers, &leader, sizeof leader, f);
    if (f != NULL)
        return f;
    f = xcalloc(1, sizeof *f);
    f->storage = s;
    f->leader = leader;
    HASH_ADD(hh, s->fetchers, leader, sizeof f->leader, f);
    return f;
}

void fetchers_forget(struct replica *r)
{
    struct fetch_member *m = TAKE_PTR(r->fetch);
    if (m == NULL)
        return;
    leave_set(m);
    set_dirty(m, false);
    DL_DELETE(m->fetcher->members, m);
    free(m);
}

void fetchers_follow(struct replica *r, int32_t leader)
{
    fetchers_forget(r);
    struct fetcher *f = fetcher_of(r->storage, leader);
    r->fetch = xcalloc(1, sizeof *r->fetch);
    *r->fetch = (struct fetch_member){.fetcher = f, .replica = r, .place = NO_PLACE};
    DL_APPEND(f->members, r->fetch);
    fetchers_look(r);
}

/* follower.replication.throttled.*: as in Kafka not while it has all that is committed, or the throttle would put it
 * out of the ISR. */
static bool is_throttled(const struct replica *r)
{
    struct storage *s = r->storage;
    return r->follower_throttled && replica_lag(r->core, log_end(r->log)) > 0 &&
           throttle_exceeded(&s->follower_throttle, loop_now_ms(s->loop), s->follower_rate);
}

static bool may_read(const struct replica *r)
{
    return r->core != NULL && replica_reads(r->core) && log_failed(r->log) == 0 && r->dir->failed == 0 &&
           log_safe_end(r->log) == log_end(r->log) && !is_throttled(r);
}

static bool waits_for_time(const struct replica *r)
{
    return r->core != NULL && (replica_due(r->core) != UINT64_MAX || (replica_reads(r->core) && is_throttled(r)));
}

static void on_timer(void *ctx)
{
    struct storage *s = ctx;
    struct fetcher *f, *next;
    s->fetchers_timer = loop_timer_stop(s->fetchers_timer);
    HASH_ITER (hh, s->fetchers, f, next) {
        struct fetch_member *m;
        DL_FOREACH (f->members, m) {
            if (waits_for_time(m->replica) || m->place == NO_PLACE)
                replication_tick(m->replica);
        }
        if (f->not_before_ms > loop_now_ms(s->loop))
            look_again_later(s);
    }
    loop_again(s->loop);
}

static void look_again_later(struct storage *s)
{
    if (s->fetchers_timer == NULL && !s->draining)
        s->fetchers_timer = loop_timer_start(s->loop, LOOK_MS, 0, on_timer, s);
}

void fetchers_look(struct replica *r)
{
    struct fetch_member *m = r->fetch;
    if (m == NULL)
        return;
    if (!may_read(r)) {
        leave_set(m);
        set_dirty(m, false);
        if (waits_for_time(r))
            look_again_later(r->storage);
    } else if (m->place == NO_PLACE || m->offset != log_end(r->log) || m->log_start != log_start(r->log) ||
               m->past != replica_past(r->core)) {
        set_dirty(m, true);
    }
}

void fetchers_say_again(struct replica *r)
{
    if (r->fetch == NULL || r->fetch->place == NO_PLACE)
        return; /* it is named as soon as it may read */
    r->fetch->offset = -1;
    fetchers_look(r);
}

/* ---- answers ---- */

static void back_off(struct fetcher *f)
{
    uint64_t most = (uint64_t)config_int(f->storage->config, "replica.fetch.backoff.ms");
    uint32_t doublings = MIN(f->failures, (uint32_t)DOUBLINGS_MAX);
    f->failures++;
    f->not_before_ms = loop_now_ms(f->storage->loop) + MIN((uint64_t)AGAIN_LEAST_MS << doublings, most);
    lose_set(f);
    look_again_later(f->storage);
}

static void take_result(struct fetcher *f, const Karst__Bus__ReadResult *from, const struct bus_result *result)
{
    struct fetch_member *m = from->index < f->place_count ? f->places[from->index] : NULL;
    if (m == NULL)
        return; /* it has left since */
    struct slice records = SLICE_EMPTY;
    if (from->payload >= 0 && (size_t)from->payload < result->payload_count)
        records = ref_bytes(&result->payloads[from->payload]);
    replication_told(m->replica, m->past, m->offset, from, records);
}

static void on_answer(void *ctx, const struct bus_result *result)
{
    struct fetcher *f = ctx;
    f->call = 0;
    if (f->storage->draining)
        return;
    bool ok = result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK &&
              result->reply->body_case == KARST__BUS__REPLY__BODY_REPLICA_READ &&
              !result->reply->replica_read->set_unknown;
    if (!ok) {
        back_off(f);
    } else {
        f->failures = 0;
        for (size_t i = 0; i < result->reply->replica_read->n_results; i++)
            take_result(f, result->reply->replica_read->results[i], result);
    }
    loop_again(f->storage->loop);
}

/* ---- Reads ---- */

static void name(struct fetch_member *m, uint32_t max_bytes, Karst__Bus__ReadPartition *to)
{
    struct replica *r = m->replica;
    set_dirty(m, false);
    if (m->place == NO_PLACE)
        give_place(m->fetcher, m);
    m->past = replica_past(r->core);
    m->offset = log_end(r->log);
    m->log_start = log_start(r->log);
    karst__bus__read_partition__init(to);
    to->topic_id = (ProtobufCBinaryData){sizeof r->key.topic_id.b, r->key.topic_id.b};
    to->partition = r->key.partition;
    to->current_leader_epoch = replica_leader_epoch(r->core);
    to->fetch_offset = m->offset;
    to->last_fetched_epoch = log_latest_epoch(r->log);
    to->max_bytes = max_bytes;
    to->log_start_offset = m->log_start;
    to->known_high_watermark = to->known_log_start_offset = -2;
    to->index = m->place;
    to->no_room = r->dir->room.missing;
}

static void new_set(struct fetcher *f)
{
    if (getrandom(&f->set_id, sizeof f->set_id, 0) != sizeof f->set_id)
        BUG("the kernel has no random bytes");
    f->set_id |= 1; /* 0 is none */
}

static void send_read(struct fetcher *f)
{
    struct storage *s = f->storage;
    struct arena *a = arena_new(0);
    struct fetch_member *m;
    size_t count = 0, most = 0;
    if (f->epoch != service_epoch(s->service)) /* the leader knows each partition's follower by it */
        lose_set(f);
    f->epoch = service_epoch(s->service);
    Karst__Bus__ReadRequest q = KARST__BUS__READ_REQUEST__INIT;
    DL_FOREACH2(f->dirty, m, d_next)
    most++;
    q.set_new = !f->set_known;
    if (q.set_new)
        new_set(f);
    for (uint32_t i = 0; i < f->gone_count; i++)
        push(&f->free_places, &f->free_count, &f->free_capacity, f->gone[i]);
    q.set_forgotten = arena_alloc(a, f->gone_count * sizeof *f->gone + 1);
    for (uint32_t i = 0; i < f->gone_count; i++)
        q.set_forgotten[i] = f->gone[i];
    q.n_set_forgotten = f->gone_count;
    f->gone_count = 0;
    q.partitions = arena_alloc(a, most * sizeof *q.partitions + 1);
    Karst__Bus__ReadPartition *list = arena_alloc(a, most * sizeof *list + 1);
    while (f->dirty != NULL) {
        q.partitions[count] = &list[count];
        name(f->dirty, (uint32_t)config_int(s->config, "replica.fetch.max.bytes"), &list[count]);
        count++;
    }
    q.n_partitions = count;
    q.set_id = f->set_id;
    q.replica_id = service_id(s->service);
    q.replica_epoch = f->epoch;
    q.max_wait_ms = (uint32_t)config_int(s->config, "replica.fetch.wait.max.ms");
    q.min_bytes = (uint32_t)config_int(s->config, "replica.fetch.min.bytes");
    q.max_bytes = (uint32_t)config_int(s->config, "replica.fetch.response.max.bytes");
    f->set_known = true;
    f->call = bus_call(s->bus, KARST__BUS__ROLE__ROLE_STORAGE, f->leader,
                       &(struct bus_request){.kind = KARST__BUS__CALL__BODY_REPLICA_READ,
                                             .body = &q,
                                             .timeout_ms = q.max_wait_ms + TIMEOUT_EXTRA_MS},
                       on_answer, f);
    arena_free(a);
}

void fetchers_turn(void *ctx)
{
    struct storage *s = ctx;
    struct fetcher *f, *next;
    if (s->fetchers == NULL || s->draining || !service_is_ready(s->service))
        return;
    HASH_ITER (hh, s->fetchers, f, next) {
        if (f->call == 0 && f->members != NULL && f->not_before_ms <= loop_now_ms(s->loop))
            send_read(f);
    }
}

void fetchers_stop(struct storage *s)
{
    s->fetchers_timer = loop_timer_stop(s->fetchers_timer);
}

void fetchers_free(struct storage *s)
{
    struct fetcher *f, *next;
    fetchers_stop(s);
    HASH_ITER (hh, s->fetchers, f, next) {
        ASSERT(f->members == NULL);
        HASH_DEL(s->fetchers, f);
        free(f->places);
        free(f->free_places);
        free(f->gone);
        free(f);
    }
}
