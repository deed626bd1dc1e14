/* nodes.c - several processes of a role on one machine, and the folders of those beside the first. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libs/bus/trust.h"
#include "libs/config/meta_properties.h"
#include "libs/kraft/format.h"
#include "libs/service/service.h"
#include "services/karst/karst.h"

/* What belongs to a role that keeps a folder a node: DATA.FOLDERS/ID. */
static const struct kind {
    const char *role, *folders, *settings, *why_not_fewer;
    int max;
} controllers = {"controller", "controllers", "controller.quorum.auto.join.enable=true\n",
                 "which would leave it without a majority; remove one with kafka-metadata-quorum.sh remove-controller, "
                 "then its folder",
                 CONTROLLERS_MAX},
  storage = {"storage", "storage", "",
             "whose partitions would be offline; move them with kafka-reassign-partitions.sh, then remove its folder",
             STORAGE_MAX};

static int files_count(const struct nodes *n)
{
    return n->files != NULL ? n->files->count : 0;
}

static char *folder(const struct kind *k, const char *data, int id)
{
    return xasprintf("%s.%s/%d", data, k->folders, id);
}

static int make_folder(const struct kind *k, const char *data, int id)
{
    char *parent = xasprintf("%s.%s", data, k->folders), *own = folder(k, data, id);
    int r = mkdir(parent, 0755) != 0 && errno != EEXIST ? -errno : 0;
    if (r == 0 && mkdir(own, 0755) != 0 && errno != EEXIST)
        r = -errno;
    free(parent);
    free(own);
    return r;
}

static int format(const char *dir, const char *cluster_id, int id, char **ret_error)
{
    struct timespec now;
    struct kraft_format_options o = {.dir = dir, .meta = {.node_id = id}};
    uint8_t random[16];
    int r = datadir_check_empty(dir, ret_error);
    if (r)
        return r;
    clock_gettime(CLOCK_REALTIME, &now);
    o.now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    snprintf(o.meta.cluster_id, sizeof o.meta.cluster_id, "%s", cluster_id);
    do {
        if (getrandom(random, sizeof random, 0) != sizeof random)
            return -EIO;
    } while (uuid_from_random(random, &o.meta.directory_id) != 0);
    return kraft_format_data(&o, ret_error);
}

static int prepare(const struct kind *k, const char *data, const char *cluster_id, int id, char **ret_error)
{
    struct meta_properties meta;
    char *dir = folder(k, data, id);
    int r = make_folder(k, data, id);
    if (r == 0)
        r = datadir_refuse_kafka(dir, ret_error);
    if (r == 0)
        r = meta_properties_read(dir, &meta, ret_error);
    if (r == -ENOENT)
        r = format(dir, cluster_id, id, ret_error);
    else if (r == 0 && (strcmp(meta.cluster_id, cluster_id) != 0 || meta.node_id != id))
        r = -EINVAL;
    if (r != 0 && *ret_error == NULL)
        *ret_error = r == -EINVAL ? xasprintf("%s is not of %s %d of the cluster %s", dir, k->role, id, cluster_id)
                                  : xasprintf("%s: %s", dir, strerror(-r));
    free(dir);
    return r;
}

static int count_folders(const struct kind *k, const char *data, int node)
{
    int n = 1;
    for (bool there = true; there && n < k->max;) {
        char *dir = folder(k, data, node + n);
        there = access(dir, F_OK) == 0;
        free(dir);
        n += there;
    }
    return n;
}

int nodes_first_id(const struct config *c, const char *role)
{
    int node = config_int(c, "node.id");
    if (strcmp(role, controllers.role) == 0 || strcmp(role, storage.role) == 0)
        return node;
    if (!network_is_used(c))
        return 1;
    return strcmp(role, "frontend") == 0 ? node * TRUST_FRONTENDS_A_NODE + 1 : node;
}

void nodes_count(const struct config *c, const char *data, struct nodes *n)
{
    int node = config_int(c, "node.id");
    bool is_broker = effective_has_role(c, "broker");
    if (n->controllers == 0)
        n->controllers = effective_has_role(c, "controller") ? count_folders(&controllers, data, node) : 0;
    if (n->storage == 0)
        n->storage = is_broker ? count_folders(&storage, data, node) : 0;
    if (n->frontends == 0)
        n->frontends = is_broker;
    n->frontends = MAX(n->frontends, 0);
}

static int prepare_all(const struct kind *k, const struct config *c, const char *data, const char *cluster_id,
                       int count, char **ret_error)
{
    int node = config_int(c, "node.id"), there = count_folders(k, data, node), r = 0;
    if (count > 0 && count < there) {
        *ret_error = xasprintf("%s has folders of %d %s nodes, and %d are asked for, %s", data, there, k->role, count,
                               k->why_not_fewer);
        return -EINVAL;
    }
    for (int i = 1; i < count && r == 0; i++)
        r = prepare(k, data, cluster_id, node + i, ret_error);
    return r;
}

int nodes_prepare(const struct config *c, const char *data, const char *cluster_id, const struct nodes *n,
                  char **ret_error)
{
    if (files_count(n) > 0)
        return node_files_prepare(n->files, cluster_id, ret_error);
    int r = prepare_all(&controllers, c, data, cluster_id, n->controllers, ret_error);
    return r ? r : prepare_all(&storage, c, data, cluster_id, n->storage, ret_error);
}

/* What it has in common with others, and what is its own: the last of two lines of one key counts, as in Kafka's files.
 */
static int write_one(const struct config *c, const struct config *shared, const char *run_dir, const char *role, int id,
                     const char *own)
{
    char *path = nodes_config(c, run_dir, role, id), *text = config_print(shared);
    struct buf b = {0};
    FILE *f = fopen(path, "we");
    int r = f == NULL ? -errno : 0;
    buf_printf(&b, "%s\n%s", text, own);
    if (f != NULL && fwrite(b.data, 1, b.size, f) != b.size)
        r = -EIO;
    if (f != NULL && fclose(f) != 0 && r == 0)
        r = -errno;
    buf_free(&b);
    free(text);
    free(path);
    return r;
}

/* A key of listeners as a line of a file, shifted; nothing where the key has no value. The caller frees. */
static char *shifted_line(const struct config *c, const char *key, bool of_controllers, int shift)
{
    if (config_is_null(c, key))
        return xstrdup("");
    char *value = ports_shifted(c, key, of_controllers, shift), *line = xasprintf("%s=%s\n", key, value);
    free(value);
    return line;
}

/* A key that says HOST:PORT, as a line for the place-th node or front end of this host: each has ports of its own. */
static char *bus_line(const struct config *c, const char *key, int place)
{
    char host[256];
    uint16_t port;
    if (config_is_null(c, key) || config_endpoint(config_string(c, key), host, &port) != 0)
        return xstrdup("");
    return xasprintf(strchr(host, ':') ? "%s=[%s]:%d\n" : "%s=%s:%d\n", key, host, port + place * SERVICE_PORTS_A_NODE);
}

/* Where the place-th node or front end of this host listens, and says that it does. The caller frees. */
static char *listening_lines(const struct config *c, bool of_controllers, int shift, int place)
{
    char *listeners = shifted_line(c, "listeners", of_controllers, shift),
         *advertised = shifted_line(c, "advertised.listeners", of_controllers, shift),
         *bus = bus_line(c, "karst.bus.listen", place), *bus_advertised = bus_line(c, "karst.bus.advertised", place);
    char *lines = xasprintf("%s%s%s%s", listeners, advertised, bus, bus_advertised);
    free(bus_advertised);
    free(bus);
    free(advertised);
    free(listeners);
    return lines;
}

/* Of the place-th storage node, where each has its own. The caller frees. */
static char *rack_line(const struct config *c, int place)
{
    struct arena *a = arena_new(0);
    struct config_list racks = config_list(c, "karst.racks", a);
    char *line = (size_t)place < racks.count ? xasprintf("broker.rack=%s\n", racks.items[place]) : xstrdup("");
    arena_free(a);
    return line;
}

static int write_node(const struct kind *k, const struct config *c, const char *data, const char *run_dir, int id)
{
    int place = id - config_int(c, "node.id"), shift = k == &controllers ? place : 0;
    char *dir = folder(k, data, id), *listening = listening_lines(c, true, shift, place);
    char *rack = rack_line(c, place);
    char *own =
        xasprintf("node.id=%d\nlog.dirs=%s\nmetadata.log.dir=%s\n%s%s%s", id, dir, dir, k->settings, listening, rack);
    int r = write_one(c, c, run_dir, k->role, id, own);
    free(own);
    free(rack);
    free(listening);
    free(dir);
    return r;
}

/* One with a file of its own: the log directories are its storage's, and the first or metadata.log.dir its
 * controller's.
 */
static int write_own(const struct config *c, const struct node_files *f, const char *run_dir, int place)
{
    const struct config *own = f->configs[place];
    int id = config_int(own, "node.id"), r = write_one(c, own, run_dir, controllers.role, id, "");
    return r ? r : write_one(c, own, run_dir, storage.role, id, "");
}

static int write_frontend(const struct config *c, const char *run_dir, int place)
{
    char *own = listening_lines(c, false, ports_shift(place), place);
    int r = write_one(c, c, run_dir, "frontend", nodes_first_id(c, "frontend") + place, own);
    free(own);
    return r;
}

int nodes_write(const struct config *c, const char *data, const char *run_dir, const struct nodes *n)
{
    int node = config_int(c, "node.id"), r = 0;
    for (int i = 0; i < files_count(n) && r == 0; i++)
        r = write_own(c, n->files, run_dir, i);
    for (int i = 1; i < n->controllers && files_count(n) == 0 && r == 0; i++)
        r = write_node(&controllers, c, data, run_dir, node + i);
    for (int i = 1; i < n->storage && files_count(n) == 0 && r == 0; i++)
        r = write_node(&storage, c, data, run_dir, node + i);
    for (int place = 1; place < n->frontends && r == 0; place++)
        r = write_frontend(c, run_dir, place);
    return r;
}

char *nodes_config(const struct config *c, const char *run_dir, const char *role, int id)
{
    return id != nodes_first_id(c, role) ? xasprintf("%s/%s-%d.properties", run_dir, role, id)
                                         : xasprintf("%s/server.properties", run_dir);
}
