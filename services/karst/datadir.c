/* datadir.c - the data directories: whose they are, and the format of empty ones.
 *
 * All are formatted, or none is: then all are formatted now, the one with the metadata log last, so that a format that
 * was cut short goes on at the next start. One alone without meta.properties is a disk that is not mounted, more often
 * than not, and a new cluster on it would set all partitions of the others aside: refused, as Kafka does. */
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
#include "libs/kraft/kraft.h"
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
int datadir_refuse_kafka(const char *path, char **ret_error)
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
        ".", "..", ".lock", "lost+found", "bootstrap.checkpoint", "meta.properties", "__cluster_metadata-0"};
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

int datadir_check_empty(const char *path, char **ret_error)
{
    char *found = NULL;
    if (may_be_formatted(path, &found))
        return 0;
    *ret_error = xasprintf("%s cannot be formatted, as there is %s in it", path, found);
    free(found);
    return -EEXIST;
}

int datadir_make_uuid(struct uuid *ret_uuid)
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
            if (config_endpoint(all.items[i] + n + 3, host, &given) == 0) {
                port = given;
                if (!config_host_is_any(host))
                    strcpy(ret_host, host);
            }
        }
    }
    arena_free(a);
    return port;
}

/* The data directories, that of the metadata log among them. */
struct directories {
    const char *metadata;
    const char **at;
    size_t count;
    struct arena *arena;
};

static struct directories list_directories(const struct config *c)
{
    struct directories d = {.arena = arena_new(0)};
    struct config_list list = config_log_dirs(c, d.arena);
    bool inside = false;
    d.metadata = config_metadata_log_dir(c, d.arena);
    d.at = arena_alloc(d.arena, (list.count + 1) * sizeof *d.at);
    for (size_t i = 0; i < list.count; i++) {
        d.at[d.count++] = list.items[i];
        inside = inside || strcmp(list.items[i], d.metadata) == 0;
    }
    if (!inside)
        d.at[d.count++] = d.metadata;
    return d;
}

/* Nothing but what a format leaves may be in any of them. *cluster_id: that of those that have been formatted. */
static int check_empty(const struct directories *all, char *cluster_id, char **ret_error)
{
    struct meta_properties meta;
    for (size_t i = 0; i < all->count; i++) {
        const char *path = all->at[i];
        char *found = NULL, *real = NULL;
        int r = datadir_open(path, &real, ret_error);
        free(real);
        if (r)
            return r;
        if (!may_be_formatted(path, &found)) {
            *ret_error =
                strcmp(path, all->metadata) == 0 && all->count == 1
                    ? xasprintf("%s is no Kafka data directory (it has %s and no meta.properties): give an "
                                "empty one, or one of Kafka's",
                                path, found)
                    : xasprintf("%s has no meta.properties, and cannot be formatted, as there is %s/%s: is its "
                                "disk mounted?",
                                all->metadata, path, found);
            free(found);
            return -EEXIST;
        }
        r = meta_properties_read(path, &meta, ret_error);
        if (r == -ENOENT)
            continue;
        if (r == 0 && *cluster_id && strcmp(cluster_id, meta.cluster_id) != 0) {
            *ret_error =
                xasprintf("%s belongs to the cluster %s, another directory to %s", path, meta.cluster_id, cluster_id);
            r = -EINVAL;
        }
        if (r)
            return r;
        strcpy(cluster_id, meta.cluster_id);
    }
    return 0;
}

static int format_one(struct kraft_format_options *o, const char *path, bool is_metadata, char **ret_error)
{
    struct meta_properties meta;
    int r = meta_properties_read(path, &meta, ret_error);
    if (r != -ENOENT)
        return r;
    r = datadir_make_uuid(&o->meta.directory_id);
    if (r) {
        *ret_error = xasprintf("no random numbers for the directory id: %s", strerror(-r));
        return r;
    }
    for (int32_t i = 0; is_metadata && o->voters != NULL && i < o->voters->count; i++)
        if (o->voters->voter[i].id == o->meta.node_id)
            o->meta.directory_id = o->voters->voter[i].directory_id;
    o->dir = path;
    return is_metadata ? kraft_format(o, ret_error) : kraft_format_data(o, ret_error);
}

/* is_first: the metadata log begins here, with these voters, or this controller as its only one; else it is had from
 * others. cluster_id NULL: that of the configuration, else a new one. */
static int format(const struct directories *all, const struct config *c, bool is_first,
                  const struct kraft_voters *voters, const char *cluster_id, struct datadir_identity *ret_identity,
                  char **ret_error)
{
    struct timespec now;
    struct uuid cluster;
    struct kraft_format_options o = {.listener_name = "CONTROLLER", .voters = voters};
    char host[256];
    int r = check_empty(all, o.meta.cluster_id, ret_error);
    if (r)
        return r;
    r = datadir_make_uuid(&cluster);
    if (r) {
        *ret_error = xasprintf("no random numbers for the cluster id: %s", strerror(-r));
        return r;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    if (cluster_id == NULL && network_is_used(c))
        cluster_id = config_string(c, "karst.cluster.id");
    if (cluster_id != NULL && *o.meta.cluster_id && strcmp(cluster_id, o.meta.cluster_id) != 0) {
        *ret_error = xasprintf("one of the directories belongs to the cluster %s already", o.meta.cluster_id);
        return -EINVAL;
    }
    if (*o.meta.cluster_id == 0)
        snprintf(o.meta.cluster_id, sizeof o.meta.cluster_id, "%s",
                 cluster_id != NULL ? cluster_id : uuid_to_text(cluster).s);
    o.meta.node_id = config_int(c, "node.id");
    o.port = controller_port(c, host);
    o.host = host;
    o.now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    for (size_t i = 0; i < all->count && r == 0; i++) {
        if (strcmp(all->at[i], all->metadata) != 0)
            r = format_one(&o, all->at[i], false, ret_error);
    }
    if (r == 0)
        r = format_one(&o, all->metadata, is_first, ret_error);
    if (r == 0) {
        strcpy(ret_identity->cluster_id, o.meta.cluster_id);
        ret_identity->formatted_now = true;
    }
    return r;
}

int datadir_format(const struct config *c, char **ret_error)
{
    struct directories all = list_directories(c);
    struct kraft_format_options o = {0};
    struct meta_properties meta;
    char *real = NULL;
    *ret_error = NULL;
    int r = meta_properties_read(all.metadata, &meta, ret_error), count = 0;
    if (r == -ENOENT)
        *ret_error = xasprintf("%s is not formatted: karst up does that, when all directories are empty", all.metadata);
    o.meta.node_id = meta.node_id;
    for (size_t i = 0; i < all.count && r == 0; i++) {
        struct meta_properties its;
        free(TAKE_PTR(real));
        if ((r = datadir_open(all.at[i], &real, ret_error)) != 0 ||
            (r = meta_properties_read(all.at[i], &its, ret_error)) == 0)
            continue;
        if (r == -ENOENT)
            r = datadir_check_empty(all.at[i], ret_error);
        if (r == 0) {
            strcpy(o.meta.cluster_id, meta.cluster_id);
            r = format_one(&o, all.at[i], false, ret_error);
            count += r == 0;
        }
    }
    free(real);
    arena_free(all.arena);
    return r ? r : count;
}

/* Of a cluster that is there. A directory that cannot be read is no reason: storage goes on with the others. */
static int check_member(const struct directories *all, const char *path, const struct meta_properties *first,
                        char **ret_error)
{
    struct meta_properties meta;
    char *error = NULL;
    int r = meta_properties_read(path, &meta, &error);
    if (r == -ENOENT)
        *ret_error = xasprintf("%s has no meta.properties, and %s has: is its disk mounted? A new directory is "
                               "formatted with: karst format --data %s --config FILE",
                               path, all->metadata, all->metadata);
    if (r == -ENOENT || r) {
        free(error);
        return r == -ENOENT ? r : 0;
    }
    if (strcmp(meta.cluster_id, first->cluster_id) != 0)
        *ret_error = xasprintf("%s belongs to the cluster %s, and %s to %s", path, meta.cluster_id, all->metadata,
                               first->cluster_id);
    else if (meta.node_id != first->node_id)
        *ret_error =
            xasprintf("%s belongs to node %d, and %s to %d", path, meta.node_id, all->metadata, first->node_id);
    return *ret_error ? -EINVAL : 0;
}

static int check_members(const struct directories *all, const struct config *c, const struct meta_properties *first,
                         char **ret_error)
{
    int32_t wanted = config_int(c, "node.id");
    int r = 0;
    if (network_is_used(c) && strcmp(first->cluster_id, config_string(c, "karst.cluster.id")) != 0) {
        *ret_error = xasprintf("%s belongs to the cluster %s, and the configuration says karst.cluster.id=%s",
                               all->metadata, first->cluster_id, config_string(c, "karst.cluster.id"));
        return -EINVAL;
    }
    if (first->node_id != wanted) {
        *ret_error = xasprintf("%s belongs to node %d, and the configuration says node.id=%d", all->metadata,
                               first->node_id, wanted);
        return -EINVAL;
    }
    for (size_t i = 0; i < all->count && r == 0; i++)
        r = check_member(all, all->at[i], first, ret_error);
    return r;
}

int datadir_form(const struct config *c, const char *cluster_id, const struct kraft_voters *voters,
                 struct datadir_identity *ret_identity, char **ret_error)
{
    struct directories all = list_directories(c);
    struct meta_properties meta;
    int r = meta_properties_read(all.metadata, &meta, ret_error);
    if (r == 0)
        *ret_error =
            xasprintf("%s is of node %d of the cluster %s already", all.metadata, meta.node_id, meta.cluster_id);
    else if (r == -ENOENT)
        r = format(&all, c, true, voters, cluster_id, ret_identity, ret_error);
    arena_free(all.arena);
    return *ret_error ? -EINVAL : r;
}

int datadir_prepare(const struct config *c, struct datadir_identity *ret_identity, char **ret_error)
{
    struct directories all = list_directories(c);
    struct meta_properties meta;
    int r = 0;
    *ret_error = NULL;
    for (size_t i = 0; i < all.count && r == 0; i++)
        r = datadir_refuse_kafka(all.at[i], ret_error);
    if (r == 0) {
        r = meta_properties_read(all.metadata, &meta, ret_error);
        if (r == -ENOENT) {
            r = format(&all, c, !network_is_used(c), NULL, NULL, ret_identity, ret_error);
        } else if (r == 0) {
            r = check_members(&all, c, &meta, ret_error);
            strcpy(ret_identity->cluster_id, meta.cluster_id);
            ret_identity->formatted_now = false;
        }
    }
    arena_free(all.arena);
    return r;
}
