/* opening.c - logs are opened on the slow pool, num.recovery.threads.per.data.dir at once in a directory, and handed to
 * the loop one by one; nobody else touches a log meanwhile. What is ready is served at once, the others answer
 * NOT_LEADER_OR_FOLLOWER: as Kafka for a partition that it is about to make, and what its clients ask again for
 * soonest.
 *
 * Nothing is opened before there is an image: a topic's own keys say how its indexes are built again. The first
 * partitions that are made in a turn are made on the loop's thread, so that whoever made a topic can write to it when
 * that was answered; thousands at once are not worth a stall. */
#include "services/storage/storage.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

enum {
    MADE_AT_ONCE = 16, /* in a turn */
    BATCH_MAX = 8,     /* logs of one job: most take less than their hand-over */
};

struct opening {
    struct unopened *of; /* the loop's: not touched while the job runs */
    struct log_options options;
    struct log *log;
    int err;
    char *why;          /* what the log said of the error */
    int64_t size_bytes; /* with it */
};

struct job {
    struct directory *dir;
    struct opening at[BATCH_MAX];
    size_t count;
};

static void note(void *ctx, int level, const char *text)
{
    struct opening *o = ctx;
    log_write((enum log_level)level, "%s", text);
    if (level < LOG_ERROR)
        return;
    free(o->why);
    o->why = xstrdup(text);
}

/* After it the log tells whoever reads the process's output only. */
static void note_later(void *ctx UNUSED, int level, const char *text)
{
    log_write((enum log_level)level, "%s", text);
}

static void fill(struct opening *o, struct unopened *u)
{
    struct directory *d = u->dir;
    struct storage *s = d->storage;
    int64_t zero = 0;
    *o = (struct opening){.of = u};
    o->options = (struct log_options){
        .fs = &file_system_real,
        .dir = xasprintf("%s/%s", d->path, u->name),
        .topic_id = u->is_new ? u->topic_id : UUID_ZERO,
        .clean = !u->is_new && d->was_clean,
        .rewrite = d->rewrite,
        .recovery_point = MAX(u->recovery_point, zero),
        .log_start_offset = MAX(u->log_start, zero),
        .compacted_to = u->clean_to,
        .high_watermark = u->is_new ? 0 : MAX(u->high_mark, zero),
        .hold_high_watermark = true, /* until the image says that nobody else keeps it (replication.c) */
        .now_wall_ms = loop_wall_ms(s->loop),
        .note = note,
        .note_ctx = o,
        .pool = s->pool,
        .elsewhere = true,
        .progress = &d->progress,
    };
    o->err = u->is_new ? checkpoints_strike_out(d) : 0;
    settings_of_topic(s, u->topic, &o->options.config);
    o->options.jitter_seed = s->jitter_seed += 0x9e3779b97f4a7c15; /* the log mixes it */
}

static void add_size(void *arg, const char *name)
{
    struct opening *o = arg;
    struct file_stat st;
    size_t n = strlen(name);
    char *path = xasprintf("%s/%s", o->options.dir, name);
    if (n > 4 && strcmp(name + n - 4, ".log") == 0 && file_stat(o->options.fs, path, &st) == 0)
        o->size_bytes += (int64_t)st.size_bytes;
    free(path);
}

static void open_log(struct opening *o)
{
    if (o->err == 0)
        o->err = log_open(&o->options, &o->log);
    if (o->err == -EBADMSG && file_list(o->options.fs, o->options.dir, add_size, o) < 0)
        o->size_bytes = 0; /* nobody can say */
    if (o->err < 0)
        return;
    o->err = o->options.rewrite ? log_flush(o->log) : replica_flush_recovered(o->log);
    log_set_note(o->log, note_later, NULL);
    if (o->err < 0)
        o->log = log_abandon(o->log);
}

static void finish(struct opening *o)
{
    struct unopened *u = o->of;
    struct directory *d = u->dir;
    u->state = UNOPENED_STAYS;
    if (o->err == 0 && d->failed != 0) {
        o->log = log_abandon(o->log);
        u->err = 0;
    } else if (o->err == -ECANCELED) {
        unopened_stay(u, o->err, NULL);
    } else if (o->err == 0) {
        d->opened += d->opening;
        replica_opened(u, o->log);
    } else {
        d->stayed += d->opening;
        u->size_bytes = o->size_bytes;
        replica_not_opened(u, o->err, TAKE_PTR(o->why));
    }
    free(o->why);
    free((char *)(uintptr_t)o->options.dir);
}

/* ---- jobs ---- */

static void run_job(void *ctx)
{
    struct job *j = ctx;
    for (size_t i = 0; i < j->count; i++)
        open_log(&j->at[i]);
}

static void open_next(struct directory *d);

static void end_job(void *ctx)
{
    struct job *j = ctx;
    struct directory *d = j->dir;
    d->openings--;
    for (size_t i = 0; i < j->count; i++)
        finish(&j->at[i]);
    free(j);
    open_next(d);
    loop_again(d->storage->loop); /* a drain may wait for it */
}

static void start_job(struct directory *d, size_t threads)
{
    struct job *j = xcalloc(1, sizeof *j);
    /* Few at the end, so that all threads have something to do until it comes. */
    size_t most = MIN((size_t)BATCH_MAX, 1 + d->waiting_count / (BATCH_MAX * threads));
    j->dir = d;
    while (j->count < most && d->waiting != NULL) {
        struct unopened *u = d->waiting;
        unopened_run(u);
        fill(&j->at[j->count++], u);
    }
    d->openings++;
    loop_work(d->storage->loop, run_job, end_job, j);
}

/* The start's logs are open, but for those that stay. */
static void tell_end(struct directory *d)
{
    uint64_t ms = loop_now_ms(d->storage->loop) - d->opening_since_ms;
    d->opening = false;
    /* All that was read again is flushed. */
    if (d->rewrite && d->stayed == 0 && logdir_forget_failed_flush(&file_system_real, d->path) == 0)
        d->rewrite = false;
    if (d->opened + d->stayed > 0)
        log_info("%s: opened %zu partitions after %s in %llu ms%s", d->path, d->opened,
                 d->was_clean ? "a clean stop" : "a crash or kill", (unsigned long long)ms,
                 d->stayed > 0 ? "; some could not be opened" : "");
    progress_write(d->storage);
}

static void open_next(struct directory *d)
{
    struct storage *s = d->storage;
    if (d->failed != 0 || s->draining || !s->may_open)
        return;
    size_t threads = (size_t)settings_of_broker(s, "num.recovery.threads.per.data.dir");
    while (d->openings < threads && d->waiting != NULL)
        start_job(d, threads);
    if (d->opening && d->openings == 0)
        tell_end(d);
    if (s->settings_changed)
        storage_arm_flush_timer(s);
}

void opening_begin(struct storage *s)
{
    if (s->may_open)
        return;
    s->may_open = true;
    if (getrandom(&s->jitter_seed, sizeof s->jitter_seed, 0) < 0)
        s->jitter_seed = (uint64_t)loop_wall_ms(s->loop);
    for (size_t i = 0; i < s->dir_count; i++) {
        s->dirs[i].opening = s->dirs[i].failed == 0;
        s->dirs[i].opening_since_ms = loop_now_ms(s->loop);
        open_next(&s->dirs[i]);
    }
    progress_write(s);
    progress_soon(s);
}

void opening_ask(struct unopened *u)
{
    struct storage *s = u->dir->storage;
    if (s->made_now >= MADE_AT_ONCE) {
        open_next(u->dir);
        return;
    }
    struct opening o;
    s->made_now++;
    unopened_run(u);
    fill(&o, u);
    open_log(&o);
    finish(&o);
}

void opening_more(struct directory *d)
{
    open_next(d);
}

void opening_retry(struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        struct directory *d = &s->dirs[i];
        for (struct unopened *u = d->unopened; u != NULL && d->failed == 0; u = u->hh.next) {
            if (u->state == UNOPENED_STAYS && unopened_may_pass(u->err))
                unopened_wait(u);
        }
        open_next(d);
    }
}

void opening_stop(struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++)
        atomic_store(&s->dirs[i].progress.stop, true);
    s->progress_timer = loop_timer_stop(s->progress_timer);
}

bool opening_under_way(const struct storage *s)
{
    for (size_t i = 0; i < s->dir_count; i++) {
        if (s->dirs[i].openings > 0)
            return true;
    }
    return false;
}
