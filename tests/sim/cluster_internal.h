/* cluster_internal.h - what cluster.c (lives) and cluster_faults.c share. */
#ifndef KARST_TESTS_SIM_CLUSTER_INTERNAL_H
#define KARST_TESTS_SIM_CLUSTER_INTERNAL_H

#include "tests/sim/cluster.h"
#include "tests/sim/platform.h"

/* One program, over all its lives. */
struct node {
    struct cluster *cluster;
    enum cluster_role role;
    int32_t id;
    int place;
    char name[24];
    char *config;
    struct platform_identity identity;
    struct disk *disk;
    struct process *process; /* NULL: it waits for its restart */
    bool power_cut, stopping;
    bool hurt; /* its disk was full or failed in this life: it may give up */
    int64_t wall_ahead_ms;
    uint64_t empty_event, starts, since_ms;
};

struct cluster {
    struct sim *sim;
    struct machine *machine;
    struct tcp *tcp;
    struct node *nodes;
    int node_count;
    int count[CLUSTER_ROLES];
    uint64_t restart_ms;
    bool durable;
    int32_t victim; /* the storage node that has lost what was not flushed, and is not registered anew; 0: none */
    cluster_life_fn *watch;
    void *watch_ctx;
    bool healed;
};

#endif
