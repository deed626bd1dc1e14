/* found.c - what a start finds in the folder, before any of it is opened.
 *
 * Leftovers: *.deleted, *.tmp and *.cleaned go; *.swap (compaction was about to take it into use) takes the place of
 * what it replaces. */
#include "libs/log/found.h"
#include "libs/log/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), k = strlen(suffix);
    return n >= k && strcmp(name + n - k, suffix) == 0;
}

static void remove_named(struct log *l, const char *name)
{
    char *path = xasprintf("%s/%s", l->dir, name);
    (void)file_unlink(l->fs, path);
    free(path);
}

static void push(int64_t **list, size_t *count, int64_t v)
{
    if ((*count & (*count - 1)) == 0)
        *list = xrealloc(*list, (*count ? 2 * *count : 1) * sizeof **list);
    (*list)[(*count)++] = v;
}

static void note_name(void *arg, const char *name)
{
    struct found *f = arg;
    int64_t base;
    bool segment =
        strlen(name) >= 24 && name[20] == '.' && text_int(slice_make(name, 20), INT64_MAX, &base) && base >= 0;
    if (ends_with(name, ".deleted") || ends_with(name, ".tmp")) {
        if (segment && strcmp(name + 20, ".log.deleted") == 0)
            f->max_deleted = MAX(f->max_deleted, base);
        remove_named(f->l, name);
        return;
    }
    snapshot_list_note(&f->snapshots, name);
    if (!segment)
        return;
    if (ends_with(name, ".cleaned")) {
        f->min_cleaned = MIN(f->min_cleaned, base);
        f->max_unfinished = MAX(f->max_unfinished, base);
        remove_named(f->l, name);
    } else if (strcmp(name + 20, ".log") == 0) {
        push(&f->bases, &f->base_count, base);
    } else if (strcmp(name + 20, ".txnindex") == 0) {
        push(&f->aborted, &f->aborted_count, base);
    } else if (ends_with(name, ".swap")) {
        push(&f->swaps, &f->swap_count, base);
        f->max_unfinished = MAX(f->max_unfinished, base);
    }
}

static int ascending(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static const char *const kinds[] = {"log", "index", "timeindex", "txnindex"};

/* Drops N.KIND.swap, or gives it its name. 0, also when it is not there, or -errno. */
static int settle_swap(struct log *l, int64_t base, const char *kind, bool take)
{
    char *from = xasprintf("%s/%020" PRId64 ".%s.swap", l->dir, base, kind);
    char *to = xasprintf("%s/%020" PRId64 ".%s", l->dir, base, kind);
    int err = take ? file_rename(l->fs, from, to) : file_unlink(l->fs, from);
    free(from);
    free(to);
    return err == -ENOENT ? 0 : err;
}

/* The offset behind the last batch of a swapped-in log file. */
static int swap_end(struct log *l, int64_t base, int64_t *ret_end)
{
    struct segment *s = segment_new(l->fs, l->dir, base, 0);
    segment_set_suffix(s, SEGMENT_SWAP);
    struct file_stat st;
    struct scan sc;
    struct batch b;
    uint64_t position;
    *ret_end = base;
    int err = file_stat(l->fs, s->path, &st);
    if (err == 0) {
        s->size_bytes = st.size_bytes;
        err = scan_begin(&sc, s, 0, SCAN_HEADERS);
    }
    if (err == 0) {
        while ((err = scan_next(&sc, &b, &position)) == 1)
            *ret_end = batch_next_offset(&b);
        scan_end(&sc);
    }
    segment_free(s);
    return err;
}

/* The segments that a swapped-in one, of base to end - 1, replaces: gone for good before it gets its name, so that a
 * power cut does not bring one back beside it. */
static int remove_replaced(struct log *l, struct found *f, int64_t base, int64_t end)
{
    size_t kept = 0;
    int err = 0;
    for (size_t k = 0; k < f->base_count; k++) {
        int64_t old = f->bases[k];
        if (err < 0 || (old != base && (old < base || old >= end))) {
            f->bases[kept++] = old;
            continue;
        }
        struct segment *s = segment_new(l->fs, l->dir, old, 0);
        err = segment_doom(s);
        segment_unlink_doomed(s);
        segment_free(s);
    }
    f->base_count = kept;
    return err < 0 ? err : file_sync_dir(l->fs, l->dir);
}

/* Compaction died between renaming to .swap and to the name: it goes on, as all of its content is there. A swap that
 * began at or behind a .cleaned file was not whole yet: the originals still are. */
static int complete_swaps(struct log *l, struct found *f)
{
    for (size_t i = 0; i < f->swap_count; i++) {
        int64_t base = f->swaps[i], end = base;
        bool take = base < f->min_cleaned;
        int err = take ? swap_end(l, base, &end) : -ENOENT;
        if (err == 0) {
            err = remove_replaced(l, f, base, end);
            push(&f->bases, &f->base_count, base);
        } else if (err == -ENOENT) {
            /* Its log file has its name already; or what is left belongs to none. */
            bool named = false;
            for (size_t k = 0; k < f->base_count; k++)
                named |= f->bases[k] == base;
            take &= named;
            err = 0;
        }
        /* The log file last: until then the next start does this again. */
        for (size_t k = COUNTOF(kinds); k > 0 && err == 0; k--)
            err = settle_swap(l, base, kinds[k - 1], take);
        if (err < 0)
            return err;
    }
    return 0;
}

void found_init(struct found *f, struct log *l)
{
    *f = (struct found){.l = l, .min_cleaned = INT64_MAX, .max_unfinished = -1, .max_deleted = -1};
}

void found_free(struct found *f)
{
    free(f->snapshots.at);
    free(f->bases);
    free(f->swaps);
    free(f->aborted);
}

int found_settle(struct found *f)
{
    int err = file_list(f->l->fs, f->l->dir, note_name, f);
    if (err == 0)
        err = complete_swaps(f->l, f);
    if (err == 0 && f->base_count > 0)
        qsort(f->bases, f->base_count, sizeof *f->bases, ascending);
    return err;
}
