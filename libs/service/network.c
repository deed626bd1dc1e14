/* network.c - a service among several hosts: where it listens over tcp, with which keys, and which of a peer's
 * addresses is the one to use.
 *
 * A node's processes have 16 ports from that of karst.bus.listen on: four a role, one a lane. What is registered of a
 * service is its ipc address, its tcp address, and the place where the ipc address means something: the folder of its
 * sockets, named by the boot of the kernel, the device and the inode. No two folders have one place, on one machine or
 * on two, and whoever sees the same place sees the same folder. So a peer of another place is called over tcp, and one
 * of ours over ipc, never over tcp: the companion socket then proves what the place says (docs/bus.md). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "libs/base/log.h"
#include "libs/bus/trust.h"
#include "libs/service/service_internal.h"

enum { STATUS_CONFIG = 78 };
enum { PORTS_A_ROLE = 4 };

static const char place_scheme[] = "place:", tcp_scheme[] = "tcp://";

/* ---- keys ---- */

int service_open_trust(const struct config *c, struct trust **ret_trust, char **ret_error)
{
    const char *key = config_string(c, "karst.bus.key.file"), *hosts = config_string(c, "karst.bus.hosts.file");
    bool unencrypted = config_bool(c, "karst.bus.unencrypted"), listens = !config_is_null(c, "karst.bus.listen");
    const char *why = NULL;

    *ret_trust = NULL;
    if ((key == NULL) != (hosts == NULL))
        why = "karst.bus.key.file and karst.bus.hosts.file go together, and only one of them is set";
    else if (key != NULL && unencrypted)
        why = "karst.bus.unencrypted=true and karst.bus.key.file contradict each other";
    else if (listens && key == NULL && !unencrypted)
        why = "karst.bus.listen is set, and there are no keys: set karst.bus.key.file and karst.bus.hosts.file (or "
              "karst.bus.unencrypted=true, which lets in everybody who reaches the port)";
    if (why == NULL)
        return key != NULL ? trust_open(key, hosts, ret_trust, ret_error) : 0;
    *ret_error = xstrdup(why);
    return -EINVAL;
}

/* ---- addresses ---- */

/* The first of the role's ports, behind the node's first; -1: it is none. A front end is called on the control lane
 * alone, and so is a controller: it has a port between those of its node's controller. */
static int role_port(Karst__Bus__Role role)
{
    switch (role) {
    case KARST__BUS__ROLE__ROLE_CONTROLLER: return 0;
    case KARST__BUS__ROLE__ROLE_STORAGE: return PORTS_A_ROLE;
    case KARST__BUS__ROLE__ROLE_GROUP: return 2 * PORTS_A_ROLE;
    case KARST__BUS__ROLE__ROLE_TXN: return 3 * PORTS_A_ROLE;
    case KARST__BUS__ROLE__ROLE_FRONTEND: return 1;
    case KARST__BUS__ROLE__ROLE_NONE:
    case _KARST__BUS__ROLE_IS_INT_SIZE: break;
    }
    return -1;
}

/* The tcp address of our role, of a key that says HOST:PORT; NULL, with a message: it does not. */
static const char *own_address(struct service *s, const char *key, bool listens, int first)
{
    const char *text = config_string(s->config, key);
    char host[256];
    uint16_t port;

    if (config_endpoint(text, host, &port) != 0 || port > UINT16_MAX - SERVICE_PORTS_A_NODE || *host == 0) {
        log_error("%s=%s: HOST:PORT was expected, with room for %d ports", key, text, SERVICE_PORTS_A_NODE);
        return NULL;
    }
    if (!listens && config_host_is_any(host)) {
        log_error("karst.bus.listen=%s is no address that other hosts can reach: karst.bus.advertised has to name one",
                  text);
        return NULL;
    }
    return arena_printf(s->arena, strchr(host, ':') ? "%s[%s]:%d" : "%s%s:%d", tcp_scheme, host, port + first);
}

/* Of a sandbox without /proc: a place that nobody shares. */
static const char *place_of(struct service *s)
{
    char boot[64] = "";
    struct stat st;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, boot, sizeof boot - 1) : 0;

    if (fd >= 0)
        close(fd);
    boot[n > 0 ? strcspn(boot, "\n") : 0] = 0;
    if (*boot == 0 || stat(s->run_dir, &st) != 0)
        return arena_printf(s->arena, "%s%016llx", place_scheme, (unsigned long long)s->incarnation);
    return arena_printf(s->arena, "%s%s/%u:%u/%llu", place_scheme, boot, major(st.st_dev), minor(st.st_dev),
                        (unsigned long long)st.st_ino);
}

int service_network_open(struct service *s)
{
    bool listens = !config_is_null(s->config, "karst.bus.listen");
    int first = role_port(s->options.role);
    char *error = NULL;

    if (service_open_trust(s->config, &s->trust, &error) != 0) {
        log_error("%s", error);
        free(error);
        return STATUS_CONFIG;
    }
    s->networked = s->trust != NULL || config_bool(s->config, "karst.bus.unencrypted");
    if (!s->networked)
        return 0;
    s->place = place_of(s);
    if (!listens || first < 0)
        return 0;
    bool named = !config_is_null(s->config, "karst.bus.advertised");
    s->tcp_listen = own_address(s, "karst.bus.listen", true, first);
    if (s->tcp_listen != NULL)
        s->tcp_address = own_address(s, named ? "karst.bus.advertised" : "karst.bus.listen", false, first);
    return s->tcp_address != NULL ? 0 : STATUS_CONFIG;
}

void service_network_close(struct service *s)
{
    s->trust = trust_free(s->trust);
}

size_t service_network_endpoints(const struct service *s, const char *ret_addresses[SERVICE_ENDPOINTS_MAX])
{
    size_t n = 0;

    ret_addresses[n++] = s->address; /* alone, and first, where there is one host only */
    if (s->tcp_address != NULL)
        ret_addresses[n++] = s->tcp_address;
    if (s->place != NULL)
        ret_addresses[n++] = s->place;
    return n;
}

static const char *address_with(const struct image_service *peer, const char *scheme)
{
    for (int32_t i = 0; i < peer->address_count; i++) /* slices of the image end with a NUL */
        if (strncmp((const char *)peer->addresses[i].data, scheme, strlen(scheme)) == 0)
            return (const char *)peer->addresses[i].data;
    return NULL;
}

const char *service_network_choose(const struct service *s, const struct image_service *peer)
{
    const char *place = address_with(peer, place_scheme);

    if (peer->address_count == 0)
        return NULL;
    if (!s->networked || (place != NULL && strcmp(place, s->place) == 0))
        return (const char *)peer->addresses[0].data;
    return address_with(peer, tcp_scheme);
}
