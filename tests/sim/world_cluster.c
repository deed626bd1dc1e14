/* world_cluster.c - clients of a whole constellation whose programs die, stop, lose their connections and, when every
 * record is flushed, their power; in three sizes: one of most, three of what keeps something, and any number of all
 * under every fault there is (whole).
 *
 * Promises: see clients.h, metawatch.h, replicawatch.h, groupwatch.h and watch.h. When nothing fails any more
 * everything that clients want is done within HEALED_MS. */
#include "tests/sim/clients.h"
#include "tests/sim/cluster.h"
#include "tests/sim/groupwatch.h"
#include "tests/sim/metawatch.h"
#include "tests/sim/replicawatch.h"
#include "tests/sim/watch.h"

#include <stdio.h>

enum { HEALED_MS = 60000, WHOLE_HEALED_MS = 120000, STEP_MS = 50, WHOLE_STEP_MS = 150, QUIET_MS = 40000 };

/* Of each fault, per thousand steps. */
struct rates {
    uint64_t kills, stops, stalls, fills, errors, cuts, clocks, power_one, power_all;
};

struct shape {
    struct cluster_options options;
    struct rates rates;
    uint64_t step_ms, healed_ms;
    bool moves;      /* partitions, between storage nodes */
    int32_t victim;  /* the storage node whose power is cut though it has not flushed all; 0: none */
    uint64_t losses; /* how often, per thousand steps */
};

struct world {
    struct sim *sim;
    const struct shape *shape;
    struct cluster *cluster;
    struct clients *clients;
    struct watch *watch;
    struct metawatch *meta;
    struct replicawatch *replicas;
    struct groupwatch *groups;
    int64_t victim_epoch; /* of the life that lost something; -1: none did */
};

/* ---- states (coverage.h) ---- */

static void tell_states(const struct world *w)
{
    struct replica_states r = replicawatch_states(w->replicas);
    sim_state("nobody decides", sim_now_ms(w->sim) > metawatch_moved(w->meta) + 1500);
    sim_state("no leader", metawatch_leaderless(w->meta) > 0);
    sim_state("a broker fenced", metawatch_fenced(w->meta) > 0);
    sim_state("a replica out of sync", metawatch_lacking(w->meta) > 0);
    sim_state("a follower behind", r.followers_behind > 0);
    sim_state("logs are cut", r.cuts > 0);
    sim_state("a partition moves", metawatch_moving(w->meta) > 0);
    sim_state("a group rebalances", w->clients != NULL && clients_rebalance(w->clients));
}

static void on_fault(void *ctx, const struct process *p, bool is_hit)
{
    const struct world *w = ctx;
    const char *name = process_name(p), *decider = metawatch_decider(w->meta);
    enum replica_part part = replicawatch_part_of(w->replicas, p);
    bool is_controller = strncmp(name, "controller", 10) == 0;
    bool decides = is_controller && decider != NULL && strcmp(name, decider) == 0;
    sim_state("to a leader", is_hit && part == REPLICA_PART_LEADER);
    sim_state("to a follower", is_hit && part == REPLICA_PART_FOLLOWER);
    sim_state("to a follower behind", is_hit && part == REPLICA_PART_BEHIND);
    sim_state("to the controller", is_hit && decides);
    sim_state("to a controller", is_hit && is_controller && !decides);
    sim_state("to a front end", is_hit && strncmp(name, "frontend", 8) == 0);
    sim_state("to a coordinator", is_hit && (strncmp(name, "group", 5) == 0 || strncmp(name, "txn", 3) == 0));
}

/* ---- faults ---- */

/* One of three replicas may lose all that it has not flushed, when another in the ISR has it, too, and stays until the
 * one is registered anew, and so is in no ISR or ELR (KIP-966). Then the others may all be gone for a while. One that
 * has just begun a life that is not registered yet leaves the ISR with that registration, and what has lost its records
 * would be all that is left in it. */
static void lose(struct world *w)
{
    int32_t id = w->shape->victim;
    if (id == 0)
        return;
    const struct seen_broker *b = metawatch_broker(w->meta, id);
    /* Those whose sessions ended meanwhile are eligible only: they lead again before they may die. */
    if (w->victim_epoch >= 0 && b->epoch > w->victim_epoch && metawatch_leaderless(w->meta) == 0) {
        w->victim_epoch = -1;
        cluster_found(w->cluster);
        if (sim_chance(w->sim, 300))
            cluster_kill_others(w->cluster, id);
    }
    if (w->victim_epoch < 0 && sim_chance(w->sim, w->shape->losses) && b->registered && metawatch_thin(w->meta) == 0 &&
        metawatch_leaderless(w->meta) == 0 && replicawatch_in_sync_now(w->replicas) &&
        cluster_power_cut_victim(w->cluster, id)) {
        w->victim_epoch = b->epoch;
        sim_cover("a replica lost what it had not flushed");
    }
}

static void step(struct world *w)
{
    const struct rates *r = &w->shape->rates;
    const struct {
        uint64_t rate;
        void (*fault)(struct cluster *c);
    } faults[] = {
        {r->cuts, cluster_cut},         {r->clocks, cluster_jump_clock},       {r->kills, cluster_kill_one},
        {r->stops, cluster_stop_one},   {r->fills, cluster_fill_disk},         {r->errors, cluster_fail_disk},
        {r->stalls, cluster_stall_one}, {r->power_one, cluster_power_cut_one}, {r->power_all, cluster_power_cut}};
    tell_states(w);
    lose(w);
    for (size_t i = 0; i < COUNTOF(faults); i++)
        if (sim_chance(w->sim, faults[i].rate))
            faults[i].fault(w->cluster);
    sim_until(w->sim, sim_now_ms(w->sim) + sim_below(w->sim, w->shape->step_ms));
    replicawatch_check(w->replicas);
}

/* ---- the end ---- */

static bool is_done(const struct world *w)
{
    return clients_are_done(w->clients) && watch_is_done(w->watch) && metawatch_moving(w->meta) == 0;
}

static void until_done(struct world *w)
{
    uint64_t until = sim_now_ms(w->sim) + w->shape->healed_ms;
    while (sim_now_ms(w->sim) < until && !is_done(w)) {
        sim_until(w->sim, sim_now_ms(w->sim) + 100);
        replicawatch_check(w->replicas);
    }
}

/* Readers go on, and are told of what is written after it. */
static void stop_cleanly(struct world *w)
{
    for (int i = 0; i < 3; i++) {
        clients_go_on(w->clients);
        sim_until(w->sim, sim_now_ms(w->sim) + sim_below(w->sim, 2000));
        cluster_stop_storage(w->cluster);
        if (i == 0)
            cluster_stop_group(w->cluster);
        until_done(w);
        clients_check(w->clients);
    }
}

/* All are in sync again; of a log that is cleaned each has its own bytes. */
static void check_replicas(struct world *w, bool compacted)
{
    for (int32_t i = 0; i < CLIENTS_PARTITIONS; i++) {
        char folder[32];
        snprintf(folder, sizeof folder, CLIENTS_TOPIC "-%d", i);
        const struct seen_partition *p = metawatch_partition(w->meta, CLIENTS_TOPIC, i);
        if (p->moving || p->isr_count < p->replica_count)
            sim_fail(w->sim, "of %d replicas of %s %d are in sync%s, and nothing fails", p->replica_count, folder,
                     p->isr_count, p->moving ? ", it is being moved" : "");
        if (!compacted)
            cluster_check_replicas(w->cluster, folder, p, replicawatch_start(w->replicas, folder));
    }
}

static void end(struct world *w)
{
    cluster_heal(w->cluster);
    sim_states_end();
    clients_finish(w->clients);
    until_done(w);
    clients_check(w->clients);
    bool compacted = w->clients->compacted;
    stop_cleanly(w);
    watch_check(w->watch);
    watch_free(w->watch);
    clients_free(w->clients);
    sim_until(w->sim, sim_now_ms(w->sim) + QUIET_MS);
    replicawatch_check(w->replicas);
    cluster_check(w->cluster);
    if (cluster_count(w->cluster, CLUSTER_STORAGE) > 1)
        check_replicas(w, compacted);
}

/* ---- a run ---- */

static void on_life(void *ctx, struct process *p, bool starts)
{
    struct world *w = ctx;
    metawatch_life(w->meta, p, starts);
    replicawatch_life(w->replicas, p);
    groupwatch_life(w->groups, p);
}

static void run_shape(struct sim *s, uint64_t steps, const struct shape *shape)
{
    const struct cluster_options *o = &shape->options;
    struct world w = {.sim = s, .shape = shape, .victim_epoch = -1};
    sim_note(s, o->shares ? "memory and files are shared" : "nothing is shared");
    w.meta = metawatch_new(s);
    w.replicas = replicawatch_new(s, w.meta);
    w.groups = groupwatch_new(s, w.replicas);
    w.cluster = cluster_new(s, o);
    cluster_watch_lives(w.cluster, on_life, &w);
    machine_on_fault(cluster_machine(w.cluster), on_fault, &w);
    struct clients_options clients = {.frontends = o->count[CLUSTER_FRONTEND],
                                      .replicas = (int16_t)MIN(o->count[CLUSTER_STORAGE], 3),
                                      .moved = shape->moves ? o->count[CLUSTER_STORAGE] : 0,
                                      .committed = w.replicas};
    w.clients = clients_new(s, cluster_tcp(w.cluster), &clients);
    w.watch = watch_new(cluster_machine(w.cluster), w.meta, o->count[CLUSTER_CONTROLLER]);
    for (uint64_t i = 0; i < steps; i++)
        step(&w);
    end(&w);
    cluster_free(w.cluster);
    groupwatch_free(w.groups);
    replicawatch_free(w.replicas);
    metawatch_free(w.meta);
    sim_states_end();
}

/* ---- shapes ---- */

static struct shape mix(struct sim *s, const int count[CLUSTER_ROLES])
{
    struct shape shape = {.options = {.faults = cluster_some_faults(s),
                                      .client_breaks = cluster_one_of(s, (const uint64_t[]){0, 2, 2, 20}),
                                      .restart_ms = 1500,
                                      .config = "",
                                      .shares = sim_chance(s, 500),
                                      .durable = sim_chance(s, 500)},
                          .rates = {.kills = 2, .stops = 1, .stalls = 1, .fills = 1},
                          .step_ms = STEP_MS,
                          .healed_ms = HEALED_MS};
    memcpy(shape.options.count, count, sizeof shape.options.count);
    if (shape.options.durable)
        shape.rates.power_all = cluster_one_of(s, (const uint64_t[]){0, 1, 1, 10});
    return shape;
}

/* Every third pair of seeds: who is in sync has two seconds to catch up, not thirty, so that it goes while it lives. */
static const char *lag_of(const struct sim *s)
{
    return sim_seed(s) / 2 % 3 == 0 ? "replica.lag.time.max.ms=2000\n" : "";
}

static void run(struct sim *s, uint64_t steps)
{
    struct shape shape = mix(s, (const int[CLUSTER_ROLES]){1, 1, 2, 2, 1});
    run_shape(s, steps, &shape);
}

/* Where three have each record. Who shares a machine's files loses power with it, and would read here what the cut left
 * of them. */
static void draw_victim(struct sim *s, struct shape *shape)
{
    if (shape->options.durable || shape->options.shares || shape->options.count[CLUSTER_STORAGE] < 3)
        return;
    shape->victim = 1 + (int32_t)sim_below(s, (uint64_t)shape->options.count[CLUSTER_STORAGE]);
    shape->losses = cluster_one_of(s, (const uint64_t[]){10, 20, 20, 50});
}

/* Three of everything that keeps something; a record is there when two have it. */
static void run_replicas(struct sim *s, uint64_t steps)
{
    struct shape shape = mix(s, (const int[CLUSTER_ROLES]){3, 3, 1 + (int)sim_below(s, 3), 2, 1});
    char config[300];
    snprintf(config, sizeof config,
             "default.replication.factor=3\nmin.insync.replicas=2\noffsets.topic.replication.factor=3\n%s", lag_of(s));
    shape.options.config = config;
    shape.options.restart_ms = sim_chance(s, 500) ? 20000 : 1500; /* with and without the end of a session */
    shape.rates.cuts = shape.options.shares ? 0 : cluster_one_of(s, (const uint64_t[]){0, 5, 20, 40});
    shape.rates.clocks = shape.rates.cuts / 4;
    draw_victim(s, &shape);
    run_shape(s, steps, &shape);
}

/* Any number of everything, and every fault. */
static void run_whole(struct sim *s, uint64_t steps)
{
    static const int controllers[] = {1, 2, 3, 3, 3, 5}, storages[] = {1, 2, 3, 3, 4, 5, 7};
    static const char *const replicas[] = {
        "", "default.replication.factor=2\nmin.insync.replicas=2\noffsets.topic.replication.factor=2\n",
        "default.replication.factor=3\nmin.insync.replicas=2\noffsets.topic.replication.factor=3\n"};
    const int count[CLUSTER_ROLES] = {controllers[sim_below(s, COUNTOF(controllers))],
                                      storages[sim_below(s, COUNTOF(storages))], 1 + (int)sim_below(s, 3),
                                      1 + (int)sim_below(s, 2), 1};
    struct shape shape = mix(s, count);
    char config[300];
    snprintf(config, sizeof config, "%s%s%s", replicas[MIN(count[CLUSTER_STORAGE], 3) - 1],
             sim_chance(s, 500) ? "metadata.log.max.record.bytes.between.snapshots=20000\n" : "", lag_of(s));
    shape.options.config = config;
    shape.options.restart_ms = (const uint64_t[]){1500, 1500, 20000, 30000}[sim_below(s, 4)];
    shape.rates = (struct rates){.kills = cluster_one_of(s, (const uint64_t[]){0, 3, 10, 20}),
                                 .stops = cluster_one_of(s, (const uint64_t[]){0, 2, 2, 5}),
                                 .stalls = cluster_one_of(s, (const uint64_t[]){0, 2, 5, 10}),
                                 .fills = cluster_one_of(s, (const uint64_t[]){0, 1, 3, 10}),
                                 .errors = cluster_one_of(s, (const uint64_t[]){0, 1, 2, 5}),
                                 .cuts = cluster_one_of(s, (const uint64_t[]){0, 10, 20, 40}),
                                 .clocks = cluster_one_of(s, (const uint64_t[]){0, 0, 2, 10}),
                                 .power_one = cluster_one_of(s, (const uint64_t[]){0, 0, 3, 10}),
                                 .power_all = shape.rates.power_all};
    if (shape.options.shares)
        shape.rates.cuts = 0;
    shape.step_ms = WHOLE_STEP_MS;
    shape.healed_ms = WHOLE_HEALED_MS;
    shape.moves = sim_chance(s, 800);
    draw_victim(s, &shape);
    run_shape(s, steps, &shape);
}

const struct sim_world world_cluster = {"cluster", run, 0};
const struct sim_world world_replicas = {"replicas", run_replicas, 0};
const struct sim_world world_whole = {"whole", run_whole, 20};
