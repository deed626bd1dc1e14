/* encode.c - structs to bytes, appended in one pass. The size in front of a tagged field is patched in behind it: one
 * byte is kept for it, and the rare value over 127 bytes is moved. Records never stand inside a tagged field (the
 * generator refuses it), so no size there depends on a splice. */
#include "libs/base/bytes.h"
#include "libs/wire/table.h"

struct writer {
    struct buf *out;
    struct wire_shape shape;
    struct wire_splice *splices; /* NULL: records are copied */
    size_t splice_count, splice_max, start;
};

static int write_struct(struct writer *w, const struct wire_struct *t, const char *obj);

static inline uint8_t *room(struct writer *w, size_t n)
{
    if (w->out->capacity - w->out->size < n)
        buf_reserve(w->out, n);
    return w->out->data + w->out->size;
}

static inline void write_uvarint(struct writer *w, uint32_t v)
{
    w->out->size += put_uvarint32(room(w, 5), v);
}

/* n: -1 for null. */
static int write_length(struct writer *w, const struct wire_field *f, bool is_short, int64_t n)
{
    if (n < 0 && !wire_may_be_null(&w->shape, f))
        return -EINVAL;
    if (wire_flexible(&w->shape, f)) {
        write_uvarint(w, (uint32_t)(n + 1));
    } else if (is_short) {
        put_i16(room(w, 2), (int16_t)n);
        w->out->size += 2;
    } else {
        put_i32(room(w, 4), (int32_t)n);
        w->out->size += 4;
    }
    return 0;
}

static int add_splice(struct writer *w, struct slice records)
{
    if (w->splice_count == w->splice_max)
        return -ENOSPC;
    w->splices[w->splice_count++] = (struct wire_splice){w->out->size - w->start, records};
    return 0;
}

static int write_slice(struct writer *w, const struct wire_field *f, struct slice s)
{
    if (s.size > (f->kind == WIRE_STRING ? INT16_MAX : INT32_MAX - 1))
        return -EINVAL;
    int e = write_length(w, f, f->kind == WIRE_STRING, s.data == NULL ? -1 : (int64_t)s.size);
    if (e < 0 || s.data == NULL)
        return e;
    if (f->kind == WIRE_RECORDS && w->splices != NULL)
        return add_splice(w, s);
    if (s.size) {
        memcpy(room(w, s.size), s.data, s.size);
        w->out->size += s.size;
    }
    return 0;
}

static void write_numbers(struct writer *w, const struct wire_field *f, size_t size, const char *from, size_t count)
{
    uint8_t *p = room(w, size * count);
    w->out->size += size * count;
    for (size_t i = 0; i < count; i++, p += size, from += size) {
        if (size == 8)
            put_u64(p, *(const uint64_t *)(const void *)from);
        else if (size == 4)
            put_u32(p, *(const uint32_t *)(const void *)from);
        else if (size == 2)
            put_u16(p, *(const uint16_t *)(const void *)from);
        else if (size == 1)
            *p = f->kind == WIRE_BOOL ? *from != 0 : *(const uint8_t *)from;
        else
            memcpy(p, from, sizeof(struct uuid));
    }
}

static int write_array(struct writer *w, const struct wire_field *f, const char *p)
{
    int32_t n = wire_count(p);
    int e = write_length(w, f, false, n < 0 ? -1 : n);
    if (e < 0 || n <= 0)
        return e;
    const char *element = *(const char *const *)(const void *)p;
    size_t size = wire_element_size(f);
    if (f->kind != WIRE_STRUCT && f->kind != WIRE_STRING) {
        write_numbers(w, f, size, element, (size_t)n);
        return 0;
    }
    for (int32_t i = 0; i < n; i++, element += size) {
        if (f->kind == WIRE_STRUCT)
            e = write_struct(w, &wire_structs[f->sub], element);
        else if (((const struct slice *)(const void *)element)->data == NULL)
            e = -EINVAL; /* an element is never null, even where the array may be */
        else
            e = write_slice(w, f, *(const struct slice *)(const void *)element);
        if (e < 0)
            return e;
    }
    return 0;
}

static int write_pointer(struct writer *w, const struct wire_field *f, bool is_tagged, const void *target)
{
    if (wire_may_be_null(&w->shape, f)) {
        *room(w, 1) = target != NULL ? 1 : is_tagged ? 0 : 0xff;
        w->out->size++;
        if (target == NULL)
            return 0;
    }
    return target == NULL ? -EINVAL : write_struct(w, &wire_structs[f->sub], target);
}

static int write_value(struct writer *w, const struct wire_field *f, bool is_tagged, const char *p)
{
    if (f->flags & WIRE_ARRAY)
        return write_array(w, f, p);
    switch ((enum wire_kind)f->kind) {
    case WIRE_BOOL:
    case WIRE_INT8: write_numbers(w, f, 1, p, 1); return 0;
    case WIRE_INT16:
    case WIRE_UINT16: write_numbers(w, f, 2, p, 1); return 0;
    case WIRE_INT32:
    case WIRE_UINT32: write_numbers(w, f, 4, p, 1); return 0;
    case WIRE_INT64:
    case WIRE_FLOAT64: write_numbers(w, f, 8, p, 1); return 0;
    case WIRE_UUID: write_numbers(w, f, 16, p, 1); return 0;
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS: return write_slice(w, f, *(const struct slice *)(const void *)p);
    case WIRE_STRUCT: return write_struct(w, &wire_structs[f->sub], p);
    case WIRE_POINTER: return write_pointer(w, f, is_tagged, *(const void *const *)(const void *)p);
    }
    return -EINVAL;
}

static int write_tagged(struct writer *w, const struct wire_field *f, const char *p)
{
    write_uvarint(w, (uint32_t)f->tag);
    room(w, 1);
    size_t at = w->out->size++;
    int e = write_value(w, f, true, p);
    if (e < 0)
        return e;
    size_t size = w->out->size - at - 1, more = size_uvarint64(size) - 1;
    if (more) {
        room(w, more);
        memmove(w->out->data + at + 1 + more, w->out->data + at + 1, size);
        w->out->size += more;
    }
    put_uvarint64(w->out->data + at, size);
    return 0;
}

/* Only what differs from its default is written; the count is patched in: a struct has at most 127 tags. */
static int write_tags(struct writer *w, const struct wire_struct *t, const char *obj)
{
    room(w, 1);
    size_t at = w->out->size++;
    uint8_t count = 0;
    const struct wire_field *f = wire_fields + t->fields + t->plain;
    for (unsigned i = w->shape.is_bus ? t->all : t->plain; i < t->all; i++, f++) {
        if (!wire_has(&w->shape, f) || wire_is_default(f, obj + f->offset))
            continue;
        int e = write_tagged(w, f, obj + f->offset);
        if (e < 0)
            return e;
        count++;
    }
    w->out->data[at] = count;
    return 0;
}

static int write_struct(struct writer *w, const struct wire_struct *t, const char *obj)
{
    const struct wire_field *f = wire_fields + t->fields;
    unsigned in_order = wire_in_order(&w->shape, t);
    for (unsigned i = 0; i < t->all; i++, f++) {
        if (wire_has(&w->shape, f)) {
            int e = i < in_order ? write_value(w, f, false, obj + f->offset) : 0;
            if (e < 0)
                return e;
        } else if (!(f->flags & WIRE_IGNORABLE) && !wire_is_default(f, obj + f->offset)) {
            return -EINVAL;
        }
    }
    return w->shape.is_flexible ? write_tags(w, t, obj) : 0;
}

static int encode(const struct wire_type *type, int version, const void *msg, struct writer *w)
{
    if (!wire_shape_of(type, version, &w->shape))
        return -EINVAL;
    w->start = w->out->size;
    int e = write_struct(w, &wire_structs[type->index], msg);
    if (e < 0)
        w->out->size = w->start;
    return e;
}

int wire_encode(const struct wire_type *type, int version, const void *msg, struct buf *out)
{
    struct writer w = {.out = out};
    return encode(type, version, msg, &w);
}

int wire_encode_splice(const struct wire_type *type, int version, const void *msg, struct buf *out,
                       struct wire_splice *splices, size_t max, size_t *ret_count)
{
    struct wire_splice none;
    struct writer w = {.out = out, .splices = max ? splices : &none, .splice_max = max};
    int e = encode(type, version, msg, &w);
    if (e == 0)
        *ret_count = w.splice_count;
    return e;
}
