/* producers.h - inside libs/log: what a log knows of each idempotent or transactional producer (KIP-98), and its
 * snapshot files: int16 version 1, uint32 CRC-32C of what follows it, int32 count, then 46 bytes each: producerId 8,
 * epoch 2, lastSequence 4, lastOffset 8, offsetDelta 4, timestamp 8, coordinatorEpoch 4, currentTxnFirstOffset 8
 *
 * I1  a producer has at most PRODUCER_BATCHES batches, oldest first, all of its present epoch.
 * Memory is bounded by expiry: producer.id.expiration.ms after its last batch a producer is forgotten. */
#ifndef KARST_LOG_PRODUCERS_H
#define KARST_LOG_PRODUCERS_H

#include "libs/log/file.h"
#include "libs/log/log.h"

enum { PRODUCER_BATCHES = 5, PRODUCER_ENTRY_SIZE = 46, PRODUCER_SNAPSHOT_HEADER = 10 };

struct producer_batch {
    int32_t last_sequence, offset_delta;
    int64_t last_offset, timestamp;
};

struct producers;
struct producer_undo; /* what a producer was before a staged batch */

NODISCARD struct producers *producers_new(void);
struct producers *producers_free(struct producers *p);
void producers_clear(struct producers *p);
size_t producers_count(const struct producers *p);

/* May a client's batch be appended? NONE with *ret_duplicate true: it is one of the last five, *ret_seen says where. */
enum kafka_error producers_check(const struct producers *p, const struct batch *b, bool *ret_duplicate,
                                 struct producer_batch *ret_seen);
/* Notes an appended batch (with its offset) that has a producer. marker: for a control batch, commit or abort, with the
 * coordinator's epoch; anything else ignores those two. */
void producers_apply(struct producers *p, const struct batch *b, int marker, int32_t coordinator_epoch);
/* The same, but to be undone: what was there is copied to memory of the caller's, producers_undo_size() bytes, and put
 * in front of *undo. To settle it, forget *undo. */
size_t producers_undo_size(void);
void producers_apply_staged(struct producers *p, const struct batch *b, int marker, int32_t coordinator_epoch,
                            void *memory, struct producer_undo **undo);
void producers_undo(struct producers *p, struct producer_undo **undo);

void producers_expire(struct producers *p, int64_t now_wall_ms, int64_t expiration_ms);
/* The first offset of the oldest open transaction; -1: none is open. */
int64_t producers_first_open(const struct producers *p);
/* The first offset of a producer's open transaction; -1: it has none. */
int64_t producers_open_since(const struct producers *p, int64_t producer_id);
void producers_each(const struct producers *p, log_producer_fn *fn, void *ctx);
/* The last offset of each producer's last data batch; -1: none is known of its epoch. */
typedef void producers_last_fn(void *ctx, int64_t id, int16_t epoch, int64_t last_offset);
void producers_each_last(const struct producers *p, producers_last_fn *fn, void *ctx);

/* every_batch: an entry for each remembered batch, oldest first, and not only for the last as Kafka writes them. Who
 * reads it as Kafka does (the last entry of a producer counts) gets the same. */
NODISCARD int producers_write_snapshot(const struct producers *p, const struct file_system *fs, const char *dir,
                                       int64_t offset, bool every_batch);
/* Is more known of some producer than a snapshot as Kafka writes it would hold? */
bool producers_remember_more(const struct producers *p);
/* Replaces what is known. -EBADMSG: not a snapshot, nothing is known then. */
NODISCARD int producers_parse_snapshot(struct producers *p, struct slice bytes, int64_t now_wall_ms,
                                       int64_t expiration_ms);
NODISCARD int producers_load_snapshot(struct producers *p, const struct file_system *fs, const char *dir,
                                      int64_t offset, int64_t now_wall_ms, int64_t expiration_ms);

#endif
