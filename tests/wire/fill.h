/* fill.h - messages of random content for the tests of libs/wire, and the book of what they have reached.
 *
 * A filled message can be encoded at its version: what the version has takes defaults, null where it may be, edges and
 * random values; what it lacks keeps its default, or, where it may be dropped, some value. The same state gives the
 * same message. */
#ifndef KARST_TESTS_WIRE_FILL_H
#define KARST_TESTS_WIRE_FILL_H

#include "libs/wire/wire.h"

/* Memory comes from the arena and lives as long. *state is the seed, and moves on. */
void fill_message(uint64_t *state, const struct wire_type *type, int version, struct arena *arena, void *ret_msg);

uint64_t fill_random(uint64_t *state);

/* What the values of one message at one version have been so far, one byte a field of all messages. */
struct cover {
    uint8_t *seen;
};

struct cover cover_new(void);
void cover_free(struct cover *c);
void cover_clear(struct cover *c);
void cover_note(struct cover *c, const struct wire_type *type, int version, const void *msg);

/* Appends a line for each field that has never been another value than its default, never its default or never null
 * although it can be. The count of such lines. */
size_t cover_missing(const struct cover *c, const struct wire_type *type, int version, struct buf *out);

#endif
