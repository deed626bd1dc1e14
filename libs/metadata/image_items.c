/* image_items.c - the things in an image, each one block of memory. */
#include <stdlib.h>

#include "libs/metadata/image_impl.h"

/* Takes the parts of a block from its front. */
struct packer {
    uint8_t *at;
};

static void *pack(struct packer *p, const void *from, size_t size)
{
    void *to = p->at;
    if (size > 0)
        memcpy(to, from, size);
    p->at += size;
    return to;
}

static struct slice pack_text(struct packer *p, struct slice s)
{
    if (slice_is_null(s))
        return SLICE_NULL;
    struct slice copy = {pack(p, s.data, s.size), s.size};
    *p->at++ = 0;
    return copy;
}

static size_t text_size(struct slice s)
{
    return s.size + 1;
}

static void item_free(struct pmap_item *item)
{
    free(item);
}

/* ---- partitions ---- */

struct part *part_new(const struct image_partition *p)
{
    size_t ids = (size_t)(p->replica_count + p->isr_count + p->removing_count + p->adding_count + p->elr_count +
                          p->last_known_elr_count);
    size_t directories = (size_t)p->replica_count * sizeof(struct uuid);
    struct part *part = xmalloc(sizeof *part + ids * sizeof(int32_t) + directories);
    struct packer at = {(uint8_t *)(part + 1)};
    part->refs = 1;
    part->pub = *p;
    part->pub.replicas = pack(&at, p->replicas, (size_t)p->replica_count * sizeof(int32_t));
    part->pub.isr = pack(&at, p->isr, (size_t)p->isr_count * sizeof(int32_t));
    part->pub.removing = pack(&at, p->removing, (size_t)p->removing_count * sizeof(int32_t));
    part->pub.adding = pack(&at, p->adding, (size_t)p->adding_count * sizeof(int32_t));
    part->pub.elr = pack(&at, p->elr, (size_t)p->elr_count * sizeof(int32_t));
    part->pub.last_known_elr = pack(&at, p->last_known_elr, (size_t)p->last_known_elr_count * sizeof(int32_t));
    part->pub.directories = pack(&at, p->directories, directories);
    return part;
}

static void part_release(struct part *part)
{
    if (part != NULL && refs_down(&part->refs))
        free(part);
}

static void block_release(struct part_block *b)
{
    if (b == NULL || !refs_down(&b->refs))
        return;
    for (size_t i = 0; i < TOPIC_BLOCK; i++)
        part_release(b->parts[i]);
    free(b);
}

/* ---- topics ---- */

static void topic_free(struct pmap_item *item)
{
    struct topic *t = CONTAINER_OF(item, struct topic, item);
    for (int32_t i = 0; i < t->block_count; i++)
        block_release(t->blocks[i]);
    free(t->blocks);
    free(t->name);
    free(t);
}

struct pmap_item *topic_new(struct uuid id, struct slice name, int64_t created_offset)
{
    struct topic *t = xcalloc(1, sizeof *t);
    t->name = xcalloc(1, name.size + 1);
    memcpy(t->name, name.data, name.size);
    t->pub = (struct image_topic){.id = id, .name = slice_make(t->name, name.size), .created_offset = created_offset};
    pmap_item_init(&t->item, slice_make(t->pub.id.b, sizeof t->pub.id.b), topic_free);
    return &t->item;
}

struct pmap_item *topic_clone(const struct pmap_item *item)
{
    const struct topic *old = (const struct topic *)(const void *)item;
    struct pmap_item *copy = topic_new(old->pub.id, old->pub.name, old->pub.created_offset);
    struct topic *t = CONTAINER_OF(copy, struct topic, item);
    t->pub.partition_count = old->pub.partition_count;
    t->block_count = old->block_count;
    t->blocks = xmalloc((size_t)t->block_count * sizeof(struct part_block *));
    for (int32_t i = 0; i < t->block_count; i++) {
        t->blocks[i] = old->blocks[i];
        refs_up(&t->blocks[i]->refs);
    }
    return copy;
}

static struct part_block *block_own(struct part_block *b)
{
    if (refs_sole(&b->refs))
        return b;
    struct part_block *copy = xmalloc(sizeof *copy);
    *copy = *b;
    copy->refs = 1;
    for (size_t i = 0; i < TOPIC_BLOCK; i++)
        if (copy->parts[i] != NULL)
            refs_up(&copy->parts[i]->refs);
    block_release(b);
    return copy;
}

bool topic_set_part(struct topic *t, struct part *p)
{
    int32_t number = p->pub.partition, at = number / TOPIC_BLOCK;
    ASSERT(number >= 0 && number <= t->pub.partition_count);
    if (at == t->block_count) {
        t->blocks = xrealloc(t->blocks, (size_t)(at + 1) * sizeof(struct part_block *));
        t->blocks[at] = xcalloc(1, sizeof(struct part_block));
        t->blocks[at]->refs = 1;
        t->block_count++;
    }
    struct part_block *b = t->blocks[at] = block_own(t->blocks[at]);
    part_release(b->parts[number % TOPIC_BLOCK]);
    b->parts[number % TOPIC_BLOCK] = p;
    if (number < t->pub.partition_count)
        return false;
    t->pub.partition_count++;
    return true;
}

const struct part *topic_part(const struct topic *t, int32_t partition)
{
    if (partition < 0 || partition >= t->pub.partition_count)
        return NULL;
    return t->blocks[partition / TOPIC_BLOCK]->parts[partition % TOPIC_BLOCK];
}

struct pmap_item *name_ref_new(struct slice name, struct uuid id)
{
    struct name_ref *n = xmalloc(sizeof *n + name.size);
    memcpy(n->name, name.data, name.size);
    n->id = id;
    pmap_item_init(&n->item, slice_make(n->name, name.size), item_free);
    return &n->item;
}

/* ---- brokers ---- */

static size_t endpoints_size(const struct image_endpoint *e, int32_t count)
{
    size_t size = 0;
    for (int32_t i = 0; i < count; i++)
        size += sizeof *e + text_size(e[i].name) + text_size(e[i].host);
    return size;
}

/* The texts go behind everything that has an alignment. */
static void pack_endpoint_texts(struct packer *at, struct image_endpoint *e, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        e[i].name = pack_text(at, e[i].name);
        e[i].host = pack_text(at, e[i].host);
    }
}

struct pmap_item *broker_new(const struct image_broker *b)
{
    size_t features = 0;
    for (int32_t i = 0; i < b->feature_count; i++)
        features += sizeof *b->features + text_size(b->features[i].name);
    size_t dirs = (size_t)b->log_dir_count * sizeof(struct uuid);
    size_t cordoned = (size_t)b->cordoned_log_dir_count * sizeof(struct uuid);
    struct broker *n = xmalloc(sizeof *n + features + endpoints_size(b->endpoints, b->endpoint_count) + dirs +
                               cordoned + text_size(b->rack));
    struct packer at = {(uint8_t *)(n + 1)};
    n->pub = *b;
    struct image_endpoint *e = pack(&at, b->endpoints, (size_t)b->endpoint_count * sizeof *e);
    struct image_feature *f = pack(&at, b->features, (size_t)b->feature_count * sizeof *f);
    n->pub.log_dirs = pack(&at, b->log_dirs, dirs);
    n->pub.cordoned_log_dirs = pack(&at, b->cordoned_log_dirs, cordoned);
    pack_endpoint_texts(&at, e, b->endpoint_count);
    for (int32_t i = 0; i < b->feature_count; i++)
        f[i].name = pack_text(&at, f[i].name);
    n->pub.endpoints = e;
    n->pub.features = f;
    n->pub.rack = pack_text(&at, b->rack);
    pmap_item_init(&n->item, slice_make(&n->pub.id, sizeof n->pub.id), item_free);
    return &n->item;
}

/* ---- configuration ---- */

struct slice configs_key(uint8_t *to, enum image_resource type, struct slice name)
{
    to[0] = (uint8_t)type;
    if (name.size > 0)
        memcpy(to + 1, name.data, name.size);
    return slice_make(to, name.size + 1);
}

static struct configs *configs_alloc(const struct image_config *entries, int32_t count, enum image_resource type,
                                     struct slice name)
{
    size_t texts = 1 + text_size(name);
    for (int32_t i = 0; i < count; i++)
        texts += text_size(entries[i].key) + text_size(entries[i].value);
    struct configs *c = xmalloc(sizeof *c + (size_t)count * sizeof *entries + texts);
    struct packer at = {(uint8_t *)(c + 1)};
    c->type = type;
    c->count = count;
    c->entries = pack(&at, entries, (size_t)count * sizeof *entries);
    uint8_t *key = pack(&at, &(uint8_t){(uint8_t)type}, 1);
    c->name = pack_text(&at, name);
    for (int32_t i = 0; i < count; i++) {
        c->entries[i].key = pack_text(&at, entries[i].key);
        c->entries[i].value = pack_text(&at, entries[i].value);
    }
    pmap_item_init(&c->item, slice_make(key, name.size + 1), item_free);
    return c;
}

struct pmap_item *configs_new(const struct configs *old, enum image_resource type, struct slice name, struct slice key,
                              struct slice value)
{
    int32_t old_count = old ? old->count : 0, n = 0;
    struct image_config *entries = xmalloc(((size_t)old_count + 1) * sizeof *entries);
    bool placed = slice_is_null(value);
    for (int32_t i = 0; i < old_count; i++) {
        int order = slice_cmp(old->entries[i].key, key);
        if (order >= 0 && !placed) {
            entries[n++] = (struct image_config){key, value};
            placed = true;
        }
        if (order != 0)
            entries[n++] = old->entries[i];
    }
    if (!placed)
        entries[n++] = (struct image_config){key, value};
    struct configs *c = n > 0 ? configs_alloc(entries, n, type, name) : NULL;
    free(entries);
    return c ? &c->item : NULL;
}

/* ---- the rest ---- */

struct pmap_item *feature_new(struct slice name, int16_t level)
{
    struct feature *f = xmalloc(sizeof *f + text_size(name));
    struct packer at = {(uint8_t *)(f + 1)};
    f->pub = (struct image_feature){.name = pack_text(&at, name), .min = level, .max = level};
    pmap_item_init(&f->item, f->pub.name, item_free);
    return &f->item;
}

struct pmap_item *service_new(const struct image_service *s)
{
    size_t addresses = 0;
    for (int32_t i = 0; i < s->address_count; i++)
        addresses += sizeof *s->addresses + text_size(s->addresses[i]);
    for (int32_t i = 0; i < s->log_dir_count; i++)
        addresses += sizeof *s->log_dirs + text_size(s->log_dirs[i]);
    struct service *n = xmalloc(sizeof *n + addresses + endpoints_size(s->listeners, s->listener_count) +
                                text_size(s->host) + text_size(s->rack) + text_size(s->version));
    struct packer at = {(uint8_t *)(n + 1)};
    n->pub = *s;
    struct slice *a = pack(&at, s->addresses, (size_t)s->address_count * sizeof *a);
    struct image_endpoint *l = pack(&at, s->listeners, (size_t)s->listener_count * sizeof *l);
    struct slice *d = pack(&at, s->log_dirs, (size_t)s->log_dir_count * sizeof *d);
    for (int32_t i = 0; i < s->address_count; i++)
        a[i] = pack_text(&at, a[i]);
    for (int32_t i = 0; i < s->log_dir_count; i++)
        d[i] = pack_text(&at, d[i]);
    pack_endpoint_texts(&at, l, s->listener_count);
    n->pub.addresses = a;
    n->pub.listeners = l;
    n->pub.log_dirs = d;
    n->pub.host = pack_text(&at, s->host);
    n->pub.rack = pack_text(&at, s->rack);
    n->pub.version = pack_text(&at, s->version);
    n->key[0] = s->role;
    n->key[1] = s->id;
    pmap_item_init(&n->item, slice_make(n->key, sizeof n->key), item_free);
    return &n->item;
}

static_assert(offsetof(struct image_owner, partition) == offsetof(struct owner_key, partition) &&
                  sizeof(struct owner_key) == 20,
              "an owner's first fields are its key");

struct pmap_item *owner_new(const struct image_owner *o)
{
    struct owner *n = xmalloc(sizeof *n);
    n->pub = *o;
    pmap_item_init(&n->item, slice_make(&n->pub, sizeof(struct owner_key)), item_free);
    return &n->item;
}

struct pmap_item *extra_new(struct slice key, struct slice value)
{
    struct extra *e = xmalloc(sizeof *e + key.size + value.size);
    struct packer at = {(uint8_t *)(e + 1)};
    uint8_t *own_key = pack(&at, key.data, key.size);
    e->value = slice_make(pack(&at, value.data, value.size), value.size);
    pmap_item_init(&e->item, slice_make(own_key, key.size), item_free);
    return &e->item;
}
