/* world.c - see world.h. */
#include "tests/unit/frontend/world.h"
#include "kafka/apis.h"
#include "kafka/partition_change_record.h"
#include "kafka/partition_record.h"
#include "kafka/register_broker_record.h"
#include "kafka/request_header.h"
#include "kafka/topic_record.h"
#include "karst/service_record.h"
#include "libs/base/bytes.h"
#include "libs/bus/version.h"
#include "libs/metadata/metarecord.h"
#include "libs/pipeline/decode.h"
#include "libs/records/records.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct frontend world;
struct world_call world_calls[32];
size_t world_call_count;
uint64_t world_now = 1000;
uint32_t world_level = BUS_VERSION;
bool world_is_cut;
const struct uuid WORLD_TOPIC_A = {{0xaa, 1}};

static struct buf output;
static size_t output_read;
static uint64_t conn;
static struct connection connection;
static struct listener listener = {
    .name = "PLAINTEXT", .advertised_host = "front", .advertised_port = 9092, .broker_id = -1, .controller_id = -1};
static struct listener *listeners[] = {&listener};
static struct arena *memory;
static bool is_closed;

static void turn(void);

/* ---- the image ---- */

static void put(struct batch_builder *b, enum metarecord_type type, int version, const void *record)
{
    struct buf value = {0};

    cr_assert_eq(metarecord_write(&value, type, version, record), 0);
    batch_add(b, 1, SLICE_NULL, buf_slice(&value), NULL, 0);
    buf_free(&value);
}

static void put_broker(struct batch_builder *b, int32_t id)
{
    struct kafka_register_broker_record m;

    kafka_register_broker_record_init(&m);
    m.broker_id = id;
    m.rack = id == 1 ? SLICE_OF("rack 1") : SLICE_OF("rack 2");
    m.fenced = false;
    put(b, METARECORD_REGISTER_BROKER, 3, &m);
}

static struct image *make_image(void)
{
    struct buf bytes = {0};
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    struct kafka_topic_record topic;
    static const int32_t leaders[] = {1, 1, -1, 2, 1, 1, 1, 1, 1, 1, 1, 1};

    o.leader_epoch = 1;
    batch_begin(&b, &bytes, &o);
    put_broker(&b, 1);
    put_broker(&b, 2);
    kafka_topic_record_init(&topic);
    topic.name = SLICE_OF("a");
    topic.topic_id = WORLD_TOPIC_A;
    put(&b, METARECORD_TOPIC, 0, &topic);
    for (int32_t i = 0; i < (int32_t)COUNTOF(leaders); i++) {
        struct kafka_partition_record p;
        int32_t replicas[] = {1, 2};
        kafka_partition_record_init(&p);
        p.partition_id = i;
        p.topic_id = WORLD_TOPIC_A;
        p.leader = leaders[i];
        p.leader_epoch = 4;
        p.replicas = p.isr = replicas;
        p.replicas_count = p.isr_count = 2;
        put(&b, METARECORD_PARTITION, 0, &p);
    }
    cr_assert_eq(batch_end(&b), 0);
    struct image *empty = image_empty("MkU3OEVBNTcwNTJENDM2Qg"), *image;
    cr_assert_eq(image_apply(empty, buf_slice(&bytes), &image, NULL), 0);
    image_release(empty);
    buf_free(&bytes);
    return image;
}

void world_come_by(int32_t broker)
{
    world.has_broker_ports = true;
    listener.broker_id = broker;
}

/* A batch of records for the image that is there. */
static void begin(struct batch_builder *b, struct buf *bytes)
{
    struct batch_options o = BATCH_OPTIONS;

    o.leader_epoch = 1;
    o.base_offset = image_offset(world.image) + 1;
    batch_begin(b, bytes, &o);
}

static void apply(struct batch_builder *b, struct buf *bytes)
{
    struct image *image;

    cr_assert_eq(batch_end(b), 0);
    cr_assert_eq(image_apply(world.image, buf_slice(bytes), &image, NULL), 0);
    image_release(world.image);
    world.image = image;
    buf_free(bytes);
}

void world_lead(int32_t partition, int32_t leader)
{
    struct buf bytes = {0};
    struct batch_builder b;
    struct kafka_partition_change_record m;

    begin(&b, &bytes);
    kafka_partition_change_record_init(&m);
    m.partition_id = partition;
    m.topic_id = WORLD_TOPIC_A;
    m.leader = leader;
    put(&b, METARECORD_PARTITION_CHANGE, 0, &m);
    apply(&b, &bytes);
    world.leaders_number++;
    fetch_leaders_changed(&world);
    turn();
}

void world_frontend(int32_t id, bool gone)
{
    struct buf bytes = {0}, value = {0};
    struct batch_builder b;
    struct karst_service_record m;
    struct karst_service_record_listener l;
    struct slice address = SLICE_OF("ipc:///run/x");
    char host[16];

    snprintf(host, sizeof host, "%d", (int)id);
    karst_service_record_listener_init(&l);
    l.name = slice_str(world.listeners[0]->name);
    l.host = slice_str(host);
    l.port = 9092;
    karst_service_record_init(&m);
    m.role = KARST__BUS__ROLE__ROLE_FRONTEND;
    m.id = id;
    m.incarnation = 7;
    m.gone = gone;
    m.host = m.version = SLICE_EMPTY;
    m.endpoints = &address;
    m.listeners = &l;
    m.endpoints_count = m.listeners_count = gone ? 0 : 1;
    begin(&b, &bytes);
    cr_assert_eq(metarecord_write_tag(&value, METARECORD_TAG_SERVICE, &m), 0);
    batch_add(&b, 1, SLICE_NULL, buf_slice(&value), NULL, 0);
    apply(&b, &bytes);
    buf_free(&value);
    addresses_follow(&world);
}

/* ---- the client ---- */

static bool overlaps(int16_t key)
{
    return key == KAFKA_API_PRODUCE;
}

static void open_client(void)
{
    static const uint8_t ip[PIPELINE_IP_BYTES] = {0};

    cr_assert_eq(pipeline_open(world.pipeline, ip, -1, world_now, &conn), 0);
    connection = (struct connection){.frontend = &world, .id = conn, .listener = &listener, .address = "10.1.2.3"};
    by_slot_set(&world.connections, conn, &connection);
}

void world_open(void)
{
    const struct pipeline_options o = {
        .frame_max_bytes = 1 << 20,
        .alloc = shared_alloc,
        .alloc_ctx = &world,
        .alloc_bytes = 1 << 24,
        .input_budget_bytes = 1 << 24,
        .output_budget_bytes = 1 << 24,
        .conn_requests_max = 100,
        .conn_input_max_bytes = 1 << 24,
        .output_resume_bytes = 1 << 16,
        .connections_max = 10,
        .per_ip_max = 10,
        .overlaps = overlaps,
    };
    memory = arena_new(0);
    struct config *c = config_new();
    config_set(c, "node.id", "1");
    world = (struct frontend){.config = c, .arena = arena_new(0), .is_open = true, .fetch_max_bytes = 1 << 20};
    shared_open(&world);
    cr_assert_not_null(world.shm);
    world.pipeline = pipeline_new(&o);
    world.sessions = session_cache_new(10, 1000);
    world.image = make_image();
    world.listeners = listeners;
    world.listener_count = world.bootstrap_count = 1;
    open_client();
}

static void take_output(void)
{
    struct iovec v[8];
    struct pipeline_file file;
    int n;

    while (conn != 0 && ((n = pipeline_output(world.pipeline, conn, v, 8, &file)) > 0 || file.size_bytes > 0)) {
        size_t size = n > 0 ? v[0].iov_len : file.size_bytes;
        if (n > 0)
            buf_append(&output, v[0].iov_base, size);
        else
            cr_assert_eq(pread(file.fd, buf_grow(&output, size), size, (off_t)file.position), (ssize_t)size);
        pipeline_written(world.pipeline, conn, size, world_now);
    }
}

/* What the sockets and the turn would do. */
static void turn(void)
{
    struct pipeline_attention a;

    requests_serve(&world);
    while (pipeline_attention(world.pipeline, &a))
        is_closed = is_closed || a.close;
    take_output();
    while (pipeline_attention(world.pipeline, &a))
        is_closed = is_closed || a.close;
    pipeline_check(world.pipeline);
}

void world_close(void)
{
    for (size_t i = 0; i < world_call_count; i++)
        if (world_calls[i].id != 0)
            world_end_call(i, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    world_pass(100000);
    requests_free(&world);
    pipeline_free(world.pipeline);
    (void)shm_arena_trim(world.shm);
    cr_assert_eq(shm_arena_used(world.shm), 0);
    world.trim_timer = loop_timer_stop(world.trim_timer);
    shared_close(&world);
    session_cache_free(world.sessions);
    image_release(world.image);
    config_free((struct config *)(uintptr_t)world.config);
    arena_free(world.arena);
    arena_free(memory);
    free(world.places);
    free(world.connections.items);
    free(world.requests.items);
    buf_free(&output);
    buf_free(&world.scratch);
}

void world_send(int16_t key, int16_t version, int32_t correlation, const void *request)
{
    const struct wire_api *api = wire_api(key);
    struct kafka_request_header header = {key, version, correlation, SLICE_OF("test")};
    struct buf b = {0};
    struct iovec room[2];

    buf_grow(&b, 4);
    cr_assert_eq(wire_encode(&kafka_request_header_type, wire_request_header_version(api, version), &header, &b), 0);
    cr_assert_eq(wire_encode(api->request, version, request, &b), 0);
    put_u32(b.data, (uint32_t)b.size - 4);
    for (size_t at = 0; at < b.size;) {
        cr_assert_gt(pipeline_input(world.pipeline, conn, room), 0);
        size_t n = MIN(b.size - at, room[0].iov_len);
        memcpy(room[0].iov_base, b.data + at, n);
        pipeline_received(world.pipeline, conn, n, world_now);
        pipeline_check(world.pipeline);
        at += n;
    }
    buf_free(&b);
    turn();
}

const void *world_receive(int16_t key, int16_t version, int32_t *ret_correlation)
{
    const struct wire_api *api = wire_api(key);
    size_t head = wire_response_header_version(api, version) == 0 ? 4 : 5;

    turn();
    if (output.size - output_read < 4)
        return NULL;
    uint32_t size = get_u32(output.data + output_read);
    cr_assert_leq(size + 4, output.size - output_read);
    struct slice body = arena_dup(memory, slice_make(output.data + output_read + 4, size));
    output_read += size + 4;
    if (ret_correlation != NULL)
        *ret_correlation = get_i32(body.data);
    void *response = arena_alloc(memory, wire_struct_size(api->response));
    cr_assert_eq(
        wire_decode(api->response, version, slice_make(body.data + head, body.size - head), memory, response, NULL), 0);
    return response;
}

bool world_is_closed(void)
{
    turn();
    return is_closed;
}

void world_hang_up(void)
{
    pipeline_close(world.pipeline, conn);
    by_slot_set(&world.connections, conn, NULL);
    conn = 0;
    requests_report_gone(&world);
    turn();
}

/* ---- the bus ---- */

static struct world_call *add_call(Karst__Bus__Role role, int32_t id, uint32_t timeout_ms, bus_done_fn *done, void *ctx)
{
    cr_assert_lt(world_call_count, COUNTOF(world_calls));
    struct world_call *c = &world_calls[world_call_count++];
    *c = (struct world_call){.id = world_call_count,
                             .role = role,
                             .peer = id,
                             .timeout_ms = timeout_ms,
                             .done = done,
                             .ctx = ctx,
                             .kafka_key = -1};
    return c;
}

uint32_t bus_level(const struct bus *b UNUSED)
{
    return world_level;
}

void bus_set_arena(struct bus *b UNUSED, int fd UNUSED, uint64_t id UNUSED, size_t size UNUSED) {}

uint64_t bus_call(struct bus *b UNUSED, Karst__Bus__Role role, int32_t id, const struct bus_request *request,
                  bus_done_fn *done, void *ctx)
{
    struct world_call *c = add_call(role, id, request->timeout_ms, done, ctx);
    uint8_t *packed = arena_alloc(memory, protobuf_c_message_get_packed_size(request->body));
    size_t size = protobuf_c_message_pack(request->body, packed);

    c->kind = request->kind;
    c->body = protobuf_c_message_unpack(((const ProtobufCMessage *)request->body)->descriptor, NULL, size, packed);
    cr_assert_leq(request->payload_count, COUNTOF(c->payloads));
    for (size_t i = 0; i < request->payload_count; i++) {
        c->payloads[i] = request->payloads[i];
        ref_retain(&c->payloads[i]);
    }
    c->payload_count = request->payload_count;
    return c->id;
}

uint64_t bus_call_kafka(struct bus *b UNUSED, Karst__Bus__Role role, int32_t id, int16_t api_key,
                        int16_t api_version UNUSED, const void *msg UNUSED, const Karst__Bus__Caller *caller UNUSED,
                        uint32_t timeout_ms, bus_done_fn *done, void *ctx)
{
    struct world_call *c = add_call(role, id, timeout_ms, done, ctx);

    c->kafka_key = api_key;
    return c->id;
}

int bus_kafka_response(const struct bus_result *result UNUSED, int16_t api_key UNUSED, struct arena *arena UNUSED,
                       void *ret_msg UNUSED)
{
    return -EBADMSG;
}

static void end_call(struct world_call *c, const struct bus_result *result)
{
    cr_assert_neq(c->id, 0, "a call ends once");
    c->id = 0;
    if (c->body != NULL)
        protobuf_c_message_free_unpacked(c->body, NULL);
    c->body = NULL;
    c->done(c->ctx, result);
    for (size_t i = 0; i < c->payload_count; i++)
        ref_release(&c->payloads[i]);
    turn();
}

void world_end_call(size_t i, Karst__Bus__Outcome outcome)
{
    const struct bus_result result = {.outcome = outcome};

    end_call(&world_calls[i], &result);
}

void bus_cancel(struct bus *b UNUSED, uint64_t call_id)
{
    world_calls[call_id - 1].cancelled = true;
}

void world_reply_append(size_t i, Karst__Bus__AppendReply *append)
{
    Karst__Bus__Reply reply = KARST__BUS__REPLY__INIT;

    reply.body_case = KARST__BUS__REPLY__BODY_APPEND;
    reply.append = append;
    const struct bus_result result = {.outcome = KARST__BUS__OUTCOME__OUTCOME_OK, .reply = &reply};
    end_call(&world_calls[i], &result);
}

void world_reply_read(size_t i, Karst__Bus__ReadReply *read, const char *records)
{
    struct ref payload = records != NULL ? ref_copy(slice_str(records)) : REF_EMPTY;

    world_reply_read_ref(i, read, &payload);
    ref_release(&payload);
}

void world_reply_read_ref(size_t i, Karst__Bus__ReadReply *read, struct ref *payload)
{
    Karst__Bus__Reply reply = KARST__BUS__REPLY__INIT;

    reply.body_case = KARST__BUS__REPLY__BODY_READ;
    reply.read = read;
    const struct bus_result result = {.outcome = KARST__BUS__OUTCOME__OUTCOME_OK,
                                      .reply = &reply,
                                      .payloads = payload,
                                      .payload_count = payload->kind != REF_NONE};
    end_call(&world_calls[i], &result);
}

/* ---- the loop ---- */

struct loop_timer {
    uint64_t at;
    loop_fn *fn;
    void *ctx;
    struct loop_timer *next;
};
static struct loop_timer *timers;

uint64_t loop_now_ms(const struct loop *l UNUSED)
{
    return world_now;
}
void loop_again(struct loop *l UNUSED) {}

struct loop_timer *loop_timer_start(struct loop *l UNUSED, uint64_t delay_ms, uint64_t repeat_ms UNUSED, loop_fn *fn,
                                    void *ctx)
{
    struct loop_timer *t = xcalloc(1, sizeof *t);

    *t = (struct loop_timer){world_now + delay_ms, fn, ctx, timers};
    return timers = t;
}

struct loop_timer *loop_timer_stop(struct loop_timer *t)
{
    struct loop_timer **at = &timers;

    if (t == NULL)
        return NULL;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
    return NULL;
}

void world_pass(uint64_t ms)
{
    world_now += ms;
    for (struct loop_timer *t = timers; t != NULL;) {
        if (t->at > world_now) {
            t = t->next;
            continue;
        }
        t->at = UINT64_MAX; /* fn stops it, or it never fires again */
        t->fn(t->ctx);
        t = timers;
    }
    turn();
}

/* ---- the service ---- */

bool service_is_current(const struct service *s UNUSED)
{
    return !world_is_cut;
}
int32_t service_controller(const struct service *s UNUSED)
{
    return 1;
}
void service_controller_failed(struct service *s UNUSED, int32_t id UNUSED) {}
int64_t service_metadata_offset(const struct service *s UNUSED)
{
    return 0;
}
uint64_t service_wait_offset(struct service *s UNUSED, int64_t offset UNUSED, loop_fn *fn, void *ctx)
{
    fn(ctx);
    return 0;
}
void service_wait_cancel(struct service *s UNUSED, uint64_t wait_id UNUSED) {}
const char *service_cluster_id(const struct service *s UNUSED)
{
    return "MkU3OEVBNTcwNTJENDM2Qg";
}

/* ---- the table ---- */

extern const struct api_handler api_produce, api_fetch, api_metadata, api_api_versions;
static const struct api_handler *const handlers[] = {&api_produce, &api_fetch, &api_metadata, &api_api_versions};

size_t api_handler_count(void)
{
    return COUNTOF(handlers);
}
const struct api_handler *api_handler_at(size_t i)
{
    return handlers[i];
}
const struct api_handler *api_handler_of(int16_t key)
{
    for (size_t i = 0; i < COUNTOF(handlers); i++)
        if (handlers[i]->key == key)
            return handlers[i];
    return NULL;
}
