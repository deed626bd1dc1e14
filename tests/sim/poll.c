/* poll.c - see poll.h. */
#include "tests/sim/poll.h"

#include "tests/sim/kernel.h"

#include <stdlib.h>
#include <utlist.h>

struct loop_poll {
    struct loop *loop;
    int fd, events;
    loop_poll_fn *fn;
    void *ctx;
    uint64_t event;
    struct loop_poll *prev, *next;
};

enum { ROWS = 256 };

static struct loop_poll *polls[ROWS]; /* by descriptor */

static struct loop_poll **row_of(int fd)
{
    return &polls[fd % ROWS];
}

static int ready(int fd)
{
    return kernel_is_fd(fd) ? kernel_ready(fd) : tcp_ready(fd);
}

static struct loop_poll *find(int fd)
{
    struct loop_poll *p;
    DL_FOREACH (*row_of(fd), p)
        if (p->fd == fd)
            return p;
    return NULL;
}

static struct sim *sim_of(const struct loop_poll *p)
{
    return machine_sim(process_machine(process_of_loop(p->loop)));
}

static void fire(void *ctx);

static void poke(struct loop_poll *p, uint64_t delay_ms)
{
    if (p->event == 0 && (p->events & ready(p->fd)))
        p->event = sim_at(sim_of(p), delay_ms, fire, p);
}

void poll_poke(int fd, uint64_t delay_ms)
{
    struct loop_poll *p = find(fd);
    if (p != NULL)
        poke(p, delay_ms);
}

static void run_poll(void *ctx)
{
    struct loop_poll *p = ctx;
    struct loop *loop = p->loop;
    int fd = p->fd;
    p->fn(p->ctx, p->events & ready(fd));
    process_turn_ended(process_of_loop(loop));
    loop_ask_turn(loop);
    poll_poke(fd, 1);
}

static void fire(void *ctx)
{
    struct loop_poll *p = ctx;
    struct process *process = process_of_loop(p->loop);
    uint64_t wait_ms;
    p->event = 0;
    if (process_is_ghost(process))
        return;
    if (process_is_stalled(process, &wait_ms))
        p->event = sim_at(sim_of(p), wait_ms, fire, p);
    else if (p->events & ready(p->fd))
        process_run(process, run_poll, p);
}

struct loop_poll *loop_poll_start(struct loop *l, int fd, int events, loop_poll_fn *fn, void *ctx)
{
    struct process *before = process_enter(NULL);
    struct loop_poll *p = xcalloc(1, sizeof *p);
    *p = (struct loop_poll){.loop = l, .fd = fd, .events = events, .fn = fn, .ctx = ctx};
    DL_APPEND(*row_of(fd), p);
    poke(p, 0);
    process_leave(before);
    return p;
}

void loop_poll_events(struct loop_poll *p, int events)
{
    p->events = events;
    poke(p, 0);
}

struct loop_poll *loop_poll_stop(struct loop_poll *p)
{
    if (p == NULL)
        return NULL;
    sim_cancel(sim_of(p), p->event);
    DL_DELETE(*row_of(p->fd), p);
    free(p);
    return NULL;
}

void poll_forget(int fd)
{
    loop_poll_stop(find(fd));
}
