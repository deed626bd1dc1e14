/* progress.c - how far the opening of logs is, for people: a line a directory and second in the log, and the file
 * RUN_DIR/storage-ID.directories, which `karst status` reads (services/karst/directories.c):
 *
 *   directory PATH <tab> online|offline <tab> OPEN <tab> ALL <tab> CHECKED_BYTES <tab> FOUND_BYTES
 *   partition NAME <tab> PATH <tab> REASON
 *
 * OPEN and ALL count logs; bytes are those behind the recovery points. */
#include "libs/base/buf.h"
#include "services/storage/storage.h"
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

enum { PROGRESS_MS = 1000 };

static size_t all_logs(const struct directory *d)
{
    return d->replica_count + HASH_COUNT(d->unopened);
}

static uint64_t checked(const struct directory *d)
{
    return atomic_load_explicit(&d->progress.checked_bytes, memory_order_relaxed);
}

static uint64_t found(const struct directory *d)
{
    return atomic_load_explicit(&d->progress.found_bytes, memory_order_relaxed);
}

/* A tab or a line's end in a path or a reason would be read as the next field. */
static void add_text(struct buf *b, const char *text)
{
    for (; *text; text++)
        buf_printf(b, "%c", (unsigned char)*text < ' ' ? '?' : *text);
}

static void add_directory(struct buf *b, const struct directory *d)
{
    buf_printf(b, "directory ");
    add_text(b, d->path);
    buf_printf(b, "\t%s\t%zu\t%zu\t%" PRIu64 "\t%" PRIu64 "\n", d->failed ? "offline" : "online", d->replica_count,
               all_logs(d), checked(d), found(d));
    for (const struct unopened *u = d->unopened; u != NULL; u = u->hh.next) {
        if (u->state != UNOPENED_STAYS || u->err == 0)
            continue;
        buf_printf(b, "partition ");
        add_text(b, u->name);
        buf_printf(b, "\t");
        add_text(b, d->path);
        buf_printf(b, "\t");
        add_text(b, unopened_reason(u));
        buf_printf(b, "\n");
    }
}

void progress_write(struct storage *s)
{
    struct buf b = {0};
    char name[64];
    snprintf(name, sizeof name, "storage-%" PRId32 ".directories", service_id(s->service));
    for (size_t i = 0; i < s->dir_count; i++)
        add_directory(&b, &s->dirs[i]);
    int err = file_replace(&file_system_real, service_run_dir(s->service), name, b.data, b.size, false);
    if (err < 0)
        log_warn("%s/%s: %s: karst status will not know", service_run_dir(s->service), name, strerror(-err));
    buf_free(&b);
}

static void progress_on_timer(void *ctx)
{
    struct storage *s = ctx;
    bool any = false;
    for (size_t i = 0; i < s->dir_count; i++) {
        const struct directory *d = &s->dirs[i];
        if (!d->opening || d->failed != 0)
            continue;
        any = true;
        log_info("%s: %zu of %zu logs are open, %" PRIu64 " of %" PRIu64 " bytes behind the recovery points of these "
                 "and the next are checked",
                 d->path, d->replica_count, all_logs(d), checked(d), found(d));
    }
    if (!any)
        s->progress_timer = loop_timer_stop(s->progress_timer);
    progress_write(s);
}

void progress_soon(struct storage *s)
{
    if (s->progress_timer == NULL && s->may_open && !s->draining)
        s->progress_timer = loop_timer_start(s->loop, PROGRESS_MS, PROGRESS_MS, progress_on_timer, s);
}
