/* help.c - see help.h. */
#include "tests/unit/kraft/help.h"

#include <stdlib.h>

#include "libs/log/file.h"
#include "libs/records/records.h"

const struct kraft_action *help_find(struct kraft_actions a, enum kraft_action_kind kind)
{
    for (size_t i = 0; i < a.count; i++)
        if (a.action[i].kind == kind)
            return &a.action[i];
    return NULL;
}

struct buf help_batch(int64_t offset, int32_t epoch, size_t size)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    struct buf out = {0};
    uint8_t *value = xcalloc(1, size);
    o.base_offset = offset;
    o.leader_epoch = epoch;
    batch_begin(&b, &out, &o);
    batch_add(&b, WALL_MS, SLICE_NULL, slice_make(value, size), NULL, 0);
    cr_assert_eq(batch_end(&b), 0);
    free(value);
    return out;
}

void help_remove_dir(const char *dir)
{
    char *path = xasprintf("%s/__cluster_metadata-0", dir);
    cr_assert_eq(file_remove_tree(&file_system_real, path), 0);
    cr_assert_eq(file_remove_tree(&file_system_real, dir), 0);
    free(path);
}
