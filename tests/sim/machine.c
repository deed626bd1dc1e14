/* machine.c - processes: their lives and deaths. */
#include "tests/sim/machine.h"

#include <stdlib.h>
#include <utlist.h>

struct process {
    struct machine *machine;
    const char *name;
    struct disk *disk;
    struct loop *loop;
    struct bus *bus;
    sim_fn *on_death;
    void *ctx;
    bool ghost, protected;
    uint64_t death_event;
    struct process *prev, *next;
};

struct machine {
    struct sim *sim;
    struct net *net;
    struct machine_faults faults;
    struct process *processes;
};

struct machine *machine_new(struct sim *s, const struct machine_faults *faults)
{
    struct machine *m = xcalloc(1, sizeof *m);
    m->sim = s;
    m->faults = *faults;
    m->net = net_new(m, faults);
    return m;
}

struct machine *machine_free(struct machine *m)
{
    if (m == NULL)
        return NULL;
    ASSERT(m->processes == NULL);
    net_free(m->net);
    free(m);
    return NULL;
}

struct sim *machine_sim(struct machine *m)
{
    return m->sim;
}

struct net *machine_net(struct machine *m)
{
    return m->net;
}

void machine_heal(struct machine *m)
{
    m->faults = (struct machine_faults){0};
    net_heal(m->net);
}

struct process *process_new(struct machine *m, const char *name, struct disk *disk, sim_fn *on_death, void *ctx)
{
    struct process *p = xcalloc(1, sizeof *p);
    *p = (struct process){.machine = m, .name = name, .disk = disk, .on_death = on_death, .ctx = ctx};
    p->loop = loop_of_process(p);
    DL_APPEND(m->processes, p);
    return p;
}

struct process *process_free(struct process *p)
{
    if (p == NULL)
        return NULL;
    sim_cancel(p->machine->sim, p->death_event);
    if (p->bus) {
        net_forget(p->machine->net, p->bus);
        bus_drop(p->bus);
    }
    loop_drop(p->loop);
    DL_DELETE(p->machine->processes, p);
    free(p);
    return NULL;
}

struct loop *process_loop(struct process *p)
{
    return p->loop;
}

struct machine *process_machine(struct process *p)
{
    return p->machine;
}

const char *process_name(const struct process *p)
{
    return p->name;
}

bool process_is_ghost(const struct process *p)
{
    return p->ghost;
}

void process_set_bus(struct process *p, struct bus *b)
{
    p->bus = b;
}

void process_protect(struct process *p)
{
    p->protected = true;
}

void process_kill(struct process *p)
{
    if (p->ghost)
        return;
    p->ghost = true;
    if (p->disk)
        disk_die_after(p->disk, 0);
    sim_note(p->machine->sim, "%s dies", p->name);
    p->death_event = sim_at(p->machine->sim, 0, p->on_death, p->ctx);
}

bool process_acts(struct process *p)
{
    struct machine *m = p->machine;
    if (!p->ghost && p->disk && disk_is_dead(p->disk))
        process_kill(p);
    if (!p->ghost && !p->protected && m->faults.deaths && sim_below(m->sim, 1000000) < m->faults.deaths) {
        sim_cover("a process died between two actions");
        process_kill(p);
    }
    return !p->ghost;
}

void process_turn_ended(struct process *p)
{
    if (!p->ghost && p->disk && disk_is_dead(p->disk))
        process_kill(p);
}
