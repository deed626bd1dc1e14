#include "tests/wire/fill.h"

#include <stdlib.h>

#include "libs/wire/table.h"

struct filler {
    uint64_t *state;
    struct wire_shape shape;
    struct arena *arena;
    unsigned depth;
};

static void fill_struct(struct filler *f, const struct wire_struct *t, char *obj);

/* splitmix64 */
uint64_t fill_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static unsigned below(struct filler *f, unsigned n)
{
    return (unsigned)(fill_random(f->state) % n);
}

static uint64_t random_number(struct filler *f)
{
    static const int64_t edges[] = {0,      1,     -1,        127,       -128,       255,       32767,
                                    -32768, 65535, INT32_MAX, INT32_MIN, UINT32_MAX, INT64_MAX, INT64_MIN};
    switch (below(f, 4)) {
    case 0: return (uint64_t)edges[below(f, COUNTOF(edges))];
    case 1: return below(f, 100);
    default: return fill_random(f->state);
    }
}

static struct slice random_slice(struct filler *f, bool is_text)
{
    static const uint16_t sizes[] = {0, 1, 2, 3, 5, 8, 13, 20, 126, 127, 128, 300};
    static const char *const letters[] = {
        "a", "Z", "0", "-", "\"", "\\", "\n", "\xc3\xa9", "\xe6\xbc\xa2", "\xf0\x9f\x98\x80"};
    size_t want = sizes[below(f, below(f, 4) ? 8 : COUNTOF(sizes))], size = 0;
    uint8_t *p = arena_alloc(f->arena, want + 4);
    while (size < want) {
        const char *letter = letters[below(f, 8) ? below(f, 4) : below(f, COUNTOF(letters))];
        if (is_text) {
            memcpy(p + size, letter, strlen(letter));
            size += strlen(letter);
        } else {
            p[size++] = (uint8_t)fill_random(f->state);
        }
    }
    return (struct slice){p, size};
}

static void random_value(struct filler *f, const struct wire_field *field, char *p)
{
    static const double doubles[] = {0.0, 1.0, -1.5, 1e300, -1e-300, __builtin_inf(), 0.1};
    uint64_t n = random_number(f);
    switch ((enum wire_kind)field->kind) {
    case WIRE_BOOL: *(bool *)p = n & 1; return;
    case WIRE_INT8: memcpy(p, &(uint8_t){(uint8_t)n}, 1); return;
    case WIRE_INT16:
    case WIRE_UINT16: memcpy(p, &(uint16_t){(uint16_t)n}, 2); return;
    case WIRE_INT32:
    case WIRE_UINT32: memcpy(p, &(uint32_t){(uint32_t)n}, 4); return;
    case WIRE_INT64: memcpy(p, &n, 8); return;
    case WIRE_FLOAT64: memcpy(p, &doubles[n % COUNTOF(doubles)], 8); return;
    case WIRE_UUID:
        for (unsigned i = 0; i < sizeof(struct uuid); i++)
            p[i] = (char)fill_random(f->state);
        return;
    case WIRE_STRING:
    case WIRE_BYTES:
    case WIRE_RECORDS: *(struct slice *)(void *)p = random_slice(f, field->kind == WIRE_STRING); return;
    case WIRE_STRUCT: fill_struct(f, &wire_structs[field->sub], p); return;
    case WIRE_POINTER: {
        char *target = arena_alloc(f->arena, wire_structs[field->sub].size);
        fill_struct(f, &wire_structs[field->sub], target);
        *(const void **)(void *)p = target;
        return;
    }
    }
}

static void random_array(struct filler *f, const struct wire_field *field, char *p)
{
    unsigned count = below(f, f->depth > 2 ? 3 : 4);
    size_t size = wire_element_size(field);
    char *elements = arena_alloc(f->arena, size * (count + 1));
    for (unsigned i = 0; i < count; i++)
        random_value(f, field, elements + i * size);
    *(void **)(void *)p = elements;
    *wire_count_of(p) = (int32_t)count;
}

static void set_null(const struct wire_field *field, char *p)
{
    if (field->flags & WIRE_ARRAY)
        *wire_count_of(p) = -1;
    else if (field->kind == WIRE_POINTER)
        *(const void **)(void *)p = NULL;
    else
        *(struct slice *)(void *)p = SLICE_NULL;
}

static bool can_be_null(const struct wire_field *field)
{
    return field->flags & WIRE_ARRAY || field->kind == WIRE_POINTER ||
           (field->kind >= WIRE_STRING && field->kind <= WIRE_RECORDS);
}

static bool default_is_null(const struct wire_field *field)
{
    return can_be_null(field) && field->value == -1;
}

static void fill_struct(struct filler *f, const struct wire_struct *t, char *obj)
{
    const struct wire_field *field = wire_fields + t->fields;
    f->depth++;
    for (unsigned i = 0; i < t->all; i++, field++) {
        char *p = obj + field->offset;
        bool may_be_null = wire_may_be_null(&f->shape, field);
        unsigned roll = below(f, 100);
        wire_set_default(field, p);
        if (!wire_has(&f->shape, field)) {
            if (roll < 30 && field->flags & WIRE_IGNORABLE && !(field->flags & WIRE_ARRAY) && field->kind < WIRE_STRUCT)
                random_value(f, field, p);
        } else if (roll < 15 && may_be_null) {
            set_null(field, p);
        } else if (roll < 35 && (may_be_null || !default_is_null(field))) {
            continue;
        } else if (field->flags & WIRE_ARRAY) {
            random_array(f, field, p);
        } else {
            random_value(f, field, p);
        }
    }
    f->depth--;
}

void fill_message(uint64_t *state, const struct wire_type *type, int version, struct arena *arena, void *ret_msg)
{
    struct filler f = {.state = state, .arena = arena};
    bool ok = wire_shape_of(type, version, &f.shape);
    ASSERT(ok);
    fill_struct(&f, &wire_structs[type->index], ret_msg);
}

/* ---- what has been reached ---- */

enum { SEEN_DEFAULT = 1, SEEN_OTHER = 2, SEEN_NULL = 4 };

static size_t field_count(void)
{
    size_t count = 0;
    for (unsigned i = 0; i < wire_folder_start[WIRE_FOLDERS]; i++) {
        const struct wire_struct *root = &wire_structs[wire_messages[i]->index];
        count = MAX(count, (size_t)root->fields + root->all); /* a message's root is its last struct */
    }
    return count;
}

struct cover cover_new(void)
{
    return (struct cover){xcalloc(field_count(), 1)};
}

void cover_free(struct cover *c)
{
    free(c->seen);
    c->seen = NULL;
}

void cover_clear(struct cover *c)
{
    memset(c->seen, 0, field_count());
}

static bool is_null(const struct wire_field *field, const char *p)
{
    if (field->flags & WIRE_ARRAY)
        return wire_count(p) < 0;
    if (field->kind == WIRE_POINTER)
        return *(const void *const *)(const void *)p == NULL;
    return can_be_null(field) && ((const struct slice *)(const void *)p)->data == NULL;
}

static void note_struct(struct cover *c, const struct wire_shape *s, const struct wire_struct *t, const char *obj)
{
    const struct wire_field *field = wire_fields + t->fields;
    for (unsigned i = 0; i < t->all; i++, field++) {
        const char *p = obj + field->offset;
        if (!wire_has(s, field))
            continue;
        uint8_t *seen = &c->seen[field - wire_fields];
        *seen |= (uint8_t)((is_null(field, p) ? SEEN_NULL : 0) | (wire_is_default(field, p) ? SEEN_DEFAULT
                                                                  : is_null(field, p)       ? 0
                                                                                            : SEEN_OTHER));
        if (field->kind < WIRE_STRUCT || is_null(field, p))
            continue;
        const struct wire_struct *sub = &wire_structs[field->sub];
        const char *target =
            field->kind == WIRE_STRUCT && !(field->flags & WIRE_ARRAY) ? p : *(const char *const *)(const void *)p;
        int32_t count = field->flags & WIRE_ARRAY ? wire_count(p) : 1;
        for (int32_t k = 0; k < count; k++)
            note_struct(c, s, sub, target + (size_t)k * sub->size);
    }
}

void cover_note(struct cover *c, const struct wire_type *type, int version, const void *msg)
{
    struct wire_shape shape;
    bool ok = wire_shape_of(type, version, &shape);
    ASSERT(ok);
    note_struct(c, &shape, &wire_structs[type->index], msg);
}

static size_t missing_in(const struct cover *c, const struct wire_shape *s, const struct wire_type *type,
                         const struct wire_struct *t, struct buf *out)
{
    size_t missing = 0;
    const struct wire_field *field = wire_fields + t->fields;
    for (unsigned i = 0; i < t->all; i++, field++) {
        if (!wire_has(s, field))
            continue;
        bool may_be_null = wire_may_be_null(s, field),
             is_struct = field->kind == WIRE_STRUCT && !(field->flags & WIRE_ARRAY);
        uint8_t want = SEEN_OTHER;
        if (may_be_null)
            want |= SEEN_NULL;
        if (field->tag >= 0 || !(is_struct || (default_is_null(field) && !may_be_null)))
            want |= SEEN_DEFAULT;
        uint8_t lacks = want & (uint8_t)~c->seen[field - wire_fields];
        if (lacks) {
            buf_printf(out, "%s %d %s.%s never%s%s%s\n", wire_name(type), s->version, wire_names + t->name,
                       wire_names + field->name, lacks & SEEN_OTHER ? " set" : "",
                       lacks & SEEN_DEFAULT ? " default" : "", lacks & SEEN_NULL ? " null" : "");
            missing++;
        }
        if (field->kind >= WIRE_STRUCT)
            missing += missing_in(c, s, type, &wire_structs[field->sub], out);
    }
    return missing;
}

size_t cover_missing(const struct cover *c, const struct wire_type *type, int version, struct buf *out)
{
    struct wire_shape shape;
    bool ok = wire_shape_of(type, version, &shape);
    ASSERT(ok);
    return missing_in(c, &shape, type, &wire_structs[type->index], out);
}
