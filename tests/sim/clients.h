/* clients.h - model clients of a simulated cluster, and what they must never see (clients.c, client_produce.c,
 * client_consume.c, client_group.c, client_audit.c, client_session.c, client_move.c).
 *
 * producers: idempotent, acks=all, several batches in flight, each record a number of its own; what fails is sent again
 * until it is acknowledged. One a partition, two on one of them.
 *
 * consumer: reads every partition from its start: every record once, in the order of its producer, no gap in the
 * offsets. Names the leader epochs that Metadata tells, and is answered in them only.
 *
 * committer: commits rising offsets and asks for them: never below what was acknowledged, never above what was sent.
 *
 * members: of a classic group: one leader a generation, and each member gets what that leader gave it.
 *
 * auditor: reads again what was read, in large pieces, and deletes what is old: every byte is what was sent.
 *
 * session client: reads many partitions by a fetch session, and writes to them: it is told of every acknowledged
 * record.
 *
 * mover: moves partitions between storage nodes, and elects preferred leaders.
 *
 * clients_check, at the end: every acknowledged record was read at its acknowledged offset, every record once. */
#ifndef KARST_TESTS_SIM_CLIENTS_H
#define KARST_TESTS_SIM_CLIENTS_H

#include "tests/sim/kclient.h"
#include "tests/sim/replicawatch.h"

struct clients;

struct clients_options {
    int frontends;
    int16_t replicas; /* of each partition */
    int moved;        /* between so many storage nodes partitions are moved; 0: they stay where they are */
    const struct replicawatch *committed;
};
NODISCARD struct clients *clients_new(struct sim *s, struct tcp *t, const struct clients_options *o);
struct clients *clients_free(struct clients *c);
/* Nothing new is begun: what is open is finished. */
void clients_finish(struct clients *c);
bool clients_are_done(const struct clients *c);
/* A member of their group has no assignment now. */
bool clients_rebalance(const struct clients *c);
/* Some more records through fetch sessions, after the end. */
void clients_go_on(struct clients *c);
void clients_check(struct clients *c);

/* ---- between the files ---- */

enum { CLIENTS_PARTITIONS = 2, CLIENTS_PRODUCERS = 3, CLIENTS_MEMBERS = 2 };
#define CLIENTS_TOPIC "orders"

/* One record, as it was read: who made it and its number there. */
struct seen {
    int32_t producer;
    uint64_t number;
};

/* A record's value: struct seen and bytes that follow from it, few or some pages. */
void client_value(struct buf *b, int32_t producer, uint64_t number);
/* false: it is no value of a producer of ours, or not all of it. */
bool client_read_value(struct slice value, struct seen *ret_seen);

struct producer;
struct consumer;
struct auditor;
struct committer;
struct session_client;
struct member;
struct mover;
struct generations;

struct clients {
    struct sim *sim;
    struct tcp *tcp;
    bool finishing;
    struct kclient *admin;
    bool has_topic;
    int frontends;
    int16_t replicas; /* of each partition */
    bool compacted;   /* the topic is, and its segments are small */
    const struct replicawatch *committed;
    uint64_t admin_event;
    struct compress_reader *reader; /* of all of them */
    struct compress_writer *writer;
    struct producer *producers[CLIENTS_PRODUCERS];
    struct consumer *consumer;
    struct auditor *auditor;
    struct committer *committer;
    struct session_client *session;
    struct member *members[CLIENTS_MEMBERS];
    struct mover *mover; /* NULL: none */
    struct generations *generations;
};

struct producer *producer_new(struct clients *c, int32_t index);
struct producer *producer_free(struct producer *p);
int32_t producer_partition(int32_t index);
bool producer_is_done(const struct producer *p);
uint64_t producer_sent(const struct producer *p); /* records that were ever sent */
/* Each acknowledged record against what was read. */
void producer_check(const struct producer *p, const struct consumer *consumer);

struct consumer *consumer_new(struct clients *c);
struct consumer *consumer_free(struct consumer *k);
/* Has read so many records of that producer. */
uint64_t consumer_count(const struct consumer *k, int32_t producer);
int64_t consumer_position(const struct consumer *k, int32_t partition);
const struct seen *consumer_at(const struct consumer *k, int32_t partition, int64_t offset); /* NULL: not read */

struct auditor *auditor_new(struct clients *c);
struct auditor *auditor_free(struct auditor *a);

struct session_client *session_client_new(struct clients *c);
struct session_client *session_client_free(struct session_client *k);
bool session_client_is_done(const struct session_client *k);
/* So many more records, whether clients finish or not. */
void session_client_write(struct session_client *k, uint64_t records);

struct committer *committer_new(struct clients *c);
struct committer *committer_free(struct committer *m);
bool committer_is_done(const struct committer *m);
/* Asks once more for what is committed. */
void committer_go_on(struct committer *m);

struct member *member_new(struct clients *c, int32_t index);
struct member *member_free(struct member *m);
bool member_is_done(const struct member *m);
struct generations *generations_free(struct generations *g);

struct mover *mover_new(struct clients *c, int32_t storages);
struct mover *mover_free(struct mover *m); /* takes NULL, returns NULL */

/* Up to where a partition of their topic is committed; -1: nobody knows, as it has one replica. */
int64_t clients_committed(const struct clients *c, int32_t partition);
/* A record at that offset was acknowledged, or given out: where there are several replicas it must be committed. */
void clients_check_committed(const struct clients *c, int32_t partition, int64_t offset, const char *what);

/* One of the front ends. */
uint16_t client_port(struct clients *c);
/* Errors after which a client asks again. */
bool client_may_retry(int16_t error);

#endif
