/* partition_change.c - who leads a partition and who is in sync when a broker comes or goes: the rules of Kafka 4.3's
 * PartitionChangeBuilder, for what this release lets happen (no reassignment, no unclean election by request).
 *
 *   - A leader that is in the ISR and active stays. Else the first active replica of the ISR, then of the eligible
 * leader replicas (ELR, KIP-966), becomes it; else, with both empty, the last known leader, which then recovers; else
 * nobody: -1.
 *   - While the ISR is smaller than min.insync.replicas, those who leave it become eligible, unless they lost what they
 * had.
 *   - Each change of leader, to nobody too, adds one to the leader epoch (done by whoever applies the record). */
#include "kafka/partition_change_record.h"
#include "libs/controller/internal.h"

enum { NO_LEADER = -1, NO_LEADER_CHANGE = -2, RECOVERED = 0, RECOVERING = 1 };

struct building {
    const struct controller *c;
    const struct partition_change *change;
    const struct image_partition *p;
    bool elr_enabled;
    int32_t *isr, *elr;
    int32_t isr_count, elr_count, leader;
    bool unclean_election;
};

static bool has(const int32_t *list, int32_t count, int32_t id)
{
    for (int32_t i = 0; i < count; i++)
        if (list[i] == id)
            return true;
    return false;
}

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

static int32_t first_acceptable(const struct building *b, const int32_t *list, int32_t count)
{
    for (int32_t i = 0; i < b->p->replica_count; i++)
        if (has(list, count, b->p->replicas[i]) && is_acceptable(b, b->p->replicas[i]))
            return b->p->replicas[i];
    return NO_LEADER;
}

/* Elects from what is in sync before this change takes its effect on the ELR. */
static void elect(struct building *b)
{
    const struct image_partition *p = b->p;
    if (has(b->isr, b->isr_count, p->leader) && is_acceptable(b, p->leader)) {
        b->leader = p->leader;
        return;
    }
    b->leader = first_acceptable(b, b->isr, b->isr_count);
    if (b->leader == NO_LEADER && b->elr_enabled)
        b->leader = first_acceptable(b, b->elr, b->elr_count);
    bool nothing_left = b->isr_count == 0 && b->elr_count == 0 && b->elr_enabled;
    if (b->leader == NO_LEADER && nothing_left && p->last_known_elr_count == 1 &&
        is_acceptable(b, p->last_known_elr[0])) {
        b->leader = p->last_known_elr[0];
        b->unclean_election = true;
    }
    if (b->leader != NO_LEADER && !has(b->isr, b->isr_count, b->leader)) {
        b->isr[0] = b->leader;
        b->isr_count = 1;
    }
}

static void shrink_isr(struct building *b)
{
    for (int32_t i = 0; i < b->p->isr_count; i++)
        if (b->p->isr[i] != b->change->leaving)
            b->isr[b->isr_count++] = b->p->isr[i];
    /* Without the ELR the last one stays in the ISR, so that it can be elected again. */
    if (b->isr_count == 0 && !b->elr_enabled && b->p->isr_count > 0)
        for (int32_t i = 0; i < b->p->isr_count; i++)
            b->isr[b->isr_count++] = b->p->isr[i];
}

static void add_eligible(struct building *b, int32_t id)
{
    bool lost = b->change->unclean && id == b->change->leaving;
    if (!lost && !has(b->elr, b->elr_count, id))
        b->elr[b->elr_count++] = id;
}

static void start_elr(struct building *b)
{
    for (int32_t i = 0; i < b->p->elr_count; i++)
        add_eligible(b, b->p->elr[i]);
}

/* The ELR once the ISR is known. */
static void finish_elr(struct building *b, int32_t min_isr)
{
    b->elr_count = 0;
    if (!b->elr_enabled || b->isr_count >= MIN(min_isr, b->p->replica_count))
        return;
    start_elr(b);
    for (int32_t i = 0; i < b->p->isr_count; i++)
        add_eligible(b, b->p->isr[i]);
    int32_t kept = 0;
    for (int32_t i = 0; i < b->elr_count; i++)
        if (!has(b->isr, b->isr_count, b->elr[i]))
            b->elr[kept++] = b->elr[i];
    b->elr_count = kept;
}

static bool same(const int32_t *a, int32_t a_count, const int32_t *b, int32_t b_count)
{
    return a_count == b_count && (a_count == 0 || memcmp(a, b, (size_t)a_count * sizeof *a) == 0);
}

/* The last known leader is noted when a partition becomes leaderless, and forgotten when it has one again. */
static void fill_last_known(const struct building *b, struct kafka_partition_change_record *m)
{
    const struct image_partition *p = b->p;
    if (!b->elr_enabled)
        return;
    if (m->isr_count == 0 && p->leader >= 0 && !(p->last_known_elr_count == 1 && p->last_known_elr[0] == p->leader)) {
        m->last_known_elr = (int32_t *)(uintptr_t)&p->leader;
        m->last_known_elr_count = 1;
    } else if (b->leader >= 0 && p->last_known_elr_count > 0) {
        m->last_known_elr_count = 0;
    }
}

/* The directories of all replicas are told when one of them changes. */
static void fill_directories(const struct building *b, struct kafka_partition_change_record *m)
{
    const struct replica_move *move = b->change->move;
    const struct image_partition *p = b->p;
    if (move == NULL || uuid_eq(image_replica_dir(p, move->broker), move->to) ||
        image_feature_level(b->c->image, "metadata.version") < METADATA_VERSION_DIRECTORIES)
        return;
    m->directories = arena_calloc(b->c->scratch, (size_t)p->replica_count, sizeof *m->directories);
    m->directories_count = p->replica_count;
    for (int32_t i = 0; i < p->replica_count; i++)
        m->directories[i] = p->replicas[i] == move->broker ? move->to : p->directories[i];
}

static bool fill_record(const struct building *b, struct kafka_partition_change_record *m)
{
    const struct image_partition *p = b->p;
    fill_directories(b, m);
    if (!same(b->isr, b->isr_count, p->isr, p->isr_count)) {
        m->isr = b->isr;
        m->isr_count = b->isr_count;
    }
    if (b->leader != p->leader)
        m->leader = b->leader;
    if (!same(b->elr, b->elr_count, p->elr, p->elr_count)) {
        m->eligible_leader_replicas = b->elr;
        m->eligible_leader_replicas_count = b->elr_count;
    }
    if (b->unclean_election && p->leader_recovery_state == RECOVERED)
        m->leader_recovery_state = RECOVERING;
    fill_last_known(b, m);
    return m->isr_count >= 0 || m->leader != NO_LEADER_CHANGE || m->eligible_leader_replicas_count >= 0 ||
           m->leader_recovery_state >= 0 || m->last_known_elr_count >= 0 || m->directories_count >= 0;
}

void controller_change_partition(struct controller *c, const struct image_topic *t, const struct image_partition *p,
                                 const struct partition_change *change)
{
    size_t room = (size_t)(p->replica_count + p->isr_count + p->elr_count + 1);
    struct building b = {
        .c = c,
        .change = change,
        .p = p,
        .elr_enabled = controller_elr_enabled(c),
        .isr = arena_calloc(c->scratch, room, sizeof(int32_t)),
        .elr = arena_calloc(c->scratch, room, sizeof(int32_t)),
    };
    shrink_isr(&b);
    start_elr(&b);
    elect(&b);
    finish_elr(&b, controller_min_isr(c, t, p));
    struct kafka_partition_change_record m;
    kafka_partition_change_record_init(&m);
    m.topic_id = t->id;
    m.partition_id = p->partition;
    if (fill_record(&b, &m))
        controller_put(c, METARECORD_PARTITION_CHANGE, metadata_record_version(c->image, METARECORD_PARTITION_CHANGE),
                       &m);
}

static bool concerns(const struct image_partition *p, const struct partition_change *change)
{
    int32_t id = change->leaving >= 0 ? change->leaving : change->coming_back;
    if (change->leaving_dir != NULL && !uuid_eq(image_replica_dir(p, id), *change->leaving_dir))
        return false;
    if (change->leaving >= 0)
        return p->leader == id || has(p->isr, p->isr_count, id) || (change->unclean && has(p->elr, p->elr_count, id));
    return p->leader == NO_LEADER && has(p->replicas, p->replica_count, id);
}

void controller_change_all(struct controller *c, const struct partition_change *change)
{
    int32_t count;
    const struct image_topic *const *topics = image_topics(c->image, &count);
    for (int32_t i = 0; i < count; i++)
        for (int32_t n = 0; n < topics[i]->partition_count; n++) {
            const struct image_partition *p = image_partition(topics[i], n);
            if (concerns(p, change))
                controller_change_partition(c, topics[i], p, change);
        }
}
