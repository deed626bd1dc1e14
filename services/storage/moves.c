/* moves.c - replicas on their way to another directory (AlterReplicaLogDirs).
 *
 *   copying --little is left--> telling --the controller has the new directory--> told --names changed--> gone
 *
 * The copy is a folder TOPIC-N.UUID-future in the new directory; libs/log/move.h makes it, a step at a time on the slow
 * pool, while the replica is written and read. As KIP-858 orders it the controller is told first: were it told last, a
 * crash between the two would leave it with a directory that the replica is not in, and a failure of that one would go
 * unnoticed. A move that ends early takes the controller's knowledge back.
 *
 * After a crash the folder tells of the move (futures.c). One that is copying at a clean stop leaves an empty folder,
 * so that the next start, of Kafka too, begins the copy again; one that is further is finished first.
 *
 * Invariants: a replica has one move at most; a folder is written by one step at a time. Reads of the source hold
 * nobody up: appends of the last half megabyte are copied on the loop. */
#include "libs/log/move.h"
#include "services/storage/storage.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEP_BYTES = 4 << 20, RUNNING_MAX = 2, STALE_MAX = 1000 };
enum { BUSY_MS = 100, FULL_MS = 10000, TURN_MS = 1000 };

struct move {
    struct move *prev, *next; /* of storage->moves */
    struct storage *storage;
    struct replica *replica; /* NULL: the move has ended, and the folder is left to its step */
    struct replica_key key;
    struct directory *from, *to;
    struct log_move *log;
    enum { COPYING, TELLING, TOLD } state;
    enum move_end { REMOVE, KEEP, EMPTY } then; /* what becomes of the folder of a move that has ended */
    bool running;
    uint64_t due_ms; /* not before */
    int stale;       /* steps in a row that came to nothing */
    struct uuid topic_id;
};

/* ---- names ---- */

static char *place_in(const struct directory *d, const struct replica *r)
{
    return xasprintf("%s/%s-%" PRId32, d->path, r->topic, r->key.partition);
}

/* ---- the end of a move ---- */

/* An empty folder with the topic's id: a move that is to begin again. On the slow pool. */
static void empty_folder(void *ctx)
{
    struct move *m = ctx;
    const char *folder = log_move_folder(m->log);
    const struct file_system *fs = &file_system_real;
    char text[64];
    int n = snprintf(text, sizeof text, "version: 0\ntopic_id: %s", uuid_to_text(m->topic_id).s);
    int err = file_remove_tree(fs, folder);
    err = err == 0 ? file_mkdir(fs, folder) : err;
    err = err == 0 ? file_replace(fs, folder, "partition.metadata", text, (size_t)n, true) : err;
    if (err < 0)
        log_warn("%s: cannot be emptied: %s", folder, strerror(-err));
}

static void move_free(struct move *m)
{
    DL_DELETE(m->storage->moves, m);
    log_move_free(m->log);
    free(m);
}

static void on_emptied(void *ctx)
{
    struct move *m = ctx;
    struct storage *s = m->storage;
    move_free(m);
    loop_again(s->loop); /* a drain waits for it */
}

/* The folder is no move's any more: by its name neither for the next start. */
static void remove_folder(struct move *m)
{
    const char *folder = log_move_folder(m->log);
    char *doomed = xasprintf("%.*s-delete", (int)(strlen(folder) - strlen("-future")), folder);
    int err = file_rename(&file_system_real, folder, doomed);
    if (err == 0) {
        directory_remove_later(m->to, doomed, 0);
        return;
    }
    if (err != -ENOENT)
        log_warn("%s: cannot be removed: %s", folder, strerror(-err));
    free(doomed);
}

static void clean_up(struct move *m)
{
    if (m->then == EMPTY && m->to->failed == 0) {
        loop_work(m->storage->loop, empty_folder, on_emptied, m);
        return;
    }
    if (m->then == REMOVE && m->to->failed == 0)
        remove_folder(m);
    move_free(m);
}

static void end(struct replica *r, enum move_end then)
{
    struct move *m = r->move;
    bool told = m->state != COPYING;
    r->move = NULL;
    m->replica = NULL;
    log_move_cancel(m->log);
    m->then = then;
    if (told && r->dir->failed == 0)
        assign_tell(r->storage, &r->key, r->dir->id); /* as it was */
    if (!m->running)
        clean_up(m);
}

void moves_cancel(struct replica *r)
{
    if (r->move == NULL)
        return;
    log_info("%s-%" PRId32 ": the move to %s is given up", r->topic, r->key.partition, r->move->to->path);
    end(r, REMOVE);
}

void moves_leave(struct replica *r)
{
    assign_forget(r->storage, &r->key);
    if (r->move == NULL)
        return;
    struct move *m = r->move;
    r->move = NULL;
    m->replica = NULL;
    log_move_cancel(m->log);
    /* A directory that failed may come back, and the move with it. */
    m->then = r->dir->failed != 0 ? KEEP : REMOVE;
    if (m->then == KEEP && m->state != COPYING)
        assign_tell(r->storage, &r->key, r->dir->id); /* that is where it is, and what has failed */
    if (!m->running)
        clean_up(m);
}

void moves_directory_failed(struct directory *d)
{
    struct move *m, *next;
    DL_FOREACH_SAFE(d->storage->moves, m, next)
    {
        if (m->replica != NULL && m->to == d) {
            log_error("%s-%" PRId32 " is not moved to %s: the directory is offline", m->replica->topic,
                      m->replica->key.partition, d->path);
            end(m->replica, KEEP);
        }
    }
}

/* ---- beginning ---- */

void moves_start(struct replica *r, struct directory *to, const char *folder)
{
    struct storage *s = r->storage;
    ASSERT(r->move == NULL && r->dir != to);
    char *target = place_in(to, r);
    char *made = folder != NULL ? xstrdup(folder) : logdir_beside(target, replica_random_id(), "future");
    struct move *m = xcalloc(1, sizeof *m);
    *m = (struct move){.storage = s, .replica = r, .from = r->dir, .to = to, .topic_id = r->key.topic_id};
    memcpy(&m->key, &r->key, sizeof m->key);
    m->log = log_move_new(r->log, made, target);
    r->move = m;
    DL_APPEND(s->moves, m);
    log_info("%s-%" PRId32 " moves from %s to %s", r->topic, r->key.partition, r->dir->path, to->path);
    free(made);
    free(target);
    loop_again(s->loop);
}

const struct directory *moves_target(const struct replica *r)
{
    return r->move != NULL ? r->move->to : NULL;
}

bool moves_is_told(const struct replica *r)
{
    return r->move != NULL && r->move->state != COPYING;
}

void moves_describe(const struct replica *r, int64_t *ret_size, int64_t *ret_lag)
{
    *ret_size = (int64_t)log_move_bytes(r->move->log);
    *ret_lag = MAX(log_end(r->log) - log_move_reached(r->move->log), (int64_t)0);
}

void moves_on_assigned(struct storage *s, const struct replica_key *key, struct uuid dir, bool accepted)
{
    struct replica *r = replica_find(s, key->topic_id, key->partition);
    if (r == NULL || r->move == NULL || r->move->state != TELLING || !uuid_eq(r->move->to->id, dir))
        return;
    r->move->state = accepted ? TOLD : COPYING;
    r->move->due_ms = accepted ? 0 : loop_now_ms(s->loop) + TURN_MS;
    loop_again(s->loop);
}

/* ---- the change of names ---- */

static void finish(struct move *m)
{
    struct replica *r = m->replica;
    struct storage *s = m->storage;
    bool target = false;
    char *doomed = logdir_beside(log_dir(r->log), replica_random_id(), "delete");
    bool wanted = r->wants_flush;
    flush_unwant(r); /* it is in a list of the directory's */
    r->dir = m->to;
    m->from->replica_count--;
    m->to->replica_count++;
    progress_soon(s);
    /* What a start has to know of the files must be in the new directory's checkpoints before the files are. */
    int err = checkpoints_arrival(m->to);
    if (err == 0)
        err = log_move_finish(m->log, doomed, &target);
    else
        target = true;
    if (err < 0) {
        m->to->names_gone = true;
        r->dir = m->from;
        m->from->replica_count++;
        m->to->replica_count--;
        if (wanted)
            flush_want(r, r->flush_lane);
        free(doomed);
        if (log_failed(r->log) != 0)
            directory_failed(m->from, log_failed(r->log));
        else if (err != -EAGAIN && err != -ENOSPC)
            directory_failed(target ? m->to : m->from, err);
        m->due_ms = err == -ENOSPC ? loop_now_ms(s->loop) + FULL_MS : 0;
        return;
    }
    files_check(r);
    log_info("%s-%" PRId32 " is in %s now", r->topic, r->key.partition, m->to->path);
    directory_remove_later(m->from, doomed, log_config(r->log)->file_delete_delay_ms);
    m->from->names_gone = true;
    r->move = NULL;
    move_free(m);
    r->point_on_disk = 0;
    if (wanted)
        flush_want(r, r->flush_lane);
    checkpoints_write_points(r->dir); /* a crash before the next would have all of it checked */
}

/* ---- steps ---- */

static void run_step(void *ctx)
{
    struct move *m = ctx;
    log_move_run(m->log);
}

/* Bytes a second for all moves of the node; INT64_MAX: no limit. */
static int64_t rate_of(const struct storage *s)
{
    return settings_of_node(s, "replica.alter.log.dirs.io.max.bytes.per.second", INT64_MAX);
}

static void pay(struct storage *s, uint64_t bytes)
{
    int64_t rate = rate_of(s);
    uint64_t now = loop_now_ms(s->loop);
    if (rate == INT64_MAX || rate == 0)
        return;
    s->moves_due_ms = MAX(s->moves_due_ms, now) + bytes * 1000 / (uint64_t)rate;
}

static void step_failed(struct move *m, int err, bool target)
{
    uint64_t now = loop_now_ms(m->storage->loop);
    struct directory *d = target ? m->to : m->from;
    m->stale++;
    if (err == -ESTALE && m->stale < STALE_MAX) {
        m->due_ms = 0;
    } else if (err == -ENOSPC || err == -EMFILE || err == -ENFILE || err == -ENOMEM) {
        log_warn("%s: the move to it waits: %s", m->to->path, strerror(-err));
        m->due_ms = now + FULL_MS;
    } else {
        log_error("%s-%" PRId32 ": the move to %s failed: %s", m->replica->topic, m->replica->key.partition,
                  m->to->path, strerror(-err));
        directory_failed(d, err == -ESTALE ? -EIO : err);
        m->due_ms = UINT64_MAX; /* it ends with the directory */
    }
}

static void on_step(void *ctx)
{
    struct move *m = ctx;
    struct storage *s = m->storage;
    uint64_t bytes;
    bool target;
    int err = log_move_end(m->log, &target, &bytes);
    m->running = false;
    s->moves_running--;
    pay(s, bytes);
    if (m->replica == NULL)
        clean_up(m);
    else if (err < 0)
        step_failed(m, err, target);
    else
        m->stale = 0;
    loop_again(s->loop);
}

/* No more at once than a twentieth of a second may cost. */
static size_t step_bytes(int64_t rate)
{
    return (size_t)MIN(MAX(rate / 20, (int64_t)1), (int64_t)STEP_BYTES);
}

static void start_step(struct move *m)
{
    struct storage *s = m->storage;
    int err = log_move_begin(m->log, step_bytes(rate_of(s)));
    if (err == -EBUSY || err == -ENOSPC) {
        m->due_ms = loop_now_ms(s->loop) + (err == -EBUSY ? BUSY_MS : FULL_MS);
        return;
    }
    if (err < 0) {
        directory_failed(m->from, log_failed(m->replica->log) != 0 ? log_failed(m->replica->log) : err);
        m->due_ms = UINT64_MAX;
        return;
    }
    m->running = true;
    s->moves_running++;
    loop_work(s->loop, run_step, on_step, m);
}

/* What the move needs next that is no step. True: nothing more now. */
static bool advance(struct move *m)
{
    struct replica *r = m->replica;
    bool near = log_move_is_near(m->log);
    if (near && m->state == COPYING) {
        m->state = TELLING;
        assign_tell(m->storage, &m->key, m->to->id);
    }
    if (near && m->state == TOLD && r->flush == NULL && !log_has_staged(r->log) && !m->to->checkpointing &&
        !m->to->writing_starts)
        finish(m);
    else if (!near)
        return m->state == TELLING;
    return true;
}

static void on_timer(void *ctx)
{
    struct storage *s = ctx;
    s->moves_timer = loop_timer_stop(s->moves_timer);
    loop_again(s->loop);
}

static size_t threads_of(const struct storage *s)
{
    size_t n = config_is_null(s->config, "num.replica.alter.log.dirs.threads")
                   ? s->dir_count
                   : (size_t)MAX(config_int(s->config, "num.replica.alter.log.dirs.threads"), 0);
    return MIN(n, (size_t)RUNNING_MAX);
}

void moves_turn(void *ctx)
{
    struct storage *s = ctx;
    struct move *m, *next;
    uint64_t now = loop_now_ms(s->loop), due = UINT64_MAX;
    if (s->moves == NULL || s->drained)
        return;
    bool paused = rate_of(s) == 0;
    DL_FOREACH_SAFE(s->moves, m, next)
    {
        if (m->replica == NULL || m->running || m->from->failed != 0 || m->to->failed != 0)
            continue;
        if (m->due_ms > now) {
            due = MIN(due, m->due_ms);
            continue;
        }
        if (advance(m) || s->moves_running >= threads_of(s))
            continue;
        if (m->state == COPYING && (paused || s->moves_due_ms > now))
            due = MIN(due, paused ? now + TURN_MS : s->moves_due_ms);
        else
            start_step(m);
    }
    if (due != UINT64_MAX && s->moves_timer == NULL)
        s->moves_timer = loop_timer_start(s->loop, MAX(due, now + 1) - now, 0, on_timer, s);
}

/* ---- the end of the process ---- */

bool moves_drained(struct storage *s)
{
    struct replica *r, *next;
    HASH_ITER (hh, s->replicas, r, next) {
        if (r->move != NULL && r->move->state == COPYING)
            end(r, EMPTY);
    }
    return s->moves == NULL;
}

void moves_free(struct storage *s)
{
    struct move *m, *next;
    s->moves_timer = loop_timer_stop(s->moves_timer);
    DL_FOREACH_SAFE(s->moves, m, next)
    {
        if (m->replica != NULL)
            m->replica->move = NULL;
        move_free(m);
    }
}
