/* asks.h - calls whose payloads lie in an arena or a file, and the descriptors that processes have open. */
#ifndef KARST_TESTS_BUS_ASKS_H
#define KARST_TESTS_BUS_ASKS_H

#include "peers.h"

enum { SLICES = 64, ARENA_BYTES = SLICES * SLICE_BYTES };

struct ask {
    struct caller *caller;
    int ended;
    Karst__Bus__Outcome outcome;
    bool in_file; /* the answer came as a file */
    uint32_t number;
};

void asks_begin(void); /* peers_begin, with an arena, on shared memory whatever the environment says */
void meet(struct caller *c);
struct caller *caller_with_arena(void); /* has met the peer */

/* An Append of a slice; false: all are in use. A slice that is free again is torn at once (arena_is_whole). */
bool append_slice(struct caller *c, struct ask *a, uint32_t timeout_ms);
int slices_used(void);
/* A Read of a file that the peer has (peers.h). */
void read_file(struct caller *c, struct ask *a, uint32_t number, bool retire);

size_t open_fds(pid_t pid);
extern size_t fds_before, own_fds;
extern pid_t watched;
bool fds_are_back(struct caller *c);     /* watched has no more than fds_before */
bool own_fds_are_back(struct caller *c); /* this process has no more than own_fds */

#endif
