/* disk_names.c - the names of a disk's files and folders, and what is noted of their changes until it is durable. */
#include "tests/sim/disk_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

struct name *disk_find(const struct disk *d, const char *path)
{
    struct name *n;
    HASH_FIND_STR(d->names, path, n);
    return n;
}

static void folder_of(const char *path, char folder[PATH_MAX_BYTES])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, path, n);
    folder[n] = '\0';
}

void disk_drop_name(struct disk *d, struct name *n)
{
    disk_release(n->node);
    HASH_DEL(d->names, n);
    free(n);
}

void disk_set_name(struct disk *d, const char *path, struct node *node)
{
    struct name *n = disk_find(d, path);

    if (n == NULL && node != NULL) {
        n = xcalloc(1, sizeof *n);
        memcpy(n->path, path, strlen(path) + 1);
        HASH_ADD_STR(d->names, path, n);
    }
    if (n != NULL && node == NULL) {
        disk_drop_name(d, n);
        return;
    }
    if (n == NULL)
        return;
    disk_hold(node);
    disk_release(n->node);
    n->node = node;
}

static struct folder *find_folder(const struct disk *d, const char *path)
{
    struct folder *f;
    HASH_FIND_STR(d->folders, path, f);
    return f;
}

static struct folder *get_folder(struct disk *d, const char *path)
{
    struct folder *f = find_folder(d, path);
    if (f == NULL) {
        f = xcalloc(1, sizeof *f);
        memcpy(f->path, path, strlen(path) + 1);
        HASH_ADD_STR(d->folders, path, f);
    }
    return f;
}

void disk_change_name(struct disk *d, const char *path, struct node *node)
{
    struct change *c = xmalloc(sizeof *c);
    struct name *n = disk_find(d, path);
    char folder[PATH_MAX_BYTES];

    folder_of(path, folder);
    memcpy(c->path, path, strlen(path) + 1);
    c->folder = get_folder(d, folder);
    c->before = disk_hold(n ? n->node : NULL);
    c->step = d->step;
    c->first = NULL;
    c->decided = c->lost = false;
    DL_APPEND(d->changes_undone, c);
    DL_APPEND2(c->folder->changes, c, folder_prev, folder_next);
    disk_set_name(d, path, node);
}

void disk_drop_change(struct disk *d, struct change *c)
{
    struct folder *f = c->folder;
    disk_release(c->before);
    DL_DELETE(d->changes_undone, c);
    DL_DELETE2(f->changes, c, folder_prev, folder_next);
    free(c);
    if (f->changes != NULL)
        return;
    HASH_DEL(d->folders, f);
    free(f);
}

bool disk_parent_exists(const struct disk *d, const char *path)
{
    char folder[PATH_MAX_BYTES];
    folder_of(path, folder);
    struct name *n = disk_find(d, folder);
    return folder[0] == '\0' || (n != NULL && n->node->is_dir);
}

/* The changes of a step follow each other, and go together. */
static void drop_step(struct disk *d, struct change *c)
{
    uint32_t step = c->step;
    while (c != d->changes_undone && c->prev->step == step)
        c = c->prev;
    for (struct change *next; c != NULL && c->step == step; c = next) {
        next = c->next;
        disk_drop_change(d, c);
    }
}

void disk_forget_changes(struct disk *d, const char *folder)
{
    struct folder *f;
    while ((f = find_folder(d, folder)) != NULL) /* it goes with its last change */
        drop_step(d, f->changes);
}

static bool is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] == '/';
}

static bool is_empty(const struct disk *d, const char *folder)
{
    for (const struct name *n = d->names; n != NULL; n = n->hh.next) {
        if (is_below(n->path, folder))
            return false;
    }
    return true;
}

/* What is in a folder goes with it. The change of the folder's own name is what a power cut may undo; the paths below
 * follow it. */
static void move_content(struct disk *d, const char *from, const char *to)
{
    struct name *n, *next;
    struct change *c, *next_change;
    size_t skip = strlen(from);

    /* What happened in the folder before is durable with it: undone later, it would come back under a name that may be
     * another folder's by then. A journal keeps the order. */
    DL_FOREACH_SAFE(d->changes_undone, c, next_change)
    {
        if (c->step != d->step && (strcmp(c->folder->path, from) == 0 || is_below(c->folder->path, from)))
            disk_drop_change(d, c);
    }

    HASH_ITER (hh, d->names, n, next) {
        char path[PATH_MAX_BYTES];
        if (!is_below(n->path, from) || strlen(to) + strlen(n->path) - skip >= sizeof path)
            continue;
        snprintf(path, sizeof path, "%.*s%s", 250, to, n->path + skip);
        struct node *node = n->node;
        disk_change_name(d, path, node);
        disk_change_name(d, n->path, NULL);
    }
}

int disk_rename(void *ctx, const char *from, const char *to)
{
    struct disk *d = ctx;
    struct name *n = d->dead ? NULL : disk_find(d, from);
    int error = n ? disk_admit(d, CALL_CHANGES) : d->dead ? -EIO : -ENOENT;

    if (error)
        return error;
    if (strlen(to) >= 250 || !disk_parent_exists(d, to))
        return -ENOENT;
    if (strcmp(from, to) == 0)
        return 0;
    struct node *node = n->node;
    d->step++;
    disk_change_name(d, to, node);
    disk_change_name(d, from, NULL);
    if (node->is_dir)
        move_content(d, from, to);
    return 0;
}

int disk_unlink(void *ctx, const char *path)
{
    struct disk *d = ctx;
    struct name *n = d->dead ? NULL : disk_find(d, path);
    int error = n ? disk_admit(d, CALL_CHANGES) : d->dead ? -EIO : -ENOENT;

    if (error)
        return error;
    if (n->node->is_dir)
        return -EISDIR;
    d->step++;
    d->used -= n->node->now.size;
    disk_change_name(d, path, NULL);
    return 0;
}

int disk_mkdir(void *ctx, const char *path)
{
    struct disk *d = ctx;

    if (d->dead)
        return -EIO;
    if (disk_find(d, path))
        return -EEXIST;
    if (!disk_parent_exists(d, path) || strlen(path) >= PATH_MAX_BYTES)
        return -ENOENT;
    int error = disk_admit(d, CALL_TAKES_ROOM);
    if (error)
        return error;
    d->step++;
    disk_change_name(d, path, disk_new_node(d, true));
    return 0;
}

int disk_rmdir(void *ctx, const char *path)
{
    struct disk *d = ctx;
    struct name *n = d->dead ? NULL : disk_find(d, path);

    if (n == NULL)
        return d->dead ? -EIO : -ENOENT;
    if (!is_empty(d, path))
        return -ENOTEMPTY;
    int error = disk_admit(d, CALL_CHANGES);
    if (error)
        return error;
    d->step++;
    disk_change_name(d, path, NULL);
    return 0;
}

int disk_sync_dir(void *ctx, const char *path)
{
    struct disk *d = ctx;
    int error = disk_admit(d, CALL_CHANGES);

    if (error == 0)
        disk_forget_changes(d, path);
    return error;
}

int disk_list(void *ctx, const char *path, file_list_fn *fn, void *arg)
{
    struct disk *d = ctx;
    size_t n = strlen(path), count = 0, room = 0;
    char(*names)[PATH_MAX_BYTES] = NULL;

    int error = disk_admit(d, CALL_READS);
    if (error)
        return error;
    if (disk_find(d, path) == NULL)
        return -ENOENT;
    for (const struct name *e = d->names; e != NULL; e = e->hh.next) {
        if (!is_below(e->path, path) || strchr(e->path + n + 1, '/'))
            continue;
        if (count == room)
            names = xrealloc(names, (room = room * 2 + 16) * sizeof *names);
        memcpy(names[count++], e->path + n + 1, strlen(e->path + n + 1) + 1);
    }
    for (size_t i = 0; i < count; i++)
        fn(arg, names[i]);
    free(names);
    return 0;
}
