/* describe_configs.c - Kafka request DescribeConfigs (32): what this node's server.properties says, key by key and
 * nothing else. A front end, which reads a file of its own, makes of it what a client is told of this broker; values
 * that are secret are its to leave out. */
#include "kafka/describe_configs.h"
#include "libs/config/config.h"
#include "services/storage/storage.h"

typedef struct kafka_describe_configs_request request;
typedef struct kafka_describe_configs_response_describe_configs_result result;
typedef struct kafka_describe_configs_response_describe_configs_resource_result entry;

struct listing {
    entry *at; /* NULL: only counted */
    int32_t count;
};

static void add(void *ctx, const char *name, const char *value)
{
    struct listing *l = ctx;
    if (l->at != NULL) {
        kafka_describe_configs_response_describe_configs_resource_result_init(&l->at[l->count]);
        l->at[l->count].name = slice_str(name);
        l->at[l->count].value = slice_str(value);
        l->at[l->count].config_source = CONFIG_SOURCE_STATIC;
    }
    l->count++;
}

void describe_configs_on_call(void *ctx, struct rpc *rpc)
{
    struct storage *s = ctx;
    const request *q = rpc_kafka_request(rpc);
    if (q == NULL)
        return;
    struct arena *a = rpc_arena(rpc);
    struct listing all = {0};
    struct kafka_describe_configs_response response;
    result row;
    config_each(s->config, add, &all);
    all.at = arena_calloc(a, (size_t)all.count + 1, sizeof *all.at);
    all.count = 0;
    config_each(s->config, add, &all);
    kafka_describe_configs_response_describe_configs_result_init(&row);
    row.error_message = row.resource_name = SLICE_EMPTY;
    row.configs = all.at;
    row.configs_count = all.count;
    kafka_describe_configs_response_init(&response);
    response.results = &row;
    response.results_count = 1;
    rpc_reply_kafka(rpc, &response, 0);
}
