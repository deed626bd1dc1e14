/* version.h - the versions of the bus that this build speaks: that of its release, and that of the release before, so
 * that a constellation is upgraded, and taken back, one process at a time (docs/bus.md, Versions). Both ends of a link
 * speak the highest that both know.
 *
 *   1  the first
 *   2  a session's first messages alone name its ends; AddRaftVoter and RemoveRaftVoter; Ping; reads of consumers that
 * a follower answers */
#ifndef KARST_BUS_VERSION_H
#define KARST_BUS_VERSION_H

#include <stdint.h>

enum {
    BUS_VERSION = 2,                /* of this release */
    BUS_VERSION_BEFORE = 1,         /* of the release before: the lowest that is spoken */
    BUS_VERSION_NAMES_ONCE = 2,     /* from here on `from` and `to` are in Hello, Welcome and Refusal only */
    BUS_VERSION_FOLLOWER_READS = 2, /* a level of the cluster from which consumers are sent to followers (KIP-392) */
};

/* What this build speaks. Functions, so that the programs of the release before are the same objects and another
 * version.c (cmake/Karst.cmake), and processes of the simulator are of either. Any thread. */
uint32_t bus_version_min(void);
uint32_t bus_version_max(void);

#endif
