/* levels.c - versions of records, and records of what is in an image. */
#include "libs/metadata/levels.h"

#include "kafka/partition_record.h"
#include "kafka/register_broker_record.h"
#include "karst/service_record.h"

const struct metadata_feature metadata_features[METADATA_FEATURES] = {
    {"metadata.version", 7, METADATA_VERSION_LATEST, METADATA_VERSION_LATEST},
    {"eligible.leader.replicas.version", 0, 1, 1},
    {"group.version", 0, 1, 1},
    {"share.version", 0, 1, 1},
    {"streams.version", 0, 1, 1},
    {"transaction.version", 0, 2, 2},
    {"kraft.version", 0, 1, 0},
};

int metadata_record_version(const struct image *i, enum metarecord_type type)
{
    int16_t level = image_feature_level(i, "metadata.version");
    switch (type) {
    case METARECORD_REGISTER_BROKER:
        return level >= METADATA_VERSION_LATEST ? 4 : level >= METADATA_VERSION_DIRECTORIES ? 3 : 1;
    case METARECORD_PARTITION:
    case METARECORD_PARTITION_CHANGE:
        return level >= METADATA_VERSION_ELR ? 2 : level >= METADATA_VERSION_DIRECTORIES ? 1 : 0;
    default: return 0;
    }
}

/* The messages of the wire engine have writable arrays; encoding only reads them. */
static void *unconst(const void *p)
{
    return (void *)(uintptr_t)p;
}

void metadata_register_broker(const struct image *i, const struct image_broker *b, struct arena *arena,
                              struct kafka_register_broker_record *ret_m)
{
    int version = metadata_record_version(i, METARECORD_REGISTER_BROKER);
    kafka_register_broker_record_init(ret_m);
    ret_m->broker_id = b->id;
    ret_m->incarnation_id = b->incarnation;
    ret_m->broker_epoch = b->epoch;
    ret_m->rack = b->rack;
    ret_m->fenced = b->fenced;
    ret_m->in_controlled_shutdown = b->in_controlled_shutdown;
    ret_m->end_points = arena_calloc(arena, (size_t)b->endpoint_count + 1, sizeof ret_m->end_points[0]);
    ret_m->end_points_count = b->endpoint_count;
    for (int32_t n = 0; n < b->endpoint_count; n++) {
        ret_m->end_points[n].name = b->endpoints[n].name;
        ret_m->end_points[n].host = b->endpoints[n].host;
        ret_m->end_points[n].port = b->endpoints[n].port;
        ret_m->end_points[n].security_protocol = b->endpoints[n].security_protocol;
    }
    ret_m->features = arena_calloc(arena, (size_t)b->feature_count + 1, sizeof ret_m->features[0]);
    ret_m->features_count = b->feature_count;
    for (int32_t n = 0; n < b->feature_count; n++) {
        ret_m->features[n].name = b->features[n].name;
        ret_m->features[n].min_supported_version = b->features[n].min;
        ret_m->features[n].max_supported_version = b->features[n].max;
    }
    if (version >= 3) {
        ret_m->log_dirs = unconst(b->log_dirs);
        ret_m->log_dirs_count = b->log_dir_count;
    }
    if (version >= 4 && b->cordoned_log_dir_count > 0) {
        ret_m->cordoned_log_dirs = unconst(b->cordoned_log_dirs);
        ret_m->cordoned_log_dirs_count = b->cordoned_log_dir_count;
    }
}

void metadata_partition(struct uuid topic_id, const struct image_partition *p, int version,
                        struct kafka_partition_record *ret_m)
{
    kafka_partition_record_init(ret_m);
    ret_m->partition_id = p->partition;
    ret_m->topic_id = topic_id;
    ret_m->replicas = unconst(p->replicas);
    ret_m->replicas_count = p->replica_count;
    ret_m->isr = unconst(p->isr);
    ret_m->isr_count = p->isr_count;
    ret_m->removing_replicas = unconst(p->removing);
    ret_m->removing_replicas_count = p->removing_count;
    ret_m->adding_replicas = unconst(p->adding);
    ret_m->adding_replicas_count = p->adding_count;
    ret_m->leader = p->leader;
    ret_m->leader_recovery_state = p->leader_recovery_state;
    ret_m->leader_epoch = p->leader_epoch;
    ret_m->partition_epoch = p->partition_epoch;
    if (version >= 1) {
        ret_m->directories = unconst(p->directories);
        ret_m->directories_count = p->replica_count;
    }
    if (version >= 2 && p->elr_count > 0) {
        ret_m->eligible_leader_replicas = unconst(p->elr);
        ret_m->eligible_leader_replicas_count = p->elr_count;
    }
    if (version >= 2 && p->last_known_elr_count > 0) {
        ret_m->last_known_elr = unconst(p->last_known_elr);
        ret_m->last_known_elr_count = p->last_known_elr_count;
    }
}

void metadata_service_record(const struct image_service *s, struct arena *arena, struct karst_service_record *ret_m)
{
    karst_service_record_init(ret_m);
    ret_m->role = (int8_t)s->role;
    ret_m->id = s->id;
    ret_m->incarnation = (int64_t)s->incarnation;
    ret_m->epoch = s->epoch;
    ret_m->host = s->host;
    ret_m->rack = s->rack;
    ret_m->version = s->version;
    ret_m->endpoints = unconst(s->addresses);
    ret_m->endpoints_count = s->address_count;
    ret_m->log_dirs = unconst(s->log_dirs);
    ret_m->log_dirs_count = s->log_dir_count;
    ret_m->bus_version = s->bus_version;
    ret_m->listeners = arena_calloc(arena, (size_t)s->listener_count + 1, sizeof ret_m->listeners[0]);
    ret_m->listeners_count = s->listener_count;
    for (int32_t n = 0; n < s->listener_count; n++) {
        ret_m->listeners[n].name = s->listeners[n].name;
        ret_m->listeners[n].host = s->listeners[n].host;
        ret_m->listeners[n].port = s->listeners[n].port;
        ret_m->listeners[n].security_protocol = s->listeners[n].security_protocol;
    }
}
