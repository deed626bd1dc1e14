/* snappy.c - the Java framing: magic "\x82SNAPPY\0", int32 version 1, int32 compatible version 1, then chunks of int32
 * length and one raw snappy block. Bytes without the magic are one bare block, as some clients write.
 *
 * A block is decompressed whole: its length is known before, and at most 21 times its own bytes. */
#include "libs/base/bytes.h"
#include "libs/compress/codecs.h"
#include <snappy-c.h>
#include <stdlib.h>

static const uint8_t java_header[16] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1};
enum { JAVA_MAGIC = 8, JAVA_CHUNK = 32 * 1024 };

static int begin_reading(struct codec_source *s)
{
    size_t size = (size_t)(s->end - s->at);
    bool framed = size >= sizeof java_header && memcmp(s->at, java_header, JAVA_MAGIC) == 0;
    if (framed)
        s->at += sizeof java_header;
    s->ended = framed; /* a bare block is one in any case */
    return 0;
}

static int read_block(struct slice block, size_t left, struct buf *out)
{
    size_t size;
    if (snappy_uncompressed_length((const char *)block.data, block.size, &size) != SNAPPY_OK)
        return -EBADMSG;
    if (size > left)
        return -ENOSPC;
    /* A block cannot grow by more than some 21 times; a length that lies must not take memory. */
    if (size / 64 > block.size)
        return -EBADMSG;
    buf_reserve(out, size + 1);
    if (snappy_uncompress((const char *)block.data, block.size, (char *)out->data, &size) != SNAPPY_OK)
        return -EBADMSG;
    out->size = size;
    return 0;
}

static int read_piece(struct codec_source *s, struct buf *out)
{
    if (!s->ended) {
        struct slice all = slice_make(s->at, (size_t)(s->end - s->at));
        s->at = s->end;
        s->ended = true;
        return read_block(all, s->left, out);
    }
    while (out->size == 0 && s->at < s->end) {
        if (s->end - s->at < 4)
            return -EBADMSG;
        size_t size = get_u32(s->at);
        s->at += 4;
        if (size > (size_t)(s->end - s->at))
            return -EBADMSG;
        int err = read_block(slice_make(s->at, size), s->left, out);
        if (err < 0)
            return err;
        s->at += size;
    }
    return 0;
}

static void close_nothing(void *context)
{
    ASSERT(context == NULL);
}

const struct codec_reading codec_snappy_reading = {begin_reading, read_piece, close_nothing};

/* What waits to be a chunk. */
struct chunk {
    size_t size;
    uint8_t data[JAVA_CHUNK];
};

static int begin_writing(struct codec_sink *s)
{
    if (s->context == NULL)
        s->context = xmalloc(sizeof(struct chunk));
    ((struct chunk *)s->context)->size = 0;
    buf_append(s->out, java_header, sizeof java_header);
    return 0;
}

static int write_chunk(struct codec_sink *s)
{
    struct chunk *c = s->context;
    size_t size = snappy_max_compressed_length(c->size);
    buf_reserve(s->out, size + 4);
    uint8_t *to = s->out->data + s->out->size;
    if (snappy_compress((const char *)c->data, c->size, (char *)to + 4, &size) != SNAPPY_OK)
        return -EIO;
    put_u32(to, (uint32_t)size);
    s->out->size += size + 4;
    c->size = 0;
    return 0;
}

static int write_bytes(struct codec_sink *s, struct slice bytes)
{
    struct chunk *c = s->context;
    for (size_t at = 0; at < bytes.size;) {
        size_t n = MIN(sizeof c->data - c->size, bytes.size - at);
        memcpy(c->data + c->size, bytes.data + at, n);
        c->size += n;
        at += n;
        int err = c->size == sizeof c->data ? write_chunk(s) : 0;
        if (err < 0)
            return err;
    }
    return 0;
}

static int end_writing(struct codec_sink *s)
{
    return ((struct chunk *)s->context)->size > 0 ? write_chunk(s) : 0;
}

const struct codec_writing codec_snappy_writing = {begin_writing, write_bytes, end_writing, free};
