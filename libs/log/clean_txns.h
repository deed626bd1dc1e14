/* clean_txns.h - inside libs/log: which transactions a cleaner that goes through a log is in, and what that says of the
 * batches it meets (Kafka's CleanedTransactionMetadata).
 *
 * Records of an aborted transaction go. A marker may go once none of its transaction's batches is left in the log; that
 * it waits for its delete horizon before is the caller's to see to. An aborted transaction of which batches are left
 * stays in the .txnindex.
 * Threading: one at a time, whoever cleans. */
#ifndef KARST_LOG_CLEAN_TXNS_H
#define KARST_LOG_CLEAN_TXNS_H

#include "libs/base/buf.h"
#include "libs/log/file.h"
#include "libs/records/records.h"

enum { TXN_ENTRY = 34, TXN_INDEX_MAX_BYTES = 64 * 1024 * 1024 };

/* The aborted transactions of a log, in the order of their first offsets. */
struct clean_aborts {
    struct clean_abort *at;
    size_t count, capacity;
};
/* Adds the entries of a .txnindex file's bytes. 0, or -EBADMSG. */
NODISCARD int clean_aborts_add(struct clean_aborts *a, struct slice bytes);
void clean_aborts_sort(struct clean_aborts *a); /* once, behind the last of them */
void clean_aborts_free(struct clean_aborts *a);

struct clean_txns;
/* From a batch boundary at offset from on. The aborts outlive it. */
NODISCARD struct clean_txns *clean_txns_new(const struct clean_aborts *aborts, int64_t from);
struct clean_txns *clean_txns_free(struct clean_txns *t); /* takes NULL; returns NULL */

/* The next batch that is no control batch: is it of an aborted transaction? */
bool clean_txns_on_batch(struct clean_txns *t, const struct batch *b);
/* The next control batch, of that type (-1: it has no records any more): may it go? index (may be NULL) gets the
 * .txnindex entry of an aborted transaction that is to be kept. */
bool clean_txns_on_control(struct clean_txns *t, const struct batch *b, int type, struct buf *index);

#endif
