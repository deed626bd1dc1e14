/* restart.c - `karst restart`: one process after the other is replaced, by the program in another folder where that is
 * said, and waited for: until it serves, and a storage node until it is in sync again wherever it has a replica. So at
 * no time is more than one away, and what was acknowledged is held by as many as before when the next one goes.
 *
 * Controllers first, the one that leads last of them; then storage nodes, coordinators, front ends. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "services/karst/karst.h"

enum { RESTART_WAIT_MS = 600000 };

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int cannot(const char *label, const char *why)
{
    return fail(STATUS_FAILED, xasprintf("%s: %s", label, why));
}

/* ---- the supervisor ---- */

/* A socket, or -errno. */
static int open_control(const char *run_dir)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int n = snprintf(to.sun_path, sizeof to.sun_path, "%s/" CONTROL_SOCKET, run_dir);
    if (n < 0 || (size_t)n >= sizeof to.sun_path)
        return -ENAMETOOLONG;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
        return fd;
    int r = -errno;
    if (fd >= 0)
        close(fd);
    return r;
}

/* Its one line in ret_line, without the end, or -errno. */
static int ask_control(int fd, const char *request, char *ret_line, size_t size)
{
    uint64_t until = now_ms() + RESTART_WAIT_MS;
    size_t have = 0;
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        return -EIO;
    while (have < size - 1 && (have == 0 || ret_line[have - 1] != '\n')) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t now = now_ms();
        int ready = now < until ? poll(&p, 1, (int)(until - now)) : 0;
        ssize_t n = ready > 0 ? recv(fd, ret_line + have, size - 1 - have, 0) : 0;
        if (ready <= 0 || n <= 0)
            return ready == 0 ? -ETIMEDOUT : n == 0 ? -ECONNRESET : -errno;
        have += (size_t)n;
    }
    ret_line[have - 1] = 0;
    return 0;
}

static int restart_process(const char *run_dir, const struct state_process *p, const char *label, const char *bin)
{
    char line[8192];
    int fd = open_control(run_dir);
    if (fd < 0)
        return cannot(label, strerror(-fd));
    char *request = xasprintf("restart %s %d %s\n", p->role, p->id, bin);
    int r = ask_control(fd, request, line, sizeof line);
    free(request);
    close(fd);
    if (r == -ETIMEDOUT)
        return cannot(label, strcmp(p->role, "storage") == 0 ? "it does not serve yet, or is not in sync again"
                                                             : "it does not serve yet");
    if (r != 0)
        return cannot(label, strerror(-r));
    return strcmp(line, "ok") == 0 ? 0 : cannot(label, line);
}

/* ---- which, and in which order ---- */

static bool leads_quorum(const char *run_dir, const struct state_process *p)
{
    char *path = xasprintf("%s/controller-%d.quorum", run_dir, p->id), role[32] = "";
    FILE *f = strcmp(p->role, "controller") == 0 ? fopen(path, "re") : NULL;
    bool leads = f != NULL && fscanf(f, "%31s", role) == 1 && strcmp(role, "leader") == 0;
    if (f != NULL)
        fclose(f);
    free(path);
    return leads;
}

static int one(const char *run_dir, const struct state_process *p, const char *bin)
{
    char label[32];
    uint64_t started = now_ms();
    snprintf(label, sizeof label, "%s-%d", p->role, p->id);
    int status = restart_process(run_dir, p, label, bin);
    if (status != 0)
        return status;
    uint64_t took = now_ms() - started;
    printf("%s serves again after %llu.%03llu s\n", label, (unsigned long long)took / 1000,
           (unsigned long long)took % 1000);
    fflush(stdout);
    return 0;
}

static int all(const struct state *s, const char *run_dir, const char *bin)
{
    static const char *const roles[] = {"controller", "controller", "storage", "group", "txn", "frontend"};
    bool leads[STATE_PROCESSES_MAX]; /* as it is before the first is restarted: then another leads */
    int status = 0;
    for (size_t i = 0; i < s->count; i++)
        leads[i] = leads_quorum(run_dir, &s->processes[i]);
    for (size_t r = 0; r < COUNTOF(roles); r++)
        for (size_t i = 0; i < s->count && status == 0; i++)
            if (strcmp(s->processes[i].role, roles[r]) == 0 && (r > 1 || leads[i] == (r == 1)))
                status = one(run_dir, &s->processes[i], bin);
    return status;
}

/* "storage-2"; "storage" where there is but one. NULL: none of that name. */
static const struct state_process *named(const struct state *s, const char *name)
{
    const struct state_process *found = NULL;
    char label[32];
    for (size_t i = 0; i < s->count; i++) {
        const struct state_process *p = &s->processes[i];
        snprintf(label, sizeof label, "%s-%d", p->role, p->id);
        if (strcmp(label, name) == 0)
            return p;
        if (strcmp(p->role, name) != 0)
            continue;
        if (found != NULL)
            return NULL;
        found = p;
    }
    return found;
}

int restart_main(const char *data, const char *process, const char *bin)
{
    struct state s;
    char *run_dir = NULL, *folder = bin ? realpath(bin, NULL) : xstrdup("");
    int r = state_find(data, &s, &run_dir), status;
    const struct state_process *p = r == 0 && process ? named(&s, process) : NULL;
    if (r == -ENOENT) {
        fprintf(stderr, "karst: nothing runs on %s\n", data);
        status = STATUS_NOT_RUNNING;
    } else if (r != 0) {
        status = cannot(data, strerror(-r));
    } else if (folder == NULL) {
        status = cannot(bin, "there is no such folder");
    } else if (process != NULL && p == NULL) {
        status = cannot(process, "there is no such process, or several: karst status shows ROLE and ID, for ROLE-ID");
    } else {
        status = p ? one(run_dir, p, folder) : all(&s, run_dir, folder);
    }
    free(folder);
    free(run_dir);
    return status;
}
