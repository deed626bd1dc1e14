/* main.c - karst-frontend: Kafka's protocol for clients, in front of storage, coordinators and controllers.
 *
 * Started by   karst up, or anybody: karst-frontend --config FILE --id N.
 * Peers        calls controllers (topics, configs, registration, the metadata log), storage nodes (Append, Read and
 * what mirrors Kafka), group and txn coordinators. Nobody calls it. Keeps        nothing on disk and opens no data
 * file. In memory: connections, fetch sessions, requests in flight, the image. Signals      SIGTERM, SIGINT: drain; a
 * second one: at once. Shutdown     listening sockets are closed; requests that were wholly received are answered,
 * parked fetches end with their connections; then goodbye on the bus. A crash      loses connections and fetch
 * sessions; clients connect again and ask again. What was acknowledged is in storage.
 *
 * A turn: sockets are read (connection.c) -> requests run and stage calls (request.c) -> the bus sends and receives ->
 * answers run what waited behind them, and leave, one sendmsg a connection. */
#include "services/frontend/server.h"

#include "libs/base/log.h"

#include <stdlib.h>
#include <sys/resource.h>

enum { INPUT_BUDGET_BYTES = 128 << 20, OUTPUT_BUDGET_BYTES = 128 << 20, SESSION_EVICT_MS = 120000 };

static bool overlaps(int16_t api_key)
{
    const struct api_handler *h = api_handler_of(api_key);

    return h != NULL && h->overlaps;
}

/* ---- turns ---- */

static void on_tick(void *ctx);

static void arm_tick(struct frontend *f)
{
    uint64_t at = pipeline_next_ms(f->pipeline), now = loop_now_ms(f->loop);

    if (at >= f->tick_at_ms)
        return;
    f->tick_at_ms = at;
    f->tick_timer = loop_timer_stop(f->tick_timer);
    f->tick_timer = loop_timer_start(f->loop, at > now ? at - now : 1, 0, on_tick, f);
}

static void on_tick(void *ctx)
{
    struct frontend *f = ctx;

    f->tick_timer = loop_timer_stop(f->tick_timer);
    f->tick_at_ms = UINT64_MAX;
    pipeline_tick(f->pipeline, loop_now_ms(f->loop));
    connections_serve(f);
    arm_tick(f);
}

static void on_serve(void *ctx)
{
    requests_serve(ctx);
}

static void on_reply(void *ctx)
{
    struct frontend *f = ctx;

    requests_serve(f); /* what answers of this turn have let in */
    connections_serve(f);
    if (pipeline_is_over(f->pipeline))
        fetch_relieve(f);
    arm_tick(f);
    shared_serve(f);
    if (f->is_draining && !f->is_drained && pipeline_connections(f->pipeline) == 0 &&
        pipeline_running(f->pipeline) == 0) {
        f->is_drained = true;
        service_drained(f->service);
    }
}

/* ---- the service's callbacks ---- */

static void on_register(void *ctx, Karst__Bus__RegisterRequest *request)
{
    struct frontend *f = ctx;

    request->n_listeners = f->bootstrap_count;
    request->listeners = arena_calloc(f->arena, f->bootstrap_count, sizeof *request->listeners);
    for (size_t i = 0; i < f->bootstrap_count; i++) {
        Karst__Bus__Listener *l = arena_alloc(f->arena, sizeof *l);
        karst__bus__listener__init(l);
        l->name = (char *)(uintptr_t)f->listeners[i]->name;
        l->host = (char *)(uintptr_t)f->listeners[i]->advertised_host;
        l->port = f->listeners[i]->advertised_port;
        request->listeners[i] = l;
    }
}

static bool has_live_broker(const struct image *image)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(image, &count);

    for (int32_t i = 0; i < count; i++)
        if (image_broker_is_active(image, brokers[i]->id))
            return true;
    return false;
}

static void on_partition(void *ctx, const struct image_partition *before, const struct image_partition *after)
{
    struct frontend *f = ctx;

    f->leaders_changed = f->leaders_changed ||
                         (before != NULL && after != NULL && before->leader != after->leader && after->leader >= 0);
}

static void on_topic(void *ctx, const struct image_topic *before, const struct image_topic *after)
{
    struct frontend *f = ctx;

    f->leaders_number++;
    if (f->parked != NULL && before != NULL && after != NULL)
        image_diff_partitions(before, after, on_partition, f);
}

static void on_broker(void *ctx, const struct image_broker *before, const struct image_broker *after)
{
    struct frontend *f = ctx;

    f->brokers_changed = f->brokers_changed || before == NULL || after == NULL;
}

static void on_image(void *ctx, const struct image *old_image, const struct image *new_image)
{
    struct frontend *f = ctx;
    const struct image_diff diff = {.topic = on_topic, .broker = on_broker, .ctx = f};

    image_diff(old_image, new_image, &diff);
    image_release(f->image);
    f->image = image_retain(new_image);
    if (f->brokers_changed)
        listeners_follow(f);
    if (f->brokers_changed || old_image == NULL || !image_has_services_of(new_image, old_image))
        addresses_follow(f);
    if (f->leaders_changed)
        fetch_leaders_changed(f);
    f->brokers_changed = f->leaders_changed = false;
    if (!f->is_open && has_live_broker(new_image))
        requests_open(f);
}

/* Clients took us for dead, and went to others. What they had sent here, and TCP may bring only now, over connections
 * that they have long given up, must not run behind what they said there: a commit of then would take back a later one.
 */
static void on_session_lost(void *ctx)
{
    connections_close(ctx);
}

static void on_hold_over(void *ctx)
{
    struct frontend *f = ctx;

    f->hold_timer = loop_timer_stop(f->hold_timer);
    if (f->is_open)
        return;
    log_warn("no live storage node is known after %d ms; clients are answered all the same", HOLD_MS);
    requests_open(f);
}

static void on_drain(void *ctx)
{
    struct frontend *f = ctx;

    f->is_draining = true;
    listeners_close(f);
    pipeline_drain(f->pipeline);
    fetch_drain(f);
    if (!f->is_open)
        requests_open(f);
    loop_again(f->loop);
}

/* ---- start and end ---- */

/* As many descriptors as the system lets us have: each client is one. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_warn("cannot raise the limit of open files: %s", strerror(errno));
}

static void make_pipeline(struct frontend *f)
{
    const struct config *c = f->config;
    int64_t budget = config_long(c, "queued.max.request.bytes");
    int32_t connections = config_int(c, "max.connections"), per_ip = config_int(c, "max.connections.per.ip");
    struct pipeline_options o = {
        .frame_max_bytes = (uint32_t)config_int(c, "socket.request.max.bytes"),
        .input_budget_bytes = budget > 0 ? (uint64_t)budget : INPUT_BUDGET_BYTES,
        .output_budget_bytes = OUTPUT_BUDGET_BYTES,
        .conn_requests_max = 64,
        .conn_input_max_bytes = 16 << 20,
        .output_resume_bytes = 64 << 10,
        .connections_max = (uint32_t)connections,
        .per_ip_max = (uint32_t)per_ip,
        .idle_ms = (uint64_t)MAX(config_long(c, "connections.max.idle.ms"), (int64_t)0),
        .stall_ms = 5000,
        .overlaps = overlaps,
        .alloc = f->shm != NULL ? shared_alloc : NULL,
        .alloc_ctx = f,
        .alloc_bytes = f->shm != NULL ? shm_arena_size(f->shm) : 0,
    };
    f->pipeline = pipeline_new(&o);
    f->sessions =
        session_cache_new((uint32_t)config_int(c, "max.incremental.fetch.session.cache.slots"), SESSION_EVICT_MS);
    f->fetch_max_bytes = config_int(c, "fetch.max.bytes");
    f->rack_aware = config_is_rack_aware(c);
    /* Kafka's default of 100 KiB would only switch the kernel's own sizing off: set when the user says so. */
    f->send_buffer_bytes = config_raw(c, "socket.send.buffer.bytes") ? config_int(c, "socket.send.buffer.bytes") : -1;
    f->receive_buffer_bytes =
        config_raw(c, "socket.receive.buffer.bytes") ? config_int(c, "socket.receive.buffer.bytes") : -1;
}

static void release(struct frontend *f)
{
    loop_timer_stop(f->hold_timer);
    loop_timer_stop(f->tick_timer);
    loop_timer_stop(f->trim_timer);
    listeners_close(f);
    connections_close(f);
    requests_free(f);
    auto_create_free(f);
    pipeline_free(f->pipeline);
    session_cache_free(f->sessions);
    image_release(f->image);
    arena_free(f->arena);
    free(f->listeners);
    free(f->connections.items);
    free(f->requests.items);
    free(f->ip_limits);
    free(f->places);
    buf_free(&f->scratch);
}

int main(int argc, char **argv)
{
    struct frontend f = {.tick_at_ms = UINT64_MAX};
    const struct service_options options = {
        .role = KARST__BUS__ROLE__ROLE_FRONTEND,
        .ctx = &f,
        .on_register = on_register,
        .on_session_lost = on_session_lost,
        .on_image = on_image,
        .on_drain = on_drain,
    };
    int status = service_open(argc, argv, &options, &f.service);

    if (status != 0)
        return status;
    f.loop = service_loop(f.service);
    f.bus = service_bus(f.service);
    f.config = service_config(f.service);
    f.arena = arena_new(0);
    f.image = image_empty(service_cluster_id(f.service));
    raise_descriptor_limit();
    shared_open(&f);
    make_pipeline(&f);
    loop_hook(f.loop, LOOP_SERVE, on_serve, &f);
    loop_hook(f.loop, LOOP_REPLY, on_reply, &f);
    status = listeners_open(&f);
    if (status == 0) {
        f.hold_timer = loop_timer_start(f.loop, HOLD_MS, 0, on_hold_over, &f);
        service_join(f.service);
        status = service_run(f.service);
    }
    release(&f);
    service_close(f.service);
    shared_close(&f); /* the bus knew its descriptor */
    return status;
}
