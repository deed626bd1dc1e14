/* check.h - inside libs/log: is this batch one that may be appended? Looks at nothing but the batch and the topic's
 * rules. */
#ifndef KARST_LOG_CHECK_H
#define KARST_LOG_CHECK_H

#include "libs/log/log.h"

/* All return NONE, or the client's error with a->message (and a->record_errors) set. First by the header alone: */
enum kafka_error check_header(const struct log_config *c, const struct batch *b, struct log_append *a);
/* Will check_body look at more of the batch than its bytes in order, once? Then they must not change meanwhile: the
 * codecs' libraries read their input as they like. */
bool check_needs_copy(const struct log_config *c, const struct batch *b, const struct log_append *a);
/* CRC, codec and records. header: as it will be written. Of bytes only what follows the header is read; they may change
 * under it. */
enum kafka_error check_body(const struct log_config *c, const struct batch *b, const uint8_t *header,
                            struct slice bytes, struct log_append *a);

#endif
