/* parse.h - values in text, as Java reads them. For libs/config alone. Text is trimmed by the caller. */
#ifndef KARST_CONFIG_PARSE_H
#define KARST_CONFIG_PARSE_H

#include <stdlib.h>
#include <strings.h>

#include "libs/base/slice.h"

struct slice parse_trim(struct slice s); /* without control characters and spaces at both ends */

/* Long.parseLong: decimal digits behind an optional sign, nothing else. */
NODISCARD bool parse_int64(struct slice s, int64_t *ret_value);
/* Double.parseDouble, less its hexadecimal form. */
NODISCARD bool parse_double(struct slice s, double *ret_value);
/* As Java prints it: 2.0, 1.0E10. */
enum { PARSE_DOUBLE_MAX = 40 };
void parse_print_double(double v, char *to);
NODISCARD bool parse_bool(struct slice s, bool *ret_value);

/* Takes the next item of a comma-separated list, trimmed, off *list. False at its end; an empty list, and the end
 * behind a last comma, has no item. */
NODISCARD bool parse_item(struct slice *list, struct slice *ret_item);

/* The next logical line of a Java properties text as a key and a value, both to be freed. 1: one found; 0: the end;
 * -EINVAL: a malformed \uXXXX. *line is the number of the line last read, 0 at the start. */
NODISCARD int parse_property(struct slice *text, int *line, char **ret_key, char **ret_value);

#endif
