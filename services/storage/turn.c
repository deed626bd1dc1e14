/* turn.c - the end of a turn: what was staged is written, one pwritev a log; replies are staged, and readers that have
 * enough now. Answers that wait for the disk are flush.c's. */
#include "services/storage/replication.h"

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
    if (first == NULL && s->appends == NULL) {
        if (s->peers != NULL)
            peers_answer(s);
        return;
    }
    for (r = first; r != NULL; r = r->next_touched) {
        int err = log_commit(r->log);
        if (err == -ENOSPC)
            room_is_missing(r);
        if (log_failed(r->log) != 0)
            directory_failed(r->dir, log_failed(r->log));
        else if (r->core != NULL)
            replication_appended(r);
    }
    append_answer_turn(s);
    s->touched = NULL;
    for (struct replica *next; first != NULL; first = next) {
        next = first->next_touched;
        first->touched = false;
        first->next_touched = NULL;
        if (first->waiting_flush != NULL || (first->core != NULL && log_safe_end(first->log) < log_end(first->log)))
            flush_want(first, FLUSH_NOW);
        else if (log_failed(first->log) == 0 && log_wants_flush(first->log))
            flush_want(first, FLUSH_LATER);
        read_wake(first);
    }
    if (s->peers != NULL)
        peers_answer(s);
}
