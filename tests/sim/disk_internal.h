/* disk_internal.h - what disk.c (calls), disk_names.c (those of names), disk_power.c (power cuts) and disk_passed.c
 * (descriptors of other processes) share. */
#ifndef KARST_TESTS_SIM_DISK_INTERNAL_H
#define KARST_TESTS_SIM_DISK_INTERNAL_H

/* Paths are looked up all the time: eight bytes a step. */
#define HASH_FUNCTION(key, size, hash) ((hash) = disk_hash_of((key), (size)))
#include <uthash.h>

#include "libs/base/slice.h"
#include "tests/sim/disk.h"
#include "tests/sim/disk_content.h"

static inline unsigned disk_hash_of(const void *key, size_t size)
{
    uint64_t h = size, word;
    const uint8_t *p = key;
    for (; size >= sizeof word; p += sizeof word, size -= sizeof word) {
        memcpy(&word, p, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, p, size);
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return (unsigned)(h ^ h >> 32);
}

enum { OPEN_MAX_FILES = 4096, PATH_MAX_BYTES = 512, DISKS_MAX = 16, PASSED_MAX = 4096 };

/* A file or folder, until disk_free. Its bytes are kept while a name of either view, a descriptor or an undo step may
 * need them; then only their number is, which a power cut draws by. */
struct node {
    struct node *next;
    uint32_t holders; /* of those */
    bool is_dir, is_gone;
    struct content now, synced;
    uint64_t changed_from, changed_to; /* pages outside of these are the same in both */
    uint8_t *lost; /* by sector: 1 where a flush failed and nothing was written since: no flush writes it any more */
    uint64_t lost_count;
    int64_t mtime_ms;
};

struct name {
    char path[PATH_MAX_BYTES];
    struct node *node;
    UT_hash_handle hh;
};

/* A folder with changes that are not durable. */
struct folder {
    char path[PATH_MAX_BYTES];
    struct change *changes; /* oldest first */
    UT_hash_handle hh;
};

/* One unsynced change of the names in a folder: path had before (NULL: nothing) and has after. */
struct change {
    struct change *prev, *next;
    struct folder *folder;
    struct change *folder_prev, *folder_next;
    char path[PATH_MAX_BYTES];
    struct node *before;
    uint32_t step; /* the two halves of a rename share it, and what is in a folder that is renamed */
    /* at a power cut */
    const struct change *first; /* of its step */
    bool decided, lost;
};

struct disk {
    struct file_system fs;
    struct node *nodes;
    struct name *names;
    struct change *changes_undone; /* oldest first */
    struct folder *folders;
    struct node *open[OPEN_MAX_FILES];
    uint64_t random, changes, used, capacity;
    uint64_t fail_at, fail_until, short_at, die_at;
    int fail_error;
    bool dead, fail_room_only, count_all;
    uint32_t step;
    int64_t clock_ms;
    int fd_first;
};

/* Each disk has OPEN_MAX_FILES numbers; behind those of all disks are the descriptors that were passed. */
enum { FD_PASSED = DISK_FD_FIRST + DISKS_MAX * OPEN_MAX_FILES };
extern struct disk *disks[DISKS_MAX];

uint64_t disk_below(struct disk *d, uint64_t n);
/* The next count random numbers at once, for disk_drawn, which gives the i-th. */
uint64_t disk_draw(struct disk *d, uint64_t count);
uint64_t disk_drawn(uint64_t draw, uint64_t i);

/* What a call does, for the faults that are for some only. */
enum call {
    CALL_READS,
    CALL_CHANGES,
    CALL_TAKES_ROOM, /* on the disk */
};

/* Before each call: 0, or the -errno of an armed fault. */
int disk_admit(struct disk *d, enum call call);
struct node *disk_new_node(struct disk *d, bool is_dir);
struct node *disk_hold(struct node *n); /* NULL: nothing */
void disk_release(struct node *n);

struct name *disk_find(const struct disk *d, const char *path); /* NULL: nothing has it */
void disk_drop_name(struct disk *d, struct name *n);
/* What a path names from here on, NULL: nothing; without a note of the change, and with one. */
void disk_set_name(struct disk *d, const char *path, struct node *node);
void disk_change_name(struct disk *d, const char *path, struct node *node);
bool disk_parent_exists(const struct disk *d, const char *path);
void disk_drop_change(struct disk *d, struct change *c); /* a note */
/* Drops the notes of one folder. A rename between folders is durable as soon as either folder is. */
void disk_forget_changes(struct disk *d, const char *folder);

/* Of struct file_ops. */
int disk_rename(void *ctx, const char *from, const char *to);
int disk_unlink(void *ctx, const char *path);
int disk_mkdir(void *ctx, const char *path);
int disk_rmdir(void *ctx, const char *path);
int disk_sync_dir(void *ctx, const char *path);
int disk_list(void *ctx, const char *path, file_list_fn *fn, void *arg);

void disk_resize_bytes(struct node *f, uint64_t size);
/* The sectors of a page, bit i the i-th, of which a failed flush lost the new bytes. */
uint32_t disk_lost_in(const struct node *f, uint64_t page);
void disk_sync_bytes(struct node *f);
ssize_t disk_read_node(const struct node *f, void *p, size_t n, uint64_t at);
struct node *disk_node_of(struct disk *d, int fd);
int disk_close(void *ctx, int fd);
void disk_forget_passed(const struct disk *d);

#endif
