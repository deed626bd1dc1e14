/* placement.c - on which brokers the partitions of a topic are, as Kafka's StripedReplicaPlacer places them.
 *
 * Racks are asked in turn, and each gives its brokers in turn, those that are active before those that are fenced. Each
 * partition starts one rack further than the one before, and each rack one broker further; both from a random start,
 * and in another order after as many partitions as brokers are active. So replicas are on as many racks as there are,
 * leaders spread evenly, and the partitions that one broker leads have their followers on different ones. The first
 * replica leads, and is active. A broker that is shutting down, or whose directories are all cordoned, gets none. */
#include <stdlib.h>

#include "kafka/partition_record.h"
#include "libs/controller/internal.h"

struct uuid controller_default_dir(const struct controller *c, int32_t broker)
{
    const struct image_broker *b = image_broker(c->image, broker);
    return b != NULL && b->log_dir_count == 1 ? b->log_dirs[0] : UUID_DIR_UNASSIGNED;
}

/* Only those that are active are in sync; the first of them leads. */
static bool put_partition(struct controller *c, struct uuid topic_id, int32_t partition, const int32_t *brokers,
                          int32_t count)
{
    int version = metadata_record_version(c->image, METARECORD_PARTITION);
    int32_t *isr = arena_alloc(c->scratch, ((size_t)count + 1) * sizeof *isr), isr_count = 0;
    struct uuid *directories = arena_alloc(c->scratch, ((size_t)count + 1) * sizeof *directories);
    for (int32_t i = 0; i < count; i++) {
        directories[i] = controller_default_dir(c, brokers[i]);
        if (image_broker_is_active(c->image, brokers[i]))
            isr[isr_count++] = brokers[i];
    }
    if (isr_count == 0)
        return false;
    struct image_partition p = {
        .partition = partition,
        .leader = isr[0],
        .replicas = brokers,
        .replica_count = count,
        .isr = isr,
        .isr_count = isr_count,
        .directories = directories,
    };
    struct kafka_partition_record m;
    metadata_partition(topic_id, &p, version, &m);
    return controller_put(c, METARECORD_PARTITION, version, &m);
}

enum kafka_error controller_place_at(struct controller *c, struct uuid topic_id, int32_t partition,
                                     const int32_t *brokers, int32_t count, struct arena *arena,
                                     const char **ret_message)
{
    if (put_partition(c, topic_id, partition, brokers, count))
        return KERR_NONE;
    *ret_message = arena_printf(arena,
                                "All brokers specified in the manual partition assignment for partition %d are fenced "
                                "or in controlled shutdown.",
                                partition);
    return KERR_INVALID_REPLICA_ASSIGNMENT;
}

enum kafka_error controller_check_assignment(const struct controller *c, const int32_t *brokers, int32_t count,
                                             int32_t expected, struct arena *arena, const char **ret_message)
{
    const char *message = NULL;
    if (count <= 0)
        message = "The manual partition assignment includes an empty replica list.";
    for (int32_t i = 0; i < count && message == NULL; i++) {
        if (image_broker(c->image, brokers[i]) == NULL)
            message = arena_printf(
                arena, "The manual partition assignment includes broker %d, but no such broker is registered.",
                brokers[i]);
        for (int32_t n = 0; n < i && message == NULL; n++)
            if (brokers[n] == brokers[i])
                message = arena_printf(arena, "The manual partition assignment includes the broker %d more than once.",
                                       brokers[i]);
    }
    if (message == NULL && expected >= 0 && count != expected)
        message =
            arena_printf(arena,
                         "The manual partition assignment includes a partition with %d replica(s), but this is not "
                         "consistent with previous partitions, which have %d replica(s).",
                         count, expected);
    *ret_message = message;
    return message == NULL ? KERR_NONE : KERR_INVALID_REPLICA_ASSIGNMENT;
}

/* ---- racks ---- */

/* Brokers of one kind in a rack, given out in turn. */
struct turn {
    int32_t *brokers;
    int32_t count, given, offset, round;
};

struct rack {
    struct slice name;
    struct turn active, fenced;
};

struct placer {
    struct controller *c;
    struct rack *racks;
    int32_t rack_count, brokers, active, offset, round;
};

static int32_t below(struct controller *c, int32_t n)
{
    return (int32_t)(controller_random(c) % (uint64_t)n);
}

static int32_t next_of(struct turn *t, int32_t round)
{
    if (t->count == 0)
        return -1;
    if (t->round != round) {
        t->round = round;
        t->given = 0;
        t->offset = (t->offset + 1) % t->count;
    }
    return t->given < t->count ? t->brokers[(t->given++ + t->offset) % t->count] : -1;
}

static struct rack *rack_of(struct placer *p, const struct image_broker *b, int32_t all)
{
    for (int32_t i = 0; i < p->rack_count; i++)
        if (slice_is_null(p->racks[i].name) == slice_is_null(b->rack) && slice_eq(p->racks[i].name, b->rack))
            return &p->racks[i];
    struct rack *r = &p->racks[p->rack_count++];
    *r = (struct rack){.name = b->rack};
    r->active.brokers = arena_calloc(p->c->scratch, (size_t)all, sizeof(int32_t));
    r->fenced.brokers = arena_calloc(p->c->scratch, (size_t)all, sizeof(int32_t));
    return r;
}

static int by_name(const void *a, const void *b)
{
    return slice_cmp(((const struct rack *)a)->name, ((const struct rack *)b)->name);
}

static bool is_usable(const struct image_broker *b)
{
    bool leaves = b->in_controlled_shutdown && !b->fenced;
    return !leaves && (b->log_dir_count == 0 || b->cordoned_log_dir_count < b->log_dir_count);
}

static void placer_init(struct placer *p, struct controller *c)
{
    int32_t all;
    const struct image_broker *const *brokers = image_brokers(c->image, &all); /* by id */
    *p = (struct placer){.c = c, .racks = arena_calloc(c->scratch, (size_t)all + 1, sizeof *p->racks)};
    for (int32_t i = 0; i < all; i++) {
        if (!is_usable(brokers[i]))
            continue;
        struct rack *r = rack_of(p, brokers[i], all);
        struct turn *t = brokers[i]->fenced ? &r->fenced : &r->active;
        t->brokers[t->count++] = brokers[i]->id;
        p->brokers++;
        p->active += !brokers[i]->fenced;
    }
    if (p->rack_count == 0)
        return;
    qsort(p->racks, (size_t)p->rack_count, sizeof *p->racks, by_name);
    for (int32_t i = 0; i < p->rack_count; i++) {
        struct rack *r = &p->racks[i];
        r->active.offset = r->active.count > 0 ? below(c, r->active.count) : 0;
        r->fenced.offset = r->fenced.count > 0 ? below(c, r->fenced.count) : 0;
    }
    p->offset = below(c, p->rack_count);
}

static void shuffle_turn(struct controller *c, struct turn *t)
{
    for (int32_t i = t->count - 1; i > 0; i--) {
        int32_t other = below(c, i + 1), id = t->brokers[i];
        t->brokers[i] = t->brokers[other];
        t->brokers[other] = id;
    }
}

static void shuffle(struct placer *p)
{
    for (int32_t i = p->rack_count - 1; i > 0; i--) {
        int32_t other = below(p->c, i + 1);
        struct rack r = p->racks[i];
        p->racks[i] = p->racks[other];
        p->racks[other] = r;
    }
    for (int32_t i = 0; i < p->rack_count; i++) {
        shuffle_turn(p->c, &p->racks[i].active);
        shuffle_turn(p->c, &p->racks[i].fenced);
    }
}

/* The rack of the leader, who is ret_replicas[0]. */
static int32_t place_leader(struct placer *p, int32_t *ret_replicas)
{
    for (int32_t i = 0; i < p->rack_count; i++) {
        int32_t at = (p->offset + i) % p->rack_count;
        ret_replicas[0] = next_of(&p->racks[at].active, p->round);
        if (ret_replicas[0] >= 0)
            return at;
    }
    BUG("no broker is active");
}

static void place_one(struct placer *p, int32_t *ret_replicas, int32_t count)
{
    if (p->round == p->active && p->active > 1) {
        shuffle(p);
        p->round = 0;
    }
    p->offset %= p->rack_count;
    int32_t leaders = place_leader(p, ret_replicas), at = p->offset;
    for (int32_t n = 1; n < count; at = (at + 1) % p->rack_count) {
        if (at == leaders) { /* it has had its turn */
            leaders = -1;
            continue;
        }
        struct rack *r = &p->racks[at];
        ret_replicas[n] = next_of(&r->active, p->round);
        if (ret_replicas[n] < 0)
            ret_replicas[n] = next_of(&r->fenced, p->round);
        n += ret_replicas[n] >= 0;
    }
    p->round++;
    p->offset++;
}

enum kafka_error controller_place(struct controller *c, struct uuid topic_id, int32_t first, int32_t count,
                                  int32_t replication_factor, struct arena *arena, const char **ret_message)
{
    struct placer p;
    placer_init(&p, c);
    if (p.active == 0) {
        *ret_message =
            arena_printf(arena, "All brokers are currently fenced, or have all their log directories cordoned.");
        return KERR_INVALID_REPLICATION_FACTOR;
    }
    if (replication_factor > p.brokers) {
        *ret_message = arena_printf(
            arena,
            "The target replication factor of %d cannot be reached because only %d broker(s) are registered "
            "or some brokers have all their log directories cordoned.",
            replication_factor, p.brokers);
        return KERR_INVALID_REPLICATION_FACTOR;
    }
    int32_t *replicas = arena_calloc(c->scratch, (size_t)replication_factor + 1, sizeof *replicas);
    for (int32_t i = 0; i < count; i++) {
        place_one(&p, replicas, replication_factor);
        if (!put_partition(c, topic_id, first + i, replicas, replication_factor))
            BUG("a placed partition has an active replica");
    }
    return KERR_NONE;
}
