/* up.c - `karst up`: everything that can be refused is refused here, before a process is started. */
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "services/karst/karst.h"

static int fail(int status, char *error)
{
    fprintf(stderr, "karst: %s\n", error ? error : "out of luck");
    free(error);
    return status;
}

/* Somebody else on the port would end in a front end that cannot start, again and again. */
static int check_port(const struct config *c, char **ret_error)
{
    char host[256], service[8];
    uint16_t port;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    effective_address(c, host, &port);
    snprintf(service, sizeof(service), "%u", port);
    int r = getaddrinfo(host, service, &hints, &found);
    if (r) {
        *ret_error = xasprintf("listeners: no address is known for the host %s: %s", host, gai_strerror(r));
        return -EINVAL;
    }
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    r = fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 ? -errno : 0;
    if (r)
        *ret_error = xasprintf("cannot listen on %s:%u: %s", host, port, strerror(-r));
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
    return r;
}

/* The child goes on as the supervisor; the parent waits for its word and gives the exit status in *ret_status. True in
 * the child. */
static bool detach(int *ret_ready_fd, int *ret_status)
{
    int fds[2], status;
    char text[1024];
    size_t size = 0;
    ssize_t n;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        *ret_status = fail(STATUS_FAILED, xasprintf("cannot make a pipe: %s", strerror(errno)));
        return false;
    }
    pid_t child = fork();
    if (child == 0) {
        close(fds[0]);
        setsid();
        *ret_ready_fd = fds[1];
        return true;
    }
    close(fds[1]);
    while (child > 0 && size < sizeof(text) && (n = read(fds[0], text + size, sizeof(text) - size)) > 0)
        size += (size_t)n;
    close(fds[0]);
    if (size && text[0] == 1) {
        fwrite(text + 1, 1, size - 1, stdout);
        *ret_status = 0;
    } else {
        *ret_status = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status)
                          ? WEXITSTATUS(status)
                          : STATUS_FAILED;
    }
    return false;
}

static int supervise(const struct up_options *o, struct config *c, const char *data, const char *run_dir)
{
    int status = 0, r;
    struct supervisor_options s = {
        .config = c, .run_dir = run_dir, .data = data, .detached = o->detach, .ready_fd = -1};
    effective_add_run_dir(c, run_dir);
    if ((r = effective_write(c, run_dir)) != 0)
        return fail(STATUS_FAILED, xasprintf("cannot write to %s: %s", run_dir, strerror(-r)));
    fflush(stdout);
    if (o->detach && !detach(&s.ready_fd, &status))
        return status;
    status = supervisor_run(&s);
    rundir_clean(run_dir);
    return status;
}

static int say_locked(const char *data)
{
    char *run_dir;
    struct state s = {0};
    if (rundir_find(data, &run_dir) == 0) {
        if (state_read(run_dir, &s) != 0)
            s.supervisor = 0;
        free(run_dir);
    }
    char *by = s.supervisor ? xasprintf(" (process %d)", s.supervisor) : xstrdup("");
    int status =
        fail(STATUS_FAILED,
             xasprintf("a constellation runs on %s already%s; karst status --data %s shows it, karst down --data "
                       "%s stops it",
                       data, by, data, data));
    free(by);
    return status;
}

static int prepare_and_run(const struct up_options *o, struct config *c, const char *data)
{
    char *error = NULL, *run_dir = NULL;
    struct datadir_identity identity;
    if (check_port(c, &error) != 0)
        return fail(STATUS_FAILED, error);
    if (datadir_prepare(data, c, &identity, &error) != 0)
        return fail(STATUS_FAILED, error);
    if (rundir_make(data, &run_dir, &error) != 0)
        return fail(STATUS_FAILED, error);
    int lock = rundir_lock(run_dir), status;
    if (lock < 0) {
        status = lock == -EWOULDBLOCK ? say_locked(data)
                                      : fail(STATUS_FAILED, xasprintf("cannot lock %s: %s", run_dir, strerror(-lock)));
    } else {
        printf("%s %s, cluster id %s\n", identity.formatted_now ? "Formatted" : "Data in", data, identity.cluster_id);
        status = supervise(o, c, data, run_dir);
        close(lock);
    }
    free(run_dir);
    return status;
}

int up_main(const struct up_options *o)
{
    char *error = NULL, *data = NULL;
    struct config *c = NULL;
    if (datadir_open(o->data, &data, &error) != 0)
        return fail(STATUS_FAILED, error);
    int lock = datadir_lock(data), status;
    if (lock == -EWOULDBLOCK)
        status = say_locked(data);
    else if (lock < 0)
        status = fail(STATUS_FAILED, xasprintf("cannot lock %s: %s", data, strerror(-lock)));
    else if (effective_load(o, data, &c, &error) != 0)
        status = fail(STATUS_CONFIG, error);
    else
        status = prepare_and_run(o, c, data);
    if (lock >= 0)
        close(lock);
    c = config_free(c);
    free(data);
    return status;
}
