/* read.h - a Read on its way through read.c, read_answer.c, parked.c and cold.c.
 *
 *   READ_NEW --enough, an error, or max_wait_ms 0--> answered
 *            --too few--> READ_PARKED --records arrive, max_wait_ms is over, the caller is gone--> answered
 *   and before the answer, where what it needs is not in memory: READ_COLD --brought in by the slow pool--> answered
 *
 * I1  a parked call is in storage->reads, in the heap of parked.c, and its parts in their replicas' readers; no other
 * is.
 * I2  a cold call has one job of cold.c, which has the call. */
#ifndef KARST_SERVICES_STORAGE_READ_H
#define KARST_SERVICES_STORAGE_READ_H

#include "services/storage/storage.h"

enum { COLD_RANGES = 64 }; /* what one job brings in */

struct cold_job;

/* What of a call is not in memory. */
struct cold_list {
    size_t count;
    struct {
        struct replica_key key;
        struct log_warm *warm;
    } at[COLD_RANGES];
};

struct read_call {
    struct read_call *prev, *next; /* of storage->reads, when parked; of the pool */
    struct storage *storage;
    struct rpc *rpc;
    const Karst__Bus__ReadRequest *request;
    enum { READ_NEW, READ_PARKED, READ_COLD } state;
    uint64_t due_ms;
    size_t heap_at;
    struct cold_job *cold;
    int cold_rounds;
    struct interest *interest; /* of interest.c; NULL: none */
    bool filled;               /* with what is open of it; before that, count is 0 */
    size_t total;              /* of all parts' bytes */
    size_t count;
    struct read_part parts[];
};

/* What one partition would give now. */
struct look {
    enum kafka_error error;
    bool throttled;    /* there are records, but not now */
    bool cold;         /* it cannot be told without waiting for the disk: nothing else is set */
    int32_t preferred; /* the replica that is to be read instead, and there are no records then; -1: this one */
    int64_t high_watermark, last_stable, log_start, log_end;
    int32_t diverging_epoch;
    int64_t diverging_end;
    struct log_range range;
    struct aborted_list *aborted; /* for a reader of committed records; in the arena of the answer */
};

/* ---- read.c ---- */
/* With room for count parts. */
NODISCARD struct read_call *read_call_new(struct storage *s, struct rpc *rpc, const Karst__Bus__ReadRequest *request,
                                          size_t count);
void read_call_free(struct read_call *c);
void read_park(struct read_call *c);
void read_unpark(struct read_call *c); /* if it is parked */
/* Nobody waits for it any more. */
void read_drop(struct read_call *c);
const Karst__Bus__ReadRequest *read_request_of(const struct rpc *rpc);
void read_reply(struct rpc *rpc, const Karst__Bus__ReadReply *reply, const struct ref *payloads, size_t payload_count);
struct uuid read_topic_of(const Karst__Bus__ReadPartition *request);
enum kafka_error read_missing(const struct read_part *p);
/* Does what was seen end the wait whatever the bytes? */
bool read_ends_wait(const struct read_part *p, const struct look *k);

/* ---- read_answer.c ---- */
/* May the part be read, as far as that can be told without the disk? The error; with NONE, k has the divergence. */
enum kafka_error read_check(const struct read_part *p, struct look *k);
/* wait: for the disk, where something is not in memory. */
void read_look_at(const struct read_part *p, size_t max_bytes, bool at_least_one, bool wait, struct look *k);
/* Answers and frees the call, now or when what it needs is in memory. */
void read_answer(struct read_call *c);

/* ---- nearest.c ---- */
/* The replica that a consumer in the Read's rack is to read (KIP-392); -1: us. */
int32_t nearest_replica(const struct read_part *p);

/* ---- parked.c: the calls that wait, by the end of their time; one timer for all ---- */
void parked_add(struct storage *s, struct read_call *c);
void parked_remove(struct storage *s, struct read_call *c);

/* ---- interest.c ---- */
/* A Read with set_id. */
void interest_on_call(struct storage *s, struct rpc *rpc);
/* The call with all its parts, before it is answered: another one, if c is of a set; c is freed then. */
NODISCARD struct read_call *interest_fill(struct read_call *c);
void interest_call_ended(struct read_call *c); /* if it is of a set */
/* The answer says k of the part. */
void interest_told(struct interest_part *ip, const struct look *k, Karst__Bus__ReadResult *to);
/* As read_wake, read_wake_all, read_forget. */
void interest_wake(struct replica *r);
void interest_wake_all(struct replica *r);
void interest_forget(struct replica *r);
/* Of a follower: its parked Read, if there is one with enough to tell. */
void interest_answer(struct interest *set);
/* The same, after what is open was looked at anew. */
void interest_look_again(struct interest *set);
void interests_free(struct storage *s);

/* ---- cold.c ---- */
/* Takes over the list's jobs; read_answer follows when they are done. */
void cold_start(struct read_call *c, const struct cold_list *list);
/* The call goes: nobody waits for its job. */
void cold_forget(struct read_call *c);

#endif
