/* text.h - inside libs/log: reading Kafka's small text files, whose lines end with a newline (the last one may lack
 * it). */
#ifndef KARST_LOG_TEXT_H
#define KARST_LOG_TEXT_H

#include "libs/base/slice.h"

/* The next line without its end; false when nothing is left. */
bool text_line(struct slice *rest, struct slice *ret_line);
/* The next word up to a space; false when nothing is left. */
bool text_word(struct slice *rest, struct slice *ret_word);
/* A whole word as a decimal number of at most max; an optional '-' in front. */
bool text_int(struct slice word, int64_t max, int64_t *ret_value);

#endif
