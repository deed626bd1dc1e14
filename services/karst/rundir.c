/* rundir.c - the folder of sockets, locks and logs of one running constellation. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "services/karst/karst.h"

enum {
    BASE_BYTES_MAX = 48, /* leaves room for /karst-UID/HASH/controller-1.coordinator in sun_path */
    SYSTEM_USERS = 1000, /* ids below are not people's */
};

#define SHM      "/dev/shm"
#define FALLBACK "/tmp"

/* FNV-1a: two data directories of one user must differ, nobody attacks himself. */
static uint64_t path_hash(const char *path)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *path; path++)
        h = (h ^ (uint8_t)*path) * 0x100000001b3u;
    return h;
}

static const char *xdg_runtime_dir(void)
{
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    return xdg && *xdg == '/' && strlen(xdg) <= BASE_BYTES_MAX ? xdg : NULL;
}

/* Where a new one is made. logind empties /dev/shm of users who log out, but for those of the system. */
static const char *base_now(void)
{
    const char *xdg = xdg_runtime_dir();
    if (xdg != NULL && access(xdg, W_OK | X_OK) == 0)
        return xdg;
    return geteuid() < SYSTEM_USERS && access(SHM, W_OK | X_OK) == 0 ? SHM : FALLBACK;
}

/* Makes the folder, or takes one that is ours alone. Nobody can put a link or a folder of his in our way unseen. */
static int own_folder(const char *path, char **ret_error)
{
    struct stat st;
    int r = 0;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        r = -errno;
    int fd = r ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r == 0 && fd < 0)
        r = -errno;
    if (r == 0 && fstat(fd, &st) != 0)
        r = -errno;
    if (r == 0 && st.st_uid != geteuid()) {
        *ret_error = xasprintf("%s belongs to user %u: it must belong to user %u", path, st.st_uid, geteuid());
        r = -EPERM;
    } else if (r == 0 && (st.st_mode & 077) != 0 && fchmod(fd, 0700) != 0) {
        r = -errno;
    } else if (r == -ELOOP || r == -ENOTDIR) {
        *ret_error = xasprintf("%s is a link or a file: it must be a folder", path);
    }
    if (r && *ret_error == NULL)
        *ret_error = xasprintf("cannot make %s: %s", path, strerror(-r));
    if (fd >= 0)
        close(fd);
    return r;
}

static char *path_under(const char *base, const char *data)
{
    return xasprintf("%s/karst-%u/%016llx", base, geteuid(), (unsigned long long)path_hash(data));
}

int rundir_make(const char *data, char **ret_path, char **ret_error)
{
    const char *base = base_now();
    char *parent = xasprintf("%s/karst-%u", base, geteuid());
    char *path = path_under(base, data);
    *ret_error = NULL;
    int r = own_folder(parent, ret_error);
    if (r == 0)
        r = own_folder(path, ret_error);
    if (r == 0)
        *ret_path = TAKE_PTR(path);
    free(path);
    free(parent);
    return r;
}

static struct flock whole_file(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET};
}

int rundir_lock(const char *path)
{
    char *file = xasprintf("%s/lock", path);
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = fd < 0 ? -errno : fd;
    free(file);
    struct flock l = whole_file(F_WRLCK);
    if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &l) != 0) {
        r = errno == EACCES || errno == EAGAIN ? -EWOULDBLOCK : -errno;
        close(fd);
    }
    return r;
}

static bool is_locked(const char *path)
{
    char *file = xasprintf("%s/lock", path);
    int fd = open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    struct flock l = whole_file(F_WRLCK);
    bool locked = fd >= 0 && fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
    if (fd >= 0)
        close(fd);
    free(file);
    return locked;
}

int rundir_find(const char *data, char **ret_path)
{
    char user[32];
    snprintf(user, sizeof user, "/run/user/%u", geteuid());
    const char *bases[] = {xdg_runtime_dir(), user, SHM, FALLBACK};

    for (size_t i = 0; i < COUNTOF(bases); i++) {
        char *path = bases[i] != NULL ? path_under(bases[i], data) : NULL;
        if (path != NULL && is_locked(path)) {
            *ret_path = path;
            return 0;
        }
        free(path);
    }
    return -ENOENT;
}

void rundir_clean(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *e;
    if (dir == NULL)
        return;
    while ((e = readdir(dir)) != NULL)
        if (e->d_name[0] != '.' && strncmp(e->d_name, "karst.log", 9) != 0)
            unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
    rmdir(path); /* stays while a log is there */
}
