/* errors.c - see errors.h. All texts of an append are one piece of memory with its record_errors. */
#include "libs/log/errors.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum kafka_error append_refuse(struct log_append *a, enum kafka_error error, const char *message)
{
    a->message = message;
    return error;
}

void record_errors_add(struct record_errors *e, int32_t index, bool bad_time, const char *format, ...)
{
    char text[512];
    va_list arguments;
    e->total++;
    e->bad_time |= bad_time;
    if (e->count == RECORD_ERRORS_MAX)
        return;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t count = (size_t)e->count;
    if ((count & (count - 1)) == 0)
        e->indexes = xrealloc(e->indexes, (count ? 2 * count : 1) * sizeof *e->indexes);
    e->indexes[e->count++] = index;
    buf_append(&e->text, text, MIN((size_t)MAX(n, 0), sizeof text - 1));
    buf_append(&e->text, "", 1);
}

/* "[RecordError(batchIndex=0, message='...'), ...]", as Java prints the first three. */
static void print_first(const struct record_errors *e, struct buf *out)
{
    const char *text = (const char *)e->text.data;
    buf_append(out, "[", 1);
    for (int32_t i = 0; i < MIN(e->count, 3); i++) {
        buf_printf(out, "%sRecordError(batchIndex=%d, message='%s')", i > 0 ? ", " : "", e->indexes[i], text);
        text += strlen(text) + 1;
    }
    buf_append(out, "]", 2);
}

enum kafka_error record_errors_give(struct record_errors *e, struct log_append *a)
{
    if (e->total == 0)
        return KERR_NONE;
    size_t texts = e->text.size;
    if (e->bad_time) {
        buf_printf(&e->text, "One or more records have been rejected due to invalid timestamp");
        buf_append(&e->text, "", 1);
    } else {
        buf_printf(&e->text,
                   "One or more records have been rejected due to %d record errors in total, and only showing the "
                   "first three errors at most: ",
                   e->total);
        struct buf first = {0};
        print_first(e, &first);
        buf_append(&e->text, first.data, first.size);
        buf_free(&first);
    }
    size_t array = (size_t)e->count * sizeof *a->record_errors;
    a->record_errors = xmalloc(array + e->text.size);
    a->record_error_count = e->count;
    char *text = (char *)a->record_errors + array;
    memcpy(text, e->text.data, e->text.size);
    a->message = text + texts;
    for (int32_t i = 0; i < e->count; i++) {
        a->record_errors[i] = (struct log_record_error){e->indexes[i], text};
        text += strlen(text) + 1;
    }
    enum kafka_error error = e->bad_time ? KERR_INVALID_TIMESTAMP : KERR_INVALID_RECORD;
    record_errors_free(e);
    return error;
}

void record_errors_free(struct record_errors *e)
{
    buf_free(&e->text);
    free(e->indexes);
    *e = (struct record_errors){0};
}
