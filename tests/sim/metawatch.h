/* metawatch.h - what every program of a constellation takes the metadata log to say, held against what it must say.
 *
 * Looks at each image as a program publishes it (image_diff is called then, CMakeLists.txt wraps it), and at each
 * controller that begins to decide (controller_activate), and each step of the quorum (kraft_step). Promises:
 *
 *   W1  at one offset of the committed log every program, in every life, has the same image
 *   W2  one controller an epoch decides
 *   W3  what a program has of the log never goes back in a life
 *   W4  a broker's epoch never goes down, and is never that of two lives
 *   W5  leader epochs and partition epochs never go down, and rise with what they stand for
 *   W6  a leader is in the ISR and active; of an ISR of several no broker is fenced, none is in the ELR
 *   W7  a topic that is deleted, and its id, never come back
 *   W8  the next producer id never goes down
 *   W9  the owner of a coordinator's partition changes only with a higher epoch
 *   W10 what a program has published, or a controller takes for committed, a leader of the quorum has committed
 *
 * Threading: one. One at a time. */
#ifndef KARST_TESTS_SIM_METAWATCH_H
#define KARST_TESTS_SIM_METAWATCH_H

#include "libs/base/uuid.h"
#include "tests/sim/machine.h"

struct metawatch;

NODISCARD struct metawatch *metawatch_new(struct sim *s);
struct metawatch *metawatch_free(struct metawatch *w); /* takes NULL, returns NULL */
/* For cluster_watch_lives. */
void metawatch_life(void *ctx, struct process *p, bool starts);

/* The newest offset that any program has seen committed, and since when it has been moving: a second without news, or
 * another controller that decides, begins anew. */
int64_t metawatch_offset(const struct metawatch *w);
uint64_t metawatch_moving_since(const struct metawatch *w);
uint64_t metawatch_moved(const struct metawatch *w); /* the last time it did */

/* What a program that is there has seen; -1: it is not, or nothing. */
int64_t metawatch_offset_of(const struct metawatch *w, const char *process);

/* ---- what the newest image says ---- */

struct seen_topic {
    struct uuid id;
    char name[64];
    int32_t partitions;
    int64_t retention_ms; /* retention.ms; -1: not set */
    bool gone;            /* was deleted */
};
/* NULL: there never was one. */
const struct seen_topic *metawatch_topic(const struct metawatch *w, const char *name);

enum { SEEN_REPLICAS_MAX = 8 };
struct seen_partition {
    int32_t leader, leader_epoch; /* leader -1: none */
    int32_t replicas[SEEN_REPLICAS_MAX], isr[SEEN_REPLICAS_MAX];
    int replica_count, isr_count;
    bool moving; /* a reassignment is under way */
};
/* NULL: there is none. */
const struct seen_partition *metawatch_partition(const struct metawatch *w, const char *topic, int32_t partition);
bool seen_partition_in_sync(const struct seen_partition *p, int32_t id);
int metawatch_moving(const struct metawatch *w);  /* partitions */
int metawatch_lacking(const struct metawatch *w); /* partitions whose ISR lacks a replica */
int metawatch_thin(const struct metawatch *w);    /* partitions whose ISR is one replica, or none */

struct seen_broker {
    int32_t id;
    int64_t epoch;
    bool registered, fenced;
};
const struct seen_broker *metawatch_broker(const struct metawatch *w, int32_t id);
int metawatch_fenced(const struct metawatch *w);     /* brokers */
int metawatch_leaderless(const struct metawatch *w); /* partitions */
int metawatch_stuck(const struct metawatch *w);      /* of those with a replica that could lead */
/* Which controller began to decide last; NULL: none. */
const char *metawatch_decider(const struct metawatch *w);
/* Whether that life of a service owns a coordinator's partition. */
bool metawatch_owns(const struct metawatch *w, const uint8_t topic_id[16], int32_t partition, int32_t role, int32_t id,
                    uint64_t incarnation);
int metawatch_voters(const struct metawatch *w); /* of the metadata log */
int64_t metawatch_next_producer_id(const struct metawatch *w);

#endif
