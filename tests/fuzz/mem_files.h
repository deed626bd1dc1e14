/* mem_files.h - what the fuzzers of logs share: a file system in memory, a few files big, and inputs for it. */
#ifndef KARST_TESTS_FUZZ_MEM_FILES_H
#define KARST_TESTS_FUZZ_MEM_FILES_H

#include "libs/base/bytes.h"
#include "libs/log/log.h"
#include <stdio.h>
#include <stdlib.h>

enum { FILES_MAX = 64, NAME_MAX_BYTES = 96 };

struct mem_file {
    char name[NAME_MAX_BYTES];
    struct buf bytes;
    bool used;
    int opens;
};

static struct mem_file files[FILES_MAX];

static struct mem_file *find(const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (files[i].used && strcmp(files[i].name, path) == 0)
            return &files[i];
    }
    return NULL;
}

static struct mem_file *make(const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (!files[i].used && files[i].opens == 0) {
            files[i].used = true;
            files[i].bytes.size = 0;
            snprintf(files[i].name, sizeof files[i].name, "%s", path);
            return &files[i];
        }
    }
    return NULL;
}

static int m_open(void *ctx UNUSED, const char *path, int flags)
{
    struct mem_file *f = find(path);
    if (f == NULL && (flags & O_CREAT))
        f = make(path);
    if (f == NULL)
        return flags & O_CREAT ? -ENOSPC : -ENOENT;
    if (flags & O_TRUNC)
        f->bytes.size = 0;
    f->opens++;
    return (int)(f - files);
}
static int m_dup(void *ctx UNUSED, int fd)
{
    files[fd].opens++;
    return fd;
}
static int m_close(void *ctx UNUSED, int fd)
{
    ASSERT(files[fd].opens > 0);
    files[fd].opens--;
    return 0;
}
static ssize_t m_pread(void *ctx UNUSED, int fd, void *p, size_t n, uint64_t at)
{
    const struct buf *b = &files[fd].bytes;
    if (at >= b->size)
        return 0;
    n = MIN(n, b->size - (size_t)at);
    memcpy(p, b->data + at, n);
    return (ssize_t)n;
}
static int m_ftruncate(void *ctx UNUSED, int fd, uint64_t size)
{
    struct buf *b = &files[fd].bytes;
    if (size > b->size) {
        size_t more = (size_t)size - b->size;
        memset(buf_grow(b, more), 0, more);
    }
    b->size = (size_t)size;
    return 0;
}
static ssize_t m_pwritev(void *ctx, int fd, const struct iovec *iov, int count, uint64_t at)
{
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        if (at + iov[i].iov_len > files[fd].bytes.size)
            (void)m_ftruncate(ctx, fd, at + iov[i].iov_len);
        if (iov[i].iov_len > 0)
            memcpy(files[fd].bytes.data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
        total += (ssize_t)iov[i].iov_len;
    }
    return total;
}
static int m_sync(void *ctx UNUSED, int fd UNUSED)
{
    return 0;
}
static int m_fstat(void *ctx UNUSED, int fd, struct file_stat *s)
{
    *s = (struct file_stat){.size_bytes = files[fd].bytes.size};
    return 0;
}
static int m_stat(void *ctx UNUSED, const char *path, struct file_stat *s)
{
    const struct mem_file *f = find(path);
    if (f == NULL)
        return -ENOENT;
    *s = (struct file_stat){.size_bytes = f->bytes.size};
    return 0;
}
static int m_unlink(void *ctx UNUSED, const char *path)
{
    struct mem_file *f = find(path);
    if (f == NULL)
        return -ENOENT;
    f->used = false;
    return 0;
}
static int m_rename(void *ctx, const char *from, const char *to)
{
    struct mem_file *f = find(from);
    if (f == NULL)
        return -ENOENT;
    (void)m_unlink(ctx, to);
    snprintf(f->name, sizeof f->name, "%s", to);
    return 0;
}
static int m_mkdir(void *ctx UNUSED, const char *path UNUSED)
{
    return -EEXIST;
}
static int m_dir(void *ctx UNUSED, const char *path UNUSED)
{
    return 0;
}
static int m_list(void *ctx UNUSED, const char *path, file_list_fn *fn, void *arg)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        char name[NAME_MAX_BYTES];
        if (!files[i].used)
            continue;
        snprintf(name, sizeof name, "%s", files[i].name + strlen(path) + 1);
        fn(arg, name);
    }
    return 0;
}

static const struct file_ops ops = {
    .open = m_open,
    .dup = m_dup,
    .close = m_close,
    .pread = m_pread,
    .pwritev = m_pwritev,
    .fdatasync = m_sync,
    .ftruncate = m_ftruncate,
    .fstat = m_fstat,
    .stat = m_stat,
    .rename = m_rename,
    .unlink = m_unlink,
    .mkdir = m_mkdir,
    .rmdir = m_dir,
    .sync_dir = m_dir,
    .list = m_list,
};

static void put_file(const char *name, struct slice bytes)
{
    char path[NAME_MAX_BYTES];
    snprintf(path, sizeof path, "t-0/%s", name);
    struct mem_file *f = make(path);
    ASSERT(f != NULL);
    buf_append(&f->bytes, bytes.data, bytes.size);
}

/* A length and that many bytes of the input. */
static inline struct slice take(struct slice *rest)
{
    if (rest->size < 2)
        return SLICE_EMPTY;
    size_t n = MIN((size_t)get_u16(rest->data), rest->size - 2);
    struct slice s = slice_make(rest->data + 2, n);
    *rest = slice_make(rest->data + 2 + n, rest->size - 2 - n);
    return s;
}

/* Batches with a true CRC, so that the fuzzer's changes get past it. */
static inline struct slice mend(struct slice bytes, struct buf *copy)
{
    if (bytes.size == 0)
        return SLICE_EMPTY;
    buf_append(copy, bytes.data, bytes.size);
    size_t at = 0;
    struct batch b;
    while (batch_read_header(slice_make(copy->data + at, copy->size - at), &b) == 0 && b.size <= copy->size - at) {
        put_u32(copy->data + at + BATCH_CRC,
                bytes_crc32c(0, copy->data + at + BATCH_ATTRIBUTES, b.size - BATCH_ATTRIBUTES));
        at += b.size;
    }
    return buf_slice(copy);
}

/* All files go; none may be open. */
static void drop_files(void)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        ASSERT(files[i].opens == 0);
        files[i].used = false;
    }
}

#endif
