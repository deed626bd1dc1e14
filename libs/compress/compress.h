/* compress.h - the codecs of record batches, in the framings that Kafka's clients write (records.md, "Codecs"): gzip,
 * snappy in the Java framing (bare snappy is read too), lz4 frames, zstd frames.
 *
 * The bytes come from outside: every length is checked, and output beyond the caller's bound is refused before memory
 * is taken. Any thread; nothing is kept between calls. */
#ifndef KARST_COMPRESS_COMPRESS_H
#define KARST_COMPRESS_COMPRESS_H

#include "libs/base/buf.h"

/* Bits 0-2 of a batch's attributes. */
enum compress_codec {
    COMPRESS_NONE = 0,
    COMPRESS_GZIP = 1,
    COMPRESS_SNAPPY = 2,
    COMPRESS_LZ4 = 3,
    COMPRESS_ZSTD = 4,
};

/* "none", "gzip" ...; NULL for a number that is no codec. */
const char *compress_name(int codec);

/* Appends the decompressed bytes of the whole stream to out. 0, or with out as it was:
 *   -EBADMSG  the bytes are no such stream, or are cut short
 *   -ENOSPC   more than limit_bytes would come out
 *   -EINVAL   no such codec */
NODISCARD int compress_decode(int codec, struct slice bytes, size_t limit_bytes, struct buf *out);

/* Appends bytes, compressed at the codec's default level. 0, -EINVAL (no such codec), -EIO (the codec's library
 * failed). */
NODISCARD int compress_encode(int codec, struct slice bytes, struct buf *out);

#endif
