/* buf.h - bytes that grow: what we write before it leaves. Zero-initialised is empty. Not thread-safe. */
#ifndef KARST_BASE_BUF_H
#define KARST_BASE_BUF_H

#include "libs/base/slice.h"

struct buf {
    uint8_t *data;
    size_t size, capacity;
};

void buf_free(struct buf *b);                 /* and empties it */
void buf_reserve(struct buf *b, size_t more); /* room for more bytes behind size */
void buf_append(struct buf *b, const void *p, size_t n);
uint8_t *buf_grow(struct buf *b, size_t n); /* n more bytes of undefined content; valid until the next growth */
void buf_consume(struct buf *b, size_t n);  /* drops the first n bytes */
void buf_printf(struct buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
static inline struct slice buf_slice(const struct buf *b)
{
    return (struct slice){b->data ? b->data : (const uint8_t *)"", b->size};
}

#endif
