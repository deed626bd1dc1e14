/* cluster_faults.c - what happens to a constellation. */
#include "tests/sim/cluster_internal.h"

static struct node *any(struct cluster *c)
{
    return &c->nodes[sim_below(c->sim, (uint64_t)c->node_count)];
}

/* ---- ends of processes and machines ---- */

static void cut_power(struct node *n)
{
    n->power_cut = true;
    if (n->process) {
        process_kill(n->process);
    } else if (n->disk) {
        disk_power_cut(n->disk);
        n->power_cut = false;
    }
}

void cluster_power_cut(struct cluster *c)
{
    sim_fault("power cut of all machines");
    sim_note(c->sim, "power cut");
    for (int i = 0; i < c->node_count; i++)
        cut_power(&c->nodes[i]);
}

void cluster_power_cut_one(struct cluster *c)
{
    struct node *n = any(c);
    if (n->role == CLUSTER_STORAGE && !c->durable)
        return;
    machine_fault(c->machine, n->process, "power cut of one machine");
    sim_note(c->sim, "power cut of %s", n->name);
    cut_power(n);
}

static void protect(struct cluster *c, bool is)
{
    for (int i = 0; i < c->node_count; i++)
        if (c->nodes[i].role == CLUSTER_STORAGE && c->nodes[i].process)
            process_protect(c->nodes[i].process, is);
}

bool cluster_power_cut_victim(struct cluster *c, int32_t id)
{
    struct node *victim = NULL;
    bool all = c->victim == 0;
    for (int i = 0; i < c->node_count; i++) {
        struct node *n = &c->nodes[i];
        if (n->role != CLUSTER_STORAGE)
            continue;
        all &= n->process != NULL && !process_is_ghost(n->process) && !n->hurt && !n->stopping;
        victim = n->id == id ? n : victim;
    }
    if (!all || victim == NULL)
        return false;
    machine_fault(c->machine, victim->process, "power cut of one machine");
    sim_note(c->sim, "power cut of %s, which has not flushed all", victim->name);
    c->victim = id;
    protect(c, true);
    cut_power(victim);
    return true;
}

void cluster_found(struct cluster *c)
{
    c->victim = 0;
    protect(c, false);
}

void cluster_kill_others(struct cluster *c, int32_t id)
{
    sim_fault("all storage nodes but one were killed");
    sim_note(c->sim, "all storage nodes but %d are killed", id);
    for (int i = 0; i < c->node_count; i++)
        if (c->nodes[i].role == CLUSTER_STORAGE && c->nodes[i].id != id && c->nodes[i].process)
            process_kill(c->nodes[i].process);
}

/* While a storage node has lost something the others keep what they have. */
static bool is_spared(const struct node *n)
{
    return n->role == CLUSTER_STORAGE && n->cluster->victim != 0;
}

void cluster_kill_one(struct cluster *c)
{
    struct node *n = any(c);
    if (n->process == NULL || is_spared(n))
        return;
    machine_fault(c->machine, n->process, "a process was killed between two turns");
    process_kill(n->process);
}

static void stop(struct node *n)
{
    struct cluster *c = n->cluster;
    if (n->process == NULL || n->stopping || process_is_ghost(n->process))
        return;
    n->stopping = true; /* a second signal would end it at once, and nothing went wrong */
    machine_fault(c->machine, n->process, "a program was told to stop");
    sim_note(c->sim, "%s is told to stop", n->name);
    process_terminate(n->process);
}

void cluster_stop_one(struct cluster *c)
{
    struct node *n = any(c);
    if (n->role != CLUSTER_STORAGE)
        stop(n);
}

static void stop_one_of(struct cluster *c, enum cluster_role role)
{
    int32_t id = 1 + (int32_t)sim_below(c->sim, (uint64_t)c->count[role]);
    for (int i = 0; i < c->node_count; i++)
        if (c->nodes[i].role == role && c->nodes[i].id == id)
            stop(&c->nodes[i]);
}

void cluster_stop_storage(struct cluster *c)
{
    stop_one_of(c, CLUSTER_STORAGE);
}

void cluster_stop_group(struct cluster *c)
{
    stop_one_of(c, CLUSTER_GROUP);
}

void cluster_stall_one(struct cluster *c)
{
    struct node *n = any(c);
    if (n->process)
        process_stall(n->process, 1 + sim_below(c->sim, sim_chance(c->sim, 500) ? 1000 : 40000));
}

/* ---- disks ---- */

static void empty_disk(void *ctx)
{
    struct node *n = ctx;
    sim_cancel(n->cluster->sim, n->empty_event);
    n->empty_event = 0;
    disk_set_capacity(n->disk, 0);
    sim_note(n->cluster->sim, "the disk of %s has room again", n->name);
}

void cluster_fill_disk(struct cluster *c)
{
    struct node *n = any(c);
    if (n->disk == NULL || n->empty_event || n->process == NULL || is_spared(n))
        return;
    machine_fault(c->machine, n->process, "a full disk");
    sim_note(c->sim, "the disk of %s is full", n->name);
    disk_set_capacity(n->disk, 1); /* nothing more fits */
    n->hurt = true;
    n->empty_event = sim_at(c->sim, 100 + sim_below(c->sim, 3000), empty_disk, n);
}

void cluster_fail_disk(struct cluster *c)
{
    struct node *n = any(c);
    if (n->disk == NULL || n->process == NULL || is_spared(n))
        return;
    machine_fault(c->machine, n->process, "a disk error");
    sim_note(c->sim, "the disk of %s is about to fail", n->name);
    disk_fail_after(n->disk, sim_below(c->sim, 8), 1 + sim_below(c->sim, 3), EIO);
    n->hurt = true;
}

/* ---- links and clocks ---- */

static void cut_both(struct cluster *c, const struct node *a, const struct node *b, bool is)
{
    machine_cut(c->machine, a->place, b->place, is);
    machine_cut(c->machine, b->place, a->place, is);
}

static void end_cuts(struct cluster *c)
{
    sim_note(c->sim, "cuts end");
    for (int i = 0; i < c->node_count; i++)
        for (int j = 0; j < c->node_count; j++)
            machine_cut(c->machine, c->nodes[i].place, c->nodes[j].place, false);
}

void cluster_cut(struct cluster *c)
{
    struct node *a = any(c), *b = any(c);
    switch (sim_below(c->sim, 7)) {
    case 0:
        machine_fault(c->machine, a->process, "a link cut one way");
        sim_note(c->sim, "the link from %s to %s is cut", a->name, b->name);
        machine_cut(c->machine, a->place, b->place, true);
        break;
    case 1:
        machine_fault(c->machine, a->process, "a link cut both ways");
        sim_note(c->sim, "the link between %s and %s is cut", a->name, b->name);
        cut_both(c, a, b, true);
        break;
    case 2:
        machine_fault(c->machine, a->process, "a machine cut off");
        sim_note(c->sim, "%s is cut off", a->name);
        for (int i = 0; i < c->node_count; i++)
            cut_both(c, a, &c->nodes[i], true);
        break;
    case 3: {
        uint64_t half = sim_random(c->sim);
        sim_fault("two halves");
        sim_note(c->sim, "two halves");
        for (int i = 0; i < c->node_count; i++)
            for (int j = 0; j < i; j++)
                cut_both(c, &c->nodes[i], &c->nodes[j], ((half >> i) & 1) != ((half >> j) & 1));
        break;
    }
    case 4: /* it goes on with the others, on what it knew last */
        machine_fault(c->machine, a->process, "a machine cut off from the controllers");
        sim_note(c->sim, "%s is cut off from the controllers", a->name);
        for (int i = 0; i < c->node_count; i++)
            if (c->nodes[i].role == CLUSTER_CONTROLLER)
                cut_both(c, a, &c->nodes[i], true);
        break;
    default: end_cuts(c); break;
    }
}

void cluster_jump_clock(struct cluster *c)
{
    struct node *n = any(c);
    machine_fault(c->machine, n->process, "a wall clock jumped");
    n->wall_ahead_ms = (int64_t)sim_below(c->sim, 4000000) - 2000000;
    sim_note(c->sim, "the clock of %s jumps to %lld ms", n->name, (long long)n->wall_ahead_ms);
    if (n->process)
        process_set_wall_ahead(n->process, n->wall_ahead_ms);
}

/* ---- an end ---- */

void cluster_heal(struct cluster *c)
{
    for (int i = 0; i < c->node_count; i++) {
        struct node *n = &c->nodes[i];
        if (n->empty_event)
            empty_disk(n);
        if (n->disk && n->hurt && n->process) /* an armed fault may be left */
            disk_fail_after(n->disk, 0, 0, EIO);
    }
    c->healed = true;
    cluster_found(c);
    machine_heal(c->machine);
    tcp_heal(c->tcp);
}

uint64_t cluster_one_of(struct sim *s, const uint64_t rates[4])
{
    return rates[sim_below(s, 4)];
}

struct machine_faults cluster_some_faults(struct sim *s)
{
    return (struct machine_faults){.late = cluster_one_of(s, (const uint64_t[]){0, 10, 10, 50}),
                                   .stall = cluster_one_of(s, (const uint64_t[]){0, 1, 1, 3}),
                                   .breaks = cluster_one_of(s, (const uint64_t[]){0, 1, 1, 5}),
                                   .doubled = cluster_one_of(s, (const uint64_t[]){0, 0, 0, 1}),
                                   .refuse = cluster_one_of(s, (const uint64_t[]){0, 20, 20, 200}),
                                   .deaths = cluster_one_of(s, (const uint64_t[]){0, 60, 300, 1000}),
                                   .stalls = cluster_one_of(s, (const uint64_t[]){0, 20, 100, 400})};
}
