/* test_measure.c - what the figures of karst-load rest on: the histogram, and when records are due. */
#include <criterion/criterion.h>

#include "tests/bench/load/load.h"

Test(hist, knows_small_values_exactly_and_large_ones_to_two_percent)
{
    for (uint64_t us = 0; us < HIST_MAX_US; us = us < 200 ? us + 1 : us + us / 7) {
        struct hist h = {0};
        hist_note(&h, us);
        hist_note(&h, HIST_MAX_US);
        uint64_t seen = hist_quantile(&h, 0.25);
        cr_assert(seen >= us && seen <= us + us / 50, "%lu became %lu", us, seen);
    }
}

Test(hist, quantiles_of_a_ramp)
{
    struct hist a = {0}, b = {0};
    cr_assert_eq(hist_quantile(&a, 0.5), 0);
    for (uint64_t us = 1; us <= 100000; us++)
        hist_note(us % 2 == 0 ? &a : &b, us);
    hist_add(&a, &b);
    cr_assert_eq(a.count, 100000);
    cr_assert_float_eq((double)hist_quantile(&a, 0.5), 50000, 1000);
    cr_assert_float_eq((double)hist_quantile(&a, 0.99), 99000, 1600);
    cr_assert_eq(hist_quantile(&a, 1), 100000);
}

Test(hist, values_beyond_the_last_bucket_count_as_it)
{
    struct hist h = {0};
    hist_note(&h, UINT64_MAX);
    cr_assert_eq(h.count, 1);
    cr_assert_eq(h.max_us, UINT64_MAX);
    cr_assert_eq(hist_quantile(&h, 0.5), HIST_MAX_US);
}

static uint64_t take_all(struct schedule *s, uint64_t now_us)
{
    uint64_t due_us, n = 0;
    while (schedule_next(s, now_us, &due_us)) {
        cr_assert_leq(due_us, now_us);
        schedule_take(s);
        n++;
    }
    return n;
}

Test(schedule, records_are_due_when_the_rate_says_so_however_late_they_are_sent)
{
    struct schedule s;
    uint64_t due_us;
    schedule_begin(&s, 1000000, 1, 1000, 0);
    cr_assert(schedule_next(&s, 1000000, &due_us));
    cr_assert_eq(due_us, 1000000);
    schedule_take(&s);
    cr_assert_not(schedule_next(&s, 1000500, &due_us));
    cr_assert_eq(due_us, 1001000);
    cr_assert(schedule_next(&s, 1500000, &due_us), "half a second late");
    cr_assert_eq(due_us, 1001000, "and still due then");
    cr_assert_eq(take_all(&s, 2500000), 999);
    cr_assert_not(schedule_next(&s, 2500000, &due_us));
    cr_assert_eq(due_us, UINT64_MAX);
}

Test(schedule, high_rates_come_in_bursts_that_lose_nothing)
{
    struct schedule s;
    uint64_t due_us, n = 0;
    schedule_begin(&s, 0, 1, 123456, 0);
    for (uint64_t now_us = 0; now_us < 1000000; now_us += 100)
        n += take_all(&s, now_us);
    cr_assert(n >= 123455 && n <= 123457, "%lu", n);
    cr_assert_not(schedule_next(&s, 1000000, &due_us));
}

Test(schedule, ends_by_count_and_gives_up_after_twice_the_time)
{
    struct schedule s;
    uint64_t due_us;
    schedule_begin(&s, 0, 0, 0, 5);
    cr_assert_eq(take_all(&s, 77), 5);
    schedule_begin(&s, 0, 1, 1000, 0);
    cr_assert_not(schedule_next(&s, 2000000, &due_us));
    cr_assert_eq(due_us, UINT64_MAX);
}
