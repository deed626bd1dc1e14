/* listeners.c - NAME://HOST:PORT, and the protocol that listener.security.protocol.map gives to a name. */
#include <stdlib.h>
#include <strings.h>

#include "libs/config/config.h"
#include "libs/config/parse.h"

static const char *const protocols[] = {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"};

static int16_t protocol_of(const char *name)
{
    for (size_t i = 0; i < COUNTOF(protocols); i++)
        if (strcasecmp(protocols[i], name) == 0)
            return (int16_t)i;
    return -1;
}

static bool is_listed(struct config_list list, const char *name)
{
    for (size_t i = 0; i < list.count; i++)
        if (strcasecmp(list.items[i], name) == 0)
            return true;
    return false;
}

/* The protocol of the listener by the map; controllers' listeners are PLAINTEXT unless the map says else. */
static int16_t mapped_protocol(const struct config *c, const char *name, struct arena *a)
{
    struct config_list map = config_list(c, "listener.security.protocol.map", a);
    for (size_t i = 0; i < map.count; i++) {
        const char *colon = strchr(map.items[i], ':');
        if (colon && (size_t)(colon - map.items[i]) == strlen(name) &&
            strncasecmp(map.items[i], name, strlen(name)) == 0)
            return protocol_of(colon + 1);
    }
    return -1;
}

/* NAME://HOST:PORT; HOST may be empty or in brackets. NULL, or what is wrong. */
static const char *split(const char *text, struct arena *a, struct config_listener *ret)
{
    int64_t port;
    const char *host = strstr(text, "://");
    const char *colon = strrchr(text, ':');
    if (host == NULL || host == text || colon < host + 3)
        return "NAME://HOST:PORT was expected";
    if (!parse_int64(slice_str(colon + 1), &port) || port < 0 || port > UINT16_MAX)
        return "the port must be a number from 0 to 65535";
    ret->name = arena_str(a, slice_make(text, (size_t)(host - text)));
    host += 3;
    size_t n = (size_t)(colon - host);
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
        host++;
        n -= 2;
    }
    ret->host = arena_str(a, slice_make(host, n));
    ret->port = (uint16_t)port;
    return NULL;
}

/* Those of one key whose names controller.listener.names has, or has not. */
static int take(const struct config *c, const char *key, bool of_controllers, struct arena *a,
                struct config_listeners *ret_listeners, char **ret_error)
{
    struct config_list list = config_list(c, key, a);
    struct config_list controllers = config_list(c, "controller.listener.names", a);
    struct config_listeners all = {arena_calloc(a, list.count + 1, sizeof(*all.items)), 0};
    for (size_t i = 0; i < list.count; i++) {
        struct config_listener l = {0};
        const char *why = split(list.items[i], a, &l);
        if (why == NULL && is_listed(controllers, l.name) != of_controllers)
            continue;
        if (why == NULL && (l.security_protocol = mapped_protocol(c, l.name, a)) < 0)
            why = arena_printf(a, "No security protocol defined for listener %s", l.name);
        if (why == NULL && key[0] == 'a' && strcmp(l.host, "0.0.0.0") == 0)
            why = "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0. Use a routable IP address.";
        if (why) {
            *ret_error = xasprintf("Invalid value %s for configuration %s: %s", list.items[i], key, why);
            return -EINVAL;
        }
        all.items[all.count++] = l;
    }
    *ret_listeners = all;
    return 0;
}

int config_listeners(const struct config *c, bool advertised, struct arena *a, struct config_listeners *ret_listeners,
                     char **ret_error)
{
    const char *key = advertised && !config_is_null(c, "advertised.listeners") ? "advertised.listeners" : "listeners";
    return take(c, key, false, a, ret_listeners, ret_error);
}

int config_controller_listeners(const struct config *c, bool advertised, struct arena *a,
                                struct config_listeners *ret_listeners, char **ret_error)
{
    struct config_listeners all, shown = {0};
    int r = take(c, "listeners", true, a, &all, ret_error);
    if (r == 0 && advertised && !config_is_null(c, "advertised.listeners"))
        r = take(c, "advertised.listeners", true, a, &shown, ret_error);
    for (size_t i = 0; r == 0 && i < all.count; i++)
        for (size_t n = 0; n < shown.count; n++)
            if (strcasecmp(all.items[i].name, shown.items[n].name) == 0)
                all.items[i] = shown.items[n];
    if (r == 0)
        *ret_listeners = all;
    return r;
}

bool config_host_is_any(const char *host)
{
    return *host == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

int config_endpoint(const char *text, char *ret_host, uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');
    char *end;
    if (colon == NULL || colon[1] < '0' || colon[1] > '9')
        return -EINVAL;
    long port = strtol(colon + 1, &end, 10);
    size_t n = (size_t)(colon - text);
    if (*end || port < 1 || port > UINT16_MAX || n > 255)
        return -EINVAL;
    if (n >= 2 && text[0] == '[' && colon[-1] == ']') {
        text++;
        n -= 2;
    } else if (memchr(text, ':', n)) {
        return -EINVAL;
    }
    memcpy(ret_host, text, n);
    ret_host[n] = 0;
    *ret_port = (uint16_t)port;
    return 0;
}
