/* kraft_internal.h - the state of the core, and what its rooms ask of each other. Internal to this folder.
 *
 *   kraft.c     events, roles, timers        election.c  votes, asked and given
 *   leader.c    fetches answered, the high watermark, resigning   follower.c  fetches asked, truncation, snapshots
 *   lineage.c   epochs and voters of the log   change.c   voters added and removed */
#ifndef KARST_KRAFT_KRAFT_INTERNAL_H
#define KARST_KRAFT_KRAFT_INTERNAL_H

#include "libs/kraft/kraft.h"
#include "libs/records/records.h"

enum { PEERS_MAX = 64, PARKED_MAX = 128, WAIT_MAX_MS = 10000 };

enum vote { VOTE_UNASKED, VOTE_GRANTED, VOTE_REJECTED };

/* Another node: a voter, a node to ask for the leader, or an observer that has fetched here. */
struct peer {
    int32_t id;
    struct uuid directory_id; /* zero: not known, or a static voter */
    enum vote vote;           /* of the election that is going on */
    uint64_t request;         /* under way to it; 0: none */
    enum kraft_message_kind asked;
    uint64_t retry_at;
    /* As a leader sees it, in its epoch. */
    int64_t end;                          /* all before it is durable there; -1: not known */
    bool fetched, told;                   /* told: it has answered BeginQuorumEpoch or EndQuorumEpoch */
    uint64_t last_fetch_ms, caught_up_ms; /* with fetched; 0: never caught up */
    int64_t last_fetch_end;               /* the log's end at its last fetch */
};

/* A Fetch that waits for something to answer. */
struct parked {
    uint64_t id, deadline;
    int32_t from;
    struct uuid from_directory;
    int64_t offset, high_watermark;
    uint32_t max_bytes;
};

/* The voters that a record at offset names; -1: not in the log, but in the formatter's checkpoint or the
 * configuration. */
struct voter_set {
    int64_t offset;
    int16_t kraft_version;
    struct kraft_voters voters;
};

struct kraft {
    /* who we are, and how patient */
    int32_t node_id;
    struct uuid directory_id;
    uint32_t election_ms, fetch_ms, backoff_max_ms, retry_ms, request_ms, fetch_bytes, snapshot_bytes;
    bool auto_join;
    struct kraft_voter self;
    uint64_t random;

    /* of this step */
    uint64_t now_ms;
    int64_t now_wall_ms;
    struct kraft_action *actions;
    size_t action_count, action_room;
    struct buf batch; /* of a leader change or voters */

    /* quorum-state */
    enum kraft_role role;
    struct kraft_quorum_state state, saved;

    /* the log */
    int64_t log_start, log_end, flushed, high_watermark, leader_high_watermark;
    int64_t snapshot_end;
    int32_t snapshot_epoch;
    struct kraft_epoch_start *epochs;
    size_t epoch_count, epoch_room;
    struct voter_set **sets; /* the oldest that may become valid again, and those behind it; never empty */
    size_t set_count;

    /* roles */
    uint64_t deadline; /* election or fetch timeout, check-quorum; UINT64_MAX: none */
    uint32_t losses;   /* elections in a row: for the back-off */
    bool lost;         /* candidate: the election is over, deadline ends the back-off */
    bool fetched;      /* follower: from this leader, in this epoch */
    int64_t epoch_start;
    struct peer peers[PEERS_MAX];
    size_t peer_count, next_asked;
    uint64_t last_request;
    struct parked parked[PARKED_MAX];
    size_t parked_count;

    /* follower: the snapshot that comes in */
    struct buf snapshot;
    int64_t incoming_end; /* -1: none */
    int32_t incoming_epoch;

    /* leader: voters being changed (change.c) */
    uint64_t change; /* the request; 0: none that waits */
    enum kraft_message_kind change_kind;
    uint64_t join_at;          /* when to ask again to become a voter, or to have the record of us changed */
    bool update_self, claimed; /* claimed: the leader knows who we are, beside the static voters */
    struct kraft_voter corrected;
    struct kraft_voters claims; /* leader with static voters: what they said of themselves in its epoch */
    bool has_voted;             /* was a voter in this life: one that was removed does not join by itself again */
};

/* kraft.c */
struct kraft_action *kraft_do(struct kraft *k, enum kraft_action_kind kind);
/* The answer to the request id, with our epoch and leader in it; to be filled further. */
struct kraft_message *kraft_reply(struct kraft *k, enum kraft_message_kind kind, uint64_t id, enum kafka_error error);
/* A request to a peer, with our names and epoch in it; NULL: one is under way, or it is not time again. */
struct kraft_message *kraft_ask(struct kraft *k, struct peer *p, enum kraft_message_kind kind);
void kraft_save(struct kraft *k); /* if the state has changed */
uint64_t kraft_random_below(struct kraft *k, uint64_t n);
void kraft_halt(struct kraft *k, const char *text);
struct peer *kraft_peer(struct kraft *k, int32_t id, struct uuid directory_id); /* NULL: not known */
struct peer *kraft_add_peer(struct kraft *k, int32_t id, struct uuid directory_id);
void kraft_voters_changed(struct kraft *k);
/* May stand for election: a voter, or one until a removal that is not known to be committed. The others may not have
 * heard of the removal, and then need the one who has its record (Raft's thesis, 4.2.2). */
bool kraft_may_lead(const struct kraft *k);
bool kraft_is_voter_key(const struct kraft *k, int32_t id, struct uuid directory_id);
bool kraft_same_replica(int32_t id, struct uuid directory_id, int32_t other, struct uuid other_directory);
void kraft_to_unattached(struct kraft *k, int32_t epoch);
void kraft_to_follower(struct kraft *k, int32_t epoch, int32_t leader);
void kraft_to_resigned(struct kraft *k);
void kraft_leave_role(struct kraft *k);
/* Another node says what it knows: true when its epoch is ours now. */
bool kraft_learn(struct kraft *k, const struct kraft_message *m);
/* A random time, so that not all try at once. */
uint64_t kraft_fetch_deadline(struct kraft *k);
uint64_t kraft_election_deadline(struct kraft *k);
void kraft_check(const struct kraft *k);

/* election.c */
void election_prospective(struct kraft *k);
void election_pump(struct kraft *k);
void election_on_request(struct kraft *k, uint64_t id, const struct kraft_message *m);
void election_on_response(struct kraft *k, struct peer *p, const struct kraft_message *m);

/* leader.c */
void leader_begin(struct kraft *k);
void leader_pump(struct kraft *k);
void leader_resigned_pump(struct kraft *k);
void leader_flushed(struct kraft *k);
void leader_update_high_watermark(struct kraft *k);
void leader_on_fetch(struct kraft *k, uint64_t id, const struct kraft_message *m);
void leader_on_fetch_snapshot(struct kraft *k, uint64_t id, const struct kraft_message *m);
void leader_gone(struct kraft *k, uint64_t id);
void leader_end_parked(struct kraft *k);
/* version -1, voters NULL: it is not written. */
void leader_append_control(struct kraft *k, bool leader_change, int16_t version, const struct kraft_voters *voters);

/* follower.c */
void follower_pump(struct kraft *k);
void follower_discover(struct kraft *k);
void follower_flushed(struct kraft *k);
void follower_on_begin(struct kraft *k, uint64_t id, const struct kraft_message *m);
void follower_on_end(struct kraft *k, uint64_t id, const struct kraft_message *m);
void follower_on_fetched(struct kraft *k, struct peer *p, const struct kraft_message *m);
void follower_on_snapshot(struct kraft *k, struct peer *p, const struct kraft_message *m);
void follower_drop_snapshot(struct kraft *k);

/* lineage.c */
int32_t lineage_last_epoch(const struct kraft *k); /* 0: none */
/* The largest epoch <= asked for, and where it ends; false: all that is known is later. */
bool lineage_end_of(const struct kraft *k, int32_t epoch, int32_t *ret_epoch, int64_t *ret_end);
void lineage_add_epoch(struct kraft *k, int32_t epoch, int64_t start);
void lineage_truncate(struct kraft *k, int64_t end);
void lineage_restart(struct kraft *k, int64_t end, int32_t epoch);
/* Whole batches from `at` on. Their voters count from now on. 0; -EBADMSG: not batches, not in order, or of an epoch
 * above the bound: nothing has changed then. *ret_end: behind the last; *ret_size: bytes of whole batches. */
NODISCARD int lineage_scan(struct kraft *k, struct slice bytes, int64_t at, int32_t epoch_max, int64_t *ret_end,
                           size_t *ret_size);
void lineage_add_voters(struct kraft *k, int64_t offset, int16_t version, const struct kraft_voters *voters);
const struct voter_set *lineage_voters(const struct kraft *k);
void lineage_forget_old(struct kraft *k); /* sets before the high watermark's */
/* Voters and version of a whole snapshot; false: it names none. -EBADMSG in *ret_error. */
bool lineage_snapshot_voters(struct slice snapshot, struct kraft_voters *ret_voters, int16_t *ret_version);

/* change.c */
void change_on_request(struct kraft *k, uint64_t id, const struct kraft_message *m);
void change_committed(struct kraft *k); /* the high watermark moved */
void change_end(struct kraft *k, enum kafka_error error);
void change_pump(struct kraft *k); /* follower: asks to join, or to have changed what the record says of us */
void change_lead(struct kraft *k); /* leader: changes that itself */

#endif
