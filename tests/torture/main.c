/* torture - tears libs/log on the simulated disk.
 *
 *   torture --short                     some of the calls, and some random lives, of fixed seeds: some seconds
 *   torture --full                      every call of every theme and fault, and random lives of a new seed
 *   torture --minutes M                 new seeds of everything until the time is over
 *   torture --theme T --fault F --seed S --call N [--again M]      one run, as a failure prints it
 *   torture --random --theme T --seed S --steps N                  one life
 *   --verbose: what happens
 *
 * Exit status: 0, 1 a broken promise (with the command that replays it), 64 wrong usage. */
#include "tests/sim/sim.h"
#include "tests/torture/torture.h"
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SHORT_SHARE = 6, SHORT_LIVES = 200, FULL_LIVES = 1500, LIFE_STEPS = 700, COVERED_MAX = 64 };

char torture_replay[256];
bool torture_verbose;

static struct {
    const char *what;
    uint64_t count;
} covered[COVERED_MAX];

uint64_t dice_below(struct dice *d, uint64_t n)
{
    uint64_t z = (d->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return n ? (z ^ (z >> 31)) % n : 0;
}

void torture_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "FAILED ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nagain: torture %s --verbose\n", torture_replay);
    va_end(args);
    exit(1);
}

void torture_note(const char *format, ...)
{
    va_list args;
    if (!torture_verbose)
        return;
    va_start(args, format);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

void torture_cover(const char *what)
{
    size_t i = 0;
    while (i < COVERED_MAX && covered[i].what != NULL && strcmp(covered[i].what, what) != 0)
        i++;
    if (i < COVERED_MAX) {
        covered[i].what = what;
        covered[i].count++;
    }
}

/* What the simulated disk counts. */
void sim_cover(const char *what)
{
    torture_cover(what);
}

void torture_print_coverage(void)
{
    for (size_t i = 0; i < COVERED_MAX && covered[i].what != NULL; i++)
        printf("%10" PRIu64 " %s\n", covered[i].count, covered[i].what);
}

static void lives(uint64_t seed, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        random_run(&themes[i % theme_count], seed + i, LIFE_STEPS);
}

/* Lives in which a promise was broken once. */
static void lives_again(void)
{
    static const struct {
        const char *theme;
        uint64_t seed;
    } once[] = {
        {"plain", 1795646879},     /* what retention took before it was flushed came back, torn */
        {"producers", 1795647001}, /* a snapshot with all batches was left by a clean stop */
        {"cut", 1795648228},       /* partition.metadata was not durable when retention moved the recovery point */
        {"plain",
         1795650144}, /* a time index whose last entry was in memory only went on with a later batch of that time */
        {"plain", 1795646011},   /* a failed flush, and a start that believed the page cache */
        {"flushed", 1795647073}, /* a failed flush of a file that was cut only */
    };
    for (size_t i = 0; i < COUNTOF(once); i++)
        random_run(theme_find(once[i].theme), once[i].seed, LIFE_STEPS);
}

static int run_minutes(double minutes, uint64_t seed)
{
    time_t end = time(NULL) + (time_t)(minutes * 60);
    uint64_t runs = 0;
    printf("first seed %" PRIu64 "\n", seed);
    for (; time(NULL) < end; seed += theme_count, runs++) {
        lives(seed, theme_count);
        if (runs % 64 == 0)
            fault_all(NULL, FAULT_COUNT, seed, SHORT_SHARE);
    }
    printf("%" PRIu64 " lives of %d steps without a broken promise; in them:\n", runs * theme_count, LIFE_STEPS);
    torture_print_coverage();
    return 0;
}

struct arguments {
    const struct theme *theme;
    enum fault fault;
    uint64_t seed, call, steps;
    int64_t again;
    double minutes;
    bool random, one, short_run, full_run, wrong;
};

static void take(struct arguments *a, int c)
{
    switch (c) {
    case 't': a->theme = theme_find(optarg); break;
    case 'f':
        a->fault = 0;
        while (a->fault < FAULT_COUNT && strcmp(fault_names[a->fault], optarg) != 0)
            a->fault++;
        break;
    case 's': a->seed = strtoull(optarg, NULL, 0); break;
    case 'c':
        a->call = strtoull(optarg, NULL, 0);
        a->one = true;
        break;
    case 'a': a->again = strtoll(optarg, NULL, 0); break;
    case 'n': a->steps = strtoull(optarg, NULL, 0); break;
    case 'm': a->minutes = strtod(optarg, NULL); break;
    case 'r': a->random = true; break;
    case 'S': a->short_run = true; break;
    case 'F': a->full_run = true; break;
    case 'v': torture_verbose = true; break;
    default: a->wrong = true; break;
    }
}

static int run(const struct arguments *a)
{
    if (a->minutes > 0)
        return run_minutes(a->minutes, a->seed);
    if (a->random && a->theme != NULL) {
        random_run(a->theme, a->seed, a->steps);
    } else if (a->one && a->theme != NULL && a->fault < FAULT_COUNT) {
        (void)fault_run(a->theme, a->fault, a->seed, a->call, a->again);
    } else if (a->short_run) {
        fault_all(a->theme, a->fault, 1, SHORT_SHARE);
        lives(1, SHORT_LIVES);
        lives_again();
        torture_print_coverage();
    } else if (a->full_run) {
        printf("seed of the lives: %" PRIu64 "\n", a->seed);
        fault_all(a->theme, a->fault, 1, 1);
        if (a->theme == NULL && a->fault == FAULT_COUNT)
            lives(a->seed, FULL_LIVES);
        torture_print_coverage();
    } else {
        return 64;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"theme", 1, NULL, 't'}, {"fault", 1, NULL, 'f'}, {"seed", 1, NULL, 's'},    {"call", 1, NULL, 'c'},
        {"again", 1, NULL, 'a'}, {"steps", 1, NULL, 'n'}, {"minutes", 1, NULL, 'm'}, {"random", 0, NULL, 'r'},
        {"short", 0, NULL, 'S'}, {"full", 0, NULL, 'F'},  {"verbose", 0, NULL, 'v'}, {NULL, 0, NULL, 0}};
    struct arguments a = {.fault = FAULT_COUNT, .seed = (uint64_t)time(NULL), .again = -1, .steps = LIFE_STEPS};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        take(&a, c);
    return a.wrong ? 64 : run(&a);
}
