#include "tests/sim/sim.h"
#include "tests/sim/heap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct event {
    uint64_t at_ms, id;
    sim_fn *fn; /* NULL: cancelled */
    void *ctx;
};

struct sim {
    uint64_t seed, random, now_ms, hash, next_id;
    const char *world;
    bool verbose;
    struct event *events; /* a heap by time, then id */
    size_t count, room;
};

enum { COVER_MAX = 128, STATES_MAX = 8 };
static struct {
    const char *what;
    uint64_t count, in_state[STATES_MAX];
} cover[COVER_MAX];
static const char *states[STATES_MAX];
static int state = -1; /* of states; -1: none */

struct sim *sim_new(uint64_t seed, bool verbose)
{
    struct sim *s = xcalloc(1, sizeof *s);
    s->seed = s->random = seed;
    s->verbose = verbose;
    s->hash = 0xcbf29ce484222325u;
    s->world = "";
    return s;
}

struct sim *sim_free(struct sim *s)
{
    if (s != NULL)
        free(s->events);
    free(s);
    return NULL;
}

uint64_t sim_seed(const struct sim *s)
{
    return s->seed;
}

void sim_set_world(struct sim *s, const char *name)
{
    s->world = name;
}

uint64_t sim_random(struct sim *s)
{
    uint64_t z = (s->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t sim_below(struct sim *s, uint64_t n)
{
    return n ? sim_random(s) % n : 0;
}

bool sim_chance(struct sim *s, uint64_t per_thousand)
{
    return sim_below(s, 1000) < per_thousand;
}

uint64_t sim_now_ms(const struct sim *s)
{
    return s->now_ms;
}

int64_t sim_wall_ms(const struct sim *s)
{
    return 1700000000000 + (int64_t)s->now_ms;
}

void sim_pass(struct sim *s, uint64_t ms)
{
    s->now_ms += ms;
}

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->id < b->id;
}

static void swap(struct event *a, struct event *b)
{
    struct event t = *a;
    *a = *b;
    *b = t;
}

uint64_t sim_at(struct sim *s, uint64_t delay_ms, sim_fn *fn, void *ctx)
{
    uint32_t owner = heap_enter(0);
    if (s->count == s->room)
        s->events = xrealloc(s->events, (s->room = s->room * 2 + 64) * sizeof *s->events);
    (void)heap_enter(owner);
    size_t i = s->count++;
    s->events[i] = (struct event){.at_ms = s->now_ms + delay_ms, .id = ++s->next_id, .fn = fn, .ctx = ctx};
    while (i > 0 && earlier(&s->events[i], &s->events[(i - 1) / 2])) {
        swap(&s->events[i], &s->events[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    return s->next_id;
}

void sim_cancel(struct sim *s, uint64_t id)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->events[i].id == id)
            s->events[i].fn = NULL;
    }
}

static struct event pop(struct sim *s)
{
    struct event first = s->events[0];
    size_t i = 0;

    s->events[0] = s->events[--s->count];
    for (;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < s->count; child++) {
            if (earlier(&s->events[child], &s->events[least]))
                least = child;
        }
        if (least == i)
            return first;
        swap(&s->events[i], &s->events[least]);
        i = least;
    }
}

/* The heap's first event is one that runs; false: there is none. */
static bool drop_cancelled(struct sim *s)
{
    while (s->count > 0 && s->events[0].fn == NULL)
        (void)pop(s);
    return s->count > 0;
}

bool sim_turn(struct sim *s)
{
    if (!drop_cancelled(s))
        return false;
    struct event e = pop(s);
    s->now_ms = e.at_ms;
    e.fn(e.ctx);
    return true;
}

void sim_until(struct sim *s, uint64_t ms)
{
    while (drop_cancelled(s) && s->events[0].at_ms <= ms)
        (void)sim_turn(s);
    s->now_ms = MAX(s->now_ms, ms);
}

void sim_note(struct sim *s, const char *format, ...)
{
    char line[1024];
    va_list arguments;

    va_start(arguments, format);
    int n = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (int i = 0; i < n && i < (int)sizeof line - 1; i++)
        s->hash = (s->hash ^ (uint8_t)line[i]) * 0x100000001b3u;
    s->hash = (s->hash ^ s->now_ms) * 0x100000001b3u;
    if (s->verbose)
        printf("%8llu %s\n", (unsigned long long)s->now_ms, line);
}

uint64_t sim_trace_hash(const struct sim *s)
{
    return s->hash;
}

void sim_fail(struct sim *s, const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "FAILED world %s seed %llu at %llu ms: ", s->world, (unsigned long long)s->seed,
            (unsigned long long)s->now_ms);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nreplay: scripts/sim --world %s --seed %llu --verbose\n", s->world, (unsigned long long)s->seed);
    exit(1);
}

void sim_set_state(const char *now)
{
    state = -1;
    for (int i = 0; i < STATES_MAX && now != NULL && state < 0; i++)
        if (states[i] == NULL || strcmp(states[i], now) == 0) {
            states[i] = now;
            state = i;
        }
}

void sim_cover(const char *what)
{
    for (size_t i = 0; i < COVER_MAX; i++) {
        if (cover[i].what != NULL && cover[i].what != what && strcmp(cover[i].what, what) != 0)
            continue;
        cover[i].what = what;
        cover[i].count++;
        if (state >= 0)
            cover[i].in_state[state]++;
        return;
    }
}

void sim_print_coverage(void)
{
    for (size_t i = 0; i < COVER_MAX && cover[i].what != NULL; i++)
        printf("%12llu  %s\n", (unsigned long long)cover[i].count, cover[i].what);
    if (states[0] == NULL)
        return;
    printf("\nin the state:");
    for (int n = 0; n < STATES_MAX && states[n] != NULL; n++)
        printf("%s %s", n ? "," : "", states[n]);
    printf("\n");
    for (size_t i = 0; i < COVER_MAX && cover[i].what != NULL; i++) {
        uint64_t sum = 0;
        for (int n = 0; n < STATES_MAX; n++)
            sum += cover[i].in_state[n];
        for (int n = 0; n < STATES_MAX && states[n] != NULL && sum > 0; n++)
            printf("%10llu", (unsigned long long)cover[i].in_state[n]);
        if (sum > 0)
            printf("  %s\n", cover[i].what);
    }
}
