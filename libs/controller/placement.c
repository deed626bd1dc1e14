/* placement.c - on which brokers the partitions of a topic are.
 *
 * Brokers stand in a ring, racks in turn, those that are alive before those that are fenced. Partition i takes a run of
 * the ring that starts one further than that of partition i - 1, from a random start; leaders are so spread evenly and
 * replicas over as many racks as there are. */
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

/* ---- the ring ---- */

static bool is_usable(const struct image_broker *b)
{
    return b->log_dir_count == 0 || b->cordoned_log_dir_count < b->log_dir_count;
}

static bool is_alive(const struct image_broker *b)
{
    return !b->fenced && !b->in_controlled_shutdown;
}

/* Appends the brokers of one kind to the ring: round after round, one of each rack. */
static int32_t add_to_ring(struct controller *c, const struct image_broker *const *all, int32_t count, bool alive,
                           int32_t *ring, int32_t size)
{
    bool *taken = arena_calloc(c->scratch, (size_t)count + 1, sizeof *taken);
    for (bool more = true; more;) {
        more = false;
        int32_t round = size;
        for (int32_t i = 0; i < count; i++) {
            bool rack_used = false;
            if (taken[i] || is_alive(all[i]) != alive || !is_usable(all[i]))
                continue;
            for (int32_t n = round; n < size; n++)
                rack_used = rack_used || slice_eq(image_broker(c->image, ring[n])->rack, all[i]->rack);
            more = true;
            if (rack_used && !slice_is_null(all[i]->rack))
                continue;
            taken[i] = true;
            ring[size++] = all[i]->id;
        }
    }
    return size;
}

enum kafka_error controller_place(struct controller *c, struct uuid topic_id, int32_t first, int32_t count,
                                  int32_t replication_factor, struct arena *arena, const char **ret_message)
{
    int32_t brokers;
    const struct image_broker *const *all = image_brokers(c->image, &brokers);
    int32_t *ring = arena_calloc(c->scratch, (size_t)brokers + 1, sizeof *ring);
    int32_t alive = add_to_ring(c, all, brokers, true, ring, 0),
            size = add_to_ring(c, all, brokers, false, ring, alive);
    if (alive == 0) {
        *ret_message =
            arena_printf(arena, "All brokers are currently fenced, or have all their log directories cordoned.");
        return KERR_INVALID_REPLICATION_FACTOR;
    }
    if (replication_factor > size) {
        *ret_message = arena_printf(
            arena,
            "The target replication factor of %d cannot be reached because only %d broker(s) are registered "
            "or some brokers have all their log directories cordoned.",
            replication_factor, size);
        return KERR_INVALID_REPLICATION_FACTOR;
    }
    int32_t *replicas = arena_calloc(c->scratch, (size_t)replication_factor + 1, sizeof *replicas);
    uint64_t start = controller_random(c) % (uint64_t)alive;
    for (int32_t i = 0; i < count; i++) {
        uint64_t at = start + (uint64_t)i;
        for (int32_t n = 0; n < replication_factor; n++) /* first around those alive, then the fenced ones */
            replicas[n] = n < alive ? ring[(at + (uint64_t)n) % (uint64_t)alive] : ring[n];
        if (!put_partition(c, topic_id, first + i, replicas, replication_factor))
            BUG("a placed partition has an active replica");
    }
    return KERR_NONE;
}
