/* gzip.c - RFC 1952 through zlib. Several members behind each other are one stream, as Java reads them. */
#include "libs/compress/codecs.h"
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16 }; /* 32 KiB, with gzip's header */

int codec_gzip_decode(struct slice bytes, size_t limit_bytes, struct buf *out)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes.data, .avail_in = (uInt)MIN(bytes.size, (size_t)UINT32_MAX)};
    if (inflateInit2(&z, GZIP_WINDOW) != Z_OK)
        return -EIO;
    size_t start = out->size;
    int err = 0;
    bool ended = false; /* between two members */
    while (err == 0 && !(ended && z.avail_in == 0)) {
        uint8_t spare;
        size_t room = codec_room(out, start, limit_bytes);
        /* At the limit, one byte more tells an end from an excess. */
        z.next_out = room ? out->data + out->size : &spare;
        z.avail_out = room ? (uInt)MIN(room, (size_t)UINT32_MAX) : 1;
        uInt before = z.avail_out;
        int rc = inflate(&z, Z_NO_FLUSH);
        size_t made = before - z.avail_out;
        if (made > 0 && room == 0)
            err = -ENOSPC;
        else
            out->size += made;
        ended = rc == Z_STREAM_END;
        if (ended && z.avail_in > 0)
            rc = inflateReset(&z);
        if (err == 0 && rc != Z_OK && rc != Z_STREAM_END)
            err = -EBADMSG; /* Z_BUF_ERROR: the input is cut short */
        else if (err == 0 && !ended && made == 0 && z.avail_in == 0)
            err = -EBADMSG;
    }
    inflateEnd(&z);
    return err;
}

int codec_gzip_encode(struct slice bytes, struct buf *out)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes.data, .avail_in = (uInt)bytes.size};
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return -EIO;
    size_t bound = deflateBound(&z, (uLong)bytes.size);
    buf_reserve(out, bound);
    z.next_out = out->data + out->size;
    z.avail_out = (uInt)bound;
    int rc = deflate(&z, Z_FINISH);
    out->size += bound - z.avail_out;
    deflateEnd(&z);
    return rc == Z_STREAM_END ? 0 : -EIO;
}
