/* lz4.c - lz4 frames. Written as Kafka's Java client does: independent blocks of 64 KiB, no sizes, no checksums. */
#include "libs/compress/codecs.h"
#include <lz4frame.h>

int codec_lz4_decode(struct slice bytes, size_t limit_bytes, struct buf *out)
{
    LZ4F_dctx *ctx;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
        return -EIO;
    size_t start = out->size, hint = 1;
    const uint8_t *p = bytes.data, *end = bytes.data + bytes.size;
    int err = 0;
    while (err == 0 && !(hint == 0 && p == end)) {
        uint8_t spare;
        size_t room = codec_room(out, start, limit_bytes);
        size_t made = room ? room : 1, taken = (size_t)(end - p);
        hint = LZ4F_decompress(ctx, room ? out->data + out->size : &spare, &made, p, &taken, NULL);
        if (LZ4F_isError(hint))
            err = -EBADMSG;
        else if (made > 0 && room == 0)
            err = -ENOSPC;
        else if (made == 0 && taken == 0)
            err = -EBADMSG; /* cut short */
        if (err == 0)
            out->size += room ? made : 0;
        p += taken;
    }
    LZ4F_freeDecompressionContext(ctx);
    return err;
}

int codec_lz4_encode(struct slice bytes, struct buf *out)
{
    LZ4F_preferences_t prefs = LZ4F_INIT_PREFERENCES;
    prefs.frameInfo.blockSizeID = LZ4F_max64KB;
    prefs.frameInfo.blockMode = LZ4F_blockIndependent;
    LZ4F_cctx *ctx;
    if (LZ4F_isError(LZ4F_createCompressionContext(&ctx, LZ4F_VERSION)))
        return -EIO;
    size_t bound = LZ4F_compressBound(bytes.size, &prefs) + LZ4F_HEADER_SIZE_MAX;
    buf_reserve(out, bound);
    uint8_t *to = out->data + out->size;
    /* In three steps: LZ4F_compressFrame would choose the block size by itself. */
    size_t size = LZ4F_compressBegin(ctx, to, bound, &prefs), n = size;
    if (!LZ4F_isError(n)) {
        n = LZ4F_compressUpdate(ctx, to + size, bound - size, bytes.data, bytes.size, NULL);
        size += LZ4F_isError(n) ? 0 : n;
    }
    if (!LZ4F_isError(n)) {
        n = LZ4F_compressEnd(ctx, to + size, bound - size, NULL);
        size += LZ4F_isError(n) ? 0 : n;
    }
    LZ4F_freeCompressionContext(ctx);
    if (LZ4F_isError(n))
        return -EIO;
    out->size += size;
    return 0;
}
