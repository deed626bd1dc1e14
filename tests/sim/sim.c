#include "tests/sim/sim.h"
#include "tests/sim/heap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct event {
    uint64_t at_ms, number; /* in the order they were made */
    uint32_t slot;
};

/* What an event does, where its id finds it: the slot, and above it how often that was used. */
struct slot {
    sim_fn *fn; /* NULL: cancelled */
    void *ctx;
    uint32_t use, next_free;
};

enum { NO_SLOT = UINT32_MAX };

struct sim {
    uint64_t seed, random, now_ms, hash, next_number;
    const char *world;
    bool verbose;
    struct event *events; /* a heap by time, then number */
    size_t count, room;
    struct slot *slots;
    size_t slot_room;
    uint32_t free_slot;
};

struct sim *sim_new(uint64_t seed, bool verbose)
{
    struct sim *s = xcalloc(1, sizeof *s);
    s->seed = s->random = seed;
    s->verbose = verbose;
    s->hash = 0xcbf29ce484222325u;
    s->world = "";
    s->free_slot = NO_SLOT;
    return s;
}

struct sim *sim_free(struct sim *s)
{
    if (s != NULL) {
        free(s->events);
        free(s->slots);
    }
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
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->number < b->number;
}

static void swap(struct event *a, struct event *b)
{
    struct event t = *a;
    *a = *b;
    *b = t;
}

static void more_slots(struct sim *s)
{
    size_t room = s->slot_room * 2 + 64;
    s->slots = xrealloc(s->slots, room * sizeof *s->slots);
    for (size_t i = room; i > s->slot_room; i--) {
        s->slots[i - 1] = (struct slot){.use = 1, .next_free = s->free_slot};
        s->free_slot = (uint32_t)(i - 1);
    }
    s->slot_room = room;
}

uint64_t sim_at(struct sim *s, uint64_t delay_ms, sim_fn *fn, void *ctx)
{
    uint32_t owner = heap_enter(0);
    if (s->count == s->room)
        s->events = xrealloc(s->events, (s->room = s->room * 2 + 64) * sizeof *s->events);
    if (s->free_slot == NO_SLOT)
        more_slots(s);
    (void)heap_enter(owner);
    uint32_t at = s->free_slot;
    struct slot *slot = &s->slots[at];
    s->free_slot = slot->next_free;
    slot->fn = fn;
    slot->ctx = ctx;
    size_t i = s->count++;
    s->events[i] = (struct event){.at_ms = s->now_ms + delay_ms, .number = ++s->next_number, .slot = at};
    while (i > 0 && earlier(&s->events[i], &s->events[(i - 1) / 2])) {
        swap(&s->events[i], &s->events[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    return (uint64_t)slot->use << 32 | at;
}

void sim_cancel(struct sim *s, uint64_t id)
{
    uint32_t at = (uint32_t)id;
    if (id != 0 && at < s->slot_room && s->slots[at].use == id >> 32)
        s->slots[at].fn = NULL;
}

static struct event pop(struct sim *s)
{
    struct event first = s->events[0];
    struct slot *slot = &s->slots[first.slot];
    size_t i = 0;

    slot->use++;
    slot->next_free = s->free_slot;
    s->free_slot = first.slot;

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
    while (s->count > 0 && s->slots[s->events[0].slot].fn == NULL)
        (void)pop(s);
    return s->count > 0;
}

void sim_until(struct sim *s, uint64_t ms)
{
    while (drop_cancelled(s) && s->events[0].at_ms <= ms) {
        struct slot does = s->slots[s->events[0].slot];
        s->now_ms = pop(s).at_ms;
        does.fn(does.ctx);
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
