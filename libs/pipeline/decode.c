#include "libs/pipeline/decode.h"

#include "kafka/request_header.h"
#include "libs/base/bytes.h"

int pipeline_decode(const struct wire_api *api, int16_t version_min, int16_t version_max, struct slice frame,
                    struct arena *arena, struct pipeline_decoded *ret_decoded)
{
    struct kafka_request_header header;
    size_t used;

    if (frame.size < 8)
        return -EBADMSG;
    *ret_decoded =
        (struct pipeline_decoded){.version = get_i16(frame.data + 2), .correlation_id = get_i32(frame.data + 4)};
    if (ret_decoded->version < version_min || ret_decoded->version > version_max)
        return -ENOTSUP;
    int version = ret_decoded->version;
    int e = wire_decode(&kafka_request_header_type, wire_request_header_version(api, version), frame, arena, &header,
                        &used);
    if (e < 0)
        return e;
    ret_decoded->client_id = header.client_id;
    ret_decoded->body = arena_try_alloc(arena, wire_struct_size(api->request));
    if (ret_decoded->body == NULL)
        return -ENOSPC;
    struct slice body = {frame.data + used, frame.size - used};
    return wire_decode(api->request, version, body, arena, ret_decoded->body, NULL);
}

int pipeline_encode(const struct wire_api *api, int16_t version, int32_t correlation_id, const void *response,
                    struct buf *out, struct wire_splice *splices, size_t max, size_t *ret_count)
{
    size_t start = out->size, head, count = 0, size;
    uint8_t *p = buf_grow(out, 9);

    put_i32(p + 4, correlation_id);
    p[8] = 0; /* header 1: no tagged fields */
    head = wire_response_header_version(api, version) == 0 ? 8 : 9;
    out->size = start + head;
    int e = splices == NULL ? wire_encode(api->response, version, response, out)
                            : wire_encode_splice(api->response, version, response, out, splices, max, &count);
    size = out->size - start;
    for (size_t i = 0; e == 0 && i < count; i++) {
        splices[i].at += head;
        size += splices[i].records.size;
    }
    if (e == 0 && size - 4 > INT32_MAX)
        e = -EINVAL;
    if (e < 0) {
        out->size = start;
        return e;
    }
    put_u32(out->data + start, (uint32_t)(size - 4));
    if (ret_count != NULL)
        *ret_count = count;
    return 0;
}
