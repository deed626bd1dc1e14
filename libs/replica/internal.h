/* internal.h - inside libs/replica: what leader.c and follower.c share. */
#ifndef KARST_REPLICA_INTERNAL_H
#define KARST_REPLICA_INTERNAL_H

#include "libs/base/base.h"
#include "libs/replica/replica.h"

enum { EPOCH_NEVER_TOLD = -2 };

struct follower {
    int32_t id;
    int64_t start, end;          /* -1: not known */
    int64_t leader_end_at_fetch; /* our log's end when its last Read came */
    uint64_t fetch_ms;           /* when that was; 0: never */
    uint64_t caught_up_ms;       /* the last time at which it had all that we had; 0: never in this epoch */
    int64_t broker_epoch;        /* EPOCH_NEVER_TOLD: it has not read yet */
    bool watched;
    bool no_room; /* its disk is full, as its last Read says */
};

struct replica_ids {
    int32_t *at;
    int32_t count;
};

enum isr_change { ISR_COMMITTED, ISR_EXPANDS, ISR_SHRINKS };
enum follower_state { FOLLOWER_READS, FOLLOWER_WRITES, FOLLOWER_WAITS, FOLLOWER_STOPPED };

struct replica_core {
    struct replica_env env;
    int32_t min_isr;
    uint64_t lag_max_ms, backoff_ms;

    enum replica_role role;
    int32_t leader, leader_epoch, partition_epoch;
    struct replica_ids replicas;

    /* of a leader */
    int64_t epoch_start;
    int64_t log_end; /* as of the last event */
    struct follower *followers;
    size_t follower_count;
    struct replica_ids isr; /* committed */
    enum isr_change change;
    int32_t joining; /* ISR_EXPANDS: who */
    struct replica_member *proposed;
    int32_t proposed_count;
    uint64_t change_id;

    /* of a follower */
    enum follower_state state;
    uint64_t due_ms;                             /* FOLLOWER_WAITS */
    uint32_t waits;                              /* in a row */
    bool appends;                                /* FOLLOWER_WRITES: records, perhaps behind a cut */
    bool told;                                   /* what the leader has, in its epoch */
    uint64_t past;                               /* another one with each leader epoch and each cut */
    int64_t leader_start, leader_high_watermark; /* as told with the records that are being written */
};

/* core.c */
void replica_ids_set(struct replica_ids *l, const int32_t *from, int32_t count);
struct replica_action *replica_act(struct replica_actions *out, enum replica_action_kind kind);

/* leader.c */
void replica_lead_begin(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_lead_end(struct replica_core *c);
void replica_lead_appended(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_lead_fetched(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_lead_unwatched(struct replica_core *c, const struct replica_event *e);
void replica_lead_tick(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_lead_altered(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_lead_expand_any(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_lead_raise(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
struct follower *replica_known_follower(const struct replica_core *c, int32_t id);

/* follower.c */
void replica_follow_begin(struct replica_core *c, const struct replica_event *e, bool is_new_epoch,
                          struct replica_actions *out);
void replica_follow_told(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_follow_written(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_follow_cut(struct replica_core *c, const struct replica_event *e, struct replica_actions *out);
void replica_follow_tick(struct replica_core *c, const struct replica_event *e);

static inline bool replica_ids_has(const struct replica_ids *l, int32_t id)
{
    for (int32_t i = 0; i < l->count; i++) {
        if (l->at[i] == id)
            return true;
    }
    return false;
}

#endif
