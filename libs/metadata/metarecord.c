/* metarecord.c - frames of metadata records. */
#include "libs/metadata/metarecord.h"

#include "karst/coordinator_record.h"
#include "karst/service_record.h"
#include "libs/base/bytes.h"

enum { FRAME_VERSION = 1 };

static bool take_uvarint(struct slice *s, uint32_t *ret_v)
{
    size_t n = get_uvarint32(s->data, s->data + s->size, ret_v);
    s->data += n;
    s->size -= n;
    return n != 0;
}

int metarecord_parse(struct slice value, struct metarecord *ret_record)
{
    uint32_t frame, type, version;
    if (slice_is_null(value) || !take_uvarint(&value, &frame) || frame != FRAME_VERSION ||
        !take_uvarint(&value, &type) || !take_uvarint(&value, &version) || version > INT16_MAX)
        return -EBADMSG;
    *ret_record = (struct metarecord){.type = type, .version = (int)version, .body = value};
    return 0;
}

int metarecord_decode(const struct metarecord *r, struct arena *arena, void **ret_msg)
{
    const struct wire_type *type = r->type <= INT16_MAX ? wire_metadata_record((int)r->type) : NULL;
    if (type == NULL || r->version < wire_version_min(type) || r->version > wire_version_max(type))
        return -EBADMSG;
    void *msg = arena_try_alloc(arena, wire_struct_size(type));
    if (msg == NULL || wire_decode(type, r->version, r->body, arena, msg, NULL) != 0)
        return -EBADMSG;
    *ret_msg = msg;
    return 0;
}

static void put_uvarint(struct buf *out, uint32_t v)
{
    uint8_t bytes[5];
    buf_append(out, bytes, put_uvarint32(bytes, v));
}

static void put_frame(struct buf *out, enum metarecord_type type, int version)
{
    put_uvarint(out, FRAME_VERSION);
    put_uvarint(out, (uint32_t)type);
    put_uvarint(out, (uint32_t)version);
}

int metarecord_write(struct buf *out, enum metarecord_type type, int version, const void *msg)
{
    size_t start = out->size;
    put_frame(out, type, version);
    int error = wire_encode(wire_metadata_record((int)type), version, msg, out);
    if (error != 0)
        out->size = start;
    return error;
}

static const struct wire_type *tag_type(uint32_t tag)
{
    switch (tag) {
    case METARECORD_TAG_SERVICE: return &karst_service_record_type;
    case METARECORD_TAG_COORDINATOR: return &karst_coordinator_record_type;
    default: return NULL;
    }
}

int metarecord_write_tag(struct buf *out, uint32_t tag, const void *msg)
{
    struct buf body CLEANUP(buf_free) = {0};
    const struct wire_type *type = tag_type(tag);
    ASSERT(type != NULL);
    int error = wire_encode(type, 0, msg, &body);
    if (error != 0)
        return error;
    put_frame(out, METARECORD_NO_OP, 0);
    put_uvarint(out, 1);
    put_uvarint(out, tag);
    put_uvarint(out, (uint32_t)body.size);
    buf_append(out, body.data, body.size);
    return 0;
}

int metarecord_tag_next(struct slice body, size_t *at, uint32_t *left, uint32_t *ret_tag, struct slice *ret_value)
{
    struct slice rest = {body.data + *at, body.size - *at};
    uint32_t size;
    if (*at == 0 && !take_uvarint(&rest, left))
        return -EBADMSG;
    if (*left == 0)
        return 0;
    if (!take_uvarint(&rest, ret_tag) || !take_uvarint(&rest, &size) || size > rest.size)
        return -EBADMSG;
    *ret_value = slice_make(rest.data, size);
    *at = (size_t)(rest.data - body.data) + size;
    (*left)--;
    return 1;
}
