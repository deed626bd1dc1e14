/* snapshot.h - a snapshot of the metadata log as bytes (KIP-630): what is in OFFSET-EPOCH.checkpoint and
 * bootstrap.checkpoint.
 *
 * Batches with offsets of their own from 0 and the snapshot's epoch: a control batch with the header (and kraft version
 * and voters), the records, a control batch with the footer. Any thread. */
#ifndef KARST_KRAFT_SNAPSHOT_H
#define KARST_KRAFT_SNAPSHOT_H

#include "libs/metadata/image.h"
#include "libs/records/records.h"

struct kraft_snapshot {
    struct buf *out;
    struct batch_builder batch;
    struct batch_options options;
    int64_t now_ms;
    bool open; /* a batch is begun */
};

/* voters: the value of a VotersRecord; null: neither kraft version nor voters are written. The bytes go to the end of
 * out. */
void kraft_snapshot_begin(struct kraft_snapshot *s, struct buf *out, int32_t epoch, int64_t now_ms, int64_t last_log_ms,
                          int16_t kraft_version, struct slice voters);
void kraft_snapshot_add(struct kraft_snapshot *s, struct slice record_value);
void kraft_snapshot_end(struct kraft_snapshot *s);

/* The whole of an image. */
void kraft_snapshot_of(const struct image *i, int64_t now_ms, struct buf *out);

/* Is it whole: batches whose CRC holds, from a header to a footer? */
bool kraft_snapshot_is_whole(struct slice bytes);

enum { KRAFT_SNAPSHOT_NAME = 48 };
/* "00000000000000000042-0000000003.checkpoint" */
void kraft_snapshot_name(int64_t end_offset, int32_t epoch, char out[KRAFT_SNAPSHOT_NAME]);
bool kraft_snapshot_parse_name(const char *name, int64_t *ret_end_offset, int32_t *ret_epoch);

#endif
