/* forward.c - Kafka requests that another service answers. */
#include "services/frontend/server.h"

#include "libs/base/log.h"

enum { AGAIN_MS = 50 };

struct call {
    struct request *r;
    Karst__Bus__Role role;
    int32_t id;
    int16_t api_key;
    request_call_fn *done;
    void *ctx;
    uint64_t deadline_ms;
    int16_t api_version;
    const void *message;
    /* while our image is behind the answer, or no controller leads */
    void *response;
    uint64_t wait_id;
    struct loop_timer *timer;
};

static void finish(struct call *c, enum kafka_error error, void *response)
{
    running_of(c->r)->calls--;
    c->done(c->r, c->ctx, error, response);
}

static void on_image_there(void *ctx)
{
    struct call *c = ctx;

    c->timer = loop_timer_stop(c->timer);
    finish(c, KERR_NONE, c->response);
}

/* The image does not come; what was done is done, and the client is told so. */
static void on_image_late(void *ctx)
{
    struct call *c = ctx;

    c->timer = loop_timer_stop(c->timer);
    service_wait_cancel(c->r->frontend->service, c->wait_id);
    finish(c, KERR_NONE, c->response);
}

static enum kafka_error error_of(Karst__Bus__Outcome outcome)
{
    switch (outcome) {
    case KARST__BUS__OUTCOME__OUTCOME_NOT_SENT:
    case KARST__BUS__OUTCOME__OUTCOME_EXPIRED:
    case KARST__BUS__OUTCOME__OUTCOME_OVERLOADED: return KERR_NOT_LEADER_OR_FOLLOWER;
    case KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED: return KERR_UNSUPPORTED_VERSION;
    case KARST__BUS__OUTCOME__OUTCOME_UNKNOWN:
    case KARST__BUS__OUTCOME__OUTCOME_TIMEOUT:
    case KARST__BUS__OUTCOME__OUTCOME_CANCELLED: return KERR_REQUEST_TIMED_OUT;
    default: return KERR_UNKNOWN_SERVER_ERROR; /* MALFORMED, and what a later release may say */
    }
}

static void on_done(void *ctx, const struct bus_result *result);

static void send_call(struct call *c, uint32_t timeout_ms)
{
    bus_call_kafka(c->r->frontend->bus, c->role, c->id, c->api_key, c->api_version, c->message, request_caller(c->r),
                   timeout_ms, on_done, c);
}

static void on_again(void *ctx)
{
    struct call *c = ctx;
    uint64_t now = loop_now_ms(c->r->frontend->loop);
    c->timer = loop_timer_stop(c->timer);
    c->id = frontend_controller(c->r->frontend);
    send_call(c, c->deadline_ms > now ? (uint32_t)(c->deadline_ms - now) : 1);
}

/* A controller that does not lead has done nothing; who leads is found soon. */
static bool asks_again(struct call *c, Karst__Bus__Outcome outcome)
{
    struct frontend *f = c->r->frontend;
    bool refused =
        outcome == KARST__BUS__OUTCOME__OUTCOME_NOT_SENT || outcome == KARST__BUS__OUTCOME__OUTCOME_OVERLOADED;
    if (c->role != KARST__BUS__ROLE__ROLE_CONTROLLER || !refused || loop_now_ms(f->loop) + AGAIN_MS >= c->deadline_ms)
        return false;
    c->timer = loop_timer_start(f->loop, AGAIN_MS, 0, on_again, c);
    return true;
}

static void on_done(void *ctx, const struct bus_result *result)
{
    struct call *c = ctx;
    struct frontend *f = c->r->frontend;

    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK) {
        if (c->role == KARST__BUS__ROLE__ROLE_CONTROLLER)
            service_controller_failed(f->service, c->id);
        if (asks_again(c, result->outcome))
            return;
        finish(c, error_of(result->outcome), NULL);
        return;
    }
    const struct wire_api *api = wire_api(c->api_key);
    void *response = arena_alloc(c->r->arena, wire_struct_size(api->response));
    if (bus_kafka_response(result, c->api_key, c->r->arena, response) < 0) {
        log_error("%s: the answer of a %s cannot be read", api->name,
                  protobuf_c_enum_descriptor_get_value(&karst__bus__role__descriptor, (int)c->role)->name);
        finish(c, KERR_UNKNOWN_SERVER_ERROR, NULL);
        return;
    }
    for (size_t i = 0; i < result->payload_count; i++)
        request_keep(c->r, &result->payloads[i]);
    int64_t offset = result->reply->metadata_offset;
    if (offset <= 0 || service_metadata_offset(f->service) >= offset) {
        finish(c, KERR_NONE, response);
        return;
    }
    uint64_t now = loop_now_ms(f->loop);
    c->response = response;
    c->timer = loop_timer_start(f->loop, c->deadline_ms > now ? c->deadline_ms - now : 1, 0, on_image_late, c);
    c->wait_id = service_wait_offset(f->service, offset, on_image_there, c);
}

void request_call(struct request *r, Karst__Bus__Role role, int32_t id, int16_t api_key, int16_t api_version,
                  const void *message, uint32_t timeout_ms, request_call_fn *done, void *ctx)
{
    struct call *c = arena_alloc(r->arena, sizeof *c);

    if (timeout_ms == 0)
        timeout_ms = REQUEST_TIMEOUT_MS;
    timeout_ms = MIN(timeout_ms, (uint32_t)INT32_MAX);
    *c = (struct call){.r = r,
                       .role = role,
                       .id = id,
                       .api_key = api_key,
                       .done = done,
                       .ctx = ctx,
                       .deadline_ms = loop_now_ms(r->frontend->loop) + timeout_ms,
                       .api_version = api_version,
                       .message = message};
    if (role == KARST__BUS__ROLE__ROLE_CONTROLLER) { /* may be sent again: what it points to is the request's */
        size_t size = wire_struct_size(wire_api(api_key)->request);
        void *copy = arena_alloc(r->arena, size);
        memcpy(copy, message, size);
        c->message = copy;
    }
    running_of(r)->calls++;
    send_call(c, timeout_ms);
}

static void on_forwarded(struct request *r, void *ctx, enum kafka_error error, void *response)
{
    request_response_fn *const *on_response = ctx;
    enum kafka_error unreachable = r->handler->unreachable, timed_out = r->handler->timed_out;

    if (error == KERR_NONE && *on_response != NULL)
        (*on_response)(r, response);
    else if (error == KERR_NONE)
        request_reply(r, response);
    else if (error == KERR_NOT_LEADER_OR_FOLLOWER)
        request_reply_error(r, unreachable != KERR_NONE ? unreachable : KERR_REQUEST_TIMED_OUT, NULL);
    else if (error == KERR_REQUEST_TIMED_OUT)
        request_reply_error(r, timed_out != KERR_NONE ? timed_out : KERR_REQUEST_TIMED_OUT, NULL);
    else
        request_reply_error(r, error, NULL);
}

void request_forward(struct request *r, Karst__Bus__Role role, int32_t id, uint32_t timeout_ms,
                     request_response_fn *on_response)
{
    request_response_fn **ctx = arena_alloc(r->arena, sizeof *ctx);

    *ctx = on_response;
    request_call(r, role, id, r->handler->key, r->version, r->body, timeout_ms, on_forwarded, ctx);
}

void request_forward_to_broker(struct request *r)
{
    int32_t broker = r->client.broker_id >= 0 ? r->client.broker_id : request_any_broker(r);

    if (broker < 0)
        request_reply_error(r, KERR_BROKER_NOT_AVAILABLE, NULL);
    else
        request_forward(r, KARST__BUS__ROLE__ROLE_STORAGE, broker, 0, NULL);
}
