/* cluster.c - see cluster.h. */
#include "tests/sim/cluster.h"

#include "libs/kraft/format.h"
#include "tests/sim/kernel.h"
#include "tests/sim/platform.h"

#include <stdio.h>
#include <stdlib.h>

/* The real programs (CMakeLists.txt). */
int sim_main_controller(int argc, char **argv);
int sim_main_storage(int argc, char **argv);
int sim_main_frontend(int argc, char **argv);
int sim_main_group(int argc, char **argv);
int sim_main_txn(int argc, char **argv);

static const struct program {
    const char *name, *role, *id;
    int (*main)(int argc, char **argv);
    bool has_disk;
    const char *config; /* what config_load is asked for */
} programs[] = {{"controller", "controller", "1", sim_main_controller, true, "server.properties"},
                {"storage", "storage", "1", sim_main_storage, true, "server.properties"},
                {"frontend", "frontend", "1", sim_main_frontend, false, "server.properties"},
                {"frontend-2", "frontend", "2", sim_main_frontend, false, PLATFORM_OTHER_CONFIG},
                {"group", "group", "1", sim_main_group, false, "server.properties"},
                {"group-2", "group", "2", sim_main_group, false, "server.properties"},
                {"txn", "txn", "1", sim_main_txn, false, "server.properties"}};

struct node {
    struct cluster *cluster;
    const struct program *program;
    struct disk *disk;
    struct process *process; /* NULL: it waits for its restart */
    bool power_cut, stopping;
    bool full; /* its disk, in this life: it may give up */
    uint64_t empty_event;
    uint64_t starts;
};

struct cluster {
    struct sim *sim;
    struct machine *machine;
    struct tcp *tcp;
    struct node nodes[COUNTOF(programs)];
    char *config, *other_config;
    bool healed;
};

static void start(void *ctx);

static void on_death(void *ctx)
{
    struct node *n = ctx;
    struct cluster *c = n->cluster;
    int status = process_status(n->process);
    if (status > 0 && !process_was_killed(n->process) && !n->full)
        sim_fail(c->sim, "%s gave up with status %d", n->program->name, status);
    tcp_forget(c->tcp, n->process);
    n->process = process_free(n->process);
    if (n->disk && n->power_cut)
        disk_power_cut(n->disk);
    else if (n->disk)
        disk_restart(n->disk);
    n->power_cut = n->stopping = false;
    n->full = n->empty_event != 0;
    sim_at(c->sim, 10 + sim_below(c->sim, c->healed ? 50 : 1500), start, n);
}

static void start(void *ctx)
{
    struct node *n = ctx;
    struct cluster *c = n->cluster;
    char name[32];
    snprintf(name, sizeof name, "karst-%s", n->program->role);
    const char *argv[] = {name, "--config", n->program->config, "--id", n->program->id};
    n->starts++;
    sim_note(c->sim, "%s starts, %llu", n->program->name, (unsigned long long)n->starts);
    n->process = process_new(c->machine, n->program->name, n->disk, on_death, n);
    process_exec(n->process, n->program->main, COUNTOF(argv), argv);
}

/* ---- a formatted machine ---- */

static void nothing(void *ctx)
{
    (void)ctx;
}

static void format(struct cluster *c, struct node *n)
{
    struct process *p = process_new(c->machine, "format", n->disk, nothing, NULL), *before;
    struct kraft_format_options o = {.dir = PLATFORM_DIR,
                                     .meta = {.node_id = 1, .directory_id = {{0xd1, 1}}},
                                     .listener_name = "CONTROLLER",
                                     .host = "127.0.0.1",
                                     .port = 9093,
                                     .now_ms = sim_wall_ms(c->sim)};
    char *message = NULL;
    snprintf(o.meta.cluster_id, sizeof o.meta.cluster_id, "%s", PLATFORM_CLUSTER_ID);
    process_protect(p);
    platform_set_formatted(false);
    before = process_enter(p);
    if (file_mkdir(&file_system_real, PLATFORM_DIR) || file_sync_dir(&file_system_real, "") ||
        kraft_format(&o, &message))
        sim_fail(c->sim, "the disk cannot be formatted: %s", message ? message : "no folder");
    process_leave(before);
    platform_set_formatted(true);
    process_free(p);
    disk_restart(n->disk);
}

static char *config_text(const struct cluster_options *o, int port, const char *compression)
{
    return xasprintf(
        "process.roles=broker,controller\nnode.id=1\nlog.dirs=" PLATFORM_DIR "\n"
        "listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:9093\n"
        "controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:9093\n"
        "offsets.topic.replication.factor=1\noffsets.topic.num.partitions=3\n"
        "log.cleaner.backoff.ms=300\ngroup.initial.rebalance.delay.ms=200\ngroup.min.session.timeout.ms=1000\n"
        "karst.run.dir=/run/karst\nkarst.controllers=1@ipc:///run/karst/controller-1\nkarst.bus.shared=%s\n"
        "compression.type=%s\n%s",
        port, o->shares ? "true" : "false", compression, o->durable ? "log.flush.interval.messages=1\n" : "");
}

struct cluster *cluster_new(struct sim *s, const struct cluster_options *o)
{
    struct cluster *c = xcalloc(1, sizeof *c);
    c->sim = s;
    /* What the producers chose, or one codec for all: then most batches are compressed anew on the slow pool. */
    static const char *const compressions[] = {"producer", "producer", "lz4", "zstd", "uncompressed"};
    const char *compression = compressions[sim_below(s, COUNTOF(compressions))];
    c->config = config_text(o, CLUSTER_PORT, compression);
    c->other_config = config_text(o, CLUSTER_OTHER_PORT, compression);
    c->machine = machine_new(s, &o->faults);
    c->tcp = tcp_new(c->machine, o->client_breaks);
    platform_set_config(s, slice_str(c->config), slice_str(c->other_config));
    for (size_t i = 0; i < COUNTOF(programs); i++) {
        struct node *n = &c->nodes[i];
        *n = (struct node){.cluster = c, .program = &programs[i]};
        if (programs[i].has_disk) {
            n->disk = disk_new(sim_random(s));
            format(c, n);
        }
        sim_at(s, sim_below(s, 100), start, n);
    }
    return c;
}

struct cluster *cluster_free(struct cluster *c)
{
    if (c == NULL)
        return NULL;
    for (size_t i = 0; i < COUNTOF(programs); i++) {
        struct node *n = &c->nodes[i];
        if (n->process)
            tcp_forget(c->tcp, n->process);
        process_free(n->process);
        disk_free(n->disk);
    }
    tcp_free(c->tcp);
    machine_free(c->machine);
    platform_set_config(NULL, SLICE_EMPTY, SLICE_EMPTY);
    free(c->config);
    free(c->other_config);
    free(c);
    return NULL;
}

struct tcp *cluster_tcp(struct cluster *c)
{
    return c->tcp;
}

struct machine *cluster_machine(struct cluster *c)
{
    return c->machine;
}

/* ---- what happens to it ---- */

void cluster_power_cut(struct cluster *c)
{
    sim_cover("power cut of the machine");
    sim_note(c->sim, "power cut");
    for (size_t i = 0; i < COUNTOF(programs); i++) {
        struct node *n = &c->nodes[i];
        n->power_cut = true;
        if (n->process)
            process_kill(n->process);
        else if (n->disk) {
            disk_power_cut(n->disk);
            n->power_cut = false;
        }
    }
}

static struct node *any(struct cluster *c)
{
    return &c->nodes[sim_below(c->sim, COUNTOF(programs))];
}

void cluster_kill_one(struct cluster *c)
{
    struct node *n = any(c);
    if (n->process)
        process_kill(n->process);
}

static void stop(struct node *n)
{
    struct cluster *c = n->cluster;
    if (n->process == NULL || n->stopping || process_is_ghost(n->process))
        return;
    n->stopping = true; /* a second signal would end this program: _exit */
    sim_cover("a program was told to stop");
    sim_note(c->sim, "%s is told to stop", n->program->name);
    process_terminate(n->process);
}

void cluster_stop_one(struct cluster *c)
{
    struct node *n = any(c);
    if (n->program->main != sim_main_storage)
        stop(n);
}

void cluster_stop_storage(struct cluster *c)
{
    for (size_t i = 0; i < COUNTOF(programs); i++)
        if (programs[i].main == sim_main_storage)
            stop(&c->nodes[i]);
}

void cluster_stall_one(struct cluster *c)
{
    struct node *n = any(c);
    if (n->process)
        process_stall(n->process, 1 + sim_below(c->sim, sim_chance(c->sim, 500) ? 1000 : 40000));
}

static void empty_disk(void *ctx)
{
    struct node *n = ctx;
    sim_cancel(n->cluster->sim, n->empty_event);
    n->empty_event = 0;
    disk_set_capacity(n->disk, 0);
    sim_note(n->cluster->sim, "the disk of %s has room again", n->program->name);
}

void cluster_fill_disk(struct cluster *c)
{
    struct node *n = any(c);
    if (n->disk == NULL || n->empty_event || n->process == NULL)
        return;
    sim_cover("a full disk");
    sim_note(c->sim, "the disk of %s is full", n->program->name);
    disk_set_capacity(n->disk, 1); /* nothing more fits */
    n->full = true;
    n->empty_event = sim_at(c->sim, 100 + sim_below(c->sim, 3000), empty_disk, n);
}

void cluster_heal(struct cluster *c)
{
    for (size_t i = 0; i < COUNTOF(programs); i++)
        if (c->nodes[i].empty_event)
            empty_disk(&c->nodes[i]);
    c->healed = true;
    machine_heal(c->machine);
    tcp_heal(c->tcp);
}

void cluster_check(struct cluster *c)
{
    enum { BLOCKS_MAX = 2, DESCRIPTORS_MAX = 128 }; /* a front end keeps a piece to read to */
    for (size_t i = 0; i < COUNTOF(programs); i++) {
        struct node *n = &c->nodes[i];
        uint64_t oldest_ms;
        size_t blocks = kernel_blocks(n->process, &oldest_ms);
        if (blocks > BLOCKS_MAX)
            sim_fail(c->sim, "%s holds %zu blocks of its arena, one for %llu ms", n->program->name, blocks,
                     (unsigned long long)oldest_ms);
        if (kernel_descriptors(n->process) > DESCRIPTORS_MAX)
            sim_fail(c->sim, "%s holds %zu descriptors", n->program->name, kernel_descriptors(n->process));
        if (n->disk && disk_passed_deleted(n->disk))
            sim_fail(c->sim, "%zu descriptors of files of %s are held that are deleted", disk_passed_deleted(n->disk),
                     n->program->name);
    }
}
