/* peers.h - processes that serve on a bus, and one that calls them. What is executed where is counted in memory that
 * all share. */
#ifndef KARST_TESTS_BUS_PEERS_H
#define KARST_TESTS_BUS_PEERS_H

#include <sys/types.h>

#include "libs/bus/bus.h"

enum { LIVES = 16, CALLS = 400000, HEARTBEAT_MS = 250 };

#define APPEND KARST__BUS__CALL__BODY_APPEND
#define READ   KARST__BUS__CALL__BODY_READ
#define IS(o)  KARST__BUS__OUTCOME__OUTCOME_##o

struct shared {
    uint8_t executed[LIVES][CALLS]; /* by the life with that number, which is its incarnation */
    int32_t listening[LIVES];       /* set when the life takes calls */
    int32_t held, held_most;        /* rpcs that a life keeps */
    int32_t hold;                   /* 1: keep what comes; 0: answer at once, and what was kept */
    int32_t in_arena, torn; /* payloads that a life saw in an arena; those that were not whole (arena_is_whole) */
};

/* A slice of an arena: the number of its call in the first four bytes, its last byte in all others. */
enum { SLICE_BYTES = 4096 };
bool arena_is_whole(struct slice bytes);

/* A Read with max_wait_ms not 0 is answered with FILE_BYTES from FILE_POSITION of the file of that number, whose bytes
 * are the number's last byte; with min_bytes it is retired then. */
enum { FILE_BYTES = 100000, FILE_POSITION = 10 };

struct serving {
    const char *cluster_id;
    uint32_t credit_calls;
};

/* The caller: this process. */
struct caller {
    struct loop *loop;
    struct bus *bus;
    struct {
        int ended;
        Karst__Bus__Outcome outcome;
        uint64_t bus_id;
    } calls[CALLS];
    int count, ended;
    bool refill; /* a call that ends makes another */
    uint64_t last_ok_ms;
};

extern struct shared *shared;
extern char address[64];
extern int32_t caller_id;      /* of callers of this process */
extern const char *served_tcp; /* where a peer listens beside address; NULL: not */
/* For tcp: the keys of either side; NULL: tcp is unencrypted. */
extern struct trust *served_trust, *calling_trust;
extern bool share; /* whether buses use shared memory where they can; KARST_TEST_SHARED=no in the environment: no */

void peers_begin(void); /* shared memory and an address of our own */
pid_t serve(uint64_t incarnation, const struct serving *serving);
void kill_peer(pid_t pid); /* -9, and waits */
void peers_end(void);

struct caller *caller_new(const char *cluster_id);
struct caller *caller_free(struct caller *c);
int call(struct caller *c, Karst__Bus__Call__BodyCase kind, uint32_t timeout_ms, size_t payload_bytes);
/* Runs the loop until met says so; false: not within so many ms. */
typedef bool condition(struct caller *c);
bool run_until(struct caller *c, condition *met, uint64_t ms);
void run_for(struct caller *c, uint64_t ms);
bool all_ended(struct caller *c);
size_t resident_bytes(pid_t pid);
int executions(int call_number, uint64_t *ret_life);

#endif
