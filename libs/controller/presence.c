/* presence.c - asks, answers, and what follows of neither. */
#include "libs/controller/presence.h"

#include <stdlib.h>
#include <utlist.h>

enum { UNREACHABLE_TIMES = 2 };

struct peer {
    struct presence_life life;
    bool named, asked;
    bool hurried;    /* while it was asked */
    bool known;      /* it has answered an ask, and was not found gone since (I1) */
    bool gone, told; /* it was found gone, and gave no sign of life since; the owner knows */
    enum presence_why why;
    uint64_t silent_ms;   /* of our running time, since its last sign of life */
    uint64_t rest_ms;     /* until it is asked next */
    uint32_t unreachable; /* times in a row */
    struct peer *prev, *next;
};

struct presence {
    uint32_t silence_ms;
    uint64_t now_ms;
    struct peer *peers;
    size_t count;
};

struct presence *presence_new(uint32_t silence_ms, uint64_t now_ms)
{
    struct presence *w = xcalloc(1, sizeof *w);
    w->silence_ms = silence_ms;
    w->now_ms = now_ms;
    return w;
}

struct presence *presence_free(struct presence *w)
{
    if (w == NULL)
        return NULL;
    presence_begin(w);
    presence_done(w);
    free(w);
    return NULL;
}

static struct peer *find(struct presence *w, struct presence_life life)
{
    struct peer *p;
    DL_FOREACH (w->peers, p)
        if (p->life.role == life.role && p->life.id == life.id && p->life.incarnation == life.incarnation)
            return p;
    return NULL;
}

void presence_begin(struct presence *w)
{
    struct peer *p;
    DL_FOREACH (w->peers, p)
        p->named = false;
}

void presence_name(struct presence *w, struct presence_life life)
{
    struct peer *p = find(w, life);
    if (p == NULL) {
        p = xcalloc(1, sizeof *p);
        p->life = life;
        DL_APPEND(w->peers, p);
        w->count++;
    }
    p->named = true;
}

void presence_done(struct presence *w)
{
    struct peer *p, *next;
    DL_FOREACH_SAFE(w->peers, p, next)
    {
        if (p->named)
            continue;
        DL_DELETE(w->peers, p);
        w->count--;
        free(p);
    }
}

size_t presence_count(const struct presence *w)
{
    return w->count;
}

/* I2: a tick that comes late counts for so much at most; on a busy machine many come a little late. */
void presence_tick(struct presence *w, uint64_t now_ms)
{
    uint64_t passed = now_ms > w->now_ms ? now_ms - w->now_ms : 0;
    uint64_t counted = MIN(passed, (uint64_t)PRESENCE_COUNTED_MS);
    struct peer *p;
    w->now_ms = MAX(w->now_ms, now_ms);
    DL_FOREACH (w->peers, p) {
        p->silent_ms += counted;
        p->rest_ms -= MIN(p->rest_ms, counted);
    }
}

void presence_hurry(struct presence *w)
{
    struct peer *p;
    DL_FOREACH (w->peers, p) {
        p->rest_ms = 0;
        p->hurried = p->asked;
    }
}

void presence_tell_again(struct presence *w)
{
    struct peer *p;
    DL_FOREACH (w->peers, p)
        p->told = false;
}

bool presence_next_ask(struct presence *w, struct presence_life *ret_life)
{
    struct peer *p;
    DL_FOREACH (w->peers, p) {
        if (p->asked || p->rest_ms > 0)
            continue;
        p->asked = true;
        *ret_life = p->life;
        return true;
    }
    return false;
}

void presence_ended(struct presence *w, struct presence_life life, enum presence_end end)
{
    struct peer *p = find(w, life);
    if (p == NULL)
        return;
    bool hurried = p->hurried;
    p->asked = p->hurried = false;
    p->unreachable = end == PRESENCE_UNREACHABLE ? p->unreachable + 1 : 0;
    p->rest_ms = PRESENCE_TICK_MS; /* without an answer it is asked again soon */
    if (end == PRESENCE_MUTE)
        p->known = false;
    if (end != PRESENCE_ANSWERED)
        return;
    p->known = true;
    p->gone = false;
    p->silent_ms = 0;
    p->rest_ms = hurried ? 0 : PRESENCE_EVERY_MS;
}

void presence_heard(struct presence *w, struct presence_life life)
{
    struct peer *p = find(w, life);
    if (p == NULL)
        return;
    p->gone = false;
    p->silent_ms = 0;
    p->unreachable = 0;
}

/* I3. */
static bool hears_others(const struct presence *w, const struct peer *but)
{
    const struct peer *p;
    DL_FOREACH (w->peers, p)
        if (p != but && p->known && p->silent_ms <= PRESENCE_HEARD_MS && p->unreachable == 0)
            return true;
    return false;
}

static void find_gone(struct presence *w, struct peer *p)
{
    /* The link to one that stands still ends, too, in time, and no other comes up: that is silence. */
    bool unreachable = p->unreachable >= UNREACHABLE_TIMES && p->silent_ms <= PRESENCE_HEARD_MS;
    if (!p->known || !(unreachable || p->silent_ms >= w->silence_ms) || !hears_others(w, p))
        return;
    p->known = p->told = false;
    p->gone = true;
    p->why = unreachable ? PRESENCE_GONE_UNREACHABLE : PRESENCE_GONE_SILENT;
}

bool presence_next_gone(struct presence *w, struct presence_life *ret_life, enum presence_why *ret_why)
{
    struct peer *p;
    DL_FOREACH (w->peers, p) {
        find_gone(w, p);
        if (!p->gone || p->told)
            continue;
        p->told = true;
        *ret_life = p->life;
        *ret_why = p->why;
        return true;
    }
    return false;
}
