/* effective.c - the configuration of all services: the user's server.properties, the options of `karst up`, and what
 * one node on one machine needs. It is a valid server.properties of Kafka, too, for a node that takes the data
 * directory over. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/base/log.h"
#include "services/karst/karst.h"

/* What the file does not say. */
static const char *const for_one_node[][2] = {
    {"process.roles", "broker,controller"},
    {"node.id", "1"},
    {"controller.listener.names", "CONTROLLER"},
};

/* Kafka's defaults are 3 replicas, of which 2 have to be in sync, and fewer nodes cannot give that. */
static const char *const replicated_topics[][2] = {
    {"offsets.topic.replication.factor", NULL},
    {"transaction.state.log.replication.factor", "transaction.state.log.min.isr"},
    {"share.coordinator.state.topic.replication.factor", "share.coordinator.state.topic.min.isr"},
};

/* Without a file the first consumer of a new user waits for nothing, as with the configuration that Kafka's quick start
 * ships. */
static const char *const without_file[][2] = {{"group.initial.rebalance.delay.ms", "0"}};

static void warn(void *ctx, const char *sentence)
{
    log_warn("%s: %s", (const char *)ctx, sentence);
}

static void set_missing(struct config *c, const char *name, const char *value)
{
    if (config_raw(c, name) == NULL && !(strcmp(name, "node.id") == 0 && config_raw(c, "broker.id")))
        config_set(c, name, value);
}

bool effective_is_controller_listener(const struct config *c, const char *item)
{
    struct arena *a = arena_new(0);
    struct config_list names = config_list(c, "controller.listener.names", a);
    bool found = false;
    for (size_t i = 0; i < names.count; i++) {
        size_t n = strlen(names.items[i]);
        found = found || (strncmp(item, names.items[i], n) == 0 && strncmp(item + n, "://", 3) == 0);
    }
    arena_free(a);
    return found;
}

/* Beside the clients' port, as Kafka's quick start has it. With several nodes, or hosts, the ports there are those of
 * broker ids: then controller N is 50 + N above it. */
static int controller_port(const struct config *c, const struct nodes *n, uint16_t clients)
{
    enum { ABOVE = 50, KAFKAS = 9093 };
    int port = clients +
               (n->controllers == 1 && n->storage == 1 && !network_is_used(c) ? 1 : ABOVE + config_int(c, "node.id"));
    return port + n->controllers - 1 > UINT16_MAX ? KAFKAS : port;
}

/* ",NAME://HOST:PORT" of each listener of controllers in a key. */
static const char *controllers_in(const struct config *c, const char *key, struct arena *a)
{
    const char *found = "";
    struct config_list all = config_list(c, key, a);
    for (size_t i = 0; i < all.count; i++)
        if (effective_is_controller_listener(c, all.items[i]))
            found = arena_printf(a, "%s,%s", found, all.items[i]);
    return found;
}

/* The controllers' listeners of the file stay; a file without one gets one. */
static const char *controller_listeners(struct config *c, const struct nodes *n, const char *host, uint16_t port,
                                        struct arena *a)
{
    const char *found = controllers_in(c, "listeners", a);
    if (*found)
        return found;
    /* Nobody chose it: where the voters' record says otherwise, a Kafka did. */
    set_missing(c, "karst.quorum.update.voter", "false");
    return arena_printf(a, ",CONTROLLER://%s:%d", host, controller_port(c, n, port));
}

/* A host for the address that clients are given when we listen on all addresses. */
static const char *own_name(char name[256])
{
    if (gethostname(name, 255) != 0)
        strcpy(name, "localhost");
    return name;
}

/* has_files: what the file tells clients is the address of one of several Kafka brokers, and no longer theirs. */
static int apply_listen(struct config *c, const struct nodes *n, bool has_files, const char *listen, char **ret_error)
{
    char host[256], name[256];
    uint16_t port;
    if (config_endpoint(listen, host, &port) != 0) {
        *ret_error = xasprintf("--listen %s: HOST:PORT with a port from 1 to 65535 was expected", listen);
        return -EINVAL;
    }
    struct arena *a = arena_new(0);
    bool everywhere = config_host_is_any(host);
    const char *shown = strchr(host, ':') ? arena_printf(a, "[%s]", host) : host;
    const char *others = controller_listeners(c, n, everywhere ? "localhost" : shown, port, a);
    config_set(c, "listeners", arena_printf(a, "PLAINTEXT://%s:%u%s", shown, port, others));
    if (has_files)
        config_set(c, "advertised.listeners",
                   arena_printf(a, "PLAINTEXT://%s:%u%s", everywhere ? own_name(name) : shown, port,
                                controllers_in(c, "advertised.listeners", a)));
    else if (everywhere)
        set_missing(c, "advertised.listeners", arena_printf(a, "PLAINTEXT://%s:%u", own_name(name), port));
    arena_free(a);
    return 0;
}

static void map_controller_listener(struct config *c)
{
    const char *map = config_raw(c, "listener.security.protocol.map");
    struct arena *a = arena_new(0);
    struct config_list names = config_list(c, "controller.listener.names", a);
    if (map == NULL && names.count)
        config_set(
            c, "listener.security.protocol.map",
            arena_printf(a, "%s:PLAINTEXT,%s", names.items[0], config_string(c, "listener.security.protocol.map")));
    arena_free(a);
}

/* A Kafka that takes over finds its quorum through this. */
static void name_quorum(struct config *c)
{
    struct arena *a = arena_new(0);
    struct config_list all = config_list(c, "listeners", a);
    for (size_t i = 0; i < all.count; i++)
        if (effective_is_controller_listener(c, all.items[i])) {
            const char *address = strstr(all.items[i], "://") + 3;
            set_missing(c, "controller.quorum.bootstrap.servers",
                        *address == ':' ? arena_printf(a, "localhost%s", address) : address);
        }
    arena_free(a);
}

bool effective_has_role(const struct config *c, const char *role)
{
    struct arena *a = arena_new(0);
    struct config_list roles = config_list(c, "process.roles", a);
    bool found = false;
    for (size_t i = 0; i < roles.count; i++)
        found = found || strcmp(roles.items[i], role) == 0;
    arena_free(a);
    return found;
}

/* The constellation of one host is a whole node; half of one would be something else than what was asked for. */
static int check_roles(const struct config *c, char **ret_error)
{
    bool broker = effective_has_role(c, "broker"), controller = effective_has_role(c, "controller");
    if ((broker && controller) || (network_is_used(c) && (broker || controller)))
        return 0;
    *ret_error = xasprintf("process.roles=%s: broker,controller was expected", config_raw(c, "process.roles"));
    return -EINVAL;
}

static int check_listeners(const struct config *c, char **ret_error)
{
    struct arena *a = arena_new(0);
    struct config_listeners l;
    int r = config_listeners(c, false, a, &l, ret_error);
    for (size_t i = 0; r == 0 && i < l.count; i++)
        if (l.items[i].security_protocol != 0) {
            *ret_error = xasprintf(
                "listeners: %s is a listener of a protocol that Karst does not serve yet; PLAINTEXT was expected",
                l.items[i].name);
            r = -EINVAL;
        }
    if (r == 0 && l.count == 0) {
        *ret_error = xstrdup("listeners has no listener for clients; PLAINTEXT://HOST:PORT was expected");
        r = -EINVAL;
    }
    if (r == 0)
        r = config_listeners(c, true, a, &l, ret_error);
    arena_free(a);
    return r;
}

/* Kafka's own errors about what must be there name the user's file; ours too. */
static int load_file(struct config *c, const char *path, char **ret_error)
{
    char *why = NULL;
    int r = config_load(c, path, ret_error);
    if (r == 0 && (r = config_check(c, warn, (void *)(uintptr_t)path, &why)) != 0)
        *ret_error = xasprintf("%s: %s", path, why);
    free(why);
    return r;
}

/* The real path; of what is not there yet, the absolute one. The caller frees. */
static char *absolute_path(const char *path)
{
    char *real = realpath(path, NULL), *here;
    if (real != NULL)
        return real;
    if (*path == '/' || (here = getcwd(NULL, 0)) == NULL)
        return xstrdup(path);
    real = xasprintf("%s/%s", here, path);
    free(here);
    return real;
}

/* Several folders in log.dirs, and DIR of --data is one of them: all are used, in the order of the file, for the first
 * one holds the metadata log. */
static int take_log_dirs(struct config *c, const struct config_list *list, const char *data, char **ret_error)
{
    char *all = xstrdup(""), *before;
    bool found = false, twice = false;
    for (size_t i = 0; i < list->count && !twice; i++) {
        char *path = absolute_path(list->items[i]);
        for (size_t k = 0; k < i && !twice; k++) {
            char *other = absolute_path(list->items[k]);
            twice = strcmp(other, path) == 0;
            if (twice)
                *ret_error = xasprintf("log.dirs: %s and %s are one folder", list->items[k], list->items[i]);
            free(other);
        }
        found = found || strcmp(path, data) == 0;
        before = all;
        all = xasprintf("%s%s%s", before, *before ? "," : "", path);
        free(before);
        free(path);
    }
    if (!found && !twice)
        *ret_error = xasprintf("--data %s is none of the folders in log.dirs=%s", data, all);
    else if (!twice)
        config_set(c, "log.dirs", all);
    free(all);
    return found && !twice ? 0 : -EINVAL;
}

/* Where the data is: --data, and what the file says beside it. */
static int apply_data(struct config *c, const struct up_options *o, const char *data, char **ret_error)
{
    const char *dirs = config_raw(c, "log.dirs") ? config_raw(c, "log.dirs") : config_raw(c, "log.dir");
    struct arena *a = arena_new(0);
    struct config_list list = config_log_dirs(c, a);
    int r = 0;
    if (!config_is_null(c, "metadata.log.dir")) {
        char *path = absolute_path(config_string(c, "metadata.log.dir"));
        config_set(c, "metadata.log.dir", path);
        free(path);
    }
    if (dirs && list.count > 1) {
        r = take_log_dirs(c, &list, data, ret_error);
    } else {
        if (dirs && strcmp(dirs, data) != 0)
            log_info("--data %s is used, not log.dirs=%s of %s", data, dirs, o->config);
        config_set(c, "log.dirs", data);
    }
    arena_free(a);
    return r;
}

/* karst.racks: one for each storage node, in the order of their ids; the first's is broker.rack from here on. */
static int apply_racks(struct config *c, const struct nodes *n, bool has_files, char **ret_error)
{
    struct arena *a = arena_new(0);
    struct config_list racks = config_list(c, "karst.racks", a);
    if (racks.count > 0 && config_raw(c, "broker.rack") != NULL)
        *ret_error = xstrdup("karst.racks and broker.rack are both set: one of them says where the nodes are");
    else if (racks.count > 0 && has_files)
        *ret_error = xstrdup("karst.racks: a node with a file of its own (--node) has its broker.rack there");
    else if (racks.count > 0 && racks.count != (size_t)n->storage)
        *ret_error = xasprintf("karst.racks names %zu racks for %d storage nodes: one each was expected, in the order "
                               "of their ids",
                               racks.count, n->storage);
    else if (racks.count > 0)
        config_set(c, "broker.rack", racks.items[0]);
    arena_free(a);
    return *ret_error != NULL ? -EINVAL : 0;
}

int effective_load(const struct up_options *o, const char *data, struct config **ret_config, char **ret_error)
{
    struct config *c = config_new();
    struct nodes n = o->nodes;
    int r = o->config ? load_file(c, o->config, ret_error) : 0;
    if (r == 0)
        r = apply_data(c, o, data, ret_error);
    if (r == 0)
        r = network_apply(c, o->config, ret_error);
    if (r == 0) {
        for (size_t i = 0; i < COUNTOF(for_one_node); i++)
            set_missing(c, for_one_node[i][0], for_one_node[i][1]);
        for (size_t i = 0; o->config == NULL && i < COUNTOF(without_file); i++)
            set_missing(c, without_file[i][0], without_file[i][1]);
        r = check_roles(c, ret_error);
    }
    if (r == 0) {
        map_controller_listener(c);
        nodes_count(c, data, &n);
        r = apply_racks(c, &n, o->node_count > 0, ret_error);
    }
    if (r == 0) {
        if (o->listen || config_raw(c, "listeners") == NULL)
            r = apply_listen(c, &n, o->node_count > 0, o->listen ? o->listen : "127.0.0.1:9092", ret_error);
    }
    if (r == 0) {
        name_quorum(c);
        r = check_listeners(c, ret_error);
    }
    if (r)
        config_free(c);
    else
        *ret_config = c;
    return r;
}

static void fit_replication(struct config *c, const struct nodes *n)
{
    enum { FULL = 3 };
    char factor[16];
    snprintf(factor, sizeof factor, "%d", n->storage);
    for (size_t i = 0; n->storage < FULL && i < COUNTOF(replicated_topics); i++) {
        set_missing(c, replicated_topics[i][0], factor);
        if (replicated_topics[i][1] != NULL)
            set_missing(c, replicated_topics[i][1], "1");
    }
}

void effective_add_run_dir(struct config *c, const char *run_dir, const struct nodes *n)
{
    int node = config_int(c, "node.id");
    struct arena *a = arena_new(0);
    const char *all = "";
    for (int id = node; id < node + n->controllers; id++)
        all = arena_printf(a, "%s%s%d@ipc://%s/controller-%d", all, *all ? "," : "", id, run_dir, id);
    if (network_is_used(c)) {
        all = network_controllers(c, n, all, a);
        set_missing(c, "controller.quorum.auto.join.enable", "true");
    } else {
        fit_replication(c, n);
    }
    config_set(c, "karst.run.dir", run_dir);
    config_set(c, "karst.controllers", all);
    arena_free(a);
}

int effective_write(const struct config *c, const char *run_dir)
{
    char *path = xasprintf("%s/server.properties", run_dir);
    char *text = config_print(c);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));
    int r = n < 0 ? -errno : (size_t)n < strlen(text) ? -ENOSPC : 0;
    if (fd >= 0)
        close(fd);
    free(text);
    free(path);
    return r;
}

static struct config_listener first_listener(const struct config *c, bool advertised, struct arena *a)
{
    struct config_listeners l;
    char *error = NULL;
    int r = config_listeners(c, advertised, a, &l, &error);
    ASSERT(r == 0 && l.count > 0); /* check_listeners has seen them */
    return l.items[0];
}

void effective_address(const struct config *c, char *ret_host, uint16_t *ret_port)
{
    struct arena *a = arena_new(0);
    struct config_listener l = first_listener(c, false, a);
    bool everywhere = *l.host == 0 || strcmp(l.host, "0.0.0.0") == 0;
    snprintf(ret_host, 256, "%s", everywhere ? "127.0.0.1" : strcmp(l.host, "::") == 0 ? "::1" : l.host);
    *ret_port = l.port;
    arena_free(a);
}

char *effective_bootstrap(const struct config *c)
{
    struct arena *a = arena_new(0);
    struct config_listener l = first_listener(c, true, a);
    char *text = xasprintf(strchr(l.host, ':') ? "[%s]:%u" : "%s:%u", *l.host ? l.host : "localhost", l.port);
    arena_free(a);
    return text;
}
