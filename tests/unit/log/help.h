/* help.h - what the tests of the log share: folders, batches, a file system that fails on demand. */
#ifndef KARST_TESTS_UNIT_LOG_HELP_H
#define KARST_TESTS_UNIT_LOG_HELP_H

#include "libs/log/log.h"
#include "libs/log/logdir.h"

enum { NOW = 1700000000 }; /* in seconds; times in tests are HELP_NOW_MS and a bit */
#define HELP_NOW_MS ((int64_t)NOW * 1000)

/* A partition's folder that is not there yet, NAME.PID/topic-0 below one that goes when all tests have run; static
 * memory.
 */
const char *help_dir(const char *name);
struct log_options help_options(const char *dir);
struct log *help_open(const struct log_options *o);

/* A client's batch of count records of about value_bytes each, in a buffer that lives until help_free. */
struct help_batch {
    int count;
    size_t value_bytes;
    int64_t timestamp; /* 0: HELP_NOW_MS */
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t sequence;
    int codec;
    int16_t attributes;
};
#define HELP_BATCH                                                                                                     \
    ((struct help_batch){.count = 1, .value_bytes = 100, .producer_id = -1, .producer_epoch = -1, .sequence = -1})
struct buf help_batch(const struct help_batch *spec);
/* The CRC of a batch whose bytes were changed is right again. */
void help_reseal(struct buf *batch);
/* Stages and commits; the error, *ret (may be NULL) has the result. */
enum kafka_error help_append(struct log *l, const struct help_batch *spec, struct log_append *ret);

/* The file system that counts calls of one kind, and fails from the nth on. */
struct help_faults {
    const char *call; /* "pwritev", "open" ...; NULL: every call */
    int left;         /* calls that still succeed; < 0: all */
    int error;        /* negative errno */
    int times;        /* how many fail then */
    bool shorten;     /* a failing pwritev writes half first */
    int count;        /* calls so far */
    int vectors;      /* of the last pwritev */
    /* The page cache: with cold set only what was prefetched is in it. */
    bool cold;
    struct {
        uint64_t inode, from, to;
    } warm[64];
    size_t warm_count;
};
struct file_system help_faulty(struct help_faults *f);

/* The batch with that offset, read on its own; the caller frees it. */
struct buf help_read_batch(struct log *l, int64_t offset, struct batch *ret_batch);
/* Reads everything from the log start in steps of max_bytes and checks that offsets follow each other. The records. */
int64_t help_read_all(struct log *l, size_t max_bytes);

#endif
