/* move.h - a log goes to a folder in another directory, while it is written and read.
 *
 * Its files are copied byte for byte into a folder beside its new place (Kafka's TOPIC-N.UUID-future). When little is
 * left, the rest is copied and the names are changed in one go: the old folder becomes TOPIC-N.UUID-delete, then the
 * copy TOPIC-N. The log in memory stays as it is and only opens its files there from then on, so offsets, epochs,
 * producers, high watermark and the log start come along, and nobody who holds the log sees anything.
 *
 *   log_move_new --> { log_move_begin -> log_move_run (any thread) -> log_move_end }* --is near--> log_move_finish
 *
 * I1  until log_move_finish has succeeded the log and its folder are as without a move.
 * I2  at no instant do both folders have a partition's name; when neither has, the copy is whole and flushed as far as
 *     the log ever was.
 * I3  what the log had flushed is flushed in the copy before the names change.
 * Compaction stops for the time of the move; segments roll and are removed as ever.
 * Threading: the log's owner's, but for log_move_run. */
#ifndef KARST_LOG_MOVE_H
#define KARST_LOG_MOVE_H

#include "libs/log/log.h"

struct log_move;

/* One at a time of a log. folder: of the copy; what is in it is emptied by the first step. target: the log's new
 * folder. Both are copied. */
NODISCARD struct log_move *log_move_new(struct log *l, const char *folder, const char *target);
struct log_move *log_move_free(struct log_move *m); /* takes NULL; returns NULL; leaves the files; not while it runs */

/* The log stays where it is, and may be moved elsewhere at once, also while a step runs. */
void log_move_cancel(struct log_move *m);

/* Notes what is to be copied next, at most max_bytes of records. 0; -EBUSY: a cleaning has not stopped yet; -errno of
 * the log. Not when the log is gone. */
NODISCARD int log_move_begin(struct log_move *m, size_t max_bytes);
void log_move_run(struct log_move *m);
/* The log may be gone meanwhile. 0, or the -errno of the step: *ret_target says on whose side. -ESTALE: a segment was
 * removed under it, the next step knows. *ret_bytes: copied by the step. */
NODISCARD int log_move_end(struct log_move *m, bool *ret_target, uint64_t *ret_bytes);

/* Is so little left that log_move_finish may do it on the owner's thread? */
bool log_move_is_near(const struct log_move *m);
/* Nothing may be staged, and no flush under way. doomed: what the old folder is called then. 0: the log is in its new
 * folder. -EAGAIN: not near; -errno, *ret_target says on whose side: the log is as it was, but for a rename that could
 * not be taken back, and then the log is offline (log_failed). */
NODISCARD int log_move_finish(struct log_move *m, const char *doomed, bool *ret_target);

/* For people: the bytes copied, and an offset that the copy has reached at least, both after the last log_move_end. */
uint64_t log_move_bytes(const struct log_move *m);
int64_t log_move_reached(const struct log_move *m);
const char *log_move_folder(const struct log_move *m);

#endif
