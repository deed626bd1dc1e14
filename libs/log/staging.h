/* staging.h - inside libs/log: what was staged in a turn and waits for log_commit, as the vectors of one pwritev.
 *
 * A batch lies here with its header in private memory, of which the written header is the checked one. The rest of a
 * large batch stays where the caller has it; a small one is copied whole behind the one before, so that a turn of many
 * small batches is one vector.
 *
 *   staging_take* -> (staging_keep | staging_drop)     an append is taken batch by batch, and then kept or dropped
 * whole kept ones -> staging_vectors -> staging_done       written; what was taken but not kept yet stays
 *
 * I1  vectors lie in the order of the batches; kept ones come before those that are only taken.
 * I2  memory that was handed out stays where it is until the staging goes back to its pool.
 *
 * The pool belongs to the logs of one thread: it holds the memory of a few turns, so that staging costs no malloc, and
 * a log with nothing staged keeps none. */
#ifndef KARST_LOG_STAGING_H
#define KARST_LOG_STAGING_H

#include "libs/log/check.h"
#include "libs/log/descriptors.h"

/* Up to this size copying a batch costs less than a vector of its own; measured at 100 B to 64 KiB, the two are even
 * between 2 and 4 KiB. */
enum { STAGING_COPY_MAX = 2048 };

struct staging_chunk;

struct staged_batch {
    struct batch batch;
    uint8_t *header; /* private; the whole batch when it was copied whole */
    struct slice
        bytes;    /* copied whole: private; else the caller's, of which only what follows the header is looked at */
    bool restamp; /* the header gets timestamp type and maxTimestamp anew before it is written */
};

/* A point to go back to. */
struct staging_mark {
    size_t batches, vectors, last_bytes; /* of the last vector */
    struct staging_chunk *chunk;
    size_t chunk_used;
};

struct staging {
    struct staging *next; /* of the pool */
    struct staged_batch *batches;
    struct iovec *vectors;
    size_t batch_count, batch_capacity, vector_count, vector_capacity;
    struct staging_chunk *chunks; /* the newest first */
    struct staging_mark kept;
    uint8_t header[BATCH_HEADER_SIZE]; /* of the batch whose header was taken last */
};

/* The open files of the pool's logs. */
struct descriptors *log_pool_descriptors(struct log_pool *p);
NODISCARD struct staging *staging_get(struct log_pool *p);
struct staging *staging_put(struct log_pool *p, struct staging *s); /* takes NULL; returns NULL */

/* The next batch of the caller's bytes, of which all are there: 1 with *ret_batch, valid until the next one is taken;
 * or what batch_next returns. Each byte of the header is read once. */
NODISCARD int staging_take_header(struct staging *s, struct slice *rest, const struct batch **ret_batch);
/* Takes the batch whose header was taken last. whole: all of it becomes private whatever its size. Valid until the next
 * one is taken. */
struct staged_batch *staging_take_body(struct log_pool *p, struct staging *s, bool whole);
/* Another whole batch, copied, instead of the one whose body was taken last. */
void staging_replace(struct log_pool *p, struct staging *s, struct slice made);
/* The batches that were taken but not kept. */
struct staged_batch *staging_taken(const struct staging *s, size_t *ret_count);
void staging_keep(struct staging *s);
void staging_drop(struct log_pool *p, struct staging *s);

/* Memory that lives until staging_put, aligned for any type. */
NODISCARD void *staging_alloc(struct log_pool *p, struct staging *s, size_t size);

/* The vectors of what is kept, for file_write_all, which may use them up. */
struct iovec *staging_vectors(struct staging *s, size_t *ret_count, struct iovec *ret_last);
/* What was kept is forgotten. last: as staging_vectors gave it. */
void staging_done(struct staging *s, struct iovec last);

/* What the logs of the pool check batches with. */
struct check_tools *log_pool_tools(struct log_pool *p);

/* The next number of a file's life. */
uint64_t log_pool_instance(struct log_pool *p);

#endif
