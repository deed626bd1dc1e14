/* scan.c - batch after batch of a segment file, through a buffer that holds at least a header. */
#include "libs/base/bytes.h"
#include "libs/log/segment.h"
#include <stdlib.h>

int scan_begin(struct scan *sc, struct segment *s, uint64_t from, size_t capacity)
{
    int fd = segment_fd(s);
    if (fd < 0)
        return fd;
    *sc = (struct scan){.fs = s->fs, .mode = s->mode, .fd = fd, .at = from, .end = s->size_bytes};
    /* No more than there is to read. */
    uint64_t left = from < sc->end ? sc->end - from : 0;
    sc->capacity = left < capacity ? (size_t)left : capacity;
    if (sc->capacity < BATCH_HEADER_SIZE)
        sc->capacity = BATCH_HEADER_SIZE;
    sc->data = xmalloc(sc->capacity);
    return 0;
}

void scan_end(struct scan *sc)
{
    free(sc->data);
    sc->data = NULL;
}

/* The bytes at .. at + n - 1, which lie before the end. */
static int fill(struct scan *sc, uint64_t at, size_t n)
{
    if (at >= sc->data_at && at + n <= sc->data_at + sc->have)
        return 0;
    if (n > sc->capacity) {
        sc->data = xrealloc(sc->data, n);
        sc->capacity = n;
    }
    size_t want = (size_t)MIN((uint64_t)sc->capacity, sc->end - at);
    sc->have = 0;
    int err = read_with(sc->fs, sc->mode, sc->fd, sc->data, want, at);
    if (err < 0)
        return err;
    sc->data_at = at;
    sc->have = want;
    return 0;
}

int scan_next(struct scan *sc, struct batch *ret_batch, uint64_t *ret_position)
{
    if (sc->at >= sc->end)
        return 0;
    uint64_t left = sc->end - sc->at;
    size_t head = (size_t)MIN(left, (uint64_t)BATCH_HEADER_SIZE);
    int err = fill(sc, sc->at, head);
    if (err < 0)
        return err == -ENODATA ? -EIO : err;
    struct batch b;
    err = batch_read_header(slice_make(sc->data + (sc->at - sc->data_at), head), &b);
    if (err == -EPROTO) {
        b.max_timestamp = b.base_timestamp = RECORDS_NO_TIMESTAMP;
        b.producer_id = RECORDS_NO_PRODUCER;
        b.leader_epoch = -1;
        b.last_offset_delta = b.attributes = 0;
        err = b.base_offset < 0 || b.base_offset == INT64_MAX ? -EBADMSG : 0;
    }
    if (err < 0)
        return err;
    if (b.size > left)
        return -ENODATA;
    *ret_batch = b;
    *ret_position = sc->at;
    sc->at += b.size;
    return 1;
}

int scan_body(struct scan *sc, const struct batch *b, uint64_t position, struct slice *ret_bytes)
{
    int err = fill(sc, position, b->size);
    if (err < 0)
        return err == -ENODATA ? -EIO : err;
    *ret_bytes = slice_make(sc->data + (position - sc->data_at), b->size);
    return 0;
}

/* A message of magic 0 or 1 (Kafka before 0.11): a CRC-32 at byte 12 of all that follows it. Zeros where a power cut
 * left a hole behind the first bytes of a batch look like magic 0, and must not pass. */
static bool old_crc_holds(struct slice message)
{
    enum { CRC_AT = 12, BODY_AT = 16 };
    return message.size > BODY_AT &&
           get_u32(message.data + CRC_AT) == bytes_crc32(message.data + BODY_AT, message.size - BODY_AT);
}

bool scan_crc_holds(const struct batch *b, struct slice bytes)
{
    return b->magic == RECORDS_MAGIC ? batch_crc_holds(b, bytes) : old_crc_holds(bytes);
}
