/* records.h - Kafka's record batches, magic 2 (records.md): headers, iteration, building.
 *
 * A batch on disk and on the wire, big-endian:
 *   0 baseOffset  8 batchLength  12 partitionLeaderEpoch  16 magic  17 crc  21 attributes  23 lastOffsetDelta  27
 * baseTimestamp 35 maxTimestamp  43 producerId  51 producerEpoch  53 baseSequence  57 recordCount  61 records The
 * CRC-32C covers all from 21 on; what the leader sets (0-15) is outside it.
 *
 * The bytes are somebody else's and may say anything: nothing here asserts on them. struct batch is a private copy of
 * the header, so that bytes which change under us cannot pass a check and then mean something else. Any thread. */
#ifndef KARST_RECORDS_RECORDS_H
#define KARST_RECORDS_RECORDS_H

#include "libs/base/buf.h"
#include "libs/compress/compress.h"

/* Where the fields are. */
enum {
    BATCH_BASE_OFFSET = 0,
    BATCH_LENGTH = 8,
    BATCH_LEADER_EPOCH = 12,
    BATCH_MAGIC = 16,
    BATCH_CRC = 17,
    BATCH_ATTRIBUTES = 21,
    BATCH_LAST_OFFSET_DELTA = 23,
    BATCH_BASE_TIMESTAMP = 27,
    BATCH_MAX_TIMESTAMP = 35,
    BATCH_PRODUCER_ID = 43,
    BATCH_PRODUCER_EPOCH = 51,
    BATCH_BASE_SEQUENCE = 53,
    BATCH_RECORD_COUNT = 57,
    BATCH_HEADER_SIZE = 61,
    BATCH_LENGTH_OVERHEAD = 12, /* what batchLength does not count */
    BATCH_OLD_SIZE_MIN = 26,    /* of a message of magic 0 without key and value */
    BATCH_SIZE_MAX = INT32_MAX,
};

/* The attributes. */
enum {
    BATCH_ATTR_CODEC = 0x07,
    BATCH_ATTR_LOG_APPEND_TIME = 0x08,
    BATCH_ATTR_TRANSACTIONAL = 0x10,
    BATCH_ATTR_CONTROL = 0x20,
    BATCH_ATTR_DELETE_HORIZON = 0x40,
};

enum { RECORDS_MAGIC = 2, RECORDS_NO_PRODUCER = -1, RECORDS_NO_SEQUENCE = -1, RECORDS_NO_TIMESTAMP = -1 };

/* The header in host order. size is that of the whole batch, header included. */
struct batch {
    int64_t base_offset;
    uint32_t size;
    int32_t leader_epoch;
    int8_t magic;
    uint32_t crc;
    int16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp; /* ms; the delete horizon with BATCH_ATTR_DELETE_HORIZON */
    int64_t max_timestamp;  /* ms */
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t record_count;
};

static inline int batch_codec(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_CODEC;
}
static inline bool batch_is_control(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_CONTROL;
}
static inline bool batch_is_transactional(const struct batch *b)
{
    return b->attributes & BATCH_ATTR_TRANSACTIONAL;
}
static inline bool batch_has_producer(const struct batch *b)
{
    return b->producer_id >= 0;
}
static inline int64_t batch_last_offset(const struct batch *b)
{
    return b->base_offset + b->last_offset_delta;
}
static inline int64_t batch_next_offset(const struct batch *b)
{
    return b->base_offset + b->last_offset_delta + 1;
}
/* Sequence numbers wrap from 2^31-1 to 0. */
int32_t records_sequence_add(int32_t sequence, int32_t n);
int32_t batch_last_sequence(const struct batch *b);

/* Reads the header at the start of bytes, of which the body need not be there. 0, or
 *   -ENODATA  fewer than BATCH_HEADER_SIZE bytes, and not the beginning of what -EPROTO says
 *   -EPROTO   magic is 0 or 1 (a message of Kafka before 0.11, which may be shorter than BATCH_HEADER_SIZE);
 *             base_offset, size and magic are set in *ret_batch all the same
 *   -EBADMSG  a size below the header's, a negative count or delta: no batch */
NODISCARD int batch_read_header(struct slice bytes, struct batch *ret_batch);

/* The next whole batch of *rest, which then starts behind it; *ret_bytes (may be NULL) is the whole batch. 1, or
 *   0         nothing is left
 *   -ENODATA  the last batch is cut short (usual at the end of a fetch)
 *   -EPROTO, -EBADMSG  as above; *rest is as it was */
NODISCARD int batch_next(struct slice *rest, struct batch *ret_batch, struct slice *ret_bytes);

/* The header as it is: 0, -ENODATA and -EPROTO as above; -EBADMSG only for a size below the header's. Counts, deltas
 * and offsets may be anything. For whoever has to say what is wrong with it. */
NODISCARD int batch_parse_header(struct slice bytes, struct batch *ret_batch);

/* Does the CRC of a whole batch hold? bytes has at least b->size bytes. */
bool batch_crc_holds(const struct batch *b, struct slice bytes);

/* The same when the header is a copy that lies elsewhere: of bytes only what follows the header is read. */
bool batch_crc_holds_apart(const struct batch *b, const uint8_t *header, struct slice bytes);

/* Set in the bytes what a leader sets. The CRC stays true. */
void batch_set_offset(uint8_t *bytes, int64_t base_offset, int32_t leader_epoch);
/* Sets the timestamp type and maxTimestamp, and the CRC anew; attributes that mean nothing go, as in Kafka. header: of
 * the whole batch, of which what follows the header lies in bytes (of batchLength and all). */
void batch_set_times(uint8_t *header, struct slice bytes, bool append_time, int64_t max_timestamp);

/* ---- records ---- */

struct record_header {
    struct slice key, value;
};

struct record {
    int64_t offset;
    int64_t timestamp; /* ms; the batch's maxTimestamp with LogAppendTime */
    struct slice key, value;
    int32_t header_count;
    struct slice headers; /* encoded; record_header_next reads them */
};

struct record_iter {
    struct batch batch;
    const uint8_t *at, *end;
    int32_t left;
};

/* Starts over the records of a whole batch. A compressed one is decompressed to scratch (emptied first; up to
 * limit_bytes), which must live as long as the iteration. 0, or the errors of compress_decode. */
NODISCARD int record_iter_init(struct record_iter *it, const struct batch *b, struct slice bytes, struct buf *scratch,
                               size_t limit_bytes);
/* The same with a reader that is kept, for whoever reads many batches. */
NODISCARD int record_iter_init_with(struct record_iter *it, struct compress_reader *reader, const struct batch *b,
                                    struct slice bytes, struct buf *scratch, size_t limit_bytes);
/* 1: *ret_record is the next, pointing into the batch or scratch. 0: no more. -EBADMSG: not a record, or bytes are left
 * over. */
NODISCARD int record_iter_next(struct record_iter *it, struct record *ret_record);
/* All records at once, for whoever only asks whether they are records. */
struct records_sum {
    int64_t min_timestamp; /* the least but for RECORDS_NO_TIMESTAMP; INT64_MAX: none */
    int64_t max_timestamp; /* INT64_MIN: no record */
    bool null_key;         /* one has no key */
};
/* 0, or -EBADMSG as record_iter_next. */
NODISCARD int record_iter_sum(struct record_iter *it, struct records_sum *ret_sum);
/* Walks record->headers: 1, 0 at the end, -EBADMSG. */
NODISCARD int record_header_next(struct slice *headers, struct record_header *ret_header);

/* ---- records in a stream ----
 * For whoever asks what the records are, not for their keys and values: memory is bounded whatever a compressed batch
 * says, and every record must be exactly as long as its fields. */

struct record_tools {
    struct compress_reader *reader;
    struct compress_writer *copy; /* gets what is decompressed; NULL: nobody does */
};
struct record_facts {
    int64_t timestamp;            /* ms, as in struct record */
    int64_t key_size, value_size; /* -1: null */
    int32_t offset_delta;         /* any number */
};
struct record_stream {
    struct record_tools tools;
    struct batch batch;
    const uint8_t *at, *end; /* of the piece */
    int32_t left;
};
/* bytes: the whole batch, unchanged until the last record. 0, or the errors of compress_reader_begin. */
NODISCARD int record_stream_begin(struct record_stream *s, const struct record_tools *tools, const struct batch *b,
                                  struct slice bytes, size_t limit_bytes);
/* 1: the next. 0: no more, and the stream ends there. -EBADMSG: not a record, or bytes are left over, or they do not
 * decompress. -ENOSPC: more than limit_bytes. -EIO: of a codec's library. */
NODISCARD int record_stream_next(struct record_stream *s, struct record_facts *ret_facts);

/* ---- building ---- */

/* Zero-initialised but for the fields named: use BATCH_OPTIONS as the start. */
struct batch_options {
    int64_t base_offset;
    int32_t leader_epoch;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int16_t attributes; /* BATCH_ATTR_TRANSACTIONAL, BATCH_ATTR_CONTROL; the codec is added */
    int codec, level;
    struct compress_writer *writer; /* whose memory is used; NULL: none is kept */
};
#define BATCH_OPTIONS                                                                                                  \
    ((struct batch_options){.leader_epoch = -1,                                                                        \
                            .producer_id = -1,                                                                         \
                            .producer_epoch = -1,                                                                      \
                            .base_sequence = -1,                                                                       \
                            .level = COMPRESS_LEVEL_DEFAULT})

/* Builds one batch at the end of a buf; the bytes are a batch only after batch_builder_end. Several may follow each
 * other. */
struct batch_builder {
    struct buf *out;
    size_t start;
    struct batch_options options;
    int32_t count;
    int64_t base_timestamp, max_timestamp;
};

void batch_begin(struct batch_builder *b, struct buf *out, const struct batch_options *options);
/* key and value may be null; timestamps in ms. Offsets are base_offset + 0, 1, 2 ... */
void batch_add(struct batch_builder *b, int64_t timestamp, struct slice key, struct slice value,
               const struct record_header *headers, int32_t header_count);
/* A control record (records.md, "Control batches"): the batch needs BATCH_ATTR_CONTROL. value is encoded with its int16
 * version. */
void batch_add_control(struct batch_builder *b, int64_t timestamp, int16_t type, struct slice value);
/* The bytes so far, header included. */
size_t batch_builder_size(const struct batch_builder *b);
int32_t batch_builder_count(const struct batch_builder *b);
/* Closes the batch: counts, timestamps, CRC, compression. A batch with no record is taken back. 0, or -errno of
 * compress_encode. */
NODISCARD int batch_end(struct batch_builder *b);

/* ---- control records ---- */

enum control_type {
    CONTROL_ABORT = 0,
    CONTROL_COMMIT = 1,
    CONTROL_LEADER_CHANGE = 2,
    CONTROL_SNAPSHOT_HEADER = 3,
    CONTROL_SNAPSHOT_FOOTER = 4,
    CONTROL_KRAFT_VERSION = 5,
    CONTROL_KRAFT_VOTERS = 6,
};
/* The type in a control record's key; -EBADMSG. Types that are not known are to be skipped. */
NODISCARD int control_type_of(struct slice key);

#endif
