/* groupwatch.h - what the group coordinators of a simulated cluster take the partitions of __consumer_offsets to hold,
 * held against their replicas.
 *
 * Looks at each step of each core of libs/groups (groups_step is wrapped, CMakeLists.txt). Only partitions with several
 * replicas are looked at, as of the others nobody says what is committed. Promises:
 *
 *   G1  what a coordinator has loaded when it begins to answer is all that is committed, and is committed
 *   G2  from then on nobody but it appends, and nothing twice, until one of a later epoch has loaded
 *
 * Threading: one. One at a time. */
#ifndef KARST_TESTS_SIM_GROUPWATCH_H
#define KARST_TESTS_SIM_GROUPWATCH_H

#include "tests/sim/replicawatch.h"

struct groupwatch;

NODISCARD struct groupwatch *groupwatch_new(struct sim *s, const struct replicawatch *committed);
struct groupwatch *groupwatch_free(struct groupwatch *w); /* takes NULL, returns NULL */
/* A program starts, or has died. */
void groupwatch_life(struct groupwatch *w, const struct process *p);

#endif
