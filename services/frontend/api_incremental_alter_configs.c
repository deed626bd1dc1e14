/* api_incremental_alter_configs.c - IncrementalAlterConfigs (44), versions 0-1. What only the broker asked can judge is
 * judged here (a resource named twice, another broker's id, loggers); the rest goes to the controller in one call, and
 * the answer leaves once our image holds it. */
#include "kafka/apis.h"
#include "kafka/incremental_alter_configs.h"
#include "services/frontend/api_common.h"
#include <stdlib.h>

typedef struct kafka_incremental_alter_configs_request alter_request;
typedef struct kafka_incremental_alter_configs_request_alter_configs_resource resource;
typedef struct kafka_incremental_alter_configs_response_alter_configs_resource_response result;

enum { TYPE_LOGGER = 8, OP_DELETE = 1 };

static void init_result(result *row, const resource *q, enum kafka_error error, const char *message)
{
    kafka_incremental_alter_configs_response_alter_configs_resource_response_init(row);
    row->resource_type = q->resource_type;
    row->resource_name = q->resource_name;
    row->error_code = (int16_t)error;
    row->error_message = api_text(message);
}

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const alter_request *q = r->body;
    struct kafka_incremental_alter_configs_response response;
    kafka_incremental_alter_configs_response_init(&response);
    response.responses = arena_calloc(r->arena, (size_t)q->resources_count, sizeof *response.responses);
    response.responses_count = q->resources_count;
    for (int32_t i = 0; i < q->resources_count; i++)
        init_result(&response.responses[i], &q->resources[i], error, message);
    request_reply(r, &response);
}

static int compare_resources(const void *a, const void *b)
{
    const resource *x = *(const resource *const *)a, *y = *(const resource *const *)b;
    return x->resource_type != y->resource_type
               ? (x->resource_type > y->resource_type) - (x->resource_type < y->resource_type)
               : slice_cmp(x->resource_name, y->resource_name);
}

static int compare_names(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static bool has_twice(struct request *r, const alter_request *q)
{
    const resource **sorted = arena_calloc(r->arena, (size_t)q->resources_count, sizeof *sorted);
    for (int32_t i = 0; i < q->resources_count; i++)
        sorted[i] = &q->resources[i];
    qsort(sorted, (size_t)q->resources_count, sizeof *sorted, compare_resources);
    for (int32_t i = 1; i < q->resources_count; i++)
        if (compare_resources(&sorted[i - 1], &sorted[i]) == 0)
            return true;
    return false;
}

/* Whether the name is of a broker that the connection does not stand for; "" is all brokers, and what is no number the
 * controller refuses. */
static bool is_other_broker(const struct request *r, struct slice name)
{
    char *end, *text = arena_str(r->arena, name);
    long id = strtol(text, &end, 10);
    return r->client.broker_id >= 0 && name.size > 0 && *end == 0 && id != r->client.broker_id;
}

/* At a controller listener: whether the name is an id that neither a broker nor a controller has. */
static bool is_nobody(const struct request *r, struct slice name)
{
    char *end, *text = arena_str(r->arena, name);
    long id = strtol(text, &end, 10);
    return r->client.controller_id >= 0 && name.size > 0 && *end == 0 && id >= 0 && id <= INT32_MAX &&
           image_broker(r->image, (int32_t)id) == NULL && image_controller(r->image, (int32_t)id, r->arena) == NULL;
}

/* Nulls and keys that are named twice the controller refuses before it looks at the name. */
static bool is_malformed(struct request *r, const resource *q)
{
    struct slice *names = arena_calloc(r->arena, (size_t)q->configs_count + 1, sizeof *names);
    bool bad = false;
    for (int32_t i = 0; i < q->configs_count; i++) {
        names[i] = q->configs[i].name;
        bad = bad || (slice_is_null(q->configs[i].value) && q->configs[i].config_operation != OP_DELETE);
    }
    qsort(names, (size_t)q->configs_count, sizeof *names, compare_names);
    for (int32_t i = 1; i < q->configs_count; i++)
        bad = bad || slice_eq(names[i - 1], names[i]);
    return bad;
}

/* Judges what is ours to judge; false: the controller's. */
static bool judge(struct request *r, const resource *q, result *row)
{
    if (q->resource_type == IMAGE_BROKER && is_other_broker(r, q->resource_name) && !is_malformed(r, q)) {
        init_result(row, q, KERR_INVALID_REQUEST,
                    arena_printf(r->arena, "Unexpected broker id, expected %d, but received " SLICE_F,
                                 r->client.broker_id, SLICE_A(q->resource_name)));
        return true;
    }
    if (q->resource_type == IMAGE_BROKER && is_nobody(r, q->resource_name)) {
        init_result(row, q, KERR_BROKER_ID_NOT_REGISTERED,
                    arena_printf(r->arena, "No node with id " SLICE_F " found.", SLICE_A(q->resource_name)));
        return true;
    }
    if (q->resource_type == TYPE_LOGGER) {
        init_result(row, q, KERR_INVALID_REQUEST, "Karst has no loggers whose level can be set");
        return true;
    }
    if (q->resource_type != IMAGE_TOPIC && q->resource_type != IMAGE_BROKER &&
        q->resource_type != IMAGE_CLIENT_METRICS && q->resource_type != IMAGE_GROUP) {
        init_result(row, q, KERR_INVALID_REQUEST, arena_printf(r->arena, "Unknown resource type %d", q->resource_type));
        return true;
    }
    return false;
}

/* What is under way: the rows in the order of the request, and which of them the controller answers. */
struct alter {
    struct kafka_incremental_alter_configs_response response;
    int32_t *asked; /* positions */
    int32_t asked_count;
};

static bool is_of(const result *row, const result *other)
{
    return row->resource_type == other->resource_type && slice_eq(row->resource_name, other->resource_name);
}

static const result *find(const struct kafka_incremental_alter_configs_response *response, const result *row,
                          int32_t pos)
{
    if (pos < response->responses_count && is_of(&response->responses[pos], row))
        return &response->responses[pos];
    for (int32_t i = 0; i < response->responses_count; i++)
        if (is_of(&response->responses[i], row))
            return &response->responses[i];
    return NULL;
}

static void on_response(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    struct alter *a = ctx;
    for (int32_t i = 0; i < a->asked_count; i++) {
        result *row = &a->response.responses[a->asked[i]];
        const result *got = error == KERR_NONE ? find(response, row, i) : NULL;
        row->error_code = got ? got->error_code : KERR_REQUEST_TIMED_OUT;
        row->error_message = got ? got->error_message : SLICE_NULL;
    }
    request_reply(r, &a->response);
}

static void handle(struct request *r)
{
    const alter_request *q = r->body;
    if (has_twice(r, q)) {
        fail(r, KERR_INVALID_REQUEST, "Each resource must appear at most once.");
        return;
    }
    struct alter *a = arena_calloc(r->arena, 1, sizeof *a);
    alter_request message = *q;
    message.resources = arena_calloc(r->arena, (size_t)q->resources_count, sizeof *message.resources);
    kafka_incremental_alter_configs_response_init(&a->response);
    a->response.responses = arena_calloc(r->arena, (size_t)q->resources_count, sizeof *a->response.responses);
    a->response.responses_count = q->resources_count;
    a->asked = arena_calloc(r->arena, (size_t)q->resources_count, sizeof *a->asked);
    for (int32_t i = 0; i < q->resources_count; i++) {
        if (judge(r, &q->resources[i], &a->response.responses[i]))
            continue;
        init_result(&a->response.responses[i], &q->resources[i], KERR_NONE, NULL);
        message.resources[a->asked_count] = q->resources[i];
        a->asked[a->asked_count++] = i;
    }
    message.resources_count = a->asked_count;
    if (a->asked_count == 0)
        request_reply(r, &a->response);
    else
        request_call(r, KARST__BUS__ROLE__ROLE_CONTROLLER, frontend_controller(r->frontend),
                     KAFKA_API_INCREMENTAL_ALTER_CONFIGS, r->version, &message, REQUEST_TIMEOUT_MS, on_response, a);
}

const struct api_handler api_incremental_alter_configs = {.key = KAFKA_API_INCREMENTAL_ALTER_CONFIGS,
                                                          .version_min = 0,
                                                          .version_max = 1,
                                                          .at_controllers = true,
                                                          .handle = handle,
                                                          .fail = fail};
