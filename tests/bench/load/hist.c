#include "tests/bench/load/hist.h"

/* Values below 2 * HIST_SUB have buckets of their own; above, each power of two has HIST_SUB buckets. */
static unsigned bucket_of(uint64_t us)
{
    if (us > HIST_MAX_US)
        us = HIST_MAX_US;
    if (us < HIST_SUB)
        return (unsigned)us;
    unsigned power = 63 - (unsigned)__builtin_clzll(us) - HIST_SUB_BITS;
    return (power + 1) * HIST_SUB + (unsigned)(us >> power) - HIST_SUB;
}

static uint64_t upper_end(unsigned bucket)
{
    if (bucket < HIST_SUB)
        return bucket;
    unsigned power = bucket / HIST_SUB - 1;
    return (((uint64_t)(bucket % HIST_SUB) + HIST_SUB + 1) << power) - 1;
}

void hist_note(struct hist *h, uint64_t us)
{
    h->buckets[bucket_of(us)]++;
    h->count++;
    if (us > h->max_us)
        h->max_us = us;
}

void hist_add(struct hist *h, const struct hist *more)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++)
        h->buckets[i] += more->buckets[i];
    h->count += more->count;
    if (more->max_us > h->max_us)
        h->max_us = more->max_us;
}

uint64_t hist_quantile(const struct hist *h, double part)
{
    uint64_t wanted = (uint64_t)(part * (double)h->count), seen = 0;
    if (h->count == 0)
        return 0;
    if (wanted >= h->count)
        wanted = h->count - 1;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted)
            return upper_end(i) < h->max_us ? upper_end(i) : h->max_us;
    }
    return h->max_us;
}
