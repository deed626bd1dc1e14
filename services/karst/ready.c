/* ready.c - which processes serve: they say so themselves, by systemd's protocol (sd_notify(3)), at RUN_DIR/notify.
 * The kernel says who it was that sent it. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "services/karst/supervisor.h"

enum { TEXT_BYTES = 1024 };

struct ready {
    struct supervisor *supervisor;
    uv_poll_t poll;
    int fd;
};

/* "X=12" on a line of its own; 0: not said. */
static int number_of(const char *text, const char *key)
{
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, strlen(key)) == 0)
            return atoi(line + strlen(key));
    }
    return 0;
}

static void on_text(struct ready *r, pid_t from, const char *text)
{
    struct supervisor *s = r->supervisor;
    bool ready = number_of(text, "READY=") == 1, in_sync = number_of(text, "X_KARST_IN_SYNC=") == 1;
    for (size_t i = 0; i < s->count; i++) {
        struct process *p = &s->processes[i];
        if (p->handle == NULL || p->handle->pid != from)
            continue;
        if (ready)
            p->bus_version = number_of(text, "X_KARST_BUS_VERSION=");
        p->ready = p->ready || ready;
        p->in_sync = p->in_sync || in_sync;
        supervisor_changed(s);
        control_told(s->control, p);
    }
}

/* False: there is nothing more. */
static bool take_one(struct ready *r)
{
    char text[TEXT_BYTES];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = {text, sizeof(text) - 1};
    struct msghdr m = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(r->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return false;
    text[n] = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
        struct ucred sender;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
            continue;
        memcpy(&sender, CMSG_DATA(c), sizeof(sender));
        on_text(r, sender.pid, text);
    }
    return true;
}

static void on_poll(uv_poll_t *poll, int status, int events UNUSED)
{
    struct ready *r = poll->data;
    if (status == 0)
        while (take_one(r))
            ;
}

static int open_socket(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int yes = 1;
    if (strlen(path) >= sizeof(at.sun_path))
        return -ENAMETOOLONG;
    memcpy(at.sun_path, path, strlen(path));
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) == 0 &&
        bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
        return fd;
    int r = -errno;
    if (fd >= 0)
        close(fd);
    return r;
}

struct ready *ready_start(struct supervisor *s)
{
    char *path = xasprintf("%s/notify", s->options->run_dir);
    struct ready *r = NULL;
    int fd = open_socket(path);
    if (fd < 0) {
        supervisor_say(s, LOG_WARN, "cannot listen on %s, karst restart will not know who is ready: %s", path,
                       strerror(-fd));
    } else {
        r = xcalloc(1, sizeof(*r));
        r->supervisor = s;
        r->fd = fd;
        uv_poll_init(&s->loop, &r->poll, fd);
        r->poll.data = r;
        uv_poll_start(&r->poll, UV_READABLE, on_poll);
        setenv("NOTIFY_SOCKET", path, 1);
    }
    free(path);
    return r;
}

static void on_closed(uv_handle_t *h)
{
    struct ready *r = h->data;
    close(r->fd);
    free(r);
}

void ready_stop(struct ready *r)
{
    if (r != NULL)
        uv_close((uv_handle_t *)&r->poll, on_closed);
}
