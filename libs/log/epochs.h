/* epochs.h - inside libs/log: which leader epoch starts at which offset; the file leader-epoch-checkpoint:
 *   "0\n" COUNT "\n" then EPOCH " " STARTOFFSET "\n"
 *
 * I1  epochs and start offsets both rise strictly from entry to entry.
 * The file can be built again from the batches behind the recovery point, so that changes between flushes are not made
 * durable. */
#ifndef KARST_LOG_EPOCHS_H
#define KARST_LOG_EPOCHS_H

#include "libs/base/slice.h"
#include "libs/log/file.h"

#define EPOCHS_FILE "leader-epoch-checkpoint"

struct epoch_start {
    int32_t epoch;
    int64_t offset;
};

struct epochs {
    struct epoch_start *at;
    size_t count, capacity;
    bool dirty;   /* not yet in the file */
    bool on_disk; /* there is a file */
    bool idle;    /* an epoch that no record is in is not yet in the file: every start would drop it */
};

void epochs_free(struct epochs *e);
/* 0 (also when there is no file), -EBADMSG, -ENODATA (an empty file), -errno. */
NODISCARD int epochs_load(struct epochs *e, const struct file_system *fs, const char *dir);
NODISCARD int epochs_parse(struct epochs *e, struct slice text);
NODISCARD int epochs_store(struct epochs *e, const struct file_system *fs, const char *dir, bool durable);

int32_t epochs_latest(const struct epochs *e); /* -1: none */
/* Notes that epoch begins at offset; ignored unless it is newer than all known. */
void epochs_assign(struct epochs *e, int32_t epoch, int64_t offset);
/* The same at the log end: it is written when a record is in it, or there is no file yet. */
void epochs_begin(struct epochs *e, int32_t epoch, int64_t log_end);
/* At a start: what no record is in goes. */
void epochs_drop_idle(struct epochs *e, int64_t log_end);
/* Forgets what begins at offset or behind it. */
void epochs_truncate_end(struct epochs *e, int64_t offset);
/* The log starts at offset now: the entry that covers it begins there. */
void epochs_truncate_start(struct epochs *e, int64_t offset);
int32_t epochs_of_offset(const struct epochs *e, int64_t offset); /* -1: not known */
void epochs_end_of(const struct epochs *e, int32_t epoch, int64_t log_end, int32_t *ret_epoch, int64_t *ret_end);

#endif
