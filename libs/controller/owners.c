/* owners.c - who coordinates which partition of an internal topic.
 *
 * Every live service of the role gets its share of the partitions; an owner keeps what it has as long as that is not
 * more than its share. A new owner, or a new life of the same one, comes with the next coordinator epoch (I4): the
 * storage node refuses what an earlier one still sends. With nobody alive the owners stay as they are: their services
 * are not in the image, which says enough. */
#include "karst/coordinator_record.h"
#include "libs/controller/internal.h"

static const struct {
    const char *topic;
    int32_t role;
} coordinated[] = {{"__consumer_offsets", ROLE_GROUP}, {"__transaction_state", ROLE_TXN}};

struct candidate {
    const struct image_service *service;
    int32_t owned;
};

struct sharing {
    struct controller *c;
    const struct image *image;
    const struct image_topic *topic;
    int32_t role;
    struct candidate *candidates; /* in the order of their ids */
    int32_t count, share, over;   /* a share of `share` each, and one more for `over` of them */
    struct karst_coordinator_record_partition *changes;
    int32_t change_count;
};

static struct candidate *find_candidate(const struct sharing *s, int32_t id)
{
    for (int32_t i = 0; i < s->count; i++)
        if (s->candidates[i].service->id == id)
            return &s->candidates[i];
    return NULL;
}

static bool has_room(struct sharing *s, struct candidate *k)
{
    return k->owned < s->share || (k->owned == s->share && s->over > 0);
}

static void take(struct sharing *s, struct candidate *k)
{
    if (k->owned == s->share)
        s->over--;
    k->owned++;
}

static void change_owner(struct sharing *s, int32_t partition, const struct image_owner *old,
                         const struct image_service *to)
{
    s->changes[s->change_count++] = (struct karst_coordinator_record_partition){
        .topic = s->topic->id,
        .partition = partition,
        .owner_id = to->id,
        .owner_incarnation = (int64_t)to->incarnation,
        .coordinator_epoch = old ? old->coordinator_epoch + 1 : 0,
    };
}

/* First those that keep their owner, then the rest: to whoever has room. */
static void share_out(struct sharing *s)
{
    bool *kept = arena_calloc(s->c->scratch, (size_t)s->topic->partition_count + 1, sizeof *kept);
    for (int32_t p = 0; p < s->topic->partition_count; p++) {
        const struct image_owner *old = image_owner(s->image, s->topic->id, p);
        struct candidate *k = old ? find_candidate(s, old->id) : NULL;
        if (k == NULL || !has_room(s, k))
            continue;
        take(s, k);
        kept[p] = true;
        if (old->incarnation != k->service->incarnation)
            change_owner(s, p, old, k->service);
    }
    for (int32_t p = 0, at = 0; p < s->topic->partition_count; p++) {
        if (kept[p])
            continue;
        while (!has_room(s, &s->candidates[at % s->count]))
            at++;
        struct candidate *k = &s->candidates[at++ % s->count];
        take(s, k);
        change_owner(s, p, image_owner(s->image, s->topic->id, p), k->service);
    }
}

static void assign(struct controller *c, const struct image *image, const char *topic, int32_t role)
{
    struct sharing s = {.c = c, .image = image, .role = role};
    int32_t count;
    const struct image_service *const *services = image_services(image, &count);
    s.topic = image_topic_by_name(image, slice_str(topic));
    if (s.topic == NULL)
        return;
    s.candidates = arena_calloc(c->scratch, (size_t)count + 1, sizeof *s.candidates);
    s.changes = arena_calloc(c->scratch, (size_t)s.topic->partition_count + 1, sizeof *s.changes);
    for (int32_t i = 0; i < count; i++)
        if (services[i]->role == role)
            s.candidates[s.count++].service = services[i];
    if (s.count == 0)
        return;
    s.share = s.topic->partition_count / s.count;
    s.over = s.topic->partition_count % s.count;
    share_out(&s);
    if (s.change_count == 0)
        return;
    struct karst_coordinator_record m = {
        .role = (int8_t)role, .partitions = s.changes, .partitions_count = s.change_count};
    controller_put_tag(c, METARECORD_TAG_COORDINATOR, &m);
}

void controller_assign_owners(struct controller *c, const struct image *image)
{
    for (size_t i = 0; i < COUNTOF(coordinated); i++)
        assign(c, image, coordinated[i].topic, coordinated[i].role);
}

bool controller_is_coordinated(struct slice topic)
{
    for (size_t i = 0; i < COUNTOF(coordinated); i++)
        if (slice_eq_str(topic, coordinated[i].topic))
            return true;
    return false;
}

void controller_assign_owners_ahead(struct controller *c)
{
    struct image *ahead = controller_preview(c);
    controller_assign_owners(c, ahead);
    image_release(ahead);
}
