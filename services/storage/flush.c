/* flush.c - group commit: answers that wait for a disk share one flush with all others of the directory.
 *
 *   wanted --flush_start, at the end of the turn--> under way, on the slow pool --end_round--> answered
 *
 * A directory has two lanes, each with one round under way at most. While it is, appends go on, and whoever comes to
 * want a flush gathers for the next round. FLUSH_NOW is for what somebody waits for; FLUSH_LATER for rolled segments
 * and flush.ms, which may be a gigabyte and must not hold up answers.
 *
 * A round makes all of its logs durable together where the file system can (log_flush_run_all), and else each by
 * itself, several at once: the kernel lets those that overlap share a commit.
 *
 * A flush that failed is never tried again: the kernel has dropped what it could not write, a second try would succeed
 * for nothing. The directory goes offline, and every answer of it that waits is KAFKA_STORAGE_ERROR.
 *
 * I1  a replica is in one list of wanted, or in one round, or in neither; one in a round may be wanted again.
 * I2  rounds under way are counted in storage->flushes: a drain waits for them.
 * I3  of a directory that has failed nothing is wanted. */
#include "services/storage/replication.h"
#include <stdatomic.h>
#include <stdlib.h>

/* How many logs a round takes, each of which has a descriptor or two meanwhile, and threads of the slow pool while it
 * flushes them one by one. */
static const struct {
    size_t logs, jobs;
} lane_max[FLUSH_LANES] = {[FLUSH_NOW] = {256, 4}, [FLUSH_LATER] = {16, 2}};

struct flush_item {
    struct flush_round *round;
    struct replica *replica; /* NULL: gone meanwhile */
};

struct flush_round {
    struct directory *dir;
    enum flush_lane lane;
    size_t count, jobs; /* jobs under way */
    bool done;          /* together */
    atomic_size_t next; /* the first that no job has taken */
    struct log_flush **flushes;
    struct flush_item items[];
};

/* ---- on the slow pool ---- */

static void run_each(void *ctx)
{
    struct flush_round *g = ctx;
    size_t i;
    while ((i = atomic_fetch_add(&g->next, 1)) < g->count)
        log_flush_run(g->flushes[i]);
}

static void run_together(void *ctx)
{
    struct flush_round *g = ctx;
    g->done = log_flush_run_all(g->flushes, g->count);
    if (!g->done && g->count == 1) {
        run_each(g);
        g->done = true;
    }
}

/* ---- rounds ---- */

/* Everybody who waits for the disk: none of it will come. */
static void fail_all(struct directory *d, int err)
{
    directory_failed(d, err);
    for (struct replica *r = d->storage->replicas; r != NULL; r = r->hh.next) {
        if (r->dir != d)
            continue;
        flush_unwant(r);
        append_on_flushed(r, err);
        acks_end(r, KERR_KAFKA_STORAGE_ERROR);
    }
}

/* One log's flush has ended; 0, or the -errno that takes the directory offline. */
static int end_item(struct flush_item *item, struct log_flush *f)
{
    struct replica *r = item->replica;
    int err = log_flush_end(r != NULL ? r->log : NULL, f);
    if (r == NULL)
        return 0;
    r->flush = NULL;
    r->flushed_ms = loop_now_ms(r->storage->loop);
    if (log_failed(r->log) != 0)
        return log_failed(r->log);
    if (err == -ENOSPC)
        room_is_missing(r);
    append_on_flushed(r, err);
    if (err == 0)
        replication_flushed(r);
    read_wake(r); /* the high watermark may have waited for it */
    if (err == 0 && r->waiting_flush != NULL)
        flush_want(r, FLUSH_NOW);
    else if (err == 0 && r->flush_again)
        flush_want(r, FLUSH_LATER);
    r->flush_again = false;
    return 0;
}

static void end_round(struct flush_round *g)
{
    struct directory *d = g->dir;
    struct storage *s = d->storage;
    int failed = 0;
    for (size_t i = 0; i < g->count; i++) {
        int err = end_item(&g->items[i], g->flushes[i]);
        failed = failed ? failed : err;
    }
    if (failed < 0)
        fail_all(d, failed);
    d->lanes[g->lane].round = NULL;
    marks_on_round(d);
    s->flushes--;
    free(g->flushes);
    free(g);
    loop_again(s->loop); /* a drain may wait for it */
}

static void on_job_done(void *ctx)
{
    struct flush_round *g = ctx;
    if (--g->jobs == 0)
        end_round(g);
}

static void on_together_done(void *ctx)
{
    struct flush_round *g = ctx;
    if (g->done) {
        end_round(g);
        return;
    }
    g->jobs = MIN(g->count, lane_max[g->lane].jobs);
    for (size_t i = 0, n = g->jobs; i < n; i++)
        loop_work(g->dir->storage->loop, run_each, on_job_done, g);
}

static void add_to_round(struct flush_round *g, struct replica *r)
{
    struct log_flush *f = r->wants_mark ? log_mark_begin(r->log) : NULL;
    r->wants_mark = false;
    if (f == NULL)
        f = log_flush_begin(r->log);
    if (f == NULL) {
        append_on_flushed(r, log_failed(r->log));
        return;
    }
    g->items[g->count] = (struct flush_item){g, r};
    r->flush = &g->items[g->count];
    g->flushes[g->count++] = f;
}

static void start_round(struct directory *d, enum flush_lane lane)
{
    struct storage *s = d->storage;
    struct flush_queue *q = &d->lanes[lane];
    if (q->round != NULL || q->wanted == NULL || d->failed != 0) /* who wants one then is about to go */
        return;
    size_t room = MIN(q->count, lane_max[lane].logs);
    struct flush_round *g = xcalloc(1, sizeof *g + room * sizeof g->items[0]);
    g->dir = d;
    g->lane = lane;
    g->flushes = xcalloc(room, sizeof(struct log_flush *));
    while (q->wanted != NULL && g->count < room) {
        struct replica *r = q->wanted;
        flush_unwant(r);
        add_to_round(g, r);
    }
    if (g->count == 0) {
        free(g->flushes);
        free(g);
        return;
    }
    q->round = g;
    s->flushes++;
    loop_work(s->loop, run_together, on_together_done, g);
}

/* ---- who wants one ---- */

void flush_unwant(struct replica *r)
{
    if (!r->wants_flush)
        return;
    struct flush_queue *q = &r->dir->lanes[r->flush_lane];
    DL_DELETE2(q->wanted, r, want_prev, want_next);
    q->count--;
    r->wants_flush = false;
}

void flush_want(struct replica *r, enum flush_lane lane)
{
    struct flush_queue *q = &r->dir->lanes[lane];
    int failed = r->dir->failed ? r->dir->failed : log_failed(r->log);
    if (failed != 0) {
        append_on_flushed(r, failed);
        return;
    }
    if (r->flush != NULL) {
        r->flush_again = true;
        return;
    }
    if (r->wants_flush && r->flush_lane <= lane)
        return;
    flush_unwant(r);
    r->wants_flush = true;
    r->flush_lane = lane;
    DL_APPEND2(q->wanted, r, want_prev, want_next);
    q->count++;
}

void flush_want_mark(struct replica *r)
{
    r->wants_mark = true;
    flush_want(r, FLUSH_LATER);
}

void flush_start(void *ctx)
{
    struct storage *s = ctx;
    for (size_t i = 0; i < s->dir_count; i++) {
        start_round(&s->dirs[i], FLUSH_NOW);
        start_round(&s->dirs[i], FLUSH_LATER);
    }
}

void flush_forget(struct replica *r)
{
    flush_unwant(r);
    if (r->flush != NULL)
        r->flush->replica = NULL;
    r->flush = NULL;
}

/* flush.ms: logs that have something unflushed for that long. */
void flush_on_timer(void *ctx)
{
    struct storage *s = ctx;
    uint64_t now = loop_now_ms(s->loop);
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        int64_t after = log_config(r->log)->flush_ms;
        if (after != INT64_MAX && log_failed(r->log) == 0 && log_unflushed_messages(r->log) > 0 &&
            now - r->flushed_ms >= (uint64_t)after)
            flush_want(r, FLUSH_LATER);
    }
}
