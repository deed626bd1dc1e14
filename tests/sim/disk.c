/* disk.c - see disk.h: the bytes of files, and the faults of calls. */
#include "tests/sim/disk_internal.h"
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

struct disk *disks[DISKS_MAX];

static const uint64_t RANDOM_STEP = 0x9e3779b97f4a7c15u;

uint64_t disk_draw(struct disk *d, uint64_t count)
{
    uint64_t before = d->random;
    d->random += count * RANDOM_STEP;
    return before;
}

uint64_t disk_drawn(uint64_t draw, uint64_t i)
{
    uint64_t z = draw + (i + 1) * RANDOM_STEP;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t disk_below(struct disk *d, uint64_t n)
{
    return n ? disk_drawn(disk_draw(d, 1), 0) % n : 0;
}

struct node *disk_new_node(struct disk *d, bool is_dir)
{
    struct node *n = xcalloc(1, sizeof *n);
    n->is_dir = is_dir;
    n->mtime_ms = ++d->clock_ms;
    LL_PREPEND(d->nodes, n);
    return n;
}

struct node *disk_hold(struct node *n)
{
    if (n != NULL)
        n->holders++;
    return n;
}

void disk_release(struct node *n)
{
    if (n == NULL || --n->holders > 0)
        return;
    uint64_t now_size = n->now.size, synced_size = n->synced.size;
    content_free(&n->now);
    content_free(&n->synced);
    n->now.size = now_size;
    n->synced.size = synced_size;
    n->is_gone = true;
}

int disk_admit(struct disk *d, enum call call)
{
    if (d->dead)
        return -EIO;
    if (call == CALL_READS && !d->count_all)
        return 0;
    uint64_t at = d->changes++;
    if (at >= d->die_at) {
        d->dead = true;
        return -EIO;
    }
    if (d->fail_room_only && call != CALL_TAKES_ROOM)
        return 0;
    return at >= d->fail_at && at < d->fail_until ? -d->fail_error : 0;
}

struct node *disk_node_of(struct disk *d, int fd)
{
    fd -= d->fd_first;
    return fd >= 0 && fd < OPEN_MAX_FILES && !d->dead ? d->open[fd] : NULL;
}

static int open_node(struct disk *d, struct node *n)
{
    for (int fd = 0; fd < OPEN_MAX_FILES; fd++) {
        if (d->open[fd] == NULL) {
            d->open[fd] = disk_hold(n);
            return d->fd_first + fd;
        }
    }
    return -EMFILE;
}

static void note_changed(struct node *n, uint64_t from, uint64_t to)
{
    bool none = n->changed_from == n->changed_to;
    n->changed_from = none ? from : MIN(n->changed_from, from);
    n->changed_to = none ? to : MAX(n->changed_to, to);
}

void disk_resize_bytes(struct node *f, uint64_t size)
{
    if (size < f->now.size)
        note_changed(f, size / PAGE, content_pages(f->now.size));
    content_resize(&f->now, size);
}

static int resize(struct disk *d, struct node *n, uint64_t size)
{
    if (size > n->now.size && d->capacity && d->used + (size - n->now.size) > d->capacity)
        return -ENOSPC;
    for (uint64_t s = size / SECTOR; s < n->lost_count; s++)
        n->lost[s] = 0;
    d->used += size - n->now.size;
    disk_resize_bytes(n, size);
    n->mtime_ms = ++d->clock_ms;
    return 0;
}

static int disk_open(void *ctx, const char *path, int flags)
{
    struct disk *d = ctx;
    struct name *n = d->dead ? NULL : disk_find(d, path);

    if (d->dead)
        return -EIO;
    if (strlen(path) >= PATH_MAX_BYTES)
        return -ENAMETOOLONG;
    if (n != NULL && (flags & O_EXCL))
        return -EEXIST;
    if (n == NULL && (!(flags & O_CREAT) || !disk_parent_exists(d, path)))
        return -ENOENT;
    bool changes = n == NULL || (flags & O_TRUNC);
    int error = disk_admit(d, n == NULL ? CALL_TAKES_ROOM : changes ? CALL_CHANGES : CALL_READS);
    if (error)
        return error;
    if (changes) {
        d->step++;
        if (n == NULL)
            disk_change_name(d, path, disk_new_node(d, false));
        else
            (void)resize(d, n->node, 0);
        n = disk_find(d, path);
    }
    return open_node(d, n->node);
}

static int disk_dup(void *ctx, int fd)
{
    struct node *n = disk_node_of(ctx, fd);
    int error = n ? disk_admit(ctx, CALL_READS) : -EBADF;
    return error ? error : open_node(ctx, n);
}

int disk_close(void *ctx, int fd)
{
    struct disk *d = ctx;
    fd -= d->fd_first;
    if (fd < 0 || fd >= OPEN_MAX_FILES || d->open[fd] == NULL)
        return -EBADF;
    disk_release(d->open[fd]);
    d->open[fd] = NULL;
    return 0;
}

ssize_t disk_read_node(const struct node *f, void *p, size_t n, uint64_t at)
{
    if (at >= f->now.size)
        return 0;
    uint64_t k = MIN((uint64_t)n, f->now.size - at);
    content_read(&f->now, at, p, k);
    return (ssize_t)k;
}

static ssize_t disk_pread(void *ctx, int fd, void *p, size_t n, uint64_t at)
{
    struct node *f = disk_node_of(ctx, fd);
    int error = f ? disk_admit(ctx, CALL_READS) : -EBADF;

    return error ? error : disk_read_node(f, p, n, at);
}

static ssize_t disk_pwritev(void *ctx, int fd, const struct iovec *iov, int count, uint64_t at)
{
    struct disk *d = ctx;
    struct node *f = disk_node_of(d, fd);
    uint64_t want = 0, cut;

    if (f == NULL)
        return -EBADF;
    bool is_short = d->changes == d->short_at;
    int error = disk_admit(d, CALL_TAKES_ROOM);
    if (error)
        return error;
    for (int i = 0; i < count; i++)
        want += iov[i].iov_len;
    cut = is_short ? disk_below(d, want) : want;
    if (at + cut > f->now.size && resize(d, f, at + cut)) {
        uint64_t room = d->used < d->capacity ? d->capacity - d->used : 0;
        cut = at < f->now.size + room ? f->now.size + room - at : 0;
        if (cut == 0 || resize(d, f, at + cut))
            return -ENOSPC;
    }
    uint64_t done = 0;
    for (int i = 0; i < count && done < cut; i++) {
        uint64_t k = MIN((uint64_t)iov[i].iov_len, cut - done);
        content_write(&f->now, at + done, iov[i].iov_base, k);
        done += k;
    }
    if (done > 0)
        note_changed(f, at / PAGE, content_pages(at + done));
    for (uint64_t s = at / SECTOR; done > 0 && s < MIN(f->lost_count, (at + done - 1) / SECTOR + 1); s++)
        f->lost[s] = 0;
    f->mtime_ms = ++d->clock_ms;
    return (ssize_t)done;
}

/* What differs from the durable bytes will not become durable. */
static void lose_unsynced(struct node *f)
{
    uint64_t count = (f->now.size + SECTOR - 1) / SECTOR;
    if (count > f->lost_count) {
        f->lost = xrealloc(f->lost, count);
        memset(f->lost + f->lost_count, 0, count - f->lost_count);
        f->lost_count = count;
    }
    for (uint64_t s = f->changed_from * PAGE_SECTORS; s < MIN(count, f->changed_to * PAGE_SECTORS); s++) {
        uint8_t now[SECTOR], synced[SECTOR];
        content_read(&f->now, s * SECTOR, now, SECTOR);
        content_read(&f->synced, s * SECTOR, synced, SECTOR);
        f->lost[s] = f->lost[s] || memcmp(now, synced, SECTOR) != 0;
    }
}

uint32_t disk_lost_in(const struct node *f, uint64_t page)
{
    uint32_t sectors = 0;
    for (uint64_t s = page * PAGE_SECTORS; s < MIN(f->lost_count, (page + 1) * PAGE_SECTORS); s++)
        sectors |= (uint32_t)f->lost[s] << s % PAGE_SECTORS;
    return sectors;
}

/* The old bytes stay where a failed flush lost the new ones. */
void disk_sync_bytes(struct node *f)
{
    const uint32_t all = (1u << PAGE_SECTORS) - 1;
    uint32_t lost = 0;
    content_resize(&f->synced, f->now.size);
    for (uint64_t i = f->changed_from; i < MIN(f->changed_to, content_pages(f->now.size)); i++) {
        uint32_t lost_here = disk_lost_in(f, i);
        lost |= lost_here;
        if (lost_here == 0)
            content_share(&f->synced, &f->now, i);
        else
            content_mix(&f->synced, &f->now, i, all & ~lost_here);
    }
    if (lost == 0)
        f->changed_from = f->changed_to = 0;
}

static int disk_fdatasync(void *ctx, int fd)
{
    struct disk *d = ctx;
    struct node *f = disk_node_of(d, fd);
    int error = f ? disk_admit(d, CALL_CHANGES) : -EBADF;

    if (error == 0)
        disk_sync_bytes(f);
    else if (f != NULL && !d->dead)
        lose_unsynced(f);
    return error;
}

/* One call: all of what was named is durable, or, when it fails, some of it. */
static int disk_sync_all(void *ctx, const struct file_sync *what, size_t count)
{
    struct disk *d = ctx;
    int error = disk_below(d, 4) == 0 ? -EOPNOTSUPP : disk_admit(d, CALL_CHANGES);
    size_t done = error == 0 ? count : error == -EOPNOTSUPP || d->dead ? 0 : disk_below(d, count);
    sim_cover(error == 0 ? "many files were made durable at once" : "many files were not made durable at once");
    for (size_t i = 0; i < done; i++) {
        struct node *f = what[i].dir == NULL ? disk_node_of(d, what[i].fd) : NULL;
        if (f != NULL)
            disk_sync_bytes(f);
        else if (what[i].dir != NULL)
            disk_forget_changes(d, what[i].dir);
        else
            return -EBADF;
    }
    return error;
}

/* Which a full disk refuses, and no power cut shows: bytes that were never written are not read. */
static int disk_allocate(void *ctx, int fd, uint64_t at UNUSED, uint64_t n UNUSED)
{
    struct disk *d = ctx;
    int error = disk_node_of(d, fd) == NULL ? -EBADF : disk_admit(d, CALL_TAKES_ROOM);
    sim_cover(error == 0 ? "room on the disk was asked for ahead" : "room on the disk was refused");
    return error;
}

static int disk_ftruncate(void *ctx, int fd, uint64_t size)
{
    struct disk *d = ctx;
    struct node *f = disk_node_of(d, fd);
    int error = f ? disk_admit(d, CALL_CHANGES) : -EBADF;
    return error ? error : resize(d, f, size);
}

static int stat_node(const struct node *f, struct file_stat *s)
{
    *s = (struct file_stat){.size_bytes = f->now.size, .mtime_ms = f->mtime_ms, .is_dir = f->is_dir};
    return 0;
}

static int disk_fstat(void *ctx, int fd, struct file_stat *s)
{
    struct node *f = disk_node_of(ctx, fd);
    int error = f ? disk_admit(ctx, CALL_READS) : -EBADF;
    return error ? error : stat_node(f, s);
}

static int disk_stat(void *ctx, const char *path, struct file_stat *s)
{
    struct disk *d = ctx;
    struct name *n = d->dead ? NULL : disk_find(d, path);
    int error = disk_admit(d, CALL_READS);
    return error ? error : n ? stat_node(n->node, s) : -ENOENT;
}

static const struct file_ops disk_ops = {
    .open = disk_open,
    .dup = disk_dup,
    .close = disk_close,
    .pread = disk_pread,
    .pwritev = disk_pwritev,
    .fdatasync = disk_fdatasync,
    .ftruncate = disk_ftruncate,
    .allocate = disk_allocate,
    .fstat = disk_fstat,
    .stat = disk_stat,
    .rename = disk_rename,
    .unlink = disk_unlink,
    .mkdir = disk_mkdir,
    .rmdir = disk_rmdir,
    .sync_dir = disk_sync_dir,
    .sync_all = disk_sync_all,
    .list = disk_list,
};

struct disk *disk_new(uint64_t seed)
{
    struct disk *d = xcalloc(1, sizeof *d);
    d->random = seed;
    d->fail_at = d->short_at = d->die_at = UINT64_MAX;
    d->fs = (struct file_system){.ops = &disk_ops, .ctx = d};
    size_t i = 0;
    while (i < DISKS_MAX && disks[i] != NULL)
        i++;
    ASSERT(i < DISKS_MAX);
    disks[i] = d;
    d->fd_first = DISK_FD_FIRST + (int)i * OPEN_MAX_FILES;
    return d;
}

struct file_system disk_fs(struct disk *d)
{
    return d->fs;
}

static void drop_changes(struct disk *d)
{
    while (d->changes_undone != NULL)
        disk_drop_change(d, d->changes_undone);
}

struct disk *disk_free(struct disk *d)
{
    struct name *n, *next_name;
    struct node *f, *next_node;

    if (d == NULL)
        return NULL;
    drop_changes(d);
    disk_forget_passed(d);
    HASH_ITER (hh, d->names, n, next_name) {
        HASH_DEL(d->names, n);
        free(n);
    }
    LL_FOREACH_SAFE(d->nodes, f, next_node)
    {
        content_free(&f->now);
        content_free(&f->synced);
        free(f->lost);
        free(f);
    }
    disks[(d->fd_first - DISK_FD_FIRST) / OPEN_MAX_FILES] = NULL;
    free(d);
    return NULL;
}

void disk_set_capacity(struct disk *d, uint64_t bytes)
{
    d->capacity = bytes;
}

bool disk_is_full(const struct disk *d)
{
    return d->capacity != 0 && d->used >= d->capacity;
}

void disk_fail_after(struct disk *d, uint64_t n, uint64_t count, int error)
{
    d->fail_at = d->changes + n;
    d->fail_until = d->fail_at + count;
    d->fail_error = error;
    d->fail_room_only = false;
}

void disk_fail_writes_after(struct disk *d, uint64_t n, uint64_t count, int error)
{
    disk_fail_after(d, n, count, error);
    d->fail_room_only = true;
}

void disk_count_all(struct disk *d, bool all)
{
    d->count_all = all;
}

void disk_disarm(struct disk *d)
{
    d->fail_at = d->short_at = d->die_at = UINT64_MAX;
}

void disk_short_after(struct disk *d, uint64_t n)
{
    d->short_at = d->changes + n;
}

void disk_die_after(struct disk *d, uint64_t n)
{
    d->die_at = d->changes + n;
}

bool disk_is_dead(const struct disk *d)
{
    return d->dead;
}

uint64_t disk_changes(const struct disk *d)
{
    return d->changes;
}

void disk_restart(struct disk *d)
{
    for (int fd = 0; fd < OPEN_MAX_FILES; fd++)
        disk_release(d->open[fd]);
    memset(d->open, 0, sizeof d->open);
    d->dead = false;
    disk_disarm(d);
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

uint64_t disk_hash(const struct disk *d)
{
    uint64_t sum = 0;

    for (const struct name *n = d->names; n != NULL; n = n->hh.next) {
        uint64_t h = mix(0xcbf29ce484222325u, n->path, strlen(n->path));
        const struct content *now = &n->node->now;
        for (uint64_t at = 0; at < now->size; at += PAGE) {
            uint8_t bytes[PAGE];
            uint64_t k = MIN((uint64_t)PAGE, now->size - at);
            content_read(now, at, bytes, k);
            h = mix(h, bytes, k);
        }
        sum += h;
    }
    return sum;
}

size_t disk_open_files(const struct disk *d)
{
    size_t count = 0;
    for (int fd = 0; fd < OPEN_MAX_FILES; fd++)
        count += d->open[fd] != NULL;
    return count;
}
