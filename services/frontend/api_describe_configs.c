/* api_describe_configs.c - DescribeConfigs (32), versions 1-4: keys of topics, brokers, client metrics and groups with
 * their values, where these come from, and what stands behind them (config.md: order of precedence, synonyms). From the
 * image and the configuration; that of a broker which is another node than ours is asked for first.
 *
 * Karst has no loggers of Kafka's kind: a broker logger resource has no entries. Memory: some 200 bytes an entry, at
 * most ENTRIES_MAX entries an answer. */
#include "kafka/apis.h"
#include "kafka/describe_configs.h"
#include "libs/config/config.h"
#include "services/frontend/api_common.h"
#include "services/frontend/node_config.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct kafka_describe_configs_request_describe_configs_resource resource;
typedef struct kafka_describe_configs_response_describe_configs_result result;
typedef struct kafka_describe_configs_response_describe_configs_resource_result entry;
typedef struct kafka_describe_configs_response_describe_configs_synonym synonym;

enum { TYPE_LOGGER = 8, ENTRIES_MAX = 500000 };

/* One answer in the making, and the resource whose keys are described: what config_layers asks for. */
struct describe {
    struct request *r;
    const struct kafka_describe_configs_request *q;
    struct kafka_describe_configs_response response;
    size_t entries;
    const resource *resource;
    struct slice *asked; /* its keys, sorted */
    size_t asked_count;
    char broker[16]; /* the id of the broker asked, in decimal; "": none */
    const struct image *image;
    struct node_config *nodes; /* those that are described and are others than ours; on the heap */
    size_t node_count;
    const struct config *config; /* of the file that the resource is described from */
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    const struct kafka_describe_configs_request *q = r->body;
    struct kafka_describe_configs_response response;
    kafka_describe_configs_response_init(&response);
    response.results = arena_calloc(r->arena, (size_t)q->resources_count, sizeof *response.results);
    response.results_count = q->resources_count;
    for (int32_t i = 0; i < q->resources_count; i++) {
        kafka_describe_configs_response_describe_configs_result_init(&response.results[i]);
        response.results[i].resource_type = q->resources[i].resource_type;
        response.results[i].resource_name = q->resources[i].resource_name;
        response.results[i].error_code = (int16_t)error;
        response.results[i].error_message = api_text(message);
    }
    request_reply(r, &response);
}

static bool find_override(void *ctx, enum config_source source, const char *name, struct slice *ret_value)
{
    const struct describe *d = ctx;
    struct slice value = SLICE_NULL;
    switch (source) {
    case CONFIG_SOURCE_TOPIC: value = image_config(d->image, IMAGE_TOPIC, d->resource->resource_name, name); break;
    case CONFIG_SOURCE_GROUP: value = image_config(d->image, IMAGE_GROUP, d->resource->resource_name, name); break;
    case CONFIG_SOURCE_CLIENT_METRICS:
        value = image_config(d->image, IMAGE_CLIENT_METRICS, d->resource->resource_name, name);
        break;
    case CONFIG_SOURCE_BROKER:
        if (d->broker[0])
            value = image_config(d->image, IMAGE_BROKER, slice_str(d->broker), name);
        break;
    case CONFIG_SOURCE_DEFAULT_BROKER: value = image_config(d->image, IMAGE_BROKER, SLICE_EMPTY, name); break;
    case CONFIG_SOURCE_STATIC:
    case CONFIG_SOURCE_DEFAULT: break;
    }
    if (slice_is_null(value))
        return false;
    *ret_value = value;
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

static void set_resource(struct describe *d, const resource *q)
{
    d->resource = q;
    d->asked_count = (size_t)MAX(q->configuration_keys_count, 0);
    d->asked = arena_calloc(d->r->arena, d->asked_count, sizeof *d->asked);
    for (size_t i = 0; i < d->asked_count; i++)
        d->asked[i] = q->configuration_keys[i];
    qsort(d->asked, d->asked_count, sizeof *d->asked, compare_keys);
}

/* No list, or an empty one, asks for all. */
static bool is_asked(const struct describe *d, struct slice name)
{
    return d->asked_count == 0 || bsearch(&name, d->asked, d->asked_count, sizeof *d->asked, compare_keys) != NULL;
}

static void fill_entry(struct describe *d, entry *e, const struct config_key *key)
{
    const struct config_layers layers = {.find = find_override, .ctx = d};
    struct config_description c = config_describe(d->config, key, &layers, d->r->arena);
    kafka_describe_configs_response_describe_configs_resource_result_init(e);
    e->name = slice_str(key->name);
    e->value = c.value;
    e->read_only = c.read_only;
    e->config_source = (int8_t)c.source;
    e->is_sensitive = key->sensitive;
    e->config_type = (int8_t)key->type;
    e->documentation = d->q->include_documentation ? slice_str(config_key_text(key)) : SLICE_NULL;
    if (!d->q->include_synonyms || c.place_count == 0)
        return;
    e->synonyms = arena_calloc(d->r->arena, c.place_count, sizeof *e->synonyms);
    e->synonyms_count = (int32_t)c.place_count;
    for (size_t i = 0; i < c.place_count; i++) {
        kafka_describe_configs_response_describe_configs_synonym_init(&e->synonyms[i]);
        e->synonyms[i].name = slice_str(c.places[i].name);
        e->synonyms[i].value = c.places[i].value;
        e->synonyms[i].source = (int8_t)c.places[i].source;
    }
}

/* A controller serves no clients and is not asked for its file: of another one than that of our node its id is known,
 * and what else is each node's own is left out. */
static bool is_of_other_controller(const struct describe *d)
{
    return d->resource->resource_type == IMAGE_BROKER && d->r->client.controller_id >= 0 &&
           d->r->client.controller_id != config_int(frontend_config(d->r->frontend), "node.id");
}

static bool is_nodes_own(const char *name)
{
    static const char *const own[] = {"broker.rack", "log.dir", "log.dirs", "metadata.log.dir"};
    bool found = false;
    for (size_t i = 0; i < COUNTOF(own); i++)
        found = found || strcmp(own[i], name) == 0;
    return found;
}

static void name_node(struct describe *d, entry *e)
{
    struct slice id = slice_str(arena_str(d->r->arena, slice_str(d->broker)));
    e->value = id;
    for (int32_t i = 0; i < e->synonyms_count; i++)
        if (e->synonyms[i].source == CONFIG_SOURCE_STATIC)
            e->synonyms[i].value = id;
}

/* All listed keys of a scope that were asked for; only_overridden: of these what is set dynamically. */
static void add_scope(struct describe *d, result *row, enum config_scope scope, bool only_overridden)
{
    size_t count;
    const struct config_key *keys = config_keys(scope, &count);
    bool is_other = is_of_other_controller(d);
    for (size_t i = 0; i < count; i++) {
        struct slice ignored;
        if (keys[i].internal || !is_asked(d, slice_str(keys[i].name)))
            continue;
        if (only_overridden && !find_override(d, CONFIG_SOURCE_BROKER, keys[i].name, &ignored) &&
            !find_override(d, CONFIG_SOURCE_DEFAULT_BROKER, keys[i].name, &ignored))
            continue;
        if (is_other && is_nodes_own(keys[i].name))
            continue;
        fill_entry(d, &row->configs[row->configs_count++], &keys[i]);
        if (is_other && (strcmp(keys[i].name, "node.id") == 0 || strcmp(keys[i].name, "broker.id") == 0))
            name_node(d, &row->configs[row->configs_count - 1]);
    }
}

static const struct config_key *find_key(struct slice name)
{
    const struct config_key *key = config_key_find_slice(CONFIG_BROKER, name);
    return key != NULL ? key : config_key_find_slice(CONFIG_BROKER_QUOTA, name);
}

/* A key that nobody knows, kept for plugins: of it nobody can say that it is no secret. */
static void fill_unknown(struct describe *d, entry *e, struct slice name, bool of_broker, bool of_all)
{
    kafka_describe_configs_response_describe_configs_resource_result_init(e);
    e->name = name;
    e->value = e->documentation = SLICE_NULL;
    e->read_only = e->is_sensitive = true;
    e->config_source = of_broker ? CONFIG_SOURCE_BROKER : CONFIG_SOURCE_DEFAULT_BROKER;
    if (!d->q->include_synonyms)
        return;
    e->synonyms = arena_calloc(d->r->arena, 2, sizeof *e->synonyms);
    if (of_broker)
        e->synonyms[e->synonyms_count++] = (synonym){.name = name, .source = CONFIG_SOURCE_BROKER};
    if (of_all)
        e->synonyms[e->synonyms_count++] = (synonym){.name = name, .source = CONFIG_SOURCE_DEFAULT_BROKER};
}

static bool is_set(const struct describe *d, struct slice broker, struct slice key)
{
    return !slice_is_null(image_config(d->image, IMAGE_BROKER, broker, arena_str(d->r->arena, key)));
}

static void add_unknown(struct describe *d, result *row)
{
    int32_t own_count, all_count;
    struct slice broker = slice_str(d->broker);
    const struct image_config *own = image_configs(d->image, IMAGE_BROKER, broker, &own_count);
    const struct image_config *all = image_configs(d->image, IMAGE_BROKER, SLICE_EMPTY, &all_count);
    entry *known = row->configs;
    size_t known_count = (size_t)row->configs_count;
    row->configs = arena_calloc(d->r->arena, known_count + (size_t)own_count + (size_t)all_count + 1, sizeof *known);
    memcpy(row->configs, known, known_count * sizeof *known);
    for (int32_t i = 0; i < own_count; i++)
        if (find_key(own[i].key) == NULL && is_asked(d, own[i].key))
            fill_unknown(d, &row->configs[row->configs_count++], own[i].key, true, is_set(d, SLICE_EMPTY, own[i].key));
    for (int32_t i = 0; i < all_count; i++)
        if (find_key(all[i].key) == NULL && is_asked(d, all[i].key) && !is_set(d, broker, all[i].key))
            fill_unknown(d, &row->configs[row->configs_count++], all[i].key, false, true);
}

static void add_keys(struct describe *d, result *row, enum config_scope scope)
{
    size_t count, quota_count = 0;
    (void)config_keys(scope, &count);
    if (scope == CONFIG_BROKER)
        (void)config_keys(CONFIG_BROKER_QUOTA, &quota_count);
    row->configs = arena_calloc(d->r->arena, count + quota_count + 1, sizeof *row->configs);
    add_scope(d, row, scope, false);
    if (scope == CONFIG_BROKER) {
        add_scope(d, row, CONFIG_BROKER_QUOTA, true);
        add_unknown(d, row);
    }
    d->entries += (size_t)row->configs_count;
}

/* The cluster-wide defaults of brokers: only what is set there. */
static void add_broker_defaults(struct describe *d, result *row)
{
    int32_t count;
    const struct image_config *set = image_configs(d->image, IMAGE_BROKER, SLICE_EMPTY, &count);
    row->configs = arena_calloc(d->r->arena, (size_t)count, sizeof *row->configs);
    for (int32_t i = 0; i < count; i++) {
        const struct config_key *key = find_key(set[i].key);
        if (!is_asked(d, set[i].key))
            continue;
        entry *e = &row->configs[row->configs_count++];
        if (key == NULL) {
            fill_unknown(d, e, set[i].key, false, true);
            continue;
        }
        kafka_describe_configs_response_describe_configs_resource_result_init(e);
        e->name = set[i].key;
        e->is_sensitive = key->sensitive;
        e->value = e->is_sensitive ? SLICE_NULL : set[i].value;
        e->config_source = CONFIG_SOURCE_DEFAULT_BROKER;
        e->config_type = (int8_t)key->type;
        e->documentation = d->q->include_documentation ? slice_str(config_key_text(key)) : SLICE_NULL;
        if (d->q->include_synonyms) {
            e->synonyms = arena_calloc(d->r->arena, 1, sizeof *e->synonyms);
            e->synonyms_count = 1;
            e->synonyms[0] = (synonym){.name = e->name, .value = e->value, .source = CONFIG_SOURCE_DEFAULT_BROKER};
        }
    }
    d->entries += (size_t)row->configs_count;
}

static void set_error(result *row, enum kafka_error error, const char *message)
{
    row->error_code = (int16_t)error;
    row->error_message = api_text(message);
}

/* The node that the connection stands for; -1: none. */
static int32_t own_id(const struct describe *d)
{
    return d->r->client.controller_id >= 0 ? d->r->client.controller_id : d->r->client.broker_id;
}

/* A node's id in a resource name: the one that the connection stands for, or of any registered broker when it stands
 * for none. */
static bool find_broker_id(const struct describe *d, struct slice name, int32_t *ret_id, bool *ret_is_number)
{
    int32_t own = own_id(d);
    char *end, *text = arena_str(d->r->arena, name);
    long id = strtol(text, &end, 10);
    *ret_is_number = end != text && *end == '\0' && id >= INT32_MIN && id <= INT32_MAX;
    if (!*ret_is_number || (own >= 0 ? id != own : image_broker(d->image, (int32_t)id) == NULL))
        return false;
    *ret_id = (int32_t)id;
    return true;
}

/* False with the error in row. */
static bool check_broker_id(struct describe *d, result *row, const char *expected)
{
    int32_t id;
    bool is_number;
    if (find_broker_id(d, row->resource_name, &id, &is_number)) {
        snprintf(d->broker, sizeof d->broker, "%d", id);
        return true;
    }
    struct arena *a = d->r->arena;
    const char *text = arena_str(a, row->resource_name);
    set_error(row, KERR_INVALID_REQUEST,
              is_number
                  ? arena_printf(a, "Unexpected broker id, expected %d%s but received %s", own_id(d), expected, text)
                  : arena_printf(a, "Broker id must be an integer, but it is: %s", text));
    return false;
}

/* ---- other nodes ---- */

static const struct node_config *node_of(const struct describe *d, int32_t id)
{
    for (size_t i = 0; i < d->node_count; i++)
        if (d->nodes[i].id == id)
            return &d->nodes[i];
    return NULL;
}

static void find_nodes(struct describe *d)
{
    int32_t ours = config_int(frontend_config(d->r->frontend), "node.id");
    bool is_of_controllers = d->r->client.controller_id >= 0;
    d->nodes = xcalloc((size_t)d->q->resources_count + 1, sizeof *d->nodes);
    for (int32_t i = 0; i < d->q->resources_count && !is_of_controllers; i++) {
        const resource *q = &d->q->resources[i];
        int32_t id;
        bool is_number;
        if (q->resource_type == IMAGE_BROKER && find_broker_id(d, q->resource_name, &id, &is_number) && id != ours &&
            node_of(d, id) == NULL)
            d->nodes[d->node_count++].id = id;
    }
}

/* Only the node itself knows its file; a client of Kafka's would wait for it, too, and not hear of it. */
static bool take_file(struct describe *d, result *row)
{
    const struct node_config *node = node_of(d, (int32_t)strtol(d->broker, NULL, 10));
    if (node != NULL && node->config == NULL) {
        set_error(row, KERR_REQUEST_TIMED_OUT, arena_printf(d->r->arena, "Broker %s does not answer", d->broker));
        return false;
    }
    if (node != NULL)
        d->config = node->config;
    return true;
}

static void describe_topic(struct describe *d, result *row)
{
    const char *problem = api_topic_name_problem(d->r, row->resource_name);
    if (problem)
        set_error(row, KERR_INVALID_TOPIC_EXCEPTION, problem);
    else if (image_topic_by_name(d->image, row->resource_name) == NULL)
        row->error_code = KERR_UNKNOWN_TOPIC_OR_PARTITION;
    else
        add_keys(d, row, CONFIG_TOPIC);
}

static void describe_broker(struct describe *d, result *row)
{
    if (row->resource_name.size == 0)
        add_broker_defaults(d, row);
    else if (check_broker_id(d, row, " or empty string,") && take_file(d, row))
        add_keys(d, row, CONFIG_BROKER);
}

static void describe_logger(struct describe *d, result *row)
{
    if (row->resource_name.size == 0)
        set_error(row, KERR_INVALID_REQUEST, "Broker id must not be empty");
    else
        (void)check_broker_id(d, row, "");
}

static void describe_named(struct describe *d, result *row, enum config_scope scope, const char *empty_text)
{
    if (row->resource_name.size == 0)
        set_error(row, KERR_INVALID_REQUEST, empty_text);
    else
        add_keys(d, row, scope);
}

static void describe_resource(struct describe *d, const resource *q, result *row)
{
    kafka_describe_configs_response_describe_configs_result_init(row);
    row->resource_type = q->resource_type;
    row->resource_name = q->resource_name;
    row->error_message = SLICE_EMPTY;
    set_resource(d, q);
    d->config = frontend_config(d->r->frontend);
    int32_t broker = own_id(d) >= 0 ? own_id(d) : request_any_broker(d->r);
    snprintf(d->broker, sizeof d->broker, "%d", broker);
    switch (q->resource_type) {
    case IMAGE_TOPIC: describe_topic(d, row); break;
    case IMAGE_BROKER: describe_broker(d, row); break;
    case TYPE_LOGGER: describe_logger(d, row); break;
    case IMAGE_CLIENT_METRICS:
        describe_named(d, row, CONFIG_CLIENT_METRICS, "Client metrics subscription name must not be empty");
        break;
    case IMAGE_GROUP: describe_named(d, row, CONFIG_GROUP, "Group name must not be empty"); break;
    default: /* handle() has looked */ break;
    }
}

static bool is_known_type(int8_t type)
{
    return type == IMAGE_TOPIC || type == IMAGE_BROKER || type == TYPE_LOGGER || type == IMAGE_CLIENT_METRICS ||
           type == IMAGE_GROUP;
}

static void describe(struct describe *d)
{
    const struct kafka_describe_configs_request *q = d->q;
    kafka_describe_configs_response_init(&d->response);
    d->response.results = arena_calloc(d->r->arena, (size_t)q->resources_count, sizeof *d->response.results);
    d->response.results_count = q->resources_count;
    for (int32_t i = 0; i < q->resources_count; i++) {
        describe_resource(d, &q->resources[i], &d->response.results[i]);
        if (d->entries > ENTRIES_MAX) {
            fail(d->r, KERR_INVALID_REQUEST, "The answer would be too large: ask for fewer resources at a time");
            return;
        }
    }
    request_reply(d->r, &d->response);
}

static void on_nodes(void *ctx)
{
    struct describe *d = ctx;
    struct node_config *nodes = d->nodes;
    size_t count = d->node_count;
    describe(d); /* d goes with the answer */
    node_configs_free(nodes, count);
}

static void handle(struct request *r)
{
    const struct kafka_describe_configs_request *q = r->body;
    for (int32_t i = 0; i < q->resources_count; i++)
        if (!is_known_type(q->resources[i].resource_type)) {
            fail(r, KERR_INVALID_REQUEST, API_INVALID_REQUEST_TEXT);
            return;
        }
    struct describe *d = arena_calloc(r->arena, 1, sizeof *d);
    *d = (struct describe){.r = r, .q = q, .image = r->image};
    find_nodes(d);
    node_configs_ask(r, d->nodes, d->node_count, on_nodes, d);
}

const struct api_handler api_describe_configs = {.key = KAFKA_API_DESCRIBE_CONFIGS,
                                                 .version_min = 1,
                                                 .version_max = 4,
                                                 .at_controllers = true,
                                                 .handle = handle,
                                                 .fail = fail};
