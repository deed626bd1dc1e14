/* slabs.h - small blocks of memory by owner: cheap to take and give back, all of an owner's at once. Threading: one. */
#ifndef KARST_TESTS_SIM_SLABS_H
#define KARST_TESTS_SIM_SLABS_H

#include "libs/base/base.h"

/* Whose the next blocks are. */
void slabs_enter(uint32_t owner);
/* NULL: so large a block is not one of these. Nothing is said of what is in it. */
void *slabs_take(size_t size);
bool slabs_has(const void *block);
/* Of blocks that slabs_has. */
void slabs_give_back(void *block);
void *slabs_resize(void *block, size_t size); /* keeps its owner; NULL, and the block as it was: too large */
size_t slabs_size(const void *block);         /* at least what was asked for */
uint32_t slabs_owner(const void *block);

void slabs_give_back_all(uint32_t owner);

#endif
