/* presence.h - which lives of services answer: evidence of a death or a standstill, long before a session times out. A
 * core: no clock, socket or random number of its own.
 *
 * Every controller asks all it knows (PRESENCE_EVERY_MS), also while another leads: a controller that becomes the
 * leader knows from the first moment who was gone already. A life ends here when
 *
 *   unreachable  it answered just now, and twice in a row there was nobody to ask within PRESENCE_SEND_MS: nobody
 *                listens there, so its process is gone, as what listens belongs to it;
 *   silent       it answered once, and gave no sign of life for silence_ms.
 *
 * An ask that has left waits for its answer as long as silence_ms: over a slow way, or from a busy process, a late
 * answer is a sign of life like any other.
 *
 * I1  who never answered an ask of this controller is never found gone: it may be out of our reach alone, or of a
 *     release that knows nothing of this. The same after it was found gone, until it answers again: one that we cannot
 *     ask, and that asks us, does not come and go.
 * I2  time is what our own loop was there for: after a pause of ours (SIGSTOP, a busy machine) nobody is silent who
 *     had no time to speak.
 * I3  who hears nobody finds nobody gone: it is cut off itself, or all are.
 *
 * Threading: the owner's thread only. */
#ifndef KARST_CONTROLLER_PRESENCE_H
#define KARST_CONTROLLER_PRESENCE_H

#include "libs/base/base.h"

enum {
    PRESENCE_TICK_MS = 50,
    PRESENCE_COUNTED_MS = 250, /* of the time between two ticks, at most */
    PRESENCE_EVERY_MS = 200,   /* from an answer to the next ask */
    PRESENCE_SEND_MS = 150,    /* for one ask to leave */
    PRESENCE_HEARD_MS = 1000,  /* a sign of life as recent as this shows that we are not cut off (I3) */
};

struct presence;

struct presence_life {
    int32_t role, id;
    uint64_t incarnation; /* 0: whoever answers (controllers, which the log does not name) */
};

enum presence_end {
    PRESENCE_ANSWERED,
    PRESENCE_UNANSWERED,  /* it may have been asked, or somebody is there who may be it */
    PRESENCE_UNREACHABLE, /* nobody was there to be asked */
    PRESENCE_MUTE,        /* it, or the cluster, is of a release that is not asked: like one who never answered */
};

enum presence_why { PRESENCE_GONE_UNREACHABLE, PRESENCE_GONE_SILENT };

NODISCARD struct presence *presence_new(uint32_t silence_ms, uint64_t now_ms);
struct presence *presence_free(struct presence *w); /* takes NULL; returns NULL */

/* Whom to watch: all that are named between the two; others are forgotten. A new life of a role and id is another. */
void presence_begin(struct presence *w);
void presence_name(struct presence *w, struct presence_life life);
void presence_done(struct presence *w);
size_t presence_count(const struct presence *w);

/* Time has passed. At least every PRESENCE_TICK_MS while there is anybody to watch. */
void presence_tick(struct presence *w, uint64_t now_ms);
/* All are asked now, or as soon as the ask under way has ended: there is news for them. */
void presence_hurry(struct presence *w);
/* The next life that is to be asked now; presence_ended follows. */
NODISCARD bool presence_next_ask(struct presence *w, struct presence_life *ret_life);
/* Lives that are not watched (any more) are ignored, here and below. */
void presence_ended(struct presence *w, struct presence_life life, enum presence_end end);
/* It spoke to us: a registration, a heartbeat, a Follow. */
void presence_heard(struct presence *w, struct presence_life life);

/* Those who are gone are told anew: the owner decides from now on. */
void presence_tell_again(struct presence *w);
/* The next life that was found gone, once; false: no further one. */
NODISCARD bool presence_next_gone(struct presence *w, struct presence_life *ret_life, enum presence_why *ret_why);

#endif
