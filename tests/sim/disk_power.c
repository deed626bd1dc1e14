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
    free(f->now);
    f->now = bytes;
    f->now_size = f->now_room = size;
    disk_sync_bytes(f);
}

static void undo_names(struct disk *d)
{
    /* Folder by folder: how many of its oldest changes survive. A step keeps or loses all its halves, as its first half
     * says. */
    while (d->changes_undone != NULL) {
        struct change *c, *before;
        char folder[PATH_MAX_BYTES];
        uint64_t steps = 0, last = 0;

        memcpy(folder, d->changes_undone->folder, sizeof folder);
        DL_FOREACH (d->changes_undone, c) {
            if (strcmp(c->folder, folder) == 0 && c->step != last) {
                last = c->step;
                steps++;
            }
        }
        uint64_t lost = disk_below(d, steps + 1), seen = 0;
        uint32_t step = 0;
        for (c = d->changes_undone->prev;; c = before) {
            bool is_first = c == d->changes_undone;
            before = c->prev;
            if (strcmp(c->folder, folder) == 0) {
                if (c->step != step) {
                    step = c->step;
                    seen++;
                }
                if (seen <= lost)
                    disk_set_name(d, c->path, c->before);
                DL_DELETE(d->changes_undone, c);
                free(c);
            }
            if (is_first)
                break;
        }
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
