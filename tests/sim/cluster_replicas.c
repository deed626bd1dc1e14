/* cluster_replicas.c - what the storage nodes have of one partition, side by side. */
#include "tests/sim/cluster_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "libs/records/records.h"

enum { SEGMENTS_MAX = 256, PATH = 200 };

struct segments {
    char name[SEGMENTS_MAX][32];
    size_t count;
};

static void on_name(void *arg, const char *name)
{
    struct segments *s = arg;
    size_t n = strlen(name);
    if (n != 24 || strcmp(name + 20, ".log") != 0)
        return;
    ASSERT(s->count < SEGMENTS_MAX);
    snprintf(s->name[s->count++], sizeof s->name[0], "%s", name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Without the batches before an offset. */
static void drop_before(struct buf *b, int64_t offset)
{
    struct slice rest = slice_make(b->data, b->size);
    struct batch batch;
    while (batch_read_header(rest, &batch) == 0 && batch.size <= rest.size && batch_last_offset(&batch) < offset)
        rest = slice_make(rest.data + batch.size, rest.size - batch.size);
    buf_consume(b, b->size - rest.size);
}

/* All bytes of its segments, in their order. */
static void read_log(struct node *n, const char *folder, struct buf *out)
{
    struct file_system fs = disk_fs(n->disk);
    struct segments *s = xcalloc(1, sizeof *s);
    char path[PATH];
    snprintf(path, sizeof path, PLATFORM_DIR "/%s", folder);
    (void)!file_list(&fs, path, on_name, s);
    if (s->count > 0)
        qsort(s->name, s->count, sizeof s->name[0], by_name);
    for (size_t i = 0; i < s->count; i++) {
        struct file_stat st;
        snprintf(path, sizeof path, PLATFORM_DIR "/%s/%s", folder, s->name[i]);
        int fd = file_open(&fs, path, O_RDONLY);
        if (fd < 0 || file_fstat(&fs, fd, &st) != 0 ||
            file_read_all(&fs, fd, buf_grow(out, (size_t)st.size_bytes), (size_t)st.size_bytes, 0) != 0)
            sim_fail(n->cluster->sim, "%s of %s cannot be read", path, n->name);
        file_close(&fs, fd);
    }
    free(s);
}

/* They may begin at other offsets, and roll at others, but end at the same. */
void cluster_check_replicas(struct cluster *c, const char *folder, const struct seen_partition *p, int64_t start)
{
    struct buf first = {0};
    const struct node *who = NULL;
    for (int i = 0; i < c->node_count; i++) {
        struct node *n = &c->nodes[i];
        struct buf b = {0};
        bool keeps = false;
        for (int k = 0; k < p->replica_count; k++)
            keeps |= p->replicas[k] == n->id;
        if (n->role != CLUSTER_STORAGE || !keeps)
            continue;
        read_log(n, folder, &b);
        drop_before(&b, start);
        size_t common = MIN(b.size, first.size);
        if (who != NULL && (common == 0) != (b.size == first.size && b.size == 0))
            sim_fail(c->sim, "%s and %s: one of them has nothing of %s", who->name, n->name, folder);
        if (common > 0 && memcmp(b.data + b.size - common, first.data + first.size - common, common) != 0)
            sim_fail(c->sim, "%s and %s have other bytes of %s", who->name, n->name, folder);
        if (common > 0)
            sim_cover("two replicas had the same bytes");
        if (b.size > first.size) {
            buf_free(&first);
            first = b;
        } else {
            buf_free(&b);
        }
        who = who ? who : n;
    }
    buf_free(&first);
}
