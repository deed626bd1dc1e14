/* log_dirs.c - the directories of storage nodes (KIP-858, KIP-1066): which have failed, which take no new partitions,
 * which are full, and AssignReplicasToDirs (73), where a node says in which of them a replica is. The records are those
 * that Kafka 4.3.1 writes. */
#include "kafka/assign_replicas_to_dirs.h"
#include "kafka/broker_registration_change_record.h"
#include "libs/controller/internal.h"

/* The lowest versions that have what these changes carry. */
enum { CHANGE_LOG_DIRS = 2, CHANGE_CORDONED = 3 };

typedef struct kafka_assign_replicas_to_dirs_request_directory_data dir_request;
typedef struct kafka_assign_replicas_to_dirs_request_topic_data topic_request;
typedef struct kafka_assign_replicas_to_dirs_response_directory_data dir_answer;
typedef struct kafka_assign_replicas_to_dirs_response_topic_data topic_answer;

static bool has_dir(const struct uuid *dirs, int32_t count, struct uuid id)
{
    for (int32_t i = 0; i < count; i++)
        if (uuid_eq(dirs[i], id))
            return true;
    return false;
}

/* ---- heartbeats ---- */

static struct kafka_broker_registration_change_record change_of(const struct image_broker *b)
{
    struct kafka_broker_registration_change_record m;
    kafka_broker_registration_change_record_init(&m);
    m.broker_id = b->id;
    m.broker_epoch = b->epoch;
    return m;
}

bool controller_fail_dirs(struct controller *c, const struct image_broker *b, const struct controller_heartbeat *h)
{
    struct uuid *left = arena_calloc(c->scratch, (size_t)b->log_dir_count + 1, sizeof *left);
    int32_t left_count = 0;
    if (image_feature_level(c->image, "metadata.version") < METADATA_VERSION_DIRECTORIES)
        return false;
    for (int32_t i = 0; i < b->log_dir_count; i++) {
        if (!has_dir(h->offline_dirs, h->offline_dir_count, b->log_dirs[i])) {
            left[left_count++] = b->log_dirs[i];
            continue;
        }
        struct partition_change change = PARTITION_CHANGE;
        change.leaving = b->id;
        change.leaving_dir = &b->log_dirs[i];
        controller_change_all(c, &change);
    }
    if (left_count == b->log_dir_count)
        return false;
    struct kafka_broker_registration_change_record m = change_of(b);
    m.log_dirs = left;
    m.log_dirs_count = left_count;
    controller_put(c, METARECORD_BROKER_REGISTRATION_CHANGE, CHANGE_LOG_DIRS, &m);
    return true;
}

void controller_cordon_dirs(struct controller *c, const struct image_broker *b, const struct controller_heartbeat *h)
{
    struct uuid *now = arena_calloc(c->scratch, (size_t)b->log_dir_count + 1, sizeof *now);
    int32_t count = 0;
    bool same = true;
    if (image_feature_level(c->image, "metadata.version") < METADATA_VERSION_LATEST)
        return;
    for (int32_t i = 0; i < b->log_dir_count; i++) {
        if (!has_dir(h->cordoned_dirs, h->cordoned_dir_count, b->log_dirs[i]))
            continue;
        same = same && has_dir(b->cordoned_log_dirs, b->cordoned_log_dir_count, b->log_dirs[i]);
        now[count++] = b->log_dirs[i];
    }
    if (same && count == b->cordoned_log_dir_count)
        return;
    struct kafka_broker_registration_change_record m = change_of(b);
    m.cordoned_log_dirs = now;
    m.cordoned_log_dirs_count = count;
    controller_put(c, METARECORD_BROKER_REGISTRATION_CHANGE, CHANGE_CORDONED, &m);
}

/* ---- full directories ----
 *
 * A Kafka whose disk is full fails the directory. Here it goes on serving reads, and has all that it acknowledged: it
 * is out of the ISR, but not out of the ELR, and comes back by AlterPartition. Nothing is written down, for the node
 * says it again with each heartbeat; each looks at all that is in the directory, as others may have come in sync since.
 */

void controller_note_full_dirs(struct session *s, const struct controller_heartbeat *h)
{
    if (h->full_dir_count > s->full_dir_count)
        s->full_dirs = xrealloc(s->full_dirs, (size_t)h->full_dir_count * sizeof *s->full_dirs);
    if (h->full_dir_count > 0)
        memcpy(s->full_dirs, h->full_dirs, (size_t)h->full_dir_count * sizeof *s->full_dirs);
    s->full_dir_count = h->full_dir_count;
}

void controller_leave_full_dirs(struct controller *c, const struct image_broker *b, const struct session *s)
{
    for (int32_t i = 0; i < b->log_dir_count; i++) {
        if (!has_dir(s->full_dirs, s->full_dir_count, b->log_dirs[i]))
            continue;
        struct partition_change change = PARTITION_CHANGE;
        change.leaving = b->id;
        change.leaving_dir = &b->log_dirs[i];
        change.gives_way = true;
        controller_change_all(c, &change);
    }
}

bool controller_is_replica_full(const struct controller *c, const struct image_partition *p, int32_t broker)
{
    const struct session *s = controller_session(c, ROLE_STORAGE, broker);
    return s != NULL && has_dir(s->full_dirs, s->full_dir_count, image_replica_dir(p, broker));
}

/* ---- AssignReplicasToDirs ---- */

/* A replica that is said to be in a directory that has failed is lost to the broker, too. */
static enum kafka_error assign(struct controller *c, const struct image_broker *b, struct uuid dir,
                               const struct image_topic *t, int32_t partition)
{
    const struct image_partition *p = t != NULL ? image_partition(t, partition) : NULL;
    if (t == NULL)
        return KERR_UNKNOWN_TOPIC_ID;
    if (p == NULL)
        return KERR_UNKNOWN_TOPIC_OR_PARTITION;
    bool ours = false;
    for (int32_t i = 0; i < p->replica_count; i++)
        ours = ours || p->replicas[i] == b->id;
    if (!ours)
        return KERR_NOT_LEADER_OR_FOLLOWER;
    struct replica_move move = {b->id, dir};
    struct partition_change change = PARTITION_CHANGE;
    change.move = &move;
    if (!image_dir_is_online(b, dir)) {
        change.leaving = b->id;
        change.election = controller_is_unclean_allowed(c, t) ? ELECT_UNCLEAN : ELECT_ONLINE;
    }
    controller_change_partition(c, t, p, &change, NULL);
    return KERR_NONE;
}

static void assign_topic(struct controller *c, const struct image_broker *b, struct uuid dir, const topic_request *q,
                         struct arena *arena, topic_answer *to)
{
    const struct image_topic *t = image_topic_by_id(c->image, q->topic_id);
    wire_init(&kafka_assign_replicas_to_dirs_response_topic_data_type, to);
    to->topic_id = q->topic_id;
    to->partitions = arena_calloc(arena, (size_t)q->partitions_count + 1, sizeof *to->partitions);
    to->partitions_count = q->partitions_count;
    for (int32_t i = 0; i < q->partitions_count; i++) {
        wire_init(&kafka_assign_replicas_to_dirs_response_partition_data_type, &to->partitions[i]);
        to->partitions[i].partition_index = q->partitions[i].partition_index;
        to->partitions[i].error_code = (int16_t)assign(c, b, dir, t, q->partitions[i].partition_index);
    }
}

void controller_assign_dirs(struct controller *c, const struct kafka_assign_replicas_to_dirs_request *q,
                            struct arena *arena, struct kafka_assign_replicas_to_dirs_response *ret_p)
{
    const struct image_broker *b = image_broker(c->image, q->broker_id);
    kafka_assign_replicas_to_dirs_response_init(ret_p);
    if (b == NULL || b->epoch != q->broker_epoch) {
        ret_p->error_code = b == NULL ? KERR_BROKER_ID_NOT_REGISTERED : KERR_STALE_BROKER_EPOCH;
        return;
    }
    ret_p->directories = arena_calloc(arena, (size_t)q->directories_count + 1, sizeof *ret_p->directories);
    ret_p->directories_count = q->directories_count;
    for (int32_t i = 0; i < q->directories_count; i++) {
        const dir_request *d = &q->directories[i];
        dir_answer *to = &ret_p->directories[i];
        wire_init(&kafka_assign_replicas_to_dirs_response_directory_data_type, to);
        to->id = d->id;
        to->topics = arena_calloc(arena, (size_t)d->topics_count + 1, sizeof *to->topics);
        to->topics_count = d->topics_count;
        for (int32_t n = 0; n < d->topics_count; n++)
            assign_topic(c, b, d->id, &d->topics[n], arena, &to->topics[n]);
    }
}
