/* zstd.c - zstd frames, with or without a content size. */
#include "libs/compress/codecs.h"
#include <zstd.h>

/* A frame may ask for a window of up to this many bytes (2 to the power); clients' defaults stay below. */
enum { ZSTD_WINDOW_LOG_MAX = 27, ZSTD_LEVEL = 3 };

int codec_zstd_decode(struct slice bytes, size_t limit_bytes, struct buf *out)
{
    ZSTD_DStream *ctx = ZSTD_createDStream();
    if (ctx == NULL)
        return -EIO;
    (void)ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    size_t start = out->size, hint = 1;
    ZSTD_inBuffer in = {bytes.data, bytes.size, 0};
    int err = 0;
    while (err == 0 && !(hint == 0 && in.pos == in.size)) {
        uint8_t spare;
        size_t room = codec_room(out, start, limit_bytes), before = in.pos;
        ZSTD_outBuffer o = {room ? out->data + out->size : &spare, room ? room : 1, 0};
        hint = ZSTD_decompressStream(ctx, &o, &in);
        if (ZSTD_isError(hint))
            err = -EBADMSG;
        else if (o.pos > 0 && room == 0)
            err = -ENOSPC;
        else if (o.pos == 0 && in.pos == before && hint != 0)
            err = -EBADMSG; /* cut short */
        if (err == 0)
            out->size += room ? o.pos : 0;
    }
    ZSTD_freeDStream(ctx);
    return err;
}

int codec_zstd_encode(struct slice bytes, struct buf *out)
{
    size_t bound = ZSTD_compressBound(bytes.size);
    buf_reserve(out, bound);
    size_t n = ZSTD_compress(out->data + out->size, bound, bytes.data, bytes.size, ZSTD_LEVEL);
    if (ZSTD_isError(n))
        return -EIO;
    out->size += n;
    return 0;
}
