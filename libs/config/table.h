/* table.h - the generated table, for keys.c alone. Sorted by scope, then by name in bytes. */
#ifndef KARST_CONFIG_TABLE_H
#define KARST_CONFIG_TABLE_H

#include "libs/config/keys.h"

extern const struct config_key config_table[];
extern const char *const config_table_texts[];        /* beside config_table; NULL: not honoured */
extern const size_t config_table_ends[CONFIG_SCOPES]; /* where each scope ends */

#endif
