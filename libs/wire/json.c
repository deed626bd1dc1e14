/* json.c - a message as one line of JSON, for people and tests. */
#include "libs/wire/table.h"

static void put_struct(const struct wire_shape *s, const struct wire_struct *t, const char *obj, struct buf *out);

static void put_text(struct slice text, struct buf *out)
{
    buf_append(out, "\"", 1);
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            buf_printf(out, "\\u%04x", c);
        else
            buf_append(out, &c, 1);
    }
    buf_append(out, "\"", 1);
}

static void put_hex(struct slice bytes, struct buf *out)
{
    static const char digits[] = "0123456789abcdef";
    buf_append(out, "\"", 1);
    for (size_t i = 0; i < bytes.size; i++)
        buf_append(out, (char[2]){digits[bytes.data[i] >> 4], digits[bytes.data[i] & 15]}, 2);
    buf_append(out, "\"", 1);
}

static void put_one(const struct wire_shape *s, const struct wire_field *f, const char *p, struct buf *out)
{
    const void *v = p;
    struct slice bytes;
    switch ((enum wire_kind)f->kind) {
    case WIRE_BOOL: buf_printf(out, "%s", *(const bool *)v ? "true" : "false"); return;
    case WIRE_INT8: buf_printf(out, "%d", *(const int8_t *)v); return;
    case WIRE_INT16: buf_printf(out, "%d", *(const int16_t *)v); return;
    case WIRE_UINT16: buf_printf(out, "%u", *(const uint16_t *)v); return;
    case WIRE_INT32: buf_printf(out, "%d", *(const int32_t *)v); return;
    case WIRE_UINT32: buf_printf(out, "%u", *(const uint32_t *)v); return;
    case WIRE_INT64: buf_printf(out, "%lld", (long long)*(const int64_t *)v); return;
    case WIRE_FLOAT64:
        buf_printf(out, __builtin_isfinite(*(const double *)v) ? "%.17g" : "\"%g\"", *(const double *)v);
        return;
    case WIRE_UUID: buf_printf(out, "\"%s\"", uuid_to_text(*(const struct uuid *)v).s); return;
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS:
        bytes = *(const struct slice *)v;
        if (bytes.data == NULL)
            buf_append(out, "null", 4);
        else if (f->kind == WIRE_STRING)
            put_text(bytes, out);
        else
            put_hex(bytes, out);
        return;
    case WIRE_STRUCT: put_struct(s, &wire_structs[f->sub], p, out); return;
    case WIRE_POINTER:
        if (*(const void *const *)v == NULL)
            buf_append(out, "null", 4);
        else
            put_struct(s, &wire_structs[f->sub], *(const char *const *)v, out);
        return;
    }
}

static void put_array(const struct wire_shape *s, const struct wire_field *f, const char *p, struct buf *out)
{
    int32_t count = wire_count(p);
    const char *element = *(const char *const *)(const void *)p;
    size_t size = wire_element_size(f);
    if (count < 0) {
        buf_append(out, "null", 4);
        return;
    }
    buf_append(out, "[", 1);
    for (int32_t i = 0; i < count; i++, element += size) {
        if (i)
            buf_append(out, ",", 1);
        put_one(s, f, element, out);
    }
    buf_append(out, "]", 1);
}

static void put_struct(const struct wire_shape *s, const struct wire_struct *t, const char *obj, struct buf *out)
{
    const struct wire_field *f = wire_fields + t->fields;
    const char *before = "{";
    for (unsigned i = 0; i < t->all; i++, f++) {
        if (!wire_has(s, f))
            continue;
        buf_printf(out, "%s\"%s\":", before, wire_names + f->name);
        before = ",";
        if (f->flags & WIRE_ARRAY)
            put_array(s, f, obj + f->offset, out);
        else
            put_one(s, f, obj + f->offset, out);
    }
    buf_printf(out, "%s}", before[0] == '{' ? "{" : "");
}

void wire_json(const struct wire_type *type, int version, const void *msg, struct buf *out)
{
    struct wire_shape shape;
    if (wire_shape_of(type, version, &shape))
        put_struct(&shape, &wire_structs[type->index], msg, out);
    else
        buf_append(out, "null", 4);
}
