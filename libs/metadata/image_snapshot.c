/* image_snapshot.c - an image as records again, in the order of Kafka's MetadataImage.write: features (metadata.version
 * first, since it says how to read the rest), controllers, brokers, topics, configuration, producer ids, everything
 * kept as it came, and Karst's own. */
#include "kafka/config_record.h"
#include "kafka/feature_level_record.h"
#include "kafka/partition_record.h"
#include "kafka/producer_ids_record.h"
#include "kafka/register_broker_record.h"
#include "kafka/topic_record.h"
#include "karst/coordinator_record.h"
#include "karst/service_record.h"
#include "libs/base/bytes.h"
#include "libs/metadata/image_impl.h"
#include "libs/metadata/levels.h"

struct writer {
    const struct image *image;
    image_record_fn *put;
    void *ctx;
    struct buf b;
    struct arena *arena;
};

/* What is in an image came from records that fit their versions, so that writing them again cannot fail. */
static void write_record(struct writer *w, enum metarecord_type type, int version, const void *msg)
{
    w->b.size = 0;
    int error = metarecord_write(&w->b, type, version, msg);
    ASSERT(error == 0);
    w->put(w->ctx, buf_slice(&w->b));
    arena_reset(w->arena);
}

static void write_tag(struct writer *w, uint32_t tag, const void *msg)
{
    w->b.size = 0;
    int error = metarecord_write_tag(&w->b, tag, msg);
    ASSERT(error == 0);
    w->put(w->ctx, buf_slice(&w->b));
    arena_reset(w->arena);
}

static void write_features(struct writer *w)
{
    int32_t count;
    const struct image_feature *f = image_features(w->image, &count);
    for (int32_t pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < count; i++) {
            if (slice_eq_str(f[i].name, "metadata.version") != (pass == 0))
                continue;
            struct kafka_feature_level_record m = {.name = f[i].name, .feature_level = f[i].max};
            write_record(w, METARECORD_FEATURE_LEVEL, 0, &m);
        }
}

struct extra_pass {
    struct writer *writer;
    bool controllers;
};

static void write_extra(void *ctx, struct pmap_item *item)
{
    struct extra_pass *pass = ctx;
    bool is_controller = item->key.size >= 8 && get_u64(item->key.data) == METARECORD_REGISTER_CONTROLLER;
    if (is_controller == pass->controllers)
        pass->writer->put(pass->writer->ctx, CONTAINER_OF(item, struct extra, item)->value);
}

static void write_extras(struct writer *w, bool controllers)
{
    struct extra_pass pass = {w, controllers};
    pmap_each(&w->image->state.extras, write_extra, &pass);
}

static void write_brokers(struct writer *w)
{
    int32_t count;
    const struct image_broker *const *all = image_brokers(w->image, &count);
    for (int32_t n = 0; n < count; n++) {
        struct kafka_register_broker_record m;
        metadata_register_broker(w->image, all[n], w->arena, &m);
        write_record(w, METARECORD_REGISTER_BROKER, metadata_record_version(w->image, METARECORD_REGISTER_BROKER), &m);
    }
}

static void write_topics(struct writer *w)
{
    int32_t count;
    const struct image_topic *const *topics = image_topics(w->image, &count);
    int version = metadata_record_version(w->image, METARECORD_PARTITION);
    for (int32_t n = 0; n < count; n++) {
        struct kafka_topic_record topic = {.name = topics[n]->name, .topic_id = topics[n]->id};
        write_record(w, METARECORD_TOPIC, 0, &topic);
        for (int32_t p = 0; p < topics[n]->partition_count; p++) {
            struct kafka_partition_record m;
            metadata_partition(topics[n]->id, image_partition(topics[n], p), version, &m);
            write_record(w, METARECORD_PARTITION, version, &m);
        }
    }
}

static void write_configs_of(void *ctx, struct pmap_item *item)
{
    struct writer *w = ctx;
    const struct configs *c = CONTAINER_OF(item, struct configs, item);
    for (int32_t i = 0; i < c->count; i++) {
        struct kafka_config_record m = {.resource_type = (int8_t)c->type,
                                        .resource_name = c->name,
                                        .name = c->entries[i].key,
                                        .value = c->entries[i].value};
        write_record(w, METARECORD_CONFIG, 0, &m);
    }
}

static void write_producer_ids(struct writer *w)
{
    if (w->image->state.next_producer_id == 0)
        return;
    struct kafka_producer_ids_record m = {
        .broker_id = -1, .broker_epoch = -1, .next_producer_id = w->image->state.next_producer_id};
    write_record(w, METARECORD_PRODUCER_IDS, 0, &m);
}

static void write_services(struct writer *w)
{
    int32_t count;
    const struct image_service *const *all = image_services(w->image, &count);
    for (int32_t i = 0; i < count; i++) {
        struct karst_service_record m;
        metadata_service_record(all[i], w->arena, &m);
        write_tag(w, METARECORD_TAG_SERVICE, &m);
    }
}

static void write_owner(void *ctx, struct pmap_item *item)
{
    const struct image_owner *o = &CONTAINER_OF(item, struct owner, item)->pub;
    struct karst_coordinator_record_partition p = {.topic = o->topic_id,
                                                   .partition = o->partition,
                                                   .owner_id = o->id,
                                                   .owner_incarnation = (int64_t)o->incarnation,
                                                   .coordinator_epoch = o->coordinator_epoch};
    struct karst_coordinator_record m = {.role = (int8_t)o->role, .partitions = &p, .partitions_count = 1};
    write_tag(ctx, METARECORD_TAG_COORDINATOR, &m);
}

void image_each_record(const struct image *i, image_record_fn *put, void *ctx)
{
    struct writer w = {.image = i, .put = put, .ctx = ctx, .arena = arena_new(0)};
    write_features(&w);
    write_extras(&w, true);
    write_brokers(&w);
    write_topics(&w);
    pmap_each(&i->state.configs, write_configs_of, &w);
    write_producer_ids(&w);
    write_extras(&w, false);
    write_services(&w);
    pmap_each(&i->state.owners, write_owner, &w);
    arena_free(w.arena);
    buf_free(&w.b);
}

static void append_record(void *ctx, struct slice value)
{
    struct buf *b = ctx;
    put_u32(buf_grow(b, 4), (uint32_t)value.size);
    buf_append(b, value.data, value.size);
}

static bool same_counts(const struct state *a, const struct state *b)
{
    return a->topics.count == b->topics.count && a->names.count == b->names.count &&
           a->brokers.count == b->brokers.count && a->configs.count == b->configs.count &&
           a->features.count == b->features.count && a->services.count == b->services.count &&
           a->owners.count == b->owners.count && a->extras.count == b->extras.count &&
           a->next_producer_id == b->next_producer_id && a->partition_count == b->partition_count;
}

/* By I4 the same content gives the same records in the same order. The counts are for what the records might leave out.
 */
bool image_equal(const struct image *a, const struct image *b)
{
    struct buf x CLEANUP(buf_free) = {0}, y CLEANUP(buf_free) = {0};
    image_each_record(a, append_record, &x);
    image_each_record(b, append_record, &y);
    return slice_eq(buf_slice(&x), buf_slice(&y)) && slice_eq(image_voters(a), image_voters(b)) &&
           a->state.kraft_version == b->state.kraft_version && strcmp(a->cluster_id, b->cluster_id) == 0 &&
           same_counts(&a->state, &b->state);
}
