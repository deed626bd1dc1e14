/* disk_passed.c - descriptors that other processes have been given. */
#include "tests/sim/disk_internal.h"

static struct {
    struct disk *disk; /* NULL: free */
    struct node *node;
    const struct process *owner;
} passed[PASSED_MAX];

static struct disk *disk_of(int fd)
{
    return fd >= DISK_FD_FIRST && fd < FD_PASSED ? disks[(fd - DISK_FD_FIRST) / OPEN_MAX_FILES] : NULL;
}

int disk_pass(int fd, const struct process *to)
{
    struct disk *d = disk_of(fd);
    struct node *f = d ? disk_node_of(d, fd) : NULL;
    if (f == NULL)
        return -EBADF;
    for (int i = 0; i < PASSED_MAX; i++) {
        if (passed[i].disk == NULL) {
            passed[i].disk = d;
            passed[i].node = disk_hold(f);
            passed[i].owner = to;
            return FD_PASSED + i;
        }
    }
    return -EMFILE;
}

static void drop(int i)
{
    disk_release(passed[i].node);
    passed[i].disk = NULL;
    passed[i].node = NULL;
    passed[i].owner = NULL;
}

static bool is_passed(int fd)
{
    return fd >= FD_PASSED && fd < FD_PASSED + PASSED_MAX && passed[fd - FD_PASSED].disk != NULL;
}

ssize_t disk_read_passed(int fd, void *p, size_t n, uint64_t at)
{
    return is_passed(fd) ? disk_read_node(passed[fd - FD_PASSED].node, p, n, at) : -EBADF;
}

int disk_close_fd(int fd)
{
    struct disk *d = disk_of(fd);
    if (d != NULL)
        return disk_close(d, fd);
    if (!is_passed(fd))
        return -EBADF;
    drop(fd - FD_PASSED);
    return 0;
}

void disk_close_passed(const struct process *of)
{
    for (int i = 0; i < PASSED_MAX; i++)
        if (passed[i].owner == of)
            drop(i);
}

size_t disk_passed(const struct disk *d)
{
    size_t count = 0;
    for (size_t i = 0; i < PASSED_MAX; i++)
        count += passed[i].disk == d;
    return count;
}

static bool has_name(const struct disk *d, const struct node *f)
{
    for (const struct name *n = d->names; n != NULL; n = n->hh.next)
        if (n->node == f)
            return true;
    return false;
}

size_t disk_passed_deleted(const struct disk *d)
{
    size_t count = 0;
    for (size_t i = 0; i < PASSED_MAX; i++)
        count += passed[i].disk == d && !has_name(d, passed[i].node);
    return count;
}

void disk_forget_passed(const struct disk *d)
{
    for (int i = 0; i < PASSED_MAX; i++)
        if (passed[i].disk == d)
            drop(i);
}
