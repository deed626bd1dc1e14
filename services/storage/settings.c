/* settings.c - what the keys of a topic come to: the topic's own, the dynamic values of brokers, the file, Kafka's
 * default. */
#include "services/storage/storage.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct places {
    const struct image *image;
    struct slice topic;
    char node[16];
};

static bool find(void *ctx, enum config_source source, const char *name, struct slice *ret_value)
{
    const struct places *p = ctx;
    struct slice value = SLICE_NULL;
    if (p->image == NULL)
        return false;
    if (source == CONFIG_SOURCE_TOPIC)
        value = image_config(p->image, IMAGE_TOPIC, p->topic, name);
    else if (source == CONFIG_SOURCE_BROKER)
        value = image_config(p->image, IMAGE_BROKER, slice_str(p->node), name);
    else if (source == CONFIG_SOURCE_DEFAULT_BROKER)
        value = image_config(p->image, IMAGE_BROKER, SLICE_EMPTY, name);
    *ret_value = value;
    return !slice_is_null(value);
}

/* Kafka's level of the codec that compression.type names; snappy and "uncompressed" have none. */
static void take_compression(const struct config *c, const struct config_layers *layers, struct arena *a,
                             struct log_config *l)
{
    static const char *const level_keys[COMPRESS_CODECS] = {
        [COMPRESS_GZIP] = "compression.gzip.level",
        [COMPRESS_LZ4] = "compression.lz4.level",
        [COMPRESS_ZSTD] = "compression.zstd.level",
    };
    struct slice type = config_topic_string(c, layers, "compression.type", a);
    l->compression = slice_eq_str(type, "uncompressed") ? COMPRESS_NONE : -1;
    for (int codec = COMPRESS_GZIP; codec < COMPRESS_CODECS; codec++)
        if (slice_eq_str(type, compress_name(codec)))
            l->compression = codec;
    const char *key = l->compression > 0 ? level_keys[l->compression] : NULL;
    if (key != NULL)
        l->compression_level = (int)config_topic_long(c, layers, key);
}

/* Kafka's hidden key for segments below a MiB, which segment.bytes no longer allows. */
static void take_small_segments(const struct places *p, struct log_config *l)
{
    struct slice value;
    char text[16] = "";
    if (!find((void *)(uintptr_t)p, CONFIG_SOURCE_TOPIC, "internal.segment.bytes", &value))
        return;
    memcpy(text, value.data, MIN(value.size, sizeof text - 1));
    l->segment_bytes = (int32_t)MAX(strtol(text, NULL, 10), 1L);
}

void settings_of_topic(struct storage *s, const char *topic, struct log_config *ret_config)
{
    struct places p = {.image = s->image, .topic = slice_str(topic)};
    snprintf(p.node, sizeof p.node, "%d", (int)service_id(s->service));
    const struct config_layers layers = {find, &p};
    const struct config *c = s->config;
    struct log_config l;
    log_config_init(&l);
    l.segment_bytes = (int32_t)config_topic_long(c, &layers, "segment.bytes");
    take_small_segments(&p, &l);
    l.segment_ms = config_topic_long(c, &layers, "segment.ms");
    l.segment_jitter_ms = config_topic_long(c, &layers, "segment.jitter.ms");
    l.segment_index_bytes = (int32_t)config_topic_long(c, &layers, "segment.index.bytes");
    l.index_interval_bytes = (int32_t)config_topic_long(c, &layers, "index.interval.bytes");
    l.retention_ms = config_topic_long(c, &layers, "retention.ms");
    l.retention_bytes = config_topic_long(c, &layers, "retention.bytes");
    l.flush_messages = config_topic_long(c, &layers, "flush.messages");
    l.flush_ms = config_topic_long(c, &layers, "flush.ms");
    l.file_delete_delay_ms = config_topic_long(c, &layers, "file.delete.delay.ms");
    l.max_message_bytes = (int32_t)config_topic_long(c, &layers, "max.message.bytes");
    l.message_timestamp_before_max_ms = config_topic_long(c, &layers, "message.timestamp.before.max.ms");
    l.message_timestamp_after_max_ms = config_topic_long(c, &layers, "message.timestamp.after.max.ms");
    struct arena *a = arena_new(0);
    l.log_append_time = slice_eq_str(config_topic_string(c, &layers, "message.timestamp.type", a), "LogAppendTime");
    take_compression(c, &layers, a, &l);
    arena_free(a);
    l.preallocate = config_topic_bool(c, &layers, "preallocate");
    l.cleanup_delete = config_topic_list_has(c, &layers, "cleanup.policy", "delete");
    l.cleanup_compact = config_topic_list_has(c, &layers, "cleanup.policy", "compact");
    l.delete_retention_ms = config_topic_long(c, &layers, "delete.retention.ms");
    l.min_compaction_lag_ms = config_topic_long(c, &layers, "min.compaction.lag.ms");
    l.max_compaction_lag_ms = config_topic_long(c, &layers, "max.compaction.lag.ms");
    l.min_cleanable_dirty_ratio = config_topic_double(c, &layers, "min.cleanable.dirty.ratio");
    l.min_insync_replicas = (int32_t)config_topic_long(c, &layers, "min.insync.replicas");
    l.producer_id_expiration_ms = config_int(c, "producer.id.expiration.ms");
    *ret_config = l;
}

int64_t settings_of_broker(struct storage *s, const char *key)
{
    struct places p = {.image = s->image, .topic = SLICE_EMPTY};
    snprintf(p.node, sizeof p.node, "%d", (int)service_id(s->service));
    const struct config_layers layers = {find, &p};
    return config_long_at(s->config, CONFIG_BROKER, &layers, key);
}

void settings_of_cleaner(struct storage *s, struct cleaner_settings *ret_settings)
{
    struct places p = {.image = s->image, .topic = SLICE_EMPTY};
    snprintf(p.node, sizeof p.node, "%d", (int)service_id(s->service));
    const struct config_layers layers = {find, &p};
    const struct config *c = s->config;
    *ret_settings = (struct cleaner_settings){
        .threads = (int)config_long_at(c, CONFIG_BROKER, &layers, "log.cleaner.threads"),
        .io_bytes_per_second = config_double_at(c, CONFIG_BROKER, &layers, "log.cleaner.io.max.bytes.per.second"),
        .load_factor = config_double_at(c, CONFIG_BROKER, &layers, "log.cleaner.io.buffer.load.factor"),
        .dedupe_buffer_bytes = config_long_at(c, CONFIG_BROKER, &layers, "log.cleaner.dedupe.buffer.size"),
        .io_buffer_bytes = config_long_at(c, CONFIG_BROKER, &layers, "log.cleaner.io.buffer.size"),
        .backoff_ms = config_long_at(c, CONFIG_BROKER, &layers, "log.cleaner.backoff.ms"),
    };
    ret_settings->io_bytes_per_second = MAX(ret_settings->io_bytes_per_second, 1.0);
}

int64_t settings_of_node(const struct storage *s, const char *key, int64_t otherwise)
{
    char node[16], text[24] = "";
    if (s->image == NULL)
        return otherwise;
    snprintf(node, sizeof node, "%d", (int)service_id(s->service));
    struct slice value = image_config(s->image, IMAGE_BROKER, slice_str(node), key);
    if (slice_is_null(value))
        value = image_config(s->image, IMAGE_BROKER, SLICE_EMPTY, key);
    if (slice_is_null(value) || value.size == 0 || value.size >= sizeof text)
        return otherwise;
    memcpy(text, value.data, value.size);
    char *end;
    errno = 0;
    int64_t v = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0 && v >= 0 ? v : otherwise; /* checked by the controller that wrote it */
}

struct slice settings_cordoned(const struct storage *s, struct arena *arena)
{
    struct places p = {.image = s->image};
    snprintf(p.node, sizeof p.node, "%d", (int)service_id(s->service));
    const struct config_layers layers = {find, &p};
    return config_string_at(s->config, CONFIG_BROKER, &layers, "cordoned.log.dirs", arena);
}
