/* state.c - RUN_DIR/state: a line for the supervisor, then a line a process, fields separated by tabs. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/base/buf.h"
#include "services/karst/karst.h"

int state_write(const char *run_dir, const struct state *s)
{
    char *path = xasprintf("%s/state", run_dir), *temporary = xasprintf("%s/state.tmp", run_dir);
    struct buf b = {0};
    buf_printf(&b, "%d\n", s->supervisor);
    for (size_t i = 0; i < s->count; i++) {
        const struct state_process *p = &s->processes[i];
        buf_printf(&b, "%s\t%d\t%d\t%s\t%d\t%d\t%s\n", p->role, p->id, p->pid, p->state, p->restarts, p->bus_version,
                   p->endpoint);
    }
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    ssize_t n = fd < 0 ? -1 : write(fd, b.data, b.size);
    int r = n < 0 ? -errno : (size_t)n < b.size ? -ENOSPC : 0;
    if (fd >= 0)
        close(fd);
    if (r == 0 && rename(temporary, path) != 0)
        r = -errno;
    buf_free(&b);
    free(temporary);
    free(path);
    return r;
}

int state_read(const char *run_dir, struct state *ret_state)
{
    char *path = xasprintf("%s/state", run_dir);
    FILE *f = fopen(path, "re");
    int r = f ? 0 : -errno;
    free(path);
    *ret_state = (struct state){0};
    if (f && fscanf(f, "%d", &ret_state->supervisor) != 1)
        r = -EBADMSG;
    for (int n = 7; r == 0 && ret_state->count < STATE_PROCESSES_MAX; ret_state->count++) {
        struct state_process *p = &ret_state->processes[ret_state->count];
        n = fscanf(f, "%15s %d %d %15s %d %d %255s", p->role, &p->id, &p->pid, p->state, &p->restarts, &p->bus_version,
                   p->endpoint);
        if (n != 7 && n != EOF)
            r = -EBADMSG;
        if (n != 7)
            break;
    }
    if (f)
        fclose(f);
    return r;
}

int state_find(const char *data, struct state *ret_state, char **ret_run_dir)
{
    char *real = realpath(data, NULL), *run_dir;
    int r = real ? rundir_find(real, &run_dir) : -ENOENT;
    free(real);
    if (r)
        return r;
    r = state_read(run_dir, ret_state);
    if (r)
        free(run_dir);
    else
        *ret_run_dir = run_dir;
    return r;
}
