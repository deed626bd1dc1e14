/* unopened.c - the partitions that are in a directory at the start, and those whose logs cannot be opened. */
#include "services/storage/storage.h"
#include <inttypes.h>
#include <stdlib.h>

/* ---- the table ---- */

struct unopened *unopened_find(struct directory *d, struct slice topic, int32_t partition)
{
    struct unopened *u;
    if (d->unopened == NULL)
        return NULL;
    char *name = xasprintf(SLICE_F "-%" PRId32, SLICE_A(topic), partition);
    HASH_FIND_STR(d->unopened, name, u);
    free(name);
    return u;
}

void unopened_add(struct directory *d, struct slice topic, int32_t partition, const struct unopened *lines)
{
    struct unopened *u = unopened_find(d, topic, partition);
    if (u == NULL) {
        u = xcalloc(1, sizeof *u);
        u->name = xasprintf(SLICE_F "-%" PRId32, SLICE_A(topic), partition);
        u->recovery_point = u->log_start = u->high_mark = u->clean_to = -1;
        HASH_ADD_KEYPTR(hh, d->unopened, u->name, strlen(u->name), u);
    }
    if (lines != NULL) {
        u->recovery_point = lines->recovery_point;
        u->log_start = lines->log_start;
        u->high_mark = lines->high_mark;
        u->clean_to = lines->clean_to;
    }
}

void unopened_remove(struct directory *d, struct unopened *u)
{
    HASH_DEL(d->unopened, u);
    free(u->name);
    free(u);
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
    struct logdir_checkpoint *points, *starts, *marks, *cleaned;
    size_t opened, failed;
};

static void open_folder(struct directory *d, const char *name, struct start *st)
{
    struct slice topic;
    int32_t partition;
    struct unopened lines = {0};
    switch (logdir_parse_name(name, &topic, &partition)) {
    case LOGDIR_PARTITION:
        if (slice_eq_str(topic, "__cluster_metadata"))
            return; /* the controller's */
        lines.recovery_point = logdir_checkpoint_get(st->points, topic, partition);
        lines.log_start = logdir_checkpoint_get(st->starts, topic, partition);
        lines.high_mark = logdir_checkpoint_get(st->marks, topic, partition);
        lines.clean_to = logdir_checkpoint_get(st->cleaned, topic, partition);
        if (replica_open(d, topic, UUID_ZERO, partition, &lines) == 0) {
            st->opened++;
        } else {
            st->failed++;
            unopened_add(d, topic, partition, &lines);
        }
        return;
    case LOGDIR_DELETED: directory_remove_later(d, xasprintf("%s/%s", d->path, name), 0); return;
    case LOGDIR_FUTURE:
    case LOGDIR_STRAY:
    case LOGDIR_OTHER: return;
    }
}

static int read_checkpoints(struct directory *d, struct start *st)
{
    const struct file_system *fs = &file_system_real;
    int err = logdir_read_checkpoint(fs, d->path, LOGDIR_RECOVERY_POINTS, &st->points);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: every log is checked from its start", d->path, LOGDIR_RECOVERY_POINTS);
        d->was_clean = false;
        err = 0;
    }
    if (err == 0)
        err = logdir_read_checkpoint(fs, d->path, LOGDIR_LOG_STARTS, &st->starts);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: logs start at their first segments", d->path, LOGDIR_LOG_STARTS);
        err = 0;
    }
    if (err == 0)
        err = logdir_read_checkpoint(fs, d->path, LOGDIR_HIGH_WATERMARKS, &st->marks);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: it is written anew", d->path, LOGDIR_HIGH_WATERMARKS);
        err = 0;
    }
    if (err == 0)
        err = logdir_read_checkpoint(fs, d->path, LOGDIR_CLEANED, &st->cleaned);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: compaction begins at the starts of the logs again", d->path, LOGDIR_CLEANED);
        err = 0;
    }
    return err;
}

int directory_open_partitions(struct directory *d)
{
    struct start st = {0};
    struct names n = {0};
    int err = read_checkpoints(d, &st);
    if (err == 0)
        err = file_list(&file_system_real, d->path, note_name, &n);
    if (err == 0 && n.count > 0)
        qsort(n.at, n.count, sizeof *n.at, by_name);
    for (size_t i = 0; i < n.count; i++) {
        if (err == 0)
            open_folder(d, n.at[i], &st);
        free(n.at[i]);
    }
    free(n.at);
    logdir_checkpoint_free(st.points);
    logdir_checkpoint_free(st.starts);
    logdir_checkpoint_free(st.marks);
    logdir_checkpoint_free(st.cleaned);
    if (err < 0)
        log_error("%s is offline: %s", d->path, strerror(-err));
    else if (st.opened + st.failed > 0)
        log_info("%s: opened %zu partitions after %s%s", d->path, st.opened,
                 d->was_clean ? "a clean stop" : "a crash or kill", st.failed ? "; some could not be opened" : "");
    return err;
}
