#include "libs/pipeline/session.h"

#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

/* A partition's key as bytes: what a hash table compares. */
struct entry {
    struct session_partition p; /* first */
    struct entry *prev, *next;  /* in the session's order */
    struct entry *changed_prev, *changed_next;
    bool is_changed;
    uint32_t place;
    struct session *owner;
    UT_hash_handle hh;
    size_t name_size;
    uint8_t name[]; /* partition (4), topic id (16), topic */
};

struct session {
    int32_t id;
    int32_t epoch; /* expected next */
    bool by_topic_id, privileged;
    uint32_t size;
    uint64_t created_ms, used_ms;
    struct entry *order, *by_name, *changed;
    struct entry **places; /* by place; NULL: free */
    uint32_t place_count, lowest_free;
    uint32_t *left;
    size_t left_count;
    struct session_interest interest;
    struct session *prev, *next; /* in the cache, the longest unused first */
    UT_hash_handle hh;
};

struct session_cache {
    struct session *by_id, *order;
    uint32_t slots, count, partitions;
    uint64_t evict_ms;
};

enum { NAME_FIXED = 4 + 16, TOPIC_MAX = INT16_MAX }; /* a string on the wire is not longer */

struct session_cache *session_cache_new(uint32_t slots, uint64_t evict_ms)
{
    struct session_cache *c = xcalloc(1, sizeof *c);

    c->slots = slots;
    c->evict_ms = evict_ms;
    return c;
}

/* ---- places ---- */

static void take_place(struct session *s, struct entry *e)
{
    while (s->lowest_free < s->place_count && s->places[s->lowest_free] != NULL)
        s->lowest_free++;
    if (s->lowest_free == s->place_count) {
        uint32_t more = s->place_count ? 2 * s->place_count : 4;
        s->places = xrealloc(s->places, more * sizeof *s->places);
        s->left = xrealloc(s->left, more * sizeof *s->left);
        memset(s->places + s->place_count, 0, (more - s->place_count) * sizeof *s->places);
        s->place_count = more;
    }
    e->place = s->lowest_free;
    s->places[e->place] = e;
}

static void leave_place(struct session *s, const struct entry *e)
{
    s->places[e->place] = NULL;
    s->lowest_free = MIN(s->lowest_free, e->place);
    if (s->interest.id != 0 && s->left_count < s->place_count)
        s->left[s->left_count++] = e->place;
    else
        s->interest.id = 0; /* nobody was told of it, or there is too much to tell */
}

static void set_changed(struct session *s, struct entry *e, bool to)
{
    if (e->is_changed == to)
        return;
    e->is_changed = to;
    if (to)
        DL_APPEND2(s->changed, e, changed_prev, changed_next);
    else
        DL_DELETE2(s->changed, e, changed_prev, changed_next);
}

static void remove_entry(struct session_cache *c, struct session *s, struct entry *e)
{
    set_changed(s, e, false);
    leave_place(s, e);
    HASH_DEL(s->by_name, e);
    DL_DELETE(s->order, e);
    s->size--;
    c->partitions--;
    free(e);
}

static void remove_session(struct session_cache *c, struct session *s)
{
    while (s->order != NULL)
        remove_entry(c, s, s->order);
    HASH_DEL(c->by_id, s);
    DL_DELETE(c->order, s);
    c->count--;
    free(s->places);
    free(s->left);
    free(s);
}

struct session_cache *session_cache_free(struct session_cache *c)
{
    if (c == NULL)
        return NULL;
    while (c->order != NULL)
        remove_session(c, c->order);
    free(c);
    return NULL;
}

uint32_t session_cache_count(const struct session_cache *c)
{
    return c->count;
}
int32_t session_id(const struct session *s)
{
    return s->id;
}
uint32_t session_size(const struct session *s)
{
    return s->size;
}

/* Kafka's order of who gives way first: consumers before followers, then the smaller, then the lower id. */
static bool gives_way(bool privileged_a, uint32_t size_a, int32_t id_a, const struct session *b)
{
    if (privileged_a != b->privileged)
        return !privileged_a;
    if (size_a != b->size)
        return size_a < b->size;
    return id_a < b->id;
}

static bool evict_one(struct session_cache *c, bool privileged, uint32_t size, int32_t id, uint64_t now_ms)
{
    struct session *s, *victim = NULL;

    if (c->order != NULL && now_ms - c->order->used_ms > c->evict_ms) {
        remove_session(c, c->order);
        return true;
    }
    DL_FOREACH (c->order, s) {
        if (now_ms - s->created_ms <= c->evict_ms || (s->privileged && !privileged))
            continue;
        if (victim == NULL || gives_way(s->privileged, s->size, s->id, victim))
            victim = s;
    }
    if (victim == NULL || gives_way(privileged, size, id, victim))
        return false;
    remove_session(c, victim);
    return true;
}

int session_create(struct session_cache *c, int32_t random_id, bool by_topic_id, bool privileged,
                   uint32_t partitions_hint, uint64_t now_ms, struct session **ret_session)
{
    struct session *s;

    if (random_id <= 0 || session_find(c, random_id) != NULL)
        return -EAGAIN;
    if (c->slots == 0 || (c->count >= c->slots && !evict_one(c, privileged, partitions_hint, random_id, now_ms)))
        return -ENOSPC;
    s = xcalloc(1, sizeof *s);
    *s = (struct session){.id = random_id,
                          .epoch = 1,
                          .by_topic_id = by_topic_id,
                          .privileged = privileged,
                          .created_ms = now_ms,
                          .used_ms = now_ms};
    HASH_ADD(hh, c->by_id, id, sizeof s->id, s);
    DL_APPEND(c->order, s);
    c->count++;
    *ret_session = s;
    return 0;
}

struct session *session_find(struct session_cache *c, int32_t id)
{
    struct session *s;

    HASH_FIND(hh, c->by_id, &id, sizeof id, s);
    return s;
}

enum kafka_error session_use(struct session_cache *c, int32_t id, int32_t epoch, bool by_topic_id,
                             struct session **ret_session)
{
    struct session *s = session_find(c, id);

    if (s == NULL)
        return KERR_FETCH_SESSION_ID_NOT_FOUND;
    if (s->epoch != epoch)
        return KERR_INVALID_FETCH_SESSION_EPOCH;
    if (s->by_topic_id != by_topic_id)
        return KERR_FETCH_SESSION_TOPIC_ID_ERROR;
    *ret_session = s;
    return KERR_NONE;
}

void session_advance(struct session_cache *c, struct session *s, uint64_t now_ms)
{
    s->epoch = s->epoch == INT32_MAX ? 1 : s->epoch + 1;
    s->used_ms = now_ms;
    DL_DELETE(c->order, s);
    DL_APPEND(c->order, s);
}

void session_close(struct session_cache *c, int32_t id)
{
    struct session *s = session_find(c, id);

    if (s != NULL)
        remove_session(c, s);
}

/* ---- partitions ---- */

static size_t name_of(const struct session_key *k, uint8_t name[NAME_FIXED + TOPIC_MAX])
{
    size_t topic = MIN(k->topic.size, (size_t)TOPIC_MAX);

    memcpy(name, &k->partition, 4);
    memcpy(name + 4, k->topic_id.b, 16);
    if (topic > 0)
        memcpy(name + NAME_FIXED, k->topic.data, topic);
    return NAME_FIXED + topic;
}

static struct entry *find_entry(struct session *s, const struct session_key *k)
{
    uint8_t name[NAME_FIXED + TOPIC_MAX];
    size_t size = name_of(k, name);
    struct entry *e;

    HASH_FIND(hh, s->by_name, name, size, e);
    return e;
}

struct session_partition *session_get(struct session *s, const struct session_key *key)
{
    struct entry *e = find_entry(s, key);

    return e != NULL ? &e->p : NULL;
}

static struct entry *add_entry(struct session_cache *c, struct session *s, const struct session_key *k)
{
    uint8_t name[NAME_FIXED + TOPIC_MAX];
    size_t size = name_of(k, name);
    struct entry *e = xcalloc(1, sizeof *e + size);

    memcpy(e->name, name, size);
    e->name_size = size;
    e->owner = s;
    e->p.key = *k;
    if (!slice_is_null(k->topic))
        e->p.key.topic = slice_make(e->name + NAME_FIXED, size - NAME_FIXED);
    e->p.known_high_watermark = e->p.known_log_start_offset = -1;
    HASH_ADD_KEYPTR(hh, s->by_name, e->name, e->name_size, e);
    DL_APPEND(s->order, e);
    take_place(s, e);
    s->size++;
    c->partitions++;
    return e;
}

int session_put(struct session_cache *c, struct session *s, const struct session_partition *p)
{
    struct entry *e = find_entry(s, &p->key);

    if (e == NULL && c->partitions >= SESSION_PARTITIONS_MAX)
        return -ENOSPC;
    if (e == NULL)
        e = add_entry(c, s, &p->key);
    set_changed(s, e, true);
    e->p.fetch_offset = p->fetch_offset;
    e->p.log_start_offset = p->log_start_offset;
    e->p.max_bytes = p->max_bytes;
    e->p.leader_epoch = p->leader_epoch;
    e->p.last_fetched_epoch = p->last_fetched_epoch;
    return 0;
}

void session_forget(struct session_cache *c, struct session *s, const struct session_key *key)
{
    struct entry *e = find_entry(s, key);

    if (e != NULL)
        remove_entry(c, s, e);
}

static struct session_partition *partition_of(struct entry *e)
{
    return e != NULL ? &e->p : NULL;
}

struct session_interest *session_interest(struct session *s)
{
    return &s->interest;
}

uint32_t session_place(const struct session_partition *p)
{
    return CONTAINER_OF(p, const struct entry, p)->place;
}

struct session_partition *session_at(struct session *s, uint32_t place)
{
    return place < s->place_count ? partition_of(s->places[place]) : NULL;
}

struct session_partition *session_first_changed(struct session *s)
{
    return partition_of(s->changed);
}

struct session_partition *session_next_changed(struct session_partition *p)
{
    return partition_of(CONTAINER_OF(p, struct entry, p)->changed_next);
}

const uint32_t *session_left(const struct session *s, size_t *ret_count)
{
    *ret_count = s->left_count;
    return s->left;
}

void session_settle(struct session *s)
{
    while (s->changed != NULL)
        set_changed(s, s->changed, false);
    s->left_count = 0;
}

struct session_partition *session_first(struct session *s)
{
    return partition_of(s->order);
}

struct session_partition *session_next(struct session_partition *p)
{
    return partition_of(CONTAINER_OF(p, struct entry, p)->next);
}

void session_note(struct session_partition *p, const struct session_outcome *o)
{
    /* -1 makes the next answer name the partition again (FetchSession's CachedPartition). */
    p->known_high_watermark = o->error != KERR_NONE || o->diverging ? -1 : o->high_watermark;
    p->known_log_start_offset = o->log_start_offset;
}

bool session_tell(struct session *s, struct session_partition *p, const struct session_outcome *o)
{
    bool tell = o->records_bytes > 0 || o->error != KERR_NONE || o->diverging || o->preferred_replica >= 0 ||
                o->high_watermark != p->known_high_watermark || o->log_start_offset != p->known_log_start_offset;

    session_note(p, o);
    if (o->records_bytes > 0) {
        struct entry *e = CONTAINER_OF(p, struct entry, p);
        ASSERT(e->owner == s);
        DL_DELETE(s->order, e);
        DL_APPEND(s->order, e);
    }
    return tell;
}
