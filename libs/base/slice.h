/* slice.h - bytes or text that somebody else owns. Text is UTF-8 and not terminated. A null string or null bytes of
 * Kafka's are the slice with data == NULL; an empty one has data != NULL and size 0. */
#ifndef KARST_BASE_SLICE_H
#define KARST_BASE_SLICE_H

#include "libs/base/base.h"

struct slice {
    const uint8_t *data;
    size_t size;
};

#define SLICE_NULL    ((struct slice){NULL, 0})
#define SLICE_EMPTY   ((struct slice){(const uint8_t *)"", 0})
#define SLICE_OF(lit) ((struct slice){(const uint8_t *)("" lit), sizeof(lit) - 1})
#define SLICE_F       "%.*s" /* for printf, with SLICE_A */
#define SLICE_A(s)    (int)(s).size, (const char *)((s).data ? (s).data : (const uint8_t *)"")

static inline struct slice slice_make(const void *data, size_t size)
{
    return (struct slice){data, size};
}

/* The text of a C string; NULL gives the null slice. */
static inline struct slice slice_str(const char *s)
{
    return s ? (struct slice){(const uint8_t *)s, strlen(s)} : SLICE_NULL;
}

static inline bool slice_is_null(struct slice s)
{
    return s.data == NULL;
}

/* Null equals only null. */
static inline bool slice_eq(struct slice a, struct slice b)
{
    return a.size == b.size && (a.data == NULL) == (b.data == NULL) &&
           (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool slice_eq_str(struct slice a, const char *s)
{
    return slice_eq(a, slice_str(s));
}

/* Order by bytes, a prefix first; null before all. */
static inline int slice_cmp(struct slice a, struct slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.size > b.size) - (a.size < b.size);
}

/* A terminated copy that the caller frees; NULL for null. */
NODISCARD char *slice_dup_str(struct slice s);

/* Java's String.hashCode over the UTF-16 units of the text (coordinator partitions, records.md). */
int32_t slice_java_hash(struct slice s);

/* The partition of a coordinator's key among count partitions: abs(hash) % count, abs of the minimum being 0. */
int32_t slice_coordinator_partition(struct slice key, int32_t count);

#endif
