/* cold.c - bringing records into memory on the slow pool, so that no disk holds up the loop, nor the front end that
 * sends from a file.
 *
 * A few jobs run at once, as flushes share the pool; the others wait in their order. There is one job at most a call,
 * and the bus bounds the calls.
 *
 *   cold_start --> waiting --> running --> read_answer(call), or nobody: the caller is gone */
#include "services/storage/read.h"
#include <stdlib.h>

enum { RUNNING_MAX = 2 };

struct cold_job {
    struct cold_job *prev, *next; /* of storage->cold */
    struct storage *storage;
    struct read_call *call; /* NULL: gone */
    bool running;
    struct cold_list list;
};

static void run(void *ctx)
{
    struct cold_job *j = ctx;
    for (size_t i = 0; i < j->list.count; i++)
        log_warm_run(j->list.at[i].warm);
}

static void start_next(struct storage *s);

static void finish(struct cold_job *j)
{
    struct storage *s = j->storage;
    DL_DELETE(s->cold, j);
    for (size_t i = 0; i < j->list.count; i++) {
        const struct replica_key *key = &j->list.at[i].key;
        struct replica *r = replica_find(s, key->topic_id, key->partition);
        int err = log_warm_end(r != NULL ? r->log : NULL, j->list.at[i].warm);
        if (err < 0 && r != NULL)
            directory_failed(r->dir, err);
    }
    free(j);
}

static void on_done(void *ctx)
{
    struct cold_job *j = ctx;
    struct storage *s = j->storage;
    struct read_call *c = j->call;
    s->cold_running--;
    finish(j);
    if (c != NULL) {
        c->cold = NULL;
        read_answer(c);
    }
    start_next(s);
    loop_again(s->loop); /* a drain may wait for it */
}

static void start_next(struct storage *s)
{
    struct cold_job *j;
    DL_FOREACH (s->cold, j) {
        if (s->cold_running == RUNNING_MAX)
            return;
        if (j->running)
            continue;
        j->running = true;
        s->cold_running++;
        loop_work(s->loop, run, on_done, j);
    }
}

void cold_start(struct read_call *c, const struct cold_list *list)
{
    struct storage *s = c->storage;
    struct cold_job *j = xmalloc(sizeof *j);
    *j = (struct cold_job){.storage = s, .call = c, .list = *list};
    c->cold = j;
    c->state = READ_COLD;
    DL_APPEND(s->cold, j);
    start_next(s);
}

void cold_forget(struct read_call *c)
{
    struct cold_job *j = c->cold;
    if (j == NULL)
        return;
    c->cold = NULL;
    j->call = NULL;
    if (!j->running)
        finish(j);
}

void read_forget(struct replica *r)
{
    struct cold_job *j;
    DL_FOREACH (r->storage->cold, j) {
        for (size_t i = 0; j->call != NULL && i < j->call->count; i++) {
            if (j->call->parts[i].replica == r)
                j->call->parts[i].replica = NULL;
        }
    }
    interest_forget(r);
}
