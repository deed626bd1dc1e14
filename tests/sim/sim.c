#include "tests/sim/sim.h"
#include "tests/sim/agenda.h"
#include "tests/sim/heap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct sim {
    uint64_t seed, random, now_ms, hash;
    const char *world;
    bool verbose;
    struct agenda *agenda;
};

struct sim *sim_new(uint64_t seed, bool verbose)
{
    struct sim *s = xcalloc(1, sizeof *s);
    s->seed = s->random = seed;
    s->verbose = verbose;
    s->hash = 0xcbf29ce484222325u;
    s->world = "";
    s->agenda = agenda_new();
    return s;
}

struct sim *sim_free(struct sim *s)
{
    if (s != NULL)
        agenda_free(s->agenda);
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

uint64_t sim_at(struct sim *s, uint64_t delay_ms, sim_fn *fn, void *ctx)
{
    uint32_t owner = heap_enter(0);
    uint64_t id = agenda_add(s->agenda, &(struct agenda_entry){s->now_ms + delay_ms, fn, ctx});
    (void)heap_enter(owner);
    return id;
}

void sim_cancel(struct sim *s, uint64_t id)
{
    agenda_cancel(s->agenda, id);
}

void sim_until(struct sim *s, uint64_t ms)
{
    struct agenda_entry e;
    while (agenda_take(s->agenda, ms, &e)) {
        s->now_ms = e.at_ms;
        e.fn(e.ctx);
    }
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
