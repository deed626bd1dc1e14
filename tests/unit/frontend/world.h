/* world.h - one client, one front end, and everything it asks for: calls of the bus are kept until the test answers
 * them, time is the test's. One world a test process (Criterion forks). */
#ifndef KARST_TESTS_FRONTEND_WORLD_H
#define KARST_TESTS_FRONTEND_WORLD_H

#include "services/frontend/server.h"

struct world_call {
    uint64_t id; /* 0: ended */
    Karst__Bus__Role role;
    int32_t peer;
    Karst__Bus__Call__BodyCase kind;
    void *body; /* a copy: Karst__Bus__AppendRequest or Karst__Bus__ReadRequest */
    struct ref payloads[8];
    size_t payload_count;
    uint32_t timeout_ms;
    bus_done_fn *done;
    void *ctx;
    int16_t kafka_key; /* of bus_call_kafka */
    bool cancelled;
};

extern struct frontend world;
extern struct world_call world_calls[32];
extern size_t world_call_count;
extern uint64_t world_now;
extern uint32_t world_level; /* of the bus */
extern bool world_is_cut;    /* service_is_current says no */
/* "a": 0, 1, 4 to 11 led by broker 1, 2 by nobody, 3 by broker 2, with both in sync. They are in "rack 1" and "rack 2"
 * and at one address, until world_come_by. */
extern const struct uuid WORLD_TOPIC_A;

void world_open(void);
void world_close(void);

/* Brokers have ports of their own, and the client has come by that of this one. */
void world_come_by(int32_t broker);

/* A new image, in which the partition of WORLD_TOPIC_A has that leader, one epoch later. */
void world_lead(int32_t partition, int32_t leader);

/* A new image, in which that front end is there or gone: at FRONTEND:9092, seen by addresses_follow. */
void world_frontend(int32_t id, bool gone);

/* A request of that API and version from the client. */
void world_send(int16_t key, int16_t version, int32_t correlation, const void *request);
/* The next answer, decoded (it lives as long as the world), or NULL; *ret_correlation may be NULL. */
const void *world_receive(int16_t key, int16_t version, int32_t *ret_correlation);
bool world_is_closed(void); /* has the front end asked for the end of the connection? */
void world_hang_up(void);

void world_end_call(size_t i, Karst__Bus__Outcome outcome);
void world_reply_append(size_t i, Karst__Bus__AppendReply *reply);
/* records: one payload. */
void world_reply_read(size_t i, Karst__Bus__ReadReply *reply, const char *records);
void world_reply_read_ref(size_t i, Karst__Bus__ReadReply *reply, struct ref *payload); /* REF_EMPTY: none */
/* Time passes; timers fire. */
void world_pass(uint64_t ms);

#endif
