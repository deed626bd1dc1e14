/* controller.h - what the active controller decides: requests in, answers and metadata records out. A core: no clock,
 * socket, disk or random source of its own.
 *
 * Each call works on the image that holds all earlier records, committed or not, and leaves the records of its decision
 * behind; controller_take makes one batch of them, moves the image forward, and hands the bytes out for the log. The
 * caller answers only when that batch is committed. Records of one call are in one batch: they happen or they do not.
 *
 *   controller_new -> controller_activate -> { controller_* call -> controller_take }*
 *
 * I1  next offset == offset of the image + 1, whenever no records are waiting.
 * I2  a service that is registered has a session, and a session's epoch is that of its registration.
 * I3  what a call answers as an error leaves no record.
 * I4  an owner of a coordinator partition only changes together with its coordinator epoch.
 *
 * Texts in answers point into the arena, the request, or are static: the image may change before the answer leaves.
 * Threading: the owner's thread only. */
#ifndef KARST_CONTROLLER_CONTROLLER_H
#define KARST_CONTROLLER_CONTROLLER_H

#include "libs/base/kafka_error.h"
#include "libs/config/config.h"
#include "libs/metadata/image.h"

struct controller;
struct arena;
struct kafka_create_topics_request;
struct kafka_create_topics_response;
struct kafka_delete_topics_request;
struct kafka_delete_topics_response;
struct kafka_create_partitions_request;
struct kafka_create_partitions_response;
struct kafka_incremental_alter_configs_request;
struct kafka_incremental_alter_configs_response;
struct kafka_alter_partition_request;
struct kafka_alter_partition_response;
struct kafka_alter_partition_reassignments_request;
struct kafka_alter_partition_reassignments_response;
struct kafka_elect_leaders_request;
struct kafka_elect_leaders_response;
struct kafka_controller_registration_request;
struct kafka_update_features_request;
struct kafka_update_features_response;
struct kafka_alter_client_quotas_request;
struct kafka_alter_client_quotas_response;
struct kafka_alter_user_scram_credentials_request;
struct kafka_alter_user_scram_credentials_response;
struct kafka_assign_replicas_to_dirs_request;
struct kafka_assign_replicas_to_dirs_response;
struct kafka_allocate_producer_ids_request;
struct kafka_allocate_producer_ids_response;

struct controller_options {
    const struct config *config; /* outlives the controller */
    int32_t node_id;
    uint64_t seed[2]; /* random: topic ids come of it */
};

NODISCARD struct controller *controller_new(const struct controller_options *o);
struct controller *controller_free(struct controller *c); /* takes NULL; returns NULL */

/* This node leads from now on. image: everything before next_offset; a count is taken. bootstrap: the features of
 * bootstrap.checkpoint, written when the log is empty; NULL: those of a new cluster. Times here and below: now_ms
 * monotonic. Leaves records. */
void controller_activate(struct controller *c, const struct image *image, int64_t next_offset, int32_t epoch,
                         const struct image *bootstrap, uint64_t now_ms);

/* The quorum has put a batch of its own (other voters) behind everything decided so far; no records may be waiting. */
void controller_observe(struct controller *c, struct slice batch);

/* The image with everything decided so far. Valid until the next controller_take; to keep it, take a count. */
const struct image *controller_image(const struct controller *c);

/* Appends the waiting records to out as one batch and applies them. True with the offset of the last one; false: there
 * are none. */
bool controller_take(struct controller *c, int64_t wall_ms, struct buf *out, int64_t *ret_last_offset);

/* ---- services ---- */

struct controller_registration {
    int32_t role, id; /* role: Role of bus.proto */
    uint64_t incarnation;
    struct slice host, rack, version; /* rack null or empty: none */
    const struct slice *addresses;
    int32_t address_count;
    const struct image_endpoint *listeners;
    int32_t listener_count;
    const struct image_feature *features; /* that it understands, levels from min to max; none: those of this build */
    int32_t feature_count;
    const struct uuid *log_dirs; /* storage */
    int32_t log_dir_count;
    const struct slice *log_dir_paths; /* storage: all that it is configured with */
    int32_t log_dir_path_count;
    int16_t bus_version;    /* the highest of the bus that it speaks; 0: of a build that knew but 1 */
    int64_t previous_epoch; /* storage: the broker epoch of a life that ended cleanly; -1 */
};

/* A life of a service makes itself known; the same life may do it again. A later life replaces the former at once: the
 * lock of its role on the data directory keeps twins out. NONE with the epoch that goes into each heartbeat, or with
 * *ret_message (static, or until the next controller_take) INVALID_REGISTRATION; DUPLICATE_BROKER_REGISTRATION: a
 * storage node of that id, with other directories, is alive; UNSUPPORTED_VERSION: it does not understand the features
 * that are finalized. */
enum kafka_error controller_register(struct controller *c, const struct controller_registration *r, uint64_t now_ms,
                                     int64_t *ret_epoch, const char **ret_message);

/* ControllerRegistration (70): the same life may do it again. NONE, or with *ret_message (static) UNSUPPORTED_VERSION:
 * not at this metadata.version; INVALID_REGISTRATION. */
enum kafka_error controller_register_controller(struct controller *c,
                                                const struct kafka_controller_registration_request *q,
                                                struct arena *arena, const char **ret_message);

struct controller_heartbeat {
    int32_t role, id;
    uint64_t incarnation;
    int64_t epoch;
    int64_t metadata_offset; /* applied by the service */
    bool want_shutdown;
    const struct uuid *offline_dirs; /* storage: directories that failed */
    int32_t offline_dir_count;
    const struct uuid *cordoned_dirs; /* storage: those that take no new partitions, all of them */
    int32_t cordoned_dir_count;
    const struct uuid *full_dirs; /* storage: those without room for records, all of them */
    int32_t full_dir_count;
};
struct controller_heartbeat_answer {
    bool is_fenced;
    bool should_shut_down; /* nothing depends on it any more, once its image has reached the offset of the records left
                              here. False for a storage node that wants to: others have to hear who leads now, ask
                              again soon */
};
/* NONE, BROKER_ID_NOT_REGISTERED or STALE_BROKER_EPOCH: register again. What a storage node has in a directory that
 * failed is led by others, or nobody, until a life of the node brings the directory back; one whose directories have
 * all failed is fenced for the rest of its life. What it has in a full directory is led by others, and out of sync,
 * wherever one with room is in sync. */
enum kafka_error controller_heartbeat(struct controller *c, const struct controller_heartbeat *h, uint64_t now_ms,
                                      struct controller_heartbeat_answer *ret_answer);

/* A sign of life that is no heartbeat: the service asks for the log after metadata_offset. A storage node that is
 * fenced becomes active as soon as it has its registration. */
void controller_followed(struct controller *c, int32_t role, int32_t id, uint64_t incarnation, int64_t metadata_offset);

/* A life of a service is gone, or stands still, by evidence (presence.h): its session ends now, not when it times out.
 * False, and nothing happens: it is not registered (any more), nobody of its role would do its work, or it is a
 * front end, and not all of its host is gone: clients know its address, and it is started again there. One that is
 * alive all the same registers again with its next heartbeat. */
bool controller_end_session(struct controller *c, int32_t role, int32_t id, uint64_t incarnation);

/* UnregisterBroker (64): NONE or BROKER_ID_NOT_REGISTERED. The replicas it had stay listed. */
enum kafka_error controller_unregister_broker(struct controller *c, int32_t id);

/* Ends sessions that are over, elects leaders where that is due (auto.leader.rebalance.enable,
 * unclean.leader.election.enable), and keeps the log moving (metadata.max.idle.interval.ms). Returns when to call
 * again, at the latest. */
uint64_t controller_tick(struct controller *c, uint64_t now_ms);

/* ---- Kafka's requests ---- */

void controller_create_topics(struct controller *c, const struct kafka_create_topics_request *q, int16_t version,
                              struct arena *arena, struct kafka_create_topics_response *ret_p);
void controller_delete_topics(struct controller *c, const struct kafka_delete_topics_request *q, int16_t version,
                              struct arena *arena, struct kafka_delete_topics_response *ret_p);
void controller_create_partitions(struct controller *c, const struct kafka_create_partitions_request *q,
                                  struct arena *arena, struct kafka_create_partitions_response *ret_p);
void controller_alter_configs(struct controller *c, const struct kafka_incremental_alter_configs_request *q,
                              struct arena *arena, struct kafka_incremental_alter_configs_response *ret_p);
void controller_alter_reassignments(struct controller *c, const struct kafka_alter_partition_reassignments_request *q,
                                    struct arena *arena, struct kafka_alter_partition_reassignments_response *ret_p);
void controller_elect_leaders(struct controller *c, const struct kafka_elect_leaders_request *q, struct arena *arena,
                              struct kafka_elect_leaders_response *ret_p);
void controller_update_features(struct controller *c, const struct kafka_update_features_request *q, int16_t version,
                                struct arena *arena, struct kafka_update_features_response *ret_p);
void controller_alter_client_quotas(struct controller *c, const struct kafka_alter_client_quotas_request *q,
                                    struct arena *arena, struct kafka_alter_client_quotas_response *ret_p);
void controller_alter_scram(struct controller *c, const struct kafka_alter_user_scram_credentials_request *q,
                            struct arena *arena, struct kafka_alter_user_scram_credentials_response *ret_p);
/* From storage nodes, who sends it has been checked: the ISR of what they lead, with the broker epochs of version 3. */
void controller_alter_partition(struct controller *c, const struct kafka_alter_partition_request *q,
                                struct arena *arena, struct kafka_alter_partition_response *ret_p);
/* The same: where their replicas are (KIP-858). */
void controller_assign_dirs(struct controller *c, const struct kafka_assign_replicas_to_dirs_request *q,
                            struct arena *arena, struct kafka_assign_replicas_to_dirs_response *ret_p);
void controller_allocate_producer_ids(struct controller *c, const struct kafka_allocate_producer_ids_request *q,
                                      struct kafka_allocate_producer_ids_response *ret_p);

#endif
