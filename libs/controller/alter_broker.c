/* alter_broker.c - what Kafka's broker checks of its whole configuration before a dynamic change of it is let through
 * (KafkaConfig.validateValues, and the reconfigurables of DynamicBrokerConfig). The words are Kafka's, down to those of
 * its exceptions. */
#include <stdio.h>

#include "libs/controller/alter_configs.h"

enum { MIB = 1024 * 1024 };

/* The broker's dynamic places as they would be, or (before) as they are. */
struct broker_layers {
    const struct altering *k;
    bool before;
    char node[16];
    struct config_layers layers;
};

static bool find_merged(const struct altering *k, const char *name, struct slice *ret_value)
{
    for (size_t i = 0; i < k->merged_count; i++)
        if (slice_eq_str(k->merged[i].name, name)) {
            *ret_value = k->merged[i].value;
            return true;
        }
    return false;
}

static bool find(void *ctx, enum config_source source, const char *name, struct slice *ret_value)
{
    const struct broker_layers *b = ctx;
    const struct altering *k = b->k;
    bool all = source == CONFIG_SOURCE_DEFAULT_BROKER;
    if (!all && source != CONFIG_SOURCE_BROKER)
        return false;
    if (!b->before && all == (k->q->resource_name.size == 0))
        return find_merged(k, name, ret_value);
    *ret_value = image_config(k->c->image, IMAGE_BROKER, all ? SLICE_EMPTY : slice_str(b->node), name);
    return !slice_is_null(*ret_value);
}

static void layers_init(struct broker_layers *b, const struct altering *k, bool before)
{
    *b = (struct broker_layers){.k = k, .before = before, .layers = {find, b}};
    snprintf(b->node, sizeof b->node, "%d", k->c->node_id);
}

static int64_t number(const struct altering *k, bool before, enum config_scope scope, const char *name)
{
    struct broker_layers b;
    layers_init(&b, k, before);
    return config_long_at(k->c->config, scope, &b.layers, name);
}

static const char *required(const struct altering *k)
{
    /* The topic keys stand for all the units that the server's come in. */
    if (number(k, false, CONFIG_TOPIC, "segment.ms") < 1)
        return "requirement failed: log.roll.ms must be greater than or equal to 1";
    if (number(k, false, CONFIG_TOPIC, "segment.jitter.ms") < 0)
        return "requirement failed: log.roll.jitter.ms must be greater than or equal to 0";
    if (number(k, false, CONFIG_TOPIC, "retention.ms") == 0)
        return "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1";
    int64_t threads = number(k, false, CONFIG_BROKER, "log.cleaner.threads");
    if (threads < 1)
        return "requirement failed: log.cleaner.threads must be at least 1";
    if (number(k, false, CONFIG_BROKER, "log.cleaner.dedupe.buffer.size") / threads <= MIB)
        return "requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.";
    return NULL;
}

/* A pool of threads grows and shrinks by half or double at a time. */
static const char *resized(const struct altering *k, const char *name)
{
    int64_t old = number(k, true, CONFIG_BROKER, name), new = number(k, false, CONFIG_BROKER, name);
    if (new >= old / 2 && new <= old * 2)
        return NULL;
    const char *why;
    if (strcmp(name, "log.cleaner.threads") == 0)
        why = arena_printf(k->arena, "Log cleaner threads cannot be %s the current value %lld",
                           new < old ? "reduced to less than half" : "increased to more than double", (long long)old);
    else
        why = arena_printf(k->arena,
                           "Dynamic thread count update validation failed for %s=%lld, value should %s the current "
                           "value %lld",
                           name, (long long)new, new < old ? "be at least half" : "not be greater than double",
                           (long long)old);
    return arena_printf(k->arena,
                        "Invalid value org.apache.kafka.common.config.ConfigException: %s for configuration Invalid "
                        "dynamic configuration",
                        why);
}

const char *alter_broker_conflict(const struct altering *k)
{
    static const char *const pools[] = {"log.cleaner.threads", "num.io.threads",
                                        "num.network.threads", "num.replica.fetchers",
                                        "background.threads",  "num.recovery.threads.per.data.dir"};
    const char *message = required(k);
    for (size_t i = 0; message == NULL && i < COUNTOF(pools); i++)
        message = resized(k, pools[i]);
    return message;
}
