/* file.c - the real file system, and what is built on any of them. */
#include "libs/log/file.h"
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OR_ERRNO(call)                                                                                                 \
    __extension__({                                                                                                    \
        __typeof__(call) result_;                                                                                      \
        do                                                                                                             \
            result_ = (call);                                                                                          \
        while (result_ < 0 && errno == EINTR);                                                                         \
        result_ < 0 ? -errno : result_;                                                                                \
    })

static int real_open(void *ctx UNUSED, const char *path, int flags)
{
    return OR_ERRNO(open(path, flags | O_CLOEXEC, 0644));
}

static int real_dup(void *ctx UNUSED, int fd)
{
    return OR_ERRNO(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

static int real_close(void *ctx UNUSED, int fd)
{
    return close(fd) < 0 ? -errno : 0;
}

static ssize_t real_pread(void *ctx UNUSED, int fd, void *p, size_t n, uint64_t at)
{
    return OR_ERRNO(pread(fd, p, n, (off_t)at));
}

static ssize_t real_pwritev(void *ctx UNUSED, int fd, const struct iovec *iov, int count, uint64_t at)
{
    return OR_ERRNO(pwritev(fd, iov, count, (off_t)at));
}

static int real_fdatasync(void *ctx UNUSED, int fd)
{
    return OR_ERRNO(fdatasync(fd));
}

static int real_ftruncate(void *ctx UNUSED, int fd, uint64_t size)
{
    return OR_ERRNO(ftruncate(fd, (off_t)size));
}

static void stat_of(const struct stat *st, struct file_stat *ret)
{
    *ret = (struct file_stat){
        .size_bytes = (uint64_t)st->st_size,
        .mtime_ms = (int64_t)st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000,
        .is_dir = S_ISDIR(st->st_mode),
    };
}

static int real_fstat(void *ctx UNUSED, int fd, struct file_stat *ret_stat)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    stat_of(&st, ret_stat);
    return 0;
}

static int real_stat(void *ctx UNUSED, const char *path, struct file_stat *ret_stat)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    stat_of(&st, ret_stat);
    return 0;
}

static int real_rename(void *ctx UNUSED, const char *from, const char *to)
{
    return rename(from, to) < 0 ? -errno : 0;
}

static int real_unlink(void *ctx UNUSED, const char *path)
{
    return unlink(path) < 0 ? -errno : 0;
}

static int real_mkdir(void *ctx UNUSED, const char *path)
{
    return mkdir(path, 0755) < 0 ? -errno : 0;
}

static int real_rmdir(void *ctx UNUSED, const char *path)
{
    return rmdir(path) < 0 ? -errno : 0;
}

static int real_sync_dir(void *ctx UNUSED, const char *path)
{
    int fd = OR_ERRNO(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd < 0)
        return fd;
    int err = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return err;
}

static int real_list(void *ctx UNUSED, const char *path, file_list_fn *fn, void *arg)
{
    DIR *d = opendir(path);
    if (d == NULL)
        return -errno;
    struct dirent *e;
    while (errno = 0, (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            fn(arg, e->d_name);
    }
    int err = -errno;
    closedir(d);
    return err;
}

static ssize_t real_pread_now(void *ctx UNUSED, int fd, void *p, size_t n, uint64_t at)
{
    struct iovec iov = {p, n};
    return OR_ERRNO(preadv2(fd, &iov, 1, (off_t)at, RWF_NOWAIT));
}

/* Their pages go to nobody: read in sequence, but not copied, so that the kernel reads ahead in large folios. What it
 * brings in when it is told to (WILLNEED) are single pages, which cost several times as much, and more again when they
 * are sent. */
static int real_prefetch(void *ctx UNUSED, int fd, uint64_t at, size_t n)
{
    int nobody = OR_ERRNO(open("/dev/null", O_WRONLY | O_CLOEXEC));
    off_t position = (off_t)at, end = (off_t)(at + n);
    ssize_t got = nobody < 0 ? nobody : 1;
    while (got > 0 && position < end)
        got = OR_ERRNO(sendfile(nobody, fd, &position, (size_t)(end - position)));
    if (nobody >= 0)
        close(nobody);
    return got < 0 && got != -EINVAL ? (int)got : 0; /* EINVAL: a file system without; who reads will wait itself */
}

static int real_allocate(void *ctx UNUSED, int fd, uint64_t at, uint64_t n)
{
    return OR_ERRNO(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n));
}

static int real_set_mtime(void *ctx UNUSED, int fd, int64_t mtime_ms)
{
    struct timespec at = {.tv_sec = (time_t)(mtime_ms / 1000), .tv_nsec = (long)(mtime_ms % 1000) * 1000000};
    struct timespec times[2] = {at, at};
    return futimens(fd, times) < 0 ? -errno : 0;
}

/* How much in the whole system waits to be written to disks. Looked at anew after some 20 ms: it costs as much as a few
 * system calls. */
static uint64_t dirty_bytes(void)
{
    enum { LOOK_EVERY_MS = 20 };
    static _Atomic uint64_t looked_ms, dirty;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
    if (now - looked_ms < LOOK_EVERY_MS)
        return dirty;
    char text[8192];
    int fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *waits = strstr(text, "\nnr_dirty "), *under_way = strstr(text, "\nnr_writeback ");
    uint64_t pages = UINT64_MAX / 65536;
    if (waits != NULL && under_way != NULL)
        pages = strtoull(waits + strlen("\nnr_dirty "), NULL, 10) +
                strtoull(under_way + strlen("\nnr_writeback "), NULL, 10);
    dirty = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    looked_ms = now;
    return dirty;
}

static int device_of(const struct file_sync *what, dev_t *ret_device)
{
    struct stat st;
    if ((what->dir != NULL ? stat(what->dir, &st) : fstat(what->fd, &st)) < 0)
        return -errno;
    *ret_device = st.st_dev;
    return 0;
}

/* One fdatasync after the other costs a commit of the journal and a flush of the device each, though each of them
 * carries what all the others wait for: 100 files took 130 ms one by one, 6 ms on 4 threads, 2 to 4 ms with syncfs,
 * which takes a tenth of the CPU, too. But it writes whatever else is dirty on the file system, and waits for that. */
static int real_sync_all(void *ctx UNUSED, const struct file_sync *what, size_t count)
{
    enum { FEWEST = 2, MOST_DIRTY_BYTES = 8 << 20 };
    dev_t device, other;
    if (count < FEWEST || what[0].dir != NULL || dirty_bytes() > MOST_DIRTY_BYTES)
        return -EOPNOTSUPP;
    int err = device_of(&what[0], &device);
    for (size_t i = 1; err == 0 && i < count; i++) {
        err = device_of(&what[i], &other);
        if (err == 0 && other != device) /* a partition's folder is a mount, or leads to one */
            return -EOPNOTSUPP;
    }
    if (err == 0)
        err = OR_ERRNO(syncfs(what[0].fd));
    /* Kernels before 5.8 do not say there that records could not be written; each file knows. Nothing is left to wait
     * for: it costs no I/O. */
    for (size_t i = 0; err == 0 && i < count; i++) {
        if (what[i].dir == NULL)
            err = OR_ERRNO(sync_file_range(what[i].fd, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER));
    }
    return err == -EOPNOTSUPP ? -EIO : err;
}

static const struct file_ops real_ops = {
    .open = real_open,
    .dup = real_dup,
    .close = real_close,
    .pread = real_pread,
    .pwritev = real_pwritev,
    .fdatasync = real_fdatasync,
    .ftruncate = real_ftruncate,
    .fstat = real_fstat,
    .stat = real_stat,
    .rename = real_rename,
    .unlink = real_unlink,
    .mkdir = real_mkdir,
    .rmdir = real_rmdir,
    .sync_dir = real_sync_dir,
    .list = real_list,
    .pread_now = real_pread_now,
    .prefetch = real_prefetch,
    .allocate = real_allocate,
    .set_mtime = real_set_mtime,
    .sync_all = real_sync_all,
};

const struct file_system file_system_real = {&real_ops, NULL};

int file_close(const struct file_system *f, int fd)
{
    if (fd >= 0)
        (void)f->ops->close(f->ctx, fd);
    return -1;
}

int file_read_all(const struct file_system *f, int fd, void *p, size_t n, uint64_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = f->ops->pread(f->ctx, fd, (char *)p + done, n - done, at + done);
        if (got < 0)
            return (int)got;
        if (got == 0)
            return -ENODATA;
        done += (size_t)got;
    }
    return 0;
}

int file_read_now(const struct file_system *f, int fd, void *p, size_t n, uint64_t at)
{
    for (size_t done = 0; f->ops->pread_now != NULL && done < n;) {
        ssize_t got = f->ops->pread_now(f->ctx, fd, (char *)p + done, n - done, at + done);
        if (got == -EOPNOTSUPP)
            break;
        if (got <= 0)
            return got < 0 ? (int)got : -ENODATA;
        done += (size_t)got;
        if (done == n)
            return 0;
    }
    return file_read_all(f, fd, p, n, at);
}

int file_is_warm(const struct file_system *f, int fd, uint64_t at)
{
    uint8_t byte;
    ssize_t got = f->ops->pread_now != NULL ? f->ops->pread_now(f->ctx, fd, &byte, 1, at) : 1;
    return got == -EAGAIN ? 0 : got < 0 && got != -EOPNOTSUPP ? (int)got : 1;
}

int file_prefetch(const struct file_system *f, int fd, uint64_t at, size_t n)
{
    return f->ops->prefetch != NULL ? f->ops->prefetch(f->ctx, fd, at, n) : 0;
}

int file_allocate(const struct file_system *f, int fd, uint64_t at, uint64_t n)
{
    return f->ops->allocate != NULL ? f->ops->allocate(f->ctx, fd, at, n) : 0;
}

int file_write_all(const struct file_system *f, int fd, struct iovec *iov, size_t count, uint64_t at)
{
    while (count > 0) {
        ssize_t n = f->ops->pwritev(f->ctx, fd, iov, (int)MIN(count, (size_t)IOV_MAX), at);
        if (n < 0)
            return (int)n;
        if (n == 0 && iov->iov_len > 0)
            return -EIO;
        at += (uint64_t)n;
        size_t left = (size_t)n;
        while (count > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            count--;
        }
        if (left > 0) {
            iov->iov_base = (char *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

int file_write(const struct file_system *f, int fd, const void *p, size_t n, uint64_t at)
{
    struct iovec iov = {(void *)(uintptr_t)p, n};
    return n > 0 ? file_write_all(f, fd, &iov, 1, at) : 0;
}

int file_slurp(const struct file_system *f, const char *path, size_t max_bytes, char **ret_data, size_t *ret_size)
{
    int fd = file_open(f, path, O_RDONLY);
    if (fd < 0)
        return fd;
    struct file_stat st;
    int err = file_fstat(f, fd, &st);
    if (err == 0 && st.size_bytes > max_bytes)
        err = -EFBIG;
    char *data = NULL;
    if (err == 0) {
        data = xmalloc((size_t)st.size_bytes + 1);
        err = file_read_all(f, fd, data, (size_t)st.size_bytes, 0);
    }
    file_close(f, fd);
    if (err < 0) {
        free(data);
        return err;
    }
    data[st.size_bytes] = '\0';
    *ret_data = data;
    *ret_size = (size_t)st.size_bytes;
    return 0;
}

int file_replace(const struct file_system *f, const char *dir, const char *name, const void *p, size_t n, bool durable)
{
    char *path = xasprintf("%s/%s", dir, name), *tmp = xasprintf("%s/%s.tmp", dir, name);
    int fd = file_open(f, tmp, O_RDWR | O_CREAT | O_TRUNC);
    int err = fd < 0 ? fd : file_write(f, fd, p, n, 0);
    if (err == 0 && durable)
        err = file_fdatasync(f, fd);
    file_close(f, fd);
    if (err == 0)
        err = file_rename(f, tmp, path);
    if (err < 0 && fd >= 0)
        (void)file_unlink(f, tmp);
    if (err == 0 && durable)
        err = file_sync_dir(f, dir);
    free(path);
    free(tmp);
    return err;
}

struct remove_tree {
    const struct file_system *f;
    const char *dir;
    int err;
};

static void remove_entry(void *arg, const char *name)
{
    struct remove_tree *r = arg;
    char *path = xasprintf("%s/%s", r->dir, name);
    int err = file_unlink(r->f, path);
    if (err < 0 && err != -ENOENT)
        r->err = err;
    free(path);
}

int file_remove_tree(const struct file_system *f, const char *dir)
{
    struct remove_tree r = {f, dir, 0};
    int err = file_list(f, dir, remove_entry, &r);
    if (err == -ENOENT)
        return 0;
    if (err == 0)
        err = r.err;
    return err < 0 ? err : file_rmdir(f, dir);
}
