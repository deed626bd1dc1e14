/* descriptors.c - see descriptors.h. */
#include "libs/log/descriptors.h"
#include <utlist.h>

static void take_out(struct descriptor *d)
{
    if (d->list == NULL || d->fd < 0)
        return;
    DL_DELETE(d->list->first, d);
    d->list->count--;
}

static void put_in(struct descriptor *d, const struct file_system *fs)
{
    struct descriptors *list = d->list;
    if (list == NULL || d->fd < 0)
        return;
    ASSERT(list->fs == NULL || list->fs == fs);
    list->fs = fs;
    while (list->count >= MAX(list->max, (size_t)DESCRIPTORS_LEAST))
        descriptor_close(list->first, fs);
    DL_APPEND(list->first, d);
    list->count++;
}

int descriptor_open(struct descriptor *d, const struct file_system *fs, const char *path, int flags)
{
    if (d->fd >= 0) {
        if (d->list != NULL && d->next != NULL) {
            DL_DELETE(d->list->first, d);
            DL_APPEND(d->list->first, d);
        }
        return d->fd;
    }
    int fd = file_open(fs, path, flags);
    /* Others in the process took what there was: ours give way. */
    while ((fd == -EMFILE || fd == -ENFILE) && d->list != NULL && d->list->count > DESCRIPTORS_LEAST) {
        descriptor_close(d->list->first, fs);
        fd = file_open(fs, path, flags);
    }
    if (fd >= 0)
        descriptor_set(d, fs, fd);
    return fd;
}

void descriptor_set(struct descriptor *d, const struct file_system *fs, int fd)
{
    descriptor_close(d, fs);
    d->fd = fd;
    put_in(d, fs);
}

void descriptor_close(struct descriptor *d, const struct file_system *fs)
{
    take_out(d);
    d->fd = file_close(fs, d->fd);
}

void descriptor_join(struct descriptor *d, const struct file_system *fs, struct descriptors *list)
{
    if (d->list == list)
        return;
    take_out(d);
    d->list = list;
    put_in(d, fs);
}
