/* meta_properties.h - the identity of a data directory, in Kafka's file of that name (version 1: cluster.id, node.id,
 * directory.id). */
#ifndef KARST_CONFIG_META_PROPERTIES_H
#define KARST_CONFIG_META_PROPERTIES_H

#include "libs/base/uuid.h"

struct meta_properties {
    char cluster_id[64]; /* text; usually 22 characters */
    int32_t node_id;     /* -1: not in the file */
    struct uuid directory_id;
};

/* Reads DIR/meta.properties. 0; -ENOENT: not formatted; -EINVAL (not of version 1, a field missing or malformed) or
 * -errno, then *ret_error says what, and the caller frees it. */
NODISCARD int meta_properties_read(const char *dir, struct meta_properties *ret_meta, char **ret_error);

/* Writes it as Kafka's formatter does: a temporary file, flushed, renamed, the directory flushed. 0 or -errno. */
NODISCARD int meta_properties_write(const char *dir, const struct meta_properties *meta);

#endif
