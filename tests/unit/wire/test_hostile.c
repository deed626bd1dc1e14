/* Bytes that lie, by hand: sizes and counts against the memory that they would take, tags, nulls. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "kafka/describe_topic_partitions.h"
#include "kafka/fetch.h"
#include "kafka/group_consumer_group_member_metadata.h"
#include "kafka/metadata.h"
#include "libs/base/bytes.h"

static int decode(const struct wire_type *t, int version, struct slice bytes, struct arena *arena)
{
    void *msg = xmalloc(wire_struct_size(t));
    int e = wire_decode(t, version, bytes, arena, msg, NULL);
    free(msg);
    return e;
}

/* A million topics in six bytes: refused by what is left, before memory is taken. */
Test(wire_hostile, count_beyond_the_bytes)
{
    struct arena *arena = arena_new(0);
    cr_assert_eq(decode(&kafka_metadata_request_type, 1, SLICE_OF("\x00\x0f\x42\x40zz"), arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 1, SLICE_OF("\x7f\xff\xff\xff"), arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 9, SLICE_OF("\xc1\x84\x3dzz"), arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 9, SLICE_OF("\xff\xff\xff\xff\x0f"), arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 9, SLICE_OF("\xff\xff\xff\xff\x1f"), arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 9, SLICE_OF("\xff\xff\xff\xff\xff\x01"), arena), -EBADMSG);
    cr_assert_eq(arena_used(arena), 0);
    arena_free(arena);
}

/* A million topics that are there, each two bytes: refused by the arena's limit, before memory is taken. */
Test(wire_hostile, count_beyond_the_memory)
{
    enum { TOPICS = 1000000, LIMIT = 1 << 20 };
    struct arena *arena = arena_new(LIMIT);
    size_t size = 4 + 2 * TOPICS;
    uint8_t *bytes = xcalloc(1, size);
    put_i32(bytes, TOPICS);
    cr_assert_eq(decode(&kafka_metadata_request_type, 1, slice_make(bytes, size), arena), -ENOSPC);
    cr_assert_eq(arena_used(arena), 0);
    free(bytes);
    arena_free(arena);
}

Test(wire_hostile, nulls)
{
    struct arena *arena = arena_new(0);
    cr_assert_eq(decode(&kafka_metadata_request_type, 0, SLICE_OF("\xff\xff\xff\xff"), arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 1, SLICE_OF("\xff\xff\xff\xff"), arena), 0);
    cr_assert_eq(decode(&kafka_metadata_request_type, 1, SLICE_OF("\0\0\0\1\xff\xff"), arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 1, SLICE_NULL, arena), -EBADMSG);
    cr_assert_eq(decode(&kafka_metadata_request_type, 14, SLICE_OF("\0\0\0\0"), arena), -EINVAL);
    cr_assert_eq(decode(&kafka_metadata_request_type, -1, SLICE_OF("\0\0\0\0"), arena), -EINVAL);
    /* Cursor, a struct that may be null. */
    struct kafka_describe_topic_partitions_request m;
    cr_assert_eq(
        wire_decode(&kafka_describe_topic_partitions_request_type, 0, SLICE_OF("\1\0\0\0\1\xff\0"), arena, &m, NULL),
        0);
    cr_assert_null(m.cursor);
    cr_assert_eq(wire_decode(&kafka_describe_topic_partitions_request_type, 0, SLICE_OF("\1\0\0\0\1\1\2x\0\0\0\7\0\0"),
                             arena, &m, NULL),
                 0);
    cr_assert_eq(m.cursor->partition_index, 7);
    arena_free(arena);
}

/* Fetch 12, one tag: 0 ClusterId. */
Test(wire_hostile, tags)
{
#define FETCH "\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\1\1"
    struct arena *arena = arena_new(0);
    struct kafka_fetch_request m;
    const struct wire_type *t = &kafka_fetch_request_type;
    cr_assert_eq(wire_decode(t, 12, SLICE_OF(FETCH "\1\0\3\3id"), arena, &m, NULL), 0);
    cr_assert(slice_eq_str(m.cluster_id, "id"));
    cr_assert_eq(wire_decode(t, 12, SLICE_OF(FETCH "\1\0\4\3id?"), arena, &m, NULL),
                 -EBADMSG); /* larger than its value */
    cr_assert_eq(wire_decode(t, 12, SLICE_OF(FETCH "\1\0\2\3id"), arena, &m, NULL), -EBADMSG); /* smaller */
    cr_assert_eq(wire_decode(t, 12, SLICE_OF(FETCH "\x7f\0\3\3id"), arena, &m, NULL), -EBADMSG);
    /* ReplicaState came with version 15: before it the tag is not known, and skipped. */
    cr_assert_eq(wire_decode(t, 12, SLICE_OF(FETCH "\1\1\3abc"), arena, &m, NULL), 0);
    cr_assert_eq(m.replica_state.replica_id, -1);
    cr_assert(slice_is_null(m.cluster_id));
    arena_free(arena);
}

/* The one pointer whose default is no null: an empty struct that is not written. */
Test(wire_hostile, pointer_with_a_default)
{
    struct kafka_consumer_group_member_metadata_value m;
    const struct wire_type *t = &kafka_consumer_group_member_metadata_value_type;
    struct buf without = {0}, with = {0};
    kafka_consumer_group_member_metadata_value_init(&m);
    cr_assert_not_null(m.classic_member_metadata);
    cr_assert_eq(wire_encode(t, 0, &m, &without), 0);
    m.classic_member_metadata = NULL;
    cr_assert_eq(wire_encode(t, 0, &m, &with), 0);
    cr_assert_eq(with.size, without.size + 3); /* tag, size, null */
    buf_free(&without);
    buf_free(&with);
}
