/* What holds for every message at every version: defaults and random values go round, truncations are refused, unknown
 * tags are skipped, the bus changes nothing, JSON is JSON. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>

#include "libs/wire/table.h"
#include "tests/wire/fill.h"

typedef void check_fn(const struct wire_type *t, int version, struct arena *arena, uint64_t *state);

static void each_version(bool with_bus, check_fn *check)
{
    struct arena *arena = arena_new(0);
    uint64_t state = 42;
    for (unsigned i = 0; i < wire_folder_start[WIRE_FOLDERS]; i++) {
        const struct wire_type *t = wire_messages[i];
        for (int v = t->first; v <= t->last; v++, arena_reset(arena))
            check(t, v, arena, &state);
        if (with_bus)
            check(t, WIRE_VERSION_BUS, arena, &state);
        arena_reset(arena);
    }
    arena_free(arena);
}

static void *new_message(const struct wire_type *t, struct arena *arena)
{
    return arena_alloc(arena, wire_struct_size(t));
}

/* Decodes and encodes again; the bytes must be the same. */
static void expect_same(const struct wire_type *t, int version, struct slice bytes, struct arena *arena)
{
    struct buf again = {0};
    void *msg = new_message(t, arena);
    size_t used = 0;
    cr_assert_eq(wire_decode(t, version, bytes, arena, msg, &used), 0, "%s %d", wire_name(t), version);
    cr_assert_eq(used, bytes.size, "%s %d", wire_name(t), version);
    cr_assert_eq(wire_encode(t, version, msg, &again), 0, "%s %d", wire_name(t), version);
    cr_assert(slice_eq(bytes, buf_slice(&again)), "%s %d", wire_name(t), version);
    buf_free(&again);
}

static void check_default(const struct wire_type *t, int version, struct arena *arena, uint64_t *state UNUSED)
{
    struct buf b = {0};
    void *msg = new_message(t, arena);
    wire_init(t, msg);
    cr_assert_eq(wire_encode(t, version, msg, &b), 0, "%s %d", wire_name(t), version);
    expect_same(t, version, buf_slice(&b), arena);
    buf_free(&b);
}

Test(wire_every, default_goes_round)
{
    each_version(true, check_default);
}

static void random_bytes(const struct wire_type *t, int version, struct arena *arena, uint64_t *state, struct buf *out)
{
    void *msg = new_message(t, arena);
    fill_message(state, t, version, arena, msg);
    cr_assert_eq(wire_encode(t, version, msg, out), 0, "%s %d", wire_name(t), version);
}

static void check_random(const struct wire_type *t, int version, struct arena *arena, uint64_t *state)
{
    for (int i = 0; i < 10; i++) {
        struct buf b = {0};
        random_bytes(t, version, arena, state, &b);
        expect_same(t, version, buf_slice(&b), arena);
        buf_free(&b);
    }
}

Test(wire_every, random_goes_round)
{
    each_version(true, check_random);
}

/* Each prefix stands in memory of its own size, so that a sanitizer sees one byte too many. */
static void check_truncated(const struct wire_type *t, int version, struct arena *arena, uint64_t *state)
{
    struct buf b = {0};
    random_bytes(t, version, arena, state, &b);
    struct arena *scratch = arena_new(0);
    for (size_t size = 0; size < b.size; size += size < 200 || b.size - size < 50 ? 1 : 37, arena_reset(scratch)) {
        uint8_t *prefix = xmalloc(size + 1);
        memcpy(prefix, b.data, size);
        prefix = xrealloc(prefix, size ? size : 1);
        void *msg = new_message(t, scratch);
        cr_assert_eq(wire_decode(t, version, slice_make(prefix, size), scratch, msg, NULL), -EBADMSG, "%s %d at %zu",
                     wire_name(t), version, size);
        free(prefix);
    }
    arena_free(scratch);
    buf_free(&b);
}

Test(wire_every, truncation_is_refused)
{
    each_version(true, check_truncated);
}

/* Bytes overwritten at random, above all by what makes lengths large: any answer, but within the limit of memory. */
static void check_lies(const struct wire_type *t, int version, struct arena *arena, uint64_t *state)
{
    static const uint8_t lies[] = {0xff, 0x7f, 0x80, 0x00, 0x01, 0xfe};
    struct buf b = {0};
    random_bytes(t, version, arena, state, &b);
    enum { LIMIT = 64 * 1024 };
    struct arena *scratch = arena_new(LIMIT);
    void *msg = xmalloc(wire_struct_size(t));
    for (int i = 0; i < 100 && b.size; i++, arena_reset(scratch)) {
        uint8_t *copy = xmalloc(b.size);
        memcpy(copy, b.data, b.size);
        size_t at = fill_random(state) % b.size, n = 1 + fill_random(state) % 5;
        for (size_t k = at; k < b.size && k < at + n; k++)
            copy[k] = lies[fill_random(state) % COUNTOF(lies)];
        int e = wire_decode(t, version, slice_make(copy, b.size), scratch, msg, NULL);
        cr_assert(e == 0 || e == -EBADMSG || e == -ENOSPC, "%s %d: %d", wire_name(t), version, e);
        cr_assert_leq(arena_used(scratch), LIMIT);
        free(copy);
    }
    free(msg);
    arena_free(scratch);
    buf_free(&b);
}

Test(wire_every, lies_are_survived)
{
    each_version(true, check_lies);
}

/* The tag section of a default message is its last byte. */
static void check_unknown_tags(const struct wire_type *t, int version, struct arena *arena, uint64_t *state UNUSED)
{
    if (!wire_is_flexible(t, version))
        return;
    struct buf b = {0}, tagged = {0}, again = {0};
    void *msg = new_message(t, arena);
    size_t used = 0;
    wire_init(t, msg);
    cr_assert_eq(wire_encode(t, version, msg, &b), 0);
    cr_assert_eq(b.data[b.size - 1], 0);
    buf_append(&tagged, b.data, b.size - 1);
    buf_append(&tagged, "\2\x78\3abc\xf4\x07\0", 9);
    cr_assert_eq(wire_decode(t, version, buf_slice(&tagged), arena, msg, &used), 0, "%s %d", wire_name(t), version);
    cr_assert_eq(used, tagged.size);
    cr_assert_eq(wire_encode(t, version, msg, &again), 0);
    cr_assert(slice_eq(buf_slice(&again), buf_slice(&b)), "%s %d", wire_name(t), version);
    tagged.data[b.size + 1] = 0x70; /* the unknown field claims more than there is */
    cr_assert_eq(wire_decode(t, version, buf_slice(&tagged), arena, msg, &used), -EBADMSG);
    buf_free(&b);
    buf_free(&tagged);
    buf_free(&again);
}

Test(wire_every, unknown_tags_are_skipped)
{
    each_version(true, check_unknown_tags);
}

/* What can be said at a version arrives over the bus unchanged. */
static void check_bus(const struct wire_type *t, int version, struct arena *arena, uint64_t *state)
{
    for (int i = 0; i < 5; i++) {
        struct buf direct = {0}, bus = {0}, again = {0};
        void *msg = new_message(t, arena), *arrived = new_message(t, arena);
        fill_message(state, t, version, arena, msg);
        cr_assert_eq(wire_encode(t, version, msg, &direct), 0);
        cr_assert_eq(wire_encode(t, WIRE_VERSION_BUS, msg, &bus), 0, "%s %d", wire_name(t), version);
        cr_assert_eq(wire_decode(t, WIRE_VERSION_BUS, buf_slice(&bus), arena, arrived, NULL), 0, "%s %d", wire_name(t),
                     version);
        cr_assert_eq(wire_encode(t, version, arrived, &again), 0);
        cr_assert(slice_eq(buf_slice(&direct), buf_slice(&again)), "%s %d", wire_name(t), version);
        buf_free(&direct);
        buf_free(&bus);
        buf_free(&again);
    }
}

Test(wire_every, bus_changes_nothing)
{
    each_version(false, check_bus);
}

static void check_json(const struct wire_type *t, int version, struct arena *arena, uint64_t *state)
{
    struct buf b = {0};
    json_error_t error;
    void *msg = new_message(t, arena);
    fill_message(state, t, version, arena, msg);
    wire_json(t, version, msg, &b);
    json_t *json = json_loadb((const char *)b.data, b.size, 0, &error);
    cr_assert_not_null(json, "%s %d: %s in " SLICE_F, wire_name(t), version, error.text, SLICE_A(buf_slice(&b)));
    json_decref(json);
    buf_free(&b);
}

Test(wire_every, json_is_json)
{
    each_version(true, check_json);
}
