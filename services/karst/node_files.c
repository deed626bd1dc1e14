/* node_files.c - further nodes of one machine that have a server.properties each (`--node FILE`), as those of a Kafka
 * of several nodes have: its directories are taken as they are, and so are its ids, log.dirs and controller listeners.
 *
 * A node runs with its own file but for what is the constellation's: where the run folder and the controllers are. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/config/meta_properties.h"
#include "services/karst/karst.h"

/* The first of its log.dirs, which must be there already. */
static int find_data(const char *file, char **ret_data, char **ret_error)
{
    struct config *c = config_new();
    struct arena *a = arena_new(0);
    int r = config_load(c, file, ret_error);
    if (r == 0 && config_raw(c, "log.dirs") == NULL && config_raw(c, "log.dir") == NULL) {
        *ret_error = xasprintf("--node %s: log.dirs was expected in it", file);
        r = -EINVAL;
    }
    if (r == 0) {
        const char *first = config_log_dirs(c, a).items[0];
        *ret_data = realpath(first, NULL);
        r = *ret_data == NULL ? -errno : 0;
        if (r)
            *ret_error = xasprintf("--node %s: log.dirs: %s: %s", file, first, strerror(-r));
    }
    arena_free(a);
    config_free(c);
    return r;
}

static int load(const char *file, const struct config *first, struct node_files *f, char **ret_error)
{
    struct up_options o = {.config = file};
    struct config *c = NULL;
    char *data = NULL;
    int r = find_data(file, &data, ret_error), place = 0;
    if (r == 0)
        r = effective_load(&o, data, &c, ret_error);
    if (r == 0) {
        place = config_int(c, "node.id") - config_int(first, "node.id") - 1;
        if (place < 0 || place >= f->count || f->configs[place] != NULL) {
            *ret_error = xasprintf("--node %s has node.id=%d: ids that follow that of --data, which is %d, one after "
                                   "the other, were expected",
                                   file, config_int(c, "node.id"), config_int(first, "node.id"));
            r = -EINVAL;
        }
    }
    if (r == 0) {
        f->locks[place] = datadir_lock(data);
        r = MIN(f->locks[place], 0);
        if (r)
            *ret_error = xasprintf("cannot lock %s: %s", data,
                                   r == -EWOULDBLOCK ? "a constellation runs on it already" : strerror(-r));
    }
    if (r == 0)
        f->configs[place] = TAKE_PTR(c);
    config_free(c);
    free(data);
    return r;
}

int node_files_load(const struct up_options *o, const struct config *first, struct node_files *ret_files,
                    char **ret_error)
{
    int r = 0;
    *ret_files = (struct node_files){.count = o->node_count};
    for (int i = 0; i < NODE_FILES_MAX; i++)
        ret_files->locks[i] = -1;
    for (int i = 0; i < o->node_count && r == 0; i++)
        r = load(o->node_files[i], first, ret_files, ret_error);
    return r;
}

void node_files_free(struct node_files *f)
{
    for (int i = 0; i < f->count; i++) {
        f->configs[i] = config_free(f->configs[i]);
        if (f->locks[i] >= 0)
            close(f->locks[i]);
    }
    f->count = 0;
}

static int prepare(const struct config *c, const char *cluster_id, char **ret_error)
{
    struct datadir_identity identity;
    struct meta_properties meta;
    struct arena *a = arena_new(0);
    const char *dir = config_metadata_log_dir(c, a);
    int r = meta_properties_read(dir, &meta, ret_error);
    if (r == -ENOENT)
        *ret_error = xasprintf("%s has no meta.properties: --node takes directories that were formatted before", dir);
    if (r == 0)
        r = datadir_prepare(c, &identity, ret_error);
    if (r == 0 && strcmp(identity.cluster_id, cluster_id) != 0) {
        *ret_error = xasprintf("%s belongs to the cluster %s, and --data to %s", dir, identity.cluster_id, cluster_id);
        r = -EINVAL;
    }
    arena_free(a);
    return r;
}

int node_files_prepare(const struct node_files *f, const char *cluster_id, char **ret_error)
{
    int r = 0;
    for (int i = 0; i < f->count && r == 0; i++)
        r = prepare(f->configs[i], cluster_id, ret_error);
    return r;
}

void node_files_add_run_dir(const struct node_files *f, const struct config *first)
{
    static const char *const shared[] = {"karst.run.dir", "karst.controllers"};
    for (int i = 0; i < f->count; i++)
        for (size_t k = 0; k < COUNTOF(shared); k++)
            config_set(f->configs[i], shared[k], config_string(first, shared[k]));
}
