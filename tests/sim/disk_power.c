/* disk_power.c - what a power cut leaves. */
#include "tests/sim/disk_internal.h"

#include <stdlib.h>
#include <utlist.h>

/* The sectors of a page that keep their old bytes. */
static uint32_t old_sectors(const struct node *f, uint64_t page, uint64_t grain, uint64_t draw)
{
    uint32_t old = disk_lost_in(f, page);
    for (uint64_t i = 0; i < PAGE_SECTORS; i++) {
        uint64_t number = (page * PAGE + i * SECTOR) / grain;
        if (disk_drawn(draw, number) % 2 == 0)
            old |= 1u << i;
    }
    return old;
}

/* Old or new bytes, grain by grain, and a size between the two. */
static void tear(struct disk *d, struct node *f)
{
    uint64_t low = MIN(f->synced.size, f->now.size), high = MAX(f->synced.size, f->now.size);
    uint64_t size = high == low || disk_below(d, 3) == 0 ? f->now.size : low + disk_below(d, high - low + 1);
    uint64_t grain = disk_below(d, 2) ? SECTOR : PAGE;
    uint64_t draw = disk_draw(d, (size + grain - 1) / grain);

    if (f->is_gone) {
        f->now.size = f->synced.size = size;
        return;
    }
    if (size > f->now.size)
        disk_resize_bytes(f, size);
    for (uint64_t i = f->changed_from; i < MIN(f->changed_to, content_pages(size)); i++)
        if (!content_shares(&f->now, &f->synced, i))
            content_mix(&f->now, &f->synced, i, old_sectors(f, i, grain, draw));
    disk_resize_bytes(f, size);
    f->lost_count = 0;
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
static void choose_lost(struct disk *d, const struct folder *folder)
{
    struct change *c;
    uint64_t steps = 0, seen = 0;
    DL_FOREACH (d->changes_undone, c)
        steps += c->first == c && c->folder == folder;
    uint64_t kept = steps - disk_below(d, steps + 1);
    DL_FOREACH (d->changes_undone, c)
        if (c->first->folder == folder) {
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
        disk_drop_change(d, c);
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
                disk_drop_name(d, n);
                again = true;
            }
        }
    }
}

void disk_remount(struct disk *d)
{
    struct node *f;
    LL_FOREACH (d->nodes, f) {
        if (f->is_dir || f->lost_count == 0)
            continue;
        content_resize(&f->synced, f->now.size);
        for (uint64_t i = f->changed_from; i < MIN(f->changed_to, content_pages(f->now.size)); i++)
            if (!content_shares(&f->now, &f->synced, i))
                content_mix(&f->now, &f->synced, i, disk_lost_in(f, i));
        f->lost_count = 0;
        disk_sync_bytes(f);
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
        d->used += n->node->now.size;
    disk_restart(d);
}
