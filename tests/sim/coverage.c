/* coverage.c - see coverage.h. */
#include "tests/sim/coverage.h"

#include <stdio.h>

enum { COVER_MAX = 160, STATES_MAX = 24 };

struct counted {
    const char *what;
    bool is_fault;
    uint64_t count, in_state[STATES_MAX];
};

struct coverage {
    struct counted cover[COVER_MAX];
    const char *states[STATES_MAX];
};

static struct coverage own, *seen = &own;
static uint32_t now; /* states that hold, a bit each */

/* What a check has to see, of all that could be seen: a fault and the state that it comes in; state NULL: that a
 * promise was looked at, or what endangers it was tried, at all. */
static const struct wanted {
    const char *what, *state;
} wanted[] = {
    {"two replicas had the same bytes", NULL},
    {"two programs had the same image", NULL},
    {"the metadata log was replayed to the same image", NULL},
    {"a leader committed records", NULL},
    {"a follower cut its log", NULL},
    {"a replica lost what it had not flushed", NULL},
    {"a reassignment was taken", NULL},
    {"a preferred leader was elected", NULL},
    {"records were deleted under their readers", NULL},
    {"a committed offset was read again", NULL},
    {"a fetch session told of records", NULL},
    {"a process of the release before", NULL},
    {"a follower had what its leader has", NULL},
    {"a leader asked for another ISR", NULL},
    {"a replica left the ISR, and may lead", NULL},
    {"a consumer named a former leader epoch", NULL},
    {"a coordinator knew all that is committed", NULL},
    {"all storage nodes but one were killed", NULL},
    {"kraft: a node returned and disturbed nobody", NULL},
    {"a process died between two actions", "to a leader"},
    {"a process died between two actions", "to a follower"},
    {"a process died between two actions", "to a follower behind"},
    {"a process died between two actions", "to the controller"},
    {"a process died between two actions", "to a controller"},
    {"a process died between two actions", "to a front end"},
    {"a process died between two actions", "to a coordinator"},
    {"a process died between two actions", "nobody decides"},
    {"a process died between two actions", "no leader"},
    {"a process died between two actions", "a broker fenced"},
    {"a process died between two actions", "a replica out of sync"},
    {"a process died between two actions", "a partition moves"},
    {"a process died between two actions", "a group rebalances"},
    {"a process stood still in the middle of a turn", "to a leader"},
    {"a process stood still in the middle of a turn", "to the controller"},
    {"a process stood still in the middle of a turn", "to a front end"},
    {"a process stood still in the middle of a turn", "to a coordinator"},
    {"a process stood still in the middle of a turn", "no leader"},
    {"a process stood still in the middle of a turn", "a partition moves"},
    {"a process stood still in the middle of a turn", "a group rebalances"},
    {"a process was killed between two turns", "to a leader"},
    {"a connection broke", "to a leader"},
    {"a connection broke", "to a follower"},
    {"a connection broke", "to a follower behind"},
    {"a connection broke", "no leader"},
    {"a connection broke", "a partition moves"},
    {"a connection broke", "a replica out of sync"},
    {"a message was lost with its connection", "to a leader"},
    {"a message was lost with its connection", "a partition moves"},
    {"a message was lost with its connection", "no leader"},
    {"a message was late", "to a leader"},
    {"a message was late", "to a follower behind"},
    {"a message was late", "a partition moves"},
    {"one direction of a connection stood still", "to a leader"},
    {"one direction of a connection stood still", "to a follower"},
    {"a message arrived twice", "to a leader"},
    {"a message waited at a cut", "to a leader"},
    {"a message waited at a cut", "no leader"},
    {"a wall clock jumped", "to a leader"},
    {"a client's connection broke", "no leader"},
    {"a client's connection broke", "a group rebalances"},
    {"a message was late", "logs are cut"},
    {"a full disk", "a broker fenced"},
    {"a disk error", "a broker fenced"},
    {"a machine cut off", "a broker fenced"},
    {"a machine cut off from the controllers", "a broker fenced"},
    {"a link cut one way", "no leader"},
    {"two halves", "no leader"},
    {"power cut of one machine", "to a leader"},
    {"power cut of one machine", "a broker fenced"},
    {"kraft: power cut", "a snapshot is taken"},
    {"kraft: kill -9", "a snapshot is taken"},
};

/* Texts are constants, and few: where the last search for a pointer ended is remembered. */
static struct counted *find(const char *what)
{
    enum { REMEMBERED = 1021 };
    static size_t last[REMEMBERED];
    size_t *at = &last[(uintptr_t)what % REMEMBERED];
    if (seen->cover[*at].what == what)
        return &seen->cover[*at];
    for (size_t i = 0; i < COVER_MAX; i++) {
        if (seen->cover[i].what != NULL && seen->cover[i].what != what && strcmp(seen->cover[i].what, what) != 0)
            continue;
        seen->cover[i].what = what;
        *at = i;
        return &seen->cover[i];
    }
    BUG("COVER_MAX is too small");
}

void sim_cover(const char *what)
{
    find(what)->count++;
}

void sim_fault(const char *what)
{
    struct counted *c = find(what);
    c->is_fault = true;
    c->count++;
    for (int i = 0; i < STATES_MAX; i++)
        c->in_state[i] += (now >> i) & 1;
}

static int state_of(const char *name)
{
    for (int i = 0; i < STATES_MAX; i++) {
        if (seen->states[i] != NULL && seen->states[i] != name && strcmp(seen->states[i], name) != 0)
            continue;
        seen->states[i] = name;
        return i;
    }
    BUG("STATES_MAX is too small");
}

void sim_state(const char *name, bool is)
{
    uint32_t bit = (uint32_t)1 << state_of(name);
    now = is ? now | bit : now & ~bit;
}

void sim_states_end(void)
{
    now = 0;
}

/* ---- of several processes ---- */

size_t sim_coverage_size(void)
{
    return sizeof own;
}

void sim_coverage_use(void *zeroed)
{
    seen = zeroed;
}

void sim_coverage_add(const void *other)
{
    const struct coverage *o = other;
    for (size_t i = 0; i < COVER_MAX && o->cover[i].what != NULL; i++) {
        struct counted *to = find(o->cover[i].what);
        to->is_fault |= o->cover[i].is_fault;
        to->count += o->cover[i].count;
        for (int n = 0; n < STATES_MAX && o->states[n] != NULL; n++)
            to->in_state[state_of(o->states[n])] += o->cover[i].in_state[n];
    }
}

/* ---- the report ---- */

void sim_print_coverage(void)
{
    for (size_t i = 0; i < COVER_MAX && seen->cover[i].what != NULL; i++)
        if (!seen->cover[i].is_fault)
            printf("%12llu  %s\n", (unsigned long long)seen->cover[i].count, seen->cover[i].what);
    printf("\nfaults, all of them and by the state that they came in or whom they hit:\n");
    for (int n = 0; n < STATES_MAX && seen->states[n] != NULL; n++)
        printf("  %2d %s\n", n + 1, seen->states[n]);
    printf("%8s", "all");
    for (int n = 0; n < STATES_MAX && seen->states[n] != NULL; n++)
        printf("%7d", n + 1);
    printf("\n");
    for (size_t i = 0; i < COVER_MAX && seen->cover[i].what != NULL; i++) {
        if (!seen->cover[i].is_fault)
            continue;
        printf("%8llu", (unsigned long long)seen->cover[i].count);
        for (int n = 0; n < STATES_MAX && seen->states[n] != NULL; n++)
            printf("%7llu", (unsigned long long)seen->cover[i].in_state[n]);
        printf("  %s\n", seen->cover[i].what);
    }
}

int sim_check_coverage(void)
{
    int failed = 0;
    for (size_t i = 0; i < COUNTOF(wanted); i++) {
        const struct wanted *w = &wanted[i];
        const struct counted *c = find(w->what);
        if ((w->state ? c->in_state[state_of(w->state)] : c->count) > 0)
            continue;
        fprintf(stderr, "FAILED: it never happened: %s%s%s\n", w->what, w->state ? ", " : "", w->state ? w->state : "");
        failed = 1;
    }
    return failed;
}
