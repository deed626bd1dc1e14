/* node_config.c - what is in the server.properties of another node, which is asked for it: a front end has read one
 * file only, that of the node it was started with. */
#include "services/frontend/node_config.h"

#include "kafka/apis.h"
#include "kafka/describe_configs.h"
#include "libs/config/config.h"
#include <stdlib.h>

typedef struct kafka_describe_configs_request describe_request;
typedef struct kafka_describe_configs_response describe_response;

enum { VERSION = 4, TIMEOUT_MS = 5000 };

struct asking {
    struct node_config *nodes;
    size_t count, left;
    node_configs_fn *done;
    void *ctx;
};

struct question {
    struct asking *asking;
    struct node_config *node;
};

static void answered(struct asking *x)
{
    if (--x->left == 0)
        x->done(x->ctx);
}

static void on_response(struct request *r, void *ctx, enum kafka_error error, void *message)
{
    const struct question *q = ctx;
    const describe_response *response = message;

    if (error == KERR_NONE && response->results_count == 1) {
        q->node->config = config_new();
        for (int32_t i = 0; i < response->results[0].configs_count; i++)
            config_set(q->node->config, arena_str(r->arena, response->results[0].configs[i].name),
                       arena_str(r->arena, response->results[0].configs[i].value));
    }
    answered(q->asking);
}

void node_configs_ask(struct request *r, struct node_config *nodes, size_t count, node_configs_fn *done, void *ctx)
{
    struct asking *x = arena_alloc(r->arena, sizeof *x);
    describe_request message;

    *x = (struct asking){nodes, count, count + 1, done, ctx};
    kafka_describe_configs_request_init(&message);
    for (size_t i = 0; i < count; i++) {
        struct question *q = arena_alloc(r->arena, sizeof *q);
        *q = (struct question){x, &nodes[i]};
        request_call(r, KARST__BUS__ROLE__ROLE_STORAGE, nodes[i].id, KAFKA_API_DESCRIBE_CONFIGS, VERSION, &message,
                     TIMEOUT_MS, on_response, q);
    }
    answered(x); /* those that were answered at once, or none at all, do not end it before all are asked */
}

void node_configs_free(struct node_config *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        config_free(nodes[i].config);
    free(nodes);
}
