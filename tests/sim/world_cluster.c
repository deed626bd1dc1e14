/* world_cluster.c - clients of a whole constellation whose programs die, stop, lose their connections and, when every
 * record is flushed, their power.
 *
 * Promises: see clients.h. When nothing fails any more everything that clients want is done within HEALED_MS. */
#include "tests/sim/clients.h"
#include "tests/sim/cluster.h"
#include "tests/sim/metawatch.h"
#include "tests/sim/watch.h"

enum { HEALED_MS = 60000, STEP_MS = 50, QUIET_MS = 40000 };

static void step(struct sim *s, struct cluster *c, uint64_t power_cuts, uint64_t cuts)
{
    if (sim_chance(s, cuts))
        cluster_cut(c);
    if (sim_chance(s, cuts / 4))
        cluster_jump_clock(c);
    if (sim_chance(s, 2))
        cluster_kill_one(c);
    if (sim_chance(s, 1))
        cluster_stop_one(c);
    if (sim_chance(s, 1))
        cluster_fill_disk(c);
    if (sim_chance(s, 1))
        cluster_stall_one(c);
    if (sim_chance(s, power_cuts))
        cluster_power_cut(c);
    sim_until(s, sim_now_ms(s) + sim_below(s, STEP_MS));
}

static struct cluster_options mix(struct sim *s)
{
    return (struct cluster_options){.faults = cluster_some_faults(s),
                                    .client_breaks = cluster_one_of(s, (const uint64_t[]){0, 2, 2, 20}),
                                    .restart_ms = 1500,
                                    .config = "",
                                    .shares = sim_chance(s, 500),
                                    .durable = sim_chance(s, 500)};
}

static void until_done(struct sim *s, const struct clients *clients, const struct watch *watch)
{
    uint64_t until = sim_now_ms(s) + HEALED_MS;
    while (sim_now_ms(s) < until && (!clients_are_done(clients) || !watch_is_done(watch)))
        sim_until(s, sim_now_ms(s) + 100);
}

/* Readers go on, and are told of what is written after it. */
static void stop_cleanly(struct sim *s, struct cluster *c, struct clients *clients, const struct watch *watch)
{
    for (int i = 0; i < 3; i++) {
        clients_go_on(clients);
        sim_until(s, sim_now_ms(s) + sim_below(s, 2000));
        cluster_stop_storage(c);
        until_done(s, clients, watch);
        clients_check(clients);
    }
}

static void run_shape(struct sim *s, uint64_t steps, struct cluster_options o, uint64_t cuts)
{
    sim_note(s, o.shares ? "memory and files are shared" : "nothing is shared");
    uint64_t power_cuts = o.durable ? cluster_one_of(s, (const uint64_t[]){0, 1, 1, 10}) : 0; /* per thousand steps */
    struct metawatch *meta = metawatch_new(s);
    struct cluster *c = cluster_new(s, &o);
    cluster_watch_lives(c, metawatch_life, meta);
    int replicas = MIN(o.count[CLUSTER_STORAGE], 3);
    struct clients *clients = clients_new(s, cluster_tcp(c), o.count[CLUSTER_FRONTEND], (int16_t)replicas);
    struct watch *watch = watch_new(cluster_machine(c), o.count[CLUSTER_CONTROLLER]);
    for (uint64_t i = 0; i < steps; i++)
        step(s, c, power_cuts, cuts);
    cluster_heal(c);
    clients_finish(clients);
    until_done(s, clients, watch);
    clients_check(clients);
    bool compacted = clients->compacted;
    stop_cleanly(s, c, clients, watch);
    watch_check(watch);
    watch_free(watch);
    clients_free(clients);
    sim_until(s, sim_now_ms(s) + QUIET_MS);
    cluster_check(c);
    if (replicas > 1 && !compacted) {
        cluster_check_replicas(c, "orders-0");
        cluster_check_replicas(c, "orders-1");
    }
    cluster_free(c);
    metawatch_free(meta);
}

static void run(struct sim *s, uint64_t steps)
{
    struct cluster_options o = mix(s);
    const int count[CLUSTER_ROLES] = {1, 1, 2, 2, 1};
    memcpy(o.count, count, sizeof count);
    run_shape(s, steps, o, 0);
}

/* Three of everything that keeps something; a record is there when two have it. */
static void run_replicas(struct sim *s, uint64_t steps)
{
    struct cluster_options o = mix(s);
    const int count[CLUSTER_ROLES] = {3, 3, 1 + (int)sim_below(s, 3), 2, 1};
    memcpy(o.count, count, sizeof count);
    o.config = "default.replication.factor=3\nmin.insync.replicas=2\noffsets.topic.replication.factor=3\n";
    o.restart_ms = sim_chance(s, 500) ? 20000 : 1500; /* with and without the end of a session */
    run_shape(s, steps, o, o.shares ? 0 : cluster_one_of(s, (const uint64_t[]){0, 5, 20, 40}));
}

const struct sim_world world_cluster = {"cluster", run, 0};
const struct sim_world world_replicas = {"replicas", run_replicas, 0};
