/* coverage.h - what happened in the runs of this process: what was reached, which faults came, and in which states of
 * the world and to whom. A fault that never happened is a fault that is not tested. Names are static. Threading: one.
 */
#ifndef KARST_TESTS_SIM_COVERAGE_H
#define KARST_TESTS_SIM_COVERAGE_H

#include "libs/base/base.h"

/* Something that has to be reached. */
void sim_cover(const char *what);
/* Something that fails: counted in each of the states that hold. */
void sim_fault(const char *what);
/* A state of the world, or what the one is that is hit, holds from now on, or no more. */
void sim_state(const char *name, bool is);
/* None holds: between two runs. */
void sim_states_end(void);

/* Where it is counted, for processes that were forked: so many bytes of 0 that they share. And what one of them saw. */
size_t sim_coverage_size(void);
void sim_coverage_use(void *zeroed);
void sim_coverage_add(const void *other);

void sim_print_coverage(void);
/* Each fault came in each state that it has to come in, and what has to be looked at was, at least once: 0, or 1 with
 * what is missing on stderr. */
int sim_check_coverage(void);

#endif
