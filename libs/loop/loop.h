/* loop.h - the one thread of a worker: libuv underneath, and a turn with a fixed order of phases.
 *
 *   uv poll (sockets are read, timers fire, signals arrive)
 *     -> LOOP_SERVE    act on what was read; stage calls
 *     -> LOOP_SEND     the bus sends one Batch a lane and peer
 *     -> LOOP_RECEIVE  the bus drains what has come, capped
 *     -> LOOP_COMMIT   storage writes its logs, flushes, and stages replies
 *     -> LOOP_REPLY    the front end writes to its clients
 *     -> LOOP_SEND     again, for what the phases above staged
 *   then the poll blocks, unless somebody called loop_again.
 *
 * Threading: everything but loop_wake is for the loop's own thread. */
#ifndef KARST_LOOP_LOOP_H
#define KARST_LOOP_LOOP_H

#include "libs/base/base.h"

struct loop;
struct loop_timer;
struct loop_poll;
typedef struct uv_loop_s uv_loop_t;

enum loop_phase { LOOP_SERVE, LOOP_SEND, LOOP_RECEIVE, LOOP_COMMIT, LOOP_REPLY, LOOP_PHASES };

typedef void loop_fn(void *ctx);

NODISCARD struct loop *loop_new(void);
struct loop *loop_free(struct loop *l); /* takes NULL; returns NULL */
void loop_run(struct loop *l);          /* until loop_stop, which may have been called before */
void loop_stop(struct loop *l);
uv_loop_t *loop_uv(struct loop *l);

uint64_t loop_now_ms(const struct loop *l); /* monotonic, cached for the turn */
int64_t loop_wall_ms(const struct loop *l); /* wall clock in Unix ms, cached for the turn */

/* fn runs once in that phase of each turn, hooks of a phase in the order they were added. */
void loop_hook(struct loop *l, enum loop_phase phase, loop_fn *fn, void *ctx);
void loop_unhook(struct loop *l, enum loop_phase phase, loop_fn *fn, void *ctx); /* not from inside a hook */
/* The next poll does not block: work is left over. */
void loop_again(struct loop *l);
/* From any thread: ends a blocking poll, and runs fn in the loop's thread. */
void loop_wake(struct loop *l, loop_fn *fn, void *ctx);

/* A timer; repeat_ms 0: once. loop_timer_stop takes NULL and returns NULL; legal from inside fn. */
NODISCARD struct loop_timer *loop_timer_start(struct loop *l, uint64_t delay_ms, uint64_t repeat_ms, loop_fn *fn,
                                              void *ctx);
void loop_timer_again(struct loop_timer *t, uint64_t delay_ms); /* moves the next firing */
struct loop_timer *loop_timer_stop(struct loop_timer *t);

/* Our own sockets: events are LOOP_READABLE | LOOP_WRITABLE; level-triggered. loop_poll_stop takes NULL, returns NULL,
 * does not close fd. */
enum { LOOP_READABLE = 1, LOOP_WRITABLE = 2 };
typedef void loop_poll_fn(void *ctx, int events);
NODISCARD struct loop_poll *loop_poll_start(struct loop *l, int fd, int events, loop_poll_fn *fn, void *ctx);
void loop_poll_events(struct loop_poll *p, int events);
struct loop_poll *loop_poll_stop(struct loop_poll *p);

void loop_signal(struct loop *l, int signal_number, loop_fn *fn, void *ctx);

/* The slow pool: work runs on a thread of it, done in the loop's thread afterwards. For flushes, deletions, cold reads.
 */
void loop_work(struct loop *l, loop_fn *work, loop_fn *done, void *ctx);

#endif
