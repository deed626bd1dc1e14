/* disk_power.c - what a power cut leaves. */
#include "tests/sim/disk_internal.h"

#include <stdlib.h>
#include <utlist.h>

/* Old or new bytes, grain by grain, and a size between the two. */
static void tear(struct disk *d, struct node *f)
{
    uint64_t low = MIN(f->synced_size, f->now_size), high = MAX(f->synced_size, f->now_size);
    uint64_t size = high == low || disk_below(d, 3) == 0 ? f->now_size : low + disk_below(d, high - low + 1);
    uint64_t grain = disk_below(d, 2) ? SECTOR : PAGE;
    uint8_t *bytes = xcalloc(1, size);

    for (uint64_t at = 0; at < size; at += grain) {
        bool is_new = disk_below(d, 2);
        const uint8_t *from = is_new ? f->now : f->synced;
        uint64_t have = is_new ? f->now_size : f->synced_size;
        if (at < have) {
            uint64_t left = MIN(grain, size - at);
            memcpy(bytes + at, from + at, (size_t)MIN(left, have - at));
        }
    }
    disk_take_lost(f, bytes, size);
    f->lost_count = 0;
    free(f->now);
    f->now = bytes;
    f->now_size = f->now_room = size;
    disk_sync_bytes(f);
}

/* The changes of a step follow each other; the folder of its first one decides. What a renamed folder holds goes the
 * way of its name. */
static void find_firsts(struct disk *d)
{
    struct change *c, *first = NULL;
    DL_FOREACH (d->changes_undone, c) {
        first = first != NULL && first->step == c->step ? first : c;
        c->first = first;
    }
}

/* A random suffix of the steps of a folder is lost. */
static void choose_lost(struct disk *d, const char *folder)
{
    struct change *c;
    uint64_t steps = 0, seen = 0;
    DL_FOREACH (d->changes_undone, c)
        steps += c->first == c && strcmp(c->folder, folder) == 0;
    uint64_t kept = steps - disk_below(d, steps + 1);
    DL_FOREACH (d->changes_undone, c)
        if (strcmp(c->first->folder, folder) == 0) {
            seen += c->first == c;
            c->decided = true;
            c->lost = seen > kept;
        }
}

static void undo_names(struct disk *d)
{
    struct change *c, *before;
    find_firsts(d);
    DL_FOREACH (d->changes_undone, c)
        if (!c->decided)
            choose_lost(d, c->first->folder);
    for (c = d->changes_undone ? d->changes_undone->prev : NULL; c != NULL; c = before) {
        before = c == d->changes_undone ? NULL : c->prev;
        if (c->lost)
            disk_set_name(d, c->path, c->before);
        DL_DELETE(d->changes_undone, c);
        free(c);
    }
}

/* A folder whose creation was undone takes what was in it along. */
static void drop_orphans(struct disk *d)
{
    struct name *n, *next;
    bool again = true;

    while (again) {
        again = false;
        HASH_ITER (hh, d->names, n, next) {
            if (!disk_parent_exists(d, n->path)) {
                HASH_DEL(d->names, n);
                free(n);
                again = true;
            }
        }
    }
}

void disk_power_cut(struct disk *d)
{
    undo_names(d);
    drop_orphans(d);
    struct node *f;
    LL_FOREACH (d->nodes, f) {
        if (!f->is_dir)
            tear(d, f);
    }
    d->used = 0;
    for (const struct name *n = d->names; n != NULL; n = n->hh.next)
        d->used += n->node->now_size;
    disk_restart(d);
}
