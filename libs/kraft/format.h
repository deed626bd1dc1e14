/* format.h - an empty folder becomes a Kafka log directory of a cluster with one voter: what `kafka-storage format
 * --standalone` of Kafka 4.3.1 writes, byte for byte but for ids and times. And meta.properties, read back.
 *
 *   meta.properties                                                  version=1, cluster.id, node.id, directory.id
 *   bootstrap.checkpoint                                             the features of a new cluster
 *   __cluster_metadata-0/00000000000000000000-0000000000.checkpoint  kraft.version 1 and the voter
 *
 * Does blocking I/O; any thread. */
#ifndef KARST_KRAFT_FORMAT_H
#define KARST_KRAFT_FORMAT_H

#include "libs/base/uuid.h"
#include "libs/metadata/image.h"

struct kraft_voters;

struct kraft_meta {
    char cluster_id[64]; /* usually a uuid's text; Kafka takes any text */
    int32_t node_id;
    struct uuid directory_id;
};

/* Reads DIR/meta.properties. 0, or
 *   -ENOENT   there is none: the folder is not formatted
 *   -EBADMSG  it lacks a key, or a value is malformed, or its version is not 1
 *   -errno    of reading
 * and, except for -ENOENT, *ret_message (may be NULL; the caller frees) says what is wrong. */
NODISCARD int kraft_meta_read(const char *dir, struct kraft_meta *ret_meta, char **ret_message);

struct kraft_format_options {
    const char *dir; /* exists and is writable */
    struct kraft_meta meta;
    /* The voter's endpoint: where a Kafka of this node id would serve its controller listener. */
    const char *listener_name; /* "CONTROLLER" */
    const char *host;
    uint16_t port;
    int64_t now_ms; /* wall clock */
    /* All voters of a quorum that is formed at once, as --initial-controllers of kafka-storage names them; the node
     * itself is one of them. NULL: it alone, at the endpoint above. */
    const struct kraft_voters *voters;
};

/* 0, or -errno with *ret_message (the caller frees): -EEXIST: meta.properties is there already. meta.properties is
 * written last, so that a format that was cut short is done again. */
NODISCARD int kraft_format(const struct kraft_format_options *o, char **ret_message);
/* The same of a folder that holds data only, and not the metadata log: endpoint and time are not used. */
NODISCARD int kraft_format_data(const struct kraft_format_options *o, char **ret_message);

/* The features of a new cluster, as Kafka 4.3.1 formats it: a record value each for put, in Kafka's order. */
void kraft_bootstrap_features(image_record_fn *put, void *ctx);

#endif
