/* snappy.c - the Java framing: magic "\x82SNAPPY\0", int32 version 1, int32 compatible version 1, then chunks of int32
 * length and one raw snappy block. Bytes without the magic are one bare block, as some clients write. */
#include "libs/base/bytes.h"
#include "libs/compress/codecs.h"
#include <snappy-c.h>

static const uint8_t java_header[16] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1};
enum { JAVA_MAGIC = 8, JAVA_CHUNK = 32 * 1024 };

static int decode_block(struct slice block, size_t start, size_t limit_bytes, struct buf *out)
{
    size_t size;
    if (snappy_uncompressed_length((const char *)block.data, block.size, &size) != SNAPPY_OK)
        return -EBADMSG;
    size_t done = out->size - start;
    if (size > limit_bytes - MIN(done, limit_bytes))
        return -ENOSPC;
    /* A block cannot grow by more than some 21 times; a length that lies must not take memory. */
    if (size / 64 > block.size)
        return -EBADMSG;
    buf_reserve(out, size + 1);
    if (snappy_uncompress((const char *)block.data, block.size, (char *)out->data + out->size, &size) != SNAPPY_OK)
        return -EBADMSG;
    out->size += size;
    return 0;
}

int codec_snappy_decode(struct slice bytes, size_t limit_bytes, struct buf *out)
{
    size_t start = out->size;
    if (bytes.size < sizeof java_header || memcmp(bytes.data, java_header, JAVA_MAGIC) != 0)
        return decode_block(bytes, start, limit_bytes, out);

    const uint8_t *p = bytes.data + sizeof java_header, *end = bytes.data + bytes.size;
    while (p < end) {
        if (end - p < 4)
            return -EBADMSG;
        size_t size = get_u32(p);
        p += 4;
        if (size > (size_t)(end - p))
            return -EBADMSG;
        int err = decode_block(slice_make(p, size), start, limit_bytes, out);
        if (err < 0)
            return err;
        p += size;
    }
    return 0;
}

int codec_snappy_encode(struct slice bytes, struct buf *out)
{
    buf_append(out, java_header, sizeof java_header);
    for (size_t at = 0; at < bytes.size; at += JAVA_CHUNK) {
        size_t n = MIN((size_t)JAVA_CHUNK, bytes.size - at);
        size_t size = snappy_max_compressed_length(n);
        buf_reserve(out, size + 4);
        uint8_t *to = out->data + out->size;
        if (snappy_compress((const char *)bytes.data + at, n, (char *)to + 4, &size) != SNAPPY_OK)
            return -EIO;
        put_u32(to, (uint32_t)size);
        out->size += size + 4;
    }
    return 0;
}
