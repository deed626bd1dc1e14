/* status.c - `karst status` and `karst down`. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "services/karst/karst.h"

enum { DOWN_WAIT_MS = 120000 };

/* Proportional set size: what the process costs, shared pages counted by share. 0 when it is gone. */
static long long memory_bytes(int pid)
{
    char path[64], line[256];
    long long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "Pss: %lld kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * 1024;
}

/* Who leads the controllers, by what each has written: lines, or a member of a JSON object. */
static void print_quorum(const char *run_dir, const struct state *s, bool json)
{
    bool first = true;
    if (json)
        printf(",\"quorum\":[");
    for (size_t i = 0; i < s->count; i++) {
        const struct state_process *p = &s->processes[i];
        char role[32];
        int epoch, leader;
        if (strcmp(p->role, "controller") != 0)
            continue;
        char *path = xasprintf("%s/controller-%d.quorum", run_dir, p->id);
        FILE *f = fopen(path, "re");
        bool known = f != NULL && fscanf(f, "%31s %d %d", role, &epoch, &leader) == 3 && p->pid > 0;
        if (known && json)
            printf("%s{\"id\":%d,\"role\":\"%s\",\"epoch\":%d,\"leader\":%d}", first ? "" : ",", p->id, role, epoch,
                   leader);
        else if (known)
            printf("controller %d: %s in epoch %d, leader %d\n", p->id, role, epoch, leader);
        first = first && !known;
        if (f != NULL)
            fclose(f);
        free(path);
    }
    if (json)
        printf("]");
}

static void print_json(const struct state *s, const char *run_dir)
{
    printf("{\"processes\":[");
    for (size_t i = 0; s && i < s->count; i++) {
        const struct state_process *p = &s->processes[i];
        printf("%s{\"role\":\"%s\",\"id\":%d,\"pid\":", i ? "," : "", p->role, p->id);
        if (p->pid > 0)
            printf("%d", p->pid);
        else
            printf("null");
        printf(",\"state\":\"%s\",\"endpoint\":\"%s\",\"restarts\":%d,\"bus_version\":%d,\"memory_bytes\":%lld}",
               p->state, p->endpoint, p->restarts, p->bus_version, memory_bytes(p->pid));
    }
    printf("]");
    if (s) {
        print_quorum(run_dir, s, true);
        directories_print(run_dir, s, true);
    }
    printf("}\n");
}

static void print_table(const struct state *s, const char *run_dir)
{
    long long all = 0;
    printf("%-11s %3s %8s %-9s %8s %3s %9s  %s\n", "ROLE", "ID", "PID", "STATE", "RESTARTS", "BUS", "MEMORY",
           "ENDPOINT");
    for (size_t i = 0; i < s->count; i++) {
        const struct state_process *p = &s->processes[i];
        long long bytes = memory_bytes(p->pid);
        char bus[12] = "-";
        if (p->bus_version > 0)
            snprintf(bus, sizeof(bus), "%d", p->bus_version);
        all += bytes;
        printf("%-11s %3d %8d %-9s %8d %3s %5.1f MiB  %s\n", p->role, p->id, p->pid, p->state, p->restarts, bus,
               (double)bytes / 1048576, p->endpoint);
    }
    printf("%-11s %3s %8d %-9s %8s %3s %5.1f MiB\n", "karst up", "", s->supervisor, "running", "", "",
           (double)memory_bytes(s->supervisor) / 1048576);
    printf("all %41s %5.1f MiB\n", "", (double)(all + memory_bytes(s->supervisor)) / 1048576);
    print_quorum(run_dir, s, false);
    directories_print(run_dir, s, false);
}

static int say_none(const char *data)
{
    fprintf(stderr, "karst: nothing runs on %s\n", data);
    return STATUS_NOT_RUNNING;
}

int status_main(const char *data, bool json)
{
    struct state s;
    char *run_dir = NULL;
    int r = state_find(data, &s, &run_dir);
    if (r == -ENOENT) {
        if (json)
            print_json(NULL, NULL);
        return say_none(data);
    }
    if (r) {
        fprintf(stderr, "karst: cannot read the state of %s: %s\n", data, strerror(-r));
        return STATUS_FAILED;
    }
    if (json)
        print_json(&s, run_dir);
    else
        print_table(&s, run_dir);
    free(run_dir);
    return 0;
}

int down_main(const char *data)
{
    struct state s;
    char *run_dir = NULL;
    int r = state_find(data, &s, &run_dir);
    free(run_dir);
    if (r == -ENOENT)
        return say_none(data);
    int fd = r ? -1 : (int)syscall(SYS_pidfd_open, s.supervisor, 0);
    if (r == 0 && fd < 0)
        r = -errno;
    if (r == 0 && kill(s.supervisor, SIGTERM) != 0)
        r = -errno;
    if (r == 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int n = poll(&p, 1, DOWN_WAIT_MS);
        r = n < 0 ? -errno : n == 0 ? -ETIMEDOUT : 0;
    }
    if (fd >= 0)
        close(fd);
    if (r == 0 || r == -ESRCH)
        return 0;
    fprintf(stderr, "karst: cannot stop what runs on %s: %s\n", data, strerror(-r));
    return STATUS_FAILED;
}
