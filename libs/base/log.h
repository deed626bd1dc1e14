/* log.h - one line a happening on stderr: "2026-01-31T12:00:00.000Z LEVEL text". `karst up` puts the role in front.
 * Libraries return errors; the service logs each once. Thread-safe. Never on the data path. */
#ifndef KARST_BASE_LOG_H
#define KARST_BASE_LOG_H

#include "libs/base/base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level least);
void log_write(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
