/* errors.h - inside libs/log: why an append is refused, and which of its records are the reason (KIP-467). */
#ifndef KARST_LOG_ERRORS_H
#define KARST_LOG_ERRORS_H

#include "libs/log/log.h"

/* Sets the message, a constant; returns error. */
enum kafka_error append_refuse(struct log_append *a, enum kafka_error error, const char *message);

/* Records that break rules, while a batch is read. Zero-initialised is empty. */
struct record_errors {
    struct buf text; /* their messages, each ended by a zero */
    int32_t *indexes;
    int32_t count, total; /* kept, and met: at most RECORD_ERRORS_MAX are kept */
    bool bad_time;        /* one of them is about a timestamp: that kind is answered then, as by Kafka */
};
enum { RECORD_ERRORS_MAX = 1000 };

void record_errors_add(struct record_errors *e, int32_t index, bool bad_time, const char *format, ...)
    PRINTF_LIKE(4, 5);
/* Gives them to the append, and the error that they come to: NONE without any. Empties e. */
enum kafka_error record_errors_give(struct record_errors *e, struct log_append *a);
void record_errors_free(struct record_errors *e);

#endif
