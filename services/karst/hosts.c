/* hosts.c - `karst hosts`: what a new constellation on several hosts needs, a folder a host to be copied there: its
 * secret key, the list of all keys and nodes, and a server.properties. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "libs/base/buf.h"
#include "libs/base/uuid.h"
#include "libs/bus/trust.h"
#include "services/karst/karst.h"

enum { BUS_PORT = 9300, CLIENTS_PORT = 9092, CONTROLLER_PORT = 9091, CONTROLLERS = 3 };

struct plan {
    const char *out;
    char **hosts;
    int count, controllers;
    char cluster_id[64], (*keys)[TRUST_KEY_CHARS + 1];
};

/* The folder and its key. */
static int make_folder(struct plan *p, int at, char **ret_error)
{
    char *folder = xasprintf("%s/%s", p->out, p->hosts[at]), *key = xasprintf("%s/key", folder);
    int r = mkdir(folder, 0700) != 0 ? -errno : trust_make_key(key, p->keys[at], ret_error);
    if (r != 0 && *ret_error == NULL)
        *ret_error = xasprintf("%s: %s", folder, strerror(-r));
    free(key);
    free(folder);
    return r;
}

static int write_file(const struct plan *p, int at, const char *name, const struct buf *b, char **ret_error)
{
    char *path = xasprintf("%s/%s/%s", p->out, p->hosts[at], name);
    FILE *f = fopen(path, "wxe");
    int r = f == NULL || fchmod(fileno(f), 0644) != 0 ? -errno : 0; /* whatever the umask: it says whom we let in */
    if (f != NULL && fwrite(b->data, 1, b->size, f) != b->size)
        r = -EIO;
    if (f != NULL && fclose(f) != 0 && r == 0)
        r = -errno;
    if (r != 0)
        *ret_error = xasprintf("%s: %s", path, strerror(-r));
    free(path);
    return r;
}

static int write_hosts(const struct plan *p, int at, char **ret_error)
{
    struct buf b CLEANUP(buf_free) = {0};
    for (int i = 0; i < p->count; i++)
        buf_printf(&b, "%s %s %d\n", p->hosts[i], p->keys[i], i + 1);
    return write_file(p, at, "hosts", &b, ret_error);
}

/* Listening at a name would mean whatever /etc/hosts says of it, 127.0.1.1 often: everywhere then. */
static void put_addresses(const struct plan *p, int at, struct buf *b)
{
    const char *host = p->hosts[at], *keys[] = {"listeners", "advertised.listeners"};
    struct in_addr address;
    bool is_address = inet_pton(AF_INET, host, &address) == 1, is_controller = at < p->controllers;
    for (int i = 0; i < (is_address ? 1 : 2); i++) {
        const char *where = is_address || i == 1 ? host : "0.0.0.0";
        buf_printf(b, "%s=PLAINTEXT://%s:%d", keys[i], where, CLIENTS_PORT);
        if (is_controller)
            buf_printf(b, ",CONTROLLER://%s:%d", where, CONTROLLER_PORT);
        buf_printf(b, "\n");
    }
    buf_printf(b, "karst.bus.listen=%s:%d\n", is_address ? host : "0.0.0.0", BUS_PORT);
    if (!is_address)
        buf_printf(b, "karst.bus.advertised=%s:%d\n", host, BUS_PORT);
}

static int write_properties(const struct plan *p, int at, char **ret_error)
{
    struct buf b CLEANUP(buf_free) = {0};
    buf_printf(&b, "process.roles=%s\nnode.id=%d\n", at < p->controllers ? "broker,controller" : "broker", at + 1);
    put_addresses(p, at, &b);
    buf_printf(&b, "karst.bus.key.file=key\nkarst.bus.hosts.file=hosts\nkarst.cluster.id=%s\nkarst.controllers=",
               p->cluster_id);
    for (int i = 0; i < p->controllers; i++)
        buf_printf(&b, "%s%d@tcp://%s:%d", i > 0 ? "," : "", i + 1, p->hosts[i], BUS_PORT);
    buf_printf(&b, "\n");
    if (p->count < CONTROLLERS) /* Kafka's default is 3 replicas, and fewer nodes cannot give that */
        buf_printf(&b,
                   "offsets.topic.replication.factor=%d\ntransaction.state.log.replication.factor=%d\n"
                   "transaction.state.log.min.isr=1\n",
                   p->count, p->count);
    return write_file(p, at, "server.properties", &b, ret_error);
}

static bool is_host(const char *text)
{
    size_t n = strlen(text);
    return n > 0 && n <= TRUST_HOST_MAX && text[0] != '#' && text[0] != '.' &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz"
                        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == n;
}

static int make(struct plan *p, char **ret_error)
{
    struct uuid cluster;
    int r = datadir_make_uuid(&cluster);
    if (r == 0 && mkdir(p->out, 0700) != 0)
        r = -errno;
    if (r != 0) {
        *ret_error = xasprintf("%s: %s", p->out, strerror(-r));
        return r;
    }
    snprintf(p->cluster_id, sizeof p->cluster_id, "%s", uuid_to_text(cluster).s);
    for (int i = 0; i < p->count && r == 0; i++)
        r = make_folder(p, i, ret_error);
    for (int i = 0; i < p->count && r == 0; i++) {
        r = write_hosts(p, i, ret_error);
        if (r == 0)
            r = write_properties(p, i, ret_error);
    }
    return r;
}

int hosts_main(const char *out, char **hosts, int count)
{
    struct plan p = {.out = out, .hosts = hosts, .count = count};
    char *error = NULL;
    for (int i = 0; i < count; i++) {
        if (!is_host(hosts[i]))
            return fail(STATUS_FAILED, xasprintf("%s is no name or IPv4 address of a host", hosts[i]));
        for (int k = 0; k < i; k++)
            if (strcmp(hosts[i], hosts[k]) == 0)
                return fail(STATUS_FAILED, xasprintf("%s is named twice", hosts[i]));
    }
    p.controllers = count >= CONTROLLERS ? CONTROLLERS : 1;
    p.keys = xcalloc((size_t)count, sizeof *p.keys);
    int status = make(&p, &error) == 0 ? 0 : fail(STATUS_FAILED, error);
    free(p.keys);
    if (status != 0)
        return status;
    printf("Copy each folder in %s to its host and remove it here: it has that host's secret key. Then, with DIR for "
           "the data:\n"
           "  on %s, once:  karst format --first --data DIR --config FOLDER/server.properties\n"
           "  on all:  karst up -d --data DIR --config FOLDER/server.properties\n",
           out, hosts[0]);
    return 0;
}
