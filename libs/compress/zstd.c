/* zstd.c - zstd frames, with or without a content size; written without, as Kafka does. */
#include "libs/compress/codecs.h"
#include <zstd.h>

/* A frame may ask for a window of up to this many bytes (2 to the power); clients' defaults stay below. What we write
 * asks for less: the highest levels would take hundreds of MiB for windows that no batch fills. */
enum { WINDOW_LOG_MAX = 27, WINDOW_LOG_WRITTEN = 20, LEVEL_DEFAULT = 3, LEVEL_LARGE = 10 };

static int begin_reading(struct codec_source *s)
{
    ZSTD_DStream *ctx = s->context;
    if (ctx != NULL && ZSTD_sizeof_DStream(ctx) > CODEC_KEEP_MAX) {
        ZSTD_freeDStream(ctx);
        ctx = NULL;
    }
    if (ctx == NULL)
        ctx = ZSTD_createDStream();
    s->context = ctx;
    if (ctx == NULL || ZSTD_isError(ZSTD_DCtx_reset(ctx, ZSTD_reset_session_only)))
        return -EIO;
    return ZSTD_isError(ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)) ? -EIO : 0;
}

static int read_piece(struct codec_source *s, struct buf *out)
{
    buf_reserve(out, CODEC_PIECE);
    while (out->size < CODEC_PIECE && !(s->ended && s->at == s->end)) {
        ZSTD_inBuffer in = {s->at, (size_t)(s->end - s->at), 0};
        ZSTD_outBuffer to = {out->data + out->size, CODEC_PIECE - out->size, 0};
        size_t hint = ZSTD_decompressStream(s->context, &to, &in);
        if (ZSTD_isError(hint) || (to.pos == 0 && in.pos == 0 && hint != 0))
            return -EBADMSG; /* damaged, or cut short */
        out->size += to.pos;
        s->at += in.pos;
        s->ended = hint == 0;
    }
    return 0;
}

static void close_reading(void *context)
{
    ZSTD_freeDStream(context);
}

const struct codec_reading codec_zstd_reading = {begin_reading, read_piece, close_reading};

static int begin_writing(struct codec_sink *s)
{
    ZSTD_CCtx *ctx = s->context;
    int level = s->level == COMPRESS_LEVEL_DEFAULT ? LEVEL_DEFAULT : s->level;
    if (ctx != NULL && ZSTD_sizeof_CCtx(ctx) > CODEC_KEEP_MAX) {
        ZSTD_freeCCtx(ctx);
        ctx = NULL;
    }
    if (ctx == NULL)
        ctx = ZSTD_createCCtx();
    s->context = ctx;
    if (ctx == NULL || ZSTD_isError(ZSTD_CCtx_reset(ctx, ZSTD_reset_session_and_parameters)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level)))
        return -EIO;
    if (level < LEVEL_LARGE)
        return 0;
    return ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, WINDOW_LOG_WRITTEN)) ? -EIO : 0;
}

static int compress_all(struct codec_sink *s, struct slice bytes, ZSTD_EndDirective how)
{
    ZSTD_inBuffer in = {bytes.data, bytes.size, 0};
    size_t left;
    do {
        buf_reserve(s->out, MAX((size_t)CODEC_PIECE / 4, bytes.size / 4));
        ZSTD_outBuffer to = {s->out->data + s->out->size, s->out->capacity - s->out->size, 0};
        left = ZSTD_compressStream2(s->context, &to, &in, how);
        if (ZSTD_isError(left))
            return -EIO;
        s->out->size += to.pos;
    } while (in.pos < in.size || (how == ZSTD_e_end && left > 0));
    return 0;
}

static int write_bytes(struct codec_sink *s, struct slice bytes)
{
    return compress_all(s, bytes, ZSTD_e_continue);
}

static int end_writing(struct codec_sink *s)
{
    return compress_all(s, SLICE_EMPTY, ZSTD_e_end);
}

static void close_writing(void *context)
{
    ZSTD_freeCCtx(context);
}

const struct codec_writing codec_zstd_writing = {begin_writing, write_bytes, end_writing, close_writing};
