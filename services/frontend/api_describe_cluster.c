/* api_describe_cluster.c - DescribeCluster (60), versions 0-2: the brokers of the image, at the addresses that this
 * connection's listener gives them. At a controller listener the controllers, where they registered (KIP-919). */
#include <stdlib.h>

#include "kafka/apis.h"
#include "kafka/describe_cluster.h"
#include "kafka/register_controller_record.h"
#include "services/frontend/api_common.h"

typedef struct kafka_describe_cluster_response_describe_cluster_broker broker_row;

enum { ENDPOINT_BROKERS = 1, ENDPOINT_CONTROLLERS = 2 };

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    struct kafka_describe_cluster_response response;
    kafka_describe_cluster_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void fill_brokers(struct request *r, const struct kafka_describe_cluster_request *q,
                         struct kafka_describe_cluster_response *response)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(r->image, &count);
    response->brokers = arena_calloc(r->arena, (size_t)count, sizeof *response->brokers);
    for (int32_t i = 0; i < count; i++) {
        broker_row *row = &response->brokers[response->brokers_count];
        kafka_describe_cluster_response_describe_cluster_broker_init(row);
        row->broker_id = brokers[i]->id;
        row->is_fenced = brokers[i]->fenced;
        uint16_t port;
        if (row->is_fenced
                ? q->include_fenced_brokers && request_fenced_address(r, brokers[i]->id, &row->host, &port, &row->rack)
                : request_broker_address(r, brokers[i]->id, &row->host, &port, &row->rack)) {
            row->port = port;
            response->brokers_count++;
        }
    }
}

struct controller_rows {
    struct request *r;
    struct kafka_describe_cluster_response *response;
    int32_t room;
};

/* One without a listener of this name cannot be reached by it. */
static void add_controller(void *ctx, const struct kafka_register_controller_record *c)
{
    struct controller_rows *rows = ctx;
    struct kafka_describe_cluster_response *p = rows->response;
    for (int32_t i = 0; i < c->end_points_count; i++) {
        if (!slice_eq_str(c->end_points[i].name, rows->r->client.listener))
            continue;
        p->brokers = arena_grow(rows->r->arena, p->brokers, (size_t)p->brokers_count, &rows->room, sizeof *p->brokers);
        broker_row *row = &p->brokers[p->brokers_count++];
        kafka_describe_cluster_response_describe_cluster_broker_init(row);
        row->broker_id = c->controller_id;
        row->host = c->end_points[i].host;
        row->port = c->end_points[i].port;
        return;
    }
}

static int compare_rows(const void *a, const void *b)
{
    const broker_row *x = a, *y = b;
    return (x->broker_id > y->broker_id) - (x->broker_id < y->broker_id);
}

static void fill_controllers(struct request *r, struct kafka_describe_cluster_response *response)
{
    struct controller_rows rows = {.r = r, .response = response};
    image_each_controller(r->image, r->arena, add_controller, &rows);
    if (response->brokers_count > 0)
        qsort(response->brokers, (size_t)response->brokers_count, sizeof *response->brokers, compare_rows);
    response->endpoint_type = ENDPOINT_CONTROLLERS;
    response->controller_id = frontend_controller(r->frontend);
}

/* False: refused, as it asks for what this listener is not. */
static bool check_type(struct request *r, int8_t wanted)
{
    static const char *const names[] = {[ENDPOINT_BROKERS] = "BROKER", [ENDPOINT_CONTROLLERS] = "CONTROLLER"};
    int8_t own = r->client.controller_id >= 0 ? ENDPOINT_CONTROLLERS : ENDPOINT_BROKERS;
    if (wanted == own)
        return true;
    if (wanted != ENDPOINT_BROKERS && wanted != ENDPOINT_CONTROLLERS)
        fail(r, KERR_UNSUPPORTED_ENDPOINT_TYPE, arena_printf(r->arena, "Unsupported endpoint type %d", wanted));
    else
        fail(r, r->version == 0 ? KERR_INVALID_REQUEST : KERR_MISMATCHED_ENDPOINT_TYPE, /* version 0 has no type */
             arena_printf(r->arena,
                          "The request was sent to an endpoint of type %s, but we wanted an endpoint of type %s",
                          names[own], names[wanted]));
    return false;
}

static void handle(struct request *r)
{
    const struct kafka_describe_cluster_request *q = r->body;
    if (!check_type(r, q->endpoint_type))
        return;
    struct kafka_describe_cluster_response response;
    kafka_describe_cluster_response_init(&response);
    response.cluster_id = slice_str(frontend_cluster_id(r->frontend));
    if (q->endpoint_type == ENDPOINT_CONTROLLERS) {
        fill_controllers(r, &response);
    } else {
        response.controller_id = request_any_broker(r);
        fill_brokers(r, q, &response);
    }
    if (q->include_cluster_authorized_operations)
        response.cluster_authorized_operations = API_OPERATIONS_CLUSTER;
    request_reply(r, &response);
}

const struct api_handler api_describe_cluster = {.key = KAFKA_API_DESCRIBE_CLUSTER,
                                                 .version_min = 0,
                                                 .version_max = 2,
                                                 .at_controllers = true,
                                                 .handle = handle,
                                                 .fail = fail};
