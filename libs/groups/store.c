/* store.c - committed offsets in memory: per group its topics, per topic a sorted array of partitions.
 *
 * An entry is there while it has a committed value, records on their way to the log, or commits of open transactions. A
 * value changes only when its record is committed: what OffsetFetch answers is in the log. */
#include "libs/groups/core.h"

#include <stdlib.h>

struct offset_topic *store_topic(const struct group *g, struct slice name)
{
    struct offset_topic *t;
    HASH_FIND(hh, g->topics, name.data, name.size, t);
    return t;
}

/* The place of the first entry that is not below partition. */
static size_t lower_bound(const struct offset_topic *t, int32_t partition)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->offsets[middle].partition < partition)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct offset *store_find(const struct offset_topic *t, int32_t partition)
{
    size_t i = lower_bound(t, partition);
    return i < t->count && t->offsets[i].partition == partition ? &t->offsets[i] : NULL;
}

static struct offset_topic *topic_get(struct group *g, struct slice name)
{
    struct groups *c = g->shard->core;
    struct offset_topic *t = store_topic(g, name);
    if (t != NULL)
        return t;
    t = xcalloc(1, sizeof *t);
    t->group = g;
    t->name = own(c, name);
    HASH_ADD_KEYPTR(hh, g->topics, t->name.data, t->name.size, t);
    account(c, sizeof *t + STRUCT_OVERHEAD);
    return t;
}

static struct offset *insert(struct offset_topic *t, size_t i, int32_t partition)
{
    struct groups *c = t->group->shard->core;
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 1;
        account(c, (capacity - t->capacity) * sizeof t->offsets[0]);
        t->capacity = capacity;
        t->offsets = xrealloc(t->offsets, capacity * sizeof t->offsets[0]);
    }
    memmove(&t->offsets[i + 1], &t->offsets[i], (t->count - i) * sizeof t->offsets[0]);
    t->count++;
    t->offsets[i] = (struct offset){.partition = partition};
    return &t->offsets[i];
}

struct offset *store_get(struct group *g, struct slice topic, int32_t partition)
{
    struct offset_topic *t = topic_get(g, topic);
    size_t i = lower_bound(t, partition);
    if (i < t->count && t->offsets[i].partition == partition)
        return &t->offsets[i];
    return insert(t, i, partition);
}

void store_unset(struct groups *c, struct offset *o)
{
    disown(c, &o->value.metadata);
    o->value = (struct offset_value){0};
    o->committed = false;
}

void store_set(struct groups *c, struct offset *o, const struct offset_value *value)
{
    struct slice metadata = own(c, value->metadata);
    store_unset(c, o);
    o->value = *value;
    o->value.metadata = metadata;
    o->committed = true;
}

static void topic_free(struct offset_topic *t)
{
    struct groups *c = t->group->shard->core;
    HASH_DEL(t->group->topics, t);
    unaccount(c, t->capacity * sizeof t->offsets[0]);
    free(t->offsets);
    disown(c, &t->name);
    unaccount(c, sizeof *t + STRUCT_OVERHEAD);
    free(t);
}

void store_trim(struct offset_topic *t)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct offset *o = &t->offsets[i];
        if (o->committed || o->queued > 0 || o->open > 0)
            t->offsets[kept++] = *o;
    }
    t->count = kept;
    if (kept == 0)
        topic_free(t);
}

/* ---- commits of open transactions ---- */

static void open_free(struct shard *s, struct open_commit *oc)
{
    struct groups *c = s->core;
    struct open_txn *txn = oc->txn;
    struct offset *o = store_find(oc->topic, oc->partition);
    ASSERT(o != NULL && o->open > 0);
    o->open--;
    DL_DELETE(txn->commits, oc);
    disown(c, &oc->value.metadata);
    unaccount(c, sizeof *oc + STRUCT_OVERHEAD);
    free(oc);
    if (txn->commits != NULL)
        return;
    HASH_DEL(s->txns, txn);
    unaccount(c, sizeof *txn + STRUCT_OVERHEAD);
    free(txn);
}

void store_open(struct shard *s, struct group *g, struct slice topic, int32_t partition, int64_t producer_id,
                const struct offset_value *value)
{
    struct groups *c = s->core;
    struct open_txn *txn;
    HASH_FIND(hh, s->txns, &producer_id, sizeof producer_id, txn);
    if (txn == NULL) {
        txn = xcalloc(1, sizeof *txn);
        txn->producer_id = producer_id;
        HASH_ADD(hh, s->txns, producer_id, sizeof txn->producer_id, txn);
        account(c, sizeof *txn + STRUCT_OVERHEAD);
    }
    struct open_commit *oc = xcalloc(1, sizeof *oc);
    store_get(g, topic, partition)->open++;
    oc->topic = store_topic(g, topic);
    oc->partition = partition;
    oc->txn = txn;
    oc->value = *value;
    oc->value.metadata = own(c, value->metadata);
    DL_APPEND(txn->commits, oc);
    account(c, sizeof *oc + STRUCT_OVERHEAD);
}

void store_end_txn(struct shard *s, int64_t producer_id, bool commit)
{
    struct open_txn *txn;
    HASH_FIND(hh, s->txns, &producer_id, sizeof producer_id, txn);
    if (txn == NULL)
        return;
    for (bool more = true; more;) {
        struct open_commit *oc = txn->commits;
        struct offset_topic *t = oc->topic;
        struct offset *o = store_find(t, oc->partition);
        more = oc->next != NULL;
        if (commit && (!o->committed || o->value.record_offset < oc->value.record_offset))
            store_set(s->core, o, &oc->value);
        open_free(s, oc); /* the last one takes txn with it */
        store_trim(t);
    }
}

/* A tombstone voids the open commits of its partition, as in Kafka. */
void store_drop_open(struct offset_topic *t, int32_t partition)
{
    struct shard *s = t->group->shard;
    if (store_find(t, partition)->open == 0)
        return;
    struct open_txn *txn, *next_txn;
    HASH_ITER (hh, s->txns, txn, next_txn) {
        struct open_commit *oc = txn->commits;
        for (bool more = true; more;) {
            struct open_commit *next = oc->next;
            more = next != NULL;
            if (oc->topic == t && oc->partition == partition)
                open_free(s, oc);
            oc = next;
        }
    }
}

void store_free(struct group *g)
{
    struct groups *c = g->shard->core;
    struct offset_topic *t, *next;
    HASH_ITER (hh, g->topics, t, next) {
        for (size_t i = 0; i < t->count; i++) {
            store_drop_open(t, t->offsets[i].partition);
            store_unset(c, &t->offsets[i]);
        }
        topic_free(t);
    }
}
