/* sim - runs Karst's cores in virtual time.
 *
 *   sim [--world NAME] [--seed N] [--steps N] [--verbose]   one run of each world (or of NAME)
 *   sim --minutes M [--world NAME]                          new seeds until the time is over; the first one is printed
 *   sim --check [--seeds FILE]                              the seeds of FILE and 20 fixed ones, each twice: the traces
 * must be equal
 *
 * Exit status: 0, 1 a broken promise (the seed is printed), 64 wrong usage. */
#include "tests/sim/sim.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

static uint64_t run_one(const struct sim_world *w, uint64_t seed, uint64_t steps, bool verbose)
{
    struct sim *s = sim_new(seed, verbose);

    sim_set_world(s, w->name);
    w->run(s, steps);
    uint64_t hash = sim_trace_hash(s);
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

static int run_minutes(const char *world, double minutes, uint64_t seed, uint64_t steps)
{
    time_t end = time(NULL) + (time_t)(minutes * 60);
    uint64_t runs = 0;

    printf("first seed %llu\n", (unsigned long long)seed);
    for (; time(NULL) < end; seed++, runs++) {
        for (size_t i = 0; i < COUNTOF(worlds); i++) {
            if (wanted(worlds[i], world))
                run_one(worlds[i], seed, steps, false);
        }
    }
    printf("%llu seeds without a broken promise; what happened in them:\n", (unsigned long long)runs);
    sim_print_coverage();
    return 0;
}

static int check_seed(const struct sim_world *w, uint64_t seed)
{
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

static int run_check(const char *world, const char *seeds)
{
    int failed = seeds ? check_file(seeds, world) : 0;

    for (size_t i = 0; i < COUNTOF(worlds); i++) {
        for (uint64_t seed = 1; wanted(worlds[i], world) && seed <= CHECK_SEEDS; seed++)
            failed |= check_seed(worlds[i], seed);
        for (uint64_t more = 0; wanted(worlds[i], world) && more < worlds[i]->check_more; more++)
            run_one(worlds[i], CHECK_SEEDS + 1 + more, CHECK_STEPS, false);
    }
    sim_print_coverage();
    return failed;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"world", 1, NULL, 'w'},   {"seed", 1, NULL, 's'},    {"steps", 1, NULL, 'n'}, {"check", 0, NULL, 'c'},
        {"minutes", 1, NULL, 'm'}, {"verbose", 0, NULL, 'v'}, {"seeds", 1, NULL, 'f'}, {NULL, 0, NULL, 0}};
    const char *world = NULL, *seeds = NULL;
    uint64_t seed = (uint64_t)time(NULL), steps = STEPS;
    double minutes = 0;
    bool check = false, verbose = false;

    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'w': world = optarg; break;
        case 's': seed = strtoull(optarg, NULL, 0); break;
        case 'n': steps = strtoull(optarg, NULL, 0); break;
        case 'm': minutes = strtod(optarg, NULL); break;
        case 'f': seeds = optarg; break;
        case 'c': check = true; break;
        case 'v': verbose = true; break;
        default: return 64;
        }
    }
    if (check)
        return run_check(world, seeds);
    return minutes > 0 ? run_minutes(world, minutes, seed, steps) : run_seed(world, seed, steps, verbose);
}
