#include "libs/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 };

static enum log_level log_least = LOG_INFO;

void log_set_level(enum log_level least)
{
    log_least = least;
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"DEBUG", "INFO", "WARN", "ERROR"};
    char line[LINE_MAX_BYTES];
    struct timespec now;
    struct tm day;
    va_list arguments;

    if (level < log_least)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &day);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &day);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s ", now.tv_nsec / 1000000, names[level]);
    va_start(arguments, format);
    int more = vsnprintf(line + n, sizeof line - n, format, arguments);
    va_end(arguments);
    n += more < 0 ? 0 : (size_t)more;
    if (n > sizeof line - 1)
        n = sizeof line - 1;
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        return; /* nobody is left to tell */
}
