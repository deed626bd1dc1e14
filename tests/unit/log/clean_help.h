/* clean_help.h - what the tests of compaction share: logs of keyed records with a model beside them. */
#ifndef KARST_TESTS_UNIT_LOG_CLEAN_HELP_H
#define KARST_TESTS_UNIT_LOG_CLEAN_HELP_H

#include "help.h"
#include "libs/log/clean.h"

/* A record as it was appended. */
struct clean_record {
    int64_t offset, timestamp;
    int key;
    int value; /* -1: a tombstone */
    bool aborted;
    bool gone; /* as the last check saw it */
};
struct clean_model {
    struct clean_record *records; /* by offset */
    size_t count, capacity;
    int next_value;
};
void clean_model_free(struct clean_model *m);

struct log_options clean_options(const char *name);
/* Appends a batch of records with these keys, all of them tombstones or none, and notes them. */
struct clean_batch {
    int keys[16];
    int count;
    bool tombstones;
    int codec;
    int64_t timestamp;
    int64_t producer_id; /* -1: none */
    int16_t producer_epoch;
    int32_t sequence;
    bool transactional, aborted;
};
#define CLEAN_BATCH ((struct clean_batch){.producer_id = -1, .producer_epoch = -1, .sequence = -1})
int64_t clean_append(struct log *l, struct clean_model *m, const struct clean_batch *spec); /* its offset */
int64_t clean_append_marker(struct log *l, int64_t producer_id, int16_t epoch, bool commit, int64_t timestamp);

/* Cleans to the end of it. The result of the last turn; *ret_end (may be NULL) the first offset that is not clean. */
int clean_run(struct log *l, int64_t checkpoint, int64_t now_ms, uint64_t map_bytes, int64_t *ret_end);
void clean_must(struct log *l, int64_t *checkpoint, int64_t now_ms);

/* Reads all of the log: every record is one of the model's, at its offset, once and in order; of records before end
 * only those that compaction must leave, with tombstones where tombstones_stay. Every offset can be read from.
 * CLEAN_HALFWAY: those that it must leave are there, others may be. CLEAN_CUT: the same of a log that was cut behind
 * what was cleaned. */
enum { CLEAN_HALFWAY = -1, CLEAN_CUT = -2 };
void clean_check(struct log *l, struct clean_model *m, int64_t end, bool tombstones_stay);
/* The batches, one a line, for tests that look at single ones: "BASE+DELTA n COUNT attr ATTRIBUTES". */
struct buf clean_dump(struct log *l);

#endif
