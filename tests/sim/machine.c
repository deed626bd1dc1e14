/* machine.c - processes: their lives and deaths, and whose code runs. */
#include "tests/sim/machine.h"
#include "tests/sim/heap.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <utlist.h>

enum { STACK_BYTES = 512 << 10, ARGUMENTS_MAX = 8 };

struct process {
    struct machine *machine;
    const char *name;
    uint32_t number;
    struct disk *disk;
    struct loop *loop;
    struct bus *bus;
    sim_fn *on_death;
    void *ctx;
    bool ghost, killed, protected;
    uint64_t death_event;
    /* of process_exec */
    int (*program)(int argc, char **argv);
    int argc, status;
    char *argv[ARGUMENTS_MAX + 1];
    void *stack;
    ucontext_t inside, outside;
    struct process *prev, *next;
};

struct machine {
    struct sim *sim;
    struct net *net;
    struct machine_faults faults;
    struct process *processes;
    uint32_t last_number;
    machine_watch_fn *watch;
    void *watch_ctx;
};

static struct process *current;

struct process *process_current(void)
{
    return current;
}

struct process *process_enter(struct process *p)
{
    struct process *before = current;
    current = p;
    heap_enter(p ? p->number : 0);
    return before;
}

void process_leave(struct process *before)
{
    (void)process_enter(before);
}

/* ---- machines ---- */

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

void machine_watch(struct machine *m, machine_watch_fn *fn, void *ctx)
{
    m->watch = fn;
    m->watch_ctx = ctx;
}

void machine_saw(struct machine *m, struct process *p, const struct rpc *rpc)
{
    struct process *before = process_enter(NULL);
    if (m->watch && !process_is_ghost(p))
        m->watch(m->watch_ctx, p, rpc);
    process_leave(before);
}

void machine_heal(struct machine *m)
{
    m->faults = (struct machine_faults){0};
    net_heal(m->net);
}

/* ---- processes ---- */

struct process *process_new(struct machine *m, const char *name, struct disk *disk, sim_fn *on_death, void *ctx)
{
    struct process *p = xcalloc(1, sizeof *p);
    *p = (struct process){.machine = m, .name = name, .disk = disk, .on_death = on_death, .ctx = ctx, .status = -1};
    p->number = ++m->last_number;
    p->loop = loop_of_process(p);
    DL_APPEND(m->processes, p);
    return p;
}

struct process *process_free(struct process *p)
{
    if (p == NULL)
        return NULL;
    ASSERT(current == NULL);
    sim_cancel(p->machine->sim, p->death_event);
    if (p->bus) {
        net_forget(p->machine->net, p->bus);
        bus_drop(p->bus);
    }
    if (p->loop)
        loop_drop(p->loop);
    heap_free_all(p->number);
    for (int i = 0; i < p->argc; i++)
        free(p->argv[i]);
    if (p->stack)
        munmap(p->stack, STACK_BYTES);
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

struct disk *process_disk(struct process *p)
{
    return p->disk;
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

void process_set_loop(struct process *p, struct loop *l)
{
    p->loop = l;
}

void process_protect(struct process *p)
{
    p->protected = true;
}

static void end(struct process *p)
{
    p->ghost = true;
    p->death_event = sim_at(p->machine->sim, 0, p->on_death, p->ctx);
}

void process_kill(struct process *p)
{
    if (p->ghost)
        return;
    if (p->disk)
        disk_die_after(p->disk, 0);
    p->killed = true;
    sim_note(p->machine->sim, "%s dies", p->name);
    end(p);
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

/* ---- real programs ---- */

/* The coroutine's first function; a process that was killed never comes back into it. */
static void run_program(void)
{
    struct process *p = current;
    p->status = p->program(p->argc, p->argv);
    if (!p->ghost) {
        sim_note(p->machine->sim, "%s ends with status %d", p->name, p->status);
        end(p);
    }
    swapcontext(&p->inside, &p->outside);
    BUG("a process that has ended goes on");
}

void process_resume(struct process *p)
{
    struct process *before = process_enter(p);
    swapcontext(&p->outside, &p->inside);
    process_leave(before);
}

void process_wait(struct process *p)
{
    swapcontext(&p->inside, &p->outside);
}

void process_exec(struct process *p, int (*program)(int argc, char **argv), int argc, const char *const *argv)
{
    ASSERT(argc <= ARGUMENTS_MAX && p->program == NULL);
    p->program = program;
    p->argc = argc;
    for (int i = 0; i < argc; i++)
        p->argv[i] = xstrdup(argv[i]);
    p->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->stack == MAP_FAILED || getcontext(&p->inside) != 0)
        BUG("no stack for a simulated process");
    p->inside.uc_stack.ss_sp = p->stack;
    p->inside.uc_stack.ss_size = STACK_BYTES;
    p->inside.uc_link = NULL;
    makecontext(&p->inside, run_program, 0);
    process_resume(p);
}

bool process_was_killed(const struct process *p)
{
    return p->killed;
}

int process_status(const struct process *p)
{
    return p->status;
}

void process_terminate(struct process *p)
{
    if (!p->ghost)
        loop_raise(p->loop, SIGTERM);
}
