/* clean_filter.h - inside libs/log: what compaction leaves of one batch (Kafka 4.3.1: Cleaner.cleanInto,
 * MemoryRecords.filterTo).
 *
 *   every record stays           the batch stays as it is
 *   some stay                    they are written anew, in the batch's codec, under the batch's own offsets
 *   none, and it must not go     an empty batch: the last sequence of a live producer, or the last batch of the round
 *   none                         nothing
 * A batch that keeps its first tombstone, or a marker whose transaction is gone, gets its delete horizon
 * (KIP-534): attribute bit 6, and the time in baseTimestamp, to which the records' timestamps then count.
 * Threading: one at a time, whoever cleans. */
#ifndef KARST_LOG_CLEAN_FILTER_H
#define KARST_LOG_CLEAN_FILTER_H

#include "libs/log/clean_map.h"
#include "libs/log/clean_txns.h"

/* A producer that is not forgotten yet. */
struct clean_producer {
    int64_t id;
    int64_t last_offset; /* of its last data batch; -1: it has none, its last marker stays */
    int16_t epoch;
};

struct clean_filter {
    const struct clean_map *map;
    int64_t mapped_to;  /* offsets from here on are not in the map, and stay */
    int64_t round_end;  /* the batch that ends there stays, if only as an empty one */
    int64_t horizon_ms; /* the delete horizon of what is marked now, wall clock */
    int64_t now_wall_ms;
    const struct clean_producer *producers; /* by id */
    size_t producer_count;
    struct clean_txns *txns;
    struct buf txn_index; /* entries that are kept, of the present segment */
    struct buf scratch, body;
    struct compress_reader *reader; /* NULL: no batch was compressed so far */
    struct compress_writer *writer; /* the same */
    struct clean_piece *pieces;     /* the records of one batch that stay */
    size_t piece_capacity;
    uint64_t records_read, records_kept;
};
void clean_filter_free(struct clean_filter *f); /* what it has allocated itself, and txns */

/* A batch of magic 2 whose CRC holds, in the order of the log: what stays of it is appended to out. 1 with its header;
 * 0: nothing stays; -EBADMSG: its records cannot be read; -EFBIG: too big once it is written anew; -errno of the codec.
 */
NODISCARD int clean_filter_batch(struct clean_filter *f, const struct batch *b, struct slice bytes, struct buf *out,
                                 struct batch *ret_kept);

/* Starts over the records of a batch, until the next call with f. 0, or the errors of record_iter_init. */
NODISCARD int clean_records(struct clean_filter *f, const struct batch *b, struct slice bytes, struct record_iter *it);
/* The type of a control batch; -1: it has no records; -EBADMSG. */
NODISCARD int clean_control_type(struct clean_filter *f, const struct batch *b, struct slice bytes, int *ret_type);

#endif
