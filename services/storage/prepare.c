/* prepare.c - appends that compression.type wants compressed anew: on the slow pool, as one may take a second, and the
 * loop serves all partitions.
 *
 *   prepare_put: behind what the replica has --first--> waits for a job --> job runs --> staged, and those behind it
 *
 * I1  the parts of a replica are staged in the order in which they came, whether they need a job or not.
 * I2  a replica has at most one job, all have PREPARE_JOBS: flushes and cold reads share the pool.
 * I3  a job has copies of all that it looks at: part, replica and payload may go meanwhile. */
#include "services/storage/storage.h"
#include <stdlib.h>

enum { PREPARE_JOBS = 2, KEEP_MAX = 4 << 20 };

struct prepare_job {
    struct storage *storage;
    struct replica *replica; /* NULL: gone meanwhile */
    bool busy;
    struct log_preparer *preparer;
    struct log_config config;
    char *partition;
    struct buf bytes, made;
    struct log_append append; /* of bytes */
    enum kafka_error error;
};

static void pump(struct storage *s);

bool prepare_is_wanted(const struct append_part *p)
{
    return p->replica->preparing != NULL || log_needs_preparing(p->replica->log, &p->append);
}

/* ---- lists ---- */

static void wait_for_job(struct replica *r)
{
    ASSERT(!r->prepare_waits && r->prepare == NULL);
    r->prepare_waits = true;
    LL_APPEND2(r->storage->prepare_waiting, r, next_prepare);
}

static void take_first(struct replica *r)
{
    struct append_part *p = r->preparing;
    LL_DELETE2(r->preparing, p, next_waiting);
    r->storage->preparing--;
    append_on_prepared(p);
}

/* Stages what needs no job, up to what needs one. */
static void advance(struct replica *r)
{
    while (r->preparing != NULL && !log_needs_preparing(r->log, &r->preparing->append))
        take_first(r);
    if (r->preparing != NULL)
        wait_for_job(r);
}

/* ---- jobs ---- */

static void run(void *ctx)
{
    struct prepare_job *j = ctx;
    j->error = log_prepare(j->preparer, &j->config, j->partition, &j->append, &j->made);
}

static void give(struct prepare_job *j, struct append_part *p)
{
    p->error = j->error;
    p->message = p->append.message = j->append.message;
    p->append.record_errors = TAKE_PTR(j->append.record_errors);
    p->append.record_error_count = j->append.record_error_count;
    if (j->error != KERR_NONE || j->made.size == 0)
        return;
    p->made = j->made;
    j->made = (struct buf){0};
    p->append.bytes = p->made.data;
    p->append.size = p->made.size;
}

static void done(void *ctx)
{
    struct prepare_job *j = ctx;
    struct replica *r = j->replica;
    if (r != NULL) {
        r->prepare = NULL;
        give(j, r->preparing);
        take_first(r);
        advance(r);
    }
    free(j->append.record_errors);
    free(j->partition);
    j->append = (struct log_append){0};
    j->partition = NULL;
    j->replica = NULL;
    j->busy = false;
    if (j->bytes.capacity > KEEP_MAX)
        buf_free(&j->bytes);
    pump(j->storage);
    loop_again(j->storage->loop); /* a drain may wait for it */
}

static void start(struct prepare_job *j, struct replica *r)
{
    const struct log_append *a = &r->preparing->append;
    j->busy = true;
    j->replica = r;
    r->prepare = j;
    if (j->preparer == NULL)
        j->preparer = log_preparer_new();
    j->config = *log_config(r->log);
    j->partition = xasprintf("%s-%d", r->topic, r->key.partition);
    j->bytes.size = j->made.size = 0;
    buf_append(&j->bytes, a->bytes, a->size);
    j->append = (struct log_append){
        .bytes = j->bytes.data, .size = j->bytes.size, .origin = a->origin, .now_wall_ms = a->now_wall_ms};
    loop_work(j->storage->loop, run, done, j);
}

static void pump(struct storage *s)
{
    for (size_t i = 0; i < PREPARE_JOBS && s->prepare_waiting != NULL; i++) {
        if (s->prepare_jobs[i].busy)
            continue;
        struct replica *r = s->prepare_waiting;
        LL_DELETE2(s->prepare_waiting, r, next_prepare);
        r->prepare_waits = false;
        start(&s->prepare_jobs[i], r);
    }
}

/* ---- the outside ---- */

void prepare_put(struct append_part *p)
{
    struct replica *r = p->replica;
    struct storage *s = r->storage;
    if (s->prepare_jobs == NULL) {
        s->prepare_jobs = xcalloc(PREPARE_JOBS, sizeof *s->prepare_jobs);
        for (size_t i = 0; i < PREPARE_JOBS; i++)
            s->prepare_jobs[i].storage = s;
    }
    bool first = r->preparing == NULL;
    LL_APPEND2(r->preparing, p, next_waiting);
    s->preparing++;
    if (first) {
        wait_for_job(r);
        pump(s);
    }
}

void prepare_forget(struct replica *r)
{
    if (r->prepare != NULL)
        r->prepare->replica = NULL;
    r->prepare = NULL;
    if (r->prepare_waits)
        LL_DELETE2(r->storage->prepare_waiting, r, next_prepare);
    r->prepare_waits = false;
    while (r->preparing != NULL) {
        r->preparing->error = KERR_NOT_LEADER_OR_FOLLOWER;
        r->preparing->replica = NULL;
        take_first(r);
    }
}

void prepare_free(struct storage *s)
{
    for (size_t i = 0; s->prepare_jobs != NULL && i < PREPARE_JOBS; i++) {
        if (s->prepare_jobs[i].busy)
            return; /* the process ends at once: its thread goes with it */
        log_preparer_free(s->prepare_jobs[i].preparer);
        buf_free(&s->prepare_jobs[i].bytes);
        buf_free(&s->prepare_jobs[i].made);
    }
    free(s->prepare_jobs);
    s->prepare_jobs = NULL;
}
