/* codecs.h - inside libs/compress: each codec's two functions, with the errors of compress.h. They append to out and
 * may leave a part there when they fail. */
#ifndef KARST_COMPRESS_CODECS_H
#define KARST_COMPRESS_CODECS_H

#include "libs/compress/compress.h"

int codec_gzip_decode(struct slice bytes, size_t limit_bytes, struct buf *out);
int codec_gzip_encode(struct slice bytes, struct buf *out);
int codec_snappy_decode(struct slice bytes, size_t limit_bytes, struct buf *out);
int codec_snappy_encode(struct slice bytes, struct buf *out);
int codec_lz4_decode(struct slice bytes, size_t limit_bytes, struct buf *out);
int codec_lz4_encode(struct slice bytes, struct buf *out);
int codec_zstd_decode(struct slice bytes, size_t limit_bytes, struct buf *out);
int codec_zstd_encode(struct slice bytes, struct buf *out);

/* Reserves the next piece of output behind out->size, where the stream began at start: its size, 0 when the limit is
 * reached. */
size_t codec_room(struct buf *out, size_t start, size_t limit_bytes);

#endif
