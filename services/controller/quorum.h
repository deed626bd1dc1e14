/* quorum.h - the state of the controller service: cores, store, and who waits for what. Internal to this folder.
 * Threading: the loop's thread only. */
#ifndef KARST_SERVICES_CONTROLLER_QUORUM_H
#define KARST_SERVICES_CONTROLLER_QUORUM_H

#include "libs/bus/bus.h"
#include "libs/controller/controller.h"
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
    int lock_fd;
    struct kraft_store *store;
    struct kraft *kraft;
    struct controller *controller;
    struct image *committed;
    struct waiting *waiting;
    struct follower *followers;
    uint32_t follower_count;
    struct ref last;   /* the batches of the last commit: what nearly every follower wants next */
    int64_t last_base; /* the offset of its first record */
    struct loop_timer *tick;
    int64_t snapshot_due_wall_ms;
    bool failed;
};

/* open.c: 0, or the exit status after a message. */
NODISCARD int quorum_open(struct quorum *q);
void quorum_close(struct quorum *q);

/* turn.c */
/* Takes the records that a call of the controller core left, and answers the rpc once they (and all before them) are
 * committed. The body lives in the rpc's arena or is static. */
void quorum_answer(struct quorum *q, struct rpc *rpc, Karst__Bus__Reply__BodyCase kind, const void *body);
/* True, and the rpc is failed as not executed: this process decides nothing any more. First in every handler that
 * decides. */
NODISCARD bool quorum_refuses(struct quorum *q, struct rpc *rpc);
/* The same without an answer. */
void quorum_record(struct quorum *q);
/* LOOP_COMMIT: writes and flushes what was decided in the turn, publishes the image, answers. */
void quorum_commit(void *ctx);
void quorum_tick(void *ctx);
/* The disk failed: what is durable is not known any more, so the process ends. */
void quorum_fail(struct quorum *q, const char *action, int error);
NODISCARD int quorum_become_leader(struct quorum *q, const struct image *bootstrap);

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
void assign_replicas_to_dirs_on_call(void *ctx, struct rpc *rpc);
void allocate_producer_ids_on_call(void *ctx, struct rpc *rpc);

#endif
