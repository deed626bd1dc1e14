/* table.h - the tables that tools/kafka_codegen.py makes, and what every part of the engine reads from them. Inside
 * libs/wire, and for tests that walk over all fields of all messages.
 *
 * All tables are constant numbers without pointers, shared between processes; only wire_messages and wire_apis hold
 * addresses. */
#ifndef KARST_WIRE_TABLE_H
#define KARST_WIRE_TABLE_H

#include "libs/wire/wire.h"

enum wire_kind {
    WIRE_BOOL,
    WIRE_INT8,
    WIRE_INT16,
    WIRE_UINT16,
    WIRE_INT32,
    WIRE_UINT32,
    WIRE_INT64,
    WIRE_FLOAT64,
    WIRE_UUID,
    WIRE_STRING,
    WIRE_BYTES,
    WIRE_RECORDS,
    WIRE_STRUCT,  /* in place */
    WIRE_POINTER, /* a struct that may be null */
};

enum wire_flag {
    WIRE_ARRAY = 1,        /* kind is that of the elements; int32_t count right behind the pointer */
    WIRE_IGNORABLE = 2,    /* dropped silently where the version lacks it */
    WIRE_OLD_ENCODING = 4, /* not flexible in a flexible version (ClientId of the header) */
};

enum { WIRE_NEVER = 0x7ffe }; /* flexible: in no version */

enum wire_folder {
    WIRE_FOLDER_API,
    WIRE_FOLDER_HEADER,
    WIRE_FOLDER_DATA,
    WIRE_FOLDER_METADATA,
    WIRE_FOLDER_GROUP,
    WIRE_FOLDER_TRANSACTION,
    WIRE_FOLDER_SHARE,
    WIRE_FOLDER_STORAGE,
    WIRE_FOLDER_RAFT,
    WIRE_FOLDER_KARST,
    WIRE_FOLDERS,
};

struct wire_field {
    uint8_t kind, flags;
    uint16_t offset;              /* in the struct */
    uint16_t sub;                 /* WIRE_STRUCT, WIRE_POINTER: row of wire_structs */
    uint16_t name;                /* in wire_names */
    int8_t first, last;           /* versions; 127: to the last */
    int8_t null_first, null_last; /* versions in which it may be null; 1, 0: none */
    int8_t tag;                   /* -1: not tagged; else tagged in all its versions */
    int64_t value;                /* default; of strings, arrays and pointers: -1 null, 0 empty */
};

struct wire_struct {
    uint16_t fields; /* first row in wire_fields: the untagged ones in their order, then the tagged ones by tag */
    uint8_t plain;   /* how many are untagged */
    uint8_t all;
    uint16_t size;      /* of the C struct */
    uint16_t min_sizes; /* first row in wire_min_sizes: of the message's first version; behind its last: the bus */
    uint16_t name;
};

/* A struct of a message, or the message itself, with the message's versions. */
struct wire_type {
    uint16_t index; /* row of wire_structs */
    uint16_t name;
    int16_t first, last; /* 0, -1: none is alive */
    int16_t flexible;    /* from this version on */
    int16_t id;          /* API key, record type; -1: none */
    uint8_t folder;
    bool is_key; /* of a coordinator record */
};

extern const char wire_names[];
extern const struct wire_field wire_fields[];
extern const struct wire_struct wire_structs[];
extern const uint16_t wire_min_sizes[];
extern const struct wire_type *const wire_messages[]; /* by folder, in the order of enum wire_folder */
extern const uint16_t wire_folder_start[];            /* rows of wire_messages; [WIRE_FOLDERS]: their count */
extern const struct wire_api wire_apis[];
extern const int16_t wire_apis_count;

/* The constant struct that a pointer stands at by default; NULL: none does. */
const void *wire_default_of(uint16_t index);

/* What depends on the version alone, worked out once a call. */
struct wire_shape {
    int16_t version;
    bool is_bus;
    bool is_flexible;
    uint16_t min_size_row; /* to add to wire_struct.min_sizes */
};

/* false: the message has no such version. */
static inline bool wire_shape_of(const struct wire_type *t, int version, struct wire_shape *ret_shape)
{
    bool is_bus = version == WIRE_VERSION_BUS;
    if (!is_bus && (version < t->first || version > t->last))
        return false;
    *ret_shape = (struct wire_shape){
        .version = (int16_t)version,
        .is_bus = is_bus,
        .is_flexible = version >= t->flexible,
        .min_size_row = (uint16_t)(is_bus ? t->last - t->first + 1 : version - t->first),
    };
    return true;
}

static inline bool wire_has(const struct wire_shape *s, const struct wire_field *f)
{
    return s->is_bus || (s->version >= f->first && s->version <= f->last);
}

static inline bool wire_may_be_null(const struct wire_shape *s, const struct wire_field *f)
{
    return s->is_bus ? f->null_first <= f->null_last : s->version >= f->null_first && s->version <= f->null_last;
}

static inline bool wire_flexible(const struct wire_shape *s, const struct wire_field *f)
{
    return s->is_flexible && (s->is_bus || !(f->flags & WIRE_OLD_ENCODING));
}

/* How many fields of a struct are encoded in order; the rest is in its tag section. */
static inline unsigned wire_in_order(const struct wire_shape *s, const struct wire_struct *t)
{
    return s->is_bus ? t->all : t->plain;
}

static inline int32_t *wire_count_of(void *array)
{
    return (int32_t *)(void *)((char *)array + sizeof(void *));
}
static inline int32_t wire_count(const void *array)
{
    int32_t count;
    memcpy(&count, (const char *)array + sizeof(void *), sizeof count);
    return count;
}

/* The C size of one element of an array of f. */
size_t wire_element_size(const struct wire_field *f);

void wire_set_default(const struct wire_field *f, void *p);
bool wire_is_default(const struct wire_field *f, const void *p);

#endif
