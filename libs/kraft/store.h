/* store.h - what a controller keeps on disk, DIR/__cluster_metadata-0: the log, its snapshots, quorum-state. All in
 * Kafka's formats.
 *
 * Does blocking I/O through the table of libs/log/file.h, so that the simulator runs it. After an error from anything
 * that writes, what is on disk is not known to be durable: the process has to end and start anew. After a flush that
 * failed (.karst_flush_failed in the folder, libs/log/logdir.h) the next start writes the whole log again before it
 * counts for anything. Threading: the owner's thread only. */
#ifndef KARST_KRAFT_STORE_H
#define KARST_KRAFT_STORE_H

#include "libs/kraft/kraft.h"
#include "libs/log/log.h"

struct kraft_store;

struct kraft_store_options {
    const struct file_system *fs;
    const char *log_dir;   /* the folder that __cluster_metadata-0 is in */
    int32_t segment_bytes; /* metadata.log.segment.bytes */
    int64_t segment_ms;    /* metadata.log.segment.ms */
    uint64_t roll_bytes;   /* of the log before a snapshot lets its segments go; 0: 1 MiB */
    int64_t now_wall_ms;
    log_note_fn *note; /* may be NULL */
    void *note_ctx;
};

/* 0, or -errno with *ret_message (the caller frees). */
NODISCARD int kraft_store_open(const struct kraft_store_options *o, struct kraft_store **ret_store, char **ret_message);
/* What is staged and not committed is lost. Takes NULL. 0 or -errno: the next start has more to check, nothing else. */
NODISCARD int kraft_store_close(struct kraft_store *s, int64_t now_wall_ms);

/* The newest snapshot: its bytes, valid until the next kraft_store_put_snapshot or kraft_store_forget; null: there is
 * none. */
struct slice kraft_store_snapshot(struct kraft_store *s, int64_t *ret_end_offset, int32_t *ret_epoch);
/* Where it ends, without reading it; false: there is none. */
bool kraft_store_has_snapshot(const struct kraft_store *s, int64_t *ret_end_offset, int32_t *ret_epoch);
/* Gives back the memory of the snapshot's bytes; they are read again when asked for. */
void kraft_store_forget(struct kraft_store *s);

/* False: there was no file. */
bool kraft_store_state(const struct kraft_store *s, struct kraft_quorum_state *ret_state);
NODISCARD int kraft_store_save_state(struct kraft_store *s, const struct kraft_quorum_state *state);

int64_t kraft_store_start(const struct kraft_store *s);
int64_t kraft_store_end(const struct kraft_store *s);
int32_t kraft_store_last_epoch(const struct kraft_store *s); /* 0: none */

/* Whole batches from offset on, before end, up to max_bytes but at least one, put at the end of out. 0, -ERANGE: offset
 * is not in the log; -errno. */
NODISCARD int kraft_store_read(struct kraft_store *s, int64_t offset, int64_t end, size_t max_bytes, struct buf *out);

/* Takes note of a batch that starts at the log's end; it is written and flushed by kraft_store_commit, with all others
 * of the turn. 0, -errno. */
NODISCARD int kraft_store_stage(struct kraft_store *s, struct slice batch, int64_t now_wall_ms);
bool kraft_store_has_staged(const struct kraft_store *s);
/* -EBUSY: another process has written to the log (Kafka in combined mode does so before it asks for the folder's lock).
 */
NODISCARD int kraft_store_commit(struct kraft_store *s);

/* Keeps what is before offset; what is staged is written first. 0 or -errno. */
NODISCARD int kraft_store_truncate(struct kraft_store *s, int64_t offset);
/* Another node's snapshot becomes the newest, and the log, emptied, goes on at end_offset. 0 or -errno. */
NODISCARD int kraft_store_install(struct kraft_store *s, int64_t end_offset, int32_t epoch, struct slice bytes,
                                  int64_t now_wall_ms);
/* The epochs of the log and where they start, oldest first; *ret_epochs is the caller's to free, NULL: none. */
void kraft_store_epochs(const struct kraft_store *s, struct kraft_epoch_start **ret_epochs, size_t *ret_count);

/* A snapshot of all before end_offset becomes the newest; older ones and the segments below it go. 0 or -errno. */
NODISCARD int kraft_store_put_snapshot(struct kraft_store *s, int64_t end_offset, int32_t epoch, struct slice bytes,
                                       int64_t now_wall_ms);
/* Bytes of the log since the newest snapshot. */
uint64_t kraft_store_bytes_since_snapshot(const struct kraft_store *s);

#endif
