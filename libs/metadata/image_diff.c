/* image_diff.c - what is another object in two images. */
#include "libs/metadata/image_impl.h"

static const struct state no_state;

#define PUB(item, type) ((item) ? &((const struct type *)(const void *)(item))->pub : NULL)

static void diff_topic(void *ctx, struct pmap_item *before, struct pmap_item *after)
{
    const struct image_diff *d = ctx;
    d->topic(d->ctx, PUB(before, topic), PUB(after, topic));
}

static void diff_config(void *ctx, struct pmap_item *before, struct pmap_item *after)
{
    const struct image_diff *d = ctx;
    const struct configs *c = (const struct configs *)(const void *)(after ? after : before);
    d->config(d->ctx, c->type, c->name);
}

static void diff_broker(void *ctx, struct pmap_item *before, struct pmap_item *after)
{
    const struct image_diff *d = ctx;
    d->broker(d->ctx, PUB(before, broker), PUB(after, broker));
}

static void diff_service(void *ctx, struct pmap_item *before, struct pmap_item *after)
{
    const struct image_diff *d = ctx;
    d->service(d->ctx, PUB(before, service), PUB(after, service));
}

static void diff_owner(void *ctx, struct pmap_item *before, struct pmap_item *after)
{
    const struct image_diff *d = ctx;
    d->owner(d->ctx, PUB(before, owner), PUB(after, owner));
}

static void diff_kept(void *ctx, struct pmap_item *before UNUSED, struct pmap_item *after UNUSED)
{
    const struct image_diff *d = ctx;
    d->kept(d->ctx);
}

void image_diff(const struct image *old, const struct image *newer, const struct image_diff *diff)
{
    const struct state *a = old ? &old->state : &no_state, *b = &newer->state;
    struct image_diff d = *diff;
    if (d.topic != NULL)
        pmap_diff(&a->topics, &b->topics, diff_topic, &d);
    if (d.config != NULL)
        pmap_diff(&a->configs, &b->configs, diff_config, &d);
    if (d.broker != NULL)
        pmap_diff(&a->brokers, &b->brokers, diff_broker, &d);
    if (d.service != NULL)
        pmap_diff(&a->services, &b->services, diff_service, &d);
    if (d.owner != NULL)
        pmap_diff(&a->owners, &b->owners, diff_owner, &d);
    if (d.kept != NULL)
        pmap_diff(&a->extras, &b->extras, diff_kept, &d);
}

static const struct topic *own_topic(const struct image_topic *t)
{
    return t ? (const struct topic *)(const void *)((const char *)t - offsetof(struct topic, pub)) : NULL;
}

void image_diff_partitions(const struct image_topic *before, const struct image_topic *after,
                           image_partition_change_fn *fn, void *ctx)
{
    const struct topic *a = own_topic(before), *b = own_topic(after);
    int32_t blocks = MAX(a ? a->block_count : 0, b ? b->block_count : 0);
    for (int32_t k = 0; k < blocks; k++) {
        const struct part_block *x = a && k < a->block_count ? a->blocks[k] : NULL;
        const struct part_block *y = b && k < b->block_count ? b->blocks[k] : NULL;
        if (x == y)
            continue;
        for (size_t n = 0; n < TOPIC_BLOCK; n++) {
            const struct part *p = x ? x->parts[n] : NULL, *q = y ? y->parts[n] : NULL;
            if (p != q)
                fn(ctx, p ? &p->pub : NULL, q ? &q->pub : NULL);
        }
    }
}
