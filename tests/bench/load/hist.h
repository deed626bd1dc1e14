/* hist.h - a histogram of latencies in µs: log-linear buckets, 64 a power of two, so a value is known to 1.6 %.
 *
 * Fixed memory (about 15 KiB); values above HIST_MAX_US count as HIST_MAX_US, the maximum itself is exact.
 * Threading: one writer; hist_add of two histograms when neither is written. */
#ifndef KARST_BENCH_HIST_H
#define KARST_BENCH_HIST_H

#include <stdint.h>

#define HIST_SUB_BITS 6
#define HIST_SUB      (1u << HIST_SUB_BITS)
#define HIST_POWERS   26
#define HIST_MAX_US   (((uint64_t)1 << (HIST_SUB_BITS + HIST_POWERS)) - 1) /* 71 minutes */
#define HIST_BUCKETS  ((HIST_POWERS + 1) * HIST_SUB)

struct hist {
    uint64_t count, max_us;
    uint64_t buckets[HIST_BUCKETS];
};

void hist_note(struct hist *h, uint64_t us);
void hist_add(struct hist *h, const struct hist *more);

/* The value that the part (0 to 1) of all values does not exceed: the upper end of its bucket; 0 when empty. */
uint64_t hist_quantile(const struct hist *h, double part);

#endif
