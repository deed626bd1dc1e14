/* fetch.h - one Fetch while it is answered: shared by api_fetch.c (what is asked, the Reads) and fetch_reply.c (the
 * answer). */
#ifndef KARST_FRONTEND_FETCH_H
#define KARST_FRONTEND_FETCH_H

#include "kafka/fetch.h"
#include "services/frontend/server.h"

typedef struct kafka_fetch_request fetch_request;
typedef struct kafka_fetch_response fetch_response;
typedef struct kafka_fetch_response_partition_data partition_data;

enum {
    FETCH_ROOM_MIN_BYTES = 64 << 10,     /* given to a Fetch even when answers wait for too many clients */
    FETCH_SESSION_PARTITIONS_MAX = 50000 /* an empty request asks for all of a session: who has more goes without one */
};

enum fetch_kind {
    FETCH_SESSIONLESS, /* full, or left over from a session that became empty */
    FETCH_NEW_SESSION, /* full, and a session is to be made of it */
    FETCH_INCREMENTAL
};

struct fetch_part {
    struct session_partition p; /* what is asked; a copy, key.topic lives as long as the request */
    const struct image_topic *topic;
    const struct image_partition *partition;
    partition_data data;
    struct ref records; /* a count is kept by the request */
    bool answered;      /* data is set */
    uint32_t place;     /* in the session's set */
};

/* One storage node's share. */
struct fetch_read {
    struct fetch *fetch;
    int32_t node;
    uint32_t *parts; /* indexes */
    uint32_t count;
    uint64_t call;   /* 0: none in flight */
    bool is_hurried; /* cancelled, to be asked once more without waiting */
    struct loop_timer *retry;
    struct fetch_read *next;
};

struct fetch {
    struct request *r;
    enum fetch_kind kind;
    int32_t session_id;
    bool read_committed;
    const char *rack;  /* of a client that reads in its own (KIP-392); "": any */
    bool leaders_only; /* a follower that was chosen here could not answer */
    /* The node keeps the session's partitions (session.h): SET_USED names what has changed, SET_MADE all. parts are
     * what is asked, and from the reply on what is told. */
    enum { SET_NONE, SET_MADE, SET_USED } set;
    uint64_t set_id;
    struct fetch_part *parts;
    uint32_t count;
    struct fetch_read *reads;
    uint32_t reads_left, reads_count;
    uint32_t min_bytes, max_bytes;
    uint64_t wait_until_ms;   /* the end of MaxWaitMs */
    struct loop_timer *grace; /* after the first node has brought data, the others get this long */
    bool has_data, is_cancelled;
    bool is_moving;            /* a partition has another leader: asked anew once all Reads have ended */
    bool is_hurried;           /* somebody has data: the others tell what they have, and that is it */
    bool is_replica;           /* refused: it is told leaders, but, as by Kafka, not where they are */
    bool is_relieved;          /* ended early, as it takes much memory while that is short */
    struct fetch *prev, *next; /* all that are parked */
    uint64_t reserved_until_ms;
    bool is_reserving;
    struct fetch *reserving_prev, *reserving_next; /* those whose max_bytes count */
};

/* An answer of the front end's own making. */
void fetch_set_error(struct fetch_part *part, enum kafka_error error);
void fetch_take_result(struct fetch *f, struct fetch_part *part, const Karst__Bus__ReadResult *from,
                       const struct bus_result *result);

/* ---- fetch_room.c ---- */

/* Sets max_bytes: wanted, or what there is room for. */
void fetch_reserve_room(struct fetch *f, uint64_t wanted);
void fetch_release_room(struct fetch *f);

/* ---- fetch_nearest.c ---- */

/* Do consumers read in their racks (replica.selector.class) now? */
bool fetch_knows_racks(const struct frontend *frontend);
/* The node that p is read from: its leader, unless the client's rack has another replica that may be. */
int32_t fetch_node(const struct fetch *f, const struct image *image, const struct image_partition *p);
/* Does this process choose followers itself, as clients cannot tell brokers apart? Then it is for it to ask the leader
 * where one of them cannot answer. */
bool fetch_chooses(const struct fetch *f);
/* One of them has answered with an error, or not at all. */
bool fetch_is_misled(const struct fetch *f);

/* ---- fetch_leaders.c ---- */

/* By the newest image another node leads one of the partitions that are still read. A partition without a leader has
 * not moved: the one that led may be back. */
bool fetch_has_moved(const struct fetch *f);

/* ---- fetch_set.c ---- */

/* Does a node have s's set? */
bool fetch_set_is_known(const struct fetch *f, struct session *s);
size_t fetch_set_changes(struct session *s);
/* f's parts, of read if they are where the set is, are what has changed. False: not all are; the set is given up. */
bool fetch_set_use(struct fetch *f, struct session *s, const struct fetch_read *read);
/* f asks for all of its session: if one node is asked for all of that, it keeps them from now on. */
void fetch_set_make(struct fetch *f);
/* A Read of the set has not been answered as such: it is unknown what the node has of it. */
void fetch_set_lost(struct fetch *f, bool is_refused);
/* The fields of the Read, which leaves at once. */
void fetch_set_fill(struct fetch *f, Karst__Bus__ReadRequest *body);
/* What there is to tell becomes f's parts. */
void fetch_set_take(struct fetch *f, const struct bus_result *result);

/* ---- the answer ---- */

/* The whole is there: sends the answer and ends the request. */
void fetch_reply(struct fetch *f);
/* Only the error of the session or the request; no topics. */
void fetch_reply_refused(struct request *r, enum kafka_error error);

#endif
