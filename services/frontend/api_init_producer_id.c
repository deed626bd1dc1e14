/* api_init_producer_id.c - InitProducerId (22), versions 0-5: a producer id for an idempotent producer, of any live txn
 * service. Transactional ids are refused with UNSUPPORTED_VERSION, which every client reports as what it is instead of
 * trying again for ever: this release has no transactions.
 *
 * While no txn service answers the client gets COORDINATOR_LOAD_IN_PROGRESS, as from a Kafka that has no block of ids
 * yet: all clients wait and ask again, where COORDINATOR_NOT_AVAILABLE would send a producer without a transactional id
 * to look for one. */
#include "kafka/apis.h"
#include "kafka/init_producer_id.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    struct kafka_init_producer_id_response response;
    kafka_init_producer_id_response_init(&response);
    response.error_code = (int16_t)error;
    response.producer_epoch = -1;
    request_reply(r, &response);
}

/* The first live txn service; -1: none. */
static int32_t live_txn_service(const struct image *image)
{
    int32_t count;
    const struct image_service *const *services = image_services(image, &count);
    for (int32_t i = 0; i < count; i++)
        if (services[i]->role == KARST__BUS__ROLE__ROLE_TXN)
            return services[i]->id;
    return -1;
}

static void handle(struct request *r)
{
    const struct kafka_init_producer_id_request *q = r->body;
    if (!slice_is_null(q->transactional_id)) {
        fail(r, q->transactional_id.size == 0 ? KERR_INVALID_REQUEST : KERR_UNSUPPORTED_VERSION, NULL);
        return;
    }
    if ((q->producer_id == -1) != (q->producer_epoch == -1)) {
        fail(r, KERR_INVALID_REQUEST, NULL);
        return;
    }
    int32_t service = live_txn_service(r->image);
    if (service < 0)
        fail(r, KERR_COORDINATOR_LOAD_IN_PROGRESS, NULL);
    else
        request_forward(r, KARST__BUS__ROLE__ROLE_TXN, service, 0, NULL);
}

const struct api_handler api_init_producer_id = {.key = KAFKA_API_INIT_PRODUCER_ID,
                                                 .version_min = 0,
                                                 .version_max = 5,
                                                 .handle = handle,
                                                 .fail = fail,
                                                 .unreachable = KERR_COORDINATOR_LOAD_IN_PROGRESS,
                                                 .timed_out = KERR_COORDINATOR_LOAD_IN_PROGRESS};
