/* network.c - a constellation on several hosts: each has its own `karst up`, which runs a part of it. Their
 * configurations name the same controllers by their tcp addresses and the same cluster id; karst.bus.listen says that
 * it is so. */
#include <stdlib.h>

#include "libs/base/log.h"
#include "libs/bus/trust.h"
#include "libs/service/service.h"
#include "services/karst/karst.h"

bool network_is_used(const struct config *c)
{
    return !config_is_null(c, "karst.bus.listen");
}

/* The id of ID@ADDRESS; -1: it is none. */
static int controller_id(const char *item)
{
    char *at;
    long id = strtol(item, &at, 10);
    return at != item && *at == '@' && id >= 0 && id <= INT32_MAX ? (int)id : -1;
}

static bool is_ours(const struct config *c, const struct nodes *n, int id)
{
    int node = config_int(c, "node.id");
    return id >= node && id < node + n->controllers;
}

int network_check_nodes(const struct config *c, const struct nodes *n, char **ret_error)
{
    int node = config_int(c, "node.id"), named = 0, r = 0;
    if (!network_is_used(c)) {
        if (n->frontends > 0)
            return 0;
        *ret_error = xstrdup("--frontends 0: without karst.bus.listen no other host serves clients");
        return -EINVAL;
    }
    if (n->files != NULL && n->files->count > 0) {
        *ret_error = xstrdup("--node is for the nodes of one host, and karst.bus.listen for several hosts");
        return -EINVAL;
    }
    struct arena *a = arena_new(0);
    struct config_list all = config_list(c, "karst.controllers", a);
    for (size_t i = 0; i < all.count; i++)
        named += is_ours(c, n, controller_id(all.items[i]));
    struct config_listeners listeners = {0};
    r = config_controller_listeners(c, false, a, &listeners, ret_error);
    arena_free(a);
    if (r != 0)
        return r;
    if (n->controllers > 0 && listeners.count == 0) {
        *ret_error = xasprintf("listeners=%s has none of controller.listener.names=%s: where the voters' record says "
                               "that this controller is",
                               config_raw(c, "listeners"), config_raw(c, "controller.listener.names"));
        r = -EINVAL;
    } else if (named < n->controllers) {
        *ret_error = xasprintf("karst.controllers names %d of the controllers that run here, %d from node.id=%d on",
                               named, n->controllers, node);
        r = -EINVAL;
    } else if ((n->controllers > 0 && !effective_has_role(c, "controller")) ||
               (n->storage > 0 && !effective_has_role(c, "broker"))) {
        *ret_error = xasprintf("process.roles=%s does not allow for all of --controllers %d --storage %d",
                               config_raw(c, "process.roles"), n->controllers, n->storage);
        r = -EINVAL;
    }
    return r;
}

/* Those of this host are reached by their unix sockets. */
const char *network_controllers(const struct config *c, const struct nodes *n, const char *ours, struct arena *a)
{
    struct config_list all = config_list(c, "karst.controllers", a);
    for (size_t i = 0; i < all.count; i++)
        if (!is_ours(c, n, controller_id(all.items[i])))
            ours = arena_printf(a, "%s%s%s", ours, *ours ? "," : "", all.items[i]);
    return ours;
}

/* Files lie beside the one that names them. */
static void find_beside(struct config *c, const char *key, const char *file)
{
    const char *name = config_string(c, key), *slash = strrchr(file, '/');
    if (config_is_null(c, key) || *name == '/')
        return;
    char *beside = slash ? xasprintf("%.*s/%s", (int)(slash - file), file, name) : xstrdup(name);
    char *path = realpath(beside, NULL); /* what is not there the services complain of */
    config_set(c, key, path != NULL ? path : beside);
    free(path);
    free(beside);
}

/* What one of several hosts has to say of itself and the others. */
static int check_host(const struct config *c, char **ret_error)
{
    static const char *const needed[] = {"node.id", "karst.cluster.id", "karst.controllers"};
    enum { NODE_MAX = 1000000 };
    enum { CLUSTER_ID_MAX = 63 };
    struct arena *a = arena_new(0);
    struct config_list all = config_list(c, "karst.controllers", a);
    for (size_t i = 0; i < COUNTOF(needed) && *ret_error == NULL; i++)
        if (config_raw(c, needed[i]) == NULL)
            *ret_error =
                xasprintf("karst.bus.listen makes this host one of several, for which %s has to be set", needed[i]);
    for (size_t i = 0; i < all.count && *ret_error == NULL; i++)
        if (controller_id(all.items[i]) < 0 || strncmp(strchr(all.items[i], '@'), "@tcp://", 7) != 0)
            *ret_error = xasprintf("karst.controllers: %s: ID@tcp://HOST:PORT was expected", all.items[i]);
    if (*ret_error == NULL &&
        (*config_string(c, "karst.cluster.id") == 0 || strlen(config_string(c, "karst.cluster.id")) > CLUSTER_ID_MAX))
        *ret_error = xasprintf("karst.cluster.id: 1 to %d characters were expected, 22 mostly", CLUSTER_ID_MAX);
    if (*ret_error == NULL && config_int(c, "node.id") > NODE_MAX)
        *ret_error = xasprintf("node.id: on several hosts at most %d", NODE_MAX);
    arena_free(a);
    return *ret_error != NULL ? -EINVAL : 0;
}

int network_apply(struct config *c, const char *file, char **ret_error)
{
    struct trust *trust = NULL;
    if (file != NULL) {
        find_beside(c, "karst.bus.key.file", file);
        find_beside(c, "karst.bus.hosts.file", file);
    }
    int r = network_is_used(c) ? check_host(c, ret_error) : 0;
    if (r == 0) /* also where the host is alone: its services read the files all the same */
        r = service_open_trust(c, &trust, ret_error);
    if (trust != NULL && trust_host_without_nodes(trust) != NULL)
        log_warn("%s does not say which nodes are on %s: it is believed to be any that the list has nowhere else",
                 config_string(c, "karst.bus.hosts.file"), trust_host_without_nodes(trust));
    trust_free(trust);
    return r;
}
