/* format.c - a new log directory. */
#include "libs/kraft/format.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kafka/feature_level_record.h"
#include "libs/config/meta_properties.h"
#include "libs/kraft/kraft.h"
#include "libs/kraft/snapshot.h"
#include "libs/log/file.h"
#include "libs/metadata/levels.h"

void kraft_bootstrap_features(image_record_fn *put, void *ctx)
{
    struct buf b CLEANUP(buf_free) = {0};
    for (size_t i = 0; i < METADATA_FEATURES; i++) {
        struct kafka_feature_level_record m = {.name = slice_str(metadata_features[i].name),
                                               .feature_level = metadata_features[i].initial};
        if (m.feature_level == 0)
            continue;
        b.size = 0;
        int error = metarecord_write(&b, METARECORD_FEATURE_LEVEL, 0, &m);
        ASSERT(error == 0);
        put(ctx, buf_slice(&b));
    }
}

int kraft_meta_read(const char *dir, struct kraft_meta *ret_meta, char **ret_message)
{
    struct meta_properties meta;
    char *message = NULL;
    int error = meta_properties_read(dir, &meta, &message);
    if (ret_message != NULL)
        *ret_message = message;
    else
        free(message);
    if (error != 0)
        return error == -EINVAL ? -EBADMSG : error;
    *ret_meta = (struct kraft_meta){.node_id = meta.node_id, .directory_id = meta.directory_id};
    static_assert(sizeof ret_meta->cluster_id == sizeof meta.cluster_id, "copied as a whole");
    memcpy(ret_meta->cluster_id, meta.cluster_id, sizeof meta.cluster_id);
    return 0;
}

static void add_value(void *ctx, struct slice value)
{
    kraft_snapshot_add(ctx, value);
}

static int write_bootstrap(const struct kraft_format_options *o)
{
    struct buf b CLEANUP(buf_free) = {0};
    struct kraft_snapshot s;
    kraft_snapshot_begin(&s, &b, 0, o->now_ms, 0, 0, SLICE_NULL);
    kraft_bootstrap_features(add_value, &s);
    kraft_snapshot_end(&s);
    return file_replace(&file_system_real, o->dir, "bootstrap.checkpoint", b.data, b.size, true);
}

static void fill_voter(const struct kraft_format_options *o, struct kraft_voters *voters)
{
    struct kraft_voter *v = &voters->voter[0];
    *v = (struct kraft_voter){.id = o->meta.node_id,
                              .directory_id = o->meta.directory_id,
                              .endpoint_count = 1,
                              .kraft_version_min = 0,
                              .kraft_version_max = 1};
    v->endpoints[0].port = o->port;
    snprintf(v->endpoints[0].name, sizeof v->endpoints[0].name, "%s", o->listener_name);
    snprintf(v->endpoints[0].host, sizeof v->endpoints[0].host, "%s", o->host);
    voters->count = 1;
}

static int write_first_snapshot(const struct kraft_format_options *o)
{
    struct buf b CLEANUP(buf_free) = {0}, voters_value CLEANUP(buf_free) = {0};
    struct kraft_voters *voters = xcalloc(1, sizeof *voters);
    struct kraft_snapshot s;
    char name[KRAFT_SNAPSHOT_NAME], dir[4096];
    fill_voter(o, voters);
    kraft_voters_encode(o->voters != NULL ? o->voters : voters, &voters_value);
    free(voters);
    kraft_snapshot_begin(&s, &b, 0, o->now_ms, o->now_ms, 1, buf_slice(&voters_value));
    kraft_snapshot_end(&s);
    kraft_snapshot_name(0, 0, name);
    int n = snprintf(dir, sizeof dir, "%s/__cluster_metadata-0", o->dir);
    if (n < 0 || (size_t)n >= sizeof dir)
        return -ENAMETOOLONG;
    int error = file_mkdir(&file_system_real, dir);
    if (error != 0 && error != -EEXIST)
        return error;
    return file_replace(&file_system_real, dir, name, b.data, b.size, true);
}

static int fail(char **ret_message, int error, const char *dir, const char *what)
{
    *ret_message = xasprintf("%s: %s: %s", dir, what, strerror(-error));
    return error;
}

static int refuse_formatted(const char *dir, char **ret_message)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/meta.properties", dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return fail(ret_message, -ENAMETOOLONG, dir, "format");
    return access(path, F_OK) == 0 ? fail(ret_message, -EEXIST, dir, "meta.properties") : 0;
}

static int write_meta(const struct kraft_format_options *o, char **ret_message)
{
    struct meta_properties meta = {.node_id = o->meta.node_id, .directory_id = o->meta.directory_id};
    memcpy(meta.cluster_id, o->meta.cluster_id, sizeof meta.cluster_id);
    int error = meta_properties_write(o->dir, &meta);
    return error != 0 ? fail(ret_message, error, o->dir, "meta.properties") : 0;
}

int kraft_format(const struct kraft_format_options *o, char **ret_message)
{
    int error = refuse_formatted(o->dir, ret_message);
    if (error != 0)
        return error;
    error = write_bootstrap(o);
    if (error != 0)
        return fail(ret_message, error, o->dir, "bootstrap.checkpoint");
    error = write_first_snapshot(o);
    if (error != 0)
        return fail(ret_message, error, o->dir, "__cluster_metadata-0");
    return write_meta(o, ret_message);
}

int kraft_format_data(const struct kraft_format_options *o, char **ret_message)
{
    int error = refuse_formatted(o->dir, ret_message);
    if (error != 0)
        return error;
    error = write_bootstrap(o);
    if (error != 0)
        return fail(ret_message, error, o->dir, "bootstrap.checkpoint");
    return write_meta(o, ret_message);
}
