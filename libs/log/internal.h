/* internal.h - inside libs/log: what the files of a log share. */
#ifndef KARST_LOG_INTERNAL_H
#define KARST_LOG_INTERNAL_H

#include "libs/base/log.h"
#include "libs/log/epochs.h"
#include "libs/log/log.h"
#include "libs/log/logdir.h"
#include "libs/log/producers.h"
#include "libs/log/segment.h"
#include "libs/log/staging.h"

enum { LOG_HINTS = 8 };

/* Where the first batch begins that ends at or behind offset: of batches that were appended lately, which readers at
 * the tail ask for, and of what lies behind the last reads, which readers further back ask for next. */
struct hint {
    int64_t offset; /* -1: unused */
    int64_t segment;
    uint64_t position;
    uint32_t size; /* of that batch; 0: not known, nor if it is there */
};
struct hints {
    struct hint at[LOG_HINTS];
    size_t next;
};

/* A segment whose files are renamed to *.deleted and go at due_ms. */
struct log_removal {
    struct log_removal *next;
    struct segment *segment;
    int64_t due_ms;
};

/* producer.id.expiration.check.interval.ms, a key that Kafka keeps to itself. Times are those of the records: whoever
 * writes old ones would lose its state, and with it the recognition of what it sends again, at every look. */
enum { LOG_EXPIRE_EVERY_MS = 600000 };

/* Offsets of the snapshot files of a folder. */
struct snapshot_list {
    int64_t *at;
    size_t count, capacity;
};
/* Adds a file's, when it is one's name. */
void snapshot_list_note(struct snapshot_list *list, const char *name);

struct log {
    const struct file_system *fs;
    char *dir;
    struct log_config config;
    struct uuid topic_id;
    log_note_fn *note;
    void *note_ctx;
    struct log_progress *progress; /* while it is being opened; may be NULL */
    struct snapshot_list *listed;  /* the same: what the folder has */

    struct segment **segments; /* by base; the last is the active one; never empty */
    size_t segment_count, segment_capacity;
    int64_t start, end, high_watermark;
    int64_t recovery_point; /* the records before it are flushed */
    int64_t sides_from;     /* from here on the side files of rolled segments are not; INT64_MAX: all are */
    int64_t staged_end;     /* end, with what is staged */
    bool hold_high_watermark;
    bool rewrite;   /* while it is opened */
    bool dir_dirty; /* files were made or renamed since the last flush */
    int failed;
    int64_t roll_jitter_ms;
    uint64_t jitter_seed;

    struct log_pool *pool;
    bool own_pool;
    struct descriptors *descriptors; /* the pool's; NULL while the log is being opened, on any thread */
    struct staging *staged;          /* batches that wait for log_commit, all for the active segment; NULL: none */
    uint64_t staged_bytes;
    struct producer_undo *undo; /* in the staging's memory */
    struct buf aborted;         /* entries of N.txnindex, of the abort markers that are staged */
    struct producers *producers;
    int64_t expire_due_ms;   /* wall; expired producers are looked for then */
    int64_t snapshot_offset; /* of the newest producer snapshot; -1: none */
    bool marked;             /* it is that of a mark */
    bool mark_made;          /* by this process: Kafka leaves none behind */
    int64_t mark_base;       /* the segment of the last mark that is durable; -1: none */
    uint64_t mark_bytes;     /* and how long it was then */
    struct epochs epochs;
    size_t epochs_staged; /* how many of its entries are committed, while something is staged */
    struct hints appended, read;
    struct read_mode mode;
    struct log_removal *doomed;
    uint32_t undos; /* how many times staged batches were taken back */
    /* Where the log ended when that happened, from number undone_first on: of what was staged before, all that lies
     * before it was in the log already. Kept until the next turn begins. */
    int64_t *undone_at;
    uint32_t undone_first;
    bool turn_over;
    struct log_clean *clean; /* the cleaning that is under way; NULL: none */
    struct log_move *move;   /* that is under way; NULL: none */
    unsigned truncations;    /* a flush that began before one says nothing about the log end */
};

static inline struct segment *log_active(const struct log *l)
{
    return l->segments[l->segment_count - 1];
}

void log_notef(struct log *l, int level, const char *format, ...) PRINTF_LIKE(3, 4);
/* Takes the log offline; returns err. */
int log_fail(struct log *l, int err, const char *what);

/* log.c */
/* The last part of its folder: TOPIC-PARTITION. */
const char *log_name(const struct log *l);
void log_add_segment(struct log *l, struct segment *s);
/* The segment that would hold offset: the last with base <= offset; the first when there is none. */
size_t log_segment_at(const struct log *l, int64_t offset);
void log_clear_hints(struct log *l);
static inline void log_add_hint(struct hints *h, struct hint hint)
{
    h->at[h->next] = hint;
    h->next = (h->next + 1) % LOG_HINTS;
}
/* Flushes a file of the folder. */
NODISCARD int log_sync_file(struct log *l, const char *name);
/* The last stable offset once the transaction that marker ends is done (ProducerStateManager.lastStableOffset). */
int64_t log_stable_behind(const struct log *l, const struct batch *marker);
int log_new_active(struct log *l, int64_t base, int64_t now_wall_ms);
void log_new_jitter(struct log *l);

/* Writes the epoch file, not durably: a flush does that. 0 or -errno, offline. */
int log_store_epochs(struct log *l);

/* resume.c: the producer snapshot that was loaded is of a mark inside the segment. What its indexes know of the records
 * before it is kept, the rest forgotten. *ret_position: the batch from which on the segment is to be read; 0: from its
 * beginning. 0 or -errno. */
NODISCARD int segment_resume(struct segment *s, int64_t mark, uint64_t *ret_position);
/* flush.c: after segments went. */
void log_settle_sides(struct log *l);

/* read.c */
/* Tells once what looking into the segment brought to light; err as it was. */
int log_tell_damage(struct log *l, struct segment *s, int err);
/* What a reader is told. Damage of the records is the matter of whoever reads them (CORRUPT_MESSAGE, as Kafka), and a
 * lack of descriptors that of the moment; any other error of the disk takes the log offline. */
enum kafka_error log_read_error(struct log *l, int err);

/* recover.c: found.c says what there is, this makes a log of it. */
NODISCARD int log_load(struct log *l, const struct log_options *o);

/* snapshots.c: producer snapshot files. */
NODISCARD int log_write_snapshot(struct log *l, int64_t offset);
/* One in the middle of the active segment, from which on the next start may check it (log_mark_begin). The one of the
 * mark before stays until the next: the checkpoint may not know of this one when the process dies. */
NODISCARD int log_write_mark(struct log *l);
/* Removes those that no segment begins at, but for the newest; those above the log end go in any case. */
void log_drop_snapshots(struct log *l);
/* Removes all of them: nothing of what they say is in the log any more. */
void log_clear_snapshots(struct log *l);
/* That of a segment which goes. Others stay until the next start, as in Kafka. */
void log_drop_snapshot_at(struct log *l, int64_t offset);
/* The state from the newest usable snapshot at or before trusted, and the batches from there on, up to offset.
 * Snapshots above trusted go: after a crash those that were not flushed may be of a past that a power cut undid. */
NODISCARD int log_load_producers(struct log *l, int64_t offset, int64_t trusted, int64_t now_wall_ms);
/* The state as of offset, from a snapshot at or before it; the files stay. */
NODISCARD int log_load_producers_before(struct log *l, int64_t offset);
/* Notes a batch that is in the log. body: its bytes, or null for a batch that is no control batch. */
void log_replay_producer(struct log *l, const struct batch *b, struct slice body);

/* aborted.c: N.txnindex. What an abort marker at last adds: */
void txn_index_stage(struct buf *to, int64_t producer_id, int64_t first, int64_t last, int64_t last_stable);
size_t txn_index_staged(const struct buf *entries);
/* 0; -ENOSPC, and the file is as before; -errno. */
NODISCARD int txn_index_append(struct segment *s, struct slice entries);
NODISCARD int txn_index_take_back(struct segment *s, size_t entries); /* the last ones */
/* Forgets those whose marker is at or behind offset; all. */
NODISCARD int txn_index_truncate(struct segment *s, int64_t offset);
NODISCARD int txn_index_reset(struct segment *s);
/* Is every entry one that can be of the segment, which ends at end? 1 (also when there is no file), 0, -errno. */
NODISCARD int txn_index_sound(struct segment *s, int64_t end);

/* keep.c */
/* Flushes the indexes of a segment that was retired. */
NODISCARD int log_sync_indexes(struct log *l, struct segment *s);
/* The segments before index n leave: renamed, and unlinked after file.delete.delay.ms. */
NODISCARD int log_doom_first(struct log *l, size_t n, int64_t now_wall_ms);

/* A segment whose files are called *.deleted: its descriptors are closed, the files go later. */
void log_doom(struct log *l, struct segment *s, int64_t now_wall_ms);

/* clean_swap.c */
/* What is being cleaned is about to change, or to leave: what was made of it is not taken into use. */
void log_clean_interrupt(struct log *l);
/* The log goes. */
void log_clean_detach(struct log *l);

/* move.c: the log goes. */
void log_move_detach(struct log *l);

/* The abort or commit of a control batch: its type, with the coordinator's epoch; -1: another kind of control batch. */
int log_marker_of(const struct batch *b, struct slice bytes, int32_t *ret_coordinator_epoch);

/* Where nobody holds it: to the log end, but past what flush.messages wants flushed only when it is. Kafka flushes
 * within the append, before it moves its high watermark. */
void log_raise_high_watermark(struct log *l);

#endif
