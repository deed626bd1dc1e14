/* control.c - what `karst restart` asks of a running `karst up`, at RUN_DIR/control: one line with a process and the
 * folder of its program from now on, answered with one line when that is done.
 *
 *   "restart ROLE ID FOLDER\n" -> "ok\n" | "why not\n"; FOLDER may be empty: where it is.
 *
 * One process at a time:
 *
 *   serving --SIGTERM--> draining --it ended--> started from FOLDER --it serves (storage: in sync again)--> "ok"
 *                                               started from FOLDER --it ended--> started from where it was, refused
 *
 * So a release that does not start costs its process a pause, never the constellation. Whoever asked may go away; what
 * was begun goes on. A program that neither serves nor ends can be replaced again once nobody waits for it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "services/karst/supervisor.h"

enum { LINE_BYTES = 4200, BACKLOG = 8 };

struct client {
    uv_pipe_t pipe;
    uv_write_t write;
    struct control *control;
    bool answered;
    char *answer;
    struct client *prev, *next;
    size_t size;
    char line[LINE_BYTES];
};

struct control {
    struct supervisor *supervisor;
    uv_pipe_t listener;
    struct process *process; /* that is being restarted; NULL: none */
    char *former;            /* the folder of its program that served last; NULL: nothing is being restarted */
    struct client *client;   /* who wants to know; NULL: nobody any more */
    struct client *clients;  /* all */
};

/* ---- clients ---- */

static void on_client_closed(uv_handle_t *h)
{
    struct client *k = h->data;
    free(k->answer);
    free(k);
}

static void close_client(struct client *k)
{
    struct control *c = k->control;
    if (uv_is_closing((uv_handle_t *)&k->pipe))
        return;
    if (c->client == k)
        c->client = NULL;
    DL_DELETE(c->clients, k);
    uv_close((uv_handle_t *)&k->pipe, on_client_closed);
}

static void on_written(uv_write_t *w, int status)
{
    if (status != UV_ECANCELED) /* by close_client */
        close_client(w->data);
}

/* Takes the text. */
static void answer(struct client *k, char *text)
{
    if (k == NULL) {
        free(text);
        return;
    }
    if (k->control->client == k)
        k->control->client = NULL;
    k->answered = true;
    k->answer = text;
    k->write.data = k;
    uv_buf_t b = uv_buf_init(text, (unsigned)strlen(text));
    if (uv_write(&k->write, (uv_stream_t *)&k->pipe, &b, 1, on_written) != 0)
        close_client(k);
}

/* ---- restarting ---- */

static void finish(struct control *c, char *text)
{
    c->process = NULL;
    free(TAKE_PTR(c->former));
    answer(c->client, text);
}

static void on_late(uv_timer_t *timer)
{
    struct process *p = timer->data;
    supervisor_say(p->supervisor, LOG_WARN, "%s does not end: killing it", p->label);
    process_signal(p, SIGKILL);
}

/* From where it was, when it does not start from where it should. */
static void go_back(struct control *c, const char *how)
{
    struct process *p = c->process;
    supervisor_say(c->supervisor, LOG_ERROR, "%s of %s %s before it was ready: starting that of %s again", p->label,
                   p->bin, how, c->former);
    char *text = xasprintf("that of %s %s before it was ready; that of %s is started again\n", p->bin, how, c->former);
    free(p->bin);
    p->bin = xstrdup(c->former);
    finish(c, text);
    process_start(p);
}

static void start_next(struct control *c)
{
    struct process *p = c->process;
    if (!process_try(p))
        go_back(c, "does not start");
}

bool control_ended(struct control *c, struct process *p, const char *how)
{
    if (c == NULL || c->process != p)
        return false;
    if (p->state == PROCESS_STOPPING) {
        uv_timer_stop(&p->retry);
        start_next(c);
        return true;
    }
    if (strcmp(p->bin, c->former) != 0) {
        go_back(c, how);
        return true;
    }
    finish(c, xasprintf("it %s before it was ready, and is tried again\n", how));
    return false;
}

void control_told(struct control *c, struct process *p)
{
    bool done = p->ready && (p->in_sync || strcmp(p->role, "storage") != 0);
    if (c == NULL || c->process != p || p->state != PROCESS_RUNNING || !done)
        return;
    supervisor_say(c->supervisor, LOG_INFO, "%s of %s serves", p->label, p->bin);
    finish(c, xstrdup("ok\n"));
}

static struct process *find(struct supervisor *s, const char *role, int id)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->processes[i].role, role) == 0 && s->processes[i].id == id)
            return &s->processes[i];
    return NULL;
}

static char *cannot_run(const char *folder, const char *role)
{
    char *program = xasprintf("%s/karst-%s", folder, role);
    char *why = access(program, X_OK) == 0 ? NULL : xasprintf("cannot run %s: %s\n", program, strerror(errno));
    free(program);
    return why;
}

/* The one that is being restarted neither serves nor ends, and whoever asked for it waits no longer. */
static bool is_left_alone(const struct control *c)
{
    return c->client == NULL && c->process->state == PROCESS_RUNNING;
}

/* Why no other may be restarted now. */
static char *tell_busy(const struct control *c)
{
    const struct process *p = c->process;
    if (!is_left_alone(c))
        return xasprintf("%s-%d is being restarted at this moment\n", p->role, p->id);
    return xasprintf("%s-%d was restarted, and %s: it comes first, restart it again if need be\n", p->role, p->id,
                     p->ready ? "is not in sync again yet" : "does not serve yet");
}

static void begin(struct control *c, struct process *p, const char *folder)
{
    char *next = xstrdup(folder); /* which may be p->bin */
    supervisor_say(c->supervisor, LOG_INFO, "%s is restarted, with the program of %s", p->label, folder);
    c->process = p;
    if (c->former == NULL)
        c->former = p->bin;
    else
        free(p->bin);
    p->bin = next;
    if (p->handle == NULL) {
        uv_timer_stop(&p->retry);
        start_next(c);
        return;
    }
    p->state = PROCESS_STOPPING;
    process_signal(p, SIGTERM);
    uv_timer_start(&p->retry, on_late, process_stop_ms(p), 0);
    supervisor_changed(c->supervisor);
}

static void on_line(struct client *k, char *line)
{
    struct control *c = k->control;
    char role[16];
    int id, at = 0;
    if (sscanf(line, "restart %15s %d %n", role, &id, &at) != 2 || at == 0) {
        answer(k, xstrdup("not understood\n"));
        return;
    }
    struct process *p = find(c->supervisor, role, id);
    const char *folder = line[at] ? line + at : p ? p->bin : "";
    char *why = p == NULL ? xasprintf("there is no %s-%d\n", role, id)
                : c->process != NULL && (c->process != p || !is_left_alone(c)) ? tell_busy(c)
                                                                               : cannot_run(folder, role);
    if (why != NULL) {
        answer(k, why);
        return;
    }
    c->client = k;
    begin(c, p, folder);
}

/* ---- the socket ---- */

static void on_room(uv_handle_t *h, size_t suggested UNUSED, uv_buf_t *ret)
{
    struct client *k = h->data;
    *ret = uv_buf_init(k->line + k->size, (unsigned)(sizeof(k->line) - 1 - k->size));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b UNUSED)
{
    struct client *k = stream->data;
    if (n < 0) {
        close_client(k);
        return;
    }
    k->size += (size_t)n;
    k->line[k->size] = 0;
    char *end = strchr(k->line, '\n');
    if (end != NULL && !k->answered && k->control->client != k) {
        *end = 0;
        k->size = 0;
        on_line(k, k->line);
    } else if (k->size == sizeof(k->line) - 1) {
        close_client(k);
    }
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct control *c = listener->data;
    if (status != 0)
        return;
    struct client *k = xcalloc(1, sizeof(*k));
    k->control = c;
    DL_APPEND(c->clients, k);
    uv_pipe_init(&c->supervisor->loop, &k->pipe, 0);
    k->pipe.data = k;
    if (uv_accept(listener, (uv_stream_t *)&k->pipe) != 0 ||
        uv_read_start((uv_stream_t *)&k->pipe, on_room, on_read) != 0)
        close_client(k);
}

struct control *control_start(struct supervisor *s)
{
    char *path = xasprintf("%s/" CONTROL_SOCKET, s->options->run_dir);
    struct control *c = xcalloc(1, sizeof(*c));
    c->supervisor = s;
    unlink(path);
    uv_pipe_init(&s->loop, &c->listener, 0);
    c->listener.data = c;
    int r = uv_pipe_bind(&c->listener, path);
    if (r == 0)
        r = uv_listen((uv_stream_t *)&c->listener, BACKLOG, on_connection);
    if (r != 0)
        supervisor_say(s, LOG_WARN, "cannot listen on %s, karst restart will not work: %s", path, uv_strerror(r));
    free(path);
    return c;
}

static void on_listener_closed(uv_handle_t *h)
{
    struct control *c = h->data;
    free(c->former);
    free(c);
}

void control_stop(struct control *c)
{
    if (c == NULL)
        return;
    if (c->process != NULL)
        finish(c, xstrdup("the constellation is being stopped\n"));
    while (c->clients != NULL)
        close_client(c->clients);
    uv_close((uv_handle_t *)&c->listener, on_listener_closed);
}
