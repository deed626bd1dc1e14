/* member.c - a service as a member of the cluster: registration, heartbeats, leave.
 *
 *   not registered --RegisterReply without error--> registered --heartbeat answered BROKER_ID_NOT_REGISTERED or
 * STALE_BROKER_EPOCH--> not registered */
#include <inttypes.h>

#include "libs/base/kafka_error.h"
#include "libs/base/log.h"
#include "libs/bus/version.h"
#include "libs/metadata/image.h"
#include "libs/metadata/levels.h"
#include "libs/service/service_internal.h"

enum { REGISTER_TIMEOUT_MS = 5000, REGISTER_RETRY_MS = 100, HEARTBEAT_TIMEOUT_MS = 2000 };
enum { LEAVE_RETRY_MS = 50 };
enum { BUSY_PERCENT = 5 }; /* of a core */

/* protobuf-c's strings are not const; packing only reads them. */
static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static void register_now(void *ctx);
static void heartbeat(void *ctx);

static void register_later(struct service *s)
{
    s->register_timer = loop_timer_stop(s->register_timer);
    s->register_timer = loop_timer_start(s->loop, REGISTER_RETRY_MS, 0, register_now, s);
}

static void check_ready(struct service *s)
{
    if (s->ready || !s->registered || service_metadata_offset(s) < s->registered_offset)
        return;
    s->ready = true;
    heartbeat(s); /* tells how far our image is: a storage node leads nothing before */
    if (s->options.on_ready != NULL)
        s->options.on_ready(s->options.ctx);
    service_notify_ready(s);
}

void service_member_image_changed(struct service *s)
{
    bool ended = s->registered && !s->draining && service_metadata_offset(s) >= s->registered_offset &&
                 image_service(s->image, (int32_t)s->options.role, s->id) == NULL;

    check_ready(s);
    if (ended) /* we stood still, or were cut off; what the controller says to a heartbeat makes us register again */
        service_heartbeat_soon(s);
}

static void on_registered(void *ctx, const struct bus_result *result)
{
    struct service *s = ctx;

    s->register_call = 0;
    if (!s->joined || s->drained)
        return;
    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK) {
        service_controller_failed(s, service_controller(s));
        register_later(s);
        return;
    }
    const Karst__Bus__RegisterReply *reply = result->reply->register_;
    if (reply->error != 0) {
        if (reply->error != s->reported_error)
            log_warn("the controller does not register us yet: %s %.200s", kafka_error_name(reply->error),
                     reply->error_message);
        s->reported_error = reply->error;
        service_controller_failed(s, service_controller(s));
        register_later(s);
        return;
    }
    s->reported_error = 0;
    s->registered = true;
    s->epoch = reply->epoch;
    s->registered_offset = reply->metadata_offset;
    if (s->ready)
        heartbeat(s);
    check_ready(s);
}

static void fill_features(Karst__Bus__FeatureRange *ranges, Karst__Bus__FeatureRange **list)
{
    for (size_t i = 0; i < METADATA_FEATURES; i++) {
        karst__bus__feature_range__init(&ranges[i]);
        ranges[i].name = text(metadata_features[i].name);
        ranges[i].min = metadata_features[i].min;
        ranges[i].max = metadata_features[i].max;
        list[i] = &ranges[i];
    }
}

static void register_now(void *ctx)
{
    struct service *s = ctx;
    Karst__Bus__RegisterRequest body = KARST__BUS__REGISTER_REQUEST__INIT;
    Karst__Bus__BusEndpoint endpoints[SERVICE_ENDPOINTS_MAX], *endpoint_list[SERVICE_ENDPOINTS_MAX];
    const char *addresses[SERVICE_ENDPOINTS_MAX];
    Karst__Bus__FeatureRange ranges[METADATA_FEATURES], *features[METADATA_FEATURES];

    s->register_timer = loop_timer_stop(s->register_timer);
    if (s->register_call != 0)
        return;
    body.n_endpoints = service_network_endpoints(s, addresses);
    for (size_t i = 0; i < body.n_endpoints; i++) {
        karst__bus__bus_endpoint__init(&endpoints[i]);
        endpoints[i].address = text(addresses[i]);
        endpoint_list[i] = &endpoints[i];
    }
    body.role = (int32_t)s->options.role;
    body.id = s->id;
    body.incarnation = s->incarnation;
    body.host = s->host;
    body.rack = text(s->rack ? s->rack : "");
    body.endpoints = endpoint_list;
    body.previous_broker_epoch = -1;
    fill_features(ranges, features);
    body.n_features = METADATA_FEATURES;
    body.features = features;
    body.karst_version = text(KARST_VERSION);
    body.bus_version = bus_version_max();
    if (s->options.on_register != NULL)
        s->options.on_register(s->options.ctx, &body);
    struct bus_request request = {
        .kind = KARST__BUS__CALL__BODY_REGISTER, .body = &body, .timeout_ms = REGISTER_TIMEOUT_MS};
    s->register_call =
        bus_call(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, service_controller(s), &request, on_registered, s);
}

/* A storage node that wants to stop asks until it may go: others lead in its place, and know it. A lone controller that
 * does not answer will not do so soon. */
static void on_leave_answer(struct service *s, const struct bus_result *result)
{
    bool answered = result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK;
    bool may_go = answered ? result->reply->heartbeat->error != 0 || result->reply->heartbeat->should_shut_down
                           : s->controller_count == 1;
    if (may_go)
        service_left(s);
    else
        loop_timer_again(s->leave_again, LEAVE_RETRY_MS);
}

static void on_heartbeat(void *ctx, const struct bus_result *result)
{
    struct service *s = ctx;

    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_CANCELLED) /* by us, and another has taken its place */
        return;
    s->heartbeat_call = 0;
    if (!s->joined)
        return;
    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK) {
        service_controller_failed(s, service_controller(s));
    } else if (result->reply->heartbeat->error != 0 && !s->draining) {
        log_warn("the controller does not know us: %s; registering again",
                 kafka_error_name(result->reply->heartbeat->error));
        s->registered = false;
        if (s->options.on_session_lost != NULL)
            s->options.on_session_lost(s->options.ctx);
        register_now(s);
    } else if (result->reply->heartbeat->error == 0 && s->options.on_heartbeat_taken != NULL) {
        s->options.on_heartbeat_taken(s->options.ctx);
    }
    if (s->leaving)
        on_leave_answer(s, result);
    service_stop_when_told(s);
    if (s->heartbeat_wanted && !s->drained)
        heartbeat(s);
}

static void heartbeat(void *ctx)
{
    struct service *s = ctx;
    Karst__Bus__HeartbeatRequest body = KARST__BUS__HEARTBEAT_REQUEST__INIT;

    if (!s->registered || s->heartbeat_call != 0)
        return;
    s->heartbeat_wanted = false;
    body.role = (int32_t)s->options.role;
    body.id = s->id;
    body.incarnation = s->incarnation;
    body.epoch = s->epoch;
    body.metadata_offset = service_metadata_offset(s);
    body.want_shutdown = s->draining && !s->silently;
    if (s->options.on_heartbeat != NULL)
        s->options.on_heartbeat(s->options.ctx, &body);
    struct bus_request request = {
        .kind = KARST__BUS__CALL__BODY_HEARTBEAT, .body = &body, .timeout_ms = HEARTBEAT_TIMEOUT_MS};
    s->heartbeat_call =
        bus_call(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, service_controller(s), &request, on_heartbeat, s);
}

/* Its sessions begin anew: it hears of us at once, and a registration that was under way is asked for again. */
void service_member_leader_changed(struct service *s)
{
    s->heartbeat_wanted = true;
    if (s->registered)
        heartbeat(s);
}

void service_heartbeat_soon(struct service *s)
{
    s->heartbeat_wanted = true;
    heartbeat(s);
}

/* An answer is all that is asked for. */
static void on_ping(void *ctx, struct rpc *rpc)
{
    struct service *s = ctx;
    const Karst__Bus__PingRequest *m = rpc_call(rpc)->ping;
    Karst__Bus__PingReply body = KARST__BUS__PING_REPLY__INIT;

    if (m->leads)
        service_follow_told(s, rpc_from(rpc)->id, m->epoch);
    rpc_reply(rpc, KARST__BUS__REPLY__BODY_PING, &body, NULL, 0, 0);
}

static uint64_t heartbeat_ms(const struct service *s)
{
    return (uint64_t)MAX(config_int(s->config, "broker.heartbeat.interval.ms"), 1);
}

/* After work the heap keeps pages for more of it, most of them between pieces in use, where glibc does not give them
 * back by itself: they go as soon as there is little to do. Work that took long, as others had the processor, counts
 * as well. */
static void rest(struct service *s)
{
    uint64_t cpu_ms = base_cpu_ms(), much_ms = heartbeat_ms(s) * BUSY_PERCENT / 100;
    bool busy = cpu_ms - s->cpu_ms > much_ms;

    s->cpu_ms = cpu_ms;
    if (busy || cpu_ms - s->trimmed_at_cpu_ms <= much_ms)
        return;
    base_trim_heap();
    s->trimmed_at_cpu_ms = cpu_ms;
}

static void on_heartbeat_timer(void *ctx)
{
    rest(ctx);
    heartbeat(ctx);
}

void service_member_start(struct service *s)
{
    uint64_t interval_ms = heartbeat_ms(s);

    s->heartbeat_timer = loop_timer_start(s->loop, interval_ms, interval_ms, on_heartbeat_timer, s);
    bus_serve(s->bus, KARST__BUS__CALL__BODY_PING, on_ping, s);
    register_now(s);
}

void service_member_drain(struct service *s)
{
    bus_cancel(s->bus,
               s->heartbeat_call); /* its answer comes as well, but must not stand for the one that says we go */
    s->heartbeat_call = 0;
    if (s->leaving)
        s->leave_again = loop_timer_start(s->loop, HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TIMEOUT_MS, heartbeat, s);
    if (!s->silently)
        heartbeat(s);
}

bool service_member_is_told(const struct service *s)
{
    return !s->registered || s->heartbeat_call == 0;
}

void service_member_stop(struct service *s)
{
    s->sync_timer = loop_timer_stop(s->sync_timer);
    s->register_timer = loop_timer_stop(s->register_timer);
    s->heartbeat_timer = loop_timer_stop(s->heartbeat_timer);
    s->leave_again = loop_timer_stop(s->leave_again);
    bus_cancel(s->bus, s->register_call);
    bus_cancel(s->bus, s->heartbeat_call);
}
