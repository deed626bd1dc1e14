/* up.c - `karst up`: everything that can be refused is refused here, before a process is started. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "services/karst/karst.h"

int fail(int status, char *error)
{
    fprintf(stderr, "karst: %s\n", error ? error : "out of luck");
    free(error);
    return status;
}

static int open_ports(const struct config *c, struct supervisor_options *s, char **ret_error)
{
    int r = 0;
    for (int i = 0; r == 0 && i < s->nodes.frontends; i++)
        r = ports_open(c, &s->nodes, i, &s->ports[i], ret_error);
    return r ? r : ports_open_controllers(c, &s->nodes, s->ports, ret_error);
}

static void close_ports(struct supervisor_options *s)
{
    for (int i = 0; i < FRONTENDS_MAX; i++)
        ports_close(&s->ports[i]);
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

static int supervise(const struct up_options *o, struct config *c, struct supervisor_options *s)
{
    int status = 0, r;
    const char *run_dir = s->run_dir;
    effective_add_run_dir(c, run_dir, &s->nodes);
    node_files_add_run_dir(s->nodes.files, c);
    if ((r = effective_write(c, run_dir)) != 0 || (r = nodes_write(c, s->data, run_dir, &s->nodes)) != 0)
        return fail(STATUS_FAILED, xasprintf("cannot write to %s: %s", run_dir, strerror(-r)));
    fflush(stdout);
    if (o->detach && !detach(&s->ready_fd, &status))
        return status;
    status = supervisor_run(s);
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

static int prepare_and_run(const struct up_options *o, struct config *c, const char *data,
                           const struct node_files *files)
{
    char *error = NULL, *run_dir = NULL;
    struct datadir_identity identity;
    struct supervisor_options s = {.config = c, .data = data, .nodes = o->nodes, .detached = o->detach, .ready_fd = -1};
    s.nodes.files = files;
    nodes_count(c, data, &s.nodes);
    if (network_check_nodes(c, &s.nodes, &error) != 0)
        return fail(STATUS_CONFIG, error);
    if (open_ports(c, &s, &error) != 0 || datadir_prepare(c, &identity, &error) != 0 ||
        nodes_prepare(c, data, identity.cluster_id, &s.nodes, &error) != 0 ||
        rundir_make(data, &run_dir, &error) != 0) {
        close_ports(&s);
        return fail(STATUS_FAILED, error);
    }
    s.run_dir = run_dir;
    int lock = rundir_lock(run_dir), status;
    if (lock < 0) {
        status = lock == -EWOULDBLOCK ? say_locked(data)
                                      : fail(STATUS_FAILED, xasprintf("cannot lock %s: %s", run_dir, strerror(-lock)));
    } else {
        printf("%s %s, cluster id %s\n", identity.formatted_now ? "Formatted" : "Data in", data, identity.cluster_id);
        status = supervise(o, c, &s);
        close(lock);
    }
    close_ports(&s);
    free(run_dir);
    return status;
}

int up_main(const struct up_options *o)
{
    char *error = NULL, *data = NULL;
    struct config *c = NULL;
    struct node_files files = {0};
    if (datadir_open(o->data, &data, &error) != 0)
        return fail(STATUS_FAILED, error);
    int lock = datadir_lock(data), status;
    if (lock == -EWOULDBLOCK)
        status = say_locked(data);
    else if (lock < 0)
        status = fail(STATUS_FAILED, xasprintf("cannot lock %s: %s", data, strerror(-lock)));
    else if (effective_load(o, data, &c, &error) != 0 || node_files_load(o, c, &files, &error) != 0)
        status = fail(STATUS_CONFIG, error);
    else
        status = prepare_and_run(o, c, data, &files);
    node_files_free(&files);
    if (lock >= 0)
        close(lock);
    c = config_free(c);
    free(data);
    return status;
}

static int format_first(const struct config *c, struct datadir_identity *ret_identity, char **ret_error)
{
    if (network_is_used(c) && effective_has_role(c, "controller"))
        return datadir_form(c, NULL, NULL, ret_identity, ret_error);
    *ret_error = xstrdup("--first is for a controller on one of several hosts: karst.bus.listen and a controller in "
                         "process.roles were expected");
    return -EINVAL;
}

static int format(const struct up_options *o, const struct config *c, const char *data)
{
    struct datadir_identity identity;
    char *error = NULL;
    int r = o->first                 ? format_first(c, &identity, &error)
            : o->initial_controllers ? initial_format(c, o->initial_controllers, o->cluster_id, &identity, &error)
                                     : datadir_format(c, &error);
    if (r < 0)
        return fail(STATUS_FAILED, error);
    if (o->first || o->initial_controllers)
        printf("%s is of %s of cluster %s now\n", data,
               o->first ? "the first controller" : "one of the first controllers", identity.cluster_id);
    else
        printf("%d of the directories formatted\n", r);
    return 0;
}

int format_main(const struct up_options *o)
{
    char *error = NULL, *data = NULL;
    struct config *c = NULL;
    int status;
    if (datadir_open(o->data, &data, &error) != 0)
        return fail(STATUS_FAILED, error);
    int lock = datadir_lock(data);
    if (lock == -EWOULDBLOCK)
        status = say_locked(data);
    else if (lock < 0)
        status = fail(STATUS_FAILED, xasprintf("cannot lock %s: %s", data, strerror(-lock)));
    else if (effective_load(o, data, &c, &error) != 0)
        status = fail(STATUS_CONFIG, error);
    else
        status = format(o, c, data);
    if (lock >= 0)
        close(lock);
    config_free(c);
    free(data);
    return status;
}
