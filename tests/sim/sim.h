/* sim.h - one deterministic run: a seed, virtual time, events in a defined order, and a trace that two runs of one seed
 * share.
 *
 * A world (world_*.c) builds real cores around it, lets model clients drive them, injects faults, and checks what
 * section 8 of the architecture promises. sim_fail ends the run and prints the seed that replays it. Threading: one. */
#ifndef KARST_TESTS_SIM_SIM_H
#define KARST_TESTS_SIM_SIM_H

#include "libs/base/slice.h"
#include "tests/sim/coverage.h"

struct sim;
typedef void sim_fn(void *ctx);

struct sim_world {
    const char *name;
    /* Runs steps of the world; everything it does comes from sim's random numbers. */
    void (*run)(struct sim *s, uint64_t steps);
    uint64_t check_more; /* seeds that a check runs once, behind those that it runs twice */
};
extern const struct sim_world world_log, world_clean, world_bus, world_kraft, world_quorum, world_cluster,
    world_replicas, world_whole;

NODISCARD struct sim *sim_new(uint64_t seed, bool verbose);
struct sim *sim_free(struct sim *s); /* takes NULL, returns NULL */
uint64_t sim_seed(const struct sim *s);

uint64_t sim_random(struct sim *s);
uint64_t sim_below(struct sim *s, uint64_t n); /* 0 .. n - 1; 0 for n 0 */
bool sim_chance(struct sim *s, uint64_t per_thousand);

/* Virtual time. */
uint64_t sim_now_ms(const struct sim *s);
int64_t sim_wall_ms(const struct sim *s);
void sim_pass(struct sim *s, uint64_t ms); /* without events: for worlds that have none */
/* fn runs delay_ms from now; events of one instant in the order they were made. Returns an id, never 0. */
uint64_t sim_at(struct sim *s, uint64_t delay_ms, sim_fn *fn, void *ctx);
void sim_cancel(struct sim *s, uint64_t id); /* 0 and ids that have run are ignored */
/* Runs all events up to that time, which it is then. */
void sim_until(struct sim *s, uint64_t ms);

/* A line of the trace: goes into the hash; printed when verbose. */
void sim_note(struct sim *s, const char *format, ...) PRINTF_LIKE(2, 3);
uint64_t sim_trace_hash(const struct sim *s);
/* A broken promise: prints the seed, the world and what happened, and ends the process with status 1. */
NORETURN void sim_fail(struct sim *s, const char *format, ...) PRINTF_LIKE(2, 3);
void sim_set_world(struct sim *s, const char *name);

#endif
