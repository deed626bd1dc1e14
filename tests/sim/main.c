/* sim - runs Karst's cores in virtual time.
 *
 *   sim [--world NAME] [--seed N] [--steps N] [--verbose]   one run of each world (or of NAME)
 *   sim --minutes M [--world NAME]                          new seeds until the time is over; the first one is printed
 *   sim --runs N [--world NAME] [--seed N] [--steps N]      so many seeds from the one given on
 *   sim --check [--seeds FILE]                              the seeds of FILE and 20 fixed ones, each twice: equal
 * traces
 *   --jobs N    in so many processes, as many as there are processors by default; for the last three
 *
 * Exit status: 0, 1 a broken promise (the seed is printed), 64 wrong usage. */
#include "tests/sim/parts.h"
#include "tests/sim/sim.h"

#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const struct sim_world *const worlds[] = {&world_log,    &world_clean,   &world_bus,      &world_kraft,
                                                 &world_quorum, &world_cluster, &world_replicas, &world_whole};

enum { STEPS = 3000, CHECK_STEPS = 600, CHECK_SEEDS = 20 };

/* platform.c has objects of the libraries' names on purpose, and what a killed process had from a shared library is
 * lost. Read by the address sanitizer before main. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_odr_violation=0:detect_leaks=0";
}

static bool wanted(const struct sim_world *w, const char *name)
{
    return name == NULL || strcmp(w->name, name) == 0;
}

static uint64_t cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t run_one(const struct sim_world *w, uint64_t seed, uint64_t steps, bool verbose)
{
    struct sim *s = sim_new(seed, verbose);
    uint64_t began_us = cpu_us();

    sim_set_world(s, w->name);
    w->run(s, steps);
    uint64_t hash = sim_trace_hash(s);
    parts_note(w->name, sim_now_ms(s), cpu_us() - began_us);
    sim_free(s);
    return hash;
}

static int run_seed(const char *world, uint64_t seed, uint64_t steps, bool verbose)
{
    for (size_t i = 0; i < COUNTOF(worlds); i++) {
        if (wanted(worlds[i], world))
            printf("world %s seed %llu trace %016llx\n", worlds[i]->name, (unsigned long long)seed,
                   (unsigned long long)run_one(worlds[i], seed, steps, verbose));
    }
    return 0;
}

struct request {
    const char *world, *seeds;
    double minutes;
    uint64_t seed, runs, steps;
};

static int run_until(void *ctx)
{
    const struct request *r = ctx;
    time_t end = time(NULL) + (time_t)(r->minutes * 60);

    for (uint64_t seed = r->seed; r->runs ? seed < r->seed + r->runs : time(NULL) < end; seed++) {
        for (size_t i = 0; i < COUNTOF(worlds); i++) {
            if (wanted(worlds[i], r->world) && parts_is_mine())
                run_one(worlds[i], seed, r->steps, false);
        }
    }
    return 0;
}

static int run_many(struct request *r, int jobs)
{
    printf("first seed %llu\n", (unsigned long long)r->seed);
    int failed = parts_run(jobs, run_until, r);
    printf("%s; what happened:\n", failed ? "a promise was broken" : "no promise was broken");
    sim_print_coverage();
    parts_print();
    return failed;
}

static int check_seed(const struct sim_world *w, uint64_t seed)
{
    if (!parts_is_mine())
        return 0;
    uint64_t first = run_one(w, seed, CHECK_STEPS, false), again = run_one(w, seed, CHECK_STEPS, false);

    if (first == again)
        return 0;
    fprintf(stderr, "FAILED world %s seed %llu: two runs differ, %016llx and %016llx\n", w->name,
            (unsigned long long)seed, (unsigned long long)first, (unsigned long long)again);
    return 1;
}

/* The regression list: lines "WORLD SEED why". */
static int check_file(const char *path, const char *world)
{
    FILE *f = fopen(path, "r");
    char line[512], name[64];
    unsigned long long seed;
    int failed = 0;

    if (f == NULL) {
        fprintf(stderr, "cannot open %s\n", path);
        return 1;
    }
    while (fgets(line, sizeof line, f) != NULL) {
        if (line[0] == '#' || sscanf(line, "%63s %llu", name, &seed) != 2)
            continue;
        for (size_t i = 0; i < COUNTOF(worlds); i++) {
            if (strcmp(worlds[i]->name, name) == 0 && wanted(worlds[i], world))
                failed |= check_seed(worlds[i], seed);
        }
    }
    fclose(f);
    return failed;
}

static int check_part(void *ctx)
{
    const struct request *r = ctx;
    int failed = r->seeds ? check_file(r->seeds, r->world) : 0;

    for (size_t i = 0; i < COUNTOF(worlds); i++) {
        for (uint64_t seed = 1; wanted(worlds[i], r->world) && seed <= CHECK_SEEDS; seed++)
            failed |= check_seed(worlds[i], seed);
        for (uint64_t more = 0; wanted(worlds[i], r->world) && more < worlds[i]->check_more; more++)
            if (parts_is_mine())
                run_one(worlds[i], CHECK_SEEDS + 1 + more, CHECK_STEPS, false);
    }
    return failed;
}

static int run_check(struct request *r, int jobs)
{
    int failed = parts_run(jobs, check_part, r);
    sim_print_coverage();
    parts_print();
    fflush(stdout);
    return r->world == NULL ? failed | sim_check_coverage() : failed;
}

/* Blocks of simulated disks come and go all the time: the heap keeps what it has. */
static void keep_heap(void)
{
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 64 << 20);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"world", 1, NULL, 'w'},   {"seed", 1, NULL, 's'}, {"steps", 1, NULL, 'n'},   {"check", 0, NULL, 'c'},
        {"minutes", 1, NULL, 'm'}, {"jobs", 1, NULL, 'j'}, {"verbose", 0, NULL, 'v'}, {"seeds", 1, NULL, 'f'},
        {"runs", 1, NULL, 'r'},    {NULL, 0, NULL, 0}};
    struct request r = {.seed = (uint64_t)time(NULL), .steps = STEPS};
    int jobs = (int)sysconf(_SC_NPROCESSORS_ONLN);
    bool check = false, verbose = false;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'w': r.world = optarg; break;
        case 's': r.seed = strtoull(optarg, NULL, 0); break;
        case 'n': r.steps = strtoull(optarg, NULL, 0); break;
        case 'm': r.minutes = strtod(optarg, NULL); break;
        case 'f': r.seeds = optarg; break;
        case 'r': r.runs = strtoull(optarg, NULL, 0); break;
        case 'j': jobs = atoi(optarg); break;
        case 'c': check = true; break;
        case 'v': verbose = true; break;
        default: return 64;
        }
    }
    keep_heap();
    if (check)
        return run_check(&r, jobs);
    return r.minutes > 0 || r.runs > 0 ? run_many(&r, jobs) : run_seed(r.world, r.seed, r.steps, verbose);
}
