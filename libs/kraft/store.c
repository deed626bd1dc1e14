/* store.c - log, snapshots and quorum-state on disk. */
#include "libs/kraft/store.h"

#include <stdio.h>
#include <stdlib.h>

#include "libs/base/log.h"
#include "libs/kraft/snapshot.h"
#include "libs/log/logdir.h"

enum { STATE_MAX = 64 << 10, SNAPSHOT_MAX = 1 << 30, ROLL_MIN = 1 << 20 };

struct kraft_store {
    const struct file_system *fs;
    char *dir;
    struct log *log;
    struct kraft_quorum_state state;
    bool has_state;
    int64_t snapshot_end; /* -1: none */
    int32_t snapshot_epoch;
    char *snapshot; /* its bytes; NULL: not in memory */
    size_t snapshot_size;
    uint64_t since_snapshot, roll_bytes;
    uint8_t **staged; /* batches in their turn: log_stage wants them until log_commit */
    size_t staged_count, staged_room;
    log_note_fn *note; /* may be NULL */
    void *note_ctx;
};

static int fail(char **ret_message, int error, const char *what, const char *where)
{
    *ret_message = xasprintf("%s: %s: %s", where, what, strerror(-error));
    return error;
}

/* ---- flushing ---- */

/* A flush that fails is final, for the next life, too: the kernel takes its pages for written from then on, so a start
 * that has read them could vote for, and commit, what only memory holds. The note makes it write them again. A log that
 * is opened flushes as well, what it cuts and closes. */
static int note_failed(struct kraft_store *s, int error)
{
    if (error != 0 && logdir_note_failed_flush(s->fs, s->dir) != 0 && s->note != NULL)
        s->note(s->note_ctx, LOG_ERROR,
                "a flush of the metadata log failed, and that cannot be noted: unmount the directory before the next "
                "start");
    return error;
}

static int flush(struct kraft_store *s)
{
    return note_failed(s, log_flush(s->log));
}

/* ---- snapshots ---- */

static int read_snapshot(struct kraft_store *s, int64_t end, int32_t epoch)
{
    char name[KRAFT_SNAPSHOT_NAME];
    kraft_snapshot_name(end, epoch, name);
    char *path = xasprintf("%s/%s", s->dir, name), *data = NULL;
    size_t size = 0;
    int error = file_slurp(s->fs, path, SNAPSHOT_MAX, &data, &size);
    free(path);
    if (error == 0 && !kraft_snapshot_is_whole(slice_make(data, size))) {
        free(data);
        error = -EBADMSG;
    }
    if (error != 0)
        return error;
    free(s->snapshot);
    s->snapshot = data;
    s->snapshot_size = size;
    return 0;
}

struct found {
    int64_t end;
    int32_t epoch;
};

struct finding {
    struct found *all;
    size_t count;
};

static void find_snapshot(void *arg, const char *name)
{
    struct finding *f = arg;
    struct found one;
    if (!kraft_snapshot_parse_name(name, &one.end, &one.epoch))
        return;
    f->all = xrealloc(f->all, (f->count + 1) * sizeof *f->all);
    f->all[f->count++] = one;
}

static int newest_first(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->end != y->end ? (x->end < y->end) - (x->end > y->end) : (x->epoch < y->epoch) - (x->epoch > y->epoch);
}

/* The newest one that is whole. One that is not is left alone: a person may want to see it. */
static int find_newest(struct kraft_store *s)
{
    struct finding f = {0};
    int error = file_list(s->fs, s->dir, find_snapshot, &f);
    s->snapshot_end = -1;
    if (f.count > 0)
        qsort(f.all, f.count, sizeof f.all[0], newest_first);
    for (size_t i = 0; error == 0 && i < f.count && s->snapshot_end < 0; i++) {
        error = read_snapshot(s, f.all[i].end, f.all[i].epoch);
        if (error == 0) {
            s->snapshot_end = f.all[i].end;
            s->snapshot_epoch = f.all[i].epoch;
        } else if (error == -EBADMSG) {
            error = 0;
        }
    }
    free(f.all);
    return error;
}

struct slice kraft_store_snapshot(struct kraft_store *s, int64_t *ret_end_offset, int32_t *ret_epoch)
{
    if (s->snapshot_end >= 0 && s->snapshot == NULL && read_snapshot(s, s->snapshot_end, s->snapshot_epoch) != 0)
        return SLICE_NULL;
    if (s->snapshot_end < 0)
        return SLICE_NULL;
    *ret_end_offset = s->snapshot_end;
    *ret_epoch = s->snapshot_epoch;
    return slice_make(s->snapshot, s->snapshot_size);
}

bool kraft_store_has_snapshot(const struct kraft_store *s, int64_t *ret_end_offset, int32_t *ret_epoch)
{
    if (s->snapshot_end < 0)
        return false;
    *ret_end_offset = s->snapshot_end;
    *ret_epoch = s->snapshot_epoch;
    return true;
}

void kraft_store_forget(struct kraft_store *s)
{
    free(s->snapshot);
    s->snapshot = NULL;
}

static void remove_older_snapshots(struct kraft_store *s)
{
    struct finding f = {0};
    if (file_list(s->fs, s->dir, find_snapshot, &f) == 0)
        for (size_t i = 0; i < f.count; i++) {
            if (f.all[i].end >= s->snapshot_end)
                continue;
            char name[KRAFT_SNAPSHOT_NAME];
            kraft_snapshot_name(f.all[i].end, f.all[i].epoch, name);
            char *path = xasprintf("%s/%s", s->dir, name);
            file_unlink(s->fs, path); /* what stays is removed the next time */
            free(path);
        }
    free(f.all);
}

int kraft_store_put_snapshot(struct kraft_store *s, int64_t end_offset, int32_t epoch, struct slice bytes,
                             int64_t now_wall_ms)
{
    char name[KRAFT_SNAPSHOT_NAME];
    kraft_snapshot_name(end_offset, epoch, name);
    int error = file_replace(s->fs, s->dir, name, bytes.data, bytes.size, true);
    if (error != 0)
        return error;
    kraft_store_forget(s);
    s->snapshot_end = end_offset;
    s->snapshot_epoch = epoch;
    bool is_big = s->since_snapshot >= s->roll_bytes;
    s->since_snapshot = 0;
    remove_older_snapshots(s);
    if (!is_big)
        return 0;
    /* A new segment, so that the old ones can go and the next start has little to check. */
    error = log_roll(s->log, now_wall_ms);
    if (error == 0)
        error = log_delete_before(s->log, end_offset);
    int removed = error == 0 ? log_retain(s->log, now_wall_ms) : error;
    return removed < 0 ? removed : 0;
}

uint64_t kraft_store_bytes_since_snapshot(const struct kraft_store *s)
{
    return s->since_snapshot;
}

/* ---- quorum-state ---- */

static int read_state(struct kraft_store *s)
{
    char *path = xasprintf("%s/quorum-state", s->dir), *data = NULL;
    size_t size = 0;
    int error = file_slurp(s->fs, path, STATE_MAX, &data, &size);
    free(path);
    if (error == -ENOENT)
        return 0;
    if (error == 0)
        error = kraft_quorum_state_decode(slice_make(data, size), &s->state);
    free(data);
    s->has_state = error == 0;
    return error;
}

bool kraft_store_state(const struct kraft_store *s, struct kraft_quorum_state *ret_state)
{
    if (s->has_state)
        *ret_state = s->state;
    return s->has_state;
}

int kraft_store_save_state(struct kraft_store *s, const struct kraft_quorum_state *state)
{
    struct buf b CLEANUP(buf_free) = {0};
    kraft_quorum_state_encode(state, &b);
    int error = file_replace(s->fs, s->dir, "quorum-state", b.data, b.size, true);
    if (error == 0) {
        s->state = *state;
        s->has_state = true;
    }
    return error;
}

/* ---- the log ---- */

/* The metadata log keeps everything but what a snapshot replaces: no retention by time or size. */
static void fill_log_config(const struct kraft_store_options *o, struct log_config *c)
{
    log_config_init(c);
    c->segment_bytes = o->segment_bytes;
    c->segment_ms = o->segment_ms;
    c->retention_ms = -1;
    c->retention_bytes = -1;
    c->max_message_bytes = INT32_MAX;
    c->file_delete_delay_ms = 0;
}

static int open_log(struct kraft_store *s, const struct kraft_store_options *o)
{
    struct log_options options = {
        .fs = o->fs,
        .dir = s->dir,
        .topic_id = UUID_METADATA_TOPIC,
        .now_wall_ms = o->now_wall_ms,
        .note = o->note,
        .note_ctx = o->note_ctx,
    };
    int failed_flush = logdir_had_failed_flush(o->fs, s->dir);
    fill_log_config(o, &options.config);
    options.rewrite = failed_flush == 1;
    int error = failed_flush < 0 ? failed_flush : log_open(&options, &s->log);
    if (error == -EIO || error == -ENOSPC || error == -EDQUOT)
        (void)note_failed(s, error);
    if (error == 0 && s->snapshot_end > log_end(s->log))
        error = log_restart_at(s->log, s->snapshot_end, o->now_wall_ms);
    /* What a killed process left may be in memory only, and from here on it counts as durable. */
    if (error == 0)
        error = flush(s);
    return error == 0 && failed_flush == 1 ? logdir_forget_failed_flush(o->fs, s->dir) : error;
}

int kraft_store_open(const struct kraft_store_options *o, struct kraft_store **ret_store, char **ret_message)
{
    struct kraft_store *s = xcalloc(1, sizeof *s);
    s->fs = o->fs;
    s->note = o->note;
    s->note_ctx = o->note_ctx;
    s->roll_bytes = o->roll_bytes > 0 ? o->roll_bytes : ROLL_MIN;
    s->dir = xasprintf("%s/__cluster_metadata-0", o->log_dir);
    int error = file_mkdir(s->fs, s->dir);
    const char *what = "make the folder";
    if (error == 0 || error == -EEXIST) { /* that life may have ended before its name was durable */
        what = "make the folder's name durable";
        error = file_sync_dir(s->fs, o->log_dir);
    }
    if (error == 0) {
        what = "read quorum-state";
        error = read_state(s);
    }
    if (error == 0) {
        what = "read the snapshots";
        error = find_newest(s);
    }
    if (error == 0) {
        what = "open the log";
        error = open_log(s, o);
    }
    if (error == 0 && log_start(s->log) > MAX(s->snapshot_end, 0)) {
        what = "the log starts behind the newest whole snapshot";
        error = -EBADMSG;
    }
    if (error != 0) {
        fail(ret_message, error, what, s->dir);
        (void)!kraft_store_close(s, o->now_wall_ms); /* the first error is the one to tell */
        return error;
    }
    s->since_snapshot = log_size_bytes(s->log);
    *ret_store = s;
    return 0;
}

static void drop_staged(struct kraft_store *s)
{
    for (size_t i = 0; i < s->staged_count; i++)
        free(s->staged[i]);
    s->staged_count = 0;
}

int kraft_store_close(struct kraft_store *s, int64_t now_wall_ms)
{
    if (s == NULL)
        return 0;
    int error = s->log != NULL ? note_failed(s, log_close(s->log, now_wall_ms)) : 0;
    drop_staged(s);
    free(s->staged);
    free(s->snapshot);
    free(s->dir);
    free(s);
    return error;
}

int64_t kraft_store_start(const struct kraft_store *s)
{
    return log_start(s->log);
}

int64_t kraft_store_end(const struct kraft_store *s)
{
    return log_end(s->log);
}

int32_t kraft_store_last_epoch(const struct kraft_store *s)
{
    int32_t of_snapshot = s->snapshot_end >= 0 ? s->snapshot_epoch : 0;
    return MAX(log_latest_epoch(s->log), of_snapshot);
}

/* Of bytes that may end within a batch: how many are whole batches. */
static size_t whole_batches(struct slice bytes)
{
    struct slice rest = bytes, one;
    struct batch b;
    size_t whole = 0;
    while (batch_next(&rest, &b, &one) == 1)
        whole += one.size;
    return whole;
}

int kraft_store_read(struct kraft_store *s, int64_t offset, int64_t end, size_t max_bytes, struct buf *out)
{
    struct log_range range;
    enum kafka_error located = log_locate(s->log, offset, end, max_bytes, true, &range);
    if (located == KERR_OFFSET_OUT_OF_RANGE)
        return -ERANGE;
    if (located != KERR_NONE)
        return -EIO;
    size_t start = out->size;
    if (range.size_bytes == 0)
        return 0;
    int error = log_copy(s->log, &range, buf_grow(out, range.size_bytes));
    out->size = start + (error == 0 ? whole_batches(slice_make(out->data + start, range.size_bytes)) : 0);
    return error;
}

int kraft_store_stage(struct kraft_store *s, struct slice batch, int64_t now_wall_ms)
{
    uint8_t *copy = xmalloc(batch.size);
    memcpy(copy, batch.data, batch.size);
    if (s->staged_count == s->staged_room) {
        s->staged_room = s->staged_room * 2 + 8;
        s->staged = xrealloc(s->staged, s->staged_room * sizeof *s->staged);
    }
    s->staged[s->staged_count++] = copy;
    struct log_append append = {
        .bytes = copy, .size = batch.size, .origin = LOG_FROM_LEADER, .now_wall_ms = now_wall_ms};
    enum kafka_error error = log_stage(s->log, &append);
    free(append.record_errors);
    if (error != KERR_NONE)
        return log_failed(s->log) != 0 ? log_failed(s->log) : -EINVAL;
    s->since_snapshot += batch.size;
    return 0;
}

int kraft_store_truncate(struct kraft_store *s, int64_t offset)
{
    int error = kraft_store_has_staged(s) ? kraft_store_commit(s) : 0;
    if (error == 0)
        error = log_truncate(s->log, offset);
    return error != 0 ? error : flush(s);
}

/* The snapshot first: a start that finds both cuts off what the log lacks. */
int kraft_store_install(struct kraft_store *s, int64_t end_offset, int32_t epoch, struct slice bytes,
                        int64_t now_wall_ms)
{
    char name[KRAFT_SNAPSHOT_NAME];
    kraft_snapshot_name(end_offset, epoch, name);
    int error = kraft_store_has_staged(s) ? kraft_store_commit(s) : 0;
    if (error == 0)
        error = file_replace(s->fs, s->dir, name, bytes.data, bytes.size, true);
    if (error == 0)
        error = log_restart_at(s->log, end_offset, now_wall_ms);
    if (error == 0)
        error = flush(s);
    if (error != 0)
        return error;
    kraft_store_forget(s);
    s->snapshot_end = end_offset;
    s->snapshot_epoch = epoch;
    s->since_snapshot = 0;
    remove_older_snapshots(s);
    return 0;
}

/* From the last epoch back: each one ends where the next begins. The first one may begin behind the start: a power cut
 * brings segments back that were let go, and not what was known of them. */
void kraft_store_epochs(const struct kraft_store *s, struct kraft_epoch_start **ret_epochs, size_t *ret_count)
{
    struct kraft_epoch_start *all = NULL;
    size_t count = 0;
    int64_t end = log_end(s->log), start = log_start(s->log);
    int32_t epoch = log_latest_epoch(s->log);
    while (epoch >= 0 && end > start) {
        all = xrealloc(all, (count + 1) * sizeof *all);
        all[count++] = (struct kraft_epoch_start){epoch, start};
        if (epoch == 0)
            break;
        log_end_of_epoch(s->log, epoch - 1, &epoch, &end);
        if (end > start)
            all[count - 1].start = end;
        if (end > start && log_epoch_of_offset(s->log, end - 1) != epoch)
            break;
    }
    for (size_t i = 0; i < count / 2; i++) {
        struct kraft_epoch_start one = all[i];
        all[i] = all[count - 1 - i];
        all[count - 1 - i] = one;
    }
    *ret_epochs = all;
    *ret_count = count;
}

bool kraft_store_has_staged(const struct kraft_store *s)
{
    return s->staged_count > 0;
}

int kraft_store_commit(struct kraft_store *s)
{
    int error = log_check_alone(s->log);
    if (error == 0)
        error = log_commit(s->log);
    if (error == 0)
        error = flush(s);
    drop_staged(s);
    return error;
}
