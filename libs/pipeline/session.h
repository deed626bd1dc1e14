/* session.h - fetch sessions (KIP-227): what a client asked for last time, so that its next Fetch names only what
 * changes and its answer holds only what changed. Pure core.
 *
 *   none --epoch 0, session_create--> live, epoch 1 --session_use, epoch matches--> live, epoch + 1
 *   live --epoch -1 or 0 with its id, evicted, emptied--> closed
 *
 * A client's epochs are 1 .. 2^31-1 and then 1 again; 0 asks for a new session, -1 for none.
 *
 * Eviction, as Kafka's FetchSessionCache: a new session takes the place of the one unused longest, if that is over
 * evict_ms (2 min), or of the smallest older than evict_ms that is smaller than itself; followers' sessions
 * (privileged) are never given up for a consumer's.
 *
 * I1  count <= slots.
 * I2  a partition is in a session at most once, and keeps its place unless it brought records (then it goes to the end,
 * so that no partition starves when answers are full). Threading: the owning loop's thread only. */
#ifndef KARST_PIPELINE_SESSION_H
#define KARST_PIPELINE_SESSION_H

#include "libs/base/kafka_error.h"
#include "libs/base/slice.h"
#include "libs/base/uuid.h"

struct session_cache;
struct session;

/* A partition by topic name (Fetch 4-12) or id (13+); the other one is empty / zero. */
struct session_key {
    struct uuid topic_id;
    struct slice topic; /* null with ids */
    int32_t partition;
};

struct session_partition {
    struct session_key key; /* topic is owned by the session */
    int64_t fetch_offset;
    int64_t log_start_offset; /* a follower's; -1 */
    int32_t max_bytes;
    int32_t leader_epoch;       /* -1: not given */
    int32_t last_fetched_epoch; /* -1: not given */
    /* What the client was last told; -1: nothing yet, or an error that has to be repeated. */
    int64_t known_high_watermark;
    int64_t known_log_start_offset;
};

NODISCARD struct session_cache *session_cache_new(uint32_t slots, uint64_t evict_ms);
struct session_cache *session_cache_free(struct session_cache *c); /* takes NULL; returns NULL */
uint32_t session_cache_count(const struct session_cache *c);

/* A new session under random_id (31 random bits; 0 or one in use: -EAGAIN, bring another), with room for
 * partitions_hint: its partitions are added with session_put. It expects epoch 1 next. Or -ENOSPC: the cache is full
 * and nothing may be evicted: the client is told id 0. */
NODISCARD int session_create(struct session_cache *c, int32_t random_id, bool by_topic_id, bool privileged,
                             uint32_t partitions_hint, uint64_t now_ms, struct session **ret_session);

/* The session of an incremental fetch. KERR_NONE with *ret_session, or
 *   KERR_FETCH_SESSION_ID_NOT_FOUND     unknown or evicted
 *   KERR_INVALID_FETCH_SESSION_EPOCH    not the epoch it expects; the session lives on
 *   KERR_FETCH_SESSION_TOPIC_ID_ERROR   made with names and used with ids, or the other way round */
NODISCARD enum kafka_error session_use(struct session_cache *c, int32_t id, int32_t epoch, bool by_topic_id,
                                       struct session **ret_session);
/* The incremental fetch was accepted: its epoch moves on. Pointers to it stay valid until it is closed or evicted. */
void session_advance(struct session_cache *c, struct session *s, uint64_t now_ms);
/* By id, for when an answer is there: NULL when it is gone by now. */
struct session *session_find(struct session_cache *c, int32_t id);
/* Unknown ids are ignored. */
void session_close(struct session_cache *c, int32_t id);

int32_t session_id(const struct session *s);
uint32_t session_size(const struct session *s);

enum { SESSION_PARTITIONS_MAX = 1000000 }; /* of all sessions together */

/* Adds or replaces the client's fields of p (p->known_* are ignored; those of a partition that was there stay). */
/* -ENOSPC: all sessions together hold SESSION_PARTITIONS_MAX partitions; the session should be closed then. */
NODISCARD int session_put(struct session_cache *c, struct session *s, const struct session_partition *p);
void session_forget(struct session_cache *c, struct session *s, const struct session_key *key);
struct session_partition *session_get(struct session *s, const struct session_key *key);

/* ---- what a storage node keeps of a session (an interest set, proto/bus/storage.proto) ---- */

/* The caller's; zeroed with the session. */
struct session_interest {
    uint64_t id; /* 0: none */
    int32_t node;
    uint64_t leaders_number; /* of the metadata that the node was found in */
    bool busy;               /* a Read of it is under way */
    bool refused;            /* the node has no room for it */
};
struct session_interest *session_interest(struct session *s);

/* The place of a partition in the set: below SESSION_PARTITIONS_MAX, its own as long as it is in the session. */
uint32_t session_place(const struct session_partition *p);
struct session_partition *session_at(struct session *s, uint32_t place); /* NULL: none there */

/* Partitions added or changed, and places left, since session_settle. More places left than partitions are not noted:
 * then the set is best made anew. */
struct session_partition *session_first_changed(struct session *s);
struct session_partition *session_next_changed(struct session_partition *p);
const uint32_t *session_left(const struct session *s, size_t *ret_count);
void session_settle(struct session *s); /* the node knows all */

/* ---- in order ---- */

/* In order; NULL at the end. Adding and forgetting is not allowed in between. */
struct session_partition *session_first(struct session *s);
struct session_partition *session_next(struct session_partition *p);

/* Must this result be in an incremental answer? Notes what the client is told then, and moves the partition to the end
 * when it has records. */
struct session_outcome {
    enum kafka_error error;
    int64_t high_watermark, log_start_offset;
    size_t records_bytes;
    bool diverging;
    int32_t preferred_replica; /* -1: none */
};
bool session_tell(struct session *s, struct session_partition *p, const struct session_outcome *outcome);

/* The same in a full answer: everything is told. */
void session_note(struct session_partition *p, const struct session_outcome *outcome);

#endif
