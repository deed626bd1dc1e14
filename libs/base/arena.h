/* arena.h - memory that is given back as one: one arena a request. Not thread-safe; belongs to who made it.
 *
 * I1  what arena_alloc gave is valid until arena_reset or arena_free.
 * I2  the total never exceeds the limit given to arena_new: arena_try_alloc answers NULL instead. */
#ifndef KARST_BASE_ARENA_H
#define KARST_BASE_ARENA_H

#include "libs/base/slice.h"

struct arena;

/* limit_bytes: the most that decoding may take from it (0: no limit). */
NODISCARD struct arena *arena_new(size_t limit_bytes);
struct arena *arena_free(struct arena *a); /* takes NULL; returns NULL */
void arena_reset(struct arena *a);         /* forgets all, keeps one block for reuse */
size_t arena_used(const struct arena *a);

/* Aligned for any type, not zeroed. NULL when the limit would be passed: for sizes that come from outside. */
NODISCARD void *arena_try_alloc(struct arena *a, size_t size);
/* The same for sizes of our own making: ends the process when the limit is passed. */
NODISCARD void *arena_alloc(struct arena *a, size_t size);
NODISCARD void *arena_calloc(struct arena *a, size_t count, size_t size); /* zeroed */
/* Room for one more of `count` items of that size in *room: by doubling, the old ones copied. */
NODISCARD void *arena_grow(struct arena *a, void *items, size_t count, int32_t *room, size_t size);
NODISCARD struct slice arena_dup(struct arena *a, struct slice s); /* null stays null */
NODISCARD char *arena_str(struct arena *a, struct slice s);        /* terminated copy; "" for null */
NODISCARD char *arena_printf(struct arena *a, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
