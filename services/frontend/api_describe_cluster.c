/* api_describe_cluster.c - DescribeCluster (60), versions 0-2: the brokers of the image, at the addresses that this
 * connection's listener gives them. */
#include "kafka/apis.h"
#include "kafka/describe_cluster.h"
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

/* A fenced broker is at no address of ours: what it registered is shown. */
static void fill_fenced(broker_row *row, const struct image_broker *b)
{
    row->host = b->endpoint_count ? b->endpoints[0].host : SLICE_EMPTY;
    row->port = b->endpoint_count ? b->endpoints[0].port : -1;
    row->rack = b->rack;
    row->is_fenced = true;
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
        uint16_t port;
        if (!brokers[i]->fenced && request_broker_address(r, brokers[i]->id, &row->host, &port, &row->rack))
            row->port = port;
        else if (brokers[i]->fenced && q->include_fenced_brokers)
            fill_fenced(row, brokers[i]);
        else
            continue;
        response->brokers_count++;
    }
}

static void handle(struct request *r)
{
    const struct kafka_describe_cluster_request *q = r->body;
    if (q->endpoint_type == ENDPOINT_CONTROLLERS) {
        fail(r, KERR_MISMATCHED_ENDPOINT_TYPE,
             "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER");
        return;
    }
    if (q->endpoint_type != ENDPOINT_BROKERS) {
        fail(r, KERR_UNSUPPORTED_ENDPOINT_TYPE,
             arena_printf(r->arena, "Unsupported endpoint type %d", q->endpoint_type));
        return;
    }
    struct kafka_describe_cluster_response response;
    kafka_describe_cluster_response_init(&response);
    response.cluster_id = slice_str(frontend_cluster_id(r->frontend));
    response.controller_id = request_any_broker(r);
    fill_brokers(r, q, &response);
    if (q->include_cluster_authorized_operations)
        response.cluster_authorized_operations = API_OPERATIONS_CLUSTER;
    request_reply(r, &response);
}

const struct api_handler api_describe_cluster = {
    .key = KAFKA_API_DESCRIBE_CLUSTER, .version_min = 0, .version_max = 2, .handle = handle, .fail = fail};
