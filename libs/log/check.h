/* check.h - inside libs/log: is this batch one that may be appended? Looks at nothing but the batch and the topic's
 * rules. */
#ifndef KARST_LOG_CHECK_H
#define KARST_LOG_CHECK_H

#include "libs/log/log.h"

/* NONE, or the client's error with a->message (and a->record_errors) set. */
enum kafka_error check_batch(const struct log_config *c, const struct batch *b, struct slice bytes,
                             struct log_append *a);

#endif
