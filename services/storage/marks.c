/* marks.c - how much a start after a crash has to read: marks in the logs (libs/log/log.h), just before the recovery
 * points are written.
 *
 * Marking costs flushes, of records that the kernel would soon write by itself; so logs are marked only while more than
 * karst.recovery.max.bytes of a directory is unmarked, those with the most first. When they all are, the points are
 * written, without which a mark counts for nothing. */
#include "services/storage/storage.h"
#include <stdlib.h>

struct unmarked {
    struct replica *replica;
    uint64_t bytes;
};

static int most_first(const void *a, const void *b)
{
    const struct unmarked *x = a, *y = b;
    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

/* *ret_list is malloc'ed. */
static size_t unmarked_of(struct directory *d, struct unmarked **ret_list, uint64_t *ret_bytes)
{
    struct unmarked *list = xmalloc((d->replica_count + 1) * sizeof *list);
    size_t count = 0;
    *ret_bytes = 0;
    for (struct replica *r = d->storage->replicas; r != NULL; r = r->hh.next) {
        uint64_t bytes = r->dir == d && log_failed(r->log) == 0 ? log_unmarked_bytes(r->log) : 0;
        if (bytes == 0)
            continue;
        ASSERT(count < d->replica_count);
        list[count++] = (struct unmarked){r, bytes};
        *ret_bytes += bytes;
    }
    *ret_list = list;
    return count;
}

/* False: there is nothing to mark. */
static bool mark(struct directory *d)
{
    uint64_t bytes, most = (uint64_t)config_long(d->storage->config, "karst.recovery.max.bytes");
    struct unmarked *list;
    size_t count = unmarked_of(d, &list, &bytes), i = 0;
    if (bytes > most)
        qsort(list, count, sizeof *list, most_first);
    for (; bytes > most; bytes -= list[i++].bytes)
        flush_want_mark(list[i].replica);
    free(list);
    return i > 0;
}

void marks_on_timer(void *ctx)
{
    struct storage *s = ctx;
    for (size_t i = 0; i < s->dir_count; i++) {
        struct directory *d = &s->dirs[i];
        bool late = d->marking; /* those of the last time are not all done: what is goes into the file */
        d->marking = d->failed == 0 && mark(d);
        if (late || !d->marking)
            checkpoints_write_points(d);
    }
}

void marks_on_round(struct directory *d)
{
    if (!d->marking || d->lanes[FLUSH_LATER].wanted != NULL)
        return;
    d->marking = false;
    checkpoints_write_points(d);
}
