/* groups.h - the group coordinator: classic groups and committed offsets, as a core without I/O.
 *
 * One `struct groups` holds the partitions of __consumer_offsets that this process owns. A partition lives like this:
 *
 *   absent --ACQUIRE--> loading --LOADED--> active --RELEASE--> absent
 *                          ^                   | an append failed, or nobody knows how it ended
 *                          +-------------------+ everything in memory is dropped; GROUPS_ACTION_LOAD asks for the log
 * again
 *
 * State is only in the topic. A request changes memory and stages records in Kafka's own formats (records.c);
 * GROUPS_EVENT_FLUSH hands out one batch a partition, at most one is in flight per partition, and the answers that rest
 * on a batch leave after GROUPS_EVENT_APPENDED said that it is committed. Committed offsets become visible only then.
 * The partition of a group is slice_coordinator_partition(group id, partition count).
 *
 * Not served: consumer, share and streams groups. Their records are kept as they are; such a group is listed with its
 * type, its offsets can be read, and a classic member can join only when it is an empty consumer or streams group (then
 * its records are deleted, as Kafka does).
 *
 * I1  a request is answered exactly once, by one GROUPS_ACTION_REPLY, possibly in a later step.
 * I2  an answer that says "done" leaves only after the records behind it are committed.
 * I3  a group is in one partition and has at most group_max_size joining members; a static instance id names at most
 * one member. I4  after any failed append nothing of the uncommitted state is left. I5  memory held for groups stays
 * under memory_max_bytes, but for what the log itself holds. groups_check() proves what it can of these.
 *
 * Errors go to the clients as Kafka error codes in responses. Threading: one thread. Nothing here reads a clock. */
#ifndef KARST_GROUPS_GROUPS_H
#define KARST_GROUPS_GROUPS_H

#include "libs/base/arena.h"
#include "libs/base/uuid.h"

struct groups;

/* Kafka's keys in comments; times in ms. */
struct groups_config {
    int32_t initial_rebalance_delay_ms;  /* group.initial.rebalance.delay.ms */
    int32_t session_timeout_min_ms;      /* group.min.session.timeout.ms */
    int32_t session_timeout_max_ms;      /* group.max.session.timeout.ms */
    int32_t group_max_size;              /* group.max.size */
    int32_t new_member_timeout_ms;       /* a first join may be parked this long: 5 minutes, no key */
    int32_t metadata_max_bytes;          /* offset.metadata.max.bytes */
    int64_t retention_ms;                /* offsets.retention.minutes */
    int64_t retention_check_interval_ms; /* offsets.retention.check.interval.ms */
    size_t batch_max_bytes;              /* records of one append: max.message.bytes of the topic less the header */
    size_t memory_max_bytes;             /* of groups, members and offsets; beyond it joins get 81, commits 15 */
};
void groups_config_init(struct groups_config *ret_config); /* Kafka's defaults */

/* What the core asks during a step; each answer must not change within one step. */
struct groups_env {
    void *ctx;
    void (*random)(void *ctx, uint8_t out[16]);
    /* Topics of the present image; false: no such topic. Names stay valid until the step ends. */
    bool (*topic_by_name)(void *ctx, struct slice name, struct uuid *ret_id, int32_t *ret_partitions);
    bool (*topic_by_id)(void *ctx, struct uuid id, struct slice *ret_name, int32_t *ret_partitions);
};

struct groups_now {
    uint64_t mono_ms; /* for timeouts */
    int64_t wall_ms;  /* for what is stored: commit and state timestamps */
};

/* One record of the topic, as read from the log. The bytes are only looked at during the step. */
struct groups_record {
    int64_t offset;
    int64_t producer_id; /* of its batch; -1: none */
    int16_t producer_epoch;
    bool transactional, control; /* of its batch */
    struct slice key, value;     /* value null: a tombstone */
};

enum groups_event_kind {
    GROUPS_EVENT_ACQUIRE,       /* partition, epoch: we own it now. An epoch no newer than the known one is ignored */
    GROUPS_EVENT_RELEASE,       /* partition: another owns it; who waits is answered 16 */
    GROUPS_EVENT_LOAD_RECORDS,  /* partition, epoch, load, records, record_count: the log from its start, in order */
    GROUPS_EVENT_LOADED,        /* partition, epoch, load: the end was reached and is committed */
    GROUPS_EVENT_RELOAD,        /* partition: the load cannot be finished; drop it and ask for another */
    GROUPS_EVENT_REQUEST,       /* request */
    GROUPS_EVENT_APPENDED,      /* partition, append, error: how an append ended; error 0: committed */
    GROUPS_EVENT_TOPIC_DELETED, /* topic: its committed offsets go */
    GROUPS_EVENT_FLUSH,         /* the end of a turn: hand out what was staged */
    GROUPS_EVENT_TIME,          /* groups_deadline_ms has passed */
};

/* A request of a client. message is the struct of its API (kafka_join_group_request ...), looked at only during the
 * step. Served: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, OffsetFetch, OffsetDelete, ListGroups,
 * DescribeGroups, DeleteGroups. */
struct groups_request {
    uint64_t id; /* the adapter's name for it: comes back in the reply */
    int16_t api_key, api_version;
    struct slice client_id, client_host;
    const void *message;
};

struct groups_event {
    enum groups_event_kind kind;
    int32_t partition;
    int32_t epoch;   /* the coordinator epoch that the controller gave */
    uint64_t load;   /* of the GROUPS_ACTION_LOAD that asked; another one's records are ignored */
    uint64_t append; /* of the GROUPS_ACTION_APPEND */
    int error;       /* APPENDED: a Kafka error code; any but 0 means that it may or may not be in the log */
    const struct groups_record *records;
    size_t record_count;
    const struct groups_request *request;
    struct slice topic;
};

enum groups_action_kind {
    GROUPS_ACTION_REPLY,  /* answer the request with response, the struct of its API */
    GROUPS_ACTION_APPEND, /* append the records to the partition as one batch; answer with GROUPS_EVENT_APPENDED */
    GROUPS_ACTION_LOAD,   /* read the partition from its start; answer with LOAD_RECORDS ... LOADED */
};

struct groups_action {
    enum groups_action_kind kind;
    /* REPLY */
    uint64_t request;
    int16_t api_key, api_version;
    const void *response;
    /* APPEND, LOAD */
    int32_t partition, epoch;
    uint64_t append, load;
    const struct groups_record *records; /* key and value count; the rest is unset */
    size_t record_count;
    int64_t timestamp_ms; /* wall time that the records get */
};

/* What a step wants done, in order. Everything in it is valid until the next step. */
struct groups_out {
    const struct groups_action *actions;
    size_t count;
};

/* Takes copies of both. */
NODISCARD struct groups *groups_new(const struct groups_config *config, const struct groups_env *env);
struct groups *groups_free(struct groups *g); /* requests that wait stay unanswered; takes NULL, returns NULL */

/* The partition count of __consumer_offsets; 0 (at the start): the topic does not exist and every group is answered 15.
 * It never shrinks. */
void groups_set_partition_count(struct groups *g, int32_t count);
/* When max.message.bytes of the topic changes: batch_max_bytes from now on. */
void groups_set_batch_max(struct groups *g, size_t bytes);
int32_t groups_partition_count(const struct groups *g);

void groups_step(struct groups *g, const struct groups_event *event, struct groups_now now, struct groups_out *ret_out);

/* When GROUPS_EVENT_TIME is due, in mono_ms; UINT64_MAX: never. */
uint64_t groups_deadline_ms(const struct groups *g);
/* Something is staged for GROUPS_EVENT_FLUSH. */
bool groups_dirty(const struct groups *g);

/* For status, tests and the simulator. */
size_t groups_count(const struct groups *g);
size_t groups_memory_bytes(const struct groups *g);
bool groups_owns(const struct groups *g, int32_t partition, int32_t *ret_epoch, bool *ret_loaded);
/* Records that could not be read while loading: they are left alone. The adapter logs a rise. */
uint64_t groups_unreadable(const struct groups *g);
void groups_check(const struct groups *g); /* ends the process when an invariant is broken */

#endif
