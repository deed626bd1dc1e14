/* loop.c - libs/loop/loop.h in virtual time: a turn runs its phases at one instant, and only when something happened.
 */
#include "tests/sim/machine.h"

#include <stdlib.h>
#include <utlist.h>

enum { HOOKS_MAX = 8 };

struct hook {
    loop_fn *fn;
    void *ctx;
};

struct loop_timer {
    struct loop *loop;
    loop_fn *fn;
    void *ctx;
    uint64_t event, repeat_ms;
    struct loop_timer *prev, *next;
};

/* Something that runs later, once: a wake (no work), or work and then its end. */
struct job {
    struct loop *loop;
    loop_fn *work, *done;
    void *ctx;
    uint64_t event;
    struct job *prev, *next;
};

struct loop {
    struct process *process;
    struct sim *sim;
    struct hook hooks[LOOP_PHASES][HOOKS_MAX];
    size_t hook_count[LOOP_PHASES];
    struct loop_timer *timers;
    struct job *jobs;
    struct watch *watches; /* signals */
    uint64_t turn_event;
    bool again, stopped;
};

struct watch {
    int signal_number;
    loop_fn *fn;
    void *ctx;
    struct watch *next;
};

struct loop *loop_of_process(struct process *p)
{
    struct loop *l = xcalloc(1, sizeof *l);
    l->process = p;
    l->sim = machine_sim(process_machine(p));
    return l;
}

struct process *process_of_loop(const struct loop *l)
{
    return l->process;
}

struct loop *loop_drop(struct loop *l)
{
    sim_cancel(l->sim, l->turn_event);
    while (l->timers)
        loop_timer_stop(l->timers);
    while (l->jobs) {
        struct job *j = l->jobs;
        sim_cancel(l->sim, j->event);
        DL_DELETE(l->jobs, j);
        free(j);
    }
    while (l->watches) {
        struct watch *w = l->watches;
        LL_DELETE(l->watches, w);
        free(w);
    }
    free(l);
    return NULL;
}

/* A process has one loop, made with it. */
struct loop *loop_new(void)
{
    return process_loop(process_current());
}

struct loop *loop_free(struct loop *l)
{
    if (l == NULL)
        return NULL;
    process_set_loop(l->process, NULL);
    return loop_drop(l);
}

void loop_run(struct loop *l)
{
    loop_ask_turn(l);
    process_wait(l->process);
}

/* ---- turns ---- */

static void run_phase(struct loop *l, enum loop_phase phase)
{
    for (size_t i = 0; i < l->hook_count[phase]; i++)
        l->hooks[phase][i].fn(l->hooks[phase][i].ctx);
}

static void run_turn(void *ctx)
{
    struct loop *l = ctx;
    struct process *p = l->process;
    l->again = false;
    for (int phase = LOOP_SERVE; phase < LOOP_PHASES; phase++)
        run_phase(l, (enum loop_phase)phase);
    run_phase(l, LOOP_SEND);
    process_turn_ended(p);
    if (process_is_ghost(p))
        return;
    if (l->stopped)
        process_go_on(p);
    else if (l->again)
        loop_ask_turn(l);
}

/* While its process stands still an event waits, behind those that were made before it. */
static bool wait_for_process(const struct loop *l, uint64_t *event, sim_fn *fn, void *ctx)
{
    uint64_t ms;
    *event = 0;
    if (process_is_ghost(l->process) || !process_is_stalled(l->process, &ms))
        return false;
    *event = sim_at(l->sim, ms, fn, ctx);
    return true;
}

static void turn(void *ctx)
{
    struct loop *l = ctx;
    if (!wait_for_process(l, &l->turn_event, turn, l) && !process_is_ghost(l->process))
        process_run(l->process, run_turn, l);
}

void loop_stop(struct loop *l)
{
    l->stopped = true;
    loop_ask_turn(l);
}

/* A ghost has no turns left. */
void loop_ask_turn(struct loop *l)
{
    if (l->turn_event == 0 && !process_is_ghost(l->process))
        l->turn_event = sim_at(l->sim, sim_below(l->sim, 2), turn, l);
}

void loop_again(struct loop *l)
{
    l->again = true;
    loop_ask_turn(l);
}

uint64_t loop_now_ms(const struct loop *l)
{
    return sim_now_ms(l->sim);
}

int64_t loop_wall_ms(const struct loop *l)
{
    return sim_wall_ms(l->sim) + process_wall_ahead(l->process);
}

void loop_hook(struct loop *l, enum loop_phase phase, loop_fn *fn, void *ctx)
{
    ASSERT(l->hook_count[phase] < HOOKS_MAX);
    l->hooks[phase][l->hook_count[phase]++] = (struct hook){fn, ctx};
}

void loop_unhook(struct loop *l, enum loop_phase phase, loop_fn *fn, void *ctx)
{
    for (size_t i = 0; i < l->hook_count[phase]; i++) {
        struct hook *h = &l->hooks[phase][i];
        if (h->fn != fn || h->ctx != ctx)
            continue;
        memmove(h, h + 1, (--l->hook_count[phase] - i) * sizeof *h);
        return;
    }
}

/* ---- timers ---- */

static void run_timer(void *ctx)
{
    struct loop_timer *t = ctx;
    struct process *p = t->loop->process;
    t->fn(t->ctx);
    process_turn_ended(p);
}

static void fire(void *ctx)
{
    struct loop_timer *t = ctx;
    if (wait_for_process(t->loop, &t->event, fire, t) || process_is_ghost(t->loop->process))
        return;
    if (t->repeat_ms)
        t->event = sim_at(t->loop->sim, t->repeat_ms, fire, t);
    loop_ask_turn(t->loop);
    process_run(t->loop->process, run_timer, t);
}

struct loop_timer *loop_timer_start(struct loop *l, uint64_t delay_ms, uint64_t repeat_ms, loop_fn *fn, void *ctx)
{
    struct loop_timer *t = xcalloc(1, sizeof *t);
    *t = (struct loop_timer){.loop = l, .fn = fn, .ctx = ctx, .repeat_ms = repeat_ms};
    t->event = sim_at(l->sim, delay_ms, fire, t);
    DL_APPEND(l->timers, t);
    return t;
}

void loop_timer_again(struct loop_timer *t, uint64_t delay_ms)
{
    sim_cancel(t->loop->sim, t->event);
    t->event = sim_at(t->loop->sim, delay_ms, fire, t);
}

struct loop_timer *loop_timer_stop(struct loop_timer *t)
{
    if (t == NULL)
        return NULL;
    sim_cancel(t->loop->sim, t->event);
    DL_DELETE(t->loop->timers, t);
    free(t);
    return NULL;
}

/* ---- jobs ---- */

static void end_job(void *ctx)
{
    struct job *j = ctx, ended = *j;
    DL_DELETE(ended.loop->jobs, j);
    free(j);
    ended.done(ended.ctx);
    process_turn_ended(ended.loop->process);
}

static void finish_job(void *ctx)
{
    struct job *j = ctx;
    if (wait_for_process(j->loop, &j->event, finish_job, j) || process_is_ghost(j->loop->process))
        return;
    loop_ask_turn(j->loop);
    process_run(j->loop->process, end_job, j);
}

static void do_work(void *ctx)
{
    struct job *j = ctx;
    j->work(j->ctx);
    process_turn_ended(j->loop->process);
    j->event = sim_at(j->loop->sim, sim_below(j->loop->sim, 3), finish_job, j);
}

static void run_work(void *ctx)
{
    struct job *j = ctx;
    if (!wait_for_process(j->loop, &j->event, run_work, j) && !process_is_ghost(j->loop->process))
        process_run(j->loop->process, do_work, j);
}

static void start_job(struct loop *l, uint64_t delay_ms, loop_fn *work, loop_fn *done, void *ctx)
{
    struct job *j = xcalloc(1, sizeof *j);
    *j = (struct job){.loop = l, .work = work, .done = done, .ctx = ctx};
    j->event = sim_at(l->sim, delay_ms, work ? run_work : finish_job, j);
    DL_APPEND(l->jobs, j);
}

void loop_wake(struct loop *l, loop_fn *fn, void *ctx)
{
    start_job(l, 0, NULL, fn, ctx);
}

void loop_work(struct loop *l, loop_fn *work, loop_fn *done, void *ctx)
{
    start_job(l, sim_below(l->sim, 5), work, done, ctx);
}

/* ---- signals ---- */

void loop_signal(struct loop *l, int signal_number, loop_fn *fn, void *ctx)
{
    struct watch *w = xcalloc(1, sizeof *w);
    *w = (struct watch){.signal_number = signal_number, .fn = fn, .ctx = ctx};
    LL_APPEND(l->watches, w);
}

void loop_raise(struct loop *l, int signal_number)
{
    struct watch *w;
    bool is_caught = false;
    LL_FOREACH (l->watches, w) {
        if (w->signal_number != signal_number)
            continue;
        is_caught = true;
        loop_wake(l, w->fn, w->ctx);
    }
    if (!is_caught)
        process_kill(l->process);
}
