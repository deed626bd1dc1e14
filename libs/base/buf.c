#include "libs/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

void buf_reserve(struct buf *b, size_t more)
{
    ASSERT(more <= SIZE_MAX / 4 && b->size <= SIZE_MAX / 4);
    if (b->capacity - b->size >= more)
        return;
    size_t want = b->capacity ? b->capacity : 64;
    while (want - b->size < more)
        want *= 2;
    b->data = xrealloc(b->data, want);
    b->capacity = want;
}

uint8_t *buf_grow(struct buf *b, size_t n)
{
    buf_reserve(b, n);
    uint8_t *p = b->data + b->size;
    b->size += n;
    return p;
}

void buf_append(struct buf *b, const void *p, size_t n)
{
    if (n)
        memcpy(buf_grow(b, n), p, n);
}

void buf_consume(struct buf *b, size_t n)
{
    ASSERT(n <= b->size);
    b->size -= n;
    if (b->size)
        memmove(b->data, b->data + n, b->size);
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list first, again;

    va_start(first, format);
    va_copy(again, first);
    int n = vsnprintf(NULL, 0, format, first);
    va_end(first);
    ASSERT(n >= 0);
    buf_reserve(b, (size_t)n + 1);
    vsnprintf((char *)b->data + b->size, (size_t)n + 1, format, again);
    va_end(again);
    b->size += (size_t)n;
}
