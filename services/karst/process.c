/* process.c - one child: started, watched, started again. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "services/karst/supervisor.h"

enum {
    QUICK_MS = 5000,       /* a life shorter than this counts towards the back-off */
    BACKOFF_FIRST_MS = 50, /* doubled each time; the first restart is at once */
    BACKOFF_MAX_MS = 5000,
    DOWN_RETRY_MS = 10000,
};

void process_init(struct process *p, struct supervisor *s, const char *role, int id, int stop_stage)
{
    *p = (struct process){.supervisor = s, .role = role, .id = id, .stop_stage = stop_stage, .state = PROCESS_WAITING};
    snprintf(p->label, sizeof(p->label), "%s", role);
    p->bin = xstrdup(s->bin);
    uv_timer_init(&s->loop, &p->retry);
    p->retry.data = p;
    alive_init(p);
}

int process_place(const struct process *p)
{
    return p->id - nodes_first_id(p->supervisor->options->config, p->role);
}

bool process_is_frontend(const struct process *p)
{
    return strcmp(p->role, "frontend") == 0;
}

void process_signal(struct process *p, int signal_number)
{
    if (p->handle)
        uv_process_kill(p->handle, signal_number);
}

void process_close(struct process *p)
{
    uv_close((uv_handle_t *)&p->retry, NULL);
    free(TAKE_PTR(p->bin));
    uv_close((uv_handle_t *)&p->alive_timer, NULL);
}

static void on_retry(uv_timer_t *timer)
{
    process_start(timer->data);
}

static uint64_t back_off_ms(const struct process *p)
{
    if (p->quick <= 1)
        return 0;
    unsigned doublings = MIN(p->quick - 2, 10u);
    return MIN((uint64_t)BACKOFF_FIRST_MS << doublings, (uint64_t)BACKOFF_MAX_MS);
}

/* Ten deaths within a minute, or a refusal that the next start would repeat. */
static bool is_hopeless(const struct process *p, int64_t exit_status)
{
    uint64_t now = uv_now(&p->supervisor->loop);
    if (exit_status == STATUS_USAGE || exit_status == STATUS_CONFIG)
        return true;
    return p->deaths >= PROCESS_DEATHS_MAX &&
           now - p->deaths_ms[p->deaths % PROCESS_DEATHS_MAX] < PROCESS_DEATHS_WINDOW_MS;
}

bool process_has_twin(const struct process *p)
{
    const struct supervisor *s = p->supervisor;
    if (network_is_used(s->options->config)) /* on other hosts, as far as we know */
        return true;
    for (size_t i = 0; i < s->count; i++)
        if (&s->processes[i] != p && strcmp(s->processes[i].role, p->role) == 0 &&
            (s->processes[i].state == PROCESS_RUNNING || s->processes[i].state == PROCESS_WAITING ||
             s->processes[i].state == PROCESS_STOPPING))
            return true;
    return false;
}

/* One of several stays down alone, and is tried again now and then: what was in its way may go. Without any of its
 * role there is nothing to go on with. */
static void leave_down(struct process *p, const char *how, int64_t exit_status)
{
    struct supervisor *s = p->supervisor;
    if (!process_has_twin(p)) {
        supervisor_say(s, LOG_ERROR, "%s %s (%zu deaths so far): giving up, everything stops", p->label, how,
                       p->deaths);
        p->state = PROCESS_STOPPED;
        supervisor_give_up(s, exit_status == STATUS_CONFIG ? STATUS_CONFIG : STATUS_FAILED);
        return;
    }
    supervisor_say(s, LOG_ERROR, "%s %s (%zu deaths so far): it stays down, and is tried again each %d s", p->label,
                   how, p->deaths, DOWN_RETRY_MS / 1000);
    p->state = PROCESS_DOWN;
    p->was_down = true;
    uv_timer_start(&p->retry, on_retry, DOWN_RETRY_MS, 0);
    supervisor_changed(s);
}

static void die(struct process *p, int64_t exit_status, const char *how)
{
    struct supervisor *s = p->supervisor;
    uint64_t now = uv_now(&s->loop);
    p->quick = now - p->started_ms < QUICK_MS ? p->quick + 1 : 1;
    p->deaths_ms[p->deaths++ % PROCESS_DEATHS_MAX] = now;
    p->was_down = p->was_down && now - p->started_ms < PROCESS_DEATHS_WINDOW_MS;
    if (p->was_down || is_hopeless(p, exit_status)) {
        leave_down(p, how, exit_status);
        return;
    }
    uint64_t wait = back_off_ms(p);
    supervisor_say(s, LOG_WARN, "%s %s: starting it again in %llu ms", p->label, how, (unsigned long long)wait);
    p->state = PROCESS_WAITING;
    p->restarts++;
    if (wait == 0)
        process_start(p);
    else
        uv_timer_start(&p->retry, on_retry, wait, 0);
}

static void on_closed(uv_handle_t *h)
{
    free(h);
}

static void on_ended(uv_process_t *handle, int64_t exit_status, int signal_number)
{
    struct process *p = handle->data;
    bool wanted = p->state == PROCESS_STOPPING;
    char how[64];
    if (signal_number)
        snprintf(how, sizeof(how), "was ended by signal %d", signal_number);
    else
        snprintf(how, sizeof(how), "ended with status %lld", (long long)exit_status);
    p->handle = NULL;
    uv_close((uv_handle_t *)handle, on_closed);
    alive_close(p);
    uv_update_time(&p->supervisor->loop);
    if (p->supervisor->stage >= 0) {
        if (!wanted || exit_status != 0 || signal_number != 0)
            supervisor_say(p->supervisor, LOG_WARN, "%s %s while stopping", p->label, how);
        p->state = PROCESS_STOPPED;
        supervisor_process_ended(p->supervisor);
    } else if (!control_ended(p->supervisor->control, p, how)) {
        die(p, exit_status, how);
    }
    supervisor_changed(p->supervisor);
}

/* 0 or a libuv error. Its stdout and stderr are one pipe that we read. */
static int spawn(struct process *p, int *ret_read_fd)
{
    struct supervisor *s = p->supervisor;
    int fds[2];
    char id[16];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return -errno;
    char *program = xasprintf("%s/karst-%s", p->bin, p->role);
    char *config = nodes_config(s->options->config, s->options->run_dir, p->role, p->id);
    snprintf(id, sizeof(id), "%d", p->id);
    char *arguments[] = {program, "--config", config, "--id", id, NULL};
    const struct ports none = {0}, *ports = process_is_frontend(p) ? &s->options->ports[process_place(p)] : &none;
    uv_stdio_container_t *stdio = xcalloc(3 + ports->count, sizeof *stdio);
    int alive = alive_open(p);
    stdio[0].flags = alive >= 0 ? UV_INHERIT_FD : UV_IGNORE;
    stdio[0].data.fd = alive;
    for (size_t i = 1; i < 3 + ports->count; i++) {
        stdio[i].flags = UV_INHERIT_FD;
        stdio[i].data.fd = i < 3 ? fds[1] : ports->fds[i - 3];
    }
    ports_tell(s->options->config, &s->options->nodes, ports);
    /* A session of its own: Ctrl-C in the terminal reaches only us, and we stop the processes in their order. */
    uv_process_options_t options = {.exit_cb = on_ended,
                                    .file = program,
                                    .args = arguments,
                                    .flags = UV_PROCESS_DETACHED,
                                    .stdio_count = 3 + (int)ports->count,
                                    .stdio = stdio};
    p->handle = xcalloc(1, sizeof(*p->handle));
    p->handle->data = p;
    int r = uv_spawn(&s->loop, p->handle, &options);
    if (r) {
        supervisor_say(s, LOG_ERROR, "cannot start %s: %s", program, uv_strerror(r));
        uv_close((uv_handle_t *)TAKE_PTR(p->handle), on_closed);
        close(fds[0]);
        alive_close(p);
    }
    if (alive >= 0)
        close(alive);
    close(fds[1]);
    free(stdio);
    free(config);
    free(program);
    *ret_read_fd = fds[0];
    return r;
}

bool process_try(struct process *p)
{
    struct supervisor *s = p->supervisor;
    int fd = -1;
    ASSERT(p->handle == NULL);
    p->started_ms = uv_now(&s->loop);
    p->ready = p->in_sync = false;
    p->bus_version = 0;
    if (spawn(p, &fd) != 0)
        return false;
    p->state = PROCESS_RUNNING;
    output_follow(s->sink, &s->loop, p->label, fd);
    supervisor_changed(s);
    return true;
}

void process_start(struct process *p)
{
    if (process_try(p))
        return;
    if (p->deaths == 0)
        leave_down(p, "does not start", STATUS_FAILED);
    else /* it ran before: its program is being replaced, and there in a moment */
        die(p, STATUS_FAILED, "does not start");
}
