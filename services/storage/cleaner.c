/* cleaner.c - compaction: which log is cleaned next, and its steps on the slow pool (libs/log/clean.h).
 *
 *   waits (log.cleaner.backoff.ms) --the filthiest log that is due--> step <-> turn ... --> its checkpoint is written
 *
 * log.cleaner.threads logs are cleaned at a time. A step is short, so that flushes and cold reads, which share the
 * pool, get their turn, and a log that goes, a stop, or a new configuration need not wait. Between steps the rate of
 * log.cleaner.io.max.bytes.per.second is kept, by all of them together.
 *
 * Only what lies before the recovery point that is in the checkpoint file is cleaned: a start after a crash looks for
 * lost tails behind it, and compaction leaves holes.
 *
 * A log with damage is cleaned no more until the next start, and the log says so once, as in Kafka. */
#include "libs/log/clean.h"
#include "services/storage/storage.h"
#include <stdlib.h>
#include <sys/random.h>

enum {
    STEP_BYTES = 4 << 20,
    STEP_LEAST_BYTES = 64 << 10,
    STEPS_A_SECOND = 4, /* where the rate is bounded */
    BUFFER_LEAST_BYTES = 16 << 10,
    BUFFER_MOST_BYTES = 64 << 20,
    FULL_DISK_MS = 60000,
};

struct clean_job {
    struct clean_job *prev, *next;
    struct cleaner *cleaner;
    struct replica *replica; /* NULL: gone */
    struct log_clean *clean;
    char *path;               /* of the partition's folder */
    struct loop_timer *timer; /* waits for the rate */
    bool running;
    uint64_t step_bytes;
    int64_t first_dirty;
    uint64_t began_ms;
};

struct cleaner {
    struct storage *storage;
    struct loop_timer *timer;
    int64_t backoff_ms;
    struct clean_job *jobs;
    int job_count;
    double free_at_ms; /* when the bytes that were moved are paid for */
    bool stopped;
    struct cleaner_settings settings;
    uint8_t seed[LOG_CLEAN_SEED];
};

static void look_for_work(void *ctx);
static void run_step(struct clean_job *j);

/* ---- which log ---- */

static bool folder_is_busy(const struct cleaner *c, const char *path)
{
    const struct clean_job *j;
    DL_FOREACH (c->jobs, j) {
        if (strcmp(j->path, path) == 0)
            return true; /* of a topic that was deleted and made again meanwhile */
    }
    return false;
}

static bool may_be_cleaned(const struct cleaner *c, const struct replica *r)
{
    return log_config(r->log)->cleanup_compact && r->cleaning == NULL && !r->uncleanable && r->dir->failed == 0 &&
           log_failed(r->log) == 0 && loop_now_ms(c->storage->loop) >= r->clean_after_ms;
}

static void check_checkpoint(struct replica *r, const struct log_dirt *dirt)
{
    if (dirt->checkpoint_fits)
        return;
    const struct log_config *config = log_config(r->log);
    if (!config->cleanup_delete || r->clean_to > log_end(r->log))
        log_warn("%s-%d: the cleaner's checkpoint %lld lies outside the log: compaction begins at its start, %lld",
                 r->topic, r->key.partition, (long long)r->clean_to, (long long)dirt->first_dirty);
    r->clean_to = dirt->first_dirty;
}

/* What there is to clean; false: nothing, or not yet. */
static bool look_at(struct replica *r, struct log_dirt *ret_dirt)
{
    struct storage *s = r->storage;
    int64_t now = loop_wall_ms(s->loop);
    int err = log_clean_look(r->log, r->clean_to, INT64_MAX, now, ret_dirt);
    if (err < 0 && log_failed(r->log) != 0)
        directory_failed(r->dir, log_failed(r->log));
    if (err < 0)
        return false;
    check_checkpoint(r, ret_dirt);
    if (!log_clean_is_due(r->log, ret_dirt))
        return false;
    if (r->point_on_disk < ret_dirt->end) {
        /* What was flushed since the last checkpoint: it is cleaned as soon as it is written down. */
        checkpoints_write_points(r->dir);
        err = log_clean_look(r->log, r->clean_to, r->point_on_disk, now, ret_dirt);
    }
    return err == 0 && log_clean_is_due(r->log, ret_dirt);
}

static struct replica *find_filthiest(struct cleaner *c, struct log_dirt *ret_dirt)
{
    struct replica *best = NULL;
    double ratio = -1;
    for (struct replica *r = c->storage->replicas; r != NULL; r = r->hh.next) {
        struct log_dirt dirt;
        if (!may_be_cleaned(c, r) || !look_at(r, &dirt) || log_clean_ratio(&dirt) <= ratio ||
            folder_is_busy(c, log_dir(r->log)))
            continue;
        best = r;
        ratio = log_clean_ratio(&dirt);
        *ret_dirt = dirt;
    }
    return best;
}

static struct log_clean_options options_of(const struct cleaner *c)
{
    const struct cleaner_settings *k = &c->settings;
    uint64_t threads = (uint64_t)MAX(k->threads, 1), buffer = (uint64_t)k->io_buffer_bytes / threads / 2;
    struct log_clean_options o = {
        .map_bytes = (uint64_t)MAX(k->dedupe_buffer_bytes, (int64_t)0) / threads,
        .map_load = k->load_factor,
        .io_bytes = (size_t)MIN(MAX(buffer, (uint64_t)BUFFER_LEAST_BYTES), (uint64_t)BUFFER_MOST_BYTES),
        .now_wall_ms = loop_wall_ms(c->storage->loop),
    };
    memcpy(o.seed, c->seed, sizeof o.seed);
    return o;
}

static bool start_one(struct cleaner *c)
{
    struct log_dirt dirt;
    struct replica *r = find_filthiest(c, &dirt);
    if (r == NULL)
        return false;
    struct log_clean_options o = options_of(c);
    struct log_clean *clean = log_clean_begin(r->log, &dirt, &o);
    if (clean == NULL)
        return false;
    struct clean_job *j = xcalloc(1, sizeof *j);
    *j = (struct clean_job){.cleaner = c, .replica = r, .clean = clean, .path = xstrdup(log_dir(r->log))};
    j->first_dirty = dirt.first_dirty;
    j->began_ms = loop_now_ms(c->storage->loop);
    r->cleaning = j;
    DL_APPEND(c->jobs, j);
    c->job_count++;
    run_step(j);
    return true;
}

/* ---- the end of a cleaning ---- */

static void tell_cleaned(const struct clean_job *j)
{
    struct log_clean_stats k = log_clean_stats(j->clean);
    const struct replica *r = j->replica;
    log_info("%s-%d: compacted up to offset %lld, from %lld on: %llu of %llu records and %.1f of %.1f MB stay, in %llu "
             "segments for %llu; %llu keys, %.1f s",
             r->topic, r->key.partition, (long long)r->clean_to, (long long)j->first_dirty,
             (unsigned long long)k.records_kept, (unsigned long long)k.records_read, (double)k.bytes_written / 1e6,
             (double)k.bytes_read / 1e6, (unsigned long long)k.segments_after, (unsigned long long)k.segments_before,
             (unsigned long long)k.keys, (double)(loop_now_ms(r->storage->loop) - j->began_ms) / 1e3);
}

static void take_result(struct clean_job *j, int err)
{
    struct replica *r = j->replica;
    switch (-err) {
    case 0:
        r->clean_to = log_clean_end_offset(j->clean);
        tell_cleaned(j);
        checkpoints_cleaned(r->dir);
        return;
    case ECANCELED: return;
    case EBADMSG:
        r->uncleanable = true;
        log_error("%s-%d: cannot be compacted: %s; it is left as it is until the next start", r->topic,
                  r->key.partition, log_clean_why(j->clean));
        return;
    case ENOSPC:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        r->clean_after_ms = loop_now_ms(r->storage->loop) + FULL_DISK_MS;
        log_warn("%s-%d: compaction is put off for a minute: %s", r->topic, r->key.partition, strerror(-err));
        return;
    default: directory_failed(r->dir, err);
    }
}

static void finish(struct clean_job *j, int err)
{
    struct cleaner *c = j->cleaner;
    struct replica *r = j->replica;
    j->timer = loop_timer_stop(j->timer);
    DL_DELETE(c->jobs, j);
    c->job_count--;
    if (r != NULL) {
        r->cleaning = NULL;
        take_result(j, err);
    }
    log_clean_end(j->clean);
    free(j->path);
    free(j);
    if (r != NULL && r->retention_waits && !c->stopped) {
        r->retention_waits = false;
        storage_retain(r);
    }
    loop_again(c->storage->loop); /* a drain may wait for it */
}

/* ---- steps ---- */

static void on_step(void *ctx)
{
    struct clean_job *j = ctx;
    log_clean_step(j->clean, j->step_bytes);
}

static void pay_for(struct cleaner *c, uint64_t bytes)
{
    double now = (double)loop_now_ms(c->storage->loop), rate = c->settings.io_bytes_per_second;
    c->free_at_ms = MAX(c->free_at_ms, now) + (double)bytes * 1000 / rate;
}

static void on_rate(void *ctx)
{
    struct clean_job *j = ctx;
    j->timer = loop_timer_stop(j->timer);
    run_step(j);
}

static void next_step(struct clean_job *j)
{
    struct cleaner *c = j->cleaner;
    double wait = c->free_at_ms - (double)loop_now_ms(c->storage->loop);
    if (wait < 1 || c->stopped)
        run_step(j);
    else
        j->timer = loop_timer_start(c->storage->loop, (uint64_t)MIN(wait, 3600e3), 0, on_rate, j);
}

/* The owner's part between two steps. */
static void take_turn(struct clean_job *j)
{
    struct replica *r = j->replica;
    if (r != NULL && log_has_staged(r->log))
        turn_commit(r->storage);
    int more = log_clean_turn(j->clean, loop_wall_ms(j->cleaner->storage->loop));
    if (r != NULL)
        files_check(r);
    if (more == 1) {
        next_step(j);
        return;
    }
    struct cleaner *c = j->cleaner;
    finish(j, more);
    if (more == 0)
        look_for_work(c);
}

static void on_stepped(void *ctx)
{
    struct clean_job *j = ctx;
    j->running = false;
    pay_for(j->cleaner, log_clean_take_bytes(j->clean));
    take_turn(j);
}

static void run_step(struct clean_job *j)
{
    double part = j->cleaner->settings.io_bytes_per_second / STEPS_A_SECOND;
    j->step_bytes = (uint64_t)MIN(MAX(part, (double)STEP_LEAST_BYTES), (double)STEP_BYTES);
    j->running = true;
    loop_work(j->cleaner->storage->loop, on_step, on_stepped, j);
}

/* It ends with the next turn that may. */
static void stop_job(struct clean_job *j)
{
    log_clean_stop(j->clean);
    if (j->running)
        return;
    j->timer = loop_timer_stop(j->timer);
    take_turn(j);
}

/* ---- life ---- */

static void arm(struct cleaner *c)
{
    int64_t ms = MAX(c->settings.backoff_ms, (int64_t)1);
    if (c->timer != NULL && c->backoff_ms == ms)
        return;
    c->timer = loop_timer_stop(c->timer);
    c->backoff_ms = ms;
    c->timer = loop_timer_start(c->storage->loop, (uint64_t)ms, (uint64_t)ms, look_for_work, c);
}

static void look_for_work(void *ctx)
{
    struct cleaner *c = ctx;
    struct storage *s = c->storage;
    if (c->stopped || s->offline)
        return;
    settings_of_cleaner(s, &c->settings);
    arm(c);
    for (size_t i = 0; i < s->dir_count; i++)
        checkpoints_cleaned(&s->dirs[i]); /* what a busy moment left out */
    while (c->job_count < c->settings.threads && start_one(c))
        ;
}

struct cleaner *cleaner_open(struct storage *s)
{
    struct cleaner *c = xcalloc(1, sizeof *c);
    c->storage = s;
    settings_of_cleaner(s, &c->settings);
    if (getrandom(c->seed, sizeof c->seed, 0) != sizeof c->seed)
        BUG("the kernel has no random bytes");
    c->stopped = !config_bool(s->config, "log.cleaner.enable");
    if (!c->stopped)
        arm(c);
    return c;
}

void cleaner_stop(struct cleaner *c)
{
    struct clean_job *j, *next;
    if (c == NULL)
        return;
    c->stopped = true;
    c->timer = loop_timer_stop(c->timer);
    DL_FOREACH_SAFE(c->jobs, j, next)
    stop_job(j);
}

bool cleaner_is_busy(const struct cleaner *c)
{
    return c != NULL && c->jobs != NULL;
}

struct cleaner *cleaner_free(struct cleaner *c)
{
    if (c == NULL)
        return NULL;
    ASSERT(c->jobs == NULL); /* stopped, and the loop has run until their steps were over */
    free(c);
    return NULL;
}

void cleaner_abort(struct replica *r)
{
    if (r->cleaning != NULL)
        stop_job(r->cleaning);
}

void cleaner_forget(struct replica *r)
{
    struct clean_job *j = r->cleaning;
    if (j == NULL)
        return;
    r->cleaning = NULL;
    j->replica = NULL;
    log_clean_stop(j->clean);
    if (!j->running)
        finish(j, -ECANCELED);
}
