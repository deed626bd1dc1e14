/* parts.h - runs of seeds in several processes, on a core each: what each of them ran, saw and needed is put together
 * in the end. Threading: one. */
#ifndef KARST_TESTS_SIM_PARTS_H
#define KARST_TESTS_SIM_PARTS_H

#include "libs/base/base.h"

/* fn runs in so many processes; with one, in this. The worst of what they return; one that dies counts as 1. */
typedef int parts_fn(void *ctx);
int parts_run(int count, parts_fn *fn, void *ctx);
/* Of what all of them walk through, in the same order: is the next one this process's to do? */
bool parts_is_mine(void);

/* A run of a world has simulated so much, and took so much of a processor. name is static. */
void parts_note(const char *name, uint64_t virtual_ms, uint64_t cpu_us);
/* How many runs, how much time, and how much of it an hour of a processor simulates. */
void parts_print(void);

#endif
