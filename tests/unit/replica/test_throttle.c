/* What went through lately, and whom a list names. */
#include "libs/replica/throttle.h"
#include <criterion/criterion.h>

Test(throttle, ten_seconds_worth_may_go_at_once)
{
    struct throttle t = {0};
    uint64_t now = 5000000;
    cr_assert(!throttle_exceeded(&t, now, 0));
    throttle_record(&t, now, 1000);
    cr_assert(throttle_exceeded(&t, now, 0));
    cr_assert(!throttle_exceeded(&t, now, 100));
    throttle_record(&t, now, 1);
    cr_assert(throttle_exceeded(&t, now, 100));
    cr_assert(!throttle_exceeded(&t, now, INT64_MAX));
    cr_assert(throttle_exceeded(&t, now + 10000, 100));
    cr_assert(!throttle_exceeded(&t, now + 11000, 100), "its window is over");
    throttle_record(&t, now + 11000, 1000);
    cr_assert(!throttle_exceeded(&t, now + 11000, 100), "the one that had its place does not count");
}

Test(throttle, a_list_names_replicas)
{
    cr_assert(throttle_names(slice_str("*"), 4, 7));
    cr_assert(throttle_names(slice_str("0:1,4:7"), 4, 7));
    cr_assert(throttle_names(slice_str("0:1, 4:7"), 4, 7));
    cr_assert(!throttle_names(slice_str("0:1,4:77,44:7"), 4, 7));
    cr_assert(!throttle_names(slice_str(""), 4, 7));
    cr_assert(!throttle_names(SLICE_NULL, 4, 7));
    cr_assert(!throttle_names(slice_str("none"), 4, 7));
    cr_assert(!throttle_names(slice_str("99999999999999999999:7"), 4, 7));
}

Test(throttle, bytes_count_less_at_the_end_of_a_window_at_the_earliest)
{
    struct throttle t = {0};
    uint64_t now = 100 * THROTTLE_WINDOW_MS + 7;
    throttle_record(&t, now, 1001);
    uint64_t last = now + (THROTTLE_WINDOWS - 1) * THROTTLE_WINDOW_MS, next = throttle_next_ms(last);
    cr_assert_eq(throttle_next_ms(now), 101 * THROTTLE_WINDOW_MS);
    cr_assert(throttle_exceeded(&t, next - 1, 100));
    cr_assert(!throttle_exceeded(&t, next, 100));
    cr_assert_eq(throttle_next_ms(next), next + THROTTLE_WINDOW_MS, "its beginning is the end of the one before");
}
