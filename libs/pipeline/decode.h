/* decode.h - a frame as the request that it is. Pure; any thread. */
#ifndef KARST_PIPELINE_DECODE_H
#define KARST_PIPELINE_DECODE_H

#include "libs/wire/wire.h"

struct pipeline_decoded {
    int16_t version;
    int32_t correlation_id;
    struct slice client_id; /* null: none; points into the frame */
    void *body;             /* struct kafka_X_request, in the arena; points into the frame */
};

/* Reads header and body of an API's request, at a version that is between version_min and version_max. Bytes behind the
 * body are ignored, as Kafka does. 0, or -ENOTSUP  another version: header fields are set, body is NULL. ApiVersions
 * answers, all others close the connection -EBADMSG  not such a request: close the connection -ENOSPC   it needs more
 * memory than the arena has: close the connection */
NODISCARD int pipeline_decode(const struct wire_api *api, int16_t version_min, int16_t version_max, struct slice frame,
                              struct arena *arena, struct pipeline_decoded *ret_decoded);

/* Appends the whole frame of a response: length, header, body. splices as in wire_encode_splice, counted from the start
 * of the frame; NULL with max 0: records are copied. 0 or the errors of wire_encode_splice, with *out as it was. */
NODISCARD int pipeline_encode(const struct wire_api *api, int16_t version, int32_t correlation_id, const void *response,
                              struct buf *out, struct wire_splice *splices, size_t max, size_t *ret_count);

#endif
