/* stream.h - the messages of a link as the bytes of a ring (ring.h). Pure core: no system call.
 *
 *   message := u32 frame count, u32 size of each frame, then their bytes; little endian. Frame 0 is a Batch.
 *
 * A message may be larger than the ring. What the writer has no room for waits in stream_out and holds counts of its
 * frames, the reader gathers in stream_in, in memory of its own. A payload is allocated when its first byte is there,
 * so that a liar's sizes cost nothing; the small ones of a message lie in one piece of memory, each with an owner.
 *
 * Bounds of what arrives: LINK_FRAME0_MAX, LINK_PAYLOADS_MAX (link.h), payload_max_bytes of each payload, and
 * STREAM_MESSAGE_PAYLOADS times that of all together. What waits to leave is bounded by the credits of the link.
 * Threading: one thread; owners of payloads may be released by any. */
#ifndef KARST_BUS_STREAM_H
#define KARST_BUS_STREAM_H

#include "libs/base/buf.h"
#include "libs/bus/ref.h"
#include "libs/bus/ring.h"

enum { STREAM_MESSAGE_PAYLOADS = 4 };

/* ---- out ---- */

struct stream_pending;

struct stream_out {
    struct stream_pending *first, *last; /* what had no room, in order */
    uint64_t position;                   /* where in the ring the last message given ends, or will end */
};

struct stream_message {
    struct slice head, tail;  /* frame 0 in two pieces */
    const struct ref *frames; /* the others; none is a REF_FILE */
    size_t frame_count;
};

/* The message goes into the ring, or waits behind those that wait; takes counts of the frames for that. What is in the
 * ring is not published. 0 or -EPROTO. */
NODISCARD int stream_send(struct stream_out *o, struct ring_writer *w, const struct stream_message *m);
/* Moves what waits into the ring, a quarter of the ring at most, so that the caller can publish what the reader may
 * begin with. 1: more waits, and there is room for it; 0: nothing waits, or nothing fits; -EPROTO. */
NODISCARD int stream_flush(struct stream_out *o, struct ring_writer *w);
static inline bool stream_is_pending(const struct stream_out *o)
{
    return o->first != NULL;
}
void stream_out_clear(struct stream_out *o); /* gives back what waits */

/* ---- in ---- */

struct stream_block;

/* Zero-initialised but for payload_max: nothing has come. The fields are the stream's own. */
struct stream_in {
    uint64_t payload_max;
    uint8_t count_bytes[4];
    uint32_t count, got_count; /* frames of the message; bytes of its count */
    uint32_t *sizes;           /* bytes as they came until got_sizes is all of them */
    size_t got_sizes, sizes_capacity;
    uint32_t at; /* the frame that is gathered, and how much of it is there */
    size_t got;
    struct buf frame0;
    struct ref *frames; /* frame i is frames[i - 1]; made up to the one that is gathered */
    size_t frame_count, frames_capacity;
    uint8_t *to; /* the bytes of the frame that is gathered, its first */
    struct stream_block *block;
    size_t block_used, block_size;
};

struct stream_arrival {
    struct slice frame0;
    struct ref *frames; /* their counts are the caller's */
    size_t frame_count;
};

enum { STREAM_EMPTY, STREAM_MORE, STREAM_MESSAGE };

/* Takes bytes out of the ring, a quarter of the ring at most or to the end of a message, without releasing them.
 * STREAM_EMPTY: nothing is left; STREAM_MORE: go on; STREAM_MESSAGE: one is complete, valid until the next call;
 * -EPROTO, -EBADMSG: the connection must end. */
NODISCARD int stream_receive(struct stream_in *in, struct ring_reader *r, struct stream_arrival *ret_arrival);
void stream_in_clear(struct stream_in *in);

#endif
