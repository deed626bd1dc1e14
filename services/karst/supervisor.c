/* supervisor.c - the parent of a constellation: starts all at once, restarts what dies, stops in order. */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "services/karst/supervisor.h"

/* Storage closes its logs at the end: thousands of them take a while on a busy disk, and a start after a kill longer.
 */
enum { STAGES = 4, STAGE_MS = 15000, STORAGE_STAGE_MS = 60000, SLOW_START_MS = 60000 };

static const char *const state_names[] = {"waiting", "running", "down", "stopping", "stopped"};

static void advance(struct supervisor *s);

void supervisor_say(struct supervisor *s, enum log_level level, const char *format, ...)
{
    char text[1024];
    time_t now = time(NULL);
    struct tm day;
    va_list arguments;
    gmtime_r(&now, &day);
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.000Z ", &day);
    n += (size_t)snprintf(text + n, 16, "%s ", level == LOG_ERROR ? "ERROR" : level == LOG_WARN ? "WARN" : "INFO");
    va_start(arguments, format);
    int more = vsnprintf(text + n, sizeof(text) - n, format, arguments);
    va_end(arguments);
    n = MIN(n + (size_t)MAX(more, 0), sizeof(text) - 1);
    output_line(s->sink, "karst", text, n);
}

/* Where a process takes calls: clients for the front end, its peers for the others. */
static void endpoint_of(const struct supervisor *s, const struct process *p, char *ret, size_t size)
{
    char host[256];
    uint16_t port;
    if (!process_is_frontend(p)) {
        snprintf(ret, size, "ipc://%s/%s-%d", s->options->run_dir, p->role, p->id);
        return;
    }
    effective_address(s->options->config, host, &port);
    snprintf(ret, size, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port + ports_shift(process_place(p)));
}

void supervisor_changed(struct supervisor *s)
{
    struct state all = {.supervisor = getpid(), .count = s->count};
    for (size_t i = 0; i < s->count; i++) {
        const struct process *p = &s->processes[i];
        struct state_process *to = &all.processes[i];
        snprintf(to->role, sizeof(to->role), "%s", p->role);
        snprintf(to->state, sizeof(to->state), "%s",
                 p->state == PROCESS_RUNNING && !s->ready && s->stage < 0 ? "starting" : state_names[p->state]);
        endpoint_of(s, p, to->endpoint, sizeof(to->endpoint));
        to->id = p->id;
        to->pid = p->handle ? p->handle->pid : 0;
        to->restarts = p->restarts;
        to->bus_version = p->bus_version;
    }
    int r = state_write(s->options->run_dir, &all);
    if (r)
        supervisor_say(s, LOG_WARN, "cannot write %s/state, karst status will not know: %s", s->options->run_dir,
                       strerror(-r));
}

/* ----------------------------------------------------------------------------------------------------------------
 * stopping */

static void finish(struct supervisor *s)
{
    for (size_t i = 0; i < COUNTOF(s->signals); i++)
        uv_close((uv_handle_t *)&s->signals[i], NULL);
    for (size_t i = 0; i < s->count; i++)
        process_close(&s->processes[i]);
    uv_close((uv_handle_t *)&s->stage_timer, NULL);
}

static void on_stage_late(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    for (size_t i = 0; i < s->count; i++) {
        struct process *p = &s->processes[i];
        if (p->handle && p->state == PROCESS_STOPPING) {
            supervisor_say(s, LOG_WARN, "%s does not end: killing it", p->label);
            process_signal(p, SIGKILL);
        }
    }
}

uint64_t process_stop_ms(const struct process *p)
{
    return strcmp(p->role, "storage") == 0 ? STORAGE_STAGE_MS : STAGE_MS;
}

/* Ends the processes of the stage; true when there was one. */
static bool stop_stage(struct supervisor *s)
{
    bool any = false;
    uint64_t ms = 0;
    for (size_t i = 0; i < s->count; i++) {
        struct process *p = &s->processes[i];
        if (p->stop_stage != s->stage)
            continue;
        ms = MAX(ms, process_stop_ms(p));
        uv_timer_stop(&p->retry);
        if (p->handle && p->state == PROCESS_RUNNING) {
            p->state = PROCESS_STOPPING;
            process_signal(p, SIGTERM);
        } else if (p->handle == NULL) {
            p->state = PROCESS_STOPPED;
        }
        any = any || p->handle;
    }
    if (any)
        uv_timer_start(&s->stage_timer, on_stage_late, ms, 0);
    return any;
}

static void advance(struct supervisor *s)
{
    while (s->stage < STAGES && !stop_stage(s))
        s->stage++;
    if (s->stage == STAGES && !uv_is_closing((uv_handle_t *)&s->stage_timer))
        finish(s);
}

void supervisor_process_ended(struct supervisor *s)
{
    advance(s);
}

static void stop(struct supervisor *s, int status)
{
    if (s->stage >= 0)
        return;
    s->stage = 0;
    s->status = status;
    probe_stop(TAKE_PTR(s->probe));
    control_stop(TAKE_PTR(s->control));
    ready_stop(TAKE_PTR(s->ready_socket));
    for (int i = 0; i < s->options->nodes.frontends; i++) /* else clients would be let in and never answered */
        ports_close(&s->options->ports[i]);
    advance(s);
    supervisor_changed(s);
}

void supervisor_give_up(struct supervisor *s, int status)
{
    stop(s, status);
}

static void on_signal(uv_signal_t *handle, int signal_number)
{
    struct supervisor *s = handle->data;
    if (s->stage < 0) {
        supervisor_say(s, LOG_INFO, "signal %d: stopping; a second one stops at once", signal_number);
        stop(s, 0);
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        if (s->processes[i].handle)
            s->processes[i].state = PROCESS_STOPPING;
        process_signal(&s->processes[i], SIGKILL);
    }
}

/* ----------------------------------------------------------------------------------------------------------------
 * starting */

/* A detached supervisor tells its parent, which waits on the pipe, and lets go of the terminal. */
static void let_go(struct supervisor *s, const char *text)
{
    char *message = xasprintf("\1%s", text);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (write(s->options->ready_fd, message, strlen(message)) < 0)
        supervisor_say(s, LOG_WARN, "nobody waited for the start");
    output_sink_quiet(s->sink);
    if (null >= 0) {
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        close(null);
    }
    close(s->options->ready_fd);
    free(message);
}

static void is_ready(struct supervisor *s, const char *text)
{
    s->ready = true;
    probe_stop(TAKE_PTR(s->probe));
    uv_timer_stop(&s->stage_timer);
    if (s->options->detached) {
        let_go(s, text);
    } else {
        fputs(text, stdout);
        fflush(stdout);
    }
    supervisor_changed(s);
}

static void on_ready(void *ctx)
{
    struct supervisor *s = ctx;
    char *address = effective_bootstrap(s->options->config);
    uint64_t took = uv_hrtime() / 1000000 - s->started_ms;
    char *text =
        xasprintf("Karst answers on %s after %llu.%03llu s. Try:\n\n  echo hello | kcat -b %s -t greetings -P\n"
                  "  kcat -b %s -t greetings -C -e\n\n",
                  address, (unsigned long long)took / 1000, (unsigned long long)took % 1000, address, address);
    is_ready(s, text);
    free(address);
    free(text);
}

static void on_slow_start(uv_timer_t *timer)
{
    struct supervisor *s = timer->data;
    bool networked = network_is_used(s->options->config);
    if (s->options->detached && !networked) {
        supervisor_say(s, LOG_ERROR, "no answer after %d s: giving up", SLOW_START_MS / 1000);
        stop(s, STATUS_FAILED);
        return;
    }
    supervisor_say(s, LOG_WARN, "no answer yet after %d s; waiting on%s", SLOW_START_MS / 1000,
                   networked ? ", for a majority of the controllers and the other hosts" : "");
    if (s->options->detached) /* the next step is the other hosts', and ours may be wanted for it */
        is_ready(s,
                 "Karst runs, and does not answer yet: it needs a majority of the controllers on the other hosts.\n");
}

static char *own_folder(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    ASSERT(n > 0);
    path[n] = 0;
    *strrchr(path, '/') = 0;
    return xstrdup(path);
}

static void add(struct supervisor *s, const char *role, int count, int stop_stage)
{
    for (int i = 0; i < count; i++) {
        struct process *p = &s->processes[s->count++];
        process_init(p, s, role, nodes_first_id(s->options->config, role) + i, stop_stage);
        if (count > 1)
            snprintf(p->label, sizeof(p->label), "%s-%d", role, p->id);
    }
}

/* All of them, before any can fail. */
static void add_all(struct supervisor *s)
{
    const struct nodes *n = &s->options->nodes;
    int coordinators = n->storage > 0;
    add(s, "controller", n->controllers, 3);
    add(s, "storage", n->storage, 2);
    add(s, "frontend", n->frontends, 0);
    add(s, "group", coordinators, 1);
    add(s, "txn", coordinators, 1);
}

static void start(struct supervisor *s)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    char parent[24], host[256];
    uint16_t port;
    for (size_t i = 0; i < COUNTOF(signals); i++) {
        uv_signal_init(&s->loop, &s->signals[i]);
        s->signals[i].data = s;
        uv_signal_start(&s->signals[i], on_signal, signals[i]);
    }
    uv_timer_init(&s->loop, &s->stage_timer);
    s->stage_timer.data = s;
    uv_timer_start(&s->stage_timer, on_slow_start, SLOW_START_MS, 0);
    snprintf(parent, sizeof(parent), "%d", getpid());
    setenv("KARST_PARENT_PID", parent, 1);
    s->ready_socket = ready_start(s);
    s->control = control_start(s);
    add_all(s);
    for (size_t i = 0; i < s->count && s->stage < 0; i++)
        process_start(&s->processes[i]);
    effective_address(s->options->config, host, &port);
    if (s->stage < 0 && s->options->nodes.frontends > 0)
        s->probe = probe_start(&s->loop, host, port, on_ready, s);
    else if (s->stage < 0)
        is_ready(s, "Karst runs; clients connect to front ends on other hosts.\n");
}

int supervisor_run(struct supervisor_options *o)
{
    struct supervisor s = {.options = o, .stage = -1, .bin = own_folder(), .started_ms = uv_hrtime() / 1000000};
    s.sink = output_sink_new(o->run_dir, o->detached);
    signal(SIGPIPE, SIG_IGN);
    uv_loop_init(&s.loop);
    start(&s);
    uv_run(&s.loop, UV_RUN_DEFAULT);
    uv_loop_close(&s.loop);
    supervisor_say(&s, LOG_INFO, "stopped");
    s.sink = output_sink_free(s.sink);
    free(s.bin);
    return s.status;
}
