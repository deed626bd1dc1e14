/* datadir.c - the data directory: whose it is, and the format of an empty one. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libs/base/uuid.h"
#include "libs/config/meta_properties.h"
#include "libs/kraft/format.h"
#include "services/karst/karst.h"

/* mkdir -p */
static int make_folders(const char *path)
{
    char *copy = xstrdup(path);
    int r = 0;
    for (char *p = copy + 1; r == 0; p++) {
        char c = *p;
        if (c != '/' && c != 0)
            continue;
        *p = 0;
        if (mkdir(copy, 0755) != 0 && errno != EEXIST)
            r = -errno;
        *p = c;
        if (c == 0)
            break;
    }
    free(copy);
    return r;
}

int datadir_open(const char *path, char **ret_path, char **ret_error)
{
    struct stat st;
    int r = make_folders(path);
    char *real = r ? NULL : realpath(path, NULL);
    if (r == 0 && real == NULL)
        r = -errno;
    if (r == 0 && stat(real, &st) != 0)
        r = -errno;
    if (r == 0 && !S_ISDIR(st.st_mode))
        r = -ENOTDIR;
    if (r == 0 && access(real, R_OK | W_OK | X_OK) != 0)
        r = -errno;
    if (r) {
        *ret_error = xasprintf("cannot use %s as a data directory: %s", path, strerror(-r));
        free(real);
        return r;
    }
    *ret_path = real;
    return 0;
}

int datadir_lock(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    int r = -errno;
    close(fd);
    return r;
}

/* Kafka holds a write lock on .lock as long as it uses the folder; Karst's services hold read locks. */
static int refuse_running_kafka(const char *path, char **ret_error)
{
    char *file = xasprintf("%s/.lock", path);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    bool held = fd >= 0 && fcntl(fd, F_GETLK, &l) == 0 && l.l_type == F_WRLCK;
    if (fd >= 0)
        close(fd);
    free(file);
    if (!held)
        return 0;
    *ret_error = xasprintf("%s is in use by process %d, a running Apache Kafka: stop it first", path, (int)l.l_pid);
    return -EBUSY;
}

/* What may be there before a format is complete: nothing but what a format that was cut short leaves. */
static bool may_be_formatted(const char *path, char **ret_found)
{
    static const char *const fine[] = {
        ".", "..", ".lock", "lost+found", "bootstrap.checkpoint", "__cluster_metadata-0"};
    DIR *dir = opendir(path);
    struct dirent *e;
    while (dir && (e = readdir(dir)) != NULL) {
        bool known = strstr(e->d_name, ".tmp") != NULL;
        for (size_t i = 0; i < COUNTOF(fine); i++)
            known = known || strcmp(e->d_name, fine[i]) == 0;
        if (!known) {
            *ret_found = xstrdup(e->d_name);
            closedir(dir);
            return false;
        }
    }
    if (dir)
        closedir(dir);
    return true;
}

static int make_uuid(struct uuid *ret_uuid)
{
    uint8_t random[16];
    do {
        if (getrandom(random, sizeof(random), 0) != sizeof(random))
            return -EIO;
    } while (uuid_from_random(random, ret_uuid) != 0);
    return 0;
}

/* The voter's endpoint in the new metadata log: where a Kafka with this configuration would serve its controller. */
static uint16_t controller_port(const struct config *c, char *ret_host)
{
    uint16_t port;
    struct arena *a = arena_new(0);
    struct config_list all = config_list(c, "listeners", a), names = config_list(c, "controller.listener.names", a);
    effective_address(c, ret_host, &port);
    port = (uint16_t)(port == UINT16_MAX ? 9093 : port + 1);
    for (size_t i = 0; names.count && i < all.count; i++) {
        size_t n = strlen(names.items[0]);
        if (strncmp(all.items[i], names.items[0], n) == 0 && strncmp(all.items[i] + n, "://", 3) == 0) {
            char host[256];
            uint16_t given;
            if (endpoint_parse(all.items[i] + n + 3, host, &given) == 0) {
                port = given;
                if (*host && strcmp(host, "0.0.0.0") != 0)
                    strcpy(ret_host, host);
            }
        }
    }
    arena_free(a);
    return port;
}

static int format(const char *path, const struct config *c, struct datadir_identity *ret_identity, char **ret_error)
{
    struct timespec now;
    struct uuid cluster;
    struct kraft_format_options o = {.dir = path, .listener_name = "CONTROLLER"};
    char host[256], *found = NULL;
    if (!may_be_formatted(path, &found)) {
        *ret_error = xasprintf(
            "%s is no Kafka data directory (it has %s and no meta.properties): give an empty one, or one of Kafka's",
            path, found);
        free(found);
        return -EEXIST;
    }
    int r = make_uuid(&cluster);
    if (r == 0)
        r = make_uuid(&o.meta.directory_id);
    if (r) {
        *ret_error = xasprintf("no random numbers for the cluster id: %s", strerror(-r));
        return r;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    strcpy(o.meta.cluster_id, uuid_to_text(cluster).s);
    o.meta.node_id = config_int(c, "node.id");
    o.port = controller_port(c, host);
    o.host = host;
    o.now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    r = kraft_format(&o, ret_error);
    if (r == 0) {
        strcpy(ret_identity->cluster_id, o.meta.cluster_id);
        ret_identity->formatted_now = true;
    }
    return r;
}

int datadir_prepare(const char *path, const struct config *c, struct datadir_identity *ret_identity, char **ret_error)
{
    struct meta_properties meta;
    int32_t wanted = config_int(c, "node.id");
    int r = refuse_running_kafka(path, ret_error);
    if (r)
        return r;
    r = meta_properties_read(path, &meta, ret_error);
    if (r == -ENOENT)
        return format(path, c, ret_identity, ret_error);
    if (r)
        return r;
    if (meta.node_id != wanted) {
        *ret_error =
            xasprintf("%s belongs to node %d, and the configuration says node.id=%d", path, meta.node_id, wanted);
        return -EINVAL;
    }
    snprintf(ret_identity->cluster_id, sizeof(ret_identity->cluster_id), "%s", meta.cluster_id);
    ret_identity->formatted_now = false;
    return 0;
}
