/* kraft.h - the quorum of controllers: KRaft (KIP-595, 630, 853, 996) without I/O.
 *
 *                 no majority, time over
 *        +------------------------------------+
 *        v                                    |
 *   UNATTACHED --election timeout--> PROSPECTIVE --majority of pre-votes--> CANDIDATE --majority--> LEADER
 *     |    ^                           |  ^   ^                               |                       |
 *     |    | a higher epoch without    |  |   +---- back-off after a loss ----+    no majority fetches |
 *     |    | a leader (from any role)  |  |                                        or KRAFT_RESIGN     v
 *     |    +---------------------------+  +--------------- election timeout --------------------- RESIGNED
 *     |                                |
 *     +--- a leader is heard of ---> FOLLOWER --fetch timeout--> PROSPECTIVE (a voter), UNATTACHED (an observer)
 *
 * Kafka's "Voted" is UNATTACHED with a vote in the state, its "Observer" any role of a node that is no voter: it
 * fetches, and neither elects nor counts. A node that alone is the quorum goes from UNATTACHED to LEADER in one step.
 *
 * The core decides; its owner does. An event goes in, a list of actions comes out, to be done in their order: the next
 * one begins when the one before is finished, and what a KRAFT_DO_SAVE, _TRUNCATE or _INSTALL is to make durable is
 * durable then. Appended batches may be flushed later, with others: KRAFT_FLUSHED tells of it. An action that fails
 * ends the process, as nobody knows what is on its disk.
 *
 * I1  an epoch and a vote are saved before a record of the epoch is appended and before a message says so.
 * I2  high watermark <= flushed <= log end; none but the log end goes back, and that never below the high watermark.
 * I3  the first batch of a leader in its epoch is its leader change, and it commits nothing before that is committed.
 * I4  one vote an epoch, and none in an epoch whose leader is known: so an epoch has one leader.
 * I5  epochs and offsets of the lineage rise together; the last epoch is that of the log's last record.
 * I6  a leader has at most one set of voters that is not committed (KIP-853), and none before I3's commit.
 * I7  a request is answered once; a request of ours has one answer or failure that counts.
 *
 * Bytes and numbers of peers never meet an assert. Threading: the owner's thread only. */
#ifndef KARST_KRAFT_KRAFT_H
#define KARST_KRAFT_KRAFT_H

#include "libs/base/buf.h"
#include "libs/base/kafka_error.h"
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

enum kraft_role {
    KRAFT_UNATTACHED,
    KRAFT_PROSPECTIVE,
    KRAFT_CANDIDATE,
    KRAFT_LEADER,
    KRAFT_FOLLOWER,
    KRAFT_RESIGNED,
};
const char *kraft_role_name(enum kraft_role role);

/* An epoch of the log and its first offset. */
struct kraft_epoch_start {
    int32_t epoch;
    int64_t start;
};

struct kraft_options {
    int32_t node_id;
    struct uuid directory_id;
    struct kraft_quorum_state state; /* all -1 (epoch 0) when there is no file */
    struct kraft_voters voters;      /* of the newest snapshot, or the formatter's, or the configuration's */
    int16_t kraft_version;
    bool log_has_voters; /* false: the first leader writes them down */
    /* The log and the newest snapshot; snapshot_end -1: there is none. All that is there is durable. */
    int64_t log_start, log_end, snapshot_end;
    int32_t snapshot_epoch;
    const struct kraft_epoch_start *epochs; /* of the log, in order */
    size_t epoch_count;
    const int32_t *others; /* nodes to ask for the leader while no voter is known; may be NULL */
    size_t other_count;
    /* controller.quorum.*; all in ms; 0: Kafka's defaults */
    uint32_t election_ms, fetch_ms, backoff_max_ms, retry_ms, request_ms;
    uint32_t fetch_bytes, snapshot_bytes; /* of one answer; 0: 1 MiB */
    bool auto_join; /* controller.quorum.auto.join.enable: an observer that has caught up asks to become a voter */
    struct kraft_voter self; /* what it asks with: its endpoints and versions */
    bool update_self;        /* a voter of whom the record says otherwise has it changed (UpdateRaftVoter) */
    uint64_t seed;           /* random: election timeouts come of it */
    uint64_t now_ms;         /* monotonic */
};

/* -EINVAL: more voters than the bound, or epochs out of order. */
NODISCARD int kraft_new(const struct kraft_options *o, struct kraft **ret_kraft);
struct kraft *kraft_free(struct kraft *k); /* takes NULL; returns NULL */
/* Before the first event: the batches of the log from the snapshot's end on, in their order, for the voters in them.
 * 0, -EBADMSG. */
NODISCARD int kraft_replay(struct kraft *k, struct slice batches);

/* ---- messages ---- */

/* Kafka's requests of the quorum, and their responses, in one shape: what a kind does not name is 0. */
enum kraft_message_kind {
    KRAFT_VOTE,
    KRAFT_BEGIN_EPOCH,
    KRAFT_END_EPOCH,
    KRAFT_FETCH,
    KRAFT_FETCH_SNAPSHOT,
    KRAFT_ADD_VOTER,
    KRAFT_REMOVE_VOTER,
    KRAFT_UPDATE_VOTER,
    KRAFT_UPGRADE, /* of the leader's owner alone: static voters become dynamic ones, kraft.version 1 */
};
enum { KRAFT_MESSAGE_KINDS = KRAFT_UPDATE_VOTER + 1 }; /* that go between nodes */

struct kraft_message {
    enum kraft_message_kind kind;
    int32_t from; /* the sender; -1: none of the quorum (a tool) */
    struct uuid from_directory;
    enum kafka_error error; /* of a response */
    int32_t epoch;          /* the sender's */
    int32_t leader;         /* of a response: of that epoch; -1: not known */
    /* Vote */
    struct uuid to_directory; /* of a request; zero: any */
    bool pre_vote, granted;
    /* Vote: the candidate's log; Fetch: where to go on */
    int64_t offset;
    int32_t last_epoch; /* of the record before offset */
    /* Fetch: both ways */
    int64_t high_watermark, log_start; /* -1: not known */
    uint32_t wait_ms, max_bytes;
    /* Fetch, response: the logs part ways */
    int64_t diverging_end; /* -1: no */
    int32_t diverging_epoch;
    /* Fetch, response: take this snapshot (-1: no). FetchSnapshot, both ways: of which one */
    int64_t snapshot_end;
    int32_t snapshot_epoch;
    int64_t position;   /* of bytes in the snapshot */
    int64_t size;       /* response: of the whole snapshot */
    struct slice bytes; /* records, a piece of a snapshot */
    /* EndQuorumEpoch: who should be next, the best first */
    int32_t successors[KRAFT_VOTERS_MAX], successor_count;
    /* AddRaftVoter, UpdateRaftVoter: the voter; RemoveRaftVoter: id and directory of it. NULL: none */
    const struct kraft_voter *voter;
    const char *text; /* response: says more about an error; static; or NULL */
};

/* What the leader last answered to a request about ourselves as a voter: one that it refuses is sent again each second
 * for as long. Zero at first. */
struct kraft_told {
    enum kraft_message_kind kind;
    enum kafka_error error;
};
/* Notes such an answer; true: it is another than the last one. False for all other messages. */
NODISCARD bool kraft_is_news(struct kraft_told *t, const struct kraft_message *answer);

/* ---- actions ---- */

enum kraft_action_kind {
    KRAFT_DO_SAVE,     /* state: quorum-state, durable */
    KRAFT_DO_APPEND,   /* bytes: whole batches for the log's end; then KRAFT_FLUSHED when they are durable */
    KRAFT_DO_TRUNCATE, /* offset: the log ends there; what is staged is committed before or dropped */
    KRAFT_DO_INSTALL,  /* bytes are the whole snapshot offset, epoch: it is the newest, the log is empty and goes on at
                          offset */
    KRAFT_DO_SEND,     /* message to node `to`, within message.wait_ms + timeout_ms; then KRAFT_RESPONSE or
                          KRAFT_FAILED with `id` */
    KRAFT_DO_REPLY,    /* message to the request `id`. bytes of a Fetch are read by the owner: from message.offset,
                          before `offset`, up to message.max_bytes; of a FetchSnapshot from message.position */
    KRAFT_DO_LEAD,     /* this node leads kraft_epoch; the leader change is behind it */
    KRAFT_DO_UNLEAD,   /* and does no more: what it decided and is not committed may be lost */
    KRAFT_DO_COMMIT,   /* the high watermark moved */
    KRAFT_DO_HALT,     /* text: what is on this disk contradicts the quorum; the process ends */
};

struct kraft_action {
    enum kraft_action_kind kind;
    int32_t to, epoch;
    uint64_t id;
    int64_t offset;
    uint32_t timeout_ms;
    struct slice bytes; /* valid until the next step, as long as the event's bytes are */
    struct kraft_quorum_state state;
    struct kraft_message message;
    const char *text;
};

struct kraft_actions {
    const struct kraft_action *action; /* valid until the next step */
    size_t count;
};

/* ---- events ---- */

enum kraft_event_kind {
    KRAFT_TICK,     /* time has passed: at kraft_deadline at the latest */
    KRAFT_APPENDED, /* the owner's own batches, made for kraft_epoch while leading: the log's end is `offset` now */
    KRAFT_FLUSHED,  /* what is before `offset` is durable */
    KRAFT_REQUEST,  /* message; `id` names it in the reply */
    KRAFT_GONE,     /* nobody waits for the answer to `id` any more; it is answered all the same */
    KRAFT_RESPONSE, /* message, to the request `id` */
    KRAFT_FAILED,   /* the request `id` has no answer */
    KRAFT_SNAPSHOT, /* the owner has a snapshot offset, epoch of what is committed; its log starts at `start` */
    KRAFT_LOST,   /* the owner knows that the leader `node` is gone: its fetch timeout is over now. A pre-vote disturbs
                     nobody who hears it all the same */
    KRAFT_RESIGN, /* orderly shutdown: a leader says so to the others */
};

struct kraft_event {
    enum kraft_event_kind kind;
    uint64_t now_ms; /* monotonic */
    int64_t now_wall_ms;
    int64_t offset, start;
    int32_t epoch, node;
    uint64_t id;
    const struct kraft_message *message;
};

struct kraft_actions kraft_step(struct kraft *k, const struct kraft_event *e);
/* When to step with KRAFT_TICK, in now_ms of the events. */
uint64_t kraft_deadline(const struct kraft *k);

/* ---- looking at it ---- */

enum kraft_role kraft_role(const struct kraft *k);
int32_t kraft_epoch(const struct kraft *k);
int32_t kraft_leader(const struct kraft *k); /* -1: not known */
bool kraft_is_voter(const struct kraft *k);
/* The same, by a set that is known to be committed: the next leader cannot take it back. */
bool kraft_is_voter_for_good(const struct kraft *k);
int64_t kraft_log_end(const struct kraft *k);
int64_t kraft_high_watermark(const struct kraft *k); /* -1: not known yet in this life */
int64_t kraft_epoch_start(const struct kraft *k);    /* of a leader: the offset of its leader change */
/* The newest voters in the log, committed or not. */
const struct kraft_voters *kraft_voters(const struct kraft *k);
int16_t kraft_version(const struct kraft *k); /* of these: 0: they are static */
/* Why a leader with static voters cannot make them dynamic (KRAFT_UPGRADE) now, a sentence; NULL: it can. */
const char *kraft_upgrade_refusal(const struct kraft *k);

/* What a leader knows of the others, and of itself. */
struct kraft_peer_status {
    int32_t id;
    struct uuid directory_id;
    bool is_voter;
    int64_t log_end;                          /* -1: not known */
    int64_t last_fetch_ms, last_caught_up_ms; /* wall clock; -1: never */
};
/* Up to room of them; the count. Voters first. */
size_t kraft_describe(const struct kraft *k, int64_t now_wall_ms, struct kraft_peer_status *ret_status, size_t room);

#endif
