/* directory.c - the data directory: identity, locks, the partitions that are there at the start, checkpoints, the clean
 * stop. */
#include "libs/base/bytes.h"
#include "libs/config/meta_properties.h"
#include "services/storage/storage.h"
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

enum { STATUS_CONFIG = 78, STATUS_FAILED = 1 };

/* ---- identity ---- */

static int check_identity(struct storage *s)
{
    struct meta_properties meta;
    char *error = NULL;
    int err = meta_properties_read(s->dir, &meta, &error);
    if (err != 0) {
        log_error("%s: meta.properties: %s", s->dir, error ? error : strerror(-err));
        free(error);
        return STATUS_CONFIG;
    }
    if (strcmp(meta.cluster_id, service_cluster_id(s->service)) != 0) {
        log_error("%s belongs to the cluster %s, not to %s", s->dir, meta.cluster_id, service_cluster_id(s->service));
        return STATUS_CONFIG;
    }
    if (meta.node_id != service_id(s->service)) {
        log_error("%s belongs to node %d, not to %d", s->dir, meta.node_id, service_id(s->service));
        return STATUS_CONFIG;
    }
    s->dir_id = meta.directory_id;
    return 0;
}

static int take_lock(struct storage *s)
{
    int holder = 0;
    int err = logdir_lock(s->dir, KARST__BUS__ROLE__ROLE_STORAGE, &s->lock_fd, &holder);
    if (err == -EWOULDBLOCK)
        log_error("%s is in use by process %d: another storage node, or Kafka", s->dir, holder);
    else if (err < 0)
        log_error("%s/.lock: %s", s->dir, strerror(-err));
    return err < 0 ? STATUS_FAILED : 0;
}

/* ---- the partitions at the start ---- */

struct names {
    char **at;
    size_t count, capacity;
};

static void note_name(void *arg, const char *name)
{
    struct names *n = arg;
    if (n->count == n->capacity) {
        n->capacity = n->capacity ? 2 * n->capacity : 64;
        n->at = xrealloc(n->at, n->capacity * sizeof *n->at);
    }
    n->at[n->count++] = xstrdup(name);
}

static int by_name(const void *a, const void *b)
{
    char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

struct start {
    struct logdir_checkpoint *points, *starts;
    size_t opened, failed;
};

static void keep_unopened(struct storage *s, struct slice topic, int32_t partition, int64_t point, int64_t log_start)
{
    struct unopened *u = xcalloc(1, sizeof *u);
    *u = (struct unopened){
        .topic = slice_dup_str(topic), .partition = partition, .recovery_point = point, .log_start = log_start};
    LL_PREPEND(s->unopened, u);
}

static void open_folder(struct storage *s, const char *name, struct start *st)
{
    struct slice topic;
    int32_t partition;
    int64_t point, start, zero = 0;
    char *path = xasprintf("%s/%s", s->dir, name);
    switch (logdir_parse_name(name, &topic, &partition)) {
    case LOGDIR_PARTITION:
        if (slice_eq_str(topic, "__cluster_metadata"))
            break; /* the controller's */
        point = logdir_checkpoint_get(st->points, topic, partition);
        start = logdir_checkpoint_get(st->starts, topic, partition);
        if (replica_open(s, topic, UUID_ZERO, partition, MAX(point, zero), MAX(start, zero), s->was_clean) == 0) {
            st->opened++;
        } else {
            st->failed++;
            keep_unopened(s, topic, partition, point, start);
        }
        break;
    case LOGDIR_DELETED: directory_remove_later(s, TAKE_PTR(path), 0); break;
    case LOGDIR_FUTURE:
    case LOGDIR_STRAY:
    case LOGDIR_OTHER: break;
    }
    free(path);
}

static int read_checkpoints(struct storage *s, struct start *st)
{
    int err = logdir_read_checkpoint(&file_system_real, s->dir, LOGDIR_RECOVERY_POINTS, &st->points);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: every log is checked from its start", s->dir, LOGDIR_RECOVERY_POINTS);
        s->was_clean = false;
        err = 0;
    }
    if (err == 0)
        err = logdir_read_checkpoint(&file_system_real, s->dir, LOGDIR_LOG_STARTS, &st->starts);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: logs start at their first segments", s->dir, LOGDIR_LOG_STARTS);
        err = 0;
    }
    return err;
}

static int open_partitions(struct storage *s)
{
    struct start st = {0};
    struct names n = {0};
    int err = read_checkpoints(s, &st);
    if (err == 0)
        err = file_list(&file_system_real, s->dir, note_name, &n);
    if (err == 0 && n.count > 0)
        qsort(n.at, n.count, sizeof *n.at, by_name);
    for (size_t i = 0; i < n.count; i++) {
        if (err == 0)
            open_folder(s, n.at[i], &st);
        free(n.at[i]);
    }
    free(n.at);
    logdir_checkpoint_free(st.points);
    logdir_checkpoint_free(st.starts);
    if (err < 0)
        log_error("%s: %s", s->dir, strerror(-err));
    else if (st.opened + st.failed > 0)
        log_info("%s: opened %zu partitions after %s%s", s->dir, st.opened,
                 s->was_clean ? "a clean stop" : "a crash or kill", st.failed ? "; some could not be opened" : "");
    return err < 0 ? STATUS_FAILED : 0;
}

int directory_open(struct storage *s)
{
    s->dir = xstrdup(config_log_dir(s->config, s->arena));
    int status = check_identity(s);
    if (status == 0)
        status = take_lock(s);
    if (status != 0)
        return status;
    int clean = logdir_take_clean(&file_system_real, s->dir, &s->previous_epoch);
    if (clean < 0) {
        log_error("%s: %s", s->dir, strerror(-clean));
        return STATUS_FAILED;
    }
    s->was_clean = clean;
    return open_partitions(s);
}

void directory_failed(struct storage *s, int err)
{
    if (s->offline)
        return;
    s->offline = true;
    log_error("%s is offline: %s. It is the only log directory: ending", s->dir, strerror(-err));
    loop_again(s->loop); /* the end begins with the next turn: we may be in the middle of anything */
}

/* ---- checkpoints ---- */

typedef int64_t offset_fn(const struct log *l);

/* Only where it is above what the files say themselves. */
static int64_t checkpointed_start(const struct log *l)
{
    return log_start(l) > log_first_segment(l) ? log_start(l) : -1;
}

struct checkpoint {
    struct storage *storage;
    const char *name;
    struct logdir_offset *offsets;
    size_t count;
    uint32_t crc;
    uint32_t *last_crc;
    int err;
};

static void add_line(struct checkpoint *c, const char *topic, int32_t partition, int64_t offset)
{
    if (offset < 0)
        return;
    c->offsets[c->count++] = (struct logdir_offset){xstrdup(topic), partition, offset};
    c->crc = bytes_crc32c(c->crc, topic, strlen(topic));
    c->crc = bytes_crc32c(c->crc, &partition, sizeof partition);
    c->crc = bytes_crc32c(c->crc, &offset, sizeof offset);
}

static struct checkpoint *gather(struct storage *s, const char *name, offset_fn *fn, uint32_t *last_crc)
{
    struct checkpoint *c = xcalloc(1, sizeof *c);
    struct unopened *u;
    size_t unopened = 0;
    *c = (struct checkpoint){.storage = s, .name = name, .last_crc = last_crc};
    LL_COUNT(s->unopened, u, unopened);
    c->offsets = xcalloc(HASH_COUNT(s->replicas) + unopened + 1, sizeof *c->offsets);
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next)
        add_line(c, r->topic, r->key.partition, fn(r->log));
    LL_FOREACH (s->unopened, u) {
        if (fn == log_recovery_point)
            add_line(c, u->topic, u->partition, u->recovery_point);
        else if (fn == checkpointed_start)
            add_line(c, u->topic, u->partition, u->log_start);
    }
    c->crc += 1; /* 0 is: never written */
    return c;
}

static void write_checkpoint(void *ctx)
{
    struct checkpoint *c = ctx;
    c->err = logdir_write_checkpoint(&file_system_real, c->storage->dir, c->name, c->offsets, c->count);
}

static void checkpoint_free(struct checkpoint *c)
{
    for (size_t i = 0; i < c->count; i++)
        free((char *)(uintptr_t)c->offsets[i].topic);
    free(c->offsets);
    free(c);
}

static int finish_checkpoint(struct checkpoint *c)
{
    struct storage *s = c->storage;
    int err = c->err;
    if (err == 0)
        *c->last_crc = c->crc;
    else
        log_error("%s/%s: %s", s->dir, c->name, strerror(-err));
    checkpoint_free(c);
    if (err < 0 && err != -ENOSPC)
        directory_failed(s, err);
    return err;
}

static void on_written(void *ctx)
{
    struct checkpoint *c = ctx;
    struct storage *s = c->storage;
    s->checkpointing = false;
    (void)finish_checkpoint(c);
    loop_again(s->loop); /* a drain may wait for it */
}

/* On the slow pool, and only when something has changed. One at a time: the next timer brings what this one left out.
 */
static void write_later(struct checkpoint *c)
{
    struct storage *s = c->storage;
    if (s->checkpointing || s->draining || s->offline || c->crc == *c->last_crc) {
        checkpoint_free(c);
        return;
    }
    s->checkpointing = true;
    loop_work(s->loop, write_checkpoint, on_written, c);
}

static int write_now(struct checkpoint *c)
{
    write_checkpoint(c);
    return finish_checkpoint(c);
}

void directory_on_marks(void *ctx)
{
    struct storage *s = ctx;
    write_later(gather(s, LOGDIR_HIGH_WATERMARKS, log_high_watermark, &s->marks_crc));
}

void directory_on_points(void *ctx)
{
    struct storage *s = ctx;
    write_later(gather(s, LOGDIR_RECOVERY_POINTS, log_recovery_point, &s->points_crc));
    /* Here and now, as DeleteRecords does it: two writers of one file would take each other's .tmp away. Rare: only
     * after a retention. */
    struct checkpoint *starts = gather(s, LOGDIR_LOG_STARTS, checkpointed_start, &s->starts_crc);
    if (s->draining || s->offline || starts->crc == s->starts_crc)
        checkpoint_free(starts);
    else
        (void)write_now(starts);
}

int directory_write_starts(struct storage *s)
{
    return write_now(gather(s, LOGDIR_LOG_STARTS, checkpointed_start, &s->starts_crc));
}

/* ---- the clean stop ---- */

/* All logs are flushed first: their recovery points are their ends then, and go into the file before anything is
 * closed. */
static int flush_all(struct storage *s)
{
    for (struct replica *r = s->replicas; r != NULL; r = r->hh.next) {
        int err = log_failed(r->log) ? log_failed(r->log) : log_flush(r->log);
        if (err < 0)
            return err;
    }
    return 0;
}

static int close_logs(struct storage *s)
{
    struct replica *r, *next;
    int err = 0;
    HASH_ITER (hh, s->replicas, r, next) {
        HASH_DEL(s->replicas, r);
        int failed = log_close(r->log, loop_wall_ms(s->loop));
        if (failed < 0)
            log_error("%s-%d: not closed cleanly: %s", r->topic, r->key.partition, strerror(-failed));
        err = err ? err : failed;
        free(r->topic);
        free(r);
    }
    return err;
}

void directory_close(struct storage *s)
{
    size_t count = HASH_COUNT(s->replicas);
    int err = s->offline ? -EIO : flush_all(s);
    if (err == 0)
        err = write_now(gather(s, LOGDIR_RECOVERY_POINTS, log_recovery_point, &s->points_crc));
    if (err == 0)
        err = write_now(gather(s, LOGDIR_HIGH_WATERMARKS, log_high_watermark, &s->marks_crc));
    if (err == 0)
        err = directory_write_starts(s);
    if (err == 0)
        err = close_logs(s);
    /* With the marker the next start would trust the files that this one could not open. */
    if (err == 0 && s->unopened == NULL)
        err = logdir_write_clean(&file_system_real, s->dir, service_epoch(s->service));
    if (err == 0)
        log_info("%s: closed %zu partitions cleanly", s->dir, count);
    else
        log_error("%s: stopped without the clean-stop marker: %s; the next start checks the logs", s->dir,
                  strerror(-err));
}

/* ---- folders of deleted topics ---- */

static void remove_work(void *ctx)
{
    struct removal *r = ctx;
    int err = file_remove_tree(&file_system_real, r->path);
    if (err < 0)
        log_warn("%s: cannot be removed: %s; the next start tries again", r->path, strerror(-err));
}

static void remove_done(void *ctx)
{
    struct removal *r = ctx;
    DL_DELETE(r->storage->removals, r);
    free(r->path);
    free(r);
}

static void on_removal_due(void *ctx)
{
    struct removal *r = ctx;
    r->timer = loop_timer_stop(r->timer);
    loop_work(r->storage->loop, remove_work, remove_done, r);
}

void directory_remove_later(struct storage *s, char *path, int64_t delay_ms)
{
    struct removal *r = xcalloc(1, sizeof *r);
    r->storage = s;
    r->path = path;
    DL_APPEND(s->removals, r);
    r->timer = loop_timer_start(s->loop, (uint64_t)delay_ms, 0, on_removal_due, r);
}

void directory_free(struct storage *s)
{
    struct removal *r, *next;
    DL_FOREACH_SAFE(s->removals, r, next)
    {
        /* What is not yet due is found at the next start, by its name. */
        DL_DELETE(s->removals, r);
        free(r->path);
        free(r);
    }
    struct unopened *u, *next_unopened;
    LL_FOREACH_SAFE(s->unopened, u, next_unopened)
    {
        free(u->topic);
        free(u);
    }
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    free(s->dir);
}
