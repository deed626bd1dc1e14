/* platform.c - see platform.h. These functions stand in the place of those of the libraries (--wrap and, for whole
 * files, the link order do it). */
#include "tests/sim/platform.h"

#include "libs/base/log.h"
#include "libs/config/config.h"
#include "libs/config/meta_properties.h"
#include "libs/log/logdir.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>

const char PLATFORM_CLUSTER_ID[] = "simulated-cluster-0001";

static struct sim *the_sim;
static platform_identity_fn *identity_of;
static bool formatted; /* a data directory has an identity */

void platform_start(struct sim *s, platform_identity_fn *of)
{
    the_sim = s;
    identity_of = of;
}

void platform_stop(void)
{
    platform_start(NULL, NULL);
}

void platform_set_formatted(bool is)
{
    formatted = is;
}

int __wrap_config_load(struct config *c, const char *path, char **ret_error);
int __wrap_logdir_lock(const char *dir, int role, int *ret_fd, int *ret_holder);
extern const struct file_system __wrap_file_system_real;

int __wrap_config_load(struct config *c, const char *path UNUSED, char **ret_error)
{
    return config_parse(c, slice_str(identity_of(process_current())->config), ret_error);
}

int meta_properties_read(const char *dir, struct meta_properties *ret_meta, char **ret_error)
{
    const struct platform_identity *own = identity_of(process_current());
    size_t prefix = sizeof PLATFORM_DIR - 1;
    (void)ret_error;
    if (!formatted)
        return -ENOENT;
    *ret_meta = (struct meta_properties){.node_id = own->node_id, .directory_id = own->directory_id};
    if (strncmp(dir, PLATFORM_DIR, prefix) == 0)
        ret_meta->directory_id.b[15] = (uint8_t)(ret_meta->directory_id.b[15] + dir[prefix]);
    snprintf(ret_meta->cluster_id, sizeof ret_meta->cluster_id, "%s", PLATFORM_CLUSTER_ID);
    return 0;
}

int meta_properties_write(const char *dir, const struct meta_properties *meta)
{
    (void)dir, (void)meta;
    return 0;
}

int __wrap_logdir_lock(const char *dir, int role, int *ret_fd, int *ret_holder)
{
    (void)dir, (void)role, (void)ret_holder;
    *ret_fd = -1;
    return 0;
}

/* ---- random bytes and log lines ---- */

ssize_t __wrap_getrandom(void *p, size_t size, unsigned flags);
int __wrap_gethostname(char *name, size_t size);

ssize_t __wrap_getrandom(void *p, size_t size, unsigned flags)
{
    (void)flags;
    uint8_t *bytes = p;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)sim_random(the_sim);
    return (ssize_t)size;
}

int __wrap_gethostname(char *name, size_t size)
{
    snprintf(name, size, "simulated");
    return 0;
}

void log_set_level(enum log_level least)
{
    (void)least;
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    struct process *p = process_current();
    char line[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (the_sim && (p == NULL || !process_is_ghost(p)))
        sim_note(the_sim, "%s %s: %s", p ? process_name(p) : "-", names[level], line);
}

/* ---- files ---- */

static struct file_system disk_of(struct process **ret_process)
{
    *ret_process = process_enter(NULL);
    ASSERT(*ret_process != NULL && process_disk(*ret_process) != NULL);
    return disk_fs(process_disk(*ret_process));
}

/* Between any two changes of its disk a process may die; the disk itself refuses what comes after. */
static struct file_system disk_to_change(struct process **ret_process)
{
    struct process *p = process_current();
    (void)process_acts(p);
    return disk_of(ret_process);
}

#define ON_DISK(type, which, call)                                                                                     \
    struct process *p;                                                                                                 \
    struct file_system d = which(&p);                                                                                  \
    type result = d.ops->call;                                                                                         \
    process_leave(p);                                                                                                  \
    return result

static int do_open(void *ctx UNUSED, const char *path, int flags)
{
    ON_DISK(int, disk_to_change, open(d.ctx, path, flags));
}
static int do_dup(void *ctx UNUSED, int fd)
{
    ON_DISK(int, disk_of, dup(d.ctx, fd));
}
static int do_close(void *ctx UNUSED, int fd)
{
    ON_DISK(int, disk_of, close(d.ctx, fd));
}
static ssize_t do_pread(void *ctx UNUSED, int fd, void *to, size_t n, uint64_t at)
{
    ON_DISK(ssize_t, disk_of, pread(d.ctx, fd, to, n, at));
}
static ssize_t do_pwritev(void *ctx UNUSED, int fd, const struct iovec *iov, int count, uint64_t at)
{
    ON_DISK(ssize_t, disk_to_change, pwritev(d.ctx, fd, iov, count, at));
}
static int do_fdatasync(void *ctx UNUSED, int fd)
{
    ON_DISK(int, disk_to_change, fdatasync(d.ctx, fd));
}
static int do_allocate(void *ctx UNUSED, int fd, uint64_t at, uint64_t n)
{
    ON_DISK(int, disk_to_change, allocate(d.ctx, fd, at, n));
}
static int do_ftruncate(void *ctx UNUSED, int fd, uint64_t size)
{
    ON_DISK(int, disk_to_change, ftruncate(d.ctx, fd, size));
}
static int do_fstat(void *ctx UNUSED, int fd, struct file_stat *ret)
{
    ON_DISK(int, disk_of, fstat(d.ctx, fd, ret));
}
static int do_stat(void *ctx UNUSED, const char *path, struct file_stat *ret)
{
    ON_DISK(int, disk_of, stat(d.ctx, path, ret));
}
static int do_rename(void *ctx UNUSED, const char *from, const char *to)
{
    ON_DISK(int, disk_to_change, rename(d.ctx, from, to));
}
static int do_unlink(void *ctx UNUSED, const char *path)
{
    ON_DISK(int, disk_to_change, unlink(d.ctx, path));
}
static int do_mkdir(void *ctx UNUSED, const char *path)
{
    ON_DISK(int, disk_to_change, mkdir(d.ctx, path));
}
static int do_rmdir(void *ctx UNUSED, const char *path)
{
    ON_DISK(int, disk_to_change, rmdir(d.ctx, path));
}
static int do_sync_dir(void *ctx UNUSED, const char *path)
{
    ON_DISK(int, disk_to_change, sync_dir(d.ctx, path));
}

static int do_sync_all(void *ctx UNUSED, const struct file_sync *what, size_t count)
{
    ON_DISK(int, disk_to_change, sync_all(d.ctx, what, count));
}

struct listing {
    struct process *process;
    file_list_fn *fn;
    void *arg;
};

static void on_name(void *arg, const char *name)
{
    struct listing *l = arg;
    struct process *before = process_enter(l->process);
    l->fn(l->arg, name);
    process_leave(before);
}

static int do_list(void *ctx UNUSED, const char *path, file_list_fn *fn, void *arg)
{
    struct listing l = {.process = process_current(), .fn = fn, .arg = arg};
    ON_DISK(int, disk_of, list(d.ctx, path, on_name, &l));
}

static const struct file_ops ops = {
    .open = do_open,
    .dup = do_dup,
    .close = do_close,
    .pread = do_pread,
    .pwritev = do_pwritev,
    .fdatasync = do_fdatasync,
    .ftruncate = do_ftruncate,
    .allocate = do_allocate,
    .fstat = do_fstat,
    .stat = do_stat,
    .rename = do_rename,
    .unlink = do_unlink,
    .mkdir = do_mkdir,
    .rmdir = do_rmdir,
    .sync_dir = do_sync_dir,
    .sync_all = do_sync_all,
    .list = do_list,
};

const struct file_system __wrap_file_system_real = {&ops, NULL};

int __wrap_statvfs(const char *path, struct statvfs *ret_disk);

/* A disk of 4 GiB, as programs see it: half of it is free, or nothing. */
int __wrap_statvfs(const char *path UNUSED, struct statvfs *ret_disk)
{
    struct process *p = process_enter(NULL);
    ASSERT(p != NULL && process_disk(p) != NULL);
    *ret_disk = (struct statvfs){.f_frsize = 4096, .f_blocks = 1 << 20};
    ret_disk->f_bavail = disk_is_full(process_disk(p)) ? 0 : ret_disk->f_blocks / 2;
    process_leave(p);
    return 0;
}
