/* fake.c - see fake.h. */
#include "tests/unit/frontend_api/fake.h"
#include "kafka/config_record.h"
#include "kafka/partition_record.h"
#include "kafka/register_broker_record.h"
#include "kafka/topic_record.h"
#include "karst/coordinator_record.h"
#include "karst/service_record.h"
#include "libs/config/config.h"
#include "libs/metadata/metarecord.h"
#include "libs/records/records.h"
#include <criterion/criterion.h>
#include <stdio.h>

const struct uuid FAKE_TOPIC_A = {{0xaa, 1}}, FAKE_TOPIC_B = {{0xbb, 1}};
bool fake_moved;
static const struct uuid OFFSETS = {{0xcc, 1}};

/* ---- an image ---- */

struct log_text {
    struct buf bytes;
    struct batch_builder builder;
};

static void put(struct log_text *t, enum metarecord_type type, int version, const void *record)
{
    struct buf value = {0};
    cr_assert_eq(metarecord_write(&value, type, version, record), 0);
    batch_add(&t->builder, 1, SLICE_NULL, buf_slice(&value), NULL, 0);
    buf_free(&value);
}

static void put_tag(struct log_text *t, uint32_t tag, const void *record)
{
    struct buf value = {0};
    cr_assert_eq(metarecord_write_tag(&value, tag, record), 0);
    batch_add(&t->builder, 1, SLICE_NULL, buf_slice(&value), NULL, 0);
    buf_free(&value);
}

static void put_broker(struct log_text *t, int32_t id)
{
    struct kafka_register_broker_record m;
    struct kafka_register_broker_record_broker_endpoint e;
    kafka_register_broker_record_init(&m);
    kafka_register_broker_record_broker_endpoint_init(&e);
    e.name = SLICE_OF("PLAINTEXT");
    e.host = SLICE_OF("127.0.0.1");
    e.port = (uint16_t)(9000 + id);
    m.broker_id = id;
    m.end_points = &e;
    m.end_points_count = 1;
    m.fenced = false;
    put(t, METARECORD_REGISTER_BROKER, 3, &m);
}

static void put_topic(struct log_text *t, struct uuid id, const char *name, const int32_t *leaders, int32_t count)
{
    struct kafka_topic_record topic;
    kafka_topic_record_init(&topic);
    topic.name = slice_str(name);
    topic.topic_id = id;
    put(t, METARECORD_TOPIC, 0, &topic);
    for (int32_t i = 0; i < count; i++) {
        struct kafka_partition_record p;
        int32_t replicas[] = {1, 2};
        kafka_partition_record_init(&p);
        p.partition_id = i;
        p.topic_id = id;
        p.leader = leaders[i];
        p.replicas = p.isr = replicas;
        p.replicas_count = p.isr_count = 2;
        put(t, METARECORD_PARTITION, 0, &p);
    }
}

static void put_service(struct log_text *t, Karst__Bus__Role role, int32_t id)
{
    struct karst_service_record m;
    struct slice address = SLICE_OF("ipc:///run/x");
    karst_service_record_init(&m);
    m.role = (int8_t)role;
    m.id = id;
    m.incarnation = 7;
    m.endpoints = &address;
    m.endpoints_count = 1;
    put_tag(t, METARECORD_TAG_SERVICE, &m);
}

static void put_owners(struct log_text *t)
{
    struct karst_coordinator_record m;
    struct karst_coordinator_record_partition p[2];
    karst_coordinator_record_init(&m);
    m.role = KARST__BUS__ROLE__ROLE_GROUP;
    m.partitions = p;
    m.partitions_count = 2;
    for (int32_t i = 0; i < 2; i++) {
        karst_coordinator_record_partition_init(&p[i]);
        p[i].topic = OFFSETS;
        p[i].partition = i;
        p[i].owner_id = 11 + i;
        p[i].owner_incarnation = 7;
        p[i].coordinator_epoch = 1;
    }
    put_tag(t, METARECORD_TAG_COORDINATOR, &m);
}

static struct image *make_image(void)
{
    struct log_text t = {0};
    struct batch_options o = BATCH_OPTIONS;
    o.leader_epoch = 1;
    batch_begin(&t.builder, &t.bytes, &o);
    put_broker(&t, 1);
    put_broker(&t, 2);
    put_topic(&t, FAKE_TOPIC_A, "a", (const int32_t[]){1, 2, -1}, 3);
    put_topic(&t, FAKE_TOPIC_B, "b", (const int32_t[]){1}, 1);
    put_topic(&t, OFFSETS, TOPIC_OFFSETS, (const int32_t[]){1, 2}, 2);
    struct kafka_config_record c;
    kafka_config_record_init(&c);
    c.resource_type = IMAGE_TOPIC;
    c.resource_name = SLICE_OF("b");
    c.name = SLICE_OF("retention.ms");
    c.value = SLICE_OF("5");
    put(&t, METARECORD_CONFIG, 0, &c);
    c.resource_type = IMAGE_BROKER;
    c.resource_name = SLICE_EMPTY;
    c.name = SLICE_OF("min.insync.replicas");
    c.value = SLICE_OF("1");
    put(&t, METARECORD_CONFIG, 0, &c);
    put_service(&t, KARST__BUS__ROLE__ROLE_GROUP, 11);
    put_service(&t, KARST__BUS__ROLE__ROLE_GROUP, 12);
    put_service(&t, KARST__BUS__ROLE__ROLE_TXN, 21);
    put_owners(&t);
    cr_assert_eq(batch_end(&t.builder), 0);
    struct image *empty = image_empty("0123456789012345678901"), *image = NULL;
    cr_assert_eq(image_apply(empty, buf_slice(&t.bytes), &image, NULL), 0);
    image_release(empty);
    buf_free(&t.bytes);
    return image;
}

/* ---- the fake ---- */

static struct fake *fake_of(struct request *r)
{
    return CONTAINER_OF(r, struct fake, r);
}
static struct fake *current; /* what takes a struct frontend has no request at hand */

void fake_open(struct fake *f)
{
    char *error = NULL;
    *f = (struct fake){.image = make_image(), .config = config_new()};
    cr_assert_eq(config_parse(f->config, SLICE_OF("node.id=1\nlog.segment.bytes=2000000\n"), &error), 0);
    f->r.arena = arena_new(0);
    current = f;
}

void fake_close(struct fake *f)
{
    image_release(f->image);
    config_free(f->config);
    arena_free(f->r.arena);
}

const char *fake_group_on(int32_t partition)
{
    static char name[16];
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "g%d", i);
        if (slice_coordinator_partition(slice_str(name), 2) == partition)
            return name;
    }
    BUG("no such group id");
}

void fake_ask(struct fake *f, const struct api_handler *handler, int16_t version, const void *body)
{
    arena_reset(f->r.arena);
    f->call_count = 0;
    f->replies = 0;
    f->response = NULL;
    f->r = (struct request){.frontend = (struct frontend *)f,
                            .handler = handler,
                            .api = wire_api(handler->key),
                            .version = version,
                            .body = body,
                            .arena = f->r.arena,
                            .image = f->image,
                            .client = {.principal = "User:ANONYMOUS",
                                       .address = "127.0.0.1",
                                       .listener = "PLAINTEXT",
                                       .broker_id = 1,
                                       .controller_id = -1}};
    handler->handle(&f->r);
}

void fake_answer(struct fake *f, size_t i, enum kafka_error error, void *response)
{
    cr_assert_lt(i, f->call_count);
    cr_assert_eq(f->replies, 0);
    f->calls[i].done(&f->r, f->calls[i].ctx, error, response);
}

void request_reply(struct request *r, const void *response)
{
    struct fake *f = fake_of(r);
    struct buf out = {0};
    cr_assert_eq(wire_encode(r->api->response, r->version, response, &out), 0, "%s %d cannot be encoded", r->api->name,
                 r->version);
    void *again = arena_calloc(r->arena, 1, wire_struct_size(r->api->response));
    struct slice bytes = arena_dup(r->arena, buf_slice(&out));
    cr_assert_eq(wire_decode(r->api->response, r->version, bytes, r->arena, again, NULL), 0);
    buf_free(&out);
    f->response = again;
    cr_assert_eq(++f->replies, 1);
}

void request_reply_error(struct request *r, enum kafka_error error, const char *message)
{
    r->handler->fail(r, error, message);
}

void request_call(struct request *r, Karst__Bus__Role role, int32_t id, int16_t api_key, int16_t api_version,
                  const void *message, uint32_t timeout_ms, request_call_fn *done, void *ctx)
{
    struct fake *f = fake_of(r);
    const struct wire_type *type = wire_api(api_key)->request;
    struct buf out = {0};
    cr_assert_lt(f->call_count, (size_t)FAKE_CALLS_MAX);
    cr_assert_eq(wire_encode(type, WIRE_VERSION_BUS, message, &out), 0, "the message for a service cannot be encoded");
    void *again = arena_calloc(r->arena, 1, wire_struct_size(type));
    struct slice bytes = arena_dup(r->arena, buf_slice(&out));
    cr_assert_eq(wire_decode(type, WIRE_VERSION_BUS, bytes, r->arena, again, NULL), 0);
    buf_free(&out);
    f->calls[f->call_count++] = (struct fake_call){role, id, api_key, api_version, again, timeout_ms, done, ctx};
}

static void forwarded(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    (void)ctx;
    if (error == KERR_NONE)
        request_reply(r, response);
    else
        request_reply_error(r, r->handler->unreachable, NULL);
}

void request_forward(struct request *r, Karst__Bus__Role role, int32_t id, uint32_t timeout_ms,
                     request_response_fn *on_response)
{
    cr_assert_null(on_response);
    request_call(r, role, id, r->handler->key, r->version, r->body, timeout_ms, forwarded, NULL);
}

struct config *frontend_config(const struct frontend *f)
{
    (void)f;
    return current->config;
}

int32_t frontend_controller(const struct frontend *f)
{
    (void)f;
    return 3;
}

void frontend_auto_create(struct frontend *f, struct slice topic)
{
    (void)f;
    snprintf(current->created, sizeof current->created, SLICE_F, SLICE_A(topic));
}

int32_t request_any_broker(const struct request *r)
{
    (void)r;
    return 1;
}

int32_t request_coordinator_at(const struct request *r UNUSED, int32_t leader)
{
    return fake_moved ? 3 - leader : leader;
}

bool request_broker_address(const struct request *r, int32_t broker_id, struct slice *ret_host, uint16_t *ret_port,
                            struct slice *ret_rack)
{
    const struct image_broker *b = image_broker(r->image, broker_id);
    if (b == NULL)
        return false;
    *ret_host = b->endpoints[0].host;
    *ret_port = b->endpoints[0].port;
    if (ret_rack)
        *ret_rack = b->rack;
    return true;
}
