/* world_bus.h - what the two files of the world `bus` share. */
#ifndef KARST_TESTS_SIM_WORLD_BUS_H
#define KARST_TESTS_SIM_WORLD_BUS_H

#include "tests/sim/machine.h"

enum { SERVERS = 2, CALLERS = 3, PAYLOAD_MAX = 3000, ARENA_BYTES = 2 << 20, HEALED_MS = 20000, CALM_MS = 400 };

/* What is known of a call, by its number. */
struct fact {
    int caller, server;
    uint64_t made_ms;
    uint64_t server_life; /* the one that executed it; 0: none */
    bool ended;
    Karst__Bus__Outcome outcome;
};

struct world;

struct node {
    struct world *world;
    Karst__Bus__Role role;
    int32_t id;
    int index;
    char name[32], address[48];
    struct process *process; /* NULL: down */
    struct bus *bus;
    uint64_t life;
    struct parked *parked;
    struct call *calls;
    struct shm_arena *arena; /* of a front end */
    struct disk *disk;       /* of a server */
    struct segment *segments;
    struct loop_timer *churn;
    uint64_t instances;
    struct sending *sendings;
};

/* An rpc that its server has not answered. */
struct parked {
    struct node *node;
    struct rpc *rpc;
    uint64_t number;
    struct loop_timer *timer;
    struct parked *prev, *next;
};

struct call {
    struct node *node;
    uint64_t number;
    bool is_read;
    struct call *prev, *next;
};

struct world {
    struct sim *sim;
    struct machine *machine;
    bool shares;
    bool calm; /* nothing fails, and everybody answers at once */
    struct node servers[SERVERS], callers[CALLERS];
    struct fact *facts;
    size_t count, room;
    uint64_t lives;
    uint64_t generations;
    size_t open, well; /* calls without an end; calls that ended well */
};

/* Notes that a call is executed, and checks that it may be. */
void bus_world_executed(struct node *n, uint64_t number);

/* A server's files: byte by byte they say which file and position it is. */
void files_start(struct node *n);  /* in the life that begins; n is the process */
void files_forget(struct node *n); /* the process is gone */
void files_end(struct node *n);    /* all files are deleted */
void files_on_read(void *ctx, struct rpc *r);
/* A caller's: checks the reply; sends a file's bytes later, as they are then. */
void files_take(struct node *n, const struct bus_result *result);

#endif
