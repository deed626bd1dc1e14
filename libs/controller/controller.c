/* controller.c - records left by decisions, the image that follows them, and the first records of a new cluster. */
#include "libs/controller/internal.h"

#include <stdlib.h>

#include "kafka/abort_transaction_record.h"
#include "kafka/begin_transaction_record.h"
#include "kafka/config_record.h"
#include "kafka/end_transaction_record.h"
#include "kafka/feature_level_record.h"
#include "libs/base/bytes.h"
#include "libs/records/records.h"

enum { SESSION_TIMEOUT_MIN_MS = 100 };

struct controller *controller_new(const struct controller_options *o)
{
    struct controller *c = xcalloc(1, sizeof *c);
    c->config = o->config;
    c->node_id = o->node_id;
    c->random[0] = o->seed[0] | 1;
    c->random[1] = o->seed[1];
    c->session_timeout_ms = (uint32_t)MAX(config_int(o->config, "broker.session.timeout.ms"), SESSION_TIMEOUT_MIN_MS);
    c->idle_ms = (uint32_t)MAX(config_int(o->config, "metadata.max.idle.interval.ms"), 0);
    c->scratch = arena_new(0);
    return c;
}

struct controller *controller_free(struct controller *c)
{
    if (c == NULL)
        return NULL;
    controller_free_sessions(c);
    image_release(c->image);
    buf_free(&c->records);
    arena_free(c->scratch);
    free(c);
    return NULL;
}

const struct image *controller_image(const struct controller *c)
{
    return c->image;
}

/* ---- randomness: xoroshiro128+ from the caller's seed ---- */

uint64_t controller_random(struct controller *c)
{
    uint64_t a = c->random[0], b = c->random[1], result = a + b;
    b ^= a;
    c->random[0] = (a << 24 | a >> 40) ^ b ^ b << 16;
    c->random[1] = b << 37 | b >> 27;
    return result;
}

struct uuid controller_random_uuid(struct controller *c)
{
    struct uuid u;
    uint8_t bytes[16];
    do {
        put_u64(bytes, controller_random(c));
        put_u64(bytes + 8, controller_random(c));
    } while (uuid_from_random(bytes, &u) != 0);
    return u;
}

/* ---- records ---- */

static void frame_record(struct controller *c, const struct buf *value)
{
    put_u32(buf_grow(&c->records, 4), (uint32_t)value->size);
    buf_append(&c->records, value->data, value->size);
    c->record_count++;
}

bool controller_put(struct controller *c, enum metarecord_type type, int version, const void *msg)
{
    struct buf value CLEANUP(buf_free) = {0};
    if (metarecord_write(&value, type, version, msg) != 0)
        return false;
    frame_record(c, &value);
    return true;
}

bool controller_put_tag(struct controller *c, uint32_t tag, const void *msg)
{
    struct buf value CLEANUP(buf_free) = {0};
    if (metarecord_write_tag(&value, tag, msg) != 0)
        return false;
    frame_record(c, &value);
    return true;
}

struct controller_mark controller_mark(const struct controller *c)
{
    return (struct controller_mark){c->records.size, c->record_count};
}

void controller_rewind(struct controller *c, struct controller_mark mark)
{
    c->records.size = mark.size;
    c->record_count = mark.count;
}

static void build_batch(const struct controller *c, int64_t wall_ms, struct buf *out)
{
    struct batch_options options = BATCH_OPTIONS;
    options.base_offset = c->next_offset;
    options.leader_epoch = c->epoch;
    struct batch_builder b;
    batch_begin(&b, out, &options);
    for (size_t at = 0; at < c->records.size;) {
        uint32_t size = get_u32(c->records.data + at);
        batch_add(&b, wall_ms, SLICE_NULL, slice_make(c->records.data + at + 4, size), NULL, 0);
        at += 4 + size;
    }
    int error = batch_end(&b);
    ASSERT(error == 0);
}

/* Our own records on our own image: an error is a bug. */
static struct image *apply(const struct image *image, struct slice batch)
{
    struct image *next = NULL;
    int error = image_apply(image, batch, &next, NULL);
    ASSERT(error == 0);
    return next;
}

struct image *controller_preview(const struct controller *c)
{
    struct buf b CLEANUP(buf_free) = {0};
    if (c->record_count == 0)
        return image_retain(c->image);
    build_batch(c, image_timestamp_ms(c->image), &b);
    return apply(c->image, buf_slice(&b));
}

bool controller_take(struct controller *c, int64_t wall_ms, struct buf *out, int64_t *ret_last_offset)
{
    if (c->record_count == 0) {
        arena_reset(c->scratch);
        return false;
    }
    size_t start = out->size;
    build_batch(c, wall_ms, out);
    struct image *next = apply(c->image, slice_make(out->data + start, out->size - start));
    image_release(c->image);
    c->image = next;
    c->next_offset += c->record_count;
    c->record_count = 0;
    c->records.size = 0;
    arena_reset(c->scratch);
    ASSERT(image_offset(c->image) + 1 == c->next_offset);
    *ret_last_offset = c->next_offset - 1;
    return true;
}

void controller_observe(struct controller *c, struct slice batch)
{
    ASSERT(c->record_count == 0);
    struct image *next = apply(c->image, batch);
    image_release(c->image);
    c->image = next;
    c->next_offset = image_offset(next) + 1;
}

/* ---- becoming active ---- */

static void put_feature(struct controller *c, struct slice name, int16_t level)
{
    struct kafka_feature_level_record m = {.name = name, .feature_level = level};
    controller_put(c, METARECORD_FEATURE_LEVEL, 0, &m);
}

/* metadata.version first: it says how to read the rest. */
static void put_features(struct controller *c, const struct image *bootstrap)
{
    int32_t count = 0;
    const struct image_feature *f = bootstrap ? image_features(bootstrap, &count) : NULL;
    for (int pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < count; i++)
            if (slice_eq_str(f[i].name, "metadata.version") == (pass == 0))
                put_feature(c, f[i].name, f[i].max);
    for (size_t i = 0; count == 0 && i < METADATA_FEATURES; i++)
        if (metadata_features[i].initial > 0)
            put_feature(c, slice_str(metadata_features[i].name), metadata_features[i].initial);
}

/* With eligible leader replicas, min.insync.replicas must be known to the controller: a cluster-wide default holds it
 * (KIP-966). */
void controller_put_min_isr(struct controller *c)
{
    const char *value = config_string(c->config, "min.insync.replicas");
    struct kafka_config_record m = {.resource_type = IMAGE_BROKER,
                                    .resource_name = SLICE_EMPTY,
                                    .name = SLICE_OF("min.insync.replicas"),
                                    .value = slice_str(value ? value : "1")};
    controller_put(c, METARECORD_CONFIG, 0, &m);
}

/* What Kafka's controller writes first into an empty log, as one metadata transaction (KIP-868). */
static void put_bootstrap(struct controller *c, const struct image *bootstrap)
{
    struct kafka_begin_transaction_record begin = {.name = SLICE_OF("Bootstrap records")};
    struct kafka_end_transaction_record end;
    memset(&end, 0, sizeof end);
    controller_put(c, METARECORD_BEGIN_TRANSACTION, 0, &begin);
    put_features(c, bootstrap);
    if (bootstrap == NULL || image_feature_level(bootstrap, "eligible.leader.replicas.version") > 0)
        controller_put_min_isr(c);
    controller_put(c, METARECORD_END_TRANSACTION, 0, &end);
}

void controller_activate(struct controller *c, const struct image *image, int64_t next_offset, int32_t epoch,
                         const struct image *bootstrap, uint64_t now_ms)
{
    image_release(c->image);
    c->image = image_retain(image);
    c->next_offset = next_offset;
    c->epoch = epoch;
    c->records.size = 0;
    c->record_count = 0;
    int32_t count;
    image_features(image, &count);
    if (image_in_transaction(image)) { /* of a leader that died before its end */
        struct kafka_abort_transaction_record m = {.reason = SLICE_OF("controller failover")};
        controller_put(c, METARECORD_ABORT_TRANSACTION, 0, &m);
    }
    if (count == 0)
        put_bootstrap(c, bootstrap);
    controller_start_sessions(c, now_ms);
    controller_start_elections(c, now_ms);
}
