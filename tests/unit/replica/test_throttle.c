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
