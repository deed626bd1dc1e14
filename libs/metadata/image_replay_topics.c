/* image_replay_topics.c - records of topics and partitions. The merging of a PartitionChangeRecord is that of Kafka's
 * PartitionRegistration: each change adds one to the partition epoch, each new leader (none, too) one to the leader
 * epoch. */
#include "kafka/clear_elr_record.h"
#include "kafka/partition_change_record.h"
#include "kafka/partition_record.h"
#include "kafka/remove_topic_record.h"
#include "kafka/topic_record.h"
#include "libs/metadata/image_impl.h"

enum { PARTITION_MAX = 1 << 24, REPLICA_MAX = 1 << 16, NO_LEADER_CHANGE = -2 };

static struct slice id_key(const struct uuid *id)
{
    return slice_make(id->b, sizeof id->b);
}

int replay_topic(struct replay *r, const void *msg)
{
    const struct kafka_topic_record *m = msg;
    struct pmap_item *there = pmap_get(&r->state->names, m->name);
    if (m->name.size == 0 || pmap_get(&r->state->topics, id_key(&m->topic_id)) != NULL || there != NULL)
        return -EBADMSG;
    pmap_put(&r->state->topics, topic_new(m->topic_id, m->name, r->offset));
    pmap_put(&r->state->names, name_ref_new(m->name, m->topic_id));
    return 0;
}

static struct topic *edit_topic(struct replay *r, const struct uuid *id)
{
    struct pmap_item *item = pmap_edit(&r->state->topics, id_key(id), topic_clone);
    return item ? CONTAINER_OF(item, struct topic, item) : NULL;
}

/* Gives each replica a directory: those of the record, or UNASSIGNED as Kafka reads records that have none. */
static int fill_directories(struct replay *r, struct image_partition *p, const struct uuid *directories, int32_t count)
{
    if (count == p->replica_count) {
        p->directories = directories;
        return 0;
    }
    if (count > 0)
        return -EBADMSG;
    struct uuid *unassigned = arena_try_alloc(r->arena, (size_t)p->replica_count * sizeof *unassigned + 1);
    if (unassigned == NULL)
        return -EBADMSG;
    for (int32_t i = 0; i < p->replica_count; i++)
        unassigned[i] = UUID_DIR_UNASSIGNED;
    p->directories = unassigned;
    return 0;
}

static bool is_sane(const struct image_partition *p)
{
    return p->partition >= 0 && p->partition < PARTITION_MAX && p->replica_count <= REPLICA_MAX &&
           p->isr_count <= REPLICA_MAX && p->removing_count <= REPLICA_MAX && p->adding_count <= REPLICA_MAX &&
           p->elr_count <= REPLICA_MAX && p->last_known_elr_count <= REPLICA_MAX && p->leader >= -1;
}

int replay_partition(struct replay *r, const void *msg)
{
    const struct kafka_partition_record *m = msg;
    struct image_partition p = {
        .partition = m->partition_id,
        .leader = m->leader,
        .leader_epoch = m->leader_epoch,
        .partition_epoch = m->partition_epoch,
        .leader_recovery_state = m->leader_recovery_state,
        .replicas = m->replicas,
        .replica_count = m->replicas_count,
        .isr = m->isr,
        .isr_count = m->isr_count,
        .removing = m->removing_replicas,
        .removing_count = m->removing_replicas_count,
        .adding = m->adding_replicas,
        .adding_count = m->adding_replicas_count,
        .elr = m->eligible_leader_replicas,
        .elr_count = MAX(m->eligible_leader_replicas_count, 0),
        .last_known_elr = m->last_known_elr,
        .last_known_elr_count = MAX(m->last_known_elr_count, 0),
    };
    if (!is_sane(&p) || fill_directories(r, &p, m->directories, m->directories_count) != 0)
        return -EBADMSG;
    struct topic *t = edit_topic(r, &m->topic_id);
    if (t == NULL || p.partition > t->pub.partition_count)
        return -EBADMSG;
    r->state->partition_count += topic_set_part(t, part_new(&p));
    return 0;
}

/* A list of the record replaces ours; null (-1) leaves it. */
static void change_list(const int32_t **list, int32_t *count, int32_t *changed, int32_t changed_count)
{
    if (changed_count < 0)
        return;
    *list = changed;
    *count = changed_count;
}

static int change_part(struct replay *r, struct topic *t, const struct kafka_partition_change_record *m)
{
    const struct part *old = topic_part(t, m->partition_id);
    if (old == NULL)
        return -EBADMSG;
    struct image_partition p = old->pub;
    p.partition_epoch = (int32_t)((uint32_t)p.partition_epoch + 1);
    if (m->leader != NO_LEADER_CHANGE) {
        p.leader = m->leader;
        p.leader_epoch = (int32_t)((uint32_t)p.leader_epoch + 1);
    }
    if (m->leader_recovery_state >= 0)
        p.leader_recovery_state = m->leader_recovery_state;
    change_list(&p.isr, &p.isr_count, m->isr, m->isr_count);
    change_list(&p.removing, &p.removing_count, m->removing_replicas, m->removing_replicas_count);
    change_list(&p.adding, &p.adding_count, m->adding_replicas, m->adding_replicas_count);
    change_list(&p.elr, &p.elr_count, m->eligible_leader_replicas, m->eligible_leader_replicas_count);
    change_list(&p.last_known_elr, &p.last_known_elr_count, m->last_known_elr, m->last_known_elr_count);
    change_list(&p.replicas, &p.replica_count, m->replicas, m->replicas_count);
    bool moved = m->replicas_count >= 0 || m->directories_count >= 0;
    if (!is_sane(&p) || (moved && fill_directories(r, &p, m->directories, MAX(m->directories_count, 0)) != 0))
        return -EBADMSG;
    topic_set_part(t, part_new(&p));
    return 0;
}

int replay_partition_change(struct replay *r, const void *msg)
{
    const struct kafka_partition_change_record *m = msg;
    struct topic *t = edit_topic(r, &m->topic_id);
    return t == NULL ? -EBADMSG : change_part(r, t, m);
}

int replay_remove_topic(struct replay *r, const void *msg)
{
    const struct kafka_remove_topic_record *m = msg;
    struct pmap_item *item = pmap_get(&r->state->topics, id_key(&m->topic_id));
    if (item == NULL)
        return -EBADMSG;
    const struct topic *t = CONTAINER_OF(item, struct topic, item);
    struct owner_key key = {.topic_id = t->pub.id};
    for (; key.partition < t->pub.partition_count && r->state->owners.count > 0; key.partition++)
        pmap_remove(&r->state->owners, slice_make(&key, sizeof key));
    uint8_t *config = arena_try_alloc(r->arena, t->pub.name.size + 1);
    if (config == NULL)
        return -EBADMSG;
    pmap_remove(&r->state->configs, configs_key(config, IMAGE_TOPIC, t->pub.name));
    r->state->partition_count -= t->pub.partition_count;
    pmap_remove(&r->state->names, t->pub.name);
    pmap_remove(&r->state->topics, id_key(&m->topic_id));
    return 0;
}

static int clear_elr_of(struct replay *r, struct uuid id)
{
    struct topic *t = edit_topic(r, &id);
    int error = t ? 0 : -EBADMSG;
    for (int32_t i = 0; error == 0 && i < t->pub.partition_count; i++) {
        const struct image_partition *p = &topic_part(t, i)->pub;
        if (p->elr_count == 0 && p->last_known_elr_count == 0)
            continue;
        struct kafka_partition_change_record change;
        kafka_partition_change_record_init(&change);
        change.partition_id = i;
        change.topic_id = id;
        change.eligible_leader_replicas_count = change.last_known_elr_count = 0;
        error = change_part(r, t, &change);
    }
    return error;
}

struct id_list {
    struct uuid *ids;
    size_t count;
};

static void collect_id(void *ctx, struct pmap_item *item)
{
    struct id_list *list = ctx;
    list->ids[list->count++] = CONTAINER_OF(item, struct topic, item)->pub.id;
}

/* An empty name means all topics. */
int replay_clear_elr(struct replay *r, const void *msg)
{
    const struct kafka_clear_elr_record *m = msg;
    if (m->topic_name.size > 0) {
        struct pmap_item *name = pmap_get(&r->state->names, m->topic_name);
        return name ? clear_elr_of(r, CONTAINER_OF(name, struct name_ref, item)->id) : -EBADMSG;
    }
    struct id_list all = {.ids = arena_try_alloc(r->arena, r->state->topics.count * sizeof(struct uuid) + 1)};
    if (all.ids == NULL)
        return -EBADMSG;
    pmap_each(&r->state->topics, collect_id, &all);
    int error = 0;
    for (size_t i = 0; error == 0 && i < all.count; i++)
        error = clear_elr_of(r, all.ids[i]);
    return error;
}
