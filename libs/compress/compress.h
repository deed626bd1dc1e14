/* compress.h - the codecs of record batches, in the framings that Kafka's clients write (records.md, "Codecs"): gzip,
 * snappy in the Java framing (bare snappy is read too), lz4 frames, zstd frames.
 *
 * The bytes come from outside: every length is checked, and output beyond the caller's bound is refused before memory
 * is taken. Any thread, but a reader or writer is one thread's at a time. */
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
enum { COMPRESS_CODECS = 5 };

/* Levels are Kafka's (compression.gzip.level ...); snappy has none. */
enum { COMPRESS_LEVEL_DEFAULT = INT32_MIN };

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

/* ---- piece by piece ----
 * A reader and a writer take one stream after the other, and keep the codecs' memory for the next one: some MiB at
 * most. */

struct compress_reader;
NODISCARD struct compress_reader *compress_reader_new(void);
struct compress_reader *compress_reader_free(struct compress_reader *r); /* takes NULL; returns NULL */
/* bytes must stay as they are until the last piece. 0; -EINVAL; -EIO. */
NODISCARD int compress_reader_begin(struct compress_reader *r, int codec, struct slice bytes, size_t limit_bytes);
/* 1 with the next piece, valid until the next call; 0 at the end; the errors of compress_decode, and then the stream is
 * over. A piece has at most 64 KiB; of snappy it is a block, whose size the limit bounds. */
NODISCARD int compress_reader_next(struct compress_reader *r, struct slice *ret_piece);

/* compress_decode with the memory of r. */
NODISCARD int compress_reader_decode(struct compress_reader *r, int codec, struct slice bytes, size_t limit_bytes,
                                     struct buf *out);

struct compress_writer;
NODISCARD struct compress_writer *compress_writer_new(void);
struct compress_writer *compress_writer_free(struct compress_writer *w); /* takes NULL; returns NULL */
/* Begins at the end of out, which grows until compress_writer_end. 0, -EINVAL, -EIO; a stream that is not ended is
 * given up by the next begin. */
NODISCARD int compress_writer_begin(struct compress_writer *w, int codec, int level, struct buf *out);
NODISCARD int compress_writer_write(struct compress_writer *w, struct slice bytes);
NODISCARD int compress_writer_end(struct compress_writer *w);
/* compress_encode with the memory of w, at that level. */
NODISCARD int compress_writer_encode(struct compress_writer *w, int codec, int level, struct slice bytes,
                                     struct buf *out);

#endif
