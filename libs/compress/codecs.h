/* codecs.h - inside libs/compress: each codec's functions, with the errors of compress.h.
 *
 * Contexts are the codec's own: made by the first begin, kept for the next stream, freed by close, which takes NULL. */
#ifndef KARST_COMPRESS_CODECS_H
#define KARST_COMPRESS_CODECS_H

#include "libs/compress/compress.h"

enum {
    CODEC_PIECE = 64 * 1024,         /* what a read makes at most, but for a block of snappy */
    CODEC_KEEP_MAX = 4 * 1024 * 1024 /* a context that has grown beyond it is not kept for the next stream */
};

/* A stream that is decompressed. */
struct codec_source {
    void *context;
    const uint8_t *at, *end; /* what is still to be read */
    size_t left;             /* how much may still come out */
    bool ended;              /* between two frames or members */
};

/* begin: 0, -EBADMSG, -EIO. read: fills out, which is empty, with the next piece: 0 with nothing in it at the end;
 * -EBADMSG; -ENOSPC: more than left, found before memory is taken for it. */
struct codec_reading {
    int (*begin)(struct codec_source *s);
    int (*read)(struct codec_source *s, struct buf *out);
    void (*close)(void *context);
};

/* A stream that is made, at the end of out. */
struct codec_sink {
    void *context;
    struct buf *out;
    int level;
};

/* 0 or -EIO. */
struct codec_writing {
    int (*begin)(struct codec_sink *s);
    int (*write)(struct codec_sink *s, struct slice bytes);
    int (*end)(struct codec_sink *s);
    void (*close)(void *context);
};

extern const struct codec_reading codec_gzip_reading, codec_snappy_reading, codec_lz4_reading, codec_zstd_reading;
extern const struct codec_writing codec_gzip_writing, codec_snappy_writing, codec_lz4_writing, codec_zstd_writing;

#endif
