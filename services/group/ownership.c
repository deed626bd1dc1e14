/* ownership.c - what the image says about us: which partitions of __consumer_offsets the controller gave to this life
 * of this service, who leads them, and which topics are gone. */
#include "services/group/group.h"

#include <stdlib.h>

enum { BATCH_ROOM = 100, BATCH_LEAST = 1024 };

static bool is_ours(const struct group_service *g, const struct image_owner *o)
{
    return o != NULL && o->role == KARST__BUS__ROLE__ROLE_GROUP && o->id == service_id(g->service) &&
           o->incarnation == service_incarnation(g->service);
}

static void release(struct group_service *g, int32_t partition)
{
    load_drop(g, partition);
    group_step(g, &(struct groups_event){.kind = GROUPS_EVENT_RELEASE, .partition = partition});
}

void group_release_all(struct group_service *g)
{
    for (int32_t p = 0, count = groups_partition_count(g->core); p < count; p++) {
        int32_t epoch;
        bool loaded;
        if (groups_owns(g->core, p, &epoch, &loaded))
            release(g, p);
    }
}

static void on_owner(void *ctx, const struct image_owner *before, const struct image_owner *after)
{
    struct group_service *g = ctx;
    const struct image_owner *any = after != NULL ? after : before;
    if (!g->has_topic || !uuid_eq(any->topic_id, g->topic_id) || g->draining)
        return;
    int32_t epoch;
    bool loaded;
    if (is_ours(g, after))
        group_step(g, &(struct groups_event){.kind = GROUPS_EVENT_ACQUIRE,
                                             .partition = after->partition,
                                             .epoch = after->coordinator_epoch});
    else if (groups_owns(g->core, any->partition, &epoch, &loaded))
        release(g, any->partition);
}

static void set_topic(struct group_service *g, const struct image_topic *t)
{
    if (t == NULL || !g->has_topic || !uuid_eq(t->id, g->topic_id))
        group_release_all(g);
    g->has_topic = t != NULL;
    if (t == NULL)
        return;
    g->topic_id = t->id;
    groups_set_partition_count(g->core, t->partition_count);
}

/* Records of one append: what the topic takes, less the batch's header. */
static void set_batch_max(struct group_service *g)
{
    int64_t bytes = config_int(service_config(g->service), "message.max.bytes");
    char *own = slice_dup_str(image_config(g->image, IMAGE_TOPIC, GROUP_TOPIC, "max.message.bytes"));
    if (own != NULL)
        bytes = strtoll(own, NULL, 10);
    free(own);
    groups_set_batch_max(g->core, (size_t)MAX(bytes - BATCH_ROOM, (int64_t)BATCH_LEAST));
}

static void on_config(void *ctx, enum image_resource type, struct slice name)
{
    if (type == IMAGE_TOPIC && slice_eq(name, GROUP_TOPIC))
        set_batch_max(ctx);
}

static void on_topic(void *ctx, const struct image_topic *before, const struct image_topic *after)
{
    struct group_service *g = ctx;
    if (before == NULL || after != NULL)
        return;
    group_step(g, &(struct groups_event){.kind = GROUPS_EVENT_TOPIC_DELETED, .topic = before->name});
}

void group_on_image(void *ctx, const struct image *old_image, const struct image *new_image)
{
    struct group_service *g = ctx;
    struct image *former = g->image;
    g->image = image_retain(new_image);
    image_release(former);
    set_topic(g, image_topic_by_name(new_image, GROUP_TOPIC));
    if (old_image == NULL)
        set_batch_max(g);
    image_diff(old_image, new_image,
               &(struct image_diff){.topic = on_topic, .owner = on_owner, .config = on_config, .ctx = g});
    load_on_image(g);
}

bool group_leader(const struct group_service *g, int32_t partition, int32_t *ret_leader, int32_t *ret_leader_epoch)
{
    const struct image_topic *t = g->image != NULL && g->has_topic ? image_topic_by_id(g->image, g->topic_id) : NULL;
    const struct image_partition *p = t != NULL ? image_partition(t, partition) : NULL;
    if (p == NULL || p->leader < 0)
        return false;
    *ret_leader = p->leader;
    *ret_leader_epoch = p->leader_epoch;
    return true;
}
