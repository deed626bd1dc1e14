/* metawatch_rules.c - see metawatch.h: W4 to W9, on the newest image that any program has. What was seen before is kept
 * here by value: images are the memory of processes that die. */
#include "tests/sim/metawatch_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "libs/kraft/kraft.h"
#include "tests/sim/heap.h"

struct looking {
    struct metawatch *w;
    const struct image *now;
    bool all; /* every partition, not only those that changed */
};

static bool has(const int32_t *list, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (list[i] == id)
            return true;
    return false;
}

/* ---- partitions ---- */

static uint64_t add(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 31);
}

static uint64_t add_list(uint64_t h, const int32_t *list, int32_t count)
{
    h = add(h, (uint64_t)count);
    for (int32_t i = 0; i < count; i++)
        h = add(h, (uint32_t)list[i]);
    return h;
}

static uint64_t content_of(const struct image_partition *p)
{
    uint64_t h = add((uint32_t)p->leader, (uint32_t)p->leader_epoch);
    h = add_list(h, p->replicas, p->replica_count);
    h = add_list(h, p->isr, p->isr_count);
    h = add_list(h, p->adding, p->adding_count);
    h = add_list(h, p->removing, p->removing_count);
    h = add_list(h, p->elr, p->elr_count);
    return add(add_list(h, p->last_known_elr, p->last_known_elr_count), (uint8_t)p->leader_recovery_state);
}

static void check_isr(const struct looking *l, const char *name, const struct image_partition *p)
{
    struct sim *s = l->w->sim;
    for (int32_t i = 0; i < p->isr_count; i++) {
        int32_t id = p->isr[i];
        if (!has(p->replicas, p->replica_count, id) || has(p->isr, i, id))
            sim_fail(s, "%s-%d: broker %d is in the ISR, and no replica or there twice", name, p->partition, id);
        if (has(p->elr, p->elr_count, id))
            sim_fail(s, "%s-%d: broker %d is in the ISR and the ELR", name, p->partition, id);
        if (p->isr_count > 1 && !image_broker_is_active(l->now, id))
            sim_fail(s, "%s-%d: broker %d is fenced, and one of %d in the ISR", name, p->partition, id, p->isr_count);
    }
    if (p->leader >= 0 && !has(p->isr, p->isr_count, p->leader))
        sim_fail(s, "%s-%d: the leader %d is not in the ISR", name, p->partition, p->leader);
    if (p->leader >= 0 && !image_broker_is_active(l->now, p->leader))
        sim_fail(s, "%s-%d: the leader %d is fenced", name, p->partition, p->leader);
    for (int32_t i = 0; i < p->elr_count; i++)
        if (!has(p->replicas, p->replica_count, p->elr[i]) || has(p->elr, i, p->elr[i]))
            sim_fail(s, "%s-%d: broker %d is in the ELR, and no replica or there twice", name, p->partition, p->elr[i]);
}

static void check_leader(struct metawatch *w, const char *name, struct partition_key key,
                         const struct image_partition *p)
{
    struct leader_seen *known;
    key.epoch = p->leader_epoch;
    HASH_FIND(hh, w->leaders, &key, sizeof key, known);
    if (known == NULL) {
        known = xcalloc(1, sizeof *known);
        known->key = key;
        known->leader = p->leader;
        HASH_ADD(hh, w->leaders, key, sizeof key, known);
    } else if (known->leader != p->leader) {
        sim_fail(w->sim, "%s-%d has the leaders %d and %d in epoch %d", name, p->partition, known->leader, p->leader,
                 p->leader_epoch);
    }
}

static int seen_ids(int32_t *to, const int32_t *from, int32_t count)
{
    ASSERT(count <= SEEN_REPLICAS_MAX);
    for (int32_t i = 0; i < count; i++)
        to[i] = from[i];
    return count;
}

static struct seen_partition seen(const struct image_partition *p)
{
    struct seen_partition s = {.leader = p->leader, .leader_epoch = p->leader_epoch};
    s.replica_count = seen_ids(s.replicas, p->replicas, p->replica_count);
    s.isr_count = seen_ids(s.isr, p->isr, p->isr_count);
    s.moving = p->adding_count > 0 || p->removing_count > 0;
    return s;
}

/* A node that keeps the partition no more may get it again, empty: what it has said before must not count then. */
static void check_removed(const struct metawatch *w, const char *name, const struct seen_partition *before,
                          const struct image_partition *p)
{
    for (int i = 0; i < before->replica_count; i++)
        if (!has(p->replicas, p->replica_count, before->replicas[i]) && p->leader_epoch == before->leader_epoch)
            sim_fail(w->sim, "%s-%d: broker %d is a replica no more, in leader epoch %d as before", name, p->partition,
                     before->replicas[i], p->leader_epoch);
}

static void keep_partition(struct looking *l, const char *name, struct partition_key key,
                           const struct image_partition *p)
{
    struct metawatch *w = l->w;
    struct partition_seen *known;
    uint64_t content = content_of(p);
    HASH_FIND(hh, w->partitions, &key, sizeof key, known);
    if (known == NULL) {
        known = xcalloc(1, sizeof *known);
        known->key = key;
        HASH_ADD(hh, w->partitions, key, sizeof key, known);
    } else if (p->leader_epoch < known->partition.leader_epoch || p->partition_epoch < known->partition_epoch) {
        sim_fail(w->sim, "%s-%d goes back from leader epoch %d, partition epoch %d to %d, %d", name, p->partition,
                 known->partition.leader_epoch, known->partition_epoch, p->leader_epoch, p->partition_epoch);
    } else if (content != known->content && p->partition_epoch == known->partition_epoch) {
        sim_fail(w->sim, "%s-%d changes within partition epoch %d", name, p->partition, p->partition_epoch);
    } else if (p->leader != known->partition.leader && p->leader_epoch == known->partition.leader_epoch) {
        sim_fail(w->sim, "%s-%d gets another leader within leader epoch %d", name, p->partition, p->leader_epoch);
    }
    check_removed(w, name, &known->partition, p);
    if (p->elr_count > 0)
        sim_cover("a replica left the ISR, and may lead");
    known->partition = seen(p);
    known->partition_epoch = p->partition_epoch;
    known->content = content;
    known->could_be_led = false;
    for (int32_t i = 0; i < p->isr_count && p->leader < 0; i++)
        known->could_be_led |= image_replica_is_online(l->now, p, p->isr[i]);
}

static void look_at_partition(struct looking *l, const struct image_topic *t, const struct image_partition *p)
{
    struct partition_key key;
    char name[64];
    memset(&key, 0, sizeof key);
    memcpy(key.topic_id, t->id.b, sizeof key.topic_id);
    key.partition = p->partition;
    snprintf(name, sizeof name, SLICE_F, SLICE_A(t->name));
    check_isr(l, name, p);
    uint32_t owner = heap_enter(0);
    check_leader(l->w, name, key, p);
    keep_partition(l, name, key, p);
    (void)heap_enter(owner);
}

struct topic_looking {
    struct looking *l;
    const struct image_topic *t;
};

static void on_partition(void *ctx, const struct image_partition *before UNUSED, const struct image_partition *after)
{
    struct topic_looking *l = ctx;
    if (after != NULL)
        look_at_partition(l->l, l->t, after);
}

/* ---- topics ---- */

static struct topic_seen *find_topic(struct metawatch *w, struct uuid id)
{
    struct topic_seen *t;
    HASH_FIND(hh, w->topics, id.b, sizeof id.b, t);
    return t;
}

static void gone(struct metawatch *w, struct topic_seen *t)
{
    struct partition_seen *p, *next;
    if (!t->topic.gone)
        sim_note(w->sim, "topic %s is gone", t->topic.name);
    t->topic.gone = true;
    HASH_ITER (hh, w->partitions, p, next)
        if (memcmp(p->key.topic_id, t->id, sizeof t->id) == 0) {
            HASH_DEL(w->partitions, p);
            free(p);
        }
}

static int64_t retention_of(const struct image *i, struct slice name)
{
    struct slice v = image_config(i, IMAGE_TOPIC, name, "retention.ms");
    return slice_is_null(v) ? -1 : strtoll((const char *)v.data, NULL, 10);
}

static struct topic_seen *new_topic(struct metawatch *w, const struct image_topic *now)
{
    struct topic_seen *t = xcalloc(1, sizeof *t), *before;
    memcpy(t->id, now->id.b, sizeof t->id);
    t->topic.id = now->id;
    snprintf(t->topic.name, sizeof t->topic.name, SLICE_F, SLICE_A(now->name));
    HASH_ADD(hh, w->topics, id, sizeof t->id, t);
    HASH_FIND(by_name, w->topic_names, t->topic.name, strlen(t->topic.name), before);
    if (before != NULL)
        HASH_DELETE(by_name, w->topic_names, before);
    HASH_ADD_KEYPTR(by_name, w->topic_names, t->topic.name, strlen(t->topic.name), t);
    sim_note(w->sim, "topic %s is there", t->topic.name);
    return t;
}

static void on_topic(void *ctx, const struct image_topic *before, const struct image_topic *after)
{
    struct looking *l = ctx;
    struct metawatch *w = l->w;
    uint32_t owner = heap_enter(0);
    struct topic_seen *t = find_topic(w, after ? after->id : before->id);
    if (after == NULL && t != NULL) {
        gone(w, t);
    } else if (after != NULL) {
        if (t == NULL)
            t = new_topic(w, after);
        if (t->topic.gone)
            sim_fail(w->sim, "topic %s was deleted, and is there again", t->topic.name);
        if (after->partition_count < t->topic.partitions)
            sim_fail(w->sim, "topic %s had %d partitions, and has %d", t->topic.name, t->topic.partitions,
                     after->partition_count);
        t->topic.partitions = after->partition_count;
        t->topic.retention_ms = retention_of(l->now, after->name);
        t->sweep = w->sweep;
    }
    (void)heap_enter(owner);
    struct topic_looking partitions = {l, after};
    if (after != NULL && !l->all)
        image_diff_partitions(before, after, on_partition, &partitions);
}

static void on_config(void *ctx, enum image_resource type, struct slice name)
{
    struct looking *l = ctx;
    const struct image_topic *t = type == IMAGE_TOPIC ? image_topic_by_name(l->now, name) : NULL;
    struct topic_seen *known = t ? find_topic(l->w, t->id) : NULL;
    if (known != NULL)
        known->topic.retention_ms = retention_of(l->now, name);
}

/* ---- brokers and owners ---- */

static void on_broker(void *ctx, const struct image_broker *before, const struct image_broker *after)
{
    struct looking *l = ctx;
    struct metawatch *w = l->w;
    int32_t id = after ? after->id : before->id;
    if (id < 0 || id >= BROKERS_MAX)
        sim_fail(w->sim, "there is a broker %d", id);
    struct seen_broker *b = &w->brokers[id];
    l->all = true;
    if (after == NULL) {
        b->registered = false;
        return;
    }
    if (b->epoch > after->epoch)
        sim_fail(w->sim, "the epoch of broker %d goes from %" PRId64 " to %" PRId64, id, b->epoch, after->epoch);
    if (b->epoch == after->epoch && !uuid_eq(w->incarnations[id], after->incarnation))
        sim_fail(w->sim, "two lives of broker %d have the epoch %" PRId64, id, after->epoch);
    if (after->epoch > image_offset(l->now))
        sim_fail(w->sim, "broker %d has the epoch %" PRId64 ", which is not written yet", id, after->epoch);
    if (after->fenced != b->fenced || !b->registered) {
        sim_note(w->sim, "broker %d is %s", id, after->fenced ? "fenced" : "active");
        sim_cover(after->fenced ? "a broker was fenced" : "a broker became active");
    }
    *b = (struct seen_broker){.id = id, .epoch = after->epoch, .registered = true, .fenced = after->fenced};
    w->incarnations[id] = after->incarnation;
}

static void on_owner(void *ctx, const struct image_owner *before UNUSED, const struct image_owner *after)
{
    struct metawatch *w = ((struct looking *)ctx)->w;
    struct partition_key key;
    struct owner_seen *known;
    if (after == NULL)
        return;
    memset(&key, 0, sizeof key);
    memcpy(key.topic_id, after->topic_id.b, sizeof key.topic_id);
    key.partition = after->partition;
    uint32_t owner = heap_enter(0);
    HASH_FIND(hh, w->owners, &key, sizeof key, known);
    if (known == NULL) {
        known = xcalloc(1, sizeof *known);
        known->key = key;
        known->owner = *after;
        HASH_ADD(hh, w->owners, key, sizeof key, known);
    }
    (void)heap_enter(owner);
    const struct image_owner *o = &known->owner;
    bool same = o->role == after->role && o->id == after->id && o->incarnation == after->incarnation;
    if (after->coordinator_epoch < o->coordinator_epoch || (!same && after->coordinator_epoch == o->coordinator_epoch))
        sim_fail(w->sim, "coordinator partition %d goes from epoch %d to %d with another owner", after->partition,
                 o->coordinator_epoch, after->coordinator_epoch);
    known->owner = *after;
}

/* ---- an image ---- */

static void look_at_topic(void *ctx, const struct image_topic *t)
{
    for (int32_t i = 0; i < t->partition_count; i++)
        look_at_partition(ctx, t, image_partition(t, i));
}

void metawatch_rules(struct metawatch *w, const struct image *before, const struct image *now)
{
    struct looking l = {.w = w, .now = now, .all = before == NULL};
    struct image_diff d = {.topic = on_topic, .config = on_config, .broker = on_broker, .owner = on_owner, .ctx = &l};
    struct topic_seen *t, *next;
    w->sweep++;
    d.topic = NULL; /* brokers first: which partitions are looked at depends on them */
    __real_image_diff(before, now, &d);
    d = (struct image_diff){.topic = on_topic, .ctx = &l};
    __real_image_diff(before, now, &d);
    HASH_ITER (hh, w->topics, t, next)
        if (before == NULL && t->sweep != w->sweep && !t->topic.gone) {
            uint32_t owner = heap_enter(0);
            gone(w, t);
            (void)heap_enter(owner);
        }
    if (l.all)
        image_each_topic(now, look_at_topic, &l);
    if (image_next_producer_id(now) < w->next_producer_id)
        sim_fail(w->sim, "the next producer id goes from %" PRId64 " to %" PRId64, w->next_producer_id,
                 image_next_producer_id(now));
    w->next_producer_id = image_next_producer_id(now);
    struct kraft_voters voters = {0};
    if (!slice_is_null(image_voters(now)) && kraft_voters_decode(image_voters(now), &voters) != 0)
        sim_fail(w->sim, "the voters at offset %" PRId64 " cannot be read", image_offset(now));
    w->voters = voters.count;
}

#define FREE_ALL(type, head)                                                                                           \
    do {                                                                                                               \
        struct type *item, *next;                                                                                      \
        HASH_ITER (hh, head, item, next) {                                                                             \
            HASH_DEL(head, item);                                                                                      \
            free(item);                                                                                                \
        }                                                                                                              \
    } while (0)

void metawatch_rules_free(struct metawatch *w)
{
    HASH_CLEAR(by_name, w->topic_names);
    FREE_ALL(topic_seen, w->topics);
    FREE_ALL(partition_seen, w->partitions);
    FREE_ALL(leader_seen, w->leaders);
    FREE_ALL(owner_seen, w->owners);
}

/* ---- what others ask ---- */

const struct seen_topic *metawatch_topic(const struct metawatch *w, const char *name)
{
    struct topic_seen *t;
    HASH_FIND(by_name, w->topic_names, name, strlen(name), t);
    return t ? &t->topic : NULL;
}

const struct seen_broker *metawatch_broker(const struct metawatch *w, int32_t id)
{
    return &w->brokers[id];
}

bool metawatch_owns(const struct metawatch *w, const uint8_t topic_id[16], int32_t partition, int32_t role, int32_t id,
                    uint64_t incarnation)
{
    struct partition_key key;
    const struct owner_seen *o;
    memset(&key, 0, sizeof key);
    memcpy(key.topic_id, topic_id, sizeof key.topic_id);
    key.partition = partition;
    HASH_FIND(hh, w->owners, &key, sizeof key, o);
    return o != NULL && o->owner.role == role && o->owner.id == id && o->owner.incarnation == incarnation;
}

int metawatch_fenced(const struct metawatch *w)
{
    int count = 0;
    for (int i = 0; i < BROKERS_MAX; i++)
        count += w->brokers[i].registered && w->brokers[i].fenced;
    return count;
}

int metawatch_leaderless(const struct metawatch *w)
{
    int count = 0;
    for (const struct partition_seen *p = w->partitions; p != NULL; p = p->hh.next)
        count += p->partition.leader < 0;
    return count;
}

int metawatch_moving(const struct metawatch *w)
{
    int count = 0;
    for (const struct partition_seen *p = w->partitions; p != NULL; p = p->hh.next)
        count += p->partition.moving;
    return count;
}

int metawatch_lacking(const struct metawatch *w)
{
    int count = 0;
    for (const struct partition_seen *p = w->partitions; p != NULL; p = p->hh.next)
        count += p->partition.isr_count < p->partition.replica_count;
    return count;
}

int metawatch_thin(const struct metawatch *w)
{
    int count = 0;
    for (const struct partition_seen *p = w->partitions; p != NULL; p = p->hh.next)
        count += p->partition.isr_count < 2;
    return count;
}

const struct seen_partition *metawatch_partition(const struct metawatch *w, const char *topic, int32_t partition)
{
    struct topic_seen *t;
    struct partition_seen *p = NULL;
    struct partition_key key;
    HASH_FIND(by_name, w->topic_names, topic, strlen(topic), t);
    if (t == NULL)
        return NULL;
    memset(&key, 0, sizeof key);
    memcpy(key.topic_id, t->id, sizeof key.topic_id);
    key.partition = partition;
    HASH_FIND(hh, w->partitions, &key, sizeof key, p);
    return p ? &p->partition : NULL;
}

bool seen_partition_in_sync(const struct seen_partition *p, int32_t id)
{
    return has(p->isr, p->isr_count, id);
}

int metawatch_stuck(const struct metawatch *w)
{
    int count = 0;
    for (const struct partition_seen *p = w->partitions; p != NULL; p = p->hh.next)
        count += p->could_be_led;
    return count;
}

int metawatch_voters(const struct metawatch *w)
{
    return w->voters;
}

int64_t metawatch_next_producer_id(const struct metawatch *w)
{
    return w->next_producer_id;
}
