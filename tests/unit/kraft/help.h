/* help.h - what the tests of the quorum share: actions, batches, folders. */
#ifndef KARST_TESTS_UNIT_KRAFT_HELP_H
#define KARST_TESTS_UNIT_KRAFT_HELP_H

#include <criterion/criterion.h>

#include "libs/base/buf.h"
#include "libs/kraft/kraft.h"

enum { WALL_MS = 1700000000 };

/* The first action of a kind; NULL: none. */
const struct kraft_action *help_find(struct kraft_actions a, enum kraft_action_kind kind);
/* A batch of one record of so many zeroes; the caller frees it. */
struct buf help_batch(int64_t offset, int32_t epoch, size_t size);
/* The folder with the metadata log in it is there no more. */
void help_remove_dir(const char *dir);

#endif
