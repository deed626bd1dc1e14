/* lz4.c - lz4 frames. Written as Kafka's Java client does: independent blocks of 64 KiB, no sizes, no checksums. */
#include "libs/compress/codecs.h"
#include <lz4frame.h>

/* Behind the magic number: do the blocks stand for themselves? Kafka reads no others, nor do we. */
enum { FLAGS = 4, FLAG_INDEPENDENT = 0x20 };

static int begin_reading(struct codec_source *s)
{
    LZ4F_dctx *ctx = s->context;
    s->ended = true; /* a frame begins */
    if (s->at == s->end)
        return -EBADMSG;
    if (ctx != NULL) {
        LZ4F_resetDecompressionContext(ctx);
        return 0;
    }
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
        return -EIO;
    s->context = ctx;
    return 0;
}

static int read_piece(struct codec_source *s, struct buf *out)
{
    buf_reserve(out, CODEC_PIECE);
    while (out->size < CODEC_PIECE && !(s->ended && s->at == s->end)) {
        if (s->ended && (s->end - s->at <= FLAGS || !(s->at[FLAGS] & FLAG_INDEPENDENT)))
            return -EBADMSG;
        size_t made = CODEC_PIECE - out->size, taken = (size_t)(s->end - s->at);
        size_t hint = LZ4F_decompress(s->context, out->data + out->size, &made, s->at, &taken, NULL);
        if (LZ4F_isError(hint) || (made == 0 && taken == 0))
            return -EBADMSG; /* damaged, or cut short */
        out->size += made;
        s->at += taken;
        s->ended = hint == 0;
    }
    return 0;
}

static void close_reading(void *context)
{
    LZ4F_freeDecompressionContext(context);
}

const struct codec_reading codec_lz4_reading = {begin_reading, read_piece, close_reading};

/* Kafka's level 9, its default, is the fast compressor; every other one is of the slow kind, which begins at 3 here. */
enum { KAFKA_LEVEL_FAST = 9, LEVEL_SLOW_MIN = 3, LEVEL_MAX = 12 };

static LZ4F_preferences_t preferences(int level)
{
    LZ4F_preferences_t p = LZ4F_INIT_PREFERENCES;
    bool fast = level == COMPRESS_LEVEL_DEFAULT || level == KAFKA_LEVEL_FAST;
    p.frameInfo.blockSizeID = LZ4F_max64KB;
    p.frameInfo.blockMode = LZ4F_blockIndependent;
    p.compressionLevel = fast ? 0 : MIN(MAX(level, (int)LEVEL_SLOW_MIN), (int)LEVEL_MAX);
    return p;
}

static int took(struct codec_sink *s, size_t n)
{
    if (LZ4F_isError(n))
        return -EIO;
    s->out->size += n;
    return 0;
}

static int begin_writing(struct codec_sink *s)
{
    LZ4F_cctx *ctx = s->context;
    if (ctx == NULL && LZ4F_isError(LZ4F_createCompressionContext(&ctx, LZ4F_VERSION)))
        return -EIO;
    s->context = ctx;
    LZ4F_preferences_t p = preferences(s->level);
    buf_reserve(s->out, LZ4F_HEADER_SIZE_MAX);
    return took(s, LZ4F_compressBegin(ctx, s->out->data + s->out->size, LZ4F_HEADER_SIZE_MAX, &p));
}

static int write_bytes(struct codec_sink *s, struct slice bytes)
{
    LZ4F_preferences_t p = preferences(s->level);
    size_t bound = LZ4F_compressBound(bytes.size, &p);
    buf_reserve(s->out, bound);
    return took(s, LZ4F_compressUpdate(s->context, s->out->data + s->out->size, bound, bytes.data, bytes.size, NULL));
}

static int end_writing(struct codec_sink *s)
{
    LZ4F_preferences_t p = preferences(s->level);
    size_t bound = LZ4F_compressBound(0, &p);
    buf_reserve(s->out, bound);
    return took(s, LZ4F_compressEnd(s->context, s->out->data + s->out->size, bound, NULL));
}

static void close_writing(void *context)
{
    LZ4F_freeCompressionContext(context);
}

const struct codec_writing codec_lz4_writing = {begin_writing, write_bytes, end_writing, close_writing};
