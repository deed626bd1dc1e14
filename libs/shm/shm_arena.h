/* shm_arena.h - memory that other processes of this kernel may read: one memfd, handed out in blocks of whole pages.
 *
 * The memfd is sealed against growing, shrinking and further seals, so whoever maps it never meets SIGBUS. Its size is
 * address space: a page takes memory when it is first written, and until shm_arena_trim gives it back. Blocks are the
 * lowest that fit, so what is in use stays together and pages that were touched are used again.
 *
 * A block is reference-counted like any payload (libs/bus/ref.h) and comes back with its last count, from whichever
 * thread drops it: it waits in a list without locks until the owning thread's next shm_arena_alloc or shm_arena_trim.
 * The arena outlives its blocks: shm_arena_free gives up only the caller's own count.
 *
 * I1  a block's bytes are nobody else's until its last count is gone.
 * I2  pages of a block are never given back to the system while it is in use.
 *
 * Threading: the owning loop's thread; counts of blocks may be dropped by any. */
#ifndef KARST_SHM_ARENA_H
#define KARST_SHM_ARENA_H

#include "libs/bus/ref.h"

struct shm_arena;

struct shm_block {
    struct ref_owner owner; /* first */
    uint8_t *data;
    size_t capacity; /* whole pages */
    struct shm_arena *arena;
    struct shm_block *next; /* in a list of the arena's, while it is free */
};

/* bytes is rounded up to whole pages. NULL with *ret_error (a negative errno: no memfd, no address space) when there is
 * none: the caller goes on with the heap. id is how peers name the arena; never 0. */
NODISCARD struct shm_arena *shm_arena_new(uint64_t id, size_t bytes, int *ret_error);
struct shm_arena *shm_arena_free(struct shm_arena *a); /* takes NULL; returns NULL */

int shm_arena_fd(const struct shm_arena *a); /* the arena's own: not to be closed */
uint64_t shm_arena_id(const struct shm_arena *a);
size_t shm_arena_size(const struct shm_arena *a);

/* At least size (> 0) bytes with a count of 1, of any content. NULL: no room. */
NODISCARD struct shm_block *shm_arena_alloc(struct shm_arena *a, size_t size);

bool shm_arena_holds(const struct shm_arena *a, struct slice bytes); /* also for a NULL arena */
uint64_t shm_arena_position(const struct shm_arena *a, const uint8_t *data);

/* Gives the system the pages that were in no block since the call before. To be called on a slow timer while it answers
 * true, which is: there may be more to give back next time. */
bool shm_arena_trim(struct shm_arena *a);
/* Has a block been given out or come back since the last trim? Then the timer is wanted. */
bool shm_arena_wants_trim(const struct shm_arena *a);

/* Bytes in blocks, those included that are on their way back. */
size_t shm_arena_used(const struct shm_arena *a);
/* Bytes that were in a block and were not given back: at most so much memory is taken. */
size_t shm_arena_touched(const struct shm_arena *a);

#endif
