/* log_mover.h - a log that goes to and fro between the folders /data/topic-0 and /data2/topic-0 of one simulated disk,
 * as a storage node moves it (libs/log/move.h), for the worlds `log` and `clean`.
 *
 * Promise: at no start are both folders there, or neither and no whole copy. Threading: one. */
#ifndef KARST_TESTS_SIM_LOG_MOVER_H
#define KARST_TESTS_SIM_LOG_MOVER_H

#include "libs/log/move.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim.h"

enum { MOVER_PATH = 96 };

struct log_mover {
    struct sim *sim;
    struct disk *disk;
    struct file_system fs;
    int at; /* 0: /data, 1: /data2 */
    struct log_move *move;
    bool runs; /* a step was begun and is not ended */
    char folder[MOVER_PATH];
    uint32_t count;
};

/* Makes both directories. */
void mover_init(struct log_mover *m, struct sim *s, struct disk *d);
/* Where the log is: valid until the next call. */
const char *mover_dir(const struct log_mover *m);
/* Some work of a move, which begins by chance. Nothing may be staged, no flush under way. */
void mover_step(struct log_mover *m, struct log *l);
/* The log is gone: a start follows. mover_find: after the disk's restart, which folder it is. flushed: something of
 * it was, so that a power cut leaves one. */
void mover_stop(struct log_mover *m);
void mover_find(struct log_mover *m, bool flushed);

#endif
