/* image.c - queries. */
#include <stdlib.h>

#include "libs/metadata/image_impl.h"

const char *image_cluster_id(const struct image *i)
{
    return i->cluster_id;
}

int64_t image_offset(const struct image *i)
{
    return i->offset;
}

int32_t image_epoch(const struct image *i)
{
    return i->epoch;
}

int64_t image_timestamp_ms(const struct image *i)
{
    return i->timestamp_ms;
}

int64_t image_next_producer_id(const struct image *i)
{
    return i->state.next_producer_id;
}

bool image_in_transaction(const struct image *i)
{
    return i->pending != NULL;
}

int16_t image_kraft_version(const struct image *i)
{
    return i->state.kraft_version;
}

struct slice image_voters(const struct image *i)
{
    const struct pmap_item *item = pmap_get(&i->state.voters, SLICE_EMPTY);
    return item ? ((const struct extra *)(const void *)item)->value : SLICE_NULL;
}

/* ---- lists made on first use ---- */

struct sorted *sorted_retain(struct sorted *const *at)
{
    struct sorted *s = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    if (s != NULL)
        refs_up(&s->refs);
    return s;
}

void sorted_release(struct sorted *s)
{
    if (s != NULL && refs_down(&s->refs))
        free(s);
}

struct listing {
    struct sorted *list;
    size_t offset; /* of the public struct in the item */
};

static void listing_add(void *ctx, struct pmap_item *item)
{
    struct listing *l = ctx;
    l->list->items[l->list->count++] = (const char *)item + l->offset;
}

typedef int compare_fn(const void *a, const void *b);

static const struct sorted *sorted_get(struct sorted *const *at, const struct pmap *map, size_t offset,
                                       compare_fn *compare)
{
    struct sorted **own = (struct sorted **)(uintptr_t)at; /* filled in behind the reader's back, atomically */
    struct sorted *there = __atomic_load_n(own, __ATOMIC_ACQUIRE);
    if (there != NULL)
        return there;
    struct listing l = {.list = xmalloc(sizeof *l.list + map->count * sizeof(void *)), .offset = offset};
    l.list->count = 0;
    l.list->refs = 1;
    pmap_each(map, listing_add, &l);
    qsort(l.list->items, (size_t)l.list->count, sizeof l.list->items[0], compare);
    if (__atomic_compare_exchange_n(own, &there, l.list, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return l.list;
    free(l.list);
    return there;
}

static const void *deref(const void *p)
{
    return *(const void *const *)p;
}

static int by_topic_name(const void *a, const void *b)
{
    return slice_cmp(((const struct image_topic *)deref(a))->name, ((const struct image_topic *)deref(b))->name);
}

static int by_feature_name(const void *a, const void *b)
{
    return slice_cmp(((const struct image_feature *)deref(a))->name, ((const struct image_feature *)deref(b))->name);
}

static int by_broker_id(const void *a, const void *b)
{
    const struct image_broker *x = deref(a), *y = deref(b);
    return (x->id > y->id) - (x->id < y->id);
}

static int by_role_and_id(const void *a, const void *b)
{
    const struct image_service *x = deref(a), *y = deref(b);
    int role = (x->role > y->role) - (x->role < y->role);
    return role != 0 ? role : (x->id > y->id) - (x->id < y->id);
}

/* ---- topics ---- */

const struct image_topic *image_topic_by_id(const struct image *i, struct uuid id)
{
    const struct pmap_item *item = pmap_get(&i->state.topics, slice_make(id.b, sizeof id.b));
    return item ? &((const struct topic *)(const void *)item)->pub : NULL;
}

bool image_lists(const int32_t *ids, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

const struct image_topic *image_topic_by_name(const struct image *i, struct slice name)
{
    const struct pmap_item *item = slice_is_null(name) ? NULL : pmap_get(&i->state.names, name);
    return item ? image_topic_by_id(i, ((const struct name_ref *)(const void *)item)->id) : NULL;
}

const struct image_partition *image_partition(const struct image_topic *t, int32_t partition)
{
    const struct topic *own = (const struct topic *)(const void *)((const char *)t - offsetof(struct topic, pub));
    const struct part *p = topic_part(own, partition);
    return p ? &p->pub : NULL;
}

int32_t image_topic_count(const struct image *i)
{
    return (int32_t)i->state.topics.count;
}

int64_t image_partition_count(const struct image *i)
{
    return i->state.partition_count;
}

const struct image_topic *const *image_topics(const struct image *i, int32_t *ret_count)
{
    const struct sorted *s = sorted_get(&i->topics, &i->state.topics, offsetof(struct topic, pub), by_topic_name);
    *ret_count = s->count;
    return (const struct image_topic *const *)s->items;
}

struct each_topic {
    void (*fn)(void *ctx, const struct image_topic *t);
    void *ctx;
};

static void on_topic(void *ctx, struct pmap_item *item)
{
    const struct each_topic *e = ctx;
    e->fn(e->ctx, &CONTAINER_OF(item, struct topic, item)->pub);
}

void image_each_topic(const struct image *i, void (*fn)(void *ctx, const struct image_topic *t), void *ctx)
{
    struct each_topic e = {fn, ctx};
    pmap_each(&i->state.topics, on_topic, &e);
}

int32_t image_topics_from(const struct image *i, struct slice name)
{
    int32_t high, low = 0;
    const struct image_topic *const *topics = image_topics(i, &high);
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (slice_cmp(topics[middle]->name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- configuration ---- */

const struct image_config *image_configs(const struct image *i, enum image_resource type, struct slice name,
                                         int32_t *ret_count)
{
    uint8_t small[256], *key = name.size < sizeof small ? small : xmalloc(name.size + 1);
    const struct pmap_item *item = pmap_get(&i->state.configs, configs_key(key, type, name));
    if (key != small)
        free(key);
    const struct configs *c = (const struct configs *)(const void *)item;
    *ret_count = c ? c->count : 0;
    return c ? c->entries : NULL;
}

struct slice image_config(const struct image *i, enum image_resource type, struct slice name, const char *key)
{
    int32_t high, low = 0;
    const struct image_config *entries = image_configs(i, type, name, &high);
    struct slice wanted = slice_str(key);
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        int order = slice_cmp(entries[middle].key, wanted);
        if (order == 0)
            return entries[middle].value;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return SLICE_NULL;
}

/* ---- brokers, features, services, owners ---- */

const struct image_broker *image_broker(const struct image *i, int32_t id)
{
    const struct pmap_item *item = pmap_get(&i->state.brokers, slice_make(&id, sizeof id));
    return item ? &((const struct broker *)(const void *)item)->pub : NULL;
}

const struct image_broker *const *image_brokers(const struct image *i, int32_t *ret_count)
{
    const struct sorted *s = sorted_get(&i->brokers, &i->state.brokers, offsetof(struct broker, pub), by_broker_id);
    *ret_count = s->count;
    return (const struct image_broker *const *)s->items;
}

bool image_broker_is_active(const struct image *i, int32_t id)
{
    const struct image_broker *b = image_broker(i, id);
    return b != NULL && !b->fenced && !b->in_controlled_shutdown;
}

bool image_dir_is_online(const struct image_broker *b, struct uuid dir)
{
    if (uuid_eq(dir, UUID_DIR_LOST))
        return false;
    if (uuid_eq(dir, UUID_DIR_MIGRATING) || uuid_eq(dir, UUID_DIR_UNASSIGNED) || b->log_dir_count == 0)
        return true;
    for (int32_t n = 0; n < b->log_dir_count; n++)
        if (uuid_eq(b->log_dirs[n], dir))
            return true;
    return false;
}

struct uuid image_replica_dir(const struct image_partition *p, int32_t broker)
{
    for (int32_t n = 0; n < p->replica_count; n++)
        if (p->replicas[n] == broker)
            return p->directories[n];
    return UUID_DIR_UNASSIGNED;
}

bool image_replica_is_online(const struct image *i, const struct image_partition *p, int32_t broker)
{
    const struct image_broker *b = image_broker(i, broker);
    return b != NULL && !b->fenced && !b->in_controlled_shutdown &&
           image_dir_is_online(b, image_replica_dir(p, broker));
}

int16_t image_feature_level(const struct image *i, const char *name)
{
    const struct pmap_item *item = pmap_get(&i->state.features, slice_str(name));
    return item ? ((const struct feature *)(const void *)item)->pub.max : 0;
}

static const struct image_feature *image_feature_at(const struct sorted *s)
{
    return (const struct image_feature *)(const void *)(s->items + s->count);
}

/* Callers get an array of structs: it stands behind the pointers of the list. */
const struct image_feature *image_features(const struct image *i, int32_t *ret_count)
{
    struct sorted **own = (struct sorted **)(uintptr_t)&i->features;
    struct sorted *there = __atomic_load_n(own, __ATOMIC_ACQUIRE);
    if (there == NULL) {
        size_t count = i->state.features.count;
        struct listing l = {.list = xmalloc(sizeof *l.list + count * (sizeof(void *) + sizeof(struct image_feature))),
                            .offset = offsetof(struct feature, pub)};
        l.list->count = 0;
        l.list->refs = 1;
        pmap_each(&i->state.features, listing_add, &l);
        qsort(l.list->items, count, sizeof l.list->items[0], by_feature_name);
        struct image_feature *to = (struct image_feature *)(void *)(l.list->items + count);
        for (size_t n = 0; n < count; n++)
            to[n] = *(const struct image_feature *)l.list->items[n];
        if (__atomic_compare_exchange_n(own, &there, l.list, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            there = l.list;
        else
            free(l.list);
    }
    *ret_count = there->count;
    return image_feature_at(there);
}

const struct image_service *image_service(const struct image *i, int32_t role, int32_t id)
{
    int32_t key[2] = {role, id};
    const struct pmap_item *item = pmap_get(&i->state.services, slice_make(key, sizeof key));
    return item ? &((const struct service *)(const void *)item)->pub : NULL;
}

const struct image_service *const *image_services(const struct image *i, int32_t *ret_count)
{
    const struct sorted *s =
        sorted_get(&i->services, &i->state.services, offsetof(struct service, pub), by_role_and_id);
    *ret_count = s->count;
    return (const struct image_service *const *)s->items;
}

/* Images whose services are the same share the list of them. */
bool image_has_services_of(const struct image *i, const struct image *old)
{
    int32_t count, before;
    return old != NULL && image_services(i, &count) == image_services(old, &before);
}

int16_t image_bus_level(const struct image *i)
{
    int32_t count;
    const struct image_service *const *all = image_services(i, &count);
    int16_t level = count > 0 ? INT16_MAX : 0;
    for (int32_t n = 0; n < count; n++)
        level = all[n]->bus_version < level ? all[n]->bus_version : level;
    return level;
}

const struct image_owner *image_owner(const struct image *i, struct uuid topic_id, int32_t partition)
{
    struct owner_key key = {.topic_id = topic_id, .partition = partition};
    const struct pmap_item *item = pmap_get(&i->state.owners, slice_make(&key, sizeof key));
    return item ? &((const struct owner *)(const void *)item)->pub : NULL;
}
