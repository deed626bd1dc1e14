/* read.c - finding and copying batches.
 *
 * A reader at the tail asks for the base offset of a batch that was just appended: the hints know its position.
 * Everybody else goes through the offset index and the few headers behind its entry. */
#include "libs/log/internal.h"
#include <inttypes.h>
#include <stdlib.h>

enum {
    FRESH_BYTES = 8 << 20,
    PROBE_EVERY_BYTES = 128 << 10, /* what the kernel reads ahead in one piece, and mostly drops in one */
};

static const struct hint *find_hint(const struct hints *h, int64_t offset, int64_t segment)
{
    for (size_t k = 0; k < LOG_HINTS; k++) {
        if (h->at[k].offset == offset && h->at[k].segment == segment)
            return &h->at[k];
    }
    return NULL;
}

int log_tell_damage(struct log *l, struct segment *s, int err)
{
    if (s->misled)
        log_notef(l, LOG_WARN,
                  "%s: an index of segment %" PRId64 " does not say what the records say: it is done without, and the "
                  "next start builds it again",
                  l->dir, s->base);
    s->misled = false;
    if ((err == -EBADMSG || err == -ENODATA) && !s->damaged) {
        s->damaged = true;
        log_notef(l, LOG_ERROR,
                  "%s: segment %" PRId64 " is damaged: what was flushed is no batch any more. Who reads it gets "
                  "CORRUPT_MESSAGE",
                  l->dir, s->base);
    }
    return err;
}

enum kafka_error log_read_error(struct log *l, int err)
{
    if (err == -EBADMSG || err == -ENODATA)
        return KERR_CORRUPT_MESSAGE;
    if (err != -EMFILE && err != -ENFILE)
        log_fail(l, err, "reading");
    return KERR_KAFKA_STORAGE_ERROR;
}

/* What a hint does not know. 1: a batch that ends at or behind offset begins there, with its size; 0: none does. */
static int look_at(struct segment *s, uint64_t position, int64_t offset, uint64_t *ret_size)
{
    struct scan sc;
    struct batch b;
    int err = scan_begin(&sc, s, position, BATCH_HEADER_SIZE);
    if (err < 0)
        return err;
    err = scan_next(&sc, &b, &position);
    scan_end(&sc);
    if (err != 1)
        return err;
    *ret_size = b.size;
    return batch_last_offset(&b) >= offset;
}

/* The position of the first batch that ends at or behind offset, from segment i on; moves to the next segment when the
 * rest of one was compacted away. 1, 0: there is none. */
static int find_position(struct log *l, int64_t offset, size_t *i, uint64_t *ret_position, uint64_t *ret_size)
{
    *ret_size = 0;
    if (offset == l->end) {
        *i = l->segment_count - 1;
        *ret_position = log_active(l)->size_bytes;
        return 1;
    }
    const struct hint *h = find_hint(&l->appended, offset, l->segments[*i]->base);
    if (h == NULL)
        h = find_hint(&l->read, offset, l->segments[*i]->base);
    if (h != NULL) {
        *ret_position = h->position;
        *ret_size = h->size;
        int err = h->size > 0 ? 1 : look_at(l->segments[*i], h->position, offset, ret_size);
        err = log_tell_damage(l, l->segments[*i], err);
        if (err != 0)
            return err;
    }
    for (; *i < l->segment_count; ++*i) {
        struct batch b;
        struct segment *s = l->segments[*i];
        int err = log_tell_damage(l, s, segment_find(s, offset, &b, ret_position));
        if (err == 1)
            *ret_size = b.size;
        if (err != 0)
            return err;
    }
    return 0;
}

/* Where the readable bytes of segment i end, when nothing at or behind upper_offset may be given. */
static int readable_end(struct log *l, size_t i, int64_t upper_offset, uint64_t *ret_end)
{
    *ret_end = l->segments[i]->size_bytes;
    if (upper_offset >= l->end)
        return 0;
    size_t k = log_segment_at(l, upper_offset);
    uint64_t position, size;
    if (k > i)
        return 0;
    int err = find_position(l, upper_offset, &k, &position, &size);
    if (err < 0)
        return err;
    if (err == 1 && k == i)
        *ret_end = position;
    return 0;
}

/* 0 or -errno; -EAGAIN only while reads must not wait. */
static int locate(struct log *l, int64_t offset, int64_t upper_offset, size_t max_bytes, bool at_least_one,
                  struct log_range *ret_range)
{
    struct log_range range = {.segment = log_active(l)->base, .position = log_active(l)->size_bytes};
    upper_offset = MIN(upper_offset, l->end);
    size_t i = log_segment_at(l, offset);
    uint64_t end = 0, first = 0;
    int err = offset < upper_offset ? find_position(l, offset, &i, &range.position, &first) : 0;
    if (err == 1) {
        range.segment = l->segments[i]->base;
        err = readable_end(l, i, upper_offset, &end);
        uint64_t there = end > range.position ? end - range.position : 0;
        range.size_bytes = (size_t)MIN(there, (uint64_t)max_bytes);
        if (err == 0 && there > max_bytes && first > max_bytes)
            range.size_bytes = at_least_one ? (size_t)MIN(first, there) : 0;
    }
    *ret_range = range;
    return err;
}

enum kafka_error log_locate_now(struct log *l, int64_t offset, int64_t upper_offset, size_t max_bytes,
                                bool at_least_one, struct log_range *ret_range, bool *ret_cold)
{
    *ret_cold = false;
    if (l->failed != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    if (offset < l->start || offset > l->end)
        return KERR_OFFSET_OUT_OF_RANGE;
    l->mode.now = true;
    int err = locate(l, offset, upper_offset, max_bytes, at_least_one, ret_range);
    l->mode.now = false;
    if (err == -EAGAIN) {
        *ret_cold = true;
        return KERR_NONE;
    }
    return err < 0 ? log_read_error(l, err) : KERR_NONE;
}

enum kafka_error log_locate(struct log *l, int64_t offset, int64_t upper_offset, size_t max_bytes, bool at_least_one,
                            struct log_range *ret_range)
{
    if (l->failed != 0)
        return KERR_KAFKA_STORAGE_ERROR;
    if (offset < l->start || offset > l->end)
        return KERR_OFFSET_OUT_OF_RANGE;
    int err = locate(l, offset, upper_offset, max_bytes, at_least_one, ret_range);
    return err < 0 ? log_read_error(l, err) : KERR_NONE;
}

/* The reader asks next for what begins behind the last whole batch. Whether that is in this segment is looked at when
 * its header is not here: a segment may end before the next one begins, where compaction took its last records. */
static void note_read(struct log *l, const struct log_range *range, const uint8_t *bytes)
{
    struct slice rest = slice_make(bytes, range->size_bytes);
    struct batch b = {.base_offset = -1};
    int more;
    while ((more = batch_next(&rest, &b, NULL)) == 1)
        ;
    if (b.base_offset < 0 || b.magic != RECORDS_MAGIC || (more < 0 && more != -ENODATA))
        return;
    struct hint hint = {batch_next_offset(&b), range->segment, range->position + range->size_bytes - rest.size, 0};
    struct batch torn;
    if (batch_read_header(rest, &torn) == 0 && batch_last_offset(&torn) >= hint.offset)
        hint.size = torn.size;
    /* Who has read all there is asks next for the batch that is appended next. */
    if (hint.offset <= l->end && find_hint(&l->read, hint.offset, hint.segment) == NULL)
        log_add_hint(&l->read, hint);
}

/* NULL: the log has no such segment, or it is shorter now. */
static struct segment *segment_of(const struct log *l, const struct log_range *range)
{
    struct segment *s = l->segments[log_segment_at(l, range->segment)];
    return s->base == range->segment && range->position + range->size_bytes <= s->size_bytes ? s : NULL;
}

int log_file(struct log *l, const struct log_range *range, struct log_file *ret_file)
{
    struct segment *s = segment_of(l, range);
    if (s == NULL)
        return -ESTALE;
    int fd = file_open(l->fs, s->path, O_RDONLY); /* of its own: who is given it must not be able to write */
    if (fd < 0)
        return fd;
    s->instance = log_pool_instance(l->pool);
    *ret_file = (struct log_file){fd, s->instance};
    return 0;
}

bool log_has_file(const struct log *l, int64_t segment, uint64_t instance)
{
    const struct segment *s = l->segments[log_segment_at(l, segment)];
    return s->base == segment && s->instance == instance;
}

/* What this process wrote last is in memory: the kernel drops what is older first. */
static bool is_fresh(const struct log *l, const struct segment *s, const struct log_range *range)
{
    return s == log_active(l) && range->position >= s->written_from && range->position + FRESH_BYTES >= s->size_bytes;
}

bool log_is_cold(struct log *l, const struct log_range *range)
{
    struct segment *s = segment_of(l, range);
    if (s == NULL || range->size_bytes == 0)
        return false;
    if (is_fresh(l, s, range))
        return false;
    int fd = segment_fd(s), warm = fd < 0 ? fd : file_is_warm(l->fs, fd, range->position + range->size_bytes - 1);
    for (size_t at = 0; warm == 1 && at < range->size_bytes; at += PROBE_EVERY_BYTES)
        warm = file_is_warm(l->fs, fd, range->position + at);
    if (warm != 0)
        return false; /* or it cannot be told: reading it will say what is wrong */
    l->mode.fd = fd;
    l->mode.at = range->position;
    l->mode.size_bytes = range->size_bytes;
    return true;
}

int log_copy(struct log *l, const struct log_range *range, uint8_t *to)
{
    if (range->size_bytes == 0)
        return 0;
    struct segment *s = segment_of(l, range);
    if (s == NULL)
        return -ESTALE;
    int fd = segment_fd(s);
    int err = fd < 0 ? fd : file_read_all(l->fs, fd, to, range->size_bytes, range->position);
    if (err == -ENODATA)
        err = -EIO; /* the file is shorter than it was */
    if (err == 0)
        note_read(l, range, to);
    return err < 0 && err != -EMFILE && err != -ENFILE ? log_fail(l, err, "reading") : err;
}

/* ---- what is not in memory ---- */

struct log_warm {
    const struct file_system *fs;
    int fd, err;
    uint64_t at;
    size_t size_bytes;
};

struct log_warm *log_warm_begin(struct log *l)
{
    int fd = file_dup(l->fs, l->mode.fd);
    if (fd < 0)
        return NULL;
    struct log_warm *w = xmalloc(sizeof *w);
    *w = (struct log_warm){l->fs, fd, 0, l->mode.at, l->mode.size_bytes};
    return w;
}

void log_warm_run(struct log_warm *w)
{
    w->err = file_prefetch(w->fs, w->fd, w->at, w->size_bytes);
}

int log_warm_end(struct log *l, struct log_warm *w)
{
    int err = w->err;
    file_close(w->fs, w->fd);
    free(w);
    return err < 0 && l != NULL ? log_fail(l, err, "reading") : err;
}
