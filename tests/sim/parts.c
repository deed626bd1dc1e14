/* parts.c - see parts.h. */
#include "tests/sim/parts.h"

#include "tests/sim/coverage.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PARTS_MAX = 64, WORLDS_MAX = 16 };

struct total {
    const char *name;
    uint64_t runs, virtual_ms, cpu_us;
};

static struct total own[WORLDS_MAX], *totals = own;
static int part, part_count = 1;
static uint64_t walked;

bool parts_is_mine(void)
{
    return walked++ % (uint64_t)part_count == (uint64_t)part;
}

static struct total *find(const char *name)
{
    for (size_t i = 0; i < WORLDS_MAX; i++)
        if (totals[i].name == NULL || strcmp(totals[i].name, name) == 0) {
            totals[i].name = name;
            return &totals[i];
        }
    BUG("WORLDS_MAX is too small");
}

void parts_note(const char *name, uint64_t virtual_ms, uint64_t cpu_us)
{
    struct total *t = find(name);
    t->runs++;
    t->virtual_ms += virtual_ms;
    t->cpu_us += cpu_us;
}

static void take(const struct total *from, const void *coverage)
{
    for (size_t i = 0; i < WORLDS_MAX && from[i].name != NULL; i++) {
        struct total *t = find(from[i].name);
        t->runs += from[i].runs;
        t->virtual_ms += from[i].virtual_ms;
        t->cpu_us += from[i].cpu_us;
    }
    sim_coverage_add(coverage);
}

static pid_t begin(uint8_t *shared, int index, int count, parts_fn *fn, void *ctx)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        BUG("no process to run seeds in");
    if (pid > 0)
        return pid;
    part = index;
    part_count = count;
    totals = (struct total *)shared;
    sim_coverage_use(shared + sizeof own);
    exit(fn(ctx));
}

int parts_run(int count, parts_fn *fn, void *ctx)
{
    pid_t pids[PARTS_MAX];
    uint8_t *shared[PARTS_MAX];
    size_t size = sizeof own + sim_coverage_size();
    int worst = 0;
    count = MIN(count, (int)PARTS_MAX);
    if (count <= 1)
        return fn(ctx);
    for (int i = 0; i < count; i++) {
        shared[i] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (shared[i] == MAP_FAILED)
            BUG("no memory for what a process sees");
        pids[i] = begin(shared[i], i, count, fn, ctx);
    }
    for (int i = 0; i < count; i++) {
        int status = 1;
        if (waitpid(pids[i], &status, 0) != pids[i] || !WIFEXITED(status))
            worst = MAX(worst, 1);
        else
            worst = MAX(worst, WEXITSTATUS(status));
        take((const struct total *)shared[i], shared[i] + sizeof own);
        munmap(shared[i], size);
    }
    return worst;
}

void parts_print(void)
{
    printf("\n%10s %8s %16s %24s\n", "world", "runs", "simulated hours", "in an hour of a processor");
    for (size_t i = 0; i < WORLDS_MAX && totals[i].name != NULL; i++) {
        const struct total *t = &totals[i];
        printf("%10s %8llu %16.2f %24.0f\n", t->name, (unsigned long long)t->runs, (double)t->virtual_ms / 3600e3,
               t->cpu_us ? (double)t->virtual_ms * 1000 / (double)t->cpu_us : 0);
    }
}
