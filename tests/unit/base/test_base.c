#include "libs/base/arena.h"
#include "libs/base/buf.h"
#include "libs/base/bytes.h"
#include "libs/base/kafka_error.h"
#include "libs/base/uuid.h"

#include <criterion/criterion.h>

Test(bytes, crc32c_of_the_standard_check_value)
{
    cr_assert_eq(bytes_crc32c(0, "123456789", 9), 0xe3069283u);
    cr_assert_eq(bytes_crc32c(bytes_crc32c(0, "12345", 5), "6789", 4), 0xe3069283u);
}

Test(bytes, varints_come_back_and_torn_ones_are_refused)
{
    const int64_t values[] = {0, 1, -1, 63, -64, 64, 300, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < COUNTOF(values); i++) {
        uint8_t b[10];
        int64_t v;
        size_t n = put_varint64(b, values[i]);
        cr_assert_eq(get_varint64(b, b + n, &v), n);
        cr_assert_eq(v, values[i]);
        for (size_t cut = 0; cut < n; cut++)
            cr_assert_eq(get_varint64(b, b + cut, &v), 0);
    }
    const uint8_t endless[11] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint32_t u;
    uint64_t w;
    cr_assert_eq(get_uvarint32(endless, endless + 11, &u), 0);
    cr_assert_eq(get_uvarint64(endless, endless + 11, &w), 0);
}

Test(arena, keeps_its_limit)
{
    struct arena *a = arena_new(10000);
    cr_assert_not_null(arena_try_alloc(a, 9000));
    cr_assert_null(arena_try_alloc(a, 1001));
    cr_assert_not_null(arena_try_alloc(a, 1000));
    arena_reset(a);
    cr_assert_eq(arena_used(a), 0);
    cr_assert_null(arena_try_alloc(a, SIZE_MAX));
    cr_assert_not_null(arena_try_alloc(a, 10000));
    arena_free(a);
}

Test(slice, hashes_as_java_does)
{
    cr_assert_eq(slice_java_hash(SLICE_OF("")), 0);
    cr_assert_eq(slice_java_hash(SLICE_OF("hello")), 99162322);
    cr_assert_eq(slice_java_hash(SLICE_OF("polygenelubricants")), INT32_MIN);
    cr_assert_eq(slice_coordinator_partition(SLICE_OF("polygenelubricants"), 50), 0);
    cr_assert_eq(slice_java_hash(SLICE_OF("\xf0\x9f\x98\x80")), 1772899); /* a surrogate pair */
}

Test(uuid, text_goes_both_ways)
{
    struct uuid u = {{1, 2, 3, 250, 251, 252, 253, 254, 255, 0, 10, 20, 30, 40, 50, 63}}, back;
    cr_assert_eq(uuid_parse(slice_str(uuid_to_text(u).s), &back), 0);
    cr_assert(uuid_eq(u, back));
    cr_assert_str_eq(uuid_to_text(UUID_ZERO).s, "AAAAAAAAAAAAAAAAAAAAAA");
    cr_assert_str_eq(uuid_to_text(UUID_METADATA_TOPIC).s, "AAAAAAAAAAAAAAAAAAAAAQ");
    cr_assert_eq(uuid_parse(SLICE_OF("AAAAAAAAAAAAAAAAAAAAA!"), &back), -EINVAL);
}

Test(kafka_error, names_every_code)
{
    cr_assert_str_eq(kafka_error_name(-1), "UNKNOWN_SERVER_ERROR");
    cr_assert_str_eq(kafka_error_name(3), "UNKNOWN_TOPIC_OR_PARTITION");
    cr_assert_str_eq(kafka_error_name(133), kafka_error_name(133));
    cr_assert_str_eq(kafka_error_name(4000), "UNKNOWN_SERVER_ERROR");
    cr_assert(kafka_error_retriable(KERR_NOT_LEADER_OR_FOLLOWER));
    cr_assert_not(kafka_error_retriable(KERR_INVALID_REQUEST));
}

Test(buf, grows_and_consumes)
{
    struct buf b = {0};
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%d,", i);
    buf_consume(&b, 2);
    cr_assert_eq(memcmp(b.data, "1,2,3,", 6), 0);
    buf_free(&b);
    cr_assert_eq(b.size, 0);
}

/* The check value of CRC-32, and that a hole of zeros does not pass for a message. */
Test(bytes, crc32)
{
    static const uint8_t zeros[64];
    cr_expect_eq(bytes_crc32("123456789", 9), 0xcbf43926u);
    cr_expect_neq(bytes_crc32(zeros, sizeof zeros), 0u);
}
