/* cluster.h - a whole constellation of Karst's real programs: controllers, storage nodes, front ends, group and txn
 * services, restarted as `karst up` does it. Each has its disk for itself, and, for cuts and power, is a machine of its
 * own; a power cut of all ends all of them and tears all disks. Threading: one. */
#ifndef KARST_TESTS_SIM_CLUSTER_H
#define KARST_TESTS_SIM_CLUSTER_H

#include "tests/sim/kclient.h"
#include "tests/sim/metawatch.h"

struct cluster;

enum cluster_role { CLUSTER_CONTROLLER, CLUSTER_STORAGE, CLUSTER_FRONTEND, CLUSTER_GROUP, CLUSTER_TXN, CLUSTER_ROLES };

struct cluster_options {
    struct machine_faults faults;
    uint64_t client_breaks;   /* per thousand writes of a client's connection */
    int count[CLUSTER_ROLES]; /* ids from 1 on */
    bool shares;              /* karst.bus.shared */
    bool durable;             /* log.flush.interval.messages=1: power cuts may come */
    uint64_t restart_ms;      /* how long a process may be away */
    const char *config;       /* lines for all of them; "": none */
};

/* Each seed has its own mix: some faults often, others not at all. */
uint64_t cluster_one_of(struct sim *s, const uint64_t rates[4]);
struct machine_faults cluster_some_faults(struct sim *s);

/* Where the front end listens. */
static inline uint16_t cluster_port(int32_t frontend)
{
    return (uint16_t)(9092 + 100 * (frontend - 1));
}

NODISCARD struct cluster *cluster_new(struct sim *s, const struct cluster_options *options);
struct cluster *cluster_free(struct cluster *c); /* takes NULL, returns NULL */
struct tcp *cluster_tcp(struct cluster *c);
struct machine *cluster_machine(struct cluster *c);
int cluster_count(const struct cluster *c, enum cluster_role role);

/* Since when the program is there, or is not, without a break: virtual ms. */
bool cluster_is_up(const struct cluster *c, enum cluster_role role, int32_t id, uint64_t *ret_since_ms);
/* Runs when a program starts, and when it has died. */
typedef void cluster_life_fn(void *ctx, struct process *p, bool starts);
void cluster_watch_lives(struct cluster *c, cluster_life_fn *fn, void *ctx);

/* ---- what happens to it (cluster_faults.c) ---- */

void cluster_power_cut(struct cluster *c);
/* One of the machines; a storage node's only where every record is flushed. */
void cluster_power_cut_one(struct cluster *c);
/* Of a storage node where not every record is flushed: what it had is lost, and the others must not be, until it is
 * registered anew (cluster_found): no storage node is killed by chance, stopped, or hurt on its disk meanwhile. false:
 * not now. */
bool cluster_power_cut_victim(struct cluster *c, int32_t id);
void cluster_found(struct cluster *c);
/* kill -9 of one of the programs. */
void cluster_kill_one(struct cluster *c);
/* SIGTERM to one of them, but not to a storage node: after a clean stop a log knows, as in Kafka, only the last batch
 * of each producer, so that older ones of a window whose answers were lost are out of order for ever. */
void cluster_stop_one(struct cluster *c);
/* The clean stop of a storage node, when nothing of its producers is under way. */
void cluster_stop_storage(struct cluster *c);
/* Of a group coordinator: what it knows is read from the log again. */
void cluster_stop_group(struct cluster *c);
void cluster_kill_others(struct cluster *c, int32_t id); /* all storage nodes but that one */
/* SIGSTOP of one of them, between two turns, and SIGCONT later. */
void cluster_stall_one(struct cluster *c);
/* One of the disks is full for a while. */
void cluster_fill_disk(struct cluster *c);
/* A call of one of the disks fails: EIO. */
void cluster_fail_disk(struct cluster *c);
/* A link one way, or one machine from all, or two halves; or all cuts end. */
void cluster_cut(struct cluster *c);
/* A wall clock jumps, and stays so. */
void cluster_jump_clock(struct cluster *c);
/* No faults any more. */
void cluster_heal(struct cluster *c);

/* Some time after that, without clients: nothing that is shared is held for ever. */
void cluster_check(struct cluster *c);
/* And all replicas p of the folder (TOPIC-PARTITION, not compacted) have the same bytes, as far back as all have them
 * and they are not deleted: from the batch of `start` on. */
void cluster_check_replicas(struct cluster *c, const char *folder, const struct seen_partition *p, int64_t start);

#endif
