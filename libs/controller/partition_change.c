/* partition_change.c - what becomes of a partition when a broker comes or goes, its leader asks for another ISR, a
 * leader is elected or its replicas move: the rules of Kafka 4.3's PartitionChangeBuilder, in its order.
 *
 *   1. A reassignment whose new replicas are all in sync ends: those that are being removed go, also from the ISR.
 *   2. While the ISR is smaller than min.insync.replicas, those who leave it become eligible to lead (ELR, KIP-966),
 *      unless they lost what they had.
 *   3. A leader that is in the ISR and active stays, unless the preferred one is asked for. Else the first active
 *      replica of the ISR, or of the ELR when the ISR is empty; else, with both empty, the last known leader; else, if
 *      an unclean election is allowed, any that is active. The last two lost records perhaps, and recover (the ISR is
 *      them alone). Else nobody: -1.
 *   4. Each change of leader, to nobody too, adds one to the leader epoch, and so does the end of a replica.
 *
 * Whoever applies the record adds to the epochs (libs/metadata/image_replay_topics.c). */
#include <stdlib.h>

#include "kafka/partition_change_record.h"
#include "libs/controller/internal.h"

enum { NO_LEADER = -1, NO_LEADER_CHANGE = -2, RECOVERED = 0, RECOVERING = 1 };
enum { METADATA_VERSION_NO_SHRINK_BUMP = 12 }; /* 3.6-IV0: before, brokers counted on a new epoch (KAFKA-15021) */

struct building {
    const struct controller *c;
    const struct partition_change *change;
    const struct image_partition *p;
    bool elr_enabled;
    int32_t min_isr;
    struct id_list isr, elr, replicas, adding, removing;
    struct kafka_partition_change_record *m;
};

bool id_list_has(struct id_list list, int32_t id)
{
    for (int32_t i = 0; i < list.count; i++)
        if (list.ids[i] == id)
            return true;
    return false;
}

static bool has_all(struct id_list list, struct id_list wanted)
{
    for (int32_t i = 0; i < wanted.count; i++)
        if (!id_list_has(list, wanted.ids[i]))
            return false;
    return true;
}

static bool same(struct id_list a, struct id_list b)
{
    return a.count == b.count && (a.count == 0 || memcmp(a.ids, b.ids, (size_t)a.count * sizeof *a.ids) == 0);
}

struct id_list id_list_without(struct id_list list, struct id_list gone, struct arena *arena)
{
    int32_t *ids = arena_alloc(arena, ((size_t)list.count + 1) * sizeof *ids), count = 0;
    for (int32_t i = 0; i < list.count; i++)
        if (!id_list_has(gone, list.ids[i]))
            ids[count++] = list.ids[i];
    return (struct id_list){ids, count};
}

static struct id_list only(const struct building *b, int32_t id)
{
    int32_t *ids = arena_alloc(b->c->scratch, sizeof *ids);
    ids[0] = id;
    return (struct id_list){ids, 1};
}

static struct id_list isr_of(const struct image_partition *p)
{
    return (struct id_list){p->isr, p->isr_count};
}

static struct id_list replicas_of(const struct image_partition *p)
{
    return (struct id_list){p->replicas, p->replica_count};
}

/* The wire engine's arrays are writable; encoding only reads them. */
static int32_t *unconst(const int32_t *ids)
{
    static int32_t none;
    return ids != NULL ? (int32_t *)(uintptr_t)ids : &none;
}

/* ---- what is wanted ---- */

static struct id_list wanted(const struct id_list *list, const int32_t *now, int32_t count)
{
    return list != NULL ? *list : (struct id_list){now, count};
}

static void start(struct building *b)
{
    const struct partition_change *change = b->change;
    const struct image_partition *p = b->p;
    b->isr = id_list_without(wanted(change->isr, p->isr, p->isr_count), (struct id_list){&change->leaving, 1},
                             b->c->scratch);
    b->replicas = wanted(change->replicas, p->replicas, p->replica_count);
    b->adding = wanted(change->adding, p->adding, p->adding_count);
    b->removing = wanted(change->removing, p->removing, p->removing_count);
    b->elr = (struct id_list){p->elr, p->elr_count};
}

/* Nothing ends while no replica that stays is in sync. */
static void complete_reassignment(struct building *b)
{
    if (b->adding.count == 0 && b->removing.count == 0)
        return;
    struct id_list isr = id_list_without(b->isr, b->removing, b->c->scratch);
    struct id_list replicas = id_list_without(b->replicas, b->removing, b->c->scratch);
    if ((b->removing.count > 0 && (isr.count == 0 || replicas.count == 0)) || !has_all(isr, replicas))
        return;
    b->isr = isr;
    b->replicas = replicas;
    b->adding.count = b->removing.count = 0;
}

static int by_id(const void *a, const void *b)
{
    const int32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void add_eligible(struct building *b, int32_t *ids, int32_t *count, int32_t id)
{
    bool lost = b->change->unclean && id == b->change->leaving;
    bool stays = id_list_has(b->replicas, id); /* of a replica that a reassignment took away Kafka keeps the id */
    if (!lost && stays && !id_list_has(b->isr, id) && !id_list_has((struct id_list){ids, *count}, id))
        ids[(*count)++] = id;
}

static void find_elr(struct building *b)
{
    const struct image_partition *p = b->p;
    int32_t *ids = arena_alloc(b->c->scratch, (size_t)(p->elr_count + p->isr_count + 1) * sizeof *ids), count = 0;
    if (!b->elr_enabled)
        return;
    for (int32_t i = 0; b->isr.count < b->min_isr && i < p->elr_count; i++)
        add_eligible(b, ids, &count, p->elr[i]);
    for (int32_t i = 0; b->isr.count < b->min_isr && i < p->isr_count; i++)
        add_eligible(b, ids, &count, p->isr[i]);
    qsort(ids, (size_t)count, sizeof *ids, by_id);
    b->elr = (struct id_list){ids, count};
}

/* ---- elections ---- */

static bool is_acceptable(const struct building *b, int32_t id)
{
    if (id == b->change->leaving)
        return false;
    const struct image_broker *broker = image_broker(b->c->image, id);
    const struct replica_move *move = b->change->move;
    struct uuid dir = move != NULL && move->broker == id ? move->to : image_replica_dir(b->p, id);
    if (broker == NULL || !image_dir_is_online(broker, dir))
        return false;
    return id == b->change->coming_back || image_broker_is_active(b->c->image, id);
}

static bool is_valid(const struct building *b, int32_t id)
{
    bool knows_all = id_list_has(b->isr, id) || (b->elr_enabled && b->isr.count == 0 && id_list_has(b->elr, id));
    return knows_all && is_acceptable(b, id);
}

static int32_t clean_leader(const struct building *b)
{
    if (b->change->election == ELECT_PREFERRED && b->replicas.count > 0 && is_valid(b, b->replicas.ids[0]))
        return b->replicas.ids[0];
    if (is_valid(b, b->p->leader))
        return b->p->leader;
    for (int32_t i = 0; i < b->replicas.count; i++)
        if (is_valid(b, b->replicas.ids[i]))
            return b->replicas.ids[i];
    return NO_LEADER;
}

static int32_t unclean_leader(const struct building *b)
{
    const struct image_partition *p = b->p;
    bool nothing_left = b->elr_enabled && b->isr.count == 0 && b->elr.count == 0;
    if (nothing_left && p->last_known_elr_count == 1 && is_acceptable(b, p->last_known_elr[0]))
        return p->last_known_elr[0];
    for (int32_t i = 0; b->change->election == ELECT_UNCLEAN && i < b->replicas.count; i++)
        if (is_acceptable(b, b->replicas.ids[i]))
            return b->replicas.ids[i];
    return NO_LEADER;
}

static void set_isr(struct building *b, struct id_list isr)
{
    b->m->isr = unconst(isr.ids);
    b->m->isr_count = isr.count;
}

static void elect(struct building *b)
{
    bool unclean = false;
    int32_t leader = clean_leader(b);
    if (leader == NO_LEADER) {
        leader = unclean_leader(b);
        unclean = leader != NO_LEADER;
    }
    if (leader == b->p->leader)
        return;
    b->m->leader = leader;
    if (unclean) {
        set_isr(b, only(b, leader));
        b->elr.count = 0;
        if (b->p->leader_recovery_state != RECOVERING)
            b->m->leader_recovery_state = RECOVERING;
    } else if (id_list_has(b->elr, leader)) {
        b->isr = only(b, leader);
        b->elr = id_list_without(b->elr, b->isr, b->c->scratch);
    }
}

/* ---- the record ---- */

/* Who led goes on in a new epoch, so that a replica that ends does not meet an old one. */
static void bump_epoch(struct building *b)
{
    bool old_rules = image_feature_level(b->c->image, "metadata.version") < METADATA_VERSION_NO_SHRINK_BUMP;
    struct id_list isr = {b->m->isr, b->m->isr_count};
    if (b->m->leader != NO_LEADER_CHANGE)
        return;
    if (!has_all(b->replicas, replicas_of(b->p)) || (old_rules && isr.count >= 0 && !has_all(isr, isr_of(b->p))))
        b->m->leader = b->p->leader;
}

static void fill_isr(struct building *b)
{
    const struct image_partition *p = b->p;
    if (!b->elr_enabled)
        b->elr.count = 0;
    if (!same(b->elr, (struct id_list){p->elr, p->elr_count})) {
        b->m->eligible_leader_replicas = unconst(b->elr.ids);
        b->m->eligible_leader_replicas_count = b->elr.count;
    }
    /* Without the ELR the last one stays in the ISR, so that it can be elected again. */
    if (b->m->isr_count < 0 && (b->isr.count > 0 || b->elr_enabled) && !same(b->isr, isr_of(p)))
        set_isr(b, b->isr);
}

/* The last known leader is noted when a partition becomes leaderless, and forgotten when it has one again. */
static void fill_last_known(struct building *b)
{
    const struct image_partition *p = b->p;
    struct kafka_partition_change_record *m = b->m;
    int32_t leader = m->leader == NO_LEADER_CHANGE ? p->leader : m->leader;
    if (!b->elr_enabled)
        return;
    if (m->isr_count == 0 && p->leader >= 0 && !(p->last_known_elr_count == 1 && p->last_known_elr[0] == p->leader)) {
        m->last_known_elr = unconst(&p->leader);
        m->last_known_elr_count = 1;
    } else if (leader >= 0 && p->last_known_elr_count > 0) {
        m->last_known_elr = unconst(NULL);
        m->last_known_elr_count = 0;
    }
}

/* The directories of all replicas are told when one of them changes. */
static void fill_directories(struct building *b)
{
    const struct replica_move *move = b->change->move;
    const struct image_partition *p = b->p;
    struct uuid *dirs = arena_calloc(b->c->scratch, (size_t)b->replicas.count + 1, sizeof *dirs);
    bool changed = b->replicas.count != p->replica_count;
    if (b->replicas.count == 0 || image_feature_level(b->c->image, "metadata.version") < METADATA_VERSION_DIRECTORIES)
        return;
    for (int32_t i = 0; i < b->replicas.count; i++) {
        int32_t id = b->replicas.ids[i];
        bool moved = move != NULL && move->broker == id, known = id_list_has(replicas_of(p), id);
        dirs[i] = moved ? move->to : known ? image_replica_dir(p, id) : controller_default_dir(b->c, id);
        changed = changed || !uuid_eq(dirs[i], p->directories[i]);
    }
    if (!changed)
        return;
    b->m->directories = dirs;
    b->m->directories_count = b->replicas.count;
}

static void fill_replicas(struct building *b)
{
    const struct image_partition *p = b->p;
    fill_directories(b);
    if (b->replicas.count > 0 && !same(b->replicas, replicas_of(p))) {
        b->m->replicas = unconst(b->replicas.ids);
        b->m->replicas_count = b->replicas.count;
    }
    if (!same(b->removing, (struct id_list){p->removing, p->removing_count})) {
        b->m->removing_replicas = unconst(b->removing.ids);
        b->m->removing_replicas_count = b->removing.count;
    }
    if (!same(b->adding, (struct id_list){p->adding, p->adding_count})) {
        b->m->adding_replicas = unconst(b->adding.ids);
        b->m->adding_replicas_count = b->adding.count;
    }
}

static bool says_something(const struct kafka_partition_change_record *m)
{
    return m->isr_count >= 0 || m->leader != NO_LEADER_CHANGE || m->eligible_leader_replicas_count >= 0 ||
           m->leader_recovery_state >= 0 || m->last_known_elr_count >= 0 || m->directories_count >= 0 ||
           m->replicas_count >= 0 || m->removing_replicas_count >= 0 || m->adding_replicas_count >= 0;
}

static void tell_after(const struct building *b, struct image_partition *after)
{
    const struct kafka_partition_change_record *m = b->m;
    after->partition_epoch++;
    if (m->leader != NO_LEADER_CHANGE) {
        after->leader = m->leader;
        after->leader_epoch++;
    }
    if (m->isr_count >= 0) {
        after->isr = m->isr;
        after->isr_count = m->isr_count;
    }
    if (m->leader_recovery_state >= 0)
        after->leader_recovery_state = m->leader_recovery_state;
}

bool controller_change_partition(struct controller *c, const struct image_topic *t, const struct image_partition *p,
                                 const struct partition_change *change, struct image_partition *ret_after)
{
    struct kafka_partition_change_record m;
    struct building b = {
        .c = c,
        .change = change,
        .p = p,
        .elr_enabled = controller_elr_enabled(c),
        .min_isr = change->min_isr > 0 ? change->min_isr : controller_min_isr(c, t),
        .m = &m,
    };
    kafka_partition_change_record_init(&m);
    m.topic_id = t->id;
    m.partition_id = p->partition;
    start(&b);
    complete_reassignment(&b);
    find_elr(&b);
    elect(&b);
    fill_isr(&b);
    bump_epoch(&b);
    fill_last_known(&b);
    fill_replicas(&b);
    if (change->recovery >= 0 && change->recovery != p->leader_recovery_state)
        m.leader_recovery_state = change->recovery;
    if (ret_after != NULL)
        *ret_after = *p;
    if (!says_something(&m))
        return false;
    if (ret_after != NULL)
        tell_after(&b, ret_after);
    controller_put(c, METARECORD_PARTITION_CHANGE, metadata_record_version(c->image, METARECORD_PARTITION_CHANGE), &m);
    return true;
}

/* ---- all partitions of a broker ---- */

static bool concerns(const struct image_partition *p, const struct partition_change *change)
{
    int32_t id = change->leaving >= 0 ? change->leaving : change->coming_back;
    if (change->leaving_dir != NULL && !uuid_eq(image_replica_dir(p, id), *change->leaving_dir))
        return false;
    if (change->leaving >= 0)
        return p->leader == id || id_list_has(isr_of(p), id) ||
               ((change->unclean || change->for_good) && id_list_has((struct id_list){p->elr, p->elr_count}, id));
    return p->leader == NO_LEADER && id_list_has(replicas_of(p), id);
}

/* Somebody in its place: in sync, active, and with room. */
static bool has_other(const struct controller *c, const struct image_partition *p, int32_t broker)
{
    for (int32_t i = 0; i < p->isr_count; i++)
        if (p->isr[i] != broker && image_replica_is_online(c->image, p, p->isr[i]) &&
            !controller_is_replica_full(c, p, p->isr[i]))
            return true;
    return false;
}

void controller_change_all(struct controller *c, const struct partition_change *change)
{
    int32_t count;
    const struct image_topic *const *topics = image_topics(c->image, &count);
    for (int32_t i = 0; i < count; i++) {
        struct partition_change of_topic = *change;
        for (int32_t n = 0; n < topics[i]->partition_count; n++) {
            const struct image_partition *p = image_partition(topics[i], n);
            if (!concerns(p, change) || (change->gives_way && !has_other(c, p, change->leaving)))
                continue;
            if (of_topic.min_isr == 0) {
                of_topic.min_isr = controller_min_isr(c, topics[i]);
                of_topic.election = controller_is_unclean_allowed(c, topics[i]) ? ELECT_UNCLEAN : change->election;
            }
            controller_change_partition(c, topics[i], p, &of_topic, NULL);
        }
    }
}
