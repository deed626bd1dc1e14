/* decode.c - bytes to structs. Every read is checked against what is left; an array takes memory only when as many
 * elements can be there: each has at least the smallest size that its struct has at this version. Nesting is as deep as
 * the notation, never deeper. */
#include "libs/base/bytes.h"
#include "libs/wire/table.h"

struct reader {
    const uint8_t *p, *end;
    struct wire_shape shape;
    struct arena *arena;
};

static int read_struct(struct reader *r, const struct wire_struct *t, char *obj);

static inline size_t left(const struct reader *r)
{
    return (size_t)(r->end - r->p);
}

static int read_uvarint(struct reader *r, uint32_t *ret_v)
{
    if (r->p < r->end && *r->p < 0x80) {
        *ret_v = *r->p++;
        return 0;
    }
    size_t n = get_uvarint32(r->p, r->end, ret_v);
    r->p += n;
    return n ? 0 : -EBADMSG;
}

/* The length or count in front of a value; -1: null. */
static int read_length(struct reader *r, const struct wire_field *f, bool is_short, int64_t *ret_n)
{
    int64_t n;
    if (wire_flexible(&r->shape, f)) {
        uint32_t v;
        if (read_uvarint(r, &v) < 0)
            return -EBADMSG;
        n = (int64_t)v - 1;
    } else if (is_short) {
        if (left(r) < 2)
            return -EBADMSG;
        n = get_i16(r->p);
        r->p += 2;
    } else {
        if (left(r) < 4)
            return -EBADMSG;
        n = get_i32(r->p);
        r->p += 4;
    }
    if (n < 0 && !wire_may_be_null(&r->shape, f))
        return -EBADMSG;
    *ret_n = n < 0 ? -1 : n;
    return 0;
}

/* string, bytes, records: in place. */
static int read_slice(struct reader *r, const struct wire_field *f, struct slice *ret_slice)
{
    int64_t n;
    if (read_length(r, f, f->kind == WIRE_STRING, &n) < 0)
        return -EBADMSG;
    if (n < 0) {
        *ret_slice = SLICE_NULL;
        return 0;
    }
    if ((size_t)n > left(r) || (f->kind == WIRE_STRING && n > INT16_MAX))
        return -EBADMSG;
    *ret_slice = (struct slice){r->p, (size_t)n};
    r->p += n;
    return 0;
}

static int read_numbers(struct reader *r, const struct wire_field *f, size_t size, char *to, size_t count)
{
    if (count > left(r) / size)
        return -EBADMSG;
    for (size_t i = 0; i < count; i++, r->p += size, to += size) {
        if (size == 8)
            *(uint64_t *)(void *)to = get_u64(r->p);
        else if (size == 4)
            *(uint32_t *)(void *)to = get_u32(r->p);
        else if (size == 2)
            *(uint16_t *)(void *)to = get_u16(r->p);
        else if (size == 1)
            *(uint8_t *)to = f->kind == WIRE_BOOL ? *r->p != 0 : *r->p;
        else
            memcpy(to, r->p, sizeof(struct uuid));
    }
    return 0;
}

static int read_elements(struct reader *r, const struct wire_field *f, size_t size, char *to, size_t count)
{
    if (f->kind == WIRE_STRUCT) {
        for (size_t i = 0; i < count; i++, to += size) {
            int e = read_struct(r, &wire_structs[f->sub], to);
            if (e < 0)
                return e;
        }
        return 0;
    }
    if (f->kind != WIRE_STRING)
        return read_numbers(r, f, size, to, count);
    for (size_t i = 0; i < count; i++, to += size) {
        /* An element is never null, even where the array may be. */
        if (read_slice(r, f, (struct slice *)(void *)to) < 0 || ((struct slice *)(void *)to)->data == NULL)
            return -EBADMSG;
    }
    return 0;
}

static size_t min_size(const struct reader *r, const struct wire_field *f, size_t size)
{
    if (f->kind == WIRE_STRUCT)
        return wire_min_sizes[wire_structs[f->sub].min_sizes + r->shape.min_size_row];
    if (f->kind == WIRE_STRING)
        return wire_flexible(&r->shape, f) ? 1 : 2;
    return size;
}

static int read_array(struct reader *r, const struct wire_field *f, char *p)
{
    int64_t n;
    if (read_length(r, f, false, &n) < 0)
        return -EBADMSG;
    *(void **)(void *)p = NULL;
    *wire_count_of(p) = (int32_t)n;
    if (n <= 0)
        return 0;
    size_t count = (size_t)n, size = wire_element_size(f);
    if (count > left(r) / min_size(r, f, size))
        return -EBADMSG;
    char *elements = arena_try_alloc(r->arena, count * size);
    if (elements == NULL)
        return -ENOSPC;
    *(void **)(void *)p = elements;
    return read_elements(r, f, size, elements, count);
}

/* Null is -1 in an int8 before the struct, or 0 in an uvarint where the field is tagged. */
static int read_pointer(struct reader *r, const struct wire_field *f, bool is_tagged, const void **ret_target)
{
    if (wire_may_be_null(&r->shape, f)) {
        if (left(r) < 1)
            return -EBADMSG;
        int8_t mark = (int8_t)*r->p++;
        if (is_tagged ? mark == 0 : mark < 0) {
            *ret_target = NULL;
            return 0;
        }
    }
    const struct wire_struct *t = &wire_structs[f->sub];
    char *target = arena_try_alloc(r->arena, t->size);
    if (target == NULL)
        return -ENOSPC;
    *ret_target = target;
    return read_struct(r, t, target);
}

static int read_value(struct reader *r, const struct wire_field *f, bool is_tagged, char *p)
{
    if (f->flags & WIRE_ARRAY)
        return read_array(r, f, p);
    switch ((enum wire_kind)f->kind) {
    case WIRE_BOOL:
    case WIRE_INT8: return read_numbers(r, f, 1, p, 1);
    case WIRE_INT16:
    case WIRE_UINT16: return read_numbers(r, f, 2, p, 1);
    case WIRE_INT32:
    case WIRE_UINT32: return read_numbers(r, f, 4, p, 1);
    case WIRE_INT64:
    case WIRE_FLOAT64: return read_numbers(r, f, 8, p, 1);
    case WIRE_UUID: return read_numbers(r, f, 16, p, 1);
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS: return read_slice(r, f, (struct slice *)(void *)p);
    case WIRE_STRUCT: return read_struct(r, &wire_structs[f->sub], p);
    case WIRE_POINTER: return read_pointer(r, f, is_tagged, (const void **)(void *)p);
    }
    return -EBADMSG;
}

/* The field with that tag at this version, or NULL: later versions of Kafka may know it. */
static const struct wire_field *tagged_field(const struct reader *r, const struct wire_struct *t, uint32_t tag)
{
    if (r->shape.is_bus)
        return NULL;
    for (unsigned i = t->plain; i < t->all; i++) {
        const struct wire_field *f = &wire_fields[t->fields + i];
        if ((uint32_t)f->tag == tag)
            return wire_has(&r->shape, f) ? f : NULL;
    }
    return NULL;
}

static int read_tags(struct reader *r, const struct wire_struct *t, char *obj)
{
    uint32_t count, tag, size;
    if (read_uvarint(r, &count) < 0)
        return -EBADMSG;
    while (count-- > 0) {
        if (read_uvarint(r, &tag) < 0 || read_uvarint(r, &size) < 0 || size > left(r))
            return -EBADMSG;
        const struct wire_field *f = tagged_field(r, t, tag);
        if (f == NULL) {
            r->p += size;
            continue;
        }
        const uint8_t *outer_end = r->end;
        r->end = r->p + size;
        int e = read_value(r, f, true, obj + f->offset);
        if (e < 0)
            return e;
        if (r->p != r->end)
            return -EBADMSG;
        r->end = outer_end;
    }
    return 0;
}

static int read_struct(struct reader *r, const struct wire_struct *t, char *obj)
{
    const struct wire_field *f = wire_fields + t->fields;
    unsigned in_order = wire_in_order(&r->shape, t);
    for (unsigned i = 0; i < t->all; i++, f++) {
        if (i >= in_order || !wire_has(&r->shape, f)) {
            wire_set_default(f, obj + f->offset);
            continue;
        }
        int e = read_value(r, f, false, obj + f->offset);
        if (e < 0)
            return e;
    }
    return r->shape.is_flexible ? read_tags(r, t, obj) : 0;
}

int wire_decode(const struct wire_type *type, int version, struct slice bytes, struct arena *arena, void *ret_msg,
                size_t *ret_used)
{
    struct reader r = {.arena = arena};
    if (!wire_shape_of(type, version, &r.shape))
        return -EINVAL;
    r.p = bytes.data != NULL ? bytes.data : (const uint8_t *)"";
    r.end = r.p + bytes.size;
    const uint8_t *start = r.p;
    int e = read_struct(&r, &wire_structs[type->index], ret_msg);
    if (e == 0 && ret_used != NULL)
        *ret_used = (size_t)(r.p - start);
    return e;
}
