/* replication.h - what the files of replication share: replication.c, fetchers.c, isr.c, acks.c, and what of the others
 * serves them. docs/replication.md says how it works as a whole.
 *
 * I1  a replica has a core exactly while its partition has other replicas, or another node's only. Without one its high
 *     watermark is its log's end, and nothing here costs anything.
 * I2  a replica with a core holds its log's high watermark (log_hold_high_watermark): only the core's actions move it.
 * I3  a follower's Read says of a log only what is as durable as flush.messages asks for. */
#ifndef KARST_SERVICES_STORAGE_REPLICATION_H
#define KARST_SERVICES_STORAGE_REPLICATION_H

#include "libs/replica/replica.h"
#include "services/storage/storage.h"

/* ---- replication.c ---- */
/* The image says p of the replica. */
void replication_take(struct replica *r, const struct image_partition *p);
/* It goes: nobody waits for it any more, and it reads no more. */
void replication_leave(struct replica *r);
void replication_configure(struct replica *r, const struct log_config *config);
void replication_on_rates(struct storage *s); /* they may have changed */
/* Does the follower get no records now (leader.replication.throttled.*)? */
bool replication_throttles(const struct replica *r, int32_t follower);
/* It got so many. */
void replication_given(struct replica *r, int32_t follower, size_t bytes);
/* The leader's log has grown, or more of it is flushed. */
void replication_appended(struct replica *r);
/* A flush has ended. */
void replication_flushed(struct replica *r);
/* The follower `id` has what is before offset, if the Read that says so is one that we can answer. */
void replication_fetched(struct replica *r, int32_t id, int64_t broker_epoch, const Karst__Bus__ReadPartition *q);
void replication_unwatched(struct replica *r, int32_t id);
/* The leader's answer to the Read that left with `past` and offset. records: its batches; the last may be torn. */
void replication_told(struct replica *r, uint64_t past, int64_t offset, const Karst__Bus__ReadResult *result,
                      struct slice records);
/* A follower that waits may read again. */
void replication_tick(struct replica *r);
/* The controller's answer to a change of the ISR. */
struct replication_answer {
    uint64_t id;
    enum kafka_error error;
    int32_t leader_epoch, partition_epoch;
    const int32_t *isr;
    int32_t isr_count;
};
void replication_altered(struct replica *r, const struct replication_answer *answer);
void replication_on_timer(void *ctx); /* who lags leaves the ISR */

/* ---- fetchers.c: Reads of ours ---- */
/* The replica's leader is another now. */
void fetchers_follow(struct replica *r, int32_t leader);
void fetchers_forget(struct replica *r);
/* It may have to say something new to its leader. */
void fetchers_look(struct replica *r);
/* Its leader hears with the next Read where it is, although nothing has changed. */
void fetchers_say_again(struct replica *r);
void fetchers_turn(void *ctx); /* LOOP_COMMIT */
void fetchers_stop(struct storage *s);
void fetchers_free(struct storage *s);

/* ---- isr.c: changes of ISRs on their way to the controller ---- */
void isr_ask(struct replica *r, const struct replica_action *a);
void isr_forget(struct replica *r);
void isr_turn(void *ctx); /* LOOP_COMMIT */
void isr_free(struct storage *s);

/* ---- acks.c: appends that wait for the other replicas ---- */
/* Written, with acks=all: answered when the high watermark is behind it, or its time is over. */
void acks_wait(struct append_part *p);
void acks_on_high_watermark(struct replica *r);
/* The replica leads no more, or goes. */
void acks_end(struct replica *r, enum kafka_error error);
void acks_end_all(struct storage *s);
void acks_free(struct storage *s);

/* ---- peers.c: followers of ours, node by node ---- */
/* A Read of the node has come, with this set of what it watches. */
void peers_read(struct storage *s, int32_t id, struct interest *set);
/* The set goes. */
void peers_forget(struct storage *s, int32_t id, const struct interest *set);
uint64_t peers_last_read_ms(void *ctx, int32_t id);
/* The node's parked Read is answered at the end of the turn, with all that the turn has for it. */
void peers_answer_later(struct storage *s, int32_t id);
void peers_answer(struct storage *s);
struct interest *peers_set(struct storage *s, int32_t id); /* NULL: none */
/* The leader's throttle holds something back of the node's Read: it is looked at again when that may have ended. */
void peers_held(struct storage *s, int32_t id);
/* The node got records that the throttle counts: of those that are held back it is the last now. */
void peers_given(struct storage *s, int32_t id);
void peers_stop(struct storage *s);
void peers_free(struct storage *s);

#endif
