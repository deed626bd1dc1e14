/* machine.c - processes: their lives and deaths, and whose code runs. */
#include "tests/sim/machine.h"
#include "tests/sim/heap.h"
#include "tests/sim/kernel.h"
#include "tests/sim/stack.h"

#include <signal.h>
#include <stdlib.h>
#include <utlist.h>

enum { ARGUMENTS_MAX = 8 };

struct process {
    struct machine *machine;
    const char *name;
    uint32_t number;
    struct disk *disk;
    struct loop *loop;
    sim_fn *on_death;
    void *ctx;
    bool ghost, killed, protected;
    uint64_t death_event;
    /* of process_exec */
    int (*program)(int argc, char **argv);
    int argc, status;
    char *argv[ARGUMENTS_MAX + 1];
    struct stack *stack;
    bool is_inside, leaves_loop; /* its coroutine runs; its loop has stopped */
    sim_fn *call;                /* what process_run wants of it */
    void *call_ctx;
    uint64_t stalled_until_ms, wake_event;
    int place;
    int64_t wall_ahead_ms;
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
    machine_fault_fn *on_fault;
    void *fault_ctx;
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

static void wake_soon(struct process *p);

/* ---- machines ---- */

struct machine *machine_new(struct sim *s, const struct machine_faults *faults)
{
    struct machine *m = xcalloc(1, sizeof *m);
    m->sim = s;
    m->faults = *faults;
    m->net = net_new(m, faults);
    kernel_set_faults(&(struct kernel_faults){.late = faults->late, .refuse = faults->refuse});
    return m;
}

struct machine *machine_free(struct machine *m)
{
    if (m == NULL)
        return NULL;
    ASSERT(m->processes == NULL);
    net_free(m->net);
    kernel_free();
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

void machine_on_fault(struct machine *m, machine_fault_fn *fn, void *ctx)
{
    m->on_fault = fn;
    m->fault_ctx = ctx;
}

void machine_fault(struct machine *m, const struct process *p, const char *what)
{
    bool tells = m->on_fault != NULL && p != NULL;
    struct process *before = process_enter(NULL);
    if (tells)
        m->on_fault(m->fault_ctx, p, true);
    sim_fault(what);
    if (tells)
        m->on_fault(m->fault_ctx, p, false);
    process_leave(before);
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
    struct process *p;
    m->faults = (struct machine_faults){0};
    DL_FOREACH (m->processes, p)
        wake_soon(p);
    net_heal(m->net);
    kernel_set_faults(&(struct kernel_faults){0});
}

void machine_cut(struct machine *m, int from, int to, bool is)
{
    net_cut(m->net, from, to, is);
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
    sim_cancel(p->machine->sim, p->wake_event);
    net_forget(p->machine->net, p);
    kernel_forget(p);
    disk_close_passed(p);
    if (p->loop)
        loop_drop(p->loop);
    heap_free_all(p->number);
    for (int i = 0; i < p->argc; i++)
        free(p->argv[i]);
    stack_free(p->stack);
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

uint64_t process_life(const struct process *p)
{
    return p->number;
}

void *process_ctx(const struct process *p)
{
    return p->ctx;
}

void process_set_place(struct process *p, int place)
{
    p->place = place;
}

int process_place(const struct process *p)
{
    return p->place;
}

void process_set_wall_ahead(struct process *p, int64_t ms)
{
    p->wall_ahead_ms = ms;
}

int64_t process_wall_ahead(const struct process *p)
{
    return p->wall_ahead_ms;
}

bool process_is_ghost(const struct process *p)
{
    return p->ghost;
}

void process_set_loop(struct process *p, struct loop *l)
{
    p->loop = l;
}

void process_protect(struct process *p, bool is)
{
    p->protected = is;
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
    kernel_detach(p);
    sim_note(p->machine->sim, "%s dies", p->name);
    end(p);
}

/* ---- SIGSTOP ---- */

bool process_is_stalled(const struct process *p, uint64_t *ret_wait_ms)
{
    enum { LOOK_AGAIN_MS = 100 };
    uint64_t now = sim_now_ms(p->machine->sim), left = p->stalled_until_ms > now ? p->stalled_until_ms - now : 0;
    *ret_wait_ms = MIN(left, (uint64_t)LOOK_AGAIN_MS);
    return p->wake_event != 0;
}

static void resume(struct process *p)
{
    struct process *before = process_enter(p);
    p->is_inside = true;
    stack_enter(p->stack);
    process_leave(before);
}

static void wake(void *ctx)
{
    struct process *p = ctx;
    p->wake_event = 0;
    if (p->is_inside && !p->ghost)
        resume(p);
}

static void stall_until(struct process *p, uint64_t at_ms)
{
    struct sim *s = p->machine->sim;
    sim_cancel(s, p->wake_event);
    p->stalled_until_ms = at_ms;
    p->wake_event = sim_at(s, at_ms - sim_now_ms(s), wake, p);
}

static void wake_soon(struct process *p)
{
    if (p->wake_event)
        stall_until(p, sim_now_ms(p->machine->sim));
}

void process_stall(struct process *p, uint64_t ms)
{
    if (p->ghost || p->wake_event)
        return;
    machine_fault(p->machine, p, "a process stood still between two turns");
    sim_note(p->machine->sim, "%s stands still", p->name);
    stall_until(p, sim_now_ms(p->machine->sim) + ms);
}

static uint64_t stall_ms(struct sim *s)
{
    uint64_t most[] = {100, 2000, 8000, 60000};
    return 1 + sim_below(s, most[sim_below(s, COUNTOF(most))]);
}

static void wait_inside(struct process *p, uint64_t ms)
{
    struct process *before = process_enter(NULL);
    stall_until(p, sim_now_ms(p->machine->sim) + ms);
    process_leave(before);
    stack_leave(p->stack);
}

static void stall_inside(struct process *p)
{
    struct sim *s = p->machine->sim;
    machine_fault(p->machine, p, "a process stood still in the middle of a turn");
    sim_note(s, "%s stands still in its turn", p->name);
    wait_inside(p, stall_ms(s));
}

void process_yield(struct process *p, uint64_t per_thousand)
{
    struct sim *s = p->machine->sim;
    if (!p->ghost && p->is_inside && current == p && sim_chance(s, per_thousand))
        wait_inside(p, 1 + sim_below(s, 3));
}

bool process_acts(struct process *p)
{
    struct machine *m = p->machine;
    if (!p->ghost && p->disk && disk_is_dead(p->disk))
        process_kill(p);
    if (!p->ghost && !p->protected && m->faults.deaths && sim_below(m->sim, 1000000) < m->faults.deaths) {
        machine_fault(m, p, "a process died between two actions");
        process_kill(p);
    }
    if (!p->ghost && p->is_inside && current == p && m->faults.stalls && sim_below(m->sim, 1000000) < m->faults.stalls)
        stall_inside(p);
    return !p->ghost;
}

void process_turn_ended(struct process *p)
{
    if (!p->ghost && p->disk && disk_is_dead(p->disk))
        process_kill(p);
}

/* ---- real programs ---- */

/* Leaves p's stack for good. */
static _Noreturn void leave(struct process *p, int status)
{
    p->status = status;
    if (!p->ghost) {
        sim_note(p->machine->sim, "%s ends with status %d", p->name, status);
        end(p);
    }
    stack_leave(p->stack);
    BUG("a process that has ended goes on");
}

/* The coroutine's first function; a process that was killed never comes back into it. */
static void run_program(void *ctx)
{
    struct process *p = ctx;
    leave(p, p->program(p->argc, p->argv));
}

_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);
_Noreturn void __wrap__exit(int status)
{
    struct process *p = current;
    if (p == NULL)
        __real__exit(status);
    leave(p, status);
}

void process_wait(struct process *p)
{
    while (!p->leaves_loop) {
        p->is_inside = false;
        stack_leave(p->stack);
        if (p->call == NULL)
            continue;
        sim_fn *call = p->call;
        p->call = NULL;
        call(p->call_ctx);
    }
}

void process_go_on(struct process *p)
{
    p->leaves_loop = true;
}

void process_run(struct process *p, sim_fn *fn, void *ctx)
{
    ASSERT(current == NULL && p->wake_event == 0);
    if (p->stack == NULL) {
        struct process *before = process_enter(p);
        fn(ctx);
        process_leave(before);
        return;
    }
    p->call = fn;
    p->call_ctx = ctx;
    resume(p);
}

void process_exec(struct process *p, int (*program)(int argc, char **argv), int argc, const char *const *argv)
{
    ASSERT(argc <= ARGUMENTS_MAX && p->program == NULL);
    p->program = program;
    p->argc = argc;
    for (int i = 0; i < argc; i++)
        p->argv[i] = xstrdup(argv[i]);
    p->stack = stack_new(run_program, p);
    resume(p);
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
    if (!p->ghost && p->loop != NULL)
        loop_raise(p->loop, SIGTERM);
    else
        process_kill(p); /* its loop, and what caught signals, is gone already */
}
