/* heap.h - whose memory is whose: what the code of a simulated process allocates is given back when the process is
 * killed, as an operating system would. The linker puts these functions in the place of malloc and its kin (--wrap in
 * CMakeLists.txt). Threading: one. */
#ifndef KARST_TESTS_SIM_HEAP_H
#define KARST_TESTS_SIM_HEAP_H

#include "libs/base/base.h"

/* What is allocated from here on belongs to owner; 0: to the simulator itself. Returns the owner so far. */
uint32_t heap_enter(uint32_t owner);
/* Frees all that owner still has. */
void heap_free_all(uint32_t owner);

#endif
