/* reassign.c - AlterPartitionReassignments (45). The checks, texts and states are those of Kafka 4.3.1.
 *
 *   replicas [1,2], wanted [2,3] -> replicas [2,3,1], adding [3], removing [1]
 *   -> 3 is in sync (AlterPartition, partition_change.c) -> replicas [2,3]
 *
 * A request while one is under way takes its place: who is to stay is not removed any more, and who was being added and
 * is not wanted any more goes. (Kafka 4.3.1 leaves a list of such a move as it was where the new one is empty, so that
 * [1,2] -> [2] -> [1,2] removes 1 all the same.)
 *
 * A new order of the same replicas, and fewer of them, need nobody to catch up: they end in the record that begins
 * them. A cancel takes away what was being added. Tools send a request also to move replicas between the directories of
 * a node, with the replicas as they are: that changes nothing. */
#include <stdlib.h>

#include "kafka/alter_partition_reassignments.h"
#include "libs/controller/internal.h"

typedef struct kafka_alter_partition_reassignments_request_reassignable_partition partition_request;
typedef struct kafka_alter_partition_reassignments_response_reassignable_topic_response topic_answer;
typedef struct kafka_alter_partition_reassignments_response_reassignable_partition_response partition_answer;

struct reassigning {
    struct controller *c;
    struct arena *arena;
    bool may_change_count;
};

static enum kafka_error refuse(const char **ret_message, const char *message, enum kafka_error error)
{
    *ret_message = message;
    return error;
}

static struct id_list replicas_of(const struct image_partition *p)
{
    return (struct id_list){p->replicas, p->replica_count};
}

static struct id_list adding_of(const struct image_partition *p)
{
    return (struct id_list){p->adding, p->adding_count};
}

static bool is_moving(const struct image_partition *p)
{
    return p->adding_count > 0 || p->removing_count > 0;
}

static int by_id(const void *a, const void *b)
{
    const int32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Sorted, as Kafka has them. */
static struct id_list difference(struct controller *c, struct id_list a, struct id_list b)
{
    struct id_list d = id_list_without(a, b, c->scratch);
    qsort((int32_t *)(uintptr_t)d.ids, (size_t)d.count, sizeof *d.ids, by_id);
    return d;
}

static struct id_list joined(struct controller *c, struct id_list a, struct id_list b)
{
    int32_t *ids = arena_alloc(c->scratch, (size_t)(a.count + b.count + 1) * sizeof *ids);
    memcpy(ids, a.ids, (size_t)a.count * sizeof *ids);
    memcpy(ids + a.count, b.ids, (size_t)b.count * sizeof *ids);
    return (struct id_list){ids, a.count + b.count};
}

static enum kafka_error check_count(const struct reassigning *k, const struct image_partition *p, int32_t wanted,
                                    const char **ret_message)
{
    int32_t now = p->replica_count - p->removing_count; /* those that stay, and those that come */
    if (k->may_change_count || now == wanted)
        return KERR_NONE;
    return refuse(ret_message, arena_printf(k->arena, "The replication factor is changed from %d to %d", now, wanted),
                  KERR_INVALID_REPLICATION_FACTOR);
}

static enum kafka_error begin(const struct reassigning *k, const struct image_topic *t, const struct image_partition *p,
                              const partition_request *q, const char **ret_message)
{
    struct controller *c = k->c;
    enum kafka_error error = controller_check_assignment(c, q->replicas, q->replicas_count, -1, k->arena, ret_message);
    if (error == KERR_NONE)
        error = check_count(k, p, q->replicas_count, ret_message);
    if (error != KERR_NONE)
        return error;
    struct id_list target = {q->replicas, q->replicas_count}, now = replicas_of(p);
    struct id_list removing = difference(c, now, target);
    struct id_list adding = difference(c, target, id_list_without(now, adding_of(p), c->scratch));
    struct id_list replicas = joined(c, target, removing);
    struct partition_change change = PARTITION_CHANGE;
    change.replicas = &replicas;
    change.removing = &removing;
    change.adding = &adding;
    controller_change_partition(c, t, p, &change, NULL);
    return KERR_NONE;
}

/* With all in sync among those that came, the first of those that were there before has to lead, and lost records. */
static enum kafka_error cancel(const struct reassigning *k, const struct image_topic *t,
                               const struct image_partition *p, const char **ret_message)
{
    struct controller *c = k->c;
    bool unclean_allowed = controller_is_unclean_allowed(c, t);
    if (!is_moving(p))
        return KERR_NO_REASSIGNMENT_IN_PROGRESS;
    struct id_list replicas = id_list_without(replicas_of(p), adding_of(p), c->scratch), none = {p->isr, 0};
    struct id_list isr = id_list_without((struct id_list){p->isr, p->isr_count}, adding_of(p), c->scratch);
    if (replicas.count == 0)
        return refuse(ret_message, "Invalid replica assignment: addingReplicas contains all replicas.",
                      KERR_INVALID_REPLICA_ASSIGNMENT);
    if (isr.count == 0 && !unclean_allowed)
        return refuse(ret_message,
                      arena_printf(k->arena,
                                   "Unable to revert partition assignment for " SLICE_F
                                   ":%d because it would require an unclean leader election.",
                                   SLICE_A(t->name), p->partition),
                      KERR_INVALID_REPLICA_ASSIGNMENT);
    if (isr.count == 0)
        isr = (struct id_list){replicas.ids, 1};
    struct partition_change change = PARTITION_CHANGE;
    change.isr = &isr;
    change.replicas = &replicas;
    change.adding = change.removing = &none;
    change.election = unclean_allowed ? ELECT_UNCLEAN : ELECT_ONLINE;
    controller_change_partition(c, t, p, &change, NULL);
    return KERR_NONE;
}

static enum kafka_error reassign(const struct reassigning *k, struct slice topic, const partition_request *q,
                                 const char **ret_message)
{
    const struct image_topic *t = image_topic_by_name(k->c->image, topic);
    if (t == NULL)
        return refuse(ret_message, arena_printf(k->arena, "Unable to find a topic named " SLICE_F ".", SLICE_A(topic)),
                      KERR_UNKNOWN_TOPIC_OR_PARTITION);
    const struct image_partition *p = image_partition(t, q->partition_index);
    if (p == NULL)
        return refuse(
            ret_message,
            arena_printf(k->arena, "Unable to find partition " SLICE_F ":%d.", SLICE_A(topic), q->partition_index),
            KERR_UNKNOWN_TOPIC_OR_PARTITION);
    return q->replicas_count < 0 ? cancel(k, t, p, ret_message) : begin(k, t, p, q, ret_message);
}

void controller_alter_reassignments(struct controller *c, const struct kafka_alter_partition_reassignments_request *q,
                                    struct arena *arena, struct kafka_alter_partition_reassignments_response *ret_p)
{
    struct reassigning k = {c, arena, q->allow_replication_factor_change};
    kafka_alter_partition_reassignments_response_init(ret_p);
    ret_p->error_message = q->topics_count > 0 ? SLICE_NULL : SLICE_EMPTY; /* as Kafka answers nothing */
    ret_p->allow_replication_factor_change = q->allow_replication_factor_change;
    ret_p->responses = arena_calloc(arena, (size_t)q->topics_count + 1, sizeof *ret_p->responses);
    ret_p->responses_count = q->topics_count;
    for (int32_t i = 0; i < q->topics_count; i++) {
        topic_answer *to = &ret_p->responses[i];
        wire_init(&kafka_alter_partition_reassignments_response_reassignable_topic_response_type, to);
        to->name = q->topics[i].name;
        to->partitions = arena_calloc(arena, (size_t)q->topics[i].partitions_count + 1, sizeof *to->partitions);
        to->partitions_count = q->topics[i].partitions_count;
        for (int32_t n = 0; n < to->partitions_count; n++) {
            partition_answer *row = &to->partitions[n];
            const char *message = NULL;
            wire_init(&kafka_alter_partition_reassignments_response_reassignable_partition_response_type, row);
            row->partition_index = q->topics[i].partitions[n].partition_index;
            row->error_code = (int16_t)reassign(&k, q->topics[i].name, &q->topics[i].partitions[n], &message);
            row->error_message = slice_str(message);
        }
    }
}
