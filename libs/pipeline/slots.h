/* slots.h - names for things that come and go: 64-bit ids of slot and generation, never given twice, found in one step.
 * Private to libs/pipeline. Zero-initialised is empty; id 0 is never given. */
#ifndef KARST_PIPELINE_SLOTS_H
#define KARST_PIPELINE_SLOTS_H

#include "libs/base/base.h"

struct slot {
    void *item;          /* NULL: free */
    uint32_t generation; /* of the item, or of the next one */
    uint32_t next_free;  /* slot number + 1; 0: last */
};

struct slots {
    struct slot *slots;
    uint32_t size, first_free, used;
};

uint64_t slots_add(struct slots *s, void *item);
void *slots_get(const struct slots *s, uint64_t id); /* NULL: gone */
void slots_remove(struct slots *s, uint64_t id);
void slots_free(struct slots *s);

#endif
