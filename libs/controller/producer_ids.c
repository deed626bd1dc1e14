/* producer_ids.c - AllocateProducerIds (67): blocks of 1000, each handed out once in the life of the cluster. */
#include "kafka/allocate_producer_ids.h"

#include "kafka/producer_ids_record.h"
#include "libs/controller/internal.h"

void controller_allocate_producer_ids(struct controller *c, const struct kafka_allocate_producer_ids_request *q,
                                      struct kafka_allocate_producer_ids_response *ret_p)
{
    int64_t start = image_next_producer_id(c->image);
    kafka_allocate_producer_ids_response_init(ret_p);
    if (start > INT64_MAX - PRODUCER_ID_BLOCK) {
        ret_p->error_code = KERR_UNKNOWN_SERVER_ERROR;
        return;
    }
    struct kafka_producer_ids_record m = {
        .broker_id = q->broker_id, .broker_epoch = q->broker_epoch, .next_producer_id = start + PRODUCER_ID_BLOCK};
    controller_put(c, METARECORD_PRODUCER_IDS, 0, &m);
    ret_p->producer_id_start = start;
    ret_p->producer_id_len = PRODUCER_ID_BLOCK;
}
