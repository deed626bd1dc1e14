/* internal.h - what the files of the controller share. */
#ifndef KARST_CONTROLLER_INTERNAL_H
#define KARST_CONTROLLER_INTERNAL_H

#include <uthash.h>

#include "libs/base/arena.h"
#include "libs/controller/controller.h"
#include "libs/metadata/levels.h"
#include "libs/metadata/metarecord.h"

enum {
    ROLE_CONTROLLER = 1, /* Role of bus.proto, which a core does not include */
    ROLE_STORAGE = 2,
    ROLE_FRONTEND = 3,
    ROLE_GROUP = 4,
    ROLE_TXN = 5,
    ROLE_MAX = 64
};

enum { RECORDS_PER_REQUEST_MAX = 10000, REPLICATION_MAX = 32767, PRODUCER_ID_BLOCK = 1000 };

enum election {
    ELECT_ONLINE,    /* of those who have all records */
    ELECT_PREFERRED, /* the same, and the first replica before the one that leads */
    ELECT_UNCLEAN    /* rather one that lost records than nobody */
};

/* The life of a service as this controller has seen it; never written down. */
struct session {
    int32_t key[2]; /* role, id */
    uint64_t incarnation;
    int64_t epoch;
    uint64_t deadline_ms;
    bool offline;            /* all its directories have failed */
    bool left_alone;         /* of a front end: evidence has ended a session of another service of its host */
    int64_t metadata_offset; /* what it has of the log, as far as it said */
    struct uuid *full_dirs;  /* of a storage node, as it said last */
    int32_t full_dir_count;
    int64_t shutdown_offset; /* of a storage node that wants to stop: others have to have this much; -1: it does not */
    UT_hash_handle hh;
};

/* Elections that nobody asks for; interval 0: never. */
struct election_timer {
    enum election kind;
    uint64_t interval_ms, due_ms;
};

struct controller {
    const struct config *config;
    int32_t node_id;
    uint64_t random[2];
    struct image *image;
    int64_t next_offset; /* of the first waiting record */
    int32_t epoch;
    struct buf records; /* waiting: u32 size, value, ... */
    int32_t record_count;
    struct session *sessions;
    uint32_t session_timeout_ms, idle_ms;
    int64_t idle_offset;    /* controller_tick saw the log end here */
    uint64_t idle_since_ms; /* for the first time then */
    struct election_timer elections[2];
    struct arena *scratch; /* emptied by controller_take */
};

/* The offset that the next record will have. */
static inline int64_t controller_next_offset(const struct controller *c)
{
    return c->next_offset + c->record_count;
}

/* Adds a record. false: the message does not fit (a text over 32767 bytes), nothing is added. */
bool controller_put(struct controller *c, enum metarecord_type type, int version, const void *msg);
bool controller_put_tag(struct controller *c, uint32_t tag, const void *msg);
/* Takes back all records since mark = {records.size, record_count}. */
struct controller_mark {
    size_t size;
    int32_t count;
};
struct controller_mark controller_mark(const struct controller *c);
void controller_rewind(struct controller *c, struct controller_mark mark);

uint64_t controller_random(struct controller *c);
struct uuid controller_random_uuid(struct controller *c);

/* controller.c: the cluster-wide min.insync.replicas, of our configuration. */
void controller_put_min_isr(struct controller *c);

/* An image with the records left so far, for decisions that follow from them: the caller releases it. */
struct image *controller_preview(const struct controller *c);

static inline bool controller_elr_enabled(const struct controller *c)
{
    return image_feature_level(c->image, "eligible.leader.replicas.version") > 0;
}

/* ---- partition_change.c: leaders, in-sync replicas, moves ---- */

struct id_list {
    const int32_t *ids;
    int32_t count;
};
bool id_list_has(struct id_list list, int32_t id);
struct id_list id_list_without(struct id_list list, struct id_list gone, struct arena *arena);

struct replica_move {
    int32_t broker;
    struct uuid to;
};
struct partition_change {
    int32_t leaving;                /* a broker that leaves the ISR; -1: none */
    const struct uuid *leaving_dir; /* only what it has in this directory, which failed; NULL: all */
    bool gives_way;                 /* only where another that is active and has room is in sync */
    bool unclean;                   /* it lost what it had: out of the ELR, too */
    bool for_good;                  /* it is unregistered: look at what it is eligible for, too */
    int32_t coming_back; /* a broker that counts as active although the image says that it is fenced; -1: none */
    const struct replica_move *move; /* a replica is in another directory from here on (KIP-858); NULL: none */
    enum election election;
    const struct id_list *isr;                          /* as the leader wants it; NULL: as it is */
    const struct id_list *replicas, *adding, *removing; /* NULL: as they are */
    int8_t recovery;                                    /* LeaderRecoveryState; -1: as it is */
    int32_t min_isr;                                    /* of the topic, where the caller knows it; 0: look it up */
};
#define PARTITION_CHANGE                                                                                               \
    {                                                                                                                  \
        .leaving = -1, .coming_back = -1, .recovery = -1                                                               \
    }

/* Leaves a PartitionChangeRecord if something changes: true. *ret_after (may be NULL): leader, ISR, epochs and recovery
 * state behind it; its lists live until the next controller_take. */
bool controller_change_partition(struct controller *c, const struct image_topic *t, const struct image_partition *p,
                                 const struct partition_change *change, struct image_partition *ret_after);
/* The same for all that the broker that leaves or comes back has to do with; unclean elections where the topic allows
 * them. */
void controller_change_all(struct controller *c, const struct partition_change *change);

/* ---- placement.c ---- */

/* A broker's one directory, or UNASSIGNED. */
struct uuid controller_default_dir(const struct controller *c, int32_t broker);
/* Leaves PartitionRecords for partitions first .. first + count - 1. NONE or the error for the client with *ret_message
 * in the arena. */
enum kafka_error controller_place(struct controller *c, struct uuid topic_id, int32_t first, int32_t count,
                                  int32_t replication_factor, struct arena *arena, const char **ret_message);
/* One partition on given brokers, which have been checked. */
enum kafka_error controller_place_at(struct controller *c, struct uuid topic_id, int32_t partition,
                                     const int32_t *brokers, int32_t count, struct arena *arena,
                                     const char **ret_message);
/* Are the brokers a possible list of replicas? expected: the size that earlier partitions have; -1: any. */
enum kafka_error controller_check_assignment(const struct controller *c, const int32_t *brokers, int32_t count,
                                             int32_t expected, struct arena *arena, const char **ret_message);

/* ---- topic_configs.c ---- */

/* The dynamic places of a topic's keys for libs/config: overrides given, and the brokers' from the image. */
struct topic_layers {
    const struct controller *controller;
    const struct config_entry *overrides;
    size_t override_count;
    struct config_layers layers;
};
void topic_layers_init(struct topic_layers *l, const struct controller *c, const struct config_entry *overrides,
                       size_t count);
/* min.insync.replicas, no more than the topic has replicas. */
int32_t controller_min_isr(const struct controller *c, const struct image_topic *t);
bool controller_is_unclean_allowed(const struct controller *c, const struct image_topic *t);
/* The text for INVALID_CONFIG when these overrides of a topic cannot be, in the arena; NULL: they are fine. */
const char *controller_topic_config_error(const struct controller *c, const struct config_entry *entries, size_t count,
                                          struct arena *arena);
/* "Topic name is invalid: ..." in the arena; NULL: it is valid. */
const char *controller_topic_name_error(struct slice name, struct arena *arena);

/* ---- names.c: what a request names how often, for requests of any size ---- */

struct name_set {
    struct name_at {
        struct slice name;
        int32_t at;
    } * items;
    size_t count, room;
};
void name_set_init(struct name_set *s, struct arena *arena, size_t room);
void name_set_add(struct name_set *s, struct slice name, int32_t at); /* not null */
void name_set_seal(struct name_set *s);                               /* before the first find */
/* How often the name was added; *ret_first (may be NULL): the lowest place. */
int32_t name_set_find(const struct name_set *s, struct slice name, int32_t *ret_first);

/* ---- owners.c ---- */

/* Gives the partitions of the internal topics to services that are alive. Looks at image, which is ahead of c->image
 * where records wait. */
void controller_assign_owners(struct controller *c, const struct image *image);
bool controller_is_coordinated(struct slice topic);
/* The same on the image with the waiting records. */
void controller_assign_owners_ahead(struct controller *c);

/* ---- log_dirs.c ---- */

/* The directories that a heartbeat says have failed: what was led from them is led by others or nobody. False: none of
 * them is news. */
bool controller_fail_dirs(struct controller *c, const struct image_broker *b, const struct controller_heartbeat *h);
/* The directories that take no new partitions (KIP-1066). */
void controller_cordon_dirs(struct controller *c, const struct image_broker *b, const struct controller_heartbeat *h);
/* Notes which directories are full. */
void controller_note_full_dirs(struct session *s, const struct controller_heartbeat *h);
/* What the active broker has in those gives way to others. */
void controller_leave_full_dirs(struct controller *c, const struct image_broker *b, const struct session *s);
/* Is the broker's replica in a directory that it said to be full, as far as this controller has heard? */
bool controller_is_replica_full(const struct controller *c, const struct image_partition *p, int32_t broker);

/* ---- elect_leaders.c ---- */

void controller_start_elections(struct controller *c, uint64_t now_ms);
/* Runs those that are due, if no records wait; when to come again. */
uint64_t controller_elect_when_due(struct controller *c, uint64_t now_ms);

/* ---- services.c ---- */
struct session *controller_session(const struct controller *c, int32_t role, int32_t id); /* NULL: none */
void controller_start_sessions(struct controller *c, uint64_t now_ms);
void controller_free_sessions(struct controller *c);

#endif
