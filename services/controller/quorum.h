/* quorum.h - the state of the controller service: cores, store, and who waits for what. Internal to this folder.
 * Threading: the loop's thread only. */
#ifndef KARST_SERVICES_CONTROLLER_QUORUM_H
#define KARST_SERVICES_CONTROLLER_QUORUM_H

#include "libs/bus/bus.h"
#include "libs/controller/controller.h"
#include "libs/controller/presence.h"
#include "libs/kraft/kraft.h"
#include "libs/kraft/store.h"
#include "libs/service/service.h"

enum { FOLLOWERS_MAX = 4096, STATUS_CONFIG = 78, STATUS_STORAGE = 74 };

/* An answer that leaves when the log before `after` is committed. In the arena of its rpc. */
struct waiting {
    struct rpc *rpc;
    Karst__Bus__Reply__BodyCase kind;
    const void *body; /* of Kafka's requests the response struct; else the protobuf-c message */
    int64_t after;    /* an offset */
    struct waiting *prev, *next;
};

/* A parked Follow. */
struct follower {
    struct quorum *quorum;
    struct rpc *rpc;
    int64_t from;
    size_t max_bytes;
    struct loop_timer *timer;
    struct follower *prev, *next;
};

struct quorum {
    struct service *service;
    struct loop *loop;
    struct bus *bus;
    const struct config *config;
    char *log_dir;
    struct uuid directory_id;
    int lock_fd;
    struct kraft_store *store;
    struct kraft *kraft;
    struct controller *controller;
    struct image *committed; /* everything before the high watermark */
    bool active;             /* this process decides: it leads, and its image is at the end of the log */
    bool moved, installed;   /* the high watermark; a snapshot of the leader: quorum_publish goes on from there */
    struct ahead *ahead;     /* images of what is decided and not committed, in the order of the log */
    struct waiting *waiting;
    struct quorum_call *calls; /* of other controllers, that the core has not answered */
    uint64_t last_call;
    struct loop_timer *raft_timer;
    uint64_t raft_due;
    bool noted_joined; /* its directory says that it has been a voter */
    struct kraft_told told_answer;
    bool told, told_voter; /* what karst status shows, and the log */
    enum kraft_role told_role;
    int32_t told_epoch, told_leader;
    struct follower *followers;
    uint32_t follower_count;
    struct ref last;   /* the batches of the last commit: what nearly every follower wants next */
    int64_t last_base; /* the offset of its first record */
    struct loop_timer *tick;
    int64_t snapshot_due_wall_ms;
    struct presence *presence; /* NULL: karst.session.silence.ms says no */
    struct loop_timer *watch_timer;
    bool registered, registering; /* this life, in the log (controller_registration.c) */
    struct loop_timer *registration_timer;
    bool failed, ended; /* ended: what still comes from the bus means nothing */
};

/* open.c: 0, or the exit status after a message. */
NODISCARD int quorum_open(struct quorum *q);
void quorum_close(struct quorum *q);

/* In the log directory of a controller that joins by itself (controller.quorum.auto.join.enable), once it has. */
#define QUORUM_JOINED_FILE "karst.joined"
bool quorum_has_joined(const struct quorum *q);

/* The features that the formatter chose; NULL: there is no such file, or the log has features. */
struct image *quorum_read_bootstrap(const struct quorum *q);

/* raft.c */
/* An event for the core, and what it wants done; times are filled in. */
void quorum_step(struct quorum *q, const struct kraft_event *event);
void quorum_on_call(void *ctx, struct rpc *rpc); /* bus request Quorum */
/* A request of a tool, answered by change_voters_reply; with the response of UpdateFeatures by update_features_reply.
 */
void quorum_ask_core(struct quorum *q, struct rpc *rpc, int16_t api_key, void *response, const struct kraft_message *m);
void quorum_end_calls(struct quorum *q);

/* quorum_message.c: slices and voters live in the arena. */
Karst__Bus__QuorumMessage *quorum_message_pack(struct arena *a, const struct kraft_message *m);
/* False: it is malformed. Bytes are not filled in. */
NODISCARD bool quorum_message_unpack(struct arena *a, const Karst__Bus__QuorumMessage *p, struct kraft_message *ret_m);

/* turn.c */
/* Takes the records that a call of the controller core left, and answers the rpc once they (and all before them) are
 * committed. The body lives in the rpc's arena or is static. */
void quorum_answer(struct quorum *q, struct rpc *rpc, Karst__Bus__Reply__BodyCase kind, const void *body);
/* True, and the rpc is failed as not executed: this process decides nothing, or nothing any more. First in every
 * handler that decides. */
NODISCARD bool quorum_refuses(struct quorum *q, struct rpc *rpc);
/* The same without an answer. */
void quorum_record(struct quorum *q);
/* The core appended a batch of its own while we decide. */
void quorum_observe(struct quorum *q, struct slice batch);
/* LOOP_COMMIT: writes and flushes what was staged in the turn. */
void quorum_commit(void *ctx);
/* The high watermark moved: applies, publishes, answers. */
void quorum_publish(struct quorum *q);
void quorum_tick(void *ctx);
/* The disk failed: what is durable is not known any more, so the process ends. */
void quorum_fail(struct quorum *q, const char *action, int error);
void quorum_activate(struct quorum *q);
void quorum_deactivate(struct quorum *q);

/* watching.c */
void ping_on_call(void *ctx, struct rpc *rpc); /* bus request Ping, of another controller */
void watching_on_image(void *ctx, const struct image *old, const struct image *image); /* service_options.on_image */
void watching_tell_all(struct quorum *q);                     /* this process decides from now on */
void watching_heard(struct quorum *q, const struct rpc *rpc); /* a sign of life of who sent it */
void watching_stop(struct quorum *q);

/* controller_registration.c */
/* Where others find this controller: a Kafka that takes over, and tools. */
void quorum_endpoints(const struct quorum *q, struct arena *a, struct config_listeners *ret_endpoints);
/* After each change of what is committed: registers this life when it is not in the log yet. */
void registration_pump(struct quorum *q);

/* One a file, named after it. */
void register_on_call(void *ctx, struct rpc *rpc);
void heartbeat_on_call(void *ctx, struct rpc *rpc);
void follow_on_call(void *ctx, struct rpc *rpc);
void follow_wake(struct quorum *q);    /* there is more to read */
void follow_end_all(struct quorum *q); /* answers all who are parked */
void create_topics_on_call(void *ctx, struct rpc *rpc);
void delete_topics_on_call(void *ctx, struct rpc *rpc);
void create_partitions_on_call(void *ctx, struct rpc *rpc);
void incremental_alter_configs_on_call(void *ctx, struct rpc *rpc);
void alter_partition_reassignments_on_call(void *ctx, struct rpc *rpc);
void elect_leaders_on_call(void *ctx, struct rpc *rpc);
void update_features_on_call(void *ctx, struct rpc *rpc);
void update_features_reply(struct rpc *rpc, void *response, enum kafka_error error, const char *text, int64_t offset);
void alter_client_quotas_on_call(void *ctx, struct rpc *rpc);
void alter_user_scram_credentials_on_call(void *ctx, struct rpc *rpc);
void alter_partition_on_call(void *ctx, struct rpc *rpc);
void assign_replicas_to_dirs_on_call(void *ctx, struct rpc *rpc);
void controller_registration_on_call(void *ctx, struct rpc *rpc);
void unregister_broker_on_call(void *ctx, struct rpc *rpc);
void add_raft_voter_on_call(void *ctx, struct rpc *rpc);
void remove_raft_voter_on_call(void *ctx, struct rpc *rpc);
void change_voters_reply(struct rpc *rpc, int16_t api_key, enum kafka_error error, const char *text);
void describe_quorum_on_call(void *ctx, struct rpc *rpc);
void allocate_producer_ids_on_call(void *ctx, struct rpc *rpc);

#endif
