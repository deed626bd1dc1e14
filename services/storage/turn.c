/* turn.c - the end of a turn: what was staged is written, one pwritev a log; replies are staged, and readers that have
 * enough now. Flushes run on the slow pool; answers that wait for one share it. */
#include "services/storage/storage.h"
#include <stdlib.h>

enum { TELL_FULL_MS = 10000 };

struct flush_job {
    struct storage *storage;
    struct replica *replica; /* NULL: gone meanwhile */
    struct log_flush *flush;
};

/* Once in a while: a full disk refuses every append. */
static void tell_full(struct replica *r)
{
    uint64_t now = loop_now_ms(r->storage->loop);
    if (r->dir->told_full_ms != 0 && now - r->dir->told_full_ms < TELL_FULL_MS)
        return;
    r->dir->told_full_ms = now;
    log_error("%s is full: appends are refused until there is room, now one to %s-%d", r->dir->path, r->topic,
              r->key.partition);
}

void turn_begin(void *ctx)
{
    struct storage *s = ctx;
    s->commit_comes = true;
}

void turn_commit(void *ctx)
{
    struct storage *s = ctx;
    struct replica *r, *first = s->touched;
    s->commit_comes = false;
    if (first == NULL && s->appends == NULL)
        return;
    for (r = first; r != NULL; r = r->next_touched) {
        int err = log_commit(r->log);
        if (err == -ENOSPC)
            tell_full(r);
        if (log_failed(r->log) != 0)
            directory_failed(r->dir, log_failed(r->log));
    }
    append_answer_turn(s);
    s->touched = NULL;
    for (struct replica *next; first != NULL; first = next) {
        next = first->next_touched;
        first->touched = false;
        first->next_touched = NULL;
        if (log_failed(first->log) == 0 && (first->waiting_flush != NULL || log_wants_flush(first->log)))
            turn_flush(first);
        read_wake(first);
    }
}

static void run_flush(void *ctx)
{
    struct flush_job *j = ctx;
    log_flush_run(j->flush);
}

static void end_flush(void *ctx)
{
    struct flush_job *j = ctx;
    struct storage *s = j->storage;
    struct replica *r = j->replica;
    int err = log_flush_end(r != NULL ? r->log : NULL, j->flush);
    s->flushes--;
    free(j);
    if (r != NULL) {
        bool again = r->flush_again;
        r->flush = NULL;
        r->flush_again = false;
        r->flushed_ms = loop_now_ms(s->loop);
        if (log_failed(r->log) != 0)
            directory_failed(r->dir, log_failed(r->log));
        else if (err == -ENOSPC)
            tell_full(r);
        append_on_flushed(r, err);
        read_wake(r); /* the high watermark may have waited for it */
        if (err == 0 && (again || r->waiting_flush != NULL))
            turn_flush(r);
    }
    loop_again(s->loop); /* a drain may wait for it */
}

void turn_flush(struct replica *r)
{
    struct storage *s = r->storage;
    if (r->flush != NULL) {
        r->flush_again = true;
        return;
    }
    struct log_flush *f = log_flush_begin(r->log);
    if (f == NULL) {
        append_on_flushed(r, log_failed(r->log));
        return;
    }
    struct flush_job *j = xcalloc(1, sizeof *j);
    *j = (struct flush_job){s, r, f};
    r->flush = j;
    s->flushes++;
    loop_work(s->loop, run_flush, end_flush, j);
}

void turn_forget(struct replica *r)
{
    if (r->flush != NULL)
        r->flush->replica = NULL;
    r->flush = NULL;
}

/* flush.ms: logs that have something unflushed for that long. */
void turn_on_flush_timer(void *ctx)
{
    struct storage *s = ctx;
    uint64_t now = loop_now_ms(s->loop);
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        int64_t after = log_config(r->log)->flush_ms;
        if (after != INT64_MAX && log_failed(r->log) == 0 && log_unflushed_messages(r->log) > 0 &&
            now - r->flushed_ms >= (uint64_t)after)
            turn_flush(r);
    }
}
