/* meta_properties.c - meta.properties, as Kafka's PropertiesUtils writes it. */
#include "libs/config/meta_properties.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "libs/config/config.h"
#include "libs/config/parse.h"

static const char *const name = "meta.properties";

static int bad(const char *path, const char *what, char **ret_error)
{
    *ret_error = xasprintf("%s: %s", path, what);
    return -EINVAL;
}

static int take_fields(const struct config *c, const char *path, struct meta_properties *ret_meta, char **ret_error)
{
    struct meta_properties m = {.node_id = -1};
    int64_t id;
    const char *version = config_raw(c, "version");
    const char *cluster = config_raw(c, "cluster.id");
    const char *node = config_raw(c, "node.id") ? config_raw(c, "node.id") : config_raw(c, "broker.id");
    const char *directory = config_raw(c, "directory.id");
    if (version == NULL || strcmp(version, "1") != 0)
        return bad(path, "not of version 1", ret_error);
    if (cluster == NULL || *cluster == 0 || strlen(cluster) >= sizeof(m.cluster_id))
        return bad(path, "no usable cluster.id", ret_error);
    if (node == NULL || !parse_int64(parse_trim(slice_str(node)), &id) || id < 0 || id > INT32_MAX)
        return bad(path, "no usable node.id", ret_error);
    /* A directory of Kafka before 3.7 has no directory.id; Kafka makes one at start, we ask for that. */
    if (directory == NULL || uuid_parse(slice_str(directory), &m.directory_id) != 0)
        return bad(path, "no usable directory.id", ret_error);
    strcpy(m.cluster_id, cluster);
    m.node_id = (int32_t)id;
    *ret_meta = m;
    return 0;
}

int meta_properties_read(const char *dir, struct meta_properties *ret_meta, char **ret_error)
{
    char *path = xasprintf("%s/%s", dir, name);
    struct config *c = config_new();
    *ret_error = NULL;
    int r = config_load(c, path, ret_error);
    if (r == -ENOENT) {
        free(*ret_error);
        *ret_error = NULL;
    } else if (r == 0) {
        r = take_fields(c, path, ret_meta, ret_error);
    }
    c = config_free(c);
    free(path);
    return r;
}

static int sync_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fsync(fd) ? -errno : 0;
    close(fd);
    return r;
}

static int write_flushed(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    size_t n = strlen(text);
    ssize_t done = write(fd, text, n);
    int r = done < 0 ? -errno : (size_t)done < n ? -ENOSPC : fsync(fd) ? -errno : 0;
    close(fd);
    return r;
}

/* Escaped: the cluster id is any text that another formatter was given. */
static char *print_fields(const struct meta_properties *meta)
{
    struct config *c = config_new();
    char node[16];
    snprintf(node, sizeof(node), "%d", meta->node_id);
    config_set(c, "cluster.id", meta->cluster_id);
    config_set(c, "directory.id", uuid_to_text(meta->directory_id).s);
    config_set(c, "node.id", node);
    config_set(c, "version", "1");
    char *text = config_print(c);
    config_free(c);
    return text;
}

int meta_properties_write(const char *dir, const struct meta_properties *meta)
{
    char date[64] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (localtime_r(&now, &tm))
        strftime(date, sizeof(date), "%a %b %d %H:%M:%S %Z %Y", &tm);
    char *path = xasprintf("%s/%s", dir, name);
    char *temporary = xasprintf("%s.tmp", path);
    char *fields = print_fields(meta), *text = xasprintf("#\n#%s\n%s", date, fields);
    int r = write_flushed(temporary, text);
    if (r == 0 && rename(temporary, path) != 0)
        r = -errno;
    if (r == 0)
        r = sync_dir(dir);
    if (r)
        unlink(temporary);
    free(fields);
    free(text);
    free(temporary);
    free(path);
    return r;
}
