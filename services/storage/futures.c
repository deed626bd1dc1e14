/* futures.c - the copies of replicas that were on their way to another directory when the process ended
 * (TOPIC-N.UUID-future).
 *
 *   the replica's folder is there            the move begins again (moves.c); also when the metadata names the new
 *                                            directory already, as the copy lacks what was written since
 *   it is not, and no directory is offline   the copy is whole: it died between the two changes of names, and this is
 *                                            the second
 *   it is not, but may be in one offline     the partition stays closed until that directory is back
 *   the topic is gone, or another            the copy goes */
#include "services/storage/storage.h"
#include <inttypes.h>
#include <stdlib.h>

struct future {
    struct future *next; /* of storage->futures */
    struct directory *dir;
    char *path, *topic;
    int32_t partition;
    struct uuid topic_id;
    int64_t log_start, clean_to; /* -1: no line */
};

static void drop(struct storage *s, struct future *f)
{
    LL_DELETE(s->futures, f);
    free(f->path);
    free(f->topic);
    free(f);
}

void futures_note(struct directory *d, const char *name, struct slice topic, int32_t partition, int64_t log_start,
                  int64_t clean_to)
{
    struct future *f = xcalloc(1, sizeof *f);
    *f = (struct future){.dir = d,
                         .path = xasprintf("%s/%s", d->path, name),
                         .topic = slice_dup_str(topic),
                         .partition = partition,
                         .log_start = log_start,
                         .clean_to = clean_to};
    int err = logdir_read_partition_metadata(&file_system_real, f->path, &f->topic_id);
    if (err < 0)
        f->topic_id = UUID_ZERO;
    LL_PREPEND(d->storage->futures, f);
}

static struct future *find(struct storage *s, struct uuid topic_id, int32_t partition)
{
    struct future *f;
    LL_FOREACH (s->futures, f) {
        if (f->partition == partition && uuid_eq(f->topic_id, topic_id) && f->dir->failed == 0)
            return f;
    }
    return NULL;
}

static void discard(struct storage *s, struct future *f)
{
    char *doomed = xasprintf("%.*s-delete", (int)(strlen(f->path) - strlen("-future")), f->path);
    int err = file_rename(&file_system_real, f->path, doomed);
    log_info("%s is the copy of a move that is not to be: removed", f->path);
    if (err == 0) {
        directory_remove_later(f->dir, TAKE_PTR(doomed), 0);
    } else {
        log_warn("%s: cannot be removed: %s", f->path, strerror(-err));
        free(doomed);
    }
    drop(s, f);
}

/* The second change of names of a move. 0, or -errno of the disk. */
static int complete(struct future *f)
{
    char *target = xasprintf("%s/%s-%" PRId32, f->dir->path, f->topic, f->partition);
    int err = file_rename(&file_system_real, f->path, target);
    if (err == 0)
        err = file_sync_dir(&file_system_real, f->dir->path);
    if (err == 0)
        log_warn("%s is the whole copy of a replica that was moved there: it is the replica now", target);
    else
        log_error("%s: cannot be renamed to %s: %s", f->path, target, strerror(-err));
    free(target);
    return err;
}

bool futures_take(struct storage *s, const struct image_topic *t, int32_t partition, const char **ret_why)
{
    struct future *f = find(s, t->id, partition);
    if (f == NULL)
        return false;
    for (size_t i = 0; i < s->dir_count; i++) {
        if (s->dirs[i].failed == 0)
            continue;
        *ret_why = "only a copy that was being moved is here, and a directory is offline";
        return false;
    }
    int err = complete(f);
    if (err < 0) {
        directory_failed(f->dir, err);
        *ret_why = "its directory has failed";
        return false;
    }
    struct unopened *u = unopened_add(f->dir, t->name, partition);
    u->topic_id = t->id;
    u->log_start = f->log_start;
    u->clean_to = f->clean_to;
    struct directory *d = f->dir;
    drop(s, f);
    opening_more(d);
    return true;
}

void futures_on_opened(struct replica *r)
{
    struct storage *s = r->storage;
    struct future *f, *next;
    if (!service_is_ready(s->service) || !r->known || s->draining)
        return;
    LL_FOREACH_SAFE(s->futures, f, next)
    {
        if (f->dir->failed != 0 || f->partition != r->key.partition || !uuid_eq(f->topic_id, r->key.topic_id))
            continue;
        if (r->dir == f->dir || r->move != NULL) {
            discard(s, f);
        } else {
            moves_start(r, f->dir, f->path);
            drop(s, f);
        }
    }
}

void futures_on_ready(struct storage *s)
{
    struct future *f, *next;
    struct replica *r, *next_replica;
    LL_FOREACH_SAFE(s->futures, f, next)
    {
        const struct image_topic *t = image_topic_by_id(s->image, f->topic_id);
        if (f->dir->failed == 0 && (t == NULL || image_partition(t, f->partition) == NULL))
            discard(s, f);
    }
    if (s->futures != NULL)
        HASH_ITER (hh, s->replicas, r, next_replica)
            futures_on_opened(r);
}

void futures_free(struct storage *s)
{
    while (s->futures != NULL)
        drop(s, s->futures);
}
