/* gzip.c - RFC 1952 through zlib. Several members behind each other are one stream, as Java reads them. */
#include "libs/compress/codecs.h"
#include <stdlib.h>
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16 }; /* 32 KiB, with gzip's header */

static int begin_reading(struct codec_source *s)
{
    if (s->context != NULL)
        return inflateReset(s->context) == Z_OK ? 0 : -EIO;
    z_stream *z = xcalloc(1, sizeof *z);
    if (inflateInit2(z, GZIP_WINDOW) != Z_OK) {
        free(z);
        return -EIO;
    }
    s->context = z;
    return 0;
}

static int read_piece(struct codec_source *s, struct buf *out)
{
    z_stream *z = s->context;
    buf_reserve(out, CODEC_PIECE);
    while (out->size < CODEC_PIECE && !(s->ended && s->at == s->end)) {
        if (s->ended && inflateReset(z) != Z_OK)
            return -EBADMSG;
        z->next_in = (Bytef *)(uintptr_t)s->at;
        z->avail_in = (uInt)MIN((size_t)(s->end - s->at), (size_t)UINT32_MAX);
        z->next_out = out->data + out->size;
        z->avail_out = (uInt)(CODEC_PIECE - out->size);
        uInt room = z->avail_out;
        int rc = inflate(z, Z_NO_FLUSH);
        bool moved = z->next_in != s->at || z->avail_out != room;
        out->size += room - z->avail_out;
        s->at = z->next_in;
        s->ended = rc == Z_STREAM_END;
        if ((rc != Z_OK && rc != Z_STREAM_END) || !moved)
            return -EBADMSG; /* Z_BUF_ERROR: the input is cut short */
    }
    return 0;
}

static void close_reading(void *context)
{
    if (context != NULL)
        inflateEnd(context);
    free(context);
}

const struct codec_reading codec_gzip_reading = {begin_reading, read_piece, close_reading};

static int begin_writing(struct codec_sink *s)
{
    z_stream *z = s->context;
    int level = s->level == COMPRESS_LEVEL_DEFAULT ? Z_DEFAULT_COMPRESSION : s->level;
    if (z != NULL)
        return deflateReset(z) == Z_OK && deflateParams(z, level, Z_DEFAULT_STRATEGY) == Z_OK ? 0 : -EIO;
    z = xcalloc(1, sizeof *z);
    if (deflateInit2(z, level, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        free(z);
        return -EIO;
    }
    s->context = z;
    return 0;
}

static int deflate_all(struct codec_sink *s, struct slice bytes, int flush)
{
    z_stream *z = s->context;
    int rc;
    z->next_in = (Bytef *)(uintptr_t)bytes.data;
    z->avail_in = (uInt)bytes.size;
    do {
        buf_reserve(s->out, MAX((size_t)CODEC_PIECE / 4, bytes.size / 4));
        size_t room = s->out->capacity - s->out->size;
        z->next_out = s->out->data + s->out->size;
        z->avail_out = (uInt)MIN(room, (size_t)UINT32_MAX);
        room = z->avail_out;
        rc = deflate(z, flush);
        s->out->size += room - z->avail_out;
    } while (rc == Z_OK && (z->avail_in > 0 || flush == Z_FINISH));
    return rc == Z_OK || rc == Z_STREAM_END || (rc == Z_BUF_ERROR && z->avail_in == 0) ? 0 : -EIO;
}

static int write_bytes(struct codec_sink *s, struct slice bytes)
{
    return deflate_all(s, bytes, Z_NO_FLUSH);
}

static int end_writing(struct codec_sink *s)
{
    return deflate_all(s, SLICE_EMPTY, Z_FINISH);
}

static void close_writing(void *context)
{
    if (context != NULL)
        deflateEnd(context);
    free(context);
}

const struct codec_writing codec_gzip_writing = {begin_writing, write_bytes, end_writing, close_writing};
