/* replica.h - one partition's replication on one node, without I/O: what its leader knows of the followers, and what a
 * follower does with what its leader says. After Kafka's Partition, Replica and AbstractFetcherThread (KIP-101, 279,
 * 497, 841, 966).
 *
 *              REPLICA_STATE names us leader             REPLICA_STATE names another
 *   IDLE <------------------------------> LEADER <------------------------------> FOLLOWER
 *     ^                no leader                                                     |
 *     +------------------------------------------------------------------------------+
 *
 *   of a LEADER:    COMMITTED --REPLICA_DO_ALTER--> PENDING_EXPAND or PENDING_SHRINK --REPLICA_ALTERED--> COMMITTED
 *   of a FOLLOWER:  READS --told of records--> WRITES --REPLICA_WRITTEN--> READS
 *                   READS --told an error--> WAITS --REPLICA_TICK--> READS;  READS --it is fenced--> STOPPED
 *
 * The core decides, its owner does: an event goes in with the log as it is, actions come out and are to be done in
 * their order.
 *
 * I1  the high watermark never goes back but where the log is cut below it.
 * I2  a leader's high watermark is at or below the end of each replica of the maximal ISR, which holds whoever may be
 *     in the ISR by now: the committed one, and the one that a pending expansion adds; a pending shrink takes nobody
 *     out before the controller has said so.
 * I3  one change of the ISR is pending at most; the controller's answer counts only for that one.
 * I4  a follower appends only behind its log's end, and only what its leader said in the present leader epoch, of the
 *     log as it is: not of one that was cut since.
 * I5  a partition epoch never goes back.
 *
 * Numbers of peers never meet an assert. Times are monotonic ms. Threading: the owner's thread only. */
#ifndef KARST_REPLICA_REPLICA_H
#define KARST_REPLICA_REPLICA_H

#include "libs/base/kafka_error.h"

struct replica_core;

enum { REPLICA_NOBODY = -1, REPLICA_EPOCH_UNKNOWN = -1 };

/* What the metadata says of a node. */
struct replica_broker {
    int64_t epoch;
    bool fenced, shutting_down;
};

struct replica_env {
    int32_t node_id;
    void *ctx;
    /* False: no such node is registered. */
    bool (*broker)(void *ctx, int32_t id, struct replica_broker *ret_broker);
    /* When the node's last Read of all that it watches (REPLICA_FETCHED, `watched`) came. */
    uint64_t (*last_read_ms)(void *ctx, int32_t id);
};

NODISCARD struct replica_core *replica_new(const struct replica_env *env);
struct replica_core *replica_free(struct replica_core *c); /* takes NULL; returns NULL */
/* min.insync.replicas, replica.lag.time.max.ms, replica.fetch.backoff.ms; at once after replica_new. */
void replica_configure(struct replica_core *c, int32_t min_isr, uint64_t lag_max_ms, uint64_t backoff_ms);

/* ---- events ---- */

/* The log at this moment. */
struct replica_log {
    int64_t start, end, high_watermark;
    int64_t safe_end;     /* before it all is as durable as flush.messages asks for */
    int32_t latest_epoch; /* -1: none */
};

/* The partition as the metadata has it. */
struct replica_state {
    int32_t leader, leader_epoch, partition_epoch; /* leader -1: none */
    const int32_t *replicas, *isr;
    int32_t replica_count, isr_count;
};

enum replica_event_kind {
    REPLICA_STATE,      /* state */
    REPLICA_CONFIGURED, /* replica_configure was called */
    REPLICA_APPENDED,   /* a leader's log has grown, or more of it is durable */
    REPLICA_FETCHED,    /* `follower` (replica_check_follower) reads from `offset` on: what is before it is in its log.
                           watched: its later Reads    mean the same offset until REPLICA_FETCHED says another */
    REPLICA_UNWATCHED,  /* they do no more */
    REPLICA_TICK, /* time has passed: at half of the lag, and at replica_due; or brokers were fenced, or are no more */
    REPLICA_ALTERED, /* the controller's answer to the change of the ISR with that `id` */
    REPLICA_TOLD,    /* the leader's answer to a follower's Read */
    REPLICA_WRITTEN, /* what REPLICA_DO_APPEND brought is in the log, and flushed where that is asked for. With an
                        error it is not: CORRUPT_MESSAGE and the like are tried again, a failed disk is final */
    REPLICA_CUT,     /* REPLICA_DO_TRUNCATE or _RESTART is done */
};

struct replica_event {
    enum replica_event_kind kind;
    uint64_t now_ms;
    struct replica_log log;
    const struct replica_state *state;
    /* FETCHED, UNWATCHED */
    int32_t follower;
    int64_t broker_epoch; /* of its Read; -1: not checked */
    int64_t offset;       /* TOLD: the one that was asked for */
    int64_t log_start;    /* of the follower */
    bool watched;
    bool no_room; /* its disk is full: it does not come in sync, and nobody waits for it to do so */
    /* ALTERED, TOLD, WRITTEN */
    enum kafka_error error;
    uint64_t id;             /* TOLD: replica_past when the Read left */
    int32_t leader_epoch;    /* ALTERED: the controller's */
    int32_t partition_epoch; /* ALTERED */
    const int32_t *isr;
    int32_t isr_count;
    /* TOLD; bounds -1: not said */
    int64_t leader_start, leader_end, leader_high_watermark;
    int32_t diverging_epoch; /* -1: none */
    int64_t diverging_end;
    int32_t own_epoch; /* log_end_of_epoch of our log for diverging_epoch */
    int64_t own_end;
    bool has_records;
    int64_t first_offset, last_offset; /* of the first batch, with records */
};

/* ---- actions ---- */

enum replica_action_kind {
    REPLICA_DO_LEAD,           /* leader_epoch begins at the log's end */
    REPLICA_DO_FOLLOW,         /* Reads go to `leader` from now on; those under way count no more */
    REPLICA_DO_REST,           /* there is nobody to follow */
    REPLICA_DO_END_WAITS,      /* whoever waits for the leader of before is told that it is none (any more) */
    REPLICA_DO_HIGH_WATERMARK, /* it moves to offset */
    REPLICA_DO_ALTER,          /* the controller is asked for `isr`; then REPLICA_ALTERED with `id` */
    REPLICA_DO_APPEND,         /* the records that were told of; then REPLICA_WRITTEN */
    REPLICA_DO_TRUNCATE,       /* to offset; then REPLICA_CUT */
    REPLICA_DO_RESTART,        /* the log is emptied and goes on at offset; then REPLICA_CUT. With records behind it, if
                                  REPLICA_DO_APPEND follows */
    REPLICA_DO_LOG_START,      /* it moves to offset */
};

/* A member of the ISR as the controller is told of it. */
struct replica_member {
    int32_t id;
    int64_t broker_epoch; /* -1: not known; our own is the owner's to fill in */
};

struct replica_action {
    enum replica_action_kind kind;
    int32_t leader, leader_epoch, partition_epoch;
    int64_t offset;
    uint64_t id;
    const struct replica_member *isr; /* valid until the change is answered */
    int32_t isr_count;
};

enum { REPLICA_ACTIONS_MAX = 6 };
struct replica_actions {
    size_t count;
    struct replica_action at[REPLICA_ACTIONS_MAX];
};

void replica_step(struct replica_core *c, const struct replica_event *e, struct replica_actions *ret_actions);

/* ---- looking at it ---- */

enum replica_role { REPLICA_IDLE, REPLICA_LEADER, REPLICA_FOLLOWER };
enum replica_role replica_role(const struct replica_core *c);
int32_t replica_leader(const struct replica_core *c);
int32_t replica_leader_epoch(const struct replica_core *c);
int32_t replica_partition_epoch(const struct replica_core *c);
/* Of a leader: where its epoch began; -1: not a leader. Until the high watermark is there, what was committed before
 * is not known (OFFSET_NOT_AVAILABLE). */
int64_t replica_epoch_start(const struct replica_core *c);

/* May records be taken with these acks? NONE or NOT_ENOUGH_REPLICAS. */
enum kafka_error replica_may_append(const struct replica_core *c, int32_t acks);
/* The high watermark has passed an append with acks=all: NONE, or NOT_ENOUGH_REPLICAS_AFTER_APPEND. */
enum kafka_error replica_acknowledge(const struct replica_core *c);
/* May the node read as a follower, with the epoch of its registration (-1: not checked)? NONE; NOT_LEADER_OR_FOLLOWER:
 * we do not lead, or the epoch is of an earlier life of it; UNKNOWN_LEADER_EPOCH: it is no replica as far as we know
 * yet, and is to ask again. Only of a Read that this allows, and that the log can answer, REPLICA_FETCHED may tell. */
enum kafka_error replica_check_follower(const struct replica_core *c, int32_t id, int64_t broker_epoch);
bool replica_is_in_sync(const struct replica_core *c, int32_t id); /* in the committed ISR */
bool replica_is_assigned(const struct replica_core *c, int32_t id);
/* What a leader knows of its followers. */
struct replica_follower {
    int32_t id;
    int64_t log_start, log_end; /* -1: not known yet */
    uint64_t caught_up_ms;
};
size_t replica_follower_count(const struct replica_core *c);
struct replica_follower replica_follower_at(const struct replica_core *c, size_t i);
/* The least log start of the leader and its followers that are alive, for DeleteRecords. */
int64_t replica_low_watermark(const struct replica_core *c, int64_t log_start);

/* Of a follower: is it to Read now? From the log's end on. */
bool replica_reads(const struct replica_core *c);
/* What its log was cut from since, and in which leader epoch it reads: an answer to a Read that left in another past
 * counts no more, or one that came late would cut what was read again since. */
uint64_t replica_past(const struct replica_core *c);
/* How many offsets of what is committed it lacks, as far as it was told; before it was told at all: 1. */
int64_t replica_lag(const struct replica_core *c, int64_t log_end);
/* When REPLICA_TICK lets it read again; UINT64_MAX: nothing waits for the time. */
uint64_t replica_due(const struct replica_core *c);

/* The invariants; in tests. */
void replica_check(const struct replica_core *c, const struct replica_log *log);

#endif
