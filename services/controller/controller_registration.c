/* controller_registration.c - ControllerRegistration (70, KIP-919): each controller, the leader too, tells the leader
 * once in its life where it is found and what its build understands. */
#include "kafka/controller_registration.h"

#include <stdlib.h>
#include <unistd.h>

#include "kafka/apis.h"
#include "kafka/register_controller_record.h"
#include "libs/base/log.h"
#include "libs/metadata/levels.h"
#include "services/controller/quorum.h"

enum { AGAIN_MS = 500, TIMEOUT_MS = 5000 };

/* ---- ourselves ---- */

static const char *own_name(struct arena *a)
{
    char name[256] = "localhost";
    if (gethostname(name, sizeof name - 1) != 0)
        return "localhost";
    return arena_printf(a, "%s", name);
}

void quorum_endpoints(const struct quorum *q, struct arena *a, struct config_listeners *ret_endpoints)
{
    char *error = NULL;
    if (config_controller_listeners(q->config, true, a, ret_endpoints, &error) != 0) {
        log_warn("%s; nobody is told where this controller is found", error);
        free(error);
        *ret_endpoints = (struct config_listeners){0};
    }
    for (size_t i = 0; i < ret_endpoints->count; i++) {
        struct config_listener *l = &ret_endpoints->items[i];
        if (config_host_is_any(l->host))
            l->host = own_name(a);
    }
}

/* One a life: the directory, and the life in it. */
static struct uuid own_incarnation(const struct quorum *q)
{
    struct uuid u = q->directory_id;
    uint64_t life = service_incarnation(q->service);
    memcpy(u.b + sizeof u.b - sizeof life, &life, sizeof life);
    return u;
}

static void fill_request(const struct quorum *q, struct arena *a, struct kafka_controller_registration_request *m)
{
    struct config_listeners endpoints;
    quorum_endpoints(q, a, &endpoints);
    kafka_controller_registration_request_init(m);
    m->controller_id = service_id(q->service);
    m->incarnation_id = own_incarnation(q);
    m->listeners = arena_calloc(a, endpoints.count + 1, sizeof *m->listeners);
    for (size_t i = 0; i < endpoints.count; i++)
        m->listeners[m->listeners_count++] = (struct kafka_controller_registration_request_listener){
            .name = slice_str(endpoints.items[i].name),
            .host = slice_str(endpoints.items[i].host),
            .port = endpoints.items[i].port,
            .security_protocol = endpoints.items[i].security_protocol};
    m->features = arena_calloc(a, METADATA_FEATURES, sizeof *m->features);
    for (size_t i = 0; i < METADATA_FEATURES; i++)
        m->features[m->features_count++] = (struct kafka_controller_registration_request_feature){
            slice_str(metadata_features[i].name), metadata_features[i].min, metadata_features[i].max};
}

static void on_again(void *ctx)
{
    struct quorum *q = ctx;
    q->registration_timer = loop_timer_stop(q->registration_timer);
    if (!q->failed && !q->ended)
        registration_pump(q);
}

static void again(struct quorum *q)
{
    q->registration_timer = loop_timer_start(q->loop, AGAIN_MS, 0, on_again, q);
}

static void on_answer(void *ctx, const struct bus_result *result)
{
    struct quorum *q = ctx;
    struct arena *a = arena_new(0);
    struct kafka_controller_registration_response response;
    q->registering = false;
    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK &&
        bus_kafka_response(result, KAFKA_API_CONTROLLER_REGISTRATION, a, &response) == 0) {
        q->registered = response.error_code == KERR_NONE;
        if (!q->registered)
            log_warn("this controller cannot register: %s: " SLICE_F, kafka_error_name(response.error_code),
                     SLICE_A(response.error_message));
    }
    arena_free(a);
    if (!q->registered && !q->failed && !q->ended)
        again(q);
}

static void send_request(struct quorum *q, const struct kafka_controller_registration_request *m)
{
    int32_t leader = kraft_leader(q->kraft);
    if (leader < 0) {
        again(q);
        return;
    }
    q->registering = true;
    bus_call_kafka(q->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, leader, KAFKA_API_CONTROLLER_REGISTRATION, 0, m, NULL,
                   TIMEOUT_MS, on_answer, q);
}

void registration_pump(struct quorum *q)
{
    if (q->registered || q->registering || q->registration_timer != NULL ||
        image_feature_level(q->committed, "metadata.version") < METADATA_VERSION_CONTROLLERS)
        return;
    struct arena *a = arena_new(0);
    const struct kafka_register_controller_record *known = image_controller(q->committed, service_id(q->service), a);
    struct kafka_controller_registration_request m;
    const char *message;
    q->registered = known != NULL && uuid_eq(known->incarnation_id, own_incarnation(q));
    if (!q->registered) {
        fill_request(q, a, &m);
        if (!q->active)
            send_request(q, &m);
        else if (controller_register_controller(q->controller, &m, a, &message) == KERR_NONE)
            quorum_record(q); /* none when it waits for its commit already */
    }
    arena_free(a);
}

/* ---- others ---- */

void controller_registration_on_call(void *ctx, struct rpc *rpc)
{
    struct quorum *q = ctx;
    if (quorum_refuses(q, rpc))
        return;
    const struct kafka_controller_registration_request *request = rpc_kafka_request(rpc);
    if (request == NULL)
        return;
    struct kafka_controller_registration_response *response = arena_alloc(rpc_arena(rpc), sizeof *response);
    const char *message = "The registration is not of who sent it.";
    enum kafka_error error = KERR_INVALID_REGISTRATION;
    kafka_controller_registration_response_init(response);
    if (rpc_from(rpc)->role == KARST__BUS__ROLE__ROLE_CONTROLLER && rpc_from(rpc)->id == request->controller_id)
        error = controller_register_controller(q->controller, request, rpc_arena(rpc), &message);
    response->error_code = (int16_t)error;
    response->error_message = error != KERR_NONE ? slice_str(message) : SLICE_NULL;
    quorum_answer(q, rpc, KARST__BUS__REPLY__BODY_KAFKA, response);
}
