/* prepare.c - an append compressed anew before it is staged, on any thread. Nothing here touches a log. */
#include "libs/log/check.h"
#include <stdlib.h>

enum { PREPARE_MIN = 8192 }; /* plain batches below it are compressed where they are staged: less than a ms */

struct log_preparer {
    struct check_tools tools;
};

struct log_preparer *log_preparer_new(void)
{
    return xcalloc(1, sizeof(struct log_preparer));
}

struct log_preparer *log_preparer_free(struct log_preparer *p)
{
    if (p != NULL)
        check_tools_free(&p->tools);
    free(p);
    return NULL;
}

bool log_needs_preparing(const struct log *l, const struct log_append *a)
{
    const struct log_config *c = log_config(l);
    struct batch b;
    if (a->origin != LOG_FROM_CLIENT || c->compression <= COMPRESS_NONE || a->size > (size_t)c->max_message_bytes ||
        batch_parse_header(slice_make(a->bytes, a->size), &b) < 0 || batch_codec(&b) > COMPRESS_ZSTD)
        return false;
    return batch_codec(&b) != c->compression && (batch_codec(&b) != COMPRESS_NONE || a->size > PREPARE_MIN);
}

enum kafka_error log_prepare(struct log_preparer *p, const struct log_config *config, const char *partition,
                             struct log_append *a, struct buf *out)
{
    struct slice bytes = slice_make(a->bytes, a->size);
    struct check c = {.config = config, .partition = partition, .append = a, .tools = &p->tools};
    struct batch b;
    if (batch_parse_header(bytes, &b) < 0 || b.size != bytes.size)
        return KERR_NONE; /* log_stage says what is wrong with it */
    enum kafka_error error = check_header(&c, &b);
    if (error == KERR_NONE)
        error = check_body(&c, &b, bytes.data, bytes);
    if (error != KERR_NONE || c.made == NULL)
        return error;
    buf_append(out, c.made->data, c.made->size);
    batch_set_times(out->data, buf_slice(out), false, c.max_timestamp);
    return KERR_NONE;
}
