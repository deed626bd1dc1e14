/* found.h - inside libs/log: what a start finds in a partition's folder. */
#ifndef KARST_LOG_FOUND_H
#define KARST_LOG_FOUND_H

#include "libs/log/internal.h"

/* Lists are malloc'ed; found_free. */
struct found {
    struct log *l;
    int64_t *bases, *swaps; /* swaps: of any kind, some more than once */
    struct snapshot_list snapshots;
    int64_t *aborted; /* of N.txnindex */
    size_t base_count, swap_count, aborted_count;
    int64_t min_cleaned;                 /* INT64_MAX: none */
    int64_t max_unfinished, max_deleted; /* of .cleaned and .swap, and of .log.deleted; -1: none */
};

void found_init(struct found *f, struct log *l);
void found_free(struct found *f);
/* Lists the folder, removes what was being deleted or was not whole, and takes finished swaps into use. Then bases are
 * those of the log files, ascending. 0 or -errno. */
NODISCARD int found_settle(struct found *f);

#endif
