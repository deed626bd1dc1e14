#include "tests/bench/load/load.h"

#define BURST_US 100.0

void load_sleep_until(uint64_t us)
{
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

void schedule_begin(struct schedule *s, uint64_t start_us, double seconds, double rate, uint64_t limit)
{
    *s = (struct schedule){.start_us = start_us, .limit = limit > 0 ? limit : UINT64_MAX};
    s->end_us = s->give_up_us = UINT64_MAX;
    if (seconds > 0) {
        s->end_us = start_us + (uint64_t)(seconds * 1e6);
        s->give_up_us = start_us + (uint64_t)(seconds * 2e6);
    }
    if (rate > 0) {
        s->interval_us = 1e6 / rate < BURST_US ? BURST_US : 1e6 / rate;
        s->per_burst = rate * s->interval_us / 1e6;
    }
}

bool schedule_next(struct schedule *s, uint64_t now_us, uint64_t *ret_due_us)
{
    if (s->given >= s->limit || (s->interval_us <= 0 && now_us >= s->end_us) || now_us >= s->give_up_us) {
        *ret_due_us = UINT64_MAX;
        return false;
    }
    if (s->interval_us <= 0) {
        *ret_due_us = now_us;
        return true;
    }
    uint64_t burst = (uint64_t)((double)s->given / s->per_burst);
    uint64_t due = s->start_us + (uint64_t)((double)burst * s->interval_us);
    if (due >= s->end_us) {
        *ret_due_us = UINT64_MAX;
        return false;
    }
    *ret_due_us = due;
    return due <= now_us;
}

void schedule_take(struct schedule *s)
{
    s->given++;
}
