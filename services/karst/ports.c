/* ports.c - the ports of the front ends are ours, and they inherit them: a port stays open while its front end is
 * started again, so that clients wait a moment and are not refused. Somebody else on a port is told before anything
 * starts. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/loop/listen.h"
#include "services/karst/karst.h"

/* Of listeners of several front ends on one machine: room for the ports of broker ids. */
enum { FRONTEND_STEP = 100 };

int ports_shift(int place)
{
    return place * FRONTEND_STEP;
}

static void add(struct ports *ports, int fd)
{
    ports->fds = xrealloc(ports->fds, (ports->count + 1) * sizeof *ports->fds);
    ports->fds[ports->count++] = fd;
}

static int open_one(const struct config *c, const char *host, int port, struct ports *ports, char **ret_error)
{
    int fd = port > UINT16_MAX ? -EADDRNOTAVAIL
                               : listen_tcp(host, (uint16_t)port, config_int(c, "socket.listen.backlog.size"));
    if (fd < 0) {
        *ret_error = xasprintf("cannot listen on %s:%d: %s", host, port, strerror(-fd));
        return fd;
    }
    add(ports, fd);
    return 0;
}

static bool has_broker_ports(const struct config *c, const struct nodes *n)
{
    return (n->storage > 1 || network_is_used(c)) && !config_bool(c, "karst.one.address");
}

/* A listener's own port stands for no broker when there are several; each has one of its own then, its id above. */
static int open_listener(const struct config *c, const struct config_listener *l, const struct nodes *n, int shift,
                         struct ports *ports, char **ret_error)
{
    int node = config_int(c, "node.id"), r = open_one(c, l->host, l->port + shift, ports, ret_error);
    for (int id = node; r == 0 && has_broker_ports(c, n) && id < node + n->storage; id++)
        r = open_one(c, l->host, l->port + shift + id, ports, ret_error);
    return r;
}

int ports_open(const struct config *c, const struct nodes *n, int place, struct ports *ports, char **ret_error)
{
    struct arena *a = arena_new(0);
    struct config_listeners listeners;
    int r = config_listeners(c, false, a, &listeners, ret_error);
    if (r == 0 && listeners.count > LISTENERS_MAX) {
        *ret_error = xasprintf("listeners: more than %d of them", LISTENERS_MAX);
        r = -EINVAL;
    }
    for (size_t i = 0; r == 0 && i < listeners.count; i++)
        r = open_listener(c, &listeners.items[i], n, ports_shift(place), ports, ret_error);
    arena_free(a);
    return r;
}

static int share(struct ports *from, struct ports *to, char **ret_error)
{
    int fd = fcntl(from->fds[from->count - 1], F_DUPFD_CLOEXEC, 0);
    if (fd < 0) {
        *ret_error = xasprintf("cannot share a port between front ends: %s", strerror(errno));
        return -errno;
    }
    add(to, fd);
    return 0;
}

/* Of a controller's index-th listener: the first one's is what its file says, and so is that of others with a file of
 * their own; without, they have the next ports. */
static int controller_listener(const struct config *first, const struct nodes *n, int place, size_t index,
                               struct arena *a, const char **ret_host, int *ret_port, char **ret_error)
{
    const struct node_files *files = n->files;
    bool has_file = place > 0 && files != NULL && files->count > 0;
    const struct config *c = has_file ? files->configs[place - 1] : first;
    struct config_listeners all;
    int r = config_controller_listeners(c, false, a, &all, ret_error);
    if (r == 0 && index >= all.count) {
        *ret_error = xasprintf("node %d has fewer listeners for controllers than node %d", config_int(c, "node.id"),
                               config_int(first, "node.id"));
        r = -EINVAL;
    }
    if (r == 0) {
        *ret_host = all.items[index].host;
        *ret_port = all.items[index].port + (has_file ? 0 : place);
    }
    return r;
}

int ports_open_controllers(const struct config *c, const struct nodes *n, struct ports ports[], char **ret_error)
{
    struct arena *a = arena_new(0);
    struct config_listeners listeners;
    const char *host;
    int port, r = config_controller_listeners(c, false, a, &listeners, ret_error);
    for (size_t i = 0; r == 0 && n->frontends > 0 && i < listeners.count; i++)
        for (int place = 0; r == 0 && place < n->controllers; place++) {
            r = controller_listener(c, n, place, i, a, &host, &port, ret_error);
            if (r == 0)
                r = open_one(c, host, port, &ports[0], ret_error);
            for (int other = 1; r == 0 && other < n->frontends; other++)
                r = share(&ports[0], &ports[other], ret_error);
        }
    arena_free(a);
    return r;
}

void ports_close(struct ports *ports)
{
    while (ports->count > 0)
        close(ports->fds[--ports->count]);
    free(TAKE_PTR(ports->fds));
}

void ports_tell(const struct config *c, const struct nodes *n, const struct ports *ports)
{
    char count[24];
    struct arena *a = arena_new(0);
    const char *brokers = "";
    int node = config_int(c, "node.id");
    for (int id = node; has_broker_ports(c, n) && id < node + n->storage; id++)
        brokers = arena_printf(a, "%s%s%d", brokers, *brokers ? "," : "", id);
    snprintf(count, sizeof(count), "%zu", ports->count);
    setenv("KARST_LISTEN_FDS", count, 1);
    setenv("KARST_LISTEN_BROKERS", brokers, 1);
    snprintf(count, sizeof(count), "%d", n->controllers);
    setenv("KARST_LISTEN_CONTROLLERS", count, 1);
    arena_free(a);
}

char *ports_shifted(const struct config *c, const char *key, bool of_controllers, int shift)
{
    struct arena *a = arena_new(0);
    struct config_list all = config_list(c, key, a);
    const char *text = "";
    for (size_t i = 0; i < all.count; i++) {
        const char *item = all.items[i], *colon = strrchr(item, ':');
        int port = colon != NULL ? atoi(colon + 1) : 0;
        if (port > 0 && effective_is_controller_listener(c, item) == of_controllers)
            item = arena_printf(a, "%.*s:%d", (int)(colon - item), item, port + shift);
        text = arena_printf(a, "%s%s%s", text, *text ? "," : "", item);
    }
    char *result = xstrdup(text);
    arena_free(a);
    return result;
}
