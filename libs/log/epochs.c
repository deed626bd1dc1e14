/* epochs.c - the leader epoch table. */
#include "libs/log/epochs.h"
#include "libs/base/buf.h"
#include "libs/log/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { EPOCHS_FILE_MAX_BYTES = 16 * 1024 * 1024 };

void epochs_free(struct epochs *e)
{
    free(e->at);
    *e = (struct epochs){0};
}

static void append(struct epochs *e, int32_t epoch, int64_t offset)
{
    if (e->count == e->capacity) {
        e->capacity = MAX((size_t)1, e->capacity * 2);
        e->at = xrealloc(e->at, e->capacity * sizeof *e->at);
    }
    e->at[e->count++] = (struct epoch_start){epoch, offset};
}

int epochs_parse(struct epochs *e, struct slice text)
{
    struct slice line, word;
    int64_t version, count;
    /* A power cut may leave the first part of it; what is cut within the last number would be another one. */
    if (text.size == 0 || text.data[text.size - 1] != '\n')
        return -EBADMSG;
    if (!text_line(&text, &line) || !text_int(line, INT32_MAX, &version) || version != 0)
        return -EBADMSG;
    if (!text_line(&text, &line) || !text_int(line, INT32_MAX, &count) || count < 0)
        return -EBADMSG;
    for (; count > 0; count--) {
        int64_t epoch, offset;
        if (!text_line(&text, &line) || !text_word(&line, &word) || !text_int(word, INT32_MAX, &epoch))
            return -EBADMSG;
        if (!text_word(&line, &word) || !text_int(word, INT64_MAX, &offset) || epoch < 0 || offset < 0)
            return -EBADMSG;
        if (e->count > 0 && (epoch <= e->at[e->count - 1].epoch || offset <= e->at[e->count - 1].offset))
            return -EBADMSG;
        append(e, (int32_t)epoch, offset);
    }
    return text.size > 0 ? -EBADMSG : 0;
}

int epochs_load(struct epochs *e, const struct file_system *fs, const char *dir)
{
    char *path = xasprintf("%s/%s", dir, EPOCHS_FILE), *text;
    size_t size;
    int err = file_slurp(fs, path, EPOCHS_FILE_MAX_BYTES, &text, &size);
    free(path);
    if (err < 0)
        return err == -ENOENT ? 0 : err;
    err = size == 0 ? -ENODATA : epochs_parse(e, slice_make(text, size));
    e->on_disk = err == 0;
    if (err < 0)
        e->count = 0;
    free(text);
    return err;
}

int epochs_store(struct epochs *e, const struct file_system *fs, const char *dir, bool durable)
{
    struct buf b = {0};
    buf_printf(&b, "0\n%zu\n", e->count);
    for (size_t i = 0; i < e->count; i++)
        buf_printf(&b, "%" PRId32 " %" PRId64 "\n", e->at[i].epoch, e->at[i].offset);
    int err = file_replace(fs, dir, EPOCHS_FILE, b.data, b.size, durable);
    buf_free(&b);
    if (err == 0) {
        e->dirty = e->idle = false;
        e->on_disk = true;
    }
    return err;
}

int32_t epochs_latest(const struct epochs *e)
{
    return e->count > 0 ? e->at[e->count - 1].epoch : -1;
}

void epochs_assign(struct epochs *e, int32_t epoch, int64_t offset)
{
    if (epoch <= epochs_latest(e))
        return;
    /* An epoch in which nothing was written leaves no trace. */
    while (e->count > 0 && e->at[e->count - 1].offset >= offset)
        e->count--;
    append(e, epoch, offset);
    e->dirty = true;
}

void epochs_begin(struct epochs *e, int32_t epoch, int64_t log_end)
{
    bool dirty = e->dirty;
    epochs_assign(e, epoch, log_end);
    e->idle = e->idle || e->dirty;
    e->dirty = dirty || (e->dirty && !e->on_disk);
}

void epochs_drop_idle(struct epochs *e, int64_t log_end)
{
    bool dirty = e->dirty;
    epochs_truncate_end(e, log_end);
    e->dirty = dirty;
}

void epochs_truncate_end(struct epochs *e, int64_t offset)
{
    while (e->count > 0 && e->at[e->count - 1].offset >= offset) {
        e->count--;
        e->dirty = true;
    }
}

void epochs_truncate_start(struct epochs *e, int64_t offset)
{
    size_t covering = 0; /* entries that begin at or before offset */
    while (covering < e->count && e->at[covering].offset <= offset)
        covering++;
    if (covering == 0 || (covering == 1 && e->at[0].offset == offset))
        return;
    size_t drop = covering - 1;
    memmove(e->at, e->at + drop, (e->count - drop) * sizeof *e->at);
    e->count -= drop;
    e->at[0].offset = offset;
    e->dirty = true;
}

int32_t epochs_of_offset(const struct epochs *e, int64_t offset)
{
    for (size_t i = e->count; i > 0; i--) {
        if (e->at[i - 1].offset <= offset)
            return e->at[i - 1].epoch;
    }
    return -1;
}

void epochs_end_of(const struct epochs *e, int32_t epoch, int64_t log_end, int32_t *ret_epoch, int64_t *ret_end)
{
    *ret_epoch = -1;
    *ret_end = -1;
    if (epoch < 0 || e->count == 0 || epoch > epochs_latest(e))
        return;
    if (epoch == epochs_latest(e)) {
        *ret_epoch = epoch;
        *ret_end = log_end;
        return;
    }
    size_t next = 0; /* the first epoch above the one asked for */
    while (e->at[next].epoch <= epoch)
        next++;
    /* Asked for an epoch older than all that are kept: it ended where the log begins (KIP-101). */
    *ret_epoch = next > 0 ? e->at[next - 1].epoch : epoch;
    *ret_end = e->at[next].offset;
}
