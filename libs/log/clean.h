/* clean.h - compaction of a log: of each key the last record stays (Kafka's LogCleaner, 4.3.1).
 *
 *   log_clean_look: is there something to clean?
 *   log_clean_begin -> log_clean_step (any thread) -> log_clean_turn (owner) -> step -> turn ... -> log_clean_end
 *
 * A cleaning reads the segments from the first dirty offset on and notes the last offset of every key, as many as the
 * map takes. Then it goes through all segments up to there, in groups that fit into one segment each, and writes what
 * stays of a group to N.*.cleaned. A group that is written takes the place of its segments:
 *
 *   step   N.*.cleaned written, flushed, folder flushed      a crash: the start removes them
 *   turn   N.*.cleaned -> N.*.swap, N.log first              a crash: removed while one is still called .cleaned,
 *   step   folder flushed                                    else as below
 *   turn   the old segments -> *.deleted; readers get the new one from here on
 *   step   folder flushed                                    a crash: the start removes what the .swap replaces,
 *   turn   N.*.swap -> N.*, N.log last                       and completes these names
 *
 * Offsets never change, and neither do log start and log end. The sources are closed segments before the recovery
 * point, which nobody writes to; readers that hold one of their files keep the bytes they had.
 *
 * Threading: log_clean_step by any thread, one at a time, while the owner does anything but call log_clean_turn or
 * _end; all else by the log's owner. */
#ifndef KARST_LOG_CLEAN_H
#define KARST_LOG_CLEAN_H

#include "libs/log/log.h"

struct log_clean;

enum { LOG_CLEAN_SEED = 16 };

/* What there is to clean. */
struct log_dirt {
    int64_t first_dirty;  /* the first offset that was not cleaned yet */
    int64_t end;          /* base offset of the first segment that may not be cleaned yet */
    uint64_t clean_bytes; /* of the segments that were */
    uint64_t dirty_bytes; /* of those that may be cleaned */
    bool checkpoint_fits; /* false: it lies outside the log, and all of the log counts as dirty */
    bool overdue;         /* a record has waited for longer than max.compaction.lag.ms */
};
/* checkpoint: the first offset that was not cleaned, -1: never was. safe: nothing at or behind it is cleaned, with the
 * recovery point that is on the disk: a start after a crash does not look for holes before it. 0 or -errno. */
NODISCARD int log_clean_look(struct log *l, int64_t checkpoint, int64_t safe, int64_t now_wall_ms,
                             struct log_dirt *ret_dirt);
/* Is it time, by min.cleanable.dirty.ratio or max.compaction.lag.ms? */
bool log_clean_is_due(const struct log *l, const struct log_dirt *dirt);
/* The part of the log that is dirty: 0 .. 1. */
double log_clean_ratio(const struct log_dirt *dirt);

struct log_clean_options {
    uint64_t map_bytes;           /* at most, for the map of keys; taken for as long as the cleaning */
    double map_load;              /* how full it may get: 0 .. 1 */
    size_t io_bytes;              /* of each of the two buffers */
    uint8_t seed[LOG_CLEAN_SEED]; /* a secret: random bytes */
    int64_t now_wall_ms;
};
/* One cleaning of a log at a time. Nothing is read yet. NULL: there is nothing to clean, or the log is offline, or
 * moves to another directory. */
NODISCARD struct log_clean *log_clean_begin(struct log *l, const struct log_dirt *dirt,
                                            const struct log_clean_options *options);
/* Some work: about so many bytes are read, or one flush is waited for. */
void log_clean_step(struct log_clean *c, uint64_t bytes);
/* What the log's owner has to do between two steps; must not be called while something is staged. 1: go on with the
 * next step. 0: the log is clean up to log_clean_end_offset. Otherwise it is over, the log is as before but for the
 * groups that were replaced, and
 *   -ECANCELED  stopped, or the log was truncated, or lost segments, or is gone
 *   -EBADMSG    a segment is damaged, or of a format that is not cleaned: log_clean_why says where and what
 *   -ENOSPC     the disk is full: try again later. -EMFILE, -ENFILE, -ENOMEM: the same
 *   -errno      of the disk; the log is offline (log_failed) */
NODISCARD int log_clean_turn(struct log_clean *c, int64_t now_wall_ms);
/* The next turn that may, ends it. A step that is running ends soon. */
void log_clean_stop(struct log_clean *c);
/* Frees it, and removes what was not taken into use. No step may be running. Takes NULL; returns NULL. */
struct log_clean *log_clean_end(struct log_clean *c);

const char *log_clean_why(const struct log_clean *c);
/* What is before it is clean; after the last turn. */
int64_t log_clean_end_offset(const struct log_clean *c);
/* Bytes read and written since the last call. Between two steps. */
uint64_t log_clean_take_bytes(struct log_clean *c);

struct log_clean_stats {
    uint64_t bytes_read, bytes_mapped, bytes_written;
    uint64_t records_read, records_kept, keys;
    uint64_t segments_before, segments_after;
};
/* Between two steps. */
struct log_clean_stats log_clean_stats(const struct log_clean *c);

#endif
