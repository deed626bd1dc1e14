/* core.h - what the files of the group coordinator share. Nothing here is for users of the library.
 *
 *   core.c      steps, partitions, actions, owned bytes       timer.c    deadlines in a heap
 *   group.c     groups, members, votes, states                stage.c    records that wait for the log, answers that
 * wait for them join.c      JoinGroup                                     rebalance.c  the way from one generation to
 * the next sync.c      SyncGroup, Heartbeat                          leave.c    LeaveGroup store.c     committed
 * offsets in memory                   commit.c   OffsetCommit fetch.c     OffsetFetch remove.c   DeleteGroups,
 * OffsetDelete, deleted topics, expiry describe.c  DescribeGroups, ListGroups                    records.c  Kafka's
 * record formats, written load.c      the same, read                                check.c    the invariants
 */
#ifndef KARST_GROUPS_CORE_H
#define KARST_GROUPS_CORE_H

#include <uthash.h>
#include <utlist.h>

#include "libs/base/buf.h"
#include "libs/base/kafka_error.h"
#include "libs/groups/groups.h"

enum {
    PROTOCOLS_MAX = 1000,        /* names in one JoinGroup: far above any client */
    STRUCT_OVERHEAD = 64,        /* what a hash entry and an allocation cost beside our struct */
    ID_PREFIX_MAX = 32000,       /* of a member id: Kafka's strings end at 32767 bytes */
    PARTITIONS_MAX = 1000000,    /* in one request: far above any client */
    RECORD_OVERHEAD = 32,        /* of a record in a batch, at most */
    ANSWER_BYTES_MAX = 32 << 20, /* of one answer in memory: more than the bus carries in one */
    AUTHORIZED_OPERATIONS =
        3400, /* of a group without an authorizer: read, delete, describe, describe and alter configs */
    AUTHORIZED_NOT_ASKED = INT32_MIN,
};

/* ---- timer.c ---- */

enum timer_kind { TIMER_SESSION, TIMER_PENDING, TIMER_JOIN, TIMER_SYNC, TIMER_EXPIRY };

/* Embedded in what it is about; zeroed is "not set". */
struct timer {
    uint64_t due_ms;
    size_t place; /* in the heap, from 1; 0: not set */
    enum timer_kind kind;
};
struct timers {
    struct timer **heap; /* heap[0] is the earliest */
    size_t count, capacity;
};
void timer_set(struct timers *h, struct timer *t, enum timer_kind kind, uint64_t due_ms);
void timer_clear(struct timers *h, struct timer *t);

/* ---- groups and members ---- */

enum group_type { GROUP_CLASSIC, GROUP_CONSUMER, GROUP_SHARE, GROUP_STREAMS };

/*   Empty --join--> PreparingRebalance --all joined, or time over--> CompletingRebalance --the leader's sync is
 * committed--> Stable ^                 |        ^                                        | |
 *     +--nobody left----+        +-----------------a member joins, changes or
 * goes-------------------------------------------+   */
enum group_state { GROUP_EMPTY, GROUP_PREPARING, GROUP_COMPLETING, GROUP_STABLE };

/* A JoinGroup or SyncGroup whose answer waits. */
struct parked {
    bool waiting;
    int16_t version;
    uint64_t request;
};

struct protocol {
    struct slice name, metadata; /* owned */
};

struct member {
    UT_hash_handle hh;          /* group->members, by id, in the order of joining */
    UT_hash_handle hh_instance; /* group->statics, by instance */
    struct group *group;
    struct slice id, instance, client_id, client_host; /* owned; instance null: a dynamic member */
    int32_t rebalance_timeout_ms, session_timeout_ms;
    struct protocol *protocols;
    int32_t protocol_count;
    struct slice assignment;      /* owned; of the present generation once it is committed */
    struct slice next_assignment; /* owned; on its way to the log */
    bool is_new;                  /* its first JoinGroup is parked: it knows no member id and cannot heartbeat */
    bool owes_sync;
    struct parked join, sync;
    struct timer session;
};

/* A member id that was given out with 79 and has not come back yet. */
struct pending {
    UT_hash_handle hh;
    struct group *group;
    struct slice id; /* owned */
    struct timer timer;
};

struct vote {
    UT_hash_handle hh;
    struct slice name; /* owned */
    uint32_t members;  /* that support it */
    uint32_t votes;    /* scratch of a selection */
};

/* A record of a group that this release does not serve: only its key, for when the group has to be deleted. */
struct foreign_key {
    UT_hash_handle hh;
    struct slice key; /* owned */
};

struct group {
    UT_hash_handle hh; /* shard->groups */
    struct shard *shard;
    struct slice id; /* owned */
    enum group_type type;
    enum group_state state, previous;
    int64_t state_ms;                     /* wall time of the last change of state; -1: not known */
    struct slice protocol_type, protocol; /* owned; null: none yet */
    int32_t generation;
    struct member *members, *statics, *leader; /* leader NULL only without members */
    struct pending *pendings;
    struct vote *votes;
    uint32_t joining;      /* members with a parked join */
    uint32_t owing_sync;   /* members that owe a sync */
    uint64_t sync_number;  /* of the newest assignment on its way to the log */
    bool new_member_added; /* during the initial delay */
    bool initial;          /* the join timer runs the initial delay */
    bool deleting;         /* its tombstones are on their way: 14 until they are committed */
    int32_t delay_ms, remaining_ms;
    struct timer join_timer, sync_timer;
    struct offset_topic *topics;
    struct foreign_key *keys;
    uint32_t foreign_members;
};

/* ---- committed offsets ---- */

struct offset_value {
    int64_t offset, commit_ms, expire_ms; /* expire_ms -1: by retention */
    int32_t leader_epoch;
    struct uuid topic_id;
    struct slice metadata; /* owned */
    int64_t record_offset; /* where it is in the log; INT64_MAX: one of ours, after all that was loaded */
};

/* The commit of a transaction that has not ended. */
struct open_commit {
    struct open_commit *prev, *next; /* of its transaction */
    struct offset_topic *topic;
    int32_t partition;
    struct open_txn *txn;
    struct offset_value value;
};

struct open_txn {
    UT_hash_handle hh; /* shard->txns, by producer id */
    int64_t producer_id;
    struct open_commit *commits;
};

struct offset {
    int32_t partition;
    uint32_t queued; /* records on their way to the log */
    uint32_t open;   /* commits of open transactions */
    bool committed;
    struct offset_value value;
};

struct offset_topic {
    UT_hash_handle hh; /* group->topics, by name */
    struct group *group;
    struct slice name;      /* owned */
    struct offset *offsets; /* sorted by partition */
    size_t count, capacity;
};

/* ---- what waits for the log (stage.c) ---- */

/* An answer that waits for `waiting` batches. */
struct deferred {
    struct deferred *next; /* in the list of those that are done with */
    uint64_t request;
    int16_t api_key, api_version;
    struct arena *arena;
    void *response; /* in arena */
    int32_t waiting;
};

/* What is done when a batch is committed. */
struct staged_op {
    struct deferred *deferred; /* NULL: nobody waits */
    int32_t part;              /* of a response with several: the index; -1: the whole */
    struct slice group;        /* owned; not null: the group's assignment sync_number is committed */
    uint64_t sync_number;
};

struct staged_record {
    size_t key_at, key_size, value_at, value_size;
    bool tombstone;
};

struct staged {
    struct staged *prev, *next;
    struct buf bytes;
    struct staged_record *records;
    size_t record_count, record_capacity;
    struct staged_op *ops;
    size_t op_count, op_capacity;
    int64_t timestamp_ms;
    uint64_t append;
};

enum shard_state { SHARD_LOADING, SHARD_ACTIVE };

struct shard {
    UT_hash_handle hh; /* groups->shards */
    struct groups *core;
    int32_t partition, epoch;
    enum shard_state state;
    uint64_t load;
    struct group *groups;
    struct open_txn *txns;
    struct staged *queue;  /* utlist, oldest first */
    struct staged *flight; /* the one that is being appended */
};

struct groups {
    struct groups_config config;
    struct groups_env env;
    int32_t partition_count;
    struct shard *shards;
    struct timers timers;
    struct timer expiry;
    struct groups_now now;
    struct arena *arena; /* of the step */
    struct groups_action *actions;
    size_t action_count, action_capacity;
    struct staged scratch;   /* records of the event at hand */
    bool scratch_broken;     /* one of them could not be written in Kafka's format */
    struct staged *finished; /* freed at the next step: actions point into them */
    struct deferred *answered;
    uint64_t next_number; /* of appends, loads and syncs */
    size_t memory_bytes;
    size_t answer_bytes; /* of the answer at hand: a small request may ask for one large thing many times */
    uint64_t unreadable;
};

/* ---- core.c ---- */

struct slice own(struct groups *c, struct slice s); /* a copy that counts; null stays null */
void disown(struct groups *c, struct slice *s);     /* and sets it to null */
void own_replace(struct groups *c, struct slice *owned, struct slice s);
void account(struct groups *c, size_t bytes);
void unaccount(struct groups *c, size_t bytes);
bool memory_allows(const struct groups *c, size_t more_bytes);
bool answer_takes(struct groups *c, size_t bytes); /* false: the answer at hand has become too large */

struct groups_action *action_add(struct groups *c, enum groups_action_kind kind);
void answer(struct groups *c, const struct groups_request *q, const void *response);
void answer_parked(struct groups *c, struct parked *p, int16_t api_key, const void *response);
/* The partition of a group: KERR_NONE with *ret_shard, else 14, 15 or 16. */
enum kafka_error shard_of(struct groups *c, struct slice group_id, struct shard **ret_shard);
/* The same with the group, which may be NULL; also 14 while the group is being deleted. */
enum kafka_error group_of(struct groups *c, struct slice group_id, struct shard **ret_shard, struct group **ret_group);
/* Drops everything in memory and answers who waits. */
void shard_clear(struct shard *s, enum kafka_error error);
void shard_reload(struct shard *s, enum kafka_error error);
struct shard *shard_find(const struct groups *c, int32_t partition);

/* ---- group.c ---- */

struct group *group_find(const struct shard *s, struct slice id);
struct group *group_create(struct shard *s, struct slice id);
void group_free(struct group *g); /* with all in it; nobody may be parked */
void group_set_state(struct group *g, enum group_state state);
const char *group_state_name(const struct group *g);
const char *group_type_name(const struct group *g);
bool group_is_empty(const struct group *g); /* no members, of whatever type */
bool group_all_joined(const struct group *g);
int32_t group_rebalance_timeout(const struct group *g);
struct slice group_select_protocol(struct group *g); /* of the votes; members must be there */

struct member *member_find(const struct group *g, struct slice id);
struct member *member_of_instance(const struct group *g, struct slice instance);
struct member *member_add(struct group *g, struct slice id, struct slice instance, struct slice client_id,
                          struct slice client_host);
void member_remove(struct member *m); /* not parked any more */
void member_rename(struct member *m, struct slice id);
void member_set_protocols(struct member *m, const struct protocol *protocols, int32_t count);
struct slice member_metadata(const struct member *m, struct slice protocol); /* empty when it has none */
void member_park_join(struct member *m, const struct groups_request *q);     /* an earlier parked join is answered 27 */
void member_unpark_join(struct member *m);
void member_expect(struct member *m); /* a heartbeat within the session timeout from now */
/* 0, 25 or 82: does member_id (with its instance, when one is given) belong to the group? */
enum kafka_error member_validate(const struct group *g, struct slice id, struct slice instance,
                                 struct member **ret_member);

struct pending *pending_find(const struct group *g, struct slice id);
void pending_add(struct group *g, struct slice id, int32_t timeout_ms);
void pending_remove(struct pending *p);

/* ---- join.c, sync.c, rebalance.c ---- */

void join_answer_error(struct groups *c, struct parked *p, struct slice member_id, enum kafka_error error);
void join_answer_member(struct member *m); /* the present generation, to a parked join */
void sync_answer(struct member *m, enum kafka_error error);
void sync_committed(struct group *g);
void rebalance_or_complete(struct group *g);  /* something changed: a new generation is needed */
void rebalance_try_complete(struct group *g); /* perhaps everybody is there now */
void rebalance_drop_member(struct member *m, enum kafka_error error); /* answers what it has parked, removes it */
void rebalance_join_timer(struct group *g);
void rebalance_sync_timer(struct group *g);
void session_timer(struct member *m);
void pending_timer(struct pending *p);

/* ---- stage.c ---- */

void stage_start(struct groups *c);      /* empties the scratch */
bool stage_fits(const struct groups *c); /* the scratch is whole and fits in one batch */
/* Moves the scratch into the queue of s, in one batch if it fits. The op (may be NULL) runs when all that is queued up
 * to here is committed; its deferred waits for one more. */
void stage_commit(struct shard *s, const struct staged_op *op);
void stage_flush(struct groups *c);
void stage_appended(struct shard *s, uint64_t append, enum kafka_error error);
void stage_fail(struct shard *s, enum kafka_error error); /* every answer in the queue */
void stage_free_finished(struct groups *c);
void staged_free(struct staged *b);
struct deferred *deferred_new(const struct groups_request *q); /* waits for its maker, who ends with deferred_done */
void deferred_done(struct groups *c, struct deferred *d);      /* one less to wait for; the last one answers */
void deferred_set_error(struct deferred *d, int32_t part, enum kafka_error error);

/* ---- records.c: into the scratch ---- */

/* GroupMetadata with the members as they are. For a leader's SyncGroup with their next assignments; a member without
 * one gets none. */
void record_put_group(struct group *g, bool with_next_assignments);
void record_put_group_tombstone(struct groups *c, struct slice group_id);
void record_put_offset(struct groups *c, struct slice group_id, struct slice topic, int32_t partition,
                       const struct offset_value *value); /* value NULL: a tombstone */
void record_put_raw_tombstone(struct groups *c, struct slice key);

/* ---- load.c ---- */

void load_record(struct shard *s, const struct groups_record *r);
void load_own_record(struct shard *s, struct slice key, struct slice value); /* one of ours was committed */
void load_finished(struct shard *s);
void foreign_stage_tombstones(struct group *g);
void foreign_forget(struct group *g); /* it is a classic group without members from here on */

/* ---- store.c ---- */

struct offset_topic *store_topic(const struct group *g, struct slice name);
struct offset *store_find(const struct offset_topic *t, int32_t partition);
struct offset *store_get(struct group *g, struct slice topic, int32_t partition);     /* makes it */
void store_set(struct groups *c, struct offset *o, const struct offset_value *value); /* copies */
void store_unset(struct groups *c, struct offset *o);
void store_trim(struct offset_topic *t); /* drops entries with nothing in them, and then the topic itself */
void store_free(struct group *g);
void store_open(struct shard *s, struct group *g, struct slice topic, int32_t partition, int64_t producer_id,
                const struct offset_value *value);
void store_end_txn(struct shard *s, int64_t producer_id, bool commit);
void store_drop_open(struct offset_topic *t, int32_t partition);

/* ---- the APIs ---- */

void on_join(struct groups *c, const struct groups_request *q);
void on_sync(struct groups *c, const struct groups_request *q);
void on_heartbeat(struct groups *c, const struct groups_request *q);
void on_leave(struct groups *c, const struct groups_request *q);
void on_commit(struct groups *c, const struct groups_request *q);
void on_fetch(struct groups *c, const struct groups_request *q);
void on_offset_delete(struct groups *c, const struct groups_request *q);
void on_list(struct groups *c, const struct groups_request *q);
void on_describe(struct groups *c, const struct groups_request *q);
void on_delete(struct groups *c, const struct groups_request *q);
void remove_topic(struct groups *c, struct slice topic);
void remove_expired(struct groups *c);

/* Topics that the members of a consumer group read, sorted, in arena; -1: their subscriptions cannot be read. */
int32_t group_subscriptions(const struct group *g, struct arena *arena, struct slice **ret_topics);
bool subscriptions_have(const struct slice *topics, int32_t count, struct slice topic);

#endif
