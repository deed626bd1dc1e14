/* kafka.c - Kafka's messages in their version-free shape, as the one payload of a KafkaRequest or KafkaResponse. */
#include "libs/bus/bus.h"
#include "libs/wire/wire.h"

/* Messages of ours at WIRE_VERSION_BUS always encode: they have every field, and strings were bounded when they were
 * read. */
static struct ref encode(const struct wire_type *type, const void *msg)
{
    struct buf out = {0};

    if (wire_encode(type, WIRE_VERSION_BUS, msg, &out) != 0) {
        buf_free(&out);
        return REF_EMPTY;
    }
    return ref_take(out.data, out.size);
}

uint64_t bus_call_kafka(struct bus *b, Karst__Bus__Role role, int32_t id, int16_t api_key, int16_t api_version,
                        const void *msg, const Karst__Bus__Caller *caller, uint32_t timeout_ms, bus_done_fn *done,
                        void *ctx)
{
    const struct wire_api *api = wire_api(api_key);
    Karst__Bus__KafkaRequest body = KARST__BUS__KAFKA_REQUEST__INIT;

    ASSERT(api != NULL);
    body.api_key = api_key;
    body.api_version = api_version;
    struct ref payload = encode(api->request, msg);
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_KAFKA,
                                  .body = &body,
                                  .payloads = &payload,
                                  .payload_count = payload.kind == REF_NONE ? 0 : 1,
                                  .caller = caller,
                                  .timeout_ms = timeout_ms};
    uint64_t call_id = bus_call(b, role, id, &request, done, ctx);
    ref_release(&payload);
    return call_id;
}

static const struct wire_api *api_of(const struct rpc *r)
{
    const Karst__Bus__Call *call = rpc_call(r);

    if (call->body_case != KARST__BUS__CALL__BODY_KAFKA || call->kafka->api_key < 0 || call->kafka->api_key > INT16_MAX)
        return NULL;
    return wire_api((int16_t)call->kafka->api_key);
}

const void *rpc_kafka_request(struct rpc *r)
{
    const struct wire_api *api = api_of(r);

    if (api != NULL && rpc_payload_count(r) == 1) {
        void *msg = arena_alloc(rpc_arena(r), wire_struct_size(api->request));
        if (wire_decode(api->request, WIRE_VERSION_BUS, ref_bytes(rpc_payload(r, 0)), rpc_arena(r), msg, NULL) == 0)
            return msg;
    }
    rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
    return NULL;
}

void rpc_reply_kafka(struct rpc *r, const void *response, int64_t metadata_offset)
{
    const struct wire_api *api = api_of(r);
    Karst__Bus__KafkaResponse body = KARST__BUS__KAFKA_RESPONSE__INIT;

    ASSERT(api != NULL);
    body.api_key = api->key;
    struct ref payload = encode(api->response, response);
    if (payload.kind == REF_NONE)
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_MALFORMED);
    else
        rpc_reply(r, KARST__BUS__REPLY__BODY_KAFKA, &body, &payload, 1, metadata_offset);
    ref_release(&payload);
}

int bus_kafka_response(const struct bus_result *result, int16_t api_key, struct arena *arena, void *ret_msg)
{
    const struct wire_api *api = wire_api(api_key);

    if (api == NULL || result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK || result->payload_count != 1 ||
        result->reply->kafka->api_key != api_key)
        return -EBADMSG;
    return wire_decode(api->response, WIRE_VERSION_BUS, ref_bytes(&result->payloads[0]), arena, ret_msg, NULL);
}
