/* unopened.c - the partitions of a directory whose logs are not open: those that it holds at the start, those that are
 * about to be made, and those that cannot be opened. */
#include "services/storage/storage.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the table ---- */

struct unopened *unopened_find(struct directory *d, struct slice topic, int32_t partition)
{
    struct unopened *u;
    char name[300];
    int n = snprintf(name, sizeof name, SLICE_F "-%" PRId32, SLICE_A(topic), partition);
    if (d->unopened == NULL || n < 0 || (size_t)n >= sizeof name)
        return NULL;
    HASH_FIND(hh, d->unopened, name, (size_t)n, u);
    return u;
}

struct unopened *unopened_add(struct directory *d, struct slice topic, int32_t partition)
{
    struct unopened *u = xcalloc(1, sizeof *u);
    *u = (struct unopened){.dir = d,
                           .topic = slice_dup_str(topic),
                           .partition = partition,
                           .name = xasprintf(SLICE_F "-%" PRId32, SLICE_A(topic), partition),
                           .state = UNOPENED_STAYS,
                           .recovery_point = -1,
                           .log_start = -1,
                           .high_mark = -1,
                           .clean_to = -1};
    HASH_ADD_KEYPTR(hh, d->unopened, u->name, strlen(u->name), u);
    unopened_wait(u);
    return u;
}

void unopened_wait(struct unopened *u)
{
    ASSERT(u->state != UNOPENED_WAITS);
    u->state = UNOPENED_WAITS;
    u->err = 0;
    free(TAKE_PTR(u->why));
    DL_APPEND(u->dir->waiting, u);
    u->dir->waiting_count++;
}

static void wait_no_more(struct unopened *u)
{
    if (u->state != UNOPENED_WAITS)
        return;
    DL_DELETE(u->dir->waiting, u);
    u->dir->waiting_count--;
}

void unopened_run(struct unopened *u)
{
    wait_no_more(u);
    u->state = UNOPENED_RUNS;
}

void unopened_stay(struct unopened *u, int err, char *why)
{
    wait_no_more(u);
    u->state = UNOPENED_STAYS;
    u->err = err;
    free(u->why);
    u->why = why;
}

void unopened_remove(struct unopened *u)
{
    ASSERT(u->state != UNOPENED_RUNS);
    wait_no_more(u);
    HASH_DEL(u->dir->unopened, u);
    free(u->name);
    free(u->topic);
    free(u->why);
    free(u);
}

const char *unopened_reason(const struct unopened *u)
{
    return u->why != NULL         ? u->why
           : u->err == 0          ? "its directory has failed"
           : u->err == -EBADMSG   ? "its files are damaged"
           : u->err == -EEXIST    ? "it is of another topic of the same name"
           : u->err == -ENOTUNIQ  ? "another folder holds the same partition"
           : u->err == -ECANCELED ? "the stop came first"
                                  : strerror(-u->err);
}

bool unopened_may_pass(int err)
{
    return err == -ENOSPC || err == -EDQUOT || err == -EMFILE || err == -ENFILE || err == -ENOMEM;
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

struct checkpoints {
    struct logdir_checkpoint *points, *starts, *marks, *cleaned;
};

static void note_folder(struct directory *d, const char *name, const struct checkpoints *c)
{
    struct slice topic;
    int32_t partition;
    struct unopened *u;
    switch (logdir_parse_name(name, &topic, &partition)) {
    case LOGDIR_PARTITION:
        if (slice_eq_str(topic, "__cluster_metadata"))
            return; /* the controller's */
        u = unopened_add(d, topic, partition);
        u->recovery_point = logdir_checkpoint_get(c->points, topic, partition);
        u->log_start = logdir_checkpoint_get(c->starts, topic, partition);
        u->high_mark = logdir_checkpoint_get(c->marks, topic, partition);
        u->clean_to = logdir_checkpoint_get(c->cleaned, topic, partition);
        return;
    case LOGDIR_DELETED: directory_remove_later(d, xasprintf("%s/%s", d->path, name), 0); return;
    case LOGDIR_FUTURE:
        futures_note(d, name, topic, partition, logdir_checkpoint_get(c->starts, topic, partition),
                     logdir_checkpoint_get(c->cleaned, topic, partition));
        return;
    case LOGDIR_STRAY:
    case LOGDIR_OTHER: return;
    }
}

static int read_checkpoints(struct directory *d, struct checkpoints *c)
{
    const struct file_system *fs = &file_system_real;
    int err = logdir_read_checkpoint(fs, d->path, LOGDIR_RECOVERY_POINTS, &c->points);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: every log is checked from its start", d->path, LOGDIR_RECOVERY_POINTS);
        d->was_clean = false;
        err = 0;
    }
    if (err == 0)
        err = logdir_read_checkpoint(fs, d->path, LOGDIR_LOG_STARTS, &c->starts);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: logs start at their first segments", d->path, LOGDIR_LOG_STARTS);
        err = 0;
    }
    if (err == 0)
        err = logdir_read_checkpoint(fs, d->path, LOGDIR_HIGH_WATERMARKS, &c->marks);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: it is written anew", d->path, LOGDIR_HIGH_WATERMARKS);
        err = 0;
    }
    if (err == 0)
        err = logdir_read_checkpoint(fs, d->path, LOGDIR_CLEANED, &c->cleaned);
    if (err == -EBADMSG) {
        log_warn("%s/%s is damaged: compaction begins at the starts of the logs again", d->path, LOGDIR_CLEANED);
        err = 0;
    }
    return err;
}

int directory_list(struct directory *d)
{
    struct checkpoints c = {0};
    struct names n = {0};
    int err = read_checkpoints(d, &c);
    /* What is missing here may decide what becomes of a copy in another directory: a power cut must not bring it back.
     */
    if (err == 0)
        err = file_sync_dir(&file_system_real, d->path);
    if (err == 0)
        err = file_list(&file_system_real, d->path, note_name, &n);
    if (err == 0 && n.count > 0)
        qsort(n.at, n.count, sizeof *n.at, by_name);
    for (size_t i = 0; i < n.count; i++) {
        if (err == 0)
            note_folder(d, n.at[i], &c);
        free(n.at[i]);
    }
    free(n.at);
    /* A power cut may have taken folders of which they have lines. */
    d->names_gone = c.points != NULL || c.starts != NULL || c.marks != NULL || c.cleaned != NULL;
    logdir_checkpoint_free(c.points);
    logdir_checkpoint_free(c.starts);
    logdir_checkpoint_free(c.marks);
    logdir_checkpoint_free(c.cleaned);
    if (err < 0)
        log_error("%s is offline: %s", d->path, strerror(-err));
    return err;
}
