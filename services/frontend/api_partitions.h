/* api_partitions.h - requests of one shape: topics with partitions, each of which one storage node answers, and a
 * response with a row for each partition at the same positions. What differs between the APIs is a layout.
 *
 * Threading: the loop's thread. Rows live in the request's arena. */
#ifndef KARST_FRONTEND_API_PARTITIONS_H
#define KARST_FRONTEND_API_PARTITIONS_H

#include "services/frontend/api_common.h"

/* Where an API's generated structs keep topics, names, partitions and partition numbers. A count stands behind its
 * pointer. */
struct api_shape {
    size_t size, topics;
    size_t topic_size, name, partitions;
    size_t partition_size, index;
};
#define API_SHAPE(message, topic, topic_name, parts, partition, number)                                                \
    {                                                                                                                  \
        .size = sizeof(message), .topics = offsetof(message, topics), .topic_size = sizeof(topic),                     \
        .name = offsetof(topic, topic_name), .partitions = offsetof(topic, parts),                                     \
        .partition_size = sizeof(partition), .index = number                                                           \
    }

struct api_layout {
    int16_t api_key;
    struct api_shape request, response;
    void (*init_response)(void *response);
    /* A row with an error, or with KERR_NONE before it is known. */
    void (*init_row)(void *row, int32_t partition, enum kafka_error error);
    bool writes; /* a call that ended without an answer may have been executed: REQUEST_TIMED_OUT; else
                    NOT_LEADER_OR_FOLLOWER */
};

/* The response with a row for each partition of r, every row with that error. */
void *api_partitions_rows(struct request *r, const struct api_layout *layout, enum kafka_error error);
/* Answers r with them. */
void api_partitions_fail(struct request *r, const struct api_layout *layout, enum kafka_error error);

/* The storage node that answers for the partition at that position; -1: none, and the row says why. */
typedef int32_t api_node_fn(struct request *r, struct slice topic, struct api_part at, void *row);
/* Asks the nodes, and ends r with finish, whose ctx is the response. */
void api_partitions_scatter(struct request *r, const struct api_layout *layout, void *response, uint32_t timeout_ms,
                            api_node_fn *node, void (*finish)(struct request *r, void *response));

/* The usual finish: answers with the response. */
void api_partitions_reply(struct request *r, void *response);

#endif
