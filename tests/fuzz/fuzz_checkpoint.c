// link: log records base
/* fuzz_checkpoint.c - the parsers of what stands in and beside a partition: checkpoints, epochs, producer snapshots,
 * folder names. */
#include "libs/log/epochs.h"
#include "libs/log/logdir.h"
#include "libs/log/producers.h"
#include <stdlib.h>

static void name(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size);
    struct slice topic = SLICE_NULL;
    int32_t partition = 0;
    if (logdir_parse_name(text, &topic, &partition) != LOGDIR_OTHER)
        ASSERT(topic.size > 0 && partition >= 0);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice bytes = slice_make(data + 1, size - 1);
    switch (data[0] % 4) {
    case 0: {
        struct logdir_checkpoint *t;
        if (logdir_parse_checkpoint(bytes, &t) == 0)
            logdir_checkpoint_free(t);
        break;
    }
    case 1: {
        struct epochs e = {0};
        if (epochs_parse(&e, bytes) == 0) {
            for (size_t i = 1; i < e.count; i++)
                ASSERT(e.at[i].epoch > e.at[i - 1].epoch && e.at[i].offset > e.at[i - 1].offset);
        }
        epochs_free(&e);
        break;
    }
    case 2: {
        struct producers *p = producers_new();
        if (producers_parse_snapshot(p, bytes, 0, INT64_MAX) == 0)
            ASSERT(producers_count(p) * PRODUCER_ENTRY_SIZE <= bytes.size);
        producers_free(p);
        break;
    }
    case 3: name(bytes.data, bytes.size); break;
    }
    return 0;
}
