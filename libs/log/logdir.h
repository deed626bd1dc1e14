/* logdir.h - what stands beside the partitions in a folder of log.dirs: lock, checkpoints, clean-stop marker
 * (records.md).
 *
 * Checkpoint files are text that anybody may have edited: what does not parse is -EBADMSG, never a
 * crash. Threading: none of its own. */
#ifndef KARST_LOG_LOGDIR_H
#define KARST_LOG_LOGDIR_H

#include "libs/base/uuid.h"
#include "libs/log/file.h"

/* A lock on DIR/.lock: each role of Karst takes the byte of its number for itself, so that a twin on the same folder is
 * refused, whatever its run folder is; and Kafka, which wants the whole file, stays out. A real file only; fcntl locks
 * are the process's, so .lock must not be opened a second time. *ret_fd is kept open as long as the lock. -EWOULDBLOCK:
 * *ret_holder (may be NULL) is the pid that has it. */
NODISCARD int logdir_lock(const char *dir, int role, int *ret_fd, int *ret_holder);

/* Makes all that is on the file system of a locked directory durable, and tells of every write to it that failed since
 * the lock was taken. 0, -errno; -EOPNOTSUPP: nothing was done. */
NODISCARD int logdir_sync_file_system(int lock_fd);

/* The checkpoint files. */
#define LOGDIR_RECOVERY_POINTS "recovery-point-offset-checkpoint"
#define LOGDIR_HIGH_WATERMARKS "replication-offset-checkpoint"
#define LOGDIR_LOG_STARTS      "log-start-offset-checkpoint"
#define LOGDIR_CLEANED         "cleaner-offset-checkpoint"

struct logdir_offset {
    const char *topic; /* into the table */
    int32_t partition;
    int64_t offset;
};
/* The lines of a checkpoint file by topic and partition. */
struct logdir_checkpoint;
/* A file that is not there, or is empty, gives an empty table. -EBADMSG: not such a file; -errno. */
NODISCARD int logdir_read_checkpoint(const struct file_system *fs, const char *dir, const char *name,
                                     struct logdir_checkpoint **ret_table);
NODISCARD int logdir_parse_checkpoint(struct slice text, struct logdir_checkpoint **ret_table);
struct logdir_checkpoint *logdir_checkpoint_free(struct logdir_checkpoint *t);
size_t logdir_checkpoint_count(const struct logdir_checkpoint *t);
/* -1: not in it. t may be NULL. */
int64_t logdir_checkpoint_get(const struct logdir_checkpoint *t, struct slice topic, int32_t partition);
NODISCARD int logdir_write_checkpoint(const struct file_system *fs, const char *dir, const char *name,
                                      const struct logdir_offset *offsets, size_t count);

/* .kafka_cleanshutdown. Taking it removes it: 1 with the broker epoch (-1: none in the file), 0 when it is not there,
 * -errno. */
NODISCARD int logdir_take_clean(const struct file_system *fs, const char *dir, int64_t *ret_broker_epoch);
NODISCARD int logdir_write_clean(const struct file_system *fs, const char *dir, int64_t broker_epoch);

/* .karst_flush_failed, an empty file: a flush has failed in this directory. What it was to write may be in memory alone
 * since, though the kernel takes it for written and no later flush writes it; the next start does
 * (log_options.rewrite). A power cut empties that memory, so the file is not made durable. Noting and forgetting: 0 or
 * -errno; looking: 1, 0, -errno. */
NODISCARD int logdir_note_failed_flush(const struct file_system *fs, const char *dir);
NODISCARD int logdir_had_failed_flush(const struct file_system *fs, const char *dir);
NODISCARD int logdir_forget_failed_flush(const struct file_system *fs, const char *dir);

/* What the name of a folder in a log directory says. */
enum logdir_kind {
    LOGDIR_PARTITION, /* TOPIC-PARTITION */
    LOGDIR_DELETED,   /* TOPIC-PARTITION.UUID-delete: remove */
    LOGDIR_FUTURE,    /* ...-future: a copy being moved here */
    LOGDIR_STRAY,     /* ...-stray: not known to the metadata at some start; kept for people */
    LOGDIR_OTHER,     /* no partition */
};
enum logdir_kind logdir_parse_name(const char *name, struct slice *ret_topic, int32_t *ret_partition);

/* The name of a partition's folder while it is removed ("delete") or being made ("future"):
 * DIR/TOPIC-PARTITION.UUID-KIND, UUID as 32 hex digits; malloc'ed. A topic that makes it longer than 255 bytes is cut.
 */
NODISCARD char *logdir_beside(const char *partition_dir, struct uuid unique, const char *kind);

/* partition.metadata: the topic id; 0, -ENOENT, -EBADMSG, -errno. */
NODISCARD int logdir_read_partition_metadata(const struct file_system *fs, const char *partition_dir,
                                             struct uuid *ret_topic_id);

#endif
