/* world_cluster.c - clients of a whole constellation whose programs die, stop, lose their connections and, when every
 * record is flushed, their power.
 *
 * Promises: see clients.h. When nothing fails any more everything that clients want is done within HEALED_MS. */
#include "tests/sim/clients.h"
#include "tests/sim/cluster.h"

enum { HEALED_MS = 60000, STEP_MS = 50 };

static void step(struct sim *s, struct cluster *c, bool durable)
{
    if (sim_chance(s, 2))
        cluster_kill_one(c);
    if (sim_chance(s, 1))
        cluster_stop_one(c);
    if (durable && sim_chance(s, 1))
        cluster_power_cut(c);
    sim_until(s, sim_now_ms(s) + sim_below(s, STEP_MS));
}

static void run(struct sim *s, uint64_t steps)
{
    struct cluster_options o = {.faults = {.late = 10, .stall = 1, .breaks = 1, .refuse = 20, .deaths = 60},
                                .client_breaks = 2,
                                .durable = sim_chance(s, 500)};
    struct cluster *c = cluster_new(s, &o);
    struct clients *clients = clients_new(s, cluster_tcp(c));
    for (uint64_t i = 0; i < steps; i++)
        step(s, c, o.durable);
    cluster_heal(c);
    clients_finish(clients);
    uint64_t until = sim_now_ms(s) + HEALED_MS;
    while (sim_now_ms(s) < until && !clients_are_done(clients))
        sim_until(s, sim_now_ms(s) + 100);
    clients_check(clients);
    clients_free(clients);
    cluster_free(c);
}

const struct sim_world world_cluster = {"cluster", run};
