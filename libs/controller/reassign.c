/* reassign.c - AlterPartitionReassignments (45). The checks and texts are those of Kafka 4.3.1. Tools send it also to
 * move replicas between the directories of a node, with the replicas as they are: that changes nothing. A new order of
 * the same replicas is done at once. Records are not copied from node to node yet: other replicas are refused. */
#include "kafka/alter_partition_reassignments.h"
#include "kafka/partition_change_record.h"
#include "libs/controller/internal.h"

typedef struct kafka_alter_partition_reassignments_request_reassignable_partition partition_request;
typedef struct kafka_alter_partition_reassignments_response_reassignable_topic_response topic_answer;
typedef struct kafka_alter_partition_reassignments_response_reassignable_partition_response partition_answer;

static enum kafka_error refuse(const char **ret_message, const char *message, enum kafka_error error)
{
    *ret_message = message;
    return error;
}

/* Both lists are without repetitions and of one length. */
static bool is_order_of(const int32_t *a, const int32_t *b, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        bool found = false;
        for (int32_t n = 0; n < count; n++)
            found = found || a[i] == b[n];
        if (!found)
            return false;
    }
    return true;
}

static void put_order(struct controller *c, const struct image_topic *t, const struct image_partition *p,
                      const partition_request *q)
{
    struct kafka_partition_change_record m;
    int version = metadata_record_version(c->image, METARECORD_PARTITION_CHANGE);
    kafka_partition_change_record_init(&m);
    m.topic_id = t->id;
    m.partition_id = p->partition;
    m.replicas = q->replicas;
    m.replicas_count = q->replicas_count;
    if (image_feature_level(c->image, "metadata.version") >= METADATA_VERSION_DIRECTORIES) {
        m.directories = arena_calloc(c->scratch, (size_t)q->replicas_count, sizeof *m.directories);
        m.directories_count = q->replicas_count;
        for (int32_t i = 0; i < q->replicas_count; i++)
            m.directories[i] = image_replica_dir(p, q->replicas[i]);
    }
    controller_put(c, METARECORD_PARTITION_CHANGE, version, &m);
}

static enum kafka_error reassign(struct controller *c, struct slice topic, const partition_request *q,
                                 struct arena *arena, const char **ret_message)
{
    const struct image_topic *t = image_topic_by_name(c->image, topic);
    if (t == NULL)
        return refuse(ret_message, arena_printf(arena, "Unable to find a topic named " SLICE_F ".", SLICE_A(topic)),
                      KERR_UNKNOWN_TOPIC_OR_PARTITION);
    const struct image_partition *p = image_partition(t, q->partition_index);
    if (p == NULL)
        return refuse(
            ret_message,
            arena_printf(arena, "Unable to find partition " SLICE_F ":%d.", SLICE_A(topic), q->partition_index),
            KERR_UNKNOWN_TOPIC_OR_PARTITION);
    bool is_moving = p->adding_count > 0 || p->removing_count > 0; /* in a log that Kafka wrote */
    if (q->replicas_count < 0 && !is_moving)
        return KERR_NO_REASSIGNMENT_IN_PROGRESS;
    if (q->replicas_count >= 0) {
        enum kafka_error error = controller_check_assignment(c, q->replicas, q->replicas_count, -1, arena, ret_message);
        if (error != KERR_NONE)
            return error;
    }
    if (is_moving || q->replicas_count != p->replica_count || !is_order_of(q->replicas, p->replicas, p->replica_count))
        return refuse(ret_message,
                      "Karst does not copy replicas from node to node yet: only their directories may change.",
                      KERR_INVALID_REPLICA_ASSIGNMENT);
    if (memcmp(q->replicas, p->replicas, (size_t)p->replica_count * sizeof *p->replicas) != 0)
        put_order(c, t, p, q);
    return KERR_NONE;
}

void controller_alter_reassignments(struct controller *c, const struct kafka_alter_partition_reassignments_request *q,
                                    struct arena *arena, struct kafka_alter_partition_reassignments_response *ret_p)
{
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
            row->error_code = (int16_t)reassign(c, q->topics[i].name, &q->topics[i].partitions[n], arena, &message);
            row->error_message = slice_str(message);
        }
    }
}
