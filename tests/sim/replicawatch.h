/* replicawatch.h - what the storage nodes of a simulated cluster do to the replicas of a partition, step by step, and
 * what they must never do.
 *
 * Looks at each step of each core of libs/replica, with the log as it is then (replica_step and its like are wrapped,
 * CMakeLists.txt), and at all of them whenever replicawatch_check is called. Committed is what is below a high
 * watermark that some leader ever had; no election is unclean. Promises:
 *
 *   R1  one life of one node leads in a leader epoch, and acknowledges in it
 *   R2  who begins to lead has all that was committed in the leader epochs before its own
 *   R3  a high watermark goes up only, and is at or below the log's end
 *   R4  what is committed is in the log of every member of the ISR (of the newest image) that is there
 *   R5  a follower's high watermark is at or below what some leader has committed
 *   R6  nobody cuts off what was committed and what it had
 *   R7  what a follower has appended in a leader epoch, the leader of that epoch has
 *   R8  a leader counts what a follower has said in its own leader epoch only, and the follower has that
 *
 * Partitions are told apart by their folder, so that names must not come again. Threading: one. One at a time. */
#ifndef KARST_TESTS_SIM_REPLICAWATCH_H
#define KARST_TESTS_SIM_REPLICAWATCH_H

#include "tests/sim/metawatch.h"

struct replicawatch;

NODISCARD struct replicawatch *replicawatch_new(struct sim *s, const struct metawatch *meta);
struct replicawatch *replicawatch_free(struct replicawatch *w); /* takes NULL, returns NULL */
/* A program starts, or has died. */
void replicawatch_life(struct replicawatch *w, const struct process *p);

/* R4 of all that is there. */
void replicawatch_check(struct replicawatch *w);

/* Up to where a partition (its folder, TOPIC-PARTITION) is committed; -1: it has no replicas that are watched. */
int64_t replicawatch_committed(const struct replicawatch *w, const char *folder);
/* Up to where leaders of epochs up to that one have committed it: who leads in the epoch has all that. */
int64_t replicawatch_committed_in(const struct replicawatch *w, const char *folder, int32_t epoch);
/* Has anybody led in that epoch, or a later one? True also where nobody watches. */
bool replicawatch_led(const struct replicawatch *w, const char *folder, int32_t epoch);
/* The latest start of one of its replicas' logs, as of the last replicawatch_check: what lies before it is deleted, and
 * no replica has to have it, or the same of it. */
int64_t replicawatch_start(const struct replicawatch *w, const char *folder);

/* Each member of each ISR leads or follows in the life that is there: the image that says so knows of that life. */
bool replicawatch_in_sync_now(const struct replicawatch *w);

/* Which of them is doing what, for the states of a run. */
struct replica_states {
    int followers_behind; /* that read, and lack something that is committed */
    int cuts;             /* since the last call */
};
struct replica_states replicawatch_states(struct replicawatch *w);
/* What a storage node is to some partition: the most of what it is to any. */
enum replica_part { REPLICA_PART_NONE, REPLICA_PART_FOLLOWER, REPLICA_PART_BEHIND, REPLICA_PART_LEADER };
enum replica_part replicawatch_part_of(const struct replicawatch *w, const struct process *p);

#endif
