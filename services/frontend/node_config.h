/* node_config.h - the server.properties of other nodes. Threading: the loop's. */
#ifndef KARST_FRONTEND_NODE_CONFIG_H
#define KARST_FRONTEND_NODE_CONFIG_H

#include "services/frontend/frontend.h"

struct node_config {
    int32_t id;
    struct config *config; /* NULL: the node has not answered */
};

typedef void node_configs_fn(void *ctx);
/* Asks each of nodes, which have their ids, and calls done once, when all have answered or their time is over; that may
 * be at once. nodes lives until then, and is the caller's. */
void node_configs_ask(struct request *r, struct node_config *nodes, size_t count, node_configs_fn *done, void *ctx);
/* nodes is on the heap. */
void node_configs_free(struct node_config *nodes, size_t count);

#endif
