/* files.c - segment files that were given away: front ends on this machine send their bytes to clients themselves.
 *
 * A descriptor of ours for each, so that whoever comes next shares the same. At most FILES_MAX, those used last; one
 * that goes is retired: who was given it lets go when its last answer is sent, and a removed file's room on the disk
 * comes back.
 *
 * I1  an entry's file is its segment's file as it is now, but for what happened since files_check. */
#include "services/storage/storage.h"
#include <stdlib.h>

enum { FILES_MAX = 256 };

struct given_file {
    struct given_file *prev, *next;     /* of the storage */
    struct given_file *r_prev, *r_next; /* of the replica */
    struct replica *replica;
    struct ref_file *file;
    int64_t segment; /* base offset */
    bool used;       /* since the last housekeeping */
};

static void retire(struct storage *s, struct given_file *g)
{
    g->file->retired = true;
    ref_owner_release(&g->file->owner);
    DL_DELETE(s->files, g);
    DL_DELETE2(g->replica->files, g, r_prev, r_next);
    s->file_count--;
    free(g);
}

static struct given_file *find(const struct replica *r, int64_t segment)
{
    struct given_file *g;
    DL_FOREACH2(r->files, g, r_next)
    {
        if (g->segment == segment)
            return g;
    }
    return NULL;
}

static struct given_file *add(struct replica *r, const struct log_range *range)
{
    struct storage *s = r->storage;
    struct log_file file;
    if (log_file(r->log, range, &file) < 0)
        return NULL;
    if (s->file_count == FILES_MAX)
        retire(s, s->files);
    struct given_file *g = xmalloc(sizeof *g);
    *g = (struct given_file){.replica = r, .file = ref_file_new(file.fd, file.instance), .segment = range->segment};
    DL_APPEND(s->files, g);
    DL_PREPEND2(r->files, g, r_prev, r_next);
    s->file_count++;
    return g;
}

struct ref_file *files_get(struct replica *r, const struct log_range *range)
{
    struct storage *s = r->storage;
    struct given_file *g = find(r, range->segment);
    if (g != NULL && !log_has_file(r->log, g->segment, g->file->instance)) {
        retire(s, g);
        g = NULL;
    }
    if (g == NULL)
        g = add(r, range);
    if (g == NULL)
        return NULL;
    g->used = true;
    if (g->next != NULL) {
        DL_DELETE(s->files, g);
        DL_APPEND(s->files, g);
    }
    return g->file;
}

void files_check(struct replica *r)
{
    struct given_file *g, *next;
    DL_FOREACH_SAFE2(r->files, g, next, r_next)
    {
        if (!log_has_file(r->log, g->segment, g->file->instance))
            retire(r->storage, g);
    }
}

void files_drop(struct replica *r)
{
    while (r->files != NULL)
        retire(r->storage, r->files);
}

void files_idle(struct storage *s)
{
    struct given_file *g, *next;
    DL_FOREACH_SAFE(s->files, g, next)
    {
        if (!g->used)
            retire(s, g);
        else
            g->used = false;
    }
}
