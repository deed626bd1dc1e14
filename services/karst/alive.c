/* alive.c - a process without a file of its own that stands still is killed, and started again: a front end, a group or
 * a txn service may be killed at any instant and lose nothing, while its clients would wait for it as long as their own
 * timeouts say. (A storage node or a controller is left alone: others do its work, and it goes on where it stood.)
 *
 * Its descriptor 0 is the end of a pipe, to which its loop writes each SERVICE_ALIVE_MS. Its silence counts from its
 * first word on, and only while our own loop runs: a machine that slept was silent as a whole. One that is silent while
 * it runs, or waits for a processor to run on, is busy more often than stuck, and has BUSY_TIMES as long. One that a
 * debugger holds is left alone. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "libs/service/alive.h"
#include "services/karst/supervisor.h"

enum { TICK_MS = SERVICE_ALIVE_MS, BUSY_TIMES = 5 };
enum { SILENCE_MS_MIN = 3 * TICK_MS }; /* a word may come just behind a tick, and ours late once */

static bool is_watched(const struct process *p)
{
    bool keeps_files = strcmp(p->role, "storage") == 0 || strcmp(p->role, "controller") == 0;
    return !keeps_files && config_int(p->supervisor->options->config, "karst.session.silence.ms") > 0;
}

void alive_init(struct process *p)
{
    p->alive_fd = -1;
    uv_timer_init(&p->supervisor->loop, &p->alive_timer);
    p->alive_timer.data = p;
}

static bool has_spoken(const struct process *p)
{
    char bytes[256];
    bool any = false;
    while (read(p->alive_fd, bytes, sizeof bytes) > 0)
        any = true;
    return any;
}

/* The state of its first thread, which is that of its loop, as proc(5) has it: 'R' runs or could, 't' is held by a
 * debugger; '?': not known. */
static char state_of(const struct process *p)
{
    char path[32], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", p->handle->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    if (fd >= 0)
        close(fd);
    text[MAX(n, 0)] = 0;
    const char *name_end = strrchr(text, ')'); /* the name may have one, too */
    return name_end != NULL && name_end[1] == ' ' && name_end[2] != 0 ? name_end[2] : '?';
}

static void on_tick(uv_timer_t *timer)
{
    struct process *p = timer->data;
    uint64_t now = uv_now(timer->loop), passed = now - p->alive_at_ms;
    uint64_t bound = (uint64_t)config_int(p->supervisor->options->config, "karst.session.silence.ms");
    bound = MAX(bound, (uint64_t)SILENCE_MS_MIN);
    p->alive_at_ms = now;
    p->silent_ms += MIN(passed, (uint64_t)TICK_MS);
    if (has_spoken(p)) {
        p->has_spoken = true;
        p->silent_ms = 0;
    }
    if (!p->has_spoken || p->silent_ms < bound || p->state != PROCESS_RUNNING)
        return;
    char state = state_of(p);
    if (state == 't' || (state == 'R' && p->silent_ms < BUSY_TIMES * bound))
        return;
    supervisor_say(p->supervisor, LOG_WARN, "%s has stood still for %llu ms: killing it", p->label,
                   (unsigned long long)p->silent_ms);
    p->has_spoken = false; /* once */
    process_signal(p, SIGKILL);
}

int alive_open(struct process *p)
{
    int fds[2];
    if (!is_watched(p) || pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return -1;
    p->alive_fd = fds[0];
    p->has_spoken = false;
    p->silent_ms = 0;
    p->alive_at_ms = uv_now(&p->supervisor->loop);
    uv_timer_start(&p->alive_timer, on_tick, TICK_MS, TICK_MS);
    return fds[1];
}

void alive_close(struct process *p)
{
    uv_timer_stop(&p->alive_timer);
    if (p->alive_fd >= 0)
        close(p->alive_fd);
    p->alive_fd = -1;
}
