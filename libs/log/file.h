/* file.h - the file system calls that logs are kept with, as a table: the real one, the simulator's (torn pages and
 * undone renames at a power cut), and the torture tests' (the Nth call fails).
 *
 * Every function returns >= 0 or -errno, and may be short like the system call it is named after. Descriptors are small
 * integers of the file system's own. Real: any thread, as the calls themselves. */
#ifndef KARST_LOG_FILE_H
#define KARST_LOG_FILE_H

#include "libs/base/base.h"
#include <fcntl.h>
#include <sys/types.h>
#include <sys/uio.h>

struct file_stat {
    uint64_t size_bytes;
    int64_t mtime_ms; /* Unix */
    bool is_dir;
};

typedef void file_list_fn(void *arg, const char *name);

/* Something to be made durable: what was written to a file, or (dir not NULL) the names in a folder. */
struct file_sync {
    int fd;
    const char *dir;
};

struct file_ops {
    int (*open)(void *ctx, const char *path,
                int flags); /* O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC; mode 0644, always O_CLOEXEC */
    int (*dup)(void *ctx, int fd);
    int (*close)(void *ctx, int fd);
    ssize_t (*pread)(void *ctx, int fd, void *p, size_t n, uint64_t at);
    ssize_t (*pwritev)(void *ctx, int fd, const struct iovec *iov, int count, uint64_t at);
    int (*fdatasync)(void *ctx, int fd);
    int (*ftruncate)(void *ctx, int fd, uint64_t size);
    int (*fstat)(void *ctx, int fd, struct file_stat *ret_stat);
    int (*stat)(void *ctx, const char *path, struct file_stat *ret_stat);
    int (*rename)(void *ctx, const char *from, const char *to);
    int (*unlink)(void *ctx, const char *path);
    int (*mkdir)(void *ctx, const char *path); /* mode 0755 */
    int (*rmdir)(void *ctx, const char *path);
    int (*sync_dir)(void *ctx, const char *path); /* makes renames, creations and removals in it durable */
    int (*list)(void *ctx, const char *path, file_list_fn *fn, void *arg); /* without . and .., in any order */
    /* As pread, but -EAGAIN where the bytes are not in memory and it would wait for the disk. NULL, or -EOPNOTSUPP:
     * that cannot be told. */
    ssize_t (*pread_now)(void *ctx, int fd, void *p, size_t n, uint64_t at);
    /* Brings n bytes into memory. NULL: reading does it. */
    int (*prefetch)(void *ctx, int fd, uint64_t at, size_t n);
    /* Room on the disk for n bytes from there on; the file's size stays as it is, and ftruncate to that size gives
     * back what lies behind. NULL: it is found when bytes are written. */
    int (*allocate)(void *ctx, int fd, uint64_t at, uint64_t n);
    /* The time of the file's last change. NULL: there is none. */
    int (*set_mtime)(void *ctx, int fd, int64_t mtime_ms);
    /* All of them at the price of one. NULL, or -EOPNOTSUPP: nothing was done, it would cost more than it saves. */
    int (*sync_all)(void *ctx, const struct file_sync *what, size_t count);
};

struct file_system {
    const struct file_ops *ops;
    void *ctx;
};

/* The machine's own. */
extern const struct file_system file_system_real;

static inline int file_open(const struct file_system *f, const char *path, int flags)
{
    return f->ops->open(f->ctx, path, flags);
}
static inline int file_dup(const struct file_system *f, int fd)
{
    return f->ops->dup(f->ctx, fd);
}
static inline int file_fdatasync(const struct file_system *f, int fd)
{
    return f->ops->fdatasync(f->ctx, fd);
}
static inline int file_ftruncate(const struct file_system *f, int fd, uint64_t size)
{
    return f->ops->ftruncate(f->ctx, fd, size);
}
static inline int file_fstat(const struct file_system *f, int fd, struct file_stat *s)
{
    return f->ops->fstat(f->ctx, fd, s);
}
static inline int file_stat(const struct file_system *f, const char *path, struct file_stat *s)
{
    return f->ops->stat(f->ctx, path, s);
}
static inline int file_rename(const struct file_system *f, const char *a, const char *b)
{
    return f->ops->rename(f->ctx, a, b);
}
static inline int file_unlink(const struct file_system *f, const char *path)
{
    return f->ops->unlink(f->ctx, path);
}
static inline int file_mkdir(const struct file_system *f, const char *path)
{
    return f->ops->mkdir(f->ctx, path);
}
static inline int file_rmdir(const struct file_system *f, const char *path)
{
    return f->ops->rmdir(f->ctx, path);
}
static inline int file_sync_dir(const struct file_system *f, const char *path)
{
    return f->ops->sync_dir(f->ctx, path);
}
/* Makes all of them durable, with one commit of the file system's journal and one flush of the device where that pays.
 * 0; -EOPNOTSUPP: nothing was done, each is to be made durable by itself; -errno. */
static inline int file_sync_all(const struct file_system *f, const struct file_sync *what, size_t count)
{
    return f->ops->sync_all != NULL ? f->ops->sync_all(f->ctx, what, count) : -EOPNOTSUPP;
}
static inline int file_list(const struct file_system *f, const char *path, file_list_fn *fn, void *arg)
{
    return f->ops->list(f->ctx, path, fn, arg);
}
static inline int file_set_mtime(const struct file_system *f, int fd, int64_t mtime_ms)
{
    return f->ops->set_mtime != NULL ? f->ops->set_mtime(f->ctx, fd, mtime_ms) : 0;
}
/* Returns -1, for `fd = file_close(fs, fd)`; takes -1. */
int file_close(const struct file_system *f, int fd);

/* All n bytes, over short reads. 0, -ENODATA when the file ends before, -errno. */
NODISCARD int file_read_all(const struct file_system *f, int fd, void *p, size_t n, uint64_t at);
/* Is that byte in memory, or can that not be told? 1, 0, -errno. */
NODISCARD int file_is_warm(const struct file_system *f, int fd, uint64_t at);
/* The same as file_read_all, but -EAGAIN where it would wait for the disk. */
NODISCARD int file_read_now(const struct file_system *f, int fd, void *p, size_t n, uint64_t at);
/* Waits until the bytes are in memory, or the file ends. 0 or -errno. */
NODISCARD int file_prefetch(const struct file_system *f, int fd, uint64_t at, size_t n);
/* So that what is about to be written costs less; an error changes nothing for who writes. 0 or -errno. */
int file_allocate(const struct file_system *f, int fd, uint64_t at, uint64_t n);
/* All bytes of the vectors, over short writes and more than IOV_MAX of them; iov is used up. 0 or -errno, some bytes
 * may then be written. */
NODISCARD int file_write_all(const struct file_system *f, int fd, struct iovec *iov, size_t count, uint64_t at);
NODISCARD int file_write(const struct file_system *f, int fd, const void *p, size_t n, uint64_t at);

/* The whole of a file of at most max_bytes, malloc'ed and terminated by a zero that is not counted. -ENOENT, -EFBIG,
 * -errno. */
NODISCARD int file_slurp(const struct file_system *f, const char *path, size_t max_bytes, char **ret_data,
                         size_t *ret_size);
/* Replaces a file as Kafka does: NAME.tmp, flushed, renamed, folder flushed. durable false leaves the two flushes out,
 * for what recovery can build again. On an error the old file is as it was. */
NODISCARD int file_replace(const struct file_system *f, const char *dir, const char *name, const void *p, size_t n,
                           bool durable);
/* Removes a folder and the files in it (no folder in a folder). 0 also when it is not there. */
NODISCARD int file_remove_tree(const struct file_system *f, const char *dir);

#endif
