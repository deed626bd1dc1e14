/* world_quorum.c - one to five controllers and one to seven storage nodes, each on a machine of its own, while
 * administrators make, grow, configure and delete topics: the real programs, real metadata records, a real image on
 * every node.
 *
 * Promises: see metawatch.h and admin.h, and
 *
 *   Q1  a storage node that is away for longer than its session, while a controller decides, is fenced
 *   Q2  when nothing fails any more all programs have the newest image, all controllers are voters, all storage nodes
 *       are active, every partition that can be led is, and requests are done, within CALM_MS */
#include "tests/sim/admin.h"
#include "tests/sim/cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { SESSION_MS = 9000, SLACK_MS = 6000, CALM_MS = 90000, STEP_MS = 400, ADMINS = 2, LAG_MS = 3000 };

struct world {
    struct sim *sim;
    struct cluster *cluster;
    struct metawatch *watch;
    struct admin *admins[ADMINS];
    uint64_t kills, cuts, stalls, disks, clocks, power, stops; /* per thousand steps */
};

/* ---- faults ---- */

static void tell_state(struct world *w)
{
    sim_state("nobody decides", sim_now_ms(w->sim) > metawatch_moved(w->watch) + 1500);
    sim_state("no leader", metawatch_leaderless(w->watch) > 0);
    sim_state("a broker fenced", metawatch_fenced(w->watch) > 0);
}

static void step(struct world *w)
{
    static void (*const faults[])(struct cluster *) = {cluster_kill_one,      cluster_cut,       cluster_stall_one,
                                                       cluster_fill_disk,     cluster_fail_disk, cluster_jump_clock,
                                                       cluster_power_cut_one, cluster_stop_one,  cluster_stop_storage};
    const uint64_t rates[] = {w->kills,  w->cuts,  w->stalls, w->disks, w->disks,
                              w->clocks, w->power, w->stops,  w->stops};
    tell_state(w);
    for (size_t i = 0; i < COUNTOF(faults); i++)
        if (sim_chance(w->sim, rates[i]))
            faults[i](w->cluster);
    if (w->power && sim_chance(w->sim, 1))
        cluster_power_cut(w->cluster);
    sim_until(w->sim, sim_now_ms(w->sim) + sim_below(w->sim, STEP_MS));
}

/* ---- promises ---- */

static void check_fenced(struct world *w)
{
    uint64_t now = sim_now_ms(w->sim), moving = metawatch_moving_since(w->watch), since;
    if (now > metawatch_moved(w->watch) + 1500) /* nobody decides */
        return;
    for (int32_t id = 1; id <= cluster_count(w->cluster, CLUSTER_STORAGE); id++) {
        const struct seen_broker *b = metawatch_broker(w->watch, id);
        if (cluster_is_up(w->cluster, CLUSTER_STORAGE, id, &since) || !b->registered || b->fenced)
            continue;
        if (now > MAX(since, moving) + SESSION_MS + SLACK_MS)
            sim_fail(w->sim, "broker %d is away for %" PRIu64 " ms, and not fenced", id, now - since);
    }
}

static bool all_have(struct world *w, int64_t offset)
{
    static const char *const names[] = {[CLUSTER_CONTROLLER] = "controller", [CLUSTER_STORAGE] = "storage"};
    for (int role = 0; role <= CLUSTER_STORAGE; role++) {
        int count = cluster_count(w->cluster, (enum cluster_role)role);
        for (int id = 1; id <= count; id++) {
            char name[24];
            snprintf(name, sizeof name, count > 1 ? "%s-%d" : "%s", names[role], id);
            if (metawatch_offset_of(w->watch, name) < offset)
                return false;
        }
    }
    return true;
}

static bool all_are_active(const struct world *w)
{
    uint64_t since;
    for (int32_t id = 1; id <= cluster_count(w->cluster, CLUSTER_STORAGE); id++) {
        const struct seen_broker *b = metawatch_broker(w->watch, id);
        if (!b->registered || b->fenced || !cluster_is_up(w->cluster, CLUSTER_STORAGE, id, &since))
            return false;
    }
    return true;
}

/* Every fault ends, and everything has to get well. */
static void calm_down(struct world *w)
{
    uint64_t until = sim_now_ms(w->sim) + CALM_MS, done[ADMINS];
    cluster_heal(w->cluster);
    sim_states_end();
    for (int i = 0; i < ADMINS; i++)
        done[i] = admin_done(w->admins[i]);
    bool good = false;
    while (!good) {
        int64_t offset = metawatch_offset(w->watch);
        sim_until(w->sim, sim_now_ms(w->sim) + LAG_MS);
        good = metawatch_offset(w->watch) > offset && all_have(w, offset) && all_are_active(w) &&
               metawatch_voters(w->watch) == cluster_count(w->cluster, CLUSTER_CONTROLLER) &&
               metawatch_stuck(w->watch) == 0;
        for (int i = 0; i < ADMINS; i++)
            good &= admin_done(w->admins[i]) > done[i] + 2;
        if (!good && sim_now_ms(w->sim) > until)
            sim_fail(w->sim,
                     "nothing fails for %d ms: offset %" PRId64 "%s, brokers %s, %d voters of %d, %d partitions "
                     "that could be led and are not, requests %" PRIu64 " and %" PRIu64,
                     CALM_MS, offset, all_have(w, offset) ? "" : " which not all have",
                     all_are_active(w) ? "active" : "fenced", metawatch_voters(w->watch),
                     cluster_count(w->cluster, CLUSTER_CONTROLLER), metawatch_stuck(w->watch),
                     admin_done(w->admins[0]) - done[0], admin_done(w->admins[1]) - done[1]);
    }
    for (int i = 0; i < ADMINS; i++)
        admin_check(w->admins[i]);
    sim_note(w->sim, "calm at offset %" PRId64, metawatch_offset(w->watch));
}

/* ---- a run ---- */

/* Each seed has its own mix: some faults often, others not at all. */
static struct cluster_options mix(struct world *w)
{
    struct sim *s = w->sim;
    static const int controllers[] = {1, 2, 3, 3, 3, 5}, storages[] = {1, 2, 3, 3, 4, 7};
    w->kills = cluster_one_of(s, (const uint64_t[]){0, 10, 20, 40});
    w->cuts = cluster_one_of(s, (const uint64_t[]){0, 10, 30, 60});
    w->stalls = cluster_one_of(s, (const uint64_t[]){0, 5, 10, 30});
    w->disks = cluster_one_of(s, (const uint64_t[]){0, 0, 3, 6});
    w->clocks = cluster_one_of(s, (const uint64_t[]){0, 0, 5, 20});
    w->power = cluster_one_of(s, (const uint64_t[]){0, 0, 5, 20});
    w->stops = cluster_one_of(s, (const uint64_t[]){0, 5, 5, 10});
    return (struct cluster_options){.faults = cluster_some_faults(s),
                                    .count = {[CLUSTER_CONTROLLER] = controllers[sim_below(s, COUNTOF(controllers))],
                                              [CLUSTER_STORAGE] = storages[sim_below(s, COUNTOF(storages))]},
                                    .restart_ms = 30000,
                                    .durable = true, /* there are no records */
                                    .config = sim_chance(s, 500)
                                                  ? "metadata.log.max.record.bytes.between.snapshots=20000\n"
                                                    "default.replication.factor=1\n"
                                                  : ""};
}

static void run(struct sim *s, uint64_t steps)
{
    struct world w = {.sim = s};
    struct cluster_options o = mix(&w);
    w.watch = metawatch_new(s);
    w.cluster = cluster_new(s, &o);
    cluster_watch_lives(w.cluster, metawatch_life, w.watch);
    for (int i = 0; i < ADMINS; i++)
        w.admins[i] = admin_new(w.cluster, w.watch, i);
    for (uint64_t i = 0; i < steps; i++) {
        step(&w);
        check_fenced(&w);
    }
    calm_down(&w);
    for (int i = 0; i < ADMINS; i++)
        admin_free(w.admins[i]);
    cluster_free(w.cluster);
    metawatch_free(w.watch);
    sim_states_end();
}

const struct sim_world world_quorum = {"quorum", run, 0};
