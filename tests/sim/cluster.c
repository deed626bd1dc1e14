/* cluster.c - see cluster.h. Who is there, with what configuration, and how it is started again. */
#include "tests/sim/cluster_internal.h"

#include "libs/kraft/format.h"
#include "tests/sim/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

/* The real programs (CMakeLists.txt). */
int sim_main_controller(int argc, char **argv);
int sim_main_storage(int argc, char **argv);
int sim_main_frontend(int argc, char **argv);
int sim_main_group(int argc, char **argv);
int sim_main_txn(int argc, char **argv);

static const struct program {
    const char *role;
    int (*main)(int argc, char **argv);
    bool has_disk;
} programs[] = {
    [CLUSTER_CONTROLLER] = {"controller", sim_main_controller, true},
    [CLUSTER_STORAGE] = {"storage", sim_main_storage, true},
    [CLUSTER_FRONTEND] = {"frontend", sim_main_frontend, false},
    [CLUSTER_GROUP] = {"group", sim_main_group, false},
    [CLUSTER_TXN] = {"txn", sim_main_txn, false},
};

static void start(void *ctx);

static void on_death(void *ctx)
{
    struct node *n = ctx;
    struct cluster *c = n->cluster;
    int status = process_status(n->process);
    if (status > 0 && !process_was_killed(n->process) && !n->hurt)
        sim_fail(c->sim, "%s gave up with status %d", n->name, status);
    if (c->watch)
        c->watch(c->watch_ctx, n->process, false);
    tcp_forget(c->tcp, n->process);
    n->process = process_free(n->process);
    if (n->role == CLUSTER_CONTROLLER && status == EX_IOERR)
        disk_remount(n->disk);
    if (n->disk && n->power_cut)
        disk_power_cut(n->disk);
    else if (n->disk)
        disk_restart(n->disk);
    n->power_cut = n->stopping = false;
    n->hurt = n->empty_event != 0;
    n->since_ms = sim_now_ms(c->sim);
    bool soon = c->healed || sim_chance(c->sim, 500);
    sim_at(c->sim, 10 + sim_below(c->sim, soon ? MIN(c->restart_ms, (uint64_t)50) : c->restart_ms), start, n);
}

static void start(void *ctx)
{
    struct node *n = ctx;
    struct cluster *c = n->cluster;
    const struct program *program = &programs[n->role];
    char name[32], id[12];
    snprintf(name, sizeof name, "karst-%s", program->role);
    snprintf(id, sizeof id, "%d", n->id);
    const char *argv[] = {name, "--config", "its.properties", "--id", id};
    n->starts++;
    n->since_ms = sim_now_ms(c->sim);
    sim_note(c->sim, "%s starts, %llu", n->name, (unsigned long long)n->starts);
    n->process = process_new(c->machine, n->name, n->disk, on_death, n);
    process_set_place(n->process, n->place);
    process_protect(n->process, n->role == CLUSTER_STORAGE && c->victim != 0);
    process_set_wall_ahead(n->process, n->wall_ahead_ms);
    if (c->watch)
        c->watch(c->watch_ctx, n->process, true);
    process_exec(n->process, program->main, COUNTOF(argv), argv);
}

/* ---- a formatted machine ---- */

static const struct platform_identity *identity_of(const struct process *p)
{
    const struct node *n = process_ctx(p);
    return &n->identity;
}

static void nothing(void *ctx)
{
    (void)ctx;
}

/* The first controller is the first voter; the others join it. */
static void format(struct cluster *c, struct node *n)
{
    struct process *p = process_new(c->machine, "format", n->disk, nothing, n), *before;
    struct kraft_format_options o = {.dir = PLATFORM_DIR,
                                     .meta = {.node_id = n->id, .directory_id = n->identity.directory_id},
                                     .listener_name = "CONTROLLER",
                                     .host = "127.0.0.1",
                                     .port = 9093,
                                     .now_ms = sim_wall_ms(c->sim)};
    char *message = NULL;
    snprintf(o.meta.cluster_id, sizeof o.meta.cluster_id, "%s", PLATFORM_CLUSTER_ID);
    process_protect(p, true);
    platform_set_formatted(false);
    before = process_enter(p);
    bool is_first = n->role == CLUSTER_CONTROLLER && n->id == 1;
    int error = file_mkdir(&file_system_real, PLATFORM_DIR);
    if (error == 0)
        error = file_sync_dir(&file_system_real, "");
    if (error == 0)
        error = is_first ? kraft_format(&o, &message) : kraft_format_data(&o, &message);
    if (error == 0) /* as meta.properties is made durable, which is not on this disk (platform.c) */
        error = file_sync_dir(&file_system_real, PLATFORM_DIR);
    if (error != 0)
        sim_fail(c->sim, "the disk cannot be formatted: %s", message ? message : strerror(-error));
    process_leave(before);
    platform_set_formatted(true);
    process_free(p);
    disk_restart(n->disk);
}

static char *controllers_text(const struct cluster_options *o)
{
    struct buf b = {0};
    for (int i = 1; i <= o->count[CLUSTER_CONTROLLER]; i++)
        buf_printf(&b, "%s%d@ipc:///run/karst/controller-%d", i > 1 ? "," : "", i, i);
    buf_append(&b, "", 1);
    return (char *)b.data;
}

static char *config_text(const struct cluster_options *o, const struct node *n, const char *compression)
{
    char *controllers = controllers_text(o);
    int port = cluster_port(n->role == CLUSTER_FRONTEND ? n->id : 1);
    char *text = xasprintf(
        "process.roles=broker,controller\nnode.id=%d\nlog.dirs=" PLATFORM_DIR "\n"
        "listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d\n"
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
        "controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=127.0.0.1:9093\n%s"
        "offsets.topic.num.partitions=3\n"
        "log.index.size.max.bytes=40000\nlog.cleaner.backoff.ms=300\ngroup.initial.rebalance.delay.ms=200\ngroup.min."
        "session.timeout.ms=1000\n"
        "karst.run.dir=/run/karst\nkarst.controllers=%s\nkarst.bus.shared=%s\n"
        "compression.type=%s\n%soffsets.topic.replication.factor=1\n%s",
        n->id, port, 19093 + n->id,
        n->role == CLUSTER_CONTROLLER && n->id > 1 ? "controller.quorum.auto.join.enable=true\n" : "", controllers,
        o->shares ? "true" : "false", compression, o->durable ? "log.flush.interval.messages=1\n" : "", o->config);
    free(controllers);
    return text;
}

static void make_node(struct cluster *c, struct node *n, const struct cluster_options *o, const char *compression)
{
    snprintf(n->name, sizeof n->name, o->count[n->role] > 1 ? "%s-%d" : "%s", programs[n->role].role, n->id);
    n->config = config_text(o, n, compression);
    n->identity = (struct platform_identity){
        .node_id = n->id, .directory_id = {{0xd1, (uint8_t)n->role, (uint8_t)n->id}}, .config = n->config};
    if (programs[n->role].has_disk) {
        n->disk = disk_new(sim_random(c->sim));
        format(c, n);
    }
    sim_at(c->sim, sim_below(c->sim, 100), start, n);
}

struct cluster *cluster_new(struct sim *s, const struct cluster_options *o)
{
    struct cluster *c = xcalloc(1, sizeof *c);
    c->sim = s;
    c->restart_ms = o->restart_ms;
    c->durable = o->durable;
    /* What the producers chose, or one codec for all: then most batches are compressed anew on the slow pool. */
    static const char *const compressions[] = {"producer", "producer", "lz4", "zstd", "uncompressed"};
    const char *compression = compressions[sim_below(s, COUNTOF(compressions))];
    c->machine = machine_new(s, &o->faults);
    c->tcp = tcp_new(c->machine, o->client_breaks);
    platform_start(s, identity_of);
    for (int role = 0; role < CLUSTER_ROLES; role++)
        c->node_count += c->count[role] = o->count[role];
    ASSERT(c->node_count < PLACES_MAX);
    c->nodes = xcalloc((size_t)c->node_count, sizeof *c->nodes);
    struct node *n = c->nodes;
    for (int role = 0; role < CLUSTER_ROLES; role++)
        for (int id = 1; id <= o->count[role]; id++, n++) {
            *n = (struct node){.cluster = c, .role = (enum cluster_role)role, .id = id};
            n->place = (int)(n - c->nodes) + 1;
            make_node(c, n, o, compression);
        }
    return c;
}

struct cluster *cluster_free(struct cluster *c)
{
    if (c == NULL)
        return NULL;
    for (int i = 0; i < c->node_count; i++) {
        struct node *n = &c->nodes[i];
        if (n->process)
            tcp_forget(c->tcp, n->process);
        process_free(n->process);
        disk_free(n->disk);
        free(n->config);
    }
    tcp_free(c->tcp);
    machine_free(c->machine);
    platform_stop();
    free(c->nodes);
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

int cluster_count(const struct cluster *c, enum cluster_role role)
{
    return c->count[role];
}

bool cluster_is_up(const struct cluster *c, enum cluster_role role, int32_t id, uint64_t *ret_since_ms)
{
    for (int i = 0; i < c->node_count; i++)
        if (c->nodes[i].role == role && c->nodes[i].id == id) {
            *ret_since_ms = c->nodes[i].since_ms;
            return c->nodes[i].process != NULL && !process_is_ghost(c->nodes[i].process);
        }
    BUG("no such program");
}

void cluster_watch_lives(struct cluster *c, cluster_life_fn *fn, void *ctx)
{
    c->watch = fn;
    c->watch_ctx = ctx;
}

void cluster_check(struct cluster *c)
{
    enum { BLOCKS_MAX = 2, DESCRIPTORS_MAX = 128 }; /* a front end keeps a piece to read to */
    for (int i = 0; i < c->node_count; i++) {
        struct node *n = &c->nodes[i];
        uint64_t oldest_ms;
        size_t blocks = kernel_blocks(n->process, &oldest_ms);
        if (blocks > BLOCKS_MAX)
            sim_fail(c->sim, "%s holds %zu blocks of its arena, one for %llu ms", n->name, blocks,
                     (unsigned long long)oldest_ms);
        if (kernel_descriptors(n->process) > DESCRIPTORS_MAX)
            sim_fail(c->sim, "%s holds %zu descriptors", n->name, kernel_descriptors(n->process));
        if (n->disk && disk_passed_deleted(n->disk))
            sim_fail(c->sim, "%zu descriptors of files of %s are held that are deleted", disk_passed_deleted(n->disk),
                     n->name);
    }
}
