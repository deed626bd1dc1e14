/* controllers.c - several controllers on one machine. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libs/config/meta_properties.h"
#include "libs/kraft/format.h"
#include "services/karst/karst.h"

static char *folder(const char *data, int id)
{
    return xasprintf("%s.controllers/%d", data, id);
}

static int make_folder(const char *data, int id)
{
    char *parent = xasprintf("%s.controllers", data), *own = folder(data, id);
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
    clock_gettime(CLOCK_REALTIME, &now);
    o.now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    snprintf(o.meta.cluster_id, sizeof o.meta.cluster_id, "%s", cluster_id);
    do {
        if (getrandom(random, sizeof random, 0) != sizeof random)
            return -EIO;
    } while (uuid_from_random(random, &o.meta.directory_id) != 0);
    return kraft_format_data(&o, ret_error);
}

static int prepare(const char *data, const char *cluster_id, int id, char **ret_error)
{
    struct meta_properties meta;
    char *dir = folder(data, id);
    int r = make_folder(data, id);
    if (r == 0)
        r = meta_properties_read(dir, &meta, ret_error);
    if (r == -ENOENT)
        r = format(dir, cluster_id, id, ret_error);
    else if (r == 0 && (strcmp(meta.cluster_id, cluster_id) != 0 || meta.node_id != id))
        r = -EINVAL;
    if (r != 0 && *ret_error == NULL)
        *ret_error = r == -EINVAL ? xasprintf("%s is not of controller %d of the cluster %s", dir, id, cluster_id)
                                  : xasprintf("%s: %s", dir, strerror(-r));
    free(dir);
    return r;
}

static int count_folders(const char *data, int node)
{
    int n = 1;
    for (bool there = true; there && n < CONTROLLERS_MAX;) {
        char *dir = folder(data, node + n);
        there = access(dir, F_OK) == 0;
        free(dir);
        n += there;
    }
    return n;
}

int controllers_prepare(const struct config *c, const char *data, const char *cluster_id, int wanted, int *ret_count,
                        char **ret_error)
{
    int node = config_int(c, "node.id"), there = count_folders(data, node);
    int count = wanted == 0 ? there : wanted, r = 0;
    if (count < there) {
        *ret_error = xasprintf("the cluster on %s has %d controllers, which --controllers %d would leave without a "
                               "majority; remove one with kafka-metadata-quorum.sh remove-controller, then its folder",
                               data, there, wanted);
        return -EINVAL;
    }
    for (int i = 1; i < count && r == 0; i++)
        r = prepare(data, cluster_id, node + i, ret_error);
    *ret_count = count;
    return r;
}

static int write_one(const struct config *c, const char *data, const char *run_dir, int id)
{
    char *path = xasprintf("%s/controller-%d.properties", run_dir, id), *text = config_print(c);
    char *dir = folder(data, id);
    struct buf b = {0};
    FILE *f = fopen(path, "we");
    int r = f == NULL ? -errno : 0;
    /* The last of two lines of one key counts, as in Kafka's files. */
    buf_printf(&b, "%s\nnode.id=%d\nlog.dirs=%s\nmetadata.log.dir=%s\ncontroller.quorum.auto.join.enable=true\n", text,
               id, dir, dir);
    if (f != NULL && fwrite(b.data, 1, b.size, f) != b.size)
        r = -EIO;
    if (f != NULL && fclose(f) != 0 && r == 0)
        r = -errno;
    buf_free(&b);
    free(dir);
    free(text);
    free(path);
    return r;
}

int controllers_write(const struct config *c, const char *data, const char *run_dir, int count)
{
    int node = config_int(c, "node.id"), r = 0;
    for (int i = 1; i < count && r == 0; i++)
        r = write_one(c, data, run_dir, node + i);
    return r;
}

void controllers_print(const char *run_dir, const struct state *s, bool json)
{
    bool first = true;
    if (json)
        printf(",\"quorum\":[");
    for (size_t i = 0; i < s->count; i++) {
        const struct state_process *p = &s->processes[i];
        char role[32];
        int epoch, leader;
        if (strcmp(p->role, "controller") != 0)
            continue;
        char *path = xasprintf("%s/controller-%d.quorum", run_dir, p->id);
        FILE *f = fopen(path, "re");
        bool known = f != NULL && fscanf(f, "%31s %d %d", role, &epoch, &leader) == 3 && p->pid > 0;
        if (known && json)
            printf("%s{\"id\":%d,\"role\":\"%s\",\"epoch\":%d,\"leader\":%d}", first ? "" : ",", p->id, role, epoch,
                   leader);
        else if (known)
            printf("controller %d: %s in epoch %d, leader %d\n", p->id, role, epoch, leader);
        first = first && !known;
        if (f != NULL)
            fclose(f);
        free(path);
    }
    if (json)
        printf("]");
}
