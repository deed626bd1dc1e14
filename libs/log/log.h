/* log.h - a partition log: one folder of segments, byte for byte Kafka's (records.md). Serves topics and the metadata
 * log alike.
 *
 * A core over the table of file.h: no clock, no thread, no random number. Times are passed in: now_wall_ms is Unix ms.
 *
 *   log_open -> log_stage* -> log_commit -> ... -> log_close
 *
 * I1  base of first segment <= log start <= high watermark <= log end; segments are in order and do not overlap.
 * I2  what log_end says is in the file (in the page cache): a record before it survives kill -9 at any instruction.
 * I3  what is before the recovery point is flushed: it survives a power cut.
 * I4  staged bytes are not seen by any read until log_commit has written them.
 *
 * Staging: log_stage copies a batch's header, checks and patches the copy, and notes it with the rest of the batch
 * where the caller has it; log_commit writes all of the turn with one pwritev. Only then is a result final. When the
 * write fails, file and memory go back to what they were.
 *
 * The caller's bytes are never written to, and may lie in memory that another process writes to. Each field of a header
 * is read once, and what was checked is what is written. Batches up to STAGING_COPY_MAX, those that are compressed
 * or get compressed, control batches and those that get LogAppendTime are copied whole first. Of the others the CRC and
 * the records are checked where they lie: whoever changes such bytes between the check and the end of log_commit gets
 * them written with the CRC of before. The bounds hold all the same, offsets and sizes are the checked ones, so nobody
 * else's batch is touched; the reader that gets the changed batch finds that its CRC does not hold. (A start after a
 * crash finds it, too, and cuts the log there if it was not flushed: a peer with shared memory is trusted not to do
 * that to its partitions. What closing that would cost is in docs/performance.md.)
 *
 * Errors: -ENOSPC from log_commit: the disk is full, the log is as before and goes on. Any other -errno of the disk:
 * the log is offline for good (log_failed), its folder must be taken offline; every later call fails with -EIO.
 * Threading: the owner's thread only, but for the run step of flushes and warmings. */
#ifndef KARST_LOG_LOG_H
#define KARST_LOG_LOG_H

#include "libs/base/kafka_error.h"
#include "libs/base/uuid.h"
#include "libs/log/file.h"
#include "libs/records/records.h"

struct log;

/* The keys of a topic that a log needs, under Kafka's names, with Kafka's defaults by log_config_init. */
struct log_config {
    int32_t segment_bytes;
    int64_t segment_ms;
    int64_t segment_jitter_ms;
    int32_t segment_index_bytes;
    int32_t index_interval_bytes;
    int64_t retention_ms;    /* -1: for ever */
    int64_t retention_bytes; /* -1: no limit */
    int64_t flush_messages;
    int64_t flush_ms;
    int64_t file_delete_delay_ms;
    int32_t max_message_bytes;
    int64_t message_timestamp_before_max_ms;
    int64_t message_timestamp_after_max_ms;
    bool log_append_time; /* message.timestamp.type */
    bool preallocate;
    bool cleanup_delete, cleanup_compact; /* cleanup.policy */
    int64_t delete_retention_ms;
    int64_t min_compaction_lag_ms, max_compaction_lag_ms;
    double min_cleanable_dirty_ratio;
    int compression;                   /* compression.type: a codec of compress.h; -1: as the producer chose */
    int compression_level;             /* Kafka's, of that codec */
    int32_t min_insync_replicas;       /* the log itself does not look at it */
    int64_t producer_id_expiration_ms; /* the node's producer.id.expiration.ms */
};
void log_config_init(struct log_config *config);
/* When the active segment is old: a compacted log's must be closed before max.compaction.lag.ms, too. */
int64_t log_config_roll_ms(const struct log_config *config);

/* What the logs of one thread share, so that it is there once: memory for what is staged in a turn, the numbers of the
 * lives of their files, and how many of these are open at once. Outlives them. */
struct log_pool;
NODISCARD struct log_pool *log_pool_new(void);
/* At most so many open files of the logs, but for those of flushes and warmings under way (1024). */
void log_pool_bound_descriptors(struct log_pool *p, size_t max);
struct log_pool *log_pool_free(struct log_pool *p); /* takes NULL; returns NULL */

/* What a log tells people (a cut tail, a rebuilt index): level is enum log_level of libs/base/log.h. */
typedef void log_note_fn(void *ctx, int level, const char *text);

/* What other threads may look at, and say, while logs are opened. */
struct log_progress {
    _Atomic uint64_t found_bytes;   /* records behind the recovery points of the logs that were begun */
    _Atomic uint64_t checked_bytes; /* of these */
    _Atomic bool stop;              /* log_open gives up, with -ECANCELED */
};

struct log_options {
    const struct file_system *fs;
    const char *dir; /* made when it is not there; its last part is TOPIC-PARTITION */
    struct log_config config;
    struct uuid topic_id;     /* written to partition.metadata when it is new; zero: no such file is written */
    bool clean;               /* the folder was stopped cleanly: nothing is scanned */
    bool rewrite;             /* a flush has failed here (logdir.h): what is read again is written again, too */
    int64_t recovery_point;   /* from the folder's checkpoint; 0 when there is none */
    int64_t log_start_offset; /* from the folder's checkpoint; 0 when there is none */
    int64_t high_watermark;   /* from the folder's checkpoint, cut to the log's bounds; only with: */
    int64_t compacted_to;     /* from the folder's checkpoint: before it compaction has left holes between segments */
    bool hold_high_watermark; /* log_set_high_watermark moves it; else it is the log end */
    int64_t now_wall_ms;
    uint64_t jitter_seed;  /* for segment.jitter.ms */
    struct log_pool *pool; /* NULL: the log has one of its own */
    log_note_fn *note;     /* may be NULL */
    void *note_ctx;
    bool elsewhere;                /* on another thread than the pool's: log_take comes first there */
    struct log_progress *progress; /* NULL: nobody looks. Must live until log_open returns */
};

/* Opens or makes the log, recovering what a crash left (cut tail, indexes, producer state, leftovers of removals). 0,
 * or -EBADMSG  the folder holds something that is no log and cannot be repaired -EEXIST   partition.metadata names
 * another topic id (an old topic of the same name) -ECANCELED options.progress said so: the next start does it
 * again -errno    of the disk. Any thread, as long as nobody else touches the folder; what the log tells comes from
 * that thread. */
NODISCARD int log_open(const struct log_options *options, struct log **ret_log);

/* The owner takes a log that was opened elsewhere: from here on it shares what the pool's logs share. */
void log_take(struct log *l);

/* Clean stop: flushes everything, trims the indexes, writes the producer snapshot. The log is freed even when this
 * fails. */
NODISCARD int log_close(struct log *l, int64_t now_wall_ms);
/* The same of many logs of one file system: log_settle writes what log_close writes, but flushes nothing. When the
 * caller has made the whole file system durable, log_settled says so, and log_abandon frees. 0, or -errno: then
 * log_close's way is still open. */
NODISCARD int log_settle(struct log *l);
void log_settled(struct log *l);
/* Frees without writing anything: what kill -9 would leave. Takes NULL; returns NULL. */
struct log *log_abandon(struct log *l);

/* Who is told from here on. */
void log_set_note(struct log *l, log_note_fn *note, void *ctx);
const char *log_dir(const struct log *l);
struct uuid log_topic_id(const struct log *l); /* zero: none */
void log_set_config(struct log *l, const struct log_config *config);
const struct log_config *log_config(const struct log *l);
int log_failed(const struct log *l); /* 0, or the -errno that took it offline */

int64_t log_start(const struct log *l);
int64_t log_end(const struct log *l); /* the next offset, of what is committed */
int64_t log_high_watermark(const struct log *l);
int64_t log_last_stable(const struct log *l); /* the high watermark, as long as no transaction is open */
/* For the folder's checkpoint: a start after a crash need not look at what is before it. */
int64_t log_recovery_point(const struct log *l);
/* The records before it are flushed. At most a roll ahead of the recovery point. */
int64_t log_flushed(const struct log *l);
uint64_t log_size_bytes(const struct log *l); /* of all .log files */
size_t log_segment_count(const struct log *l);
int64_t log_first_segment(const struct log *l); /* base offset */
/* Moves it forward, to at most the log end. With one replica log_commit does it by itself: hold_high_watermark false.
 */
void log_set_high_watermark(struct log *l, int64_t offset);
/* false: it moves to where it may be at once. */
void log_hold_high_watermark(struct log *l, bool hold);
/* The records before it are as durable as flush.messages asks for: what one replica may promise of its own. */
int64_t log_safe_end(const struct log *l);

/* ---- appending ---- */

enum log_origin {
    LOG_FROM_CLIENT,      /* exactly one batch, base offset 0, checked for everything */
    LOG_FROM_COORDINATOR, /* one or more batches of ours: control and transactional ones are taken; offsets are assigned
                           */
    LOG_FROM_LEADER, /* batches with their offsets and epochs, from the log end on: replication and the metadata log */
};

struct log_record_error {
    int32_t index; /* of the record in its batch */
    const char *message;
};

struct log_append {
    const uint8_t *bytes; /* must live until log_commit; may lie in memory that another process writes to */
    size_t size;
    enum log_origin origin;
    int32_t leader_epoch; /* set into the batches, but for LOG_FROM_LEADER */
    int64_t now_wall_ms;
    /* the result; final after log_commit, and then only if log_append_written */
    int64_t base_offset;                    /* -1 with an error */
    int64_t next_offset;                    /* behind the last record */
    int64_t append_time_ms;                 /* LogAppendTime, or a duplicate's timestamp; else -1 */
    bool duplicate;                         /* nothing was staged: base_offset is the first time's */
    const char *message;                    /* with an error: constant, or within record_errors; or NULL */
    struct log_record_error *record_errors; /* one piece of memory that the caller frees; NULL: none (KIP-467) */
    int32_t record_error_count;
    uint32_t undos; /* the log's own: how many times it had taken staged batches back */
};

/* Checks and stages. KERR_NONE or the error for the client, and then nothing is staged of it:
 *   CORRUPT_MESSAGE, INVALID_RECORD, INVALID_TIMESTAMP, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
 * UNSUPPORTED_COMPRESSION_TYPE, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE (transactional
 * or control batch of a client), KAFKA_STORAGE_ERROR (offline, or a roll failed) */
NODISCARD enum kafka_error log_stage(struct log *l, struct log_append *append);
bool log_has_staged(const struct log *l);

/* Compressing anew may take a tenth of a second for each MB of records: an append of which this is true may be prepared
 * before it is staged, on any thread; log_stage does the same, but where it is called. */
bool log_needs_preparing(const struct log *l, const struct log_append *append);
struct log_preparer; /* the codecs' memory, for one thread at a time */
NODISCARD struct log_preparer *log_preparer_new(void);
struct log_preparer *log_preparer_free(struct log_preparer *p); /* takes NULL; returns NULL */
/* config, partition (TOPIC-PARTITION): of the log. append: with bytes that nobody writes to. NONE with the batch to be
 * staged instead at the end of out, or with nothing there: the bytes are to be staged as they are. Else the errors of
 * log_stage, with message and record_errors. Any thread. */
NODISCARD enum kafka_error log_prepare(struct log_preparer *p, const struct log_config *config, const char *partition,
                                       struct log_append *append, struct buf *out);
/* Is the active segment's file as long as we left it? -EBUSY: another process has written to it. For the owner of a log
 * that a lock does not guard: Kafka in combined mode writes to the metadata log before it asks for .lock. */
NODISCARD int log_check_alone(struct log *l);
/* Writes what is staged. 0; -ENOSPC; -errno: offline. */
NODISCARD int log_commit(struct log *l);

/* After log_commit and before the next log_stage: is what was staged in the log? False: the write failed, and it was
 * taken back. */
bool log_append_written(const struct log *l, const struct log_append *append);

/* A new leader epoch starts at the log end (Kafka does this when a partition gets a leader). Nothing may be staged. It
 * reaches the file with the next append, flush or close: as long as no record is in it nobody asks for it. */
void log_assign_epoch(struct log *l, int32_t epoch);

/* ---- reading ---- */

/* A run of bytes of one segment. */
struct log_range {
    int64_t segment; /* base offset */
    uint64_t position;
    size_t size_bytes; /* 0: nothing */
};

/* Finds what to send from offset on: whole batches from the one that holds offset, up to max_bytes (the last batch may
 * be torn, as Kafka does it), not beyond upper_offset. at_least_one: the first batch is given whole even when it is
 * bigger; without it, a first batch that does not fit gives an empty range. KERR_NONE; OFFSET_OUT_OF_RANGE outside log
 * start .. upper_offset; KAFKA_STORAGE_ERROR. */
NODISCARD enum kafka_error log_locate(struct log *l, int64_t offset, int64_t upper_offset, size_t max_bytes,
                                      bool at_least_one, struct log_range *ret_range);
/* The same without waiting for the disk. *ret_cold: it would have to, for what log_warm_begin brings in; then nothing
 * else of the result means anything. */
NODISCARD enum kafka_error log_locate_now(struct log *l, int64_t offset, int64_t upper_offset, size_t max_bytes,
                                          bool at_least_one, struct log_range *ret_range, bool *ret_cold);
/* Would reading the range wait for the disk? Looked at in a few places of it, which costs some tenths of a microsecond
 * each: it may be wrong about what lies between them. */
NODISCARD bool log_is_cold(struct log *l, const struct log_range *range);
/* What the last of these two missed is brought into memory, in three steps as a flush: begin (owner), run (any thread),
 * end (owner; frees; 0, or -errno of the disk, and then the log is offline). Begin gives NULL when there is no
 * descriptor for it. */
struct log_warm;
NODISCARD struct log_warm *log_warm_begin(struct log *l);
void log_warm_run(struct log_warm *w);
NODISCARD int log_warm_end(struct log *l, struct log_warm *w);

/* Copies the bytes of a range. 0 or -errno. */
NODISCARD int log_copy(struct log *l, const struct log_range *range, uint8_t *to);

/* A range's file, given away: other processes may read the range from it, for as long as they like. */
struct log_file {
    int fd;            /* read only, the caller's to close */
    uint64_t instance; /* of this giving: never 0, drawn from the pool's count, so never used twice */
};
/* From here on the bytes of the range never change in that file: what cuts it makes a new one, and the old one stays
 * whole for whoever holds it. 0 or -errno; -ESTALE: the range is gone. */
NODISCARD int log_file(struct log *l, const struct log_range *range, struct log_file *ret_file);
/* Is what was given last of that segment still its file? */
bool log_has_file(const struct log *l, int64_t segment, uint64_t instance);

struct log_offset {
    int64_t offset;       /* -1: none */
    int64_t timestamp;    /* -1: none */
    int32_t leader_epoch; /* -1: not known */
};
/* The first record at or after a time. KERR_NONE also with offset -1; CORRUPT_MESSAGE, KAFKA_STORAGE_ERROR. With
 * ret_cold the same without waiting for the disk, as log_locate_now. */
NODISCARD enum kafka_error log_offset_by_time(struct log *l, int64_t time_ms, struct log_offset *ret_offset,
                                              bool *ret_cold);
/* The record with the highest timestamp. */
NODISCARD enum kafka_error log_offset_of_max_time(struct log *l, struct log_offset *ret_offset, bool *ret_cold);

/* The epoch of a record, -1: not known. */
int32_t log_epoch_of_offset(const struct log *l, int64_t offset);
int32_t log_latest_epoch(const struct log *l); /* -1: none */
/* KIP-279: the largest epoch <= asked for, and where it ends. Both -1: not known. */
void log_end_of_epoch(const struct log *l, int32_t epoch, int32_t *ret_epoch, int64_t *ret_end_offset);

/* The aborted transactions that may touch what a read from offset gives, by the .txnindex files: a reader of committed
 * records drops theirs. Entries come in the order of their ends. With ret_cold the same without waiting for the disk,
 * as log_locate_now. KERR_NONE; UNKNOWN_SERVER_ERROR, as Kafka: an index cannot be read, and what was reported is not
 * all. */
typedef void log_aborted_fn(void *ctx, int64_t producer_id, int64_t first_offset);
NODISCARD enum kafka_error log_aborted(struct log *l, int64_t offset, const struct log_range *range, log_aborted_fn *fn,
                                       void *ctx, bool *ret_cold);

/* ---- keeping and removing ---- */

/* Rolls now. now_wall_ms as the new segment's birth. 0 or -errno; nothing may be staged. */
NODISCARD int log_roll(struct log *l, int64_t now_wall_ms);
/* Applies retention (time, size, log start). As in Kafka an old active segment is rolled by the next append, not here.
 * The number of segments removed, or -errno: -ENOSPC when there is no room for the new segment that it needs, and then
 * all is as it was. */
NODISCARD int log_retain(struct log *l, int64_t now_wall_ms);
/* DeleteRecords: the log start moves to offset (<= high watermark). 0, -ERANGE, -errno. */
NODISCARD int log_delete_before(struct log *l, int64_t offset);
/* Keeps what is before offset only, and no epoch that begins at or behind the new end, also where that is the old one:
 * a leader that is one no more may have begun an epoch there that nobody else knows of. A batch that offset lies in
 * goes as a whole, and where compaction has left a hole before offset the end is that of the last batch: Kafka's end is
 * offset itself, and what it reads there next is the same. Staged appends must be committed. 0 or -errno. The last
 * segment is copied when it was given away (log_file), and that needs room on the disk. */
NODISCARD int log_truncate(struct log *l, int64_t offset);
/* Empties the log and starts it at offset: after a snapshot replaced what was there. 0 or -errno. */
NODISCARD int log_restart_at(struct log *l, int64_t offset, int64_t now_wall_ms);
/* Segments that were removed file.delete.delay.ms ago leave the disk, which takes its time for large files: taken out
 * of the log, with those of other logs (more); unlinked, on any thread; freed. NULL: none. What is not run is found at
 * the next start. */
struct log_removal;
NODISCARD struct log_removal *log_removal_begin(struct log *l, int64_t now_wall_ms, struct log_removal *more);
void log_removal_run(const struct log_removal *removal);
void log_removal_end(struct log_removal *removal);
/* Housekeeping, a few times a minute: files waiting for removal, if log_removal_begin has not taken them; expired
 * producers, idle descriptors. */
void log_tick(struct log *l, int64_t now_wall_ms);
/* The folder is to be removed: closes, renames it to DIR.UUID-delete beside it (UUID as 32 hex digits). *ret_path is
 * malloc'ed; the caller removes it with file_remove_tree after file.delete.delay.ms. The log is freed in any case. */
NODISCARD int log_delete(struct log *l, struct uuid unique, char **ret_path);

/* ---- flushing ---- */

/* Flushes all that is committed, here and now; the recovery point is the log end then. 0; -ENOSPC: nothing was flushed,
 * as a full disk did not take the epoch file that has to be there first: to be tried again; -errno: offline, never
 * tried again (a full disk that the flush itself met, too: what it lost cannot be known). log_failed tells the two
 * apart. */
NODISCARD int log_flush(struct log *l);
int64_t log_unflushed_messages(const struct log *l);
/* A segment was rolled since the last flush: what is before it should be flushed soon, so that a start after a crash
 * reads little. */
bool log_wants_flush(const struct log *l);
/* The same in three steps, so that the slow one may run on another thread: begin (owner), run (any thread), end (owner;
 * frees; returns what the flush did). The log may be written, and even closed, meanwhile: end takes NULL for a log that
 * is gone. NULL from begin: nothing to flush. */
struct log_flush; /* one at a time: a second one says nothing about what the first has taken on itself */
NODISCARD struct log_flush *log_flush_begin(struct log *l);
void log_flush_run(struct log_flush *f);
/* Instead of it, for several logs on one disk: true, all of them ran, for the price of little more than one. False:
 * none did, log_flush_run has to do each. A failure is that of all. */
NODISCARD bool log_flush_run_all(struct log_flush *const *flushes, size_t count);
NODISCARD int log_flush_end(struct log *l, struct log_flush *f);

/* A flush in three steps, too, that also leaves a mark: a start after a crash reads of the active segment only what
 * lies behind the last mark that the recovery point of the checkpoint covers. NULL: nothing to mark, records are
 * staged, or the disk is full. */
NODISCARD struct log_flush *log_mark_begin(struct log *l);
/* What such a start would read of the active segment. */
uint64_t log_unmarked_bytes(const struct log *l);

/* ---- producers ---- */

/* One idempotent or transactional producer, as DescribeProducers shows it. */
struct log_producer {
    int64_t producer_id;
    int16_t epoch;
    int32_t last_sequence;
    int64_t last_timestamp;
    int32_t coordinator_epoch;
    int64_t txn_start_offset; /* -1: none */
};
typedef void log_producer_fn(void *ctx, const struct log_producer *producer);
void log_producers(const struct log *l, log_producer_fn *fn, void *ctx);

#endif
