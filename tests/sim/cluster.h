/* cluster.h - a whole constellation of Karst's real programs in one simulated machine: controller, storage node, front
 * end, group and txn service, restarted as `karst up` does it. Each has its disk for itself; a power cut ends all of
 * them and tears both disks. Threading: one. */
#ifndef KARST_TESTS_SIM_CLUSTER_H
#define KARST_TESTS_SIM_CLUSTER_H

#include "tests/sim/kclient.h"

struct cluster;

struct cluster_options {
    struct machine_faults faults;
    uint64_t client_breaks; /* per thousand writes of a client's connection */
    bool shares;            /* karst.bus.shared */
    bool durable;           /* log.flush.interval.messages=1: power cuts may come */
};

/* Of the two front ends. */
enum { CLUSTER_PORT = 9092, CLUSTER_OTHER_PORT = 9192 };

NODISCARD struct cluster *cluster_new(struct sim *s, const struct cluster_options *options);
struct cluster *cluster_free(struct cluster *c); /* takes NULL, returns NULL */
struct tcp *cluster_tcp(struct cluster *c);
struct machine *cluster_machine(struct cluster *c);
void cluster_power_cut(struct cluster *c);
/* kill -9 of one of the programs. */
void cluster_kill_one(struct cluster *c);
/* SIGTERM to one of them, but not to the storage node: after a clean stop a log knows, as in Kafka, only the last batch
 * of each producer, so that older ones of a window whose answers were lost are out of order for ever. */
void cluster_stop_one(struct cluster *c);
/* The clean stop of the storage node, when nothing of its producers is under way. */
void cluster_stop_storage(struct cluster *c);
/* SIGSTOP of one of them, between two turns, and SIGCONT later. */
void cluster_stall_one(struct cluster *c);
/* One of the disks is full for a while. */
void cluster_fill_disk(struct cluster *c);
/* No faults any more. */
void cluster_heal(struct cluster *c);
/* Some time after that, without clients: nothing that is shared is held for ever. */
void cluster_check(struct cluster *c);

#endif
