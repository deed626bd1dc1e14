/* alter_rules.c - which keys of brokers may change and how, and what the values of groups and client metrics must be.
 */
#include <stdio.h>
#include <stdlib.h>

#include "libs/controller/alter_configs.h"

static enum kafka_error refuse(const char **ret_message, const char *message, enum kafka_error error)
{
    *ret_message = message;
    return error;
}

/* "listener.name.internal.ssl.keystore.location" is a value of ssl.keystore.location for one listener. */
static struct slice without_listener(struct slice name, bool *ret_prefixed)
{
    static const char prefix[] = "listener.name.";
    *ret_prefixed = false;
    if (name.size < sizeof prefix || memcmp(name.data, prefix, sizeof prefix - 1) != 0)
        return name;
    const uint8_t *dot = memchr(name.data + sizeof prefix - 1, '.', name.size - (sizeof prefix - 1));
    if (dot == NULL)
        return name;
    *ret_prefixed = true;
    return slice_make(dot + 1, (size_t)(name.data + name.size - dot - 1));
}

const struct config_key *alter_find_key(const struct altering *k, struct slice name)
{
    bool prefixed;
    if (k->scope != CONFIG_BROKER)
        return config_key_find_slice(k->scope, name);
    struct slice bare = without_listener(name, &prefixed);
    const struct config_key *key = config_key_find_slice(CONFIG_BROKER, bare);
    return key ? key : config_key_find_slice(CONFIG_BROKER_QUOTA, bare);
}

/* ---- brokers ---- */

static bool parse_id(struct slice name, int32_t *ret_id)
{
    char text[12], *end;
    if (name.size == 0 || name.size >= sizeof text)
        return false;
    memcpy(text, name.data, name.size);
    text[name.size] = 0;
    errno = 0;
    long v = strtol(text, &end, 10);
    *ret_id = (int32_t)v;
    return *end == 0 && errno == 0 && text[0] != ' ' && text[0] != '+' && v >= INT32_MIN && v <= INT32_MAX;
}

static enum kafka_error check_broker_name(const struct altering *k, const char **ret_message)
{
    struct slice name = k->q->resource_name;
    int32_t id, count;
    if (name.size == 0)
        return KERR_NONE;
    if (!parse_id(name, &id))
        return refuse(ret_message,
                      arena_printf(k->arena, "Node id must be an integer, but it is: " SLICE_F, SLICE_A(name)),
                      KERR_INVALID_REQUEST);
    const struct image_broker *const *all = image_brokers(k->c->image, &count);
    if (image_broker(k->c->image, id) != NULL || image_controller(k->c->image, id, k->arena) != NULL)
        return KERR_NONE;
    return refuse(ret_message,
                  arena_printf(k->arena, "Unexpected broker id, expected %d, but received " SLICE_F,
                               count > 0 ? all[0]->id : k->c->node_id, SLICE_A(name)),
                  KERR_INVALID_REQUEST);
}

/* Keys that fail a rule, as Kafka lists them. */
static void note(struct buf *list, struct slice name)
{
    buf_printf(list, "%s" SLICE_F, list->size > 0 ? ", " : "", SLICE_A(name));
}

static bool is_security_key(const struct config_key *key)
{
    return key->update == CONFIG_PER_BROKER && strncmp(key->name, "ssl.", 4) == 0;
}

/* Of listeners' keys these may be set for all brokers at once (DynamicBrokerConfig.ClusterLevelListenerConfigs). */
static bool is_cluster_wide_of_listener(const struct config_key *key)
{
    return strcmp(key->name, "max.connections") == 0 || strcmp(key->name, "max.connection.creation.rate") == 0 ||
           strcmp(key->name, "num.network.threads") == 0;
}

static enum kafka_error refuse_keys(const struct altering *k, const struct buf *list, const char *what,
                                    const char **ret_message)
{
    return refuse(ret_message, arena_printf(k->arena, "%s: [" SLICE_F "]", what, SLICE_A(buf_slice(list))),
                  KERR_INVALID_REQUEST);
}

enum kafka_error alter_check_broker(const struct altering *k, const char **ret_message)
{
    struct buf fixed CLEANUP(buf_free) = {0}, unprefixed CLEANUP(buf_free) = {0}, one_broker CLEANUP(buf_free) = {0};
    bool is_default = k->q->resource_name.size == 0, prefixed;
    enum kafka_error error = check_broker_name(k, ret_message);
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        struct slice name = k->q->configs[i].name;
        const struct config_key *key = alter_find_key(k, name);
        if (key == NULL)
            continue; /* unknown keys are kept: plugins read them */
        without_listener(name, &prefixed);
        if (k->q->configs[i].config_operation == OP_DELETE && key->update == CONFIG_READ_ONLY)
            continue; /* what was never there may go */
        if (key->update == CONFIG_READ_ONLY)
            note(&fixed, name);
        else if (is_security_key(key) && !prefixed)
            note(&unprefixed, name);
        else if (is_default && (key->update == CONFIG_PER_BROKER || (prefixed && !is_cluster_wide_of_listener(key))))
            note(&one_broker, name);
    }
    if (error != KERR_NONE)
        return error;
    if (fixed.size > 0)
        return refuse_keys(k, &fixed, "Cannot update these configs dynamically", ret_message);
    if (unprefixed.size > 0)
        return refuse_keys(
            k, &unprefixed,
            "These security configs can be dynamically updated only per-listener using the listener prefix",
            ret_message);
    if (one_broker.size > 0)
        return refuse_keys(k, &one_broker,
                           "Cannot update these configs at default cluster level, broker id must be specified",
                           ret_message);
    return KERR_NONE;
}

/* With eligible leader replicas the controller has to know min.insync.replicas: one value for all, always there
 * (KIP-966). */
static enum kafka_error check_min_isr(const struct altering *k, int32_t at, const char **ret_message)
{
    if (!slice_eq_str(k->q->configs[at].name, "min.insync.replicas") || !controller_elr_enabled(k->c))
        return KERR_NONE;
    if (k->q->resource_name.size > 0)
        return refuse(ret_message, "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
                      KERR_INVALID_CONFIG);
    if (slice_is_null(k->values[at]))
        return refuse(ret_message, "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
                      KERR_INVALID_CONFIG);
    return KERR_NONE;
}

static enum kafka_error check_value(const struct altering *k, int32_t at, enum kafka_error error,
                                    const char **ret_message)
{
    const struct config_key *key = alter_find_key(k, k->q->configs[at].name);
    if (key == NULL || slice_is_null(k->values[at]))
        return KERR_NONE;
    char *message = config_key_validate(key, k->values[at]);
    if (message == NULL)
        return KERR_NONE;
    *ret_message = arena_str(k->arena, slice_str(message));
    free(message);
    return error;
}

static bool is_named(const struct config_list *list, const char *path)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], path) == 0)
            return true;
    return false;
}

/* As the node said when it registered. One that has not yet, but as a Kafka before Karst took its log over, says so
 * soon: until then nothing of it can be cordoned. */
static bool is_log_dir(const struct altering *k, const char *path)
{
    int32_t id;
    const struct image_service *node =
        parse_id(k->q->resource_name, &id) ? image_service(k->c->image, ROLE_STORAGE, id) : NULL;
    for (int32_t i = 0; node != NULL && i < node->log_dir_count; i++)
        if (slice_eq_str(node->log_dirs[i], path))
            return true;
    return false;
}

/* cordoned.log.dirs (KIP-1066): directories of the node, or "*" alone. */
static enum kafka_error check_cordoned(const struct altering *k, int32_t at, const char **ret_message)
{
    struct buf missing CLEANUP(buf_free) = {0};
    if (!slice_eq_str(k->q->configs[at].name, "cordoned.log.dirs") || slice_is_null(k->values[at]))
        return KERR_NONE;
    struct config_list list = config_items(k->values[at], k->arena);
    if (is_named(&list, "*") && list.count == 1)
        return KERR_NONE;
    if (is_named(&list, "*"))
        return refuse(ret_message,
                      "requirement failed: When cordoned.log.dirs is set to *, it must not contain other values",
                      KERR_INVALID_REQUEST);
    for (size_t i = 0; i < list.count; i++) {
        struct config_list before = {list.items, i};
        if (!is_log_dir(k, list.items[i]) && !is_named(&before, list.items[i]))
            note(&missing, slice_str(list.items[i]));
    }
    if (missing.size == 0)
        return KERR_NONE;
    return refuse(ret_message,
                  arena_printf(k->arena,
                               "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or "
                               "log.dir. Missing entries : " SLICE_F,
                               SLICE_A(buf_slice(&missing))),
                  KERR_INVALID_REQUEST);
}

/* What Karst does not do is not taken as if it did. A value that changes nothing is. */
static enum kafka_error check_honoured(const struct altering *k, const char **ret_message)
{
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        const struct config_key *key = alter_find_key(k, k->q->configs[i].name);
        if (key == NULL || key->honoured || key->scope != CONFIG_BROKER || slice_is_null(k->values[i]))
            continue;
        struct slice now = config_string_at(k->c->config, CONFIG_BROKER, NULL, key->name, k->arena);
        if (!slice_is_null(now) && slice_eq(now, k->values[i]))
            continue;
        return refuse(ret_message,
                      arena_printf(k->arena,
                                   "Karst does not honour " SLICE_F
                                   " yet: nothing but the value that it has is possible",
                                   SLICE_A(k->q->configs[i].name)),
                      KERR_INVALID_CONFIG);
    }
    return KERR_NONE;
}

enum kafka_error alter_check_broker_values(const struct altering *k, const char **ret_message)
{
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        enum kafka_error error = check_value(k, i, KERR_INVALID_REQUEST, ret_message);
        if (error == KERR_NONE)
            error = check_min_isr(k, i, ret_message);
        if (error == KERR_NONE)
            error = check_cordoned(k, i, ret_message);
        if (error != KERR_NONE)
            return error;
    }
    *ret_message = alter_broker_conflict(k);
    return *ret_message == NULL ? check_honoured(k, ret_message) : KERR_INVALID_REQUEST;
}

/* ---- groups ---- */

/* A group's value must be within what the brokers allow. */
static const struct {
    const char *key, *min_key, *max_key;
} group_bounds[] = {
    {"consumer.session.timeout.ms", "group.consumer.min.session.timeout.ms", "group.consumer.max.session.timeout.ms"},
    {"consumer.heartbeat.interval.ms", "group.consumer.min.heartbeat.interval.ms",
     "group.consumer.max.heartbeat.interval.ms"},
    {"share.session.timeout.ms", "group.share.min.session.timeout.ms", "group.share.max.session.timeout.ms"},
    {"share.heartbeat.interval.ms", "group.share.min.heartbeat.interval.ms", "group.share.max.heartbeat.interval.ms"},
    {"share.record.lock.duration.ms", "group.share.min.record.lock.duration.ms",
     "group.share.max.record.lock.duration.ms"},
    {"streams.session.timeout.ms", "group.streams.min.session.timeout.ms", "group.streams.max.session.timeout.ms"},
    {"streams.heartbeat.interval.ms", "group.streams.min.heartbeat.interval.ms",
     "group.streams.max.heartbeat.interval.ms"},
};

static enum kafka_error check_bounds(const struct altering *k, struct slice name, struct slice value,
                                     const char **ret_message)
{
    char text[24] = "";
    memcpy(text, value.data, MIN(value.size, sizeof text - 1));
    int64_t v = strtoll(text, NULL, 10);
    for (size_t i = 0; i < COUNTOF(group_bounds); i++) {
        if (!slice_eq_str(name, group_bounds[i].key))
            continue;
        if (v < config_int(k->c->config, group_bounds[i].min_key))
            return refuse(ret_message,
                          arena_printf(k->arena, "%s must be greater than or equal to %s", group_bounds[i].key,
                                       group_bounds[i].min_key),
                          KERR_INVALID_CONFIG);
        if (v > config_int(k->c->config, group_bounds[i].max_key))
            return refuse(ret_message,
                          arena_printf(k->arena, "%s must be less than or equal to %s", group_bounds[i].key,
                                       group_bounds[i].max_key),
                          KERR_INVALID_CONFIG);
    }
    return KERR_NONE;
}

enum kafka_error alter_check_group_values(const struct altering *k, const char **ret_message)
{
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        struct slice name = k->q->configs[i].name;
        if (slice_is_null(k->values[i]))
            continue;
        if (alter_find_key(k, name) == NULL)
            return refuse(ret_message, arena_printf(k->arena, "Unknown group config name: " SLICE_F, SLICE_A(name)),
                          KERR_INVALID_CONFIG);
        enum kafka_error error = check_value(k, i, KERR_INVALID_CONFIG, ret_message);
        if (error == KERR_NONE)
            error = check_bounds(k, name, k->values[i], ret_message);
        if (error != KERR_NONE)
            return error;
    }
    return KERR_NONE;
}

/* ---- client metrics ---- */

enum kafka_error alter_check_metrics_values(const struct altering *k, const char **ret_message)
{
    enum { INTERVAL_MIN_MS = 100, INTERVAL_MAX_MS = 3600000 };
    for (int32_t i = 0; i < k->q->configs_count; i++) {
        struct slice name = k->q->configs[i].name;
        if (slice_is_null(k->values[i]))
            continue;
        if (alter_find_key(k, name) == NULL)
            return refuse(ret_message,
                          arena_printf(k->arena, "Unknown client metrics configuration: " SLICE_F, SLICE_A(name)),
                          KERR_INVALID_REQUEST);
        if (slice_eq_str(name, "interval.ms")) {
            char text[24] = "";
            memcpy(text, k->values[i].data, MIN(k->values[i].size, sizeof text - 1));
            int64_t v = strtoll(text, NULL, 10);
            if (v < INTERVAL_MIN_MS || v > INTERVAL_MAX_MS)
                return refuse(ret_message,
                              arena_printf(k->arena,
                                           "Invalid value " SLICE_F
                                           " for interval.ms, interval must be between 100 and 3600000 (1 hour)",
                                           SLICE_A(k->values[i])),
                              KERR_INVALID_REQUEST);
        }
        enum kafka_error error = check_value(k, i, KERR_INVALID_REQUEST, ret_message);
        if (error != KERR_NONE)
            return error;
    }
    return KERR_NONE;
}
