/* image.h - what the metadata log says up to an offset: immutable, counted, shared by all its readers without a lock.
 *
 * image_apply makes the next image from the last one and record batches of the log; the two share what did not change,
 * so that an update costs what changed and a reader of the old one is not disturbed. What a query returns lives as long
 * as the image.
 *
 * I1  an image never changes after image_apply, image_load or image_empty has returned it.
 * I2  records of an open transaction (BeginTransaction .. EndTransaction, KIP-868) are not visible before its end.
 * I3  every partition of a topic from 0 to partition_count - 1 exists once the batch that created the topic is applied.
 * I4  the same records give the same image and the same iteration order on every node.
 *
 * Records: Kafka's own (proto/kafka/metadata) and Karst's inside NoOpRecord (proto/karst, libs/metadata/record.h).
 * Threading: queries from any thread; counts are atomic. */
#ifndef KARST_METADATA_IMAGE_H
#define KARST_METADATA_IMAGE_H

#include "libs/base/buf.h"
#include "libs/base/uuid.h"

struct image;

/* The image before the first record: offset -1. cluster_id: 22 characters, copied. Count 1. */
NODISCARD struct image *image_empty(const char *cluster_id);
struct image *image_retain(const struct image *i); /* one count more; takes NULL */
struct image *image_release(struct image *i);      /* one count less; takes NULL, returns NULL */

/* The image after these whole record batches of the metadata log, in offset order; batches at or below old's offset are
 * skipped. 0 with *ret_new (one count, may share everything with old), or -EBADMSG  bytes that are no batch, no record,
 * a record of a type or version that Kafka 4.3 does not have, or one that names a topic, partition or broker that does
 * not exist: the log is of a later release or damaged. *ret_bad_offset (may be NULL) is where */
NODISCARD int image_apply(const struct image *old, struct slice batches, struct image **ret_new,
                          int64_t *ret_bad_offset);

/* The image of a whole snapshot (control header to footer) whose end offset (exclusive) and epoch the caller knows from
 * its name or its FollowReply; epoch -1: that of its batches. Errors as image_apply. */
NODISCARD int image_load(const char *cluster_id, struct slice snapshot, int64_t end_offset, int32_t epoch,
                         struct image **ret_new);

/* ---- the whole ---- */

const char *image_cluster_id(const struct image *i);
int64_t image_offset(const struct image *i);       /* of its last record; -1: none */
int32_t image_epoch(const struct image *i);        /* the leader epoch of that record */
int64_t image_timestamp_ms(const struct image *i); /* the time of its batch; 0: none */
int64_t image_next_producer_id(const struct image *i);
/* A metadata transaction is open: the next leader has to end it. */
bool image_in_transaction(const struct image *i);

/* ---- topics and partitions ---- */

struct image_partition {
    int32_t partition;
    int32_t leader; /* -1: none */
    int32_t leader_epoch, partition_epoch;
    int8_t leader_recovery_state; /* 0 recovered, 1 recovering after an unclean election */
    const int32_t *replicas, *isr, *removing, *adding, *elr, *last_known_elr;
    int32_t replica_count, isr_count, removing_count, adding_count, elr_count, last_known_elr_count;
    const struct uuid *directories; /* one a replica, in its order; UUID_DIR_UNASSIGNED where it is not known */
};

struct image_topic {
    struct uuid id;
    struct slice name; /* terminated, too */
    int32_t partition_count;
    int64_t created_offset; /* of its TopicRecord in the log, or in the snapshot that brought it */
};

/* Is the id in one of these lists? */
bool image_lists(const int32_t *ids, int32_t count, int32_t id);
const struct image_topic *image_topic_by_name(const struct image *i, struct slice name); /* NULL: none */
const struct image_topic *image_topic_by_id(const struct image *i, struct uuid id);
/* NULL: the topic has no such partition. */
const struct image_partition *image_partition(const struct image_topic *t, int32_t partition);
int32_t image_topic_count(const struct image *i);
int64_t image_partition_count(const struct image *i);
/* Topics in the order of their names (bytes). Made on first use and kept with the image: O(n log n) once. */
const struct image_topic *const *image_topics(const struct image *i, int32_t *ret_count);
/* All topics in an order of their ids' hashes, without a sorted list. */
void image_each_topic(const struct image *i, void (*fn)(void *ctx, const struct image_topic *t), void *ctx);
/* The index in image_topics of the first topic whose name is >= name; the count: none. */
int32_t image_topics_from(const struct image *i, struct slice name);

/* ---- configuration ---- */

enum image_resource { IMAGE_TOPIC = 2, IMAGE_BROKER = 4, IMAGE_CLIENT_METRICS = 16, IMAGE_GROUP = 32 };

struct image_config {
    struct slice key, value; /* both terminated, too */
};
/* Everything set for a resource, sorted by key; NULL with *ret_count 0 when nothing is. Brokers are named by their id
 * in decimal, the cluster-wide default of brokers by "". */
const struct image_config *image_configs(const struct image *i, enum image_resource type, struct slice name,
                                         int32_t *ret_count);
/* One value; null: not set. */
struct slice image_config(const struct image *i, enum image_resource type, struct slice name, const char *key);

/* ---- brokers: Kafka's registrations, here of storage nodes ---- */

struct image_endpoint {
    struct slice name, host;
    uint16_t port;
    int16_t security_protocol; /* 0 PLAINTEXT, 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL */
};

struct image_feature {
    struct slice name;
    int16_t min, max; /* of a finalized feature: both are its level */
};

struct image_broker {
    int32_t id;
    struct uuid incarnation;
    int64_t epoch; /* the offset of its RegisterBrokerRecord */
    bool fenced, in_controlled_shutdown;
    struct slice rack; /* null: none */
    const struct image_endpoint *endpoints;
    int32_t endpoint_count;
    const struct image_feature *features;
    int32_t feature_count;
    const struct uuid *log_dirs, *cordoned_log_dirs;
    int32_t log_dir_count, cordoned_log_dir_count;
};

const struct image_broker *image_broker(const struct image *i, int32_t id); /* NULL: not registered */
/* Sorted by id; made on first use and kept. */
const struct image_broker *const *image_brokers(const struct image *i, int32_t *ret_count);
/* Registered, not fenced and not shutting down. */
bool image_broker_is_active(const struct image *i, int32_t id);
/* Does the broker still have the directory (KIP-858)? One that is not known yet counts, and so does any of a broker
 * that registered without directories; LOST does not. */
bool image_dir_is_online(const struct image_broker *b, struct uuid dir);
/* The directory of a broker's replica; UNASSIGNED when it has none there. */
struct uuid image_replica_dir(const struct image_partition *p, int32_t broker);
/* Its broker is active and has its directory. */
bool image_replica_is_online(const struct image *i, const struct image_partition *p, int32_t broker);

/* ---- features ---- */

/* The finalized level; 0: not finalized. kraft.version is not one of these: it is in the voters' control records. */
int16_t image_feature_level(const struct image *i, const char *name);
/* Sorted by name, without those at level 0. */
const struct image_feature *image_features(const struct image *i, int32_t *ret_count);
/* 1 when the log has dynamic voters (KIP-853), which is what kraft.version tells clients. */
int16_t image_kraft_version(const struct image *i);
/* The value of the last voters' control record (VotersRecord); null: the log has none. */
struct slice image_voters(const struct image *i);

/* ---- client quotas and SCRAM credentials ---- */

struct arena;
struct kafka_client_quota_record;
struct kafka_user_scram_credential_record;

/* Each in an order that follows from content alone. The record lives as long as the arena and the image. */
typedef void image_client_quota_fn(void *ctx, const struct kafka_client_quota_record *quota);
void image_each_client_quota(const struct image *i, struct arena *arena, image_client_quota_fn *fn, void *ctx);
typedef void image_scram_fn(void *ctx, const struct kafka_user_scram_credential_record *credential);
void image_each_scram(const struct image *i, struct arena *arena, image_scram_fn *fn, void *ctx);
/* The value of the quota of the entity and key of `of`. False: there is none. */
bool image_client_quota(const struct image *i, const struct kafka_client_quota_record *of, double *ret_value);
bool image_has_scram(const struct image *i, struct slice user, int8_t mechanism);

/* ---- controllers that have registered (KIP-919), also those that are no voters ---- */

struct kafka_register_controller_record;

/* In an order that follows from content alone. The record lives as long as the arena and the image. */
typedef void image_controller_fn(void *ctx, const struct kafka_register_controller_record *controller);
void image_each_controller(const struct image *i, struct arena *arena, image_controller_fn *fn, void *ctx);
/* NULL: no controller of that id has registered. */
const struct kafka_register_controller_record *image_controller(const struct image *i, int32_t id, struct arena *arena);

/* ---- Karst's own: services and the owners of coordinator partitions ---- */

struct image_service {
    int32_t role; /* Role of bus.proto */
    int32_t id;
    uint64_t incarnation;
    int64_t epoch;                 /* the offset of its record; of a storage node its broker epoch */
    struct slice host, rack;       /* rack null: none */
    struct slice version;          /* of the program */
    const struct slice *addresses; /* where its workers take calls, terminated, too; at least one */
    int32_t address_count;
    const struct image_endpoint *listeners;
    int32_t listener_count;
    const struct slice *log_dirs; /* of a storage node: the paths, as its configuration names them */
    int32_t log_dir_count;
    int16_t bus_version; /* the highest that it speaks */
};

/* NULL: no such service is alive. A storage node is alive while it is registered and not fenced; its record stays. */
const struct image_service *image_service(const struct image *i, int32_t role, int32_t id);
/* Sorted by role, then id. */
const struct image_service *const *image_services(const struct image *i, int32_t *ret_count);
/* Nothing has changed in them since old, which comes before it and may be NULL: then they have. */
bool image_has_services_of(const struct image *i, const struct image *old);
/* The version of the bus that all registered services speak: the lowest of their highest. It rises once the last of an
 * earlier release has been replaced, and falls when one comes back. 0: there are no services. */
int16_t image_bus_level(const struct image *i);

struct image_owner {
    struct uuid topic_id;
    int32_t partition;
    int32_t role, id; /* its service may be gone: compare with image_service */
    uint64_t incarnation;
    int32_t coordinator_epoch; /* rises with every owner and every life of an owner */
};

/* The service that coordinates what is in this partition of an internal topic; NULL: never had an owner. */
const struct image_owner *image_owner(const struct image *i, struct uuid topic_id, int32_t partition);

/* ---- what changed ---- */

/* Each callback, if not NULL, runs once for each thing that is not the same object in both images: before NULL: new;
 * after NULL: gone. Costs what changed. Something that a snapshot brought again unchanged is reported, too: compare
 * where that matters. old may be NULL: everything is new. Order: defined, but none that means anything. */
struct image_diff {
    void (*topic)(void *ctx, const struct image_topic *before, const struct image_topic *after);
    void (*config)(void *ctx, enum image_resource type, struct slice name);
    void (*broker)(void *ctx, const struct image_broker *before, const struct image_broker *after);
    void (*service)(void *ctx, const struct image_service *before, const struct image_service *after);
    void (*owner)(void *ctx, const struct image_owner *before, const struct image_owner *after);
    void (*kept)(void *ctx); /* a quota, a credential, a controller, or what else is kept as the record that it is */
    void *ctx;
};
void image_diff(const struct image *old, const struct image *newer, const struct image_diff *diff);

/* The partitions of a topic that differ, by number; either topic may be NULL. */
typedef void image_partition_change_fn(void *ctx, const struct image_partition *before,
                                       const struct image_partition *after);
void image_diff_partitions(const struct image_topic *before, const struct image_topic *after,
                           image_partition_change_fn *fn, void *ctx);

/* ---- snapshots ---- */

/* Appends the image as metadata record values (framed as in the log), one after the other in an order that can be
 * replayed, by calling put for each. The log's framing around them is libs/kraft's. */
typedef void image_record_fn(void *ctx, struct slice record_value);
void image_each_record(const struct image *i, image_record_fn *put, void *ctx);

/* True when both say the same of everything a query can ask but offset, epoch and time. For tests. */
bool image_equal(const struct image *a, const struct image *b);

#endif
