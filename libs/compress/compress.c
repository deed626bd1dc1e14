/* compress.c - which codec does what. Each codec has its own file. */
#include "libs/compress/codecs.h"
#include <stdlib.h>

static const struct codec {
    const char *name;
    const struct codec_reading *reading;
    const struct codec_writing *writing;
} codecs[COMPRESS_CODECS] = {
    [COMPRESS_NONE] = {"none", NULL, NULL},
    [COMPRESS_GZIP] = {"gzip", &codec_gzip_reading, &codec_gzip_writing},
    [COMPRESS_SNAPPY] = {"snappy", &codec_snappy_reading, &codec_snappy_writing},
    [COMPRESS_LZ4] = {"lz4", &codec_lz4_reading, &codec_lz4_writing},
    [COMPRESS_ZSTD] = {"zstd", &codec_zstd_reading, &codec_zstd_writing},
};

static const struct codec *codec_of(int codec)
{
    return codec >= 0 && codec < COMPRESS_CODECS ? &codecs[codec] : NULL;
}

const char *compress_name(int codec)
{
    const struct codec *c = codec_of(codec);
    return c ? c->name : NULL;
}

/* ---- reading ---- */

struct compress_reader {
    const struct codec_reading *reading; /* NULL: the bytes are what comes out */
    struct codec_source source;          /* its context is one of: */
    void *contexts[COMPRESS_CODECS];
    int codec;
    struct buf piece;
};

struct compress_reader *compress_reader_new(void)
{
    return xcalloc(1, sizeof(struct compress_reader));
}

struct compress_reader *compress_reader_free(struct compress_reader *r)
{
    for (int i = 0; r != NULL && i < COMPRESS_CODECS; i++)
        if (codecs[i].reading != NULL)
            codecs[i].reading->close(r->contexts[i]);
    if (r != NULL)
        buf_free(&r->piece);
    free(r);
    return NULL;
}

int compress_reader_begin(struct compress_reader *r, int codec, struct slice bytes, size_t limit_bytes)
{
    const struct codec *c = codec_of(codec);
    if (c == NULL)
        return -EINVAL;
    if (r->piece.capacity > CODEC_KEEP_MAX)
        buf_free(&r->piece);
    r->codec = codec;
    r->reading = c->reading;
    r->source = (struct codec_source){r->contexts[codec], bytes.data, bytes.data + bytes.size, limit_bytes, false};
    if (c->reading == NULL)
        return 0;
    int err = c->reading->begin(&r->source);
    r->contexts[codec] = r->source.context;
    return err;
}

int compress_reader_next(struct compress_reader *r, struct slice *ret_piece)
{
    struct codec_source *s = &r->source;
    struct slice piece = slice_make(s->at, (size_t)(s->end - s->at));
    if (r->reading != NULL) {
        r->piece.size = 0;
        int err = r->reading->read(s, &r->piece);
        if (err < 0)
            return err;
        piece = buf_slice(&r->piece);
    } else {
        s->at = s->end;
    }
    if (piece.size > s->left)
        return -ENOSPC;
    s->left -= piece.size;
    *ret_piece = piece;
    return piece.size > 0;
}

int compress_reader_decode(struct compress_reader *r, int codec, struct slice bytes, size_t limit_bytes,
                           struct buf *out)
{
    size_t start = out->size;
    struct slice piece;
    int err = compress_reader_begin(r, codec, bytes, limit_bytes);
    for (int more = 1; err == 0 && more > 0;) {
        more = compress_reader_next(r, &piece);
        if (more > 0)
            buf_append(out, piece.data, piece.size);
        err = MIN(more, 0);
    }
    if (err < 0)
        out->size = start;
    return err;
}

int compress_decode(int codec, struct slice bytes, size_t limit_bytes, struct buf *out)
{
    struct compress_reader *r = compress_reader_new();
    int err = compress_reader_decode(r, codec, bytes, limit_bytes, out);
    compress_reader_free(r);
    return err;
}

/* ---- writing ---- */

struct compress_writer {
    const struct codec_writing *writing; /* NULL: the bytes as they are */
    struct codec_sink sink;
    void *contexts[COMPRESS_CODECS];
};

struct compress_writer *compress_writer_new(void)
{
    return xcalloc(1, sizeof(struct compress_writer));
}

struct compress_writer *compress_writer_free(struct compress_writer *w)
{
    for (int i = 0; w != NULL && i < COMPRESS_CODECS; i++)
        if (codecs[i].writing != NULL)
            codecs[i].writing->close(w->contexts[i]);
    free(w);
    return NULL;
}

int compress_writer_begin(struct compress_writer *w, int codec, int level, struct buf *out)
{
    const struct codec *c = codec_of(codec);
    if (c == NULL)
        return -EINVAL;
    w->writing = c->writing;
    w->sink = (struct codec_sink){w->contexts[codec], out, level};
    int err = c->writing != NULL ? c->writing->begin(&w->sink) : 0;
    w->contexts[codec] = w->sink.context;
    return err;
}

int compress_writer_write(struct compress_writer *w, struct slice bytes)
{
    if (w->writing != NULL)
        return w->writing->write(&w->sink, bytes);
    buf_append(w->sink.out, bytes.data, bytes.size);
    return 0;
}

int compress_writer_end(struct compress_writer *w)
{
    return w->writing != NULL ? w->writing->end(&w->sink) : 0;
}

int compress_writer_encode(struct compress_writer *w, int codec, int level, struct slice bytes, struct buf *out)
{
    size_t start = out->size;
    int err = compress_writer_begin(w, codec, level, out);
    if (err == 0)
        err = compress_writer_write(w, bytes);
    if (err == 0)
        err = compress_writer_end(w);
    if (err < 0)
        out->size = start;
    return err;
}

int compress_encode(int codec, struct slice bytes, struct buf *out)
{
    struct compress_writer *w = compress_writer_new();
    int err = compress_writer_encode(w, codec, COMPRESS_LEVEL_DEFAULT, bytes, out);
    compress_writer_free(w);
    return err;
}
