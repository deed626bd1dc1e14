/* alter_configs.c - IncrementalAlterConfigs (44): what a broker of Kafka checks before it forwards, and what its
 * controller does then. */
#include "libs/controller/alter_configs.h"
#include "kafka/clear_elr_record.h"
#include "kafka/config_record.h"
#include "kafka/incremental_alter_configs.h"

enum { RESOURCE_BROKER_LOGGER = 8, VALUE_MAX = 32767 };

static const char *const min_isr_key = "min.insync.replicas";

static enum kafka_error refuse(const char **ret_message, const char *message, enum kafka_error error)
{
    *ret_message = message;
    return error;
}

/* ---- the request as a whole ---- */

static bool has_repeated_keys(const struct altering *k)
{
    struct name_set keys;
    name_set_init(&keys, k->arena, (size_t)k->q->configs_count);
    for (int32_t i = 0; i < k->q->configs_count; i++)
        name_set_add(&keys, k->q->configs[i].name, i);
    name_set_seal(&keys);
    for (size_t i = 1; i < keys.count; i++)
        if (slice_eq(keys.items[i - 1].name, keys.items[i].name))
            return true;
    return false;
}

static enum kafka_error check_shape(const struct altering *k, const char **ret_message)
{
    struct buf nulls CLEANUP(buf_free) = {0};
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        const struct kafka_incremental_alter_configs_request_alterable_config *e = &k->q->configs[i];
        if (e->config_operation < OP_SET || e->config_operation > OP_SUBTRACT)
            return KERR_UNKNOWN_SERVER_ERROR;
        if (e->config_operation != OP_DELETE && slice_is_null(e->value))
            buf_printf(&nulls, "%s" SLICE_F, nulls.size > 0 ? "," : "", SLICE_A(e->name));
    }
    if (has_repeated_keys(k))
        return refuse(ret_message, "Error due to duplicate config keys", KERR_INVALID_REQUEST);
    if (nulls.size > 0)
        return refuse(ret_message,
                      arena_printf(k->arena, "Null value not supported for : " SLICE_F, SLICE_A(buf_slice(&nulls))),
                      KERR_INVALID_REQUEST);
    return KERR_NONE;
}

static enum kafka_error check_topic(const struct altering *k, const char **ret_message)
{
    struct slice name = k->q->resource_name;
    if (name.size == 0)
        return refuse(ret_message, "Default topic resources are not allowed.", KERR_INVALID_REQUEST);
    *ret_message = controller_topic_name_error(name, k->arena);
    if (*ret_message != NULL)
        return KERR_INVALID_TOPIC_EXCEPTION;
    if (image_topic_by_name(k->c->image, name) == NULL)
        return refuse(ret_message, arena_printf(k->arena, "The topic '" SLICE_F "' does not exist.", SLICE_A(name)),
                      KERR_UNKNOWN_TOPIC_OR_PARTITION);
    return KERR_NONE;
}

static enum kafka_error check_resource(struct altering *k, const char **ret_message)
{
    switch (k->q->resource_type) {
    case IMAGE_TOPIC: k->scope = CONFIG_TOPIC; return check_topic(k, ret_message);
    case IMAGE_BROKER: k->scope = CONFIG_BROKER; return alter_check_broker(k, ret_message);
    case IMAGE_GROUP:
        k->scope = CONFIG_GROUP;
        if (k->q->resource_name.size == 0)
            return refuse(ret_message, "Default group resources are not allowed.", KERR_INVALID_REQUEST);
        return KERR_NONE;
    case IMAGE_CLIENT_METRICS:
        k->scope = CONFIG_CLIENT_METRICS;
        if (k->q->resource_name.size == 0)
            return refuse(ret_message, "Subscription name can't be empty", KERR_INVALID_REQUEST);
        return KERR_NONE;
    case RESOURCE_BROKER_LOGGER:
        if (k->q->configs_count == 0)
            return KERR_NONE;
        return refuse(ret_message,
                      arena_printf(k->arena, "Logger " SLICE_F " does not exist!", SLICE_A(k->q->configs[0].name)),
                      KERR_INVALID_CONFIG);
    default:
        return refuse(ret_message, arena_printf(k->arena, "Unknown resource type %d", k->q->resource_type),
                      KERR_INVALID_REQUEST);
    }
}

/* ---- new values ---- */

static struct slice current_value(const struct altering *k, struct slice key)
{
    return image_config(k->c->image, (enum image_resource)k->q->resource_type, k->q->resource_name,
                        arena_str(k->arena, key));
}

/* What a list is before it was ever set for this resource: the file's value or the default, not those of other dynamic
 * places. */
static struct slice static_value(const struct altering *k, const struct config_key *key)
{
    return config_string_at(k->c->config, k->scope, NULL, key->name, k->arena);
}

/* The next item of a comma-separated list, trimmed; false at the end. An empty list has no items. */
static bool next_item(struct slice *rest, struct slice *ret_item)
{
    if (slice_is_null(*rest) || rest->size == 0)
        return false;
    const uint8_t *comma = memchr(rest->data, ',', rest->size);
    struct slice item = {rest->data, comma ? (size_t)(comma - rest->data) : rest->size};
    *rest = comma ? slice_make(comma + 1, rest->size - item.size - 1) : SLICE_NULL;
    while (item.size > 0 && (item.data[0] == ' ' || item.data[0] == '\t')) {
        item.data++;
        item.size--;
    }
    while (item.size > 0 && (item.data[item.size - 1] == ' ' || item.data[item.size - 1] == '\t'))
        item.size--;
    *ret_item = item;
    return true;
}

static bool list_has(struct slice list, struct slice wanted)
{
    struct slice item;
    while (next_item(&list, &item))
        if (slice_eq(item, wanted))
            return true;
    return false;
}

static void add_item(struct buf *list, struct slice item)
{
    if (list->size > 0)
        buf_append(list, ",", 1);
    buf_append(list, item.data, item.size);
}

/* Appends what is not there yet, or leaves out what is named. */
static struct slice change_list(const struct altering *k, struct slice old, struct slice items, bool append)
{
    struct buf list CLEANUP(buf_free) = {0};
    struct slice item, rest = old;
    while (next_item(&rest, &item))
        if (append || !list_has(items, item))
            add_item(&list, item);
    for (rest = items; append && next_item(&rest, &item);)
        if (!list_has(buf_slice(&list), item))
            add_item(&list, item);
    if (append && items.size == 0) /* an empty item, which Kafka's list then has, and refuses */
        buf_append(&list, ",", 1);
    return arena_dup(k->arena, buf_slice(&list));
}

/* A broker's own check comes before the controller's, and has other words. */
static const char *not_a_list(const struct altering *k, struct slice name, bool append)
{
    if (k->scope == CONFIG_BROKER)
        return arena_printf(k->arena, "Config value %s is not allowed for config key: " SLICE_F,
                            append ? "append" : "subtract", SLICE_A(name));
    return arena_printf(k->arena, "Can't %s to key " SLICE_F " because its type is not LIST.",
                        append ? "APPEND" : "SUBTRACT", SLICE_A(name));
}

static enum kafka_error new_value(const struct altering *k,
                                  const struct kafka_incremental_alter_configs_request_alterable_config *e,
                                  struct slice *ret_value, const char **ret_message)
{
    bool append = e->config_operation == OP_APPEND;
    if (e->config_operation == OP_DELETE) {
        *ret_value = SLICE_NULL;
        return KERR_NONE;
    }
    *ret_value = e->value;
    if (e->config_operation != OP_SET) {
        const struct config_key *key = alter_find_key(k, e->name);
        if (key == NULL || key->type != CONFIG_TYPE_LIST)
            return refuse(ret_message, not_a_list(k, e->name, append), KERR_INVALID_CONFIG);
        struct slice old = current_value(k, e->name);
        *ret_value = change_list(k, slice_is_null(old) ? static_value(k, key) : old, e->value, append);
    }
    if (ret_value->size > VALUE_MAX)
        return refuse(
            ret_message,
            "The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes.",
            KERR_INVALID_CONFIG);
    return KERR_NONE;
}

/* All overrides of the resource as they will be. */
static void merge(struct altering *k)
{
    int32_t count;
    const struct image_config *old =
        image_configs(k->c->image, (enum image_resource)k->q->resource_type, k->q->resource_name, &count);
    k->merged = arena_calloc(k->arena, (size_t)count + (size_t)k->q->configs_count + 1, sizeof *k->merged);
    struct name_set changed;
    name_set_init(&changed, k->arena, (size_t)k->q->configs_count);
    for (int32_t i = 0; i < k->q->configs_count; i++)
        name_set_add(&changed, k->q->configs[i].name, i);
    name_set_seal(&changed);
    for (int32_t i = 0; i < count; i++)
        if (name_set_find(&changed, old[i].key, NULL) == 0)
            k->merged[k->merged_count++] = (struct config_entry){old[i].key, old[i].value};
    for (int32_t i = 0; i < k->q->configs_count; i++)
        if (!slice_is_null(k->values[i]))
            k->merged[k->merged_count++] = (struct config_entry){k->q->configs[i].name, k->values[i]};
}

static enum kafka_error check_values(struct altering *k, const char **ret_message)
{
    if (k->scope == CONFIG_GROUP)
        return alter_check_group_values(k, ret_message);
    if (k->scope == CONFIG_CLIENT_METRICS)
        return alter_check_metrics_values(k, ret_message);
    if (k->scope == CONFIG_BROKER)
        return alter_check_broker_values(k, ret_message);
    *ret_message = controller_topic_config_error(k->c, k->merged, k->merged_count, k->arena);
    return *ret_message == NULL ? KERR_NONE : KERR_INVALID_CONFIG;
}

/* ---- records ---- */

/* What is eligible was so under the old min.insync.replicas (KIP-966): of one topic, or ("") of all. */
static void clear_elr(const struct altering *k)
{
    struct kafka_clear_elr_record m = {.topic_name = k->scope == CONFIG_TOPIC ? k->q->resource_name : SLICE_EMPTY};
    controller_put(k->c, METARECORD_CLEAR_ELR, 0, &m);
}

static bool put_values(const struct altering *k)
{
    bool min_isr_changed = false;
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        struct slice name = k->q->configs[i].name;
        if (slice_eq(current_value(k, name), k->values[i]))
            continue;
        struct kafka_config_record m = {.resource_type = k->q->resource_type,
                                        .resource_name = k->q->resource_name,
                                        .name = name,
                                        .value = k->values[i]};
        if (!controller_put(k->c, METARECORD_CONFIG, 0, &m))
            return false;
        min_isr_changed = min_isr_changed || slice_eq_str(name, min_isr_key);
    }
    bool matters = k->scope == CONFIG_TOPIC || k->scope == CONFIG_BROKER;
    if (min_isr_changed && matters && controller_elr_enabled(k->c))
        clear_elr(k);
    return true;
}

static enum kafka_error alter(struct altering *k, const char **ret_message)
{
    enum kafka_error error = check_shape(k, ret_message);
    if (error == KERR_NONE)
        error = check_resource(k, ret_message);
    if (error != KERR_NONE || k->q->resource_type == RESOURCE_BROKER_LOGGER)
        return error;
    k->values = arena_calloc(k->arena, (size_t)k->q->configs_count + 1, sizeof *k->values);
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        error = new_value(k, &k->q->configs[i], &k->values[i], ret_message);
        if (error != KERR_NONE)
            return error;
    }
    merge(k);
    error = check_values(k, ret_message);
    if (error != KERR_NONE)
        return error;
    return put_values(k) ? KERR_NONE : KERR_INVALID_CONFIG;
}

/* A resource's type and name as one slice, to find those that are named twice. */
static struct slice resource_key(const struct kafka_incremental_alter_configs_request_alter_configs_resource *r,
                                 struct arena *arena)
{
    uint8_t *key = arena_alloc(arena, r->resource_name.size + 1);
    key[0] = (uint8_t)r->resource_type;
    if (r->resource_name.size > 0)
        memcpy(key + 1, r->resource_name.data, r->resource_name.size);
    return slice_make(key, r->resource_name.size + 1);
}

void controller_alter_configs(struct controller *c, const struct kafka_incremental_alter_configs_request *q,
                              struct arena *arena, struct kafka_incremental_alter_configs_response *ret_p)
{
    struct name_set resources;
    kafka_incremental_alter_configs_response_init(ret_p);
    ret_p->responses = arena_calloc(arena, (size_t)q->resources_count + 1, sizeof *ret_p->responses);
    ret_p->responses_count = q->resources_count;
    name_set_init(&resources, arena, (size_t)q->resources_count);
    for (int32_t i = 0; i < q->resources_count; i++)
        name_set_add(&resources, resource_key(&q->resources[i], arena), i);
    name_set_seal(&resources);
    for (int32_t i = 0; i < q->resources_count; i++) {
        struct altering k = {.c = c, .arena = arena, .q = &q->resources[i]};
        struct controller_mark mark = controller_mark(c);
        const char *message = NULL;
        enum kafka_error error = KERR_INVALID_REQUEST;
        if (name_set_find(&resources, resource_key(k.q, arena), NULL) > 1)
            message = "Each resource must appear at most once.";
        else
            error = alter(&k, &message);
        if (error != KERR_NONE || q->validate_only)
            controller_rewind(c, mark);
        struct kafka_incremental_alter_configs_response_alter_configs_resource_response *r = &ret_p->responses[i];
        wire_init(&kafka_incremental_alter_configs_response_alter_configs_resource_response_type, r);
        r->error_code = (int16_t)error;
        r->error_message = slice_str(message);
        r->resource_type = k.q->resource_type;
        r->resource_name = k.q->resource_name;
    }
}
