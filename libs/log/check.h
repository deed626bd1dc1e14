/* check.h - inside libs/log: is this batch one that may be appended, and what is written of it? Looks at nothing but
 * the batch and the topic's rules.
 *
 * The rules, their order and their words are those of Kafka's log (LogValidator). What a client sends is read record by
 * record: a plain batch where it lies, a compressed one in a stream whose memory is bounded (records.h). Where
 * compression.type asks for another codec, what comes out of that stream goes straight into the new one. */
#ifndef KARST_LOG_CHECK_H
#define KARST_LOG_CHECK_H

#include "libs/log/errors.h"
#include "libs/log/log.h"

/* What checking needs besides the batch, once a thread; made when it is needed first. */
struct check_tools {
    struct compress_reader *reader;
    struct compress_writer *writer;
    struct buf made;
};
void check_tools_free(struct check_tools *t); /* and empties it */

struct check {
    const struct log_config *config;
    const char *partition; /* TOPIC-PARTITION, for messages */
    struct log_append *append;
    struct check_tools *tools;
    /* what is to be written; valid after NONE */
    bool restamp; /* the header gets max_timestamp and timestamp type anew */
    int64_t max_timestamp;
    const struct buf *made; /* the batch compressed anew, with its header, all but offset, epoch and times; NULL: as it
                               was sent; valid until the next batch is checked */
};

/* All return NONE, or the client's error with append->message (and record_errors) set. First by the header alone: */
enum kafka_error check_header(struct check *c, const struct batch *b);
/* Will check_body look at more of the batch than its bytes in order, once? Then they must not change meanwhile: the
 * codecs' libraries read their input as they like. */
bool check_needs_copy(const struct check *c, const struct batch *b);
/* CRC, codec and records. header: as it will be written. Of bytes only what follows the header is read; they may change
 * under it. */
enum kafka_error check_body(struct check *c, const struct batch *b, const uint8_t *header, struct slice bytes);

#endif
