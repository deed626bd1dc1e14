/* topic_configs.c - names of topics, and the values of their keys. */
#include <stdio.h>
#include <stdlib.h>

#include "libs/controller/internal.h"

enum { TOPIC_NAME_MAX = 249 };

static bool find_override(const struct topic_layers *l, const char *name, struct slice *ret_value)
{
    for (size_t i = l->override_count; i-- > 0;) /* the last one wins, as it does in Kafka */
        if (slice_eq_str(l->overrides[i].name, name)) {
            *ret_value = l->overrides[i].value;
            return true;
        }
    return false;
}

static bool find_layer(void *ctx, enum config_source source, const char *name, struct slice *ret_value)
{
    const struct topic_layers *l = ctx;
    char node[16];
    struct slice resource = SLICE_EMPTY;
    if (source == CONFIG_SOURCE_TOPIC)
        return find_override(l, name, ret_value);
    if (source == CONFIG_SOURCE_BROKER) {
        snprintf(node, sizeof node, "%d", l->controller->node_id);
        resource = slice_str(node);
    } else if (source != CONFIG_SOURCE_DEFAULT_BROKER) {
        return false;
    }
    *ret_value = image_config(l->controller->image, IMAGE_BROKER, resource, name);
    return !slice_is_null(*ret_value);
}

void topic_layers_init(struct topic_layers *l, const struct controller *c, const struct config_entry *overrides,
                       size_t count)
{
    *l = (struct topic_layers){.controller = c, .overrides = overrides, .override_count = count};
    l->layers.find = find_layer;
    l->layers.ctx = l;
}

/* The places of one key of a topic that exists. */
static void layers_of_key(struct topic_layers *l, const struct controller *c, const struct image_topic *t,
                          const char *key, struct config_entry *entry)
{
    *entry = (struct config_entry){slice_str(key), image_config(c->image, IMAGE_TOPIC, t->name, key)};
    topic_layers_init(l, c, entry, slice_is_null(entry->value) ? 0 : 1);
}

int32_t controller_min_isr(const struct controller *c, const struct image_topic *t)
{
    struct config_entry entry;
    struct topic_layers l;
    layers_of_key(&l, c, t, "min.insync.replicas", &entry);
    int64_t value = config_topic_long(c->config, &l.layers, "min.insync.replicas");
    return (int32_t)MIN(value, (int64_t)image_partition(t, 0)->replica_count);
}

bool controller_is_unclean_allowed(const struct controller *c, const struct image_topic *t)
{
    struct config_entry entry;
    struct topic_layers l;
    layers_of_key(&l, c, t, "unclean.leader.election.enable", &entry);
    return config_topic_bool(c->config, &l.layers, "unclean.leader.election.enable");
}

const char *controller_topic_config_error(const struct controller *c, const struct config_entry *entries, size_t count,
                                          struct arena *arena)
{
    char *message = config_topic_validate(entries, count);
    if (message != NULL) {
        const char *copy = arena_str(arena, slice_str(message));
        free(message);
        return copy;
    }
    struct topic_layers l;
    topic_layers_init(&l, c, entries, count);
    if (config_topic_bool(c->config, &l.layers, "remote.storage.enable") &&
        !config_bool(c->config, "remote.log.storage.system.enable"))
        return "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log "
               "storage.";
    return NULL;
}

static bool is_topic_byte(uint8_t b)
{
    return (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') || b == '.' || b == '_' ||
           b == '-';
}

const char *controller_topic_name_error(struct slice name, struct arena *arena)
{
    if (name.size == 0)
        return "Topic name is invalid: the empty string is not allowed";
    if (slice_eq_str(name, "."))
        return "Topic name is invalid: '.' is not allowed";
    if (slice_eq_str(name, ".."))
        return "Topic name is invalid: '..' is not allowed";
    if (name.size > TOPIC_NAME_MAX)
        return arena_printf(
            arena, "Topic name is invalid: the length of '" SLICE_F "' is longer than the max allowed length %d",
            SLICE_A(name), TOPIC_NAME_MAX);
    for (size_t i = 0; i < name.size; i++)
        if (!is_topic_byte(name.data[i]))
            return arena_printf(arena,
                                "Topic name is invalid: '" SLICE_F
                                "' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
                                SLICE_A(name));
    return NULL;
}
