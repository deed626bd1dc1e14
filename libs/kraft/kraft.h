/* kraft.h - the quorum of controllers: KRaft (KIP-595) without I/O.
 *
 *   UNATTACHED --election--> CANDIDATE --majority--> LEADER --KRAFT_RESIGN--> UNATTACHED
 *
 * The core decides; its owner does: it saves the quorum state, appends and flushes the log, and tells when that is
 * done. With one voter the candidate's own vote is the majority, and an election is over within one step. This release
 * refuses a log with more voters: their messages (Vote, BeginQuorumEpoch, Fetch) belong to the release that has several
 * controllers.
 *
 * I1  an epoch is saved (quorum-state) before a record of it is appended.
 * I2  high watermark <= flushed end <= log end; it never goes back.
 * I3  the first batch of an epoch is its leader change.
 * I4  one leader in an epoch: a vote is saved before it counts.
 *
 * Threading: the owner's thread only. */
#ifndef KARST_KRAFT_KRAFT_H
#define KARST_KRAFT_KRAFT_H

#include "libs/base/buf.h"
#include "libs/base/uuid.h"

struct kraft;

enum { KRAFT_VOTERS_MAX = 9, KRAFT_ENDPOINTS_MAX = 4, KRAFT_NAME_MAX = 255 };

struct kraft_endpoint {
    char name[KRAFT_NAME_MAX + 1], host[KRAFT_NAME_MAX + 1];
    uint16_t port;
};

struct kraft_voter {
    int32_t id;
    struct uuid directory_id;
    struct kraft_endpoint endpoints[KRAFT_ENDPOINTS_MAX];
    int32_t endpoint_count;
    int16_t kraft_version_min, kraft_version_max;
};

struct kraft_voters {
    struct kraft_voter voter[KRAFT_VOTERS_MAX];
    int32_t count;
};

/* The value of a voters' control record (VotersRecord), read and written. -EBADMSG: no such value, or more voters than
 * the bound. */
NODISCARD int kraft_voters_decode(struct slice value, struct kraft_voters *ret_voters);
void kraft_voters_encode(const struct kraft_voters *v, struct buf *out);

/* What the file quorum-state holds (QuorumStateData version 1). */
struct kraft_quorum_state {
    int32_t leader_id, leader_epoch, voted_id; /* ids -1: none */
    struct uuid voted_directory_id;
};
/* Kafka's JSON. Reading takes versions 0 and 1: -EBADMSG. */
NODISCARD int kraft_quorum_state_decode(struct slice json, struct kraft_quorum_state *ret_state);
void kraft_quorum_state_encode(const struct kraft_quorum_state *s, struct buf *out);

enum kraft_role { KRAFT_UNATTACHED, KRAFT_CANDIDATE, KRAFT_LEADER };

struct kraft_options {
    int32_t node_id;
    struct uuid directory_id;
    struct kraft_quorum_state state; /* all -1 (epoch 0) when there is no file */
    struct kraft_voters voters;      /* of the log or its snapshot */
    int16_t kraft_version;
    int64_t log_end;     /* the next offset */
    int32_t last_epoch;  /* of the log's last record, or of the snapshot; 0: none */
    bool log_has_voters; /* false: the voters come from the formatter's checkpoint, and the first leader writes them
                            down */
};

/* 0, or -EINVAL: this node is no voter, or -ENOTSUP: the voters are not one. */
NODISCARD int kraft_new(const struct kraft_options *o, struct kraft **ret_kraft);
struct kraft *kraft_free(struct kraft *k); /* takes NULL; returns NULL */

/* What the owner has to do, in this order. Answers come back as events. */
struct kraft_actions {
    bool save_state; /* write quorum-state durably, then KRAFT_STATE_SAVED */
    struct kraft_quorum_state state;
    struct slice append; /* a batch for the end of the log; size 0: none. Valid until the next step */
    bool became_leader;  /* of kraft_epoch; the leader change is in append */
    bool committed;      /* the high watermark moved */
};

enum kraft_event_kind {
    KRAFT_ELECT,       /* the election timeout is over; of one voter: at once at the start */
    KRAFT_STATE_SAVED, /* the state of save_state is durable */
    KRAFT_APPENDED,    /* the log's end is `offset` now (the owner's own batches, made for kraft_epoch, too) */
    KRAFT_FLUSHED,     /* what is before `offset` is durable */
    KRAFT_RESIGN,      /* orderly shutdown */
};

struct kraft_event {
    enum kraft_event_kind kind;
    int64_t offset;
    int64_t now_wall_ms;
};

void kraft_step(struct kraft *k, const struct kraft_event *e, struct kraft_actions *ret_actions);

enum kraft_role kraft_role(const struct kraft *k);
int32_t kraft_epoch(const struct kraft *k);
int32_t kraft_leader(const struct kraft *k); /* -1: not known */
int64_t kraft_log_end(const struct kraft *k);
int64_t kraft_high_watermark(const struct kraft *k); /* -1: not known yet in this epoch */
const struct kraft_voters *kraft_voters(const struct kraft *k);

#endif
