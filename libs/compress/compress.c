/* compress.c - which codec does what. Each codec has its own file. */
#include "libs/compress/codecs.h"

static const struct codec {
    const char *name;
    int (*decode)(struct slice, size_t, struct buf *);
    int (*encode)(struct slice, struct buf *);
} codecs[] = {
    [COMPRESS_NONE] = {"none", NULL, NULL},
    [COMPRESS_GZIP] = {"gzip", codec_gzip_decode, codec_gzip_encode},
    [COMPRESS_SNAPPY] = {"snappy", codec_snappy_decode, codec_snappy_encode},
    [COMPRESS_LZ4] = {"lz4", codec_lz4_decode, codec_lz4_encode},
    [COMPRESS_ZSTD] = {"zstd", codec_zstd_decode, codec_zstd_encode},
};

static const struct codec *codec_of(int codec)
{
    return codec >= 0 && (size_t)codec < COUNTOF(codecs) ? &codecs[codec] : NULL;
}

const char *compress_name(int codec)
{
    const struct codec *c = codec_of(codec);
    return c ? c->name : NULL;
}

int compress_decode(int codec, struct slice bytes, size_t limit_bytes, struct buf *out)
{
    const struct codec *c = codec_of(codec);
    if (c == NULL)
        return -EINVAL;
    size_t start = out->size;
    int err = 0;
    if (c->decode != NULL) {
        err = c->decode(bytes, limit_bytes, out);
    } else if (bytes.size > limit_bytes) {
        err = -ENOSPC;
    } else {
        buf_append(out, bytes.data, bytes.size);
    }
    if (err < 0)
        out->size = start;
    return err;
}

int compress_encode(int codec, struct slice bytes, struct buf *out)
{
    const struct codec *c = codec_of(codec);
    if (c == NULL)
        return -EINVAL;
    size_t start = out->size;
    int err = 0;
    if (c->encode != NULL)
        err = c->encode(bytes, out);
    else
        buf_append(out, bytes.data, bytes.size);
    if (err < 0)
        out->size = start;
    return err;
}

size_t codec_room(struct buf *out, size_t start, size_t limit_bytes)
{
    size_t done = out->size - start;
    if (done >= limit_bytes)
        return 0;
    size_t step = MIN(MAX((size_t)16 * 1024, done), limit_bytes - done);
    buf_reserve(out, step);
    return step;
}
