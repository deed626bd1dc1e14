/* alter_partition.c - AlterPartition (56): the leader of a partition says who is in sync. The order of the checks is
 * that of Kafka 4.3's ReplicationControlManager.
 *
 * The ISR may only hold replicas whose life is the one that the leader saw (broker epochs, KIP-903), so that one that
 * came back without what it had is not counted as in sync. An ISR with all new replicas ends a reassignment; when that
 * takes the leader away, the record is made, and it is told NEW_LEADER_ELECTED. */
#include "kafka/alter_partition.h"

#include "libs/controller/internal.h"

enum { RECOVERED = 0, RECOVERING = 1 };

typedef struct kafka_alter_partition_request_partition_data partition_request;
typedef struct kafka_alter_partition_request_topic_data topic_request;
typedef struct kafka_alter_partition_response_partition_data partition_answer;
typedef struct kafka_alter_partition_response_topic_data topic_answer;

/* Has the sender seen what we know? One that knows more talks to a controller that leads no more. */
static enum kafka_error check_epochs(int32_t broker, const struct image_partition *p, const partition_request *q)
{
    if (q->leader_epoch > p->leader_epoch || q->partition_epoch > p->partition_epoch)
        return KERR_NOT_CONTROLLER;
    if (q->leader_epoch < p->leader_epoch)
        return KERR_FENCED_LEADER_EPOCH;
    if (broker != p->leader)
        return KERR_INVALID_REQUEST;
    return q->partition_epoch < p->partition_epoch ? KERR_INVALID_UPDATE_VERSION : KERR_NONE;
}

/* Replicas of the partition, each once, the leader among them. */
static bool is_possible(const struct image_partition *p, struct id_list isr)
{
    for (int32_t i = 0; i < isr.count; i++) {
        struct id_list before = {isr.ids, i};
        if (!id_list_has((struct id_list){p->replicas, p->replica_count}, isr.ids[i]) ||
            id_list_has(before, isr.ids[i]))
            return false;
    }
    return id_list_has(isr, p->leader);
}

static bool is_recovery_possible(const struct image_partition *p, const partition_request *q)
{
    switch (q->leader_recovery_state) {
    case RECOVERED: return true;
    case RECOVERING: return p->leader_recovery_state == RECOVERING && q->new_isr_with_epochs_count <= 1;
    default: return false;
    }
}

/* Those that may be in sync; an epoch of -1 is not looked at. One whose disk is full comes in when it has room. */
static bool are_eligible(const struct controller *c, const struct image_partition *p, const partition_request *q)
{
    for (int32_t i = 0; i < q->new_isr_with_epochs_count; i++) {
        int32_t id = q->new_isr_with_epochs[i].broker_id;
        int64_t epoch = q->new_isr_with_epochs[i].broker_epoch;
        const struct image_broker *b = image_broker(c->image, id);
        if (b == NULL || !image_broker_is_active(c->image, id) || (epoch != -1 && epoch != b->epoch))
            return false;
        if (!id_list_has((struct id_list){p->isr, p->isr_count}, id) && controller_is_replica_full(c, p, id))
            return false;
    }
    return true;
}

static enum kafka_error alter(struct controller *c, int32_t broker, const struct image_topic *t,
                              const partition_request *q, struct image_partition *ret_after)
{
    const struct image_partition *p = image_partition(t, q->partition_index);
    if (p == NULL)
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    enum kafka_error error = check_epochs(broker, p, q);
    if (error != KERR_NONE)
        return error;
    int32_t *ids = arena_alloc(c->scratch, ((size_t)q->new_isr_with_epochs_count + 1) * sizeof *ids);
    struct id_list isr = {ids, q->new_isr_with_epochs_count};
    for (int32_t i = 0; i < isr.count; i++)
        ids[i] = q->new_isr_with_epochs[i].broker_id;
    if (!is_possible(p, isr) || !is_recovery_possible(p, q))
        return KERR_INVALID_REQUEST;
    if (!are_eligible(c, p, q))
        return KERR_INELIGIBLE_REPLICA;
    struct partition_change change = PARTITION_CHANGE;
    change.isr = &isr;
    change.recovery = q->leader_recovery_state;
    change.election = controller_is_unclean_allowed(c, t) ? ELECT_UNCLEAN : ELECT_ONLINE;
    controller_change_partition(c, t, p, &change, ret_after);
    return ret_after->leader == broker ? KERR_NONE : KERR_NEW_LEADER_ELECTED;
}

static void answer_partition(struct controller *c, int32_t broker, const struct image_topic *t,
                             const partition_request *q, struct arena *arena, partition_answer *to)
{
    struct image_partition after;
    kafka_alter_partition_response_partition_data_init(to);
    to->partition_index = q->partition_index;
    enum kafka_error error = t == NULL ? KERR_UNKNOWN_TOPIC_ID : alter(c, broker, t, q, &after);
    to->error_code = (int16_t)error;
    if (error != KERR_NONE)
        return;
    to->leader_id = after.leader;
    to->leader_epoch = after.leader_epoch;
    to->leader_recovery_state = after.leader_recovery_state;
    to->partition_epoch = after.partition_epoch;
    to->isr = arena_alloc(arena, ((size_t)after.isr_count + 1) * sizeof *to->isr);
    to->isr_count = after.isr_count;
    memcpy(to->isr, after.isr, (size_t)after.isr_count * sizeof *to->isr);
}

void controller_alter_partition(struct controller *c, const struct kafka_alter_partition_request *q,
                                struct arena *arena, struct kafka_alter_partition_response *ret_p)
{
    const struct image_broker *b = image_broker(c->image, q->broker_id);
    kafka_alter_partition_response_init(ret_p);
    if (b == NULL || b->epoch != q->broker_epoch) {
        ret_p->error_code = KERR_STALE_BROKER_EPOCH;
        return;
    }
    ret_p->topics = arena_calloc(arena, (size_t)q->topics_count + 1, sizeof *ret_p->topics);
    ret_p->topics_count = q->topics_count;
    for (int32_t i = 0; i < q->topics_count; i++) {
        const topic_request *from = &q->topics[i];
        topic_answer *to = &ret_p->topics[i];
        kafka_alter_partition_response_topic_data_init(to);
        to->topic_id = from->topic_id;
        to->partitions = arena_calloc(arena, (size_t)from->partitions_count + 1, sizeof *to->partitions);
        to->partitions_count = from->partitions_count;
        const struct image_topic *t = image_topic_by_id(c->image, from->topic_id);
        for (int32_t n = 0; n < from->partitions_count; n++)
            answer_partition(c, q->broker_id, t, &from->partitions[n], arena, &to->partitions[n]);
    }
}
