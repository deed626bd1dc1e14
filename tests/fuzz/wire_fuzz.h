/* wire_fuzz.h - what the fuzzers of the codec have in common. */
#ifndef KARST_TESTS_WIRE_FUZZ_H
#define KARST_TESTS_WIRE_FUZZ_H

#include <stdlib.h>

#include "libs/wire/table.h"

enum { FUZZ_ARENA_BYTES = 4 << 20 };

/* Encodes and decodes again; the second encoding must be the first. Ends the process when it is not. */
static inline void fuzz_again(const struct wire_type *t, int version, const void *msg)
{
    struct buf first = {0}, second = {0};
    struct arena *arena = arena_new(0);
    void *again = xmalloc(wire_struct_size(t));
    size_t used = 0;
    if (wire_encode(t, version, msg, &first) < 0)
        BUG("what was decoded cannot be encoded");
    if (wire_decode(t, version, buf_slice(&first), arena, again, &used) < 0 || used != first.size)
        BUG("what was encoded cannot be decoded");
    if (wire_encode(t, version, again, &second) < 0 || !slice_eq(buf_slice(&first), buf_slice(&second)))
        BUG("encoded otherwise the second time");
    free(again);
    arena_free(arena);
    buf_free(&first);
    buf_free(&second);
}

/* Bytes as a message at a version: refused, or the same after going round, also over the bus. */
static inline void fuzz_message(const struct wire_type *t, int version, struct slice bytes)
{
    struct arena *arena = arena_new(FUZZ_ARENA_BYTES);
    void *msg = xmalloc(wire_struct_size(t));
    if (wire_decode(t, version, bytes, arena, msg, NULL) == 0) {
        struct buf json = {0};
        fuzz_again(t, version, msg);
        fuzz_again(t, WIRE_VERSION_BUS, msg);
        wire_json(t, version, msg, &json);
        buf_free(&json);
    }
    free(msg);
    arena_free(arena);
}

/* The version that a byte names: one of the message's own, or the bus. */
static inline int fuzz_version(const struct wire_type *t, uint8_t byte)
{
    int count = t->last - t->first + 2;
    int v = t->first + byte % count;
    return v > t->last ? WIRE_VERSION_BUS : v;
}

#endif
