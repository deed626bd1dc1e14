/* listener.c - the ports that clients connect to. Kafka's rules for connection limits: above max.connections nobody is
 * accepted until a connection has ended; above max.connections.per.ip (or its override) the new connection is closed at
 * once. */
#include "services/frontend/server.h"

#include "libs/base/log.h"
#include "libs/loop/listen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EX_CONFIG = 78, ACCEPTS_PER_EVENT = 64, ACCEPT_RETRY_MS = 1000, FIRST_INHERITED = 3 };

static void on_accept(void *ctx, int events);

/* ---- opening ---- */

static const char *own_host(struct frontend *f)
{
    char name[256];
    struct addrinfo *found, hints = {.ai_flags = AI_CANONNAME};

    if (gethostname(name, sizeof name - 1) != 0)
        return "localhost";
    name[sizeof name - 1] = '\0';
    if (getaddrinfo(name, NULL, &hints, &found) != 0)
        return arena_str(f->arena, slice_str(name));
    const char *host = arena_str(f->arena, slice_str(found->ai_canonname ? found->ai_canonname : name));
    freeaddrinfo(found);
    return host;
}

/* A supervisor may hold the ports open over our deaths, so that clients wait a moment and are not refused:
 * KARST_LISTEN_FDS of them, from descriptor 3 on. For each client's listener its own port, then one for each broker id
 * in KARST_LISTEN_BROKERS; behind all of them, for each controller listener one for each of as many controllers as
 * KARST_LISTEN_CONTROLLERS says, from node.id on. -1: none. */
static int inherited(size_t i)
{
    const char *text = getenv("KARST_LISTEN_FDS");
    long count = text != NULL ? strtol(text, NULL, 10) : 0;
    int fd = FIRST_INHERITED + (int)i, is_listening = 0;
    socklen_t size = sizeof is_listening;

    if (count <= (long)i || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) != 0 || !is_listening)
        return -1;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

/* How many broker ids the supervisor has opened ports for; with broker_id >= 0 the place of that one in *ret_at, the
 * count: not there. */
static size_t inherited_brokers(int32_t broker_id, size_t *ret_at)
{
    const char *text = getenv("KARST_LISTEN_BROKERS");
    size_t count = 0;
    bool found = false;

    for (const char *p = text != NULL ? text : ""; *p; count++) {
        char *end;
        long id = strtol(p, &end, 10);
        if (id == broker_id && !found) {
            *ret_at = count;
            found = true;
        }
        if (end == p)
            break;
        p = *end == ',' ? end + 1 : end;
    }
    if (!found)
        *ret_at = count;
    return count;
}

/* An inherited one may have another than the configuration says: of a controller with a file of its own. */
static uint16_t real_port(int fd, uint16_t port)
{
    struct sockaddr_storage s;
    socklen_t size = sizeof s;

    if (getsockname(fd, (struct sockaddr *)&s, &size) != 0)
        return port;
    return ntohs(s.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&s)->sin6_port
                                         : ((struct sockaddr_in *)&s)->sin_port);
}

static const struct config_listener *find_named(const struct config_listeners *all, const char *name)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->items[i].name, name) == 0)
            return &all->items[i];
    return NULL;
}

static struct listener *new_listener(struct frontend *f, const char *name, const char *host)
{
    struct listener *l = arena_calloc(f->arena, 1, sizeof *l);

    *l = (struct listener){.frontend = f, .name = name, .host = host, .broker_id = -1, .controller_id = -1, .fd = -1};
    f->listeners = xrealloc(f->listeners, (f->listener_count + 1) * sizeof(struct listener *));
    f->listeners[f->listener_count++] = l;
    return l;
}

/* fd: inherited, or -1. */
static int open_one(struct frontend *f, const struct config_listener *at, const struct config_listener *advertised,
                    int fd)
{
    if (at->security_protocol != 0) {
        log_error("listeners: %s://%s:%u asks for TLS or SASL, which Karst does not serve yet; only PLAINTEXT "
                  "listeners can be configured",
                  at->name, at->host, at->port);
        return EX_CONFIG;
    }
    struct listener *l = new_listener(f, at->name, at->host);
    l->fd = fd >= 0 ? fd : listen_tcp(at->host, at->port, config_int(f->config, "socket.listen.backlog.size"));
    if (l->fd < 0) {
        log_error("listeners: cannot listen on %s:%u: %s", at->host, at->port, strerror(-l->fd));
        return 1;
    }
    l->port = real_port(l->fd, at->port);
    l->advertised_host = advertised != NULL && *advertised->host ? advertised->host
                         : *at->host                             ? at->host
                                                                 : own_host(f);
    l->advertised_port = advertised != NULL && advertised->port != 0 ? advertised->port : l->port;
    return 0;
}

static int check_advertised(const struct listener *l)
{
    if (!config_host_is_any(l->advertised_host))
        return 0;
    log_error("advertised.listeners: clients cannot connect to %s; name an address of this host there",
              l->advertised_host);
    return EX_CONFIG;
}

static int open_clients(struct frontend *f, const struct config_listeners *at,
                        const struct config_listeners *advertised)
{
    size_t none, brokers = inherited_brokers(-1, &none);
    int status = 0;

    for (size_t i = 0; i < at->count && status == 0; i++) {
        status = open_one(f, &at->items[i], find_named(advertised, at->items[i].name), inherited(i * (1 + brokers)));
        if (status == 0)
            status = check_advertised(f->listeners[i]);
    }
    f->bootstrap_count = f->listener_count;
    return status;
}

/* Each controller of this machine is at a port of its own (KIP-919): that of node.id at the listener's, the others as
 * far above as their ids are, or where the supervisor has opened it. That says how many there are; the front ends of a
 * machine share its sockets. */
static int open_controllers(struct frontend *f, const struct config_listeners *at)
{
    const char *text = getenv("KARST_LISTEN_CONTROLLERS");
    int32_t node = config_int(f->config, "node.id");
    long count = text != NULL ? strtol(text, NULL, 10) : 1;
    size_t none, first = f->bootstrap_count * (1 + inherited_brokers(-1, &none));
    int status = 0;

    for (size_t i = 0; node >= 0 && count > 0 && i < at->count * (size_t)count && status == 0; i++) {
        struct config_listener l = at->items[i / (size_t)count];
        int32_t shift = (int32_t)(i % (size_t)count);
        if (l.port > UINT16_MAX - shift) {
            log_error("listeners: there is no port for controller %d above %s:%u", node + shift, l.host, l.port);
            return EX_CONFIG;
        }
        l.port = (uint16_t)(l.port == 0 ? 0 : l.port + shift);
        status = open_one(f, &l, NULL, inherited(first + i));
        if (status == 0)
            f->listeners[f->listener_count - 1]->controller_id = node + shift;
    }
    return status;
}

static void start_accepting(struct frontend *f, struct listener *l)
{
    l->poll = loop_poll_start(f->loop, l->fd, f->accept_paused ? 0 : LOOP_READABLE, on_accept, l);
    if (l->controller_id >= 0)
        log_info("listening on %s://%s:%u for controller %d", l->name, l->host, l->port, l->controller_id);
    else
        log_info("listening on %s://%s:%u, advertised as %s:%u", l->name, l->host, l->port, l->advertised_host,
                 l->advertised_port);
}

/* ---- a port for each broker ---- */

static struct listener *find_broker(const struct frontend *f, const struct listener *bootstrap, int32_t broker_id)
{
    for (size_t i = f->bootstrap_count; i < f->listener_count; i++)
        if (f->listeners[i]->broker_id == broker_id && f->listeners[i]->name == bootstrap->name)
            return f->listeners[i];
    return NULL;
}

/* False: somebody else has the port. */
static bool open_broker(struct frontend *f, size_t at, int32_t broker_id)
{
    const struct listener *bootstrap = f->listeners[at];
    uint16_t port = listeners_broker_port(bootstrap->port, broker_id);
    size_t place, brokers = inherited_brokers(broker_id, &place);
    int fd = place < brokers ? inherited(at * (1 + brokers) + 1 + place) : -1;

    if (port == bootstrap->port) /* no room above it: the broker is found at the bootstrap port */
        return true;
    if (fd < 0)
        fd = listen_tcp(bootstrap->host, port, config_int(f->config, "socket.listen.backlog.size"));
    if (fd < 0) {
        log_error("cannot listen on %s:%u for broker %d, trying on: %s", bootstrap->host, port, broker_id,
                  strerror(-fd));
        return false;
    }
    struct listener *l = new_listener(f, bootstrap->name, bootstrap->host);
    l->fd = fd;
    l->port = port;
    l->broker_id = broker_id;
    l->advertised_host = bootstrap->advertised_host;
    l->advertised_port = listeners_broker_port(bootstrap->advertised_port, broker_id);
    start_accepting(f, l);
    return true;
}

static void on_listen_again(void *ctx)
{
    struct frontend *f = ctx;

    f->listen_timer = loop_timer_stop(f->listen_timer);
    listeners_follow(f);
}

void listeners_follow(struct frontend *f)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(f->image, &count);
    bool all = true;

    f->has_broker_ports = f->has_broker_ports || (count > 1 && !config_bool(f->config, "karst.one.address"));
    if (!f->has_broker_ports || f->is_draining)
        return;
    for (size_t i = 0; i < f->bootstrap_count; i++)
        for (int32_t k = 0; k < count; k++)
            all = (find_broker(f, f->listeners[i], brokers[k]->id) != NULL || open_broker(f, i, brokers[k]->id)) && all;
    if (!all && f->listen_timer == NULL)
        f->listen_timer = loop_timer_start(f->loop, ACCEPT_RETRY_MS, 0, on_listen_again, f);
}

/* max.connections.per.ip.overrides: "host:count" items; host may be a name. */
static int read_ip_limits(struct frontend *f)
{
    struct config_list items = config_list(f->config, "max.connections.per.ip.overrides", f->arena);

    for (size_t i = 0; i < items.count; i++) {
        char *host = arena_str(f->arena, slice_str(items.items[i])), *colon = strrchr(host, ':'), *end = NULL;
        struct addrinfo *found,
            hints = {.ai_family = AF_INET6, .ai_flags = AI_V4MAPPED | AI_ALL, .ai_socktype = SOCK_STREAM};
        long limit = colon != NULL ? strtol(colon + 1, &end, 10) : -1;
        if (colon != NULL)
            *colon = '\0';
        if (limit < 0 || limit > INT32_MAX || *end != '\0' || getaddrinfo(host, NULL, &hints, &found) != 0) {
            log_error("max.connections.per.ip.overrides: %s is no host:count of a known host", items.items[i]);
            return EX_CONFIG;
        }
        for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) {
            f->ip_limits = xrealloc(f->ip_limits, (f->ip_limit_count + 1) * sizeof *f->ip_limits);
            struct ip_limit *to = &f->ip_limits[f->ip_limit_count++];
            memcpy(to->ip, &((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_addr, sizeof to->ip);
            to->limit = (int32_t)limit;
        }
        freeaddrinfo(found);
    }
    return 0;
}

int listeners_open(struct frontend *f)
{
    struct config_listeners at, advertised, controllers;
    char *error = NULL;

    if (config_listeners(f->config, false, f->arena, &at, &error) < 0 ||
        config_listeners(f->config, true, f->arena, &advertised, &error) < 0 ||
        config_controller_listeners(f->config, false, f->arena, &controllers, &error) < 0) {
        log_error("%s", error);
        free(error);
        return EX_CONFIG;
    }
    if (at.count == 0) {
        log_error("listeners: there is no listener for clients");
        return EX_CONFIG;
    }
    int status = read_ip_limits(f);
    if (status == 0)
        status = open_clients(f, &at, &advertised);
    if (status == 0)
        status = open_controllers(f, &controllers);
    if (status != 0)
        return status;
    for (size_t i = 0; i < f->listener_count; i++)
        start_accepting(f, f->listeners[i]);
    size_t none;
    f->has_broker_ports = inherited_brokers(-1, &none) > 0;
    return 0;
}

void listeners_close(struct frontend *f)
{
    f->accept_timer = loop_timer_stop(f->accept_timer);
    f->listen_timer = loop_timer_stop(f->listen_timer);
    for (size_t i = 0; i < f->listener_count; i++) {
        struct listener *l = f->listeners[i];
        l->poll = loop_poll_stop(l->poll);
        if (l->fd >= 0)
            close(l->fd);
        l->fd = -1;
    }
}

/* ---- accepting ---- */

static void pause_accepting(struct frontend *f)
{
    if (f->accept_paused)
        return;
    f->accept_paused = true;
    for (size_t i = 0; i < f->listener_count; i++)
        if (f->listeners[i]->poll != NULL)
            loop_poll_events(f->listeners[i]->poll, 0);
}

void listeners_resume(struct frontend *f)
{
    if (!f->accept_paused)
        return;
    f->accept_paused = false;
    for (size_t i = 0; i < f->listener_count; i++)
        if (f->listeners[i]->poll != NULL)
            loop_poll_events(f->listeners[i]->poll, LOOP_READABLE);
}

static void on_accept_retry(void *ctx)
{
    struct frontend *f = ctx;

    f->accept_timer = loop_timer_stop(f->accept_timer);
    listeners_resume(f);
}

static void out_of_descriptors(struct frontend *f, int error)
{
    log_error("cannot accept a connection: %s", strerror(error));
    pause_accepting(f);
    if (f->accept_timer == NULL)
        f->accept_timer = loop_timer_start(f->loop, ACCEPT_RETRY_MS, 0, on_accept_retry, f);
}

/* As IPv6, so that there is one shape. */
static void to_ipv6(const struct sockaddr_storage *from, struct sockaddr_in6 *to)
{
    if (from->ss_family == AF_INET6) {
        memcpy(to, from, sizeof *to);
        return;
    }
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
    *to = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = v4->sin_port};
    to->sin6_addr.s6_addr[10] = to->sin6_addr.s6_addr[11] = 0xff;
    memcpy(&to->sin6_addr.s6_addr[12], &v4->sin_addr, 4);
}

static void on_accept(void *ctx, int events UNUSED)
{
    struct listener *l = ctx;
    struct frontend *f = l->frontend;

    for (int i = 0; i < ACCEPTS_PER_EVENT && l->fd >= 0; i++) {
        struct sockaddr_storage peer;
        struct sockaddr_in6 peer6;
        socklen_t size = sizeof peer;
        if (pipeline_is_full(f->pipeline)) {
            pause_accepting(f);
            return;
        }
        int fd = accept4(l->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
            out_of_descriptors(f, errno);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0)
            return;
        to_ipv6(&peer, &peer6);
        connection_open(f, l, fd, &peer6);
    }
}
