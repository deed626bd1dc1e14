/* loop.c - the turn: uv_run(UV_RUN_ONCE), then the hooks of each phase.
 *
 * libuv fires due timers before it polls as well as after. What such a timer staged must not wait for the poll, so each
 * firing starts the idle handle, with which libuv's next poll returns at once; the turn stops it again. loop_again is
 * the same handle. */
#include "libs/loop/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <utlist.h>
#include <uv.h>

enum { HOOKS_MAX = 8 };

struct hook {
    loop_fn *fn;
    void *ctx;
};

struct loop_timer {
    uv_timer_t uv;
    struct loop *loop;
    loop_fn *fn;
    void *ctx;
    struct loop_timer *prev, *next;
};

struct loop_poll {
    uv_poll_t uv;
    struct loop *loop;
    loop_poll_fn *fn;
    void *ctx;
    struct loop_poll *prev, *next;
};

struct signal_watch {
    uv_signal_t uv;
    loop_fn *fn;
    void *ctx;
    struct signal_watch *next;
};

struct wake {
    loop_fn *fn;
    void *ctx;
    struct wake *next;
};

struct loop {
    uv_loop_t uv;
    uv_idle_t idle;
    uv_async_t async;
    bool stopping;
    int64_t wall_ms;
    struct hook hooks[LOOP_PHASES][HOOKS_MAX];
    size_t hook_count[LOOP_PHASES];
    struct loop_timer *timers;
    struct loop_poll *polls;
    struct signal_watch *signals;
    pthread_mutex_t wake_lock; /* guards wakes */
    struct wake *wakes;        /* in order */
};

static void on_idle(uv_idle_t *idle)
{
    (void)idle;
}

void loop_again(struct loop *l)
{
    uv_idle_start(&l->idle, on_idle);
}

static void on_async(uv_async_t *async)
{
    struct loop *l = CONTAINER_OF(async, struct loop, async);
    struct wake *w, *next;

    pthread_mutex_lock(&l->wake_lock);
    w = TAKE_PTR(l->wakes);
    pthread_mutex_unlock(&l->wake_lock);
    for (; w != NULL; w = next) {
        next = w->next;
        w->fn(w->ctx);
        free(w);
    }
}

static void read_wall(struct loop *l)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    l->wall_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct loop *loop_new(void)
{
    struct loop *l = xcalloc(1, sizeof *l);

    if (uv_loop_init(&l->uv) != 0 || uv_idle_init(&l->uv, &l->idle) != 0 ||
        uv_async_init(&l->uv, &l->async, on_async) != 0)
        BUG("the loop cannot be made: no file descriptors left");
    pthread_mutex_init(&l->wake_lock, NULL);
    read_wall(l);
    return l;
}

static void free_signal(uv_handle_t *h)
{
    free(CONTAINER_OF(h, struct signal_watch, uv));
}

struct loop *loop_free(struct loop *l)
{
    if (l == NULL)
        return NULL;
    while (l->timers != NULL)
        loop_timer_stop(l->timers);
    while (l->polls != NULL)
        loop_poll_stop(l->polls);
    while (l->signals != NULL) {
        struct signal_watch *s = l->signals;
        LL_DELETE(l->signals, s);
        uv_close((uv_handle_t *)&s->uv, free_signal);
    }
    uv_close((uv_handle_t *)&l->idle, NULL);
    uv_close((uv_handle_t *)&l->async, NULL);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    if (uv_loop_close(&l->uv) != 0)
        BUG("a libuv handle outlives its loop");
    while (l->wakes != NULL) {
        struct wake *w = l->wakes;
        l->wakes = w->next;
        free(w);
    }
    pthread_mutex_destroy(&l->wake_lock);
    free(l);
    return NULL;
}

static void run_phase(struct loop *l, enum loop_phase phase)
{
    for (size_t i = 0; i < l->hook_count[phase]; i++)
        l->hooks[phase][i].fn(l->hooks[phase][i].ctx);
}

void loop_run(struct loop *l)
{
    while (!l->stopping) {
        uv_run(&l->uv, UV_RUN_ONCE);
        uv_idle_stop(&l->idle);
        read_wall(l);
        for (int phase = LOOP_SERVE; phase < LOOP_PHASES; phase++)
            run_phase(l, (enum loop_phase)phase);
        run_phase(l, LOOP_SEND);
    }
    l->stopping = false; /* it may run again */
}

void loop_stop(struct loop *l)
{
    l->stopping = true;
    loop_again(l);
}

uv_loop_t *loop_uv(struct loop *l)
{
    return &l->uv;
}

uint64_t loop_now_ms(const struct loop *l)
{
    return uv_now(&l->uv);
}

int64_t loop_wall_ms(const struct loop *l)
{
    return l->wall_ms;
}

void loop_hook(struct loop *l, enum loop_phase phase, loop_fn *fn, void *ctx)
{
    ASSERT(l->hook_count[phase] < HOOKS_MAX);
    l->hooks[phase][l->hook_count[phase]++] = (struct hook){fn, ctx};
}

void loop_unhook(struct loop *l, enum loop_phase phase, loop_fn *fn, void *ctx)
{
    struct hook *hooks = l->hooks[phase];

    for (size_t i = 0; i < l->hook_count[phase]; i++) {
        if (hooks[i].fn != fn || hooks[i].ctx != ctx)
            continue;
        l->hook_count[phase]--;
        memmove(&hooks[i], &hooks[i + 1], (l->hook_count[phase] - i) * sizeof *hooks);
        return;
    }
}

void loop_wake(struct loop *l, loop_fn *fn, void *ctx)
{
    struct wake *w = xmalloc(sizeof *w);

    *w = (struct wake){fn, ctx, NULL};
    pthread_mutex_lock(&l->wake_lock);
    LL_APPEND(l->wakes, w);
    pthread_mutex_unlock(&l->wake_lock);
    uv_async_send(&l->async);
}

static void on_timer(uv_timer_t *uv)
{
    struct loop_timer *t = CONTAINER_OF(uv, struct loop_timer, uv);

    loop_again(t->loop);
    t->fn(t->ctx);
}

struct loop_timer *loop_timer_start(struct loop *l, uint64_t delay_ms, uint64_t repeat_ms, loop_fn *fn, void *ctx)
{
    struct loop_timer *t = xcalloc(1, sizeof *t);

    t->loop = l;
    t->fn = fn;
    t->ctx = ctx;
    uv_timer_init(&l->uv, &t->uv);
    uv_timer_start(&t->uv, on_timer, delay_ms, repeat_ms);
    DL_APPEND(l->timers, t);
    return t;
}

void loop_timer_again(struct loop_timer *t, uint64_t delay_ms)
{
    uv_timer_start(&t->uv, on_timer, delay_ms, uv_timer_get_repeat(&t->uv));
}

static void free_timer(uv_handle_t *h)
{
    free(CONTAINER_OF(h, struct loop_timer, uv));
}

struct loop_timer *loop_timer_stop(struct loop_timer *t)
{
    if (t == NULL)
        return NULL;
    DL_DELETE(t->loop->timers, t);
    uv_close((uv_handle_t *)&t->uv, free_timer);
    return NULL;
}

static void on_poll(uv_poll_t *uv, int status, int events)
{
    struct loop_poll *p = CONTAINER_OF(uv, struct loop_poll, uv);

    /* An error state of the descriptor shows itself to the next read or write. */
    if (status < 0)
        events = UV_READABLE | UV_WRITABLE;
    p->fn(p->ctx, ((events & UV_READABLE) ? LOOP_READABLE : 0) | ((events & UV_WRITABLE) ? LOOP_WRITABLE : 0));
}

static int uv_events(int events)
{
    return ((events & LOOP_READABLE) ? UV_READABLE : 0) | ((events & LOOP_WRITABLE) ? UV_WRITABLE : 0);
}

struct loop_poll *loop_poll_start(struct loop *l, int fd, int events, loop_poll_fn *fn, void *ctx)
{
    struct loop_poll *p = xcalloc(1, sizeof *p);

    p->loop = l;
    p->fn = fn;
    p->ctx = ctx;
    if (uv_poll_init(&l->uv, &p->uv, fd) != 0)
        BUG("a descriptor that cannot be polled");
    DL_APPEND(l->polls, p);
    loop_poll_events(p, events);
    return p;
}

void loop_poll_events(struct loop_poll *p, int events)
{
    if (events == 0)
        uv_poll_stop(&p->uv);
    else
        uv_poll_start(&p->uv, uv_events(events), on_poll);
}

static void free_poll(uv_handle_t *h)
{
    free(CONTAINER_OF(h, struct loop_poll, uv));
}

struct loop_poll *loop_poll_stop(struct loop_poll *p)
{
    if (p == NULL)
        return NULL;
    DL_DELETE(p->loop->polls, p);
    uv_close((uv_handle_t *)&p->uv, free_poll);
    return NULL;
}

static void on_signal(uv_signal_t *uv, int signal_number)
{
    struct signal_watch *s = CONTAINER_OF(uv, struct signal_watch, uv);

    (void)signal_number;
    s->fn(s->ctx);
}

void loop_signal(struct loop *l, int signal_number, loop_fn *fn, void *ctx)
{
    struct signal_watch *s = xcalloc(1, sizeof *s);

    s->fn = fn;
    s->ctx = ctx;
    uv_signal_init(&l->uv, &s->uv);
    uv_signal_start(&s->uv, on_signal, signal_number);
    LL_PREPEND(l->signals, s);
}

struct job {
    uv_work_t uv;
    loop_fn *work, *done;
    void *ctx;
};

static void on_work(uv_work_t *uv)
{
    struct job *j = CONTAINER_OF(uv, struct job, uv);
    j->work(j->ctx);
}

static void on_worked(uv_work_t *uv, int status)
{
    struct job *j = CONTAINER_OF(uv, struct job, uv);

    (void)status;
    j->done(j->ctx);
    free(j);
}

void loop_work(struct loop *l, loop_fn *work, loop_fn *done, void *ctx)
{
    struct job *j = xcalloc(1, sizeof *j);

    *j = (struct job){.work = work, .done = done, .ctx = ctx};
    uv_queue_work(&l->uv, &j->uv, on_work, on_worked);
}
