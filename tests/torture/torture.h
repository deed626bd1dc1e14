/* torture.h - what the parts of the torture share: a node that keeps one partition log on the simulated disk as the
 * storage service does, a model of what it promised, and an independent reader of its files.
 *
 * Everything follows from a seed; a broken promise prints the command that replays it, and ends the program.
 * Threading: one. */
#ifndef KARST_TESTS_TORTURE_TORTURE_H
#define KARST_TESTS_TORTURE_TORTURE_H

#include "libs/log/log.h"
#include "libs/log/logdir.h"
#include "tests/sim/disk.h"

#define NODE_DIR   "/data"
#define NODE_TOPIC "topic"
#define NODE_LOG   NODE_DIR "/" NODE_TOPIC "-0"

enum {
    RECORDS_MAX = 4,      /* of one batch */
    PRODUCERS = 3,        /* idempotent ones, with ids from IDEMPOTENT_ID on */
    TRANSACTIONAL = 2,    /* with ids from TRANSACTIONAL_ID on; their batches come from a coordinator */
    IDEMPOTENT_ID = 1000, /* producer ids */
    TRANSACTIONAL_ID = 2000,
    REMEMBERED = 5, /* batches of a producer by which a duplicate is known */
};

/* ---- randomness and failing (main.c) ---- */

struct dice {
    uint64_t state;
};
uint64_t dice_below(struct dice *d, uint64_t n); /* 0 .. n - 1; 0 for 0 */
static inline bool dice_chance(struct dice *d, uint64_t percent)
{
    return dice_below(d, 100) < percent;
}

/* What is being run, for the message of a broken promise. */
extern char torture_replay[256];
extern bool torture_verbose;
_Noreturn void torture_fail(const char *format, ...) PRINTF_LIKE(1, 2);
void torture_note(const char *format, ...) PRINTF_LIKE(1, 2);
/* Counts that something happened, so that what never happens is seen. */
void torture_cover(const char *what);
void torture_print_coverage(void);

/* ---- batches that were sent ---- */

struct fact {
    int64_t base, next; /* offsets; of one that is in flight those that it was staged with */
    uint64_t body;      /* a hash of its records; each batch has other ones */
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t sequence;
    int32_t leader_epoch;
    int16_t attributes;
    int marker;                 /* enum control_type of a transaction's end; -1: none */
    int32_t coordinator_epoch;  /* of a marker */
    int64_t times[RECORDS_MAX]; /* of its records */
    int32_t count;
    bool append_time; /* times are not the sender's */
};
struct facts {
    struct fact *at;
    size_t count, room;
};
void facts_push(struct facts *f, const struct fact *fact);
int64_t fact_max_time(const struct fact *f);
uint64_t torture_hash(const void *p, size_t n);

/* What a producer's batches so far mean, worked out from the facts alone. */
struct known_producer {
    int64_t id;
    int16_t epoch;
    int32_t coordinator_epoch;
    int64_t last_time;
    int64_t txn_first; /* -1: no transaction is open */
    struct {
        int32_t first_sequence, last_sequence;
        int64_t base, last;
    } batches[REMEMBERED]; /* oldest first */
    size_t batch_count;
    int64_t last_offset;   /* of its last batch of any kind */
    int64_t data_offset;   /* of its last batch with records */
    int64_t marker_offset; /* of its last transaction's end; -1: none */
    bool reopened;         /* the log was opened since: only the last batch must be known */
};
enum { KNOWN = PRODUCERS + TRANSACTIONAL };
void known_clear(struct known_producer known[KNOWN]);
void known_apply(struct known_producer known[KNOWN], const struct fact *f);
struct known_producer *known_find(struct known_producer known[KNOWN], int64_t id);

/* ---- what is run: the weights of the steps and the settings ---- */

enum step {
    STEP_APPEND,
    STEP_READ,
    STEP_LOOK_UP,
    STEP_ROLL,
    STEP_RETAIN,
    STEP_TRUNCATE,
    STEP_DELETE_RECORDS,
    STEP_FLUSH,
    STEP_SLOW_FLUSH, /* in three parts, with other steps between them */
    STEP_CHECKPOINT,
    STEP_EPOCH,
    STEP_SETTINGS,
    STEP_TICK,
    STEP_STOP, /* cleanly, and start again */
    STEP_RESTART_AT,
    STEP_DELETE_LOG,
    STEP_COUNT,
};
struct theme {
    const char *name;
    uint8_t weights[STEP_COUNT];
    bool flush_each; /* flush.messages=1: an answer follows a flush */
    bool idempotent; /* only what a producer with an id sends */
    int32_t segment_bytes;
    int64_t retention_bytes;
};
extern const struct theme themes[];
extern const size_t theme_count;
const struct theme *theme_find(const char *name); /* NULL: there is none */

/* ---- the node ---- */

/* A part of a segment that was given to a reader: it must stay as it was. */
struct held {
    int fd; /* -1: none */
    uint64_t position;
    size_t size_bytes;
    uint64_t hash;
};
enum { HELD = 3 };

struct node {
    const struct theme *theme;
    struct disk *disk;
    struct file_system fs;
    struct dice dice;
    struct log *log;
    struct log_config config;
    int64_t now_ms;
    uint8_t topic;       /* which topic of the name this is: its id */
    uint8_t made_topic;  /* which one the folder was made for */
    struct facts acked;  /* in the log, by offset; what retention took stays in the list */
    struct facts flying; /* sent and never answered: may be there, once and in this order, behind the acked */
    struct facts cut;    /* a truncation failed: nothing was flushed since, so a power cut may bring them back */
    struct known_producer known[KNOWN];
    int64_t deleted_to;     /* DeleteRecords, answered */
    int64_t start;          /* where the log started when it was last looked at */
    int64_t may_start;      /* where a removal under way may make it start; -1: none is under way */
    struct held held[HELD]; /* references that readers have */
    int64_t durable;        /* what is before it survives a power cut */
    int64_t epoch;          /* of the leader */
    uint64_t unique;        /* each value is another one */
    bool unflushed_anew;    /* the log was begun anew, which a power cut may undo */
    bool anew_failed;       /* and may not be, as a call failed */
    bool accepted;          /* what was found was once taken as it was */
    bool ended;             /* the process gave up */
    uint64_t opens, steps;
};

/* A disk with an empty data directory. */
struct node *node_new(const struct theme *theme, uint64_t seed);
struct node *node_free(struct node *n); /* returns NULL */
/* Takes the clean-stop marker, reads the checkpoints, opens the log. 0 or -errno, and then nothing is open. */
NODISCARD int node_start(struct node *n);
/* Flush, checkpoints, log_close, marker, as storage stops. 0 or -errno; the log is closed in any case. */
NODISCARD int node_stop(struct node *n);
/* The checkpoint files. A failure, but for a full disk, ends the node. */
NODISCARD int node_write_checkpoint(struct node *n, const char *name, const struct logdir_offset *line, size_t count);
NODISCARD int node_write_checkpoints(struct node *n);
NODISCARD int node_write_starts(struct node *n);
/* Forgets the log as a kill does, and lets the disk do what a kill or a power cut does. */
void node_die(struct node *n, bool power);
/* After a start that followed node_die: what is there against what was promised. Brings the model up to date. */
void node_check_after_death(struct node *n, bool power);
/* All records of the open log against the model. */
void node_check_content(struct node *n);
/* The stopped node's files, by a reader of our own. */
void node_check_files(struct node *n);
/* One step of the theme; false: the log went offline or the disk died. */
bool node_step(struct node *n);
bool node_is_up(const struct node *n);

/* ---- the reader (reader.c): no code of libs/log ---- */

/* Reads the folder of a partition that was stopped cleanly: batches, offset and time indexes, epochs, snapshot.
 * Every batch goes to fn; what is wrong ends in torture_fail. */
typedef void reader_batch_fn(void *ctx, const struct fact *fact);
struct reader_result {
    int64_t end;
    size_t segments, batches;
};
void reader_check(const struct file_system *fs, const char *dir, int64_t log_start, const struct known_producer *known,
                  reader_batch_fn *fn, void *ctx, struct reader_result *ret);

/* ---- the loops (faults.c, random.c) ---- */

enum fault {
    FAULT_EIO,
    FAULT_EIO_POWER, /* and the power goes at the end of the life that follows */
    FAULT_ENOSPC,
    FAULT_FULL,  /* the disk stays full for a while */
    FAULT_SHORT, /* a write is short, then the process dies */
    FAULT_KILL,
    FAULT_POWER,
    FAULT_COUNT,
};
extern const char *const fault_names[FAULT_COUNT];
/* One run with the fault at call n (and, with again >= 0, death at call `again` of the start that follows). False: the
 * run passed without meeting it. */
bool fault_run(const struct theme *theme, enum fault fault, uint64_t seed, uint64_t n, int64_t again);
/* Every n until the run passes, for each theme and fault (NULL, FAULT_COUNT: all). share: of the runs, one in so many.
 */
void fault_all(const struct theme *theme, enum fault fault, uint64_t seed, uint64_t share);
/* A long life with everything in it. */
void random_run(const struct theme *theme, uint64_t seed, uint64_t steps);

#endif
