/* segment.c - a segment and its indexes. */
#include "libs/log/internal.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct segment *segment_new(const struct file_system *fs, const char *dir, int64_t base, int64_t born_ms)
{
    struct segment *s = xcalloc(1, sizeof *s);
    s->fs = fs;
    s->base = base;
    s->file = s->txn_file = DESCRIPTOR_CLOSED;
    s->born_ms = born_ms;
    s->max_timestamp = s->first_timestamp = RECORDS_NO_TIMESTAMP;
    s->max_offset = base;
    s->stem = xasprintf("%s/%020" PRId64, dir, base);
    segment_set_suffix(s, "");
    index_init(&s->offsets, fs, s->index_path, INDEX_OFFSET_ENTRY, 0);
    index_init(&s->times, fs, s->time_path, INDEX_TIME_ENTRY, 0);
    return s;
}

struct segment *segment_free(struct segment *s)
{
    if (s == NULL)
        return NULL;
    descriptor_close(&s->file, s->fs);
    descriptor_close(&s->txn_file, s->fs);
    index_free(&s->offsets);
    index_free(&s->times);
    free(s->stem);
    free(s->path);
    free(s->index_path);
    free(s->time_path);
    free(s);
    return NULL;
}

char *segment_path(const struct segment *s, const char *kind)
{
    return xasprintf("%s.%s%s", s->stem, kind, s->suffix);
}

void segment_set_suffix(struct segment *s, const char *suffix)
{
    s->suffix = suffix;
    free(s->path);
    free(s->index_path);
    free(s->time_path);
    s->path = segment_path(s, "log");
    s->offsets.path = s->index_path = segment_path(s, "index");
    s->times.path = s->time_path = segment_path(s, "timeindex");
}

void segment_rehome(struct segment *s, const char *dir)
{
    descriptor_close(&s->file, s->fs);
    descriptor_close(&s->offsets.file, s->fs);
    descriptor_close(&s->times.file, s->fs);
    descriptor_close(&s->txn_file, s->fs);
    free(s->stem);
    s->stem = xasprintf("%s/%020" PRId64, dir, s->base);
    segment_set_suffix(s, s->suffix);
    s->instance = 0;
    s->reserved_to = 0;
}

int segment_rename(struct segment *s, const char *suffix, bool log_first)
{
    static const char *const kinds[] = {"log", "index", "timeindex", "txnindex"};
    int err = 0;
    for (size_t i = 0; i < COUNTOF(kinds) && err == 0; i++) {
        const char *kind = kinds[log_first ? i : COUNTOF(kinds) - 1 - i];
        char *from = segment_path(s, kind), *to = xasprintf("%s.%s%s", s->stem, kind, suffix);
        err = file_rename(s->fs, from, to);
        if (err == -ENOENT && strcmp(kind, "txnindex") == 0)
            err = 0;
        free(from);
        free(to);
    }
    if (err == 0)
        segment_set_suffix(s, suffix);
    return err;
}

void segment_set_mode(struct segment *s, struct read_mode *mode)
{
    s->mode = s->offsets.mode = s->times.mode = mode;
}

void segment_share_descriptors(struct segment *s, struct descriptors *list)
{
    descriptor_join(&s->file, s->fs, list);
    descriptor_join(&s->txn_file, s->fs, list);
    descriptor_join(&s->offsets.file, s->fs, list);
    descriptor_join(&s->times.file, s->fs, list);
}

int segment_fd(struct segment *s)
{
    s->used = true;
    return descriptor_open(&s->file, s->fs, s->path, O_RDWR);
}

void segment_reserve(struct segment *s, uint64_t n, uint64_t most)
{
    enum { SHARE = 4, LEAST = 64 << 10, AHEAD_MAX = 8 << 20 };
    uint64_t end = s->size_bytes + n, ahead = MIN(s->size_bytes / SHARE, (uint64_t)AHEAD_MAX);
    s->grew = true;
    if (end <= s->reserved_to || s->preallocated)
        return;
    ahead = MIN(ahead, most > end ? most - end : 0);
    int fd = ahead < LEAST ? -1 : segment_fd(s);
    if (fd < 0)
        return;
    s->reserved_to = end + ahead; /* in any case: the next try comes when as much is written */
    (void)file_allocate(s->fs, fd, s->size_bytes, n + ahead);
}

int segment_give_back(struct segment *s)
{
    if (s->reserved_to <= s->size_bytes)
        return 0;
    int fd = segment_fd(s), err = fd < 0 ? fd : file_ftruncate(s->fs, fd, s->size_bytes);
    if (err == 0)
        s->reserved_to = 0;
    return err;
}

void segment_idle(struct segment *s)
{
    if (!s->grew)
        (void)segment_give_back(s); /* else with the next roll or stop */
    s->grew = false;
    if (!s->used) {
        descriptor_close(&s->file, s->fs);
        descriptor_close(&s->txn_file, s->fs);
    }
    s->used = false;
    index_idle(&s->offsets);
    index_idle(&s->times);
}

static int remove_txn_index(struct segment *s)
{
    char *path = segment_path(s, "txnindex");
    int err = file_unlink(s->fs, path);
    free(path);
    s->txn_index = SEGMENT_TXN_NONE;
    s->txn_count = 0;
    return err == -ENOENT ? 0 : err;
}

int segment_create(struct segment *s, uint32_t index_bytes, bool preallocate, uint32_t segment_bytes)
{
    descriptor_close(&s->file, s->fs);
    int fd = descriptor_open(&s->file, s->fs, s->path, O_RDWR | O_CREAT | O_TRUNC);
    if (fd < 0)
        return fd;
    s->used = true;
    s->max_known = s->max_proved = s->first_known = true;
    s->preallocated = preallocate;
    s->reserved_to = 0;
    int err = preallocate ? file_ftruncate(s->fs, fd, segment_bytes) : 0;
    if (err == 0)
        err = remove_txn_index(s);
    if (err == 0)
        err = index_reset(&s->offsets);
    if (err == 0)
        err = index_reset(&s->times);
    if (err == 0)
        err = index_grow(&s->offsets, index_bytes);
    if (err == 0)
        err = index_grow(&s->times, index_bytes);
    return err;
}

int segment_load(struct segment *s)
{
    struct file_stat st;
    int err = file_stat(s->fs, s->path, &st);
    if (err < 0)
        return err;
    s->size_bytes = s->written_from = st.size_bytes;
    s->born_ms = st.mtime_ms;
    s->max_known = s->first_known = s->size_bytes == 0;
    bool broken = s->size_bytes > INT32_MAX;
    err = file_stat(s->fs, s->index_path, &st);
    if (err < 0 && err != -ENOENT)
        return err;
    broken |= err == -ENOENT || st.size_bytes % INDEX_OFFSET_ENTRY != 0 || st.size_bytes > s->size_bytes;
    if (err == 0)
        index_init(&s->offsets, s->fs, s->index_path, INDEX_OFFSET_ENTRY, st.size_bytes);
    err = file_stat(s->fs, s->time_path, &st);
    if (err < 0 && err != -ENOENT)
        return err;
    broken |= err == -ENOENT || st.size_bytes % INDEX_TIME_ENTRY != 0 || st.size_bytes > s->size_bytes;
    if (err == 0)
        index_init(&s->times, s->fs, s->time_path, INDEX_TIME_ENTRY, st.size_bytes);
    segment_set_mode(s, s->mode);
    segment_share_descriptors(s, s->file.list);
    return broken;
}

int segment_load_closed(struct segment *s, uint32_t index_bytes)
{
    struct index *const indexes[] = {&s->offsets, &s->times};
    for (size_t i = 0; i < COUNTOF(indexes); i++) {
        struct index *x = indexes[i];
        int64_t key;
        int32_t value;
        if (index_count(x) == 0 || index_count(x) < index_bytes / x->entry_size)
            continue;
        int err = index_last(x, &key, &value);
        if (err < 0)
            return err;
        if (key == 0 && value == 0)
            return 1;
    }
    if (s->size_bytes == 0 || index_count(&s->times) > 0)
        return 0;
    int err = segment_load_first(s);
    return err < 0 ? err : s->first_timestamp >= 0;
}

static void note_times(struct segment *s, const struct batch *b, uint64_t position)
{
    if (b->max_timestamp > s->max_timestamp || position == 0) {
        s->max_timestamp = b->max_timestamp;
        s->max_offset = batch_last_offset(b);
    }
    if (position == 0) {
        s->first_known = true;
        s->first_timestamp = b->max_timestamp;
    }
}

int segment_note(struct segment *s, const struct batch *b, uint64_t position, uint32_t interval_bytes)
{
    int64_t last = batch_last_offset(b);
    note_times(s, b, position);
    int err = 0;
    if (s->since_index_bytes > interval_bytes) {
        err = index_add(&s->offsets, last - s->base, (int32_t)position);
        if (err == 0)
            err = segment_seal_times(s);
        s->since_index_bytes = err == 0 ? 0 : s->since_index_bytes;
    }
    s->since_index_bytes += b->size;
    return err;
}

int segment_seal_times(struct segment *s)
{
    int64_t key;
    int32_t value;
    int err = index_last(&s->times, &key, &value);
    if (err == -ENOENT)
        key = RECORDS_NO_TIMESTAMP;
    else if (err < 0)
        return err;
    return s->max_timestamp > key ? index_add(&s->times, s->max_timestamp, (int32_t)(s->max_offset - s->base)) : 0;
}

int segment_retire(struct segment *s)
{
    int err = segment_load_max(s);
    if (err == 0)
        err = segment_seal_times(s);
    if (err == 0)
        err = index_trim(&s->offsets);
    if (err == 0)
        err = index_trim(&s->times);
    if (err == 0 && s->preallocated) {
        int fd = segment_fd(s);
        err = fd < 0 ? fd : file_ftruncate(s->fs, fd, s->size_bytes);
        /* The records may be flushed already, and then nobody flushes this file again: the zeroes behind them must not
         * come back in a power cut. */
        if (err == 0)
            err = file_fdatasync(s->fs, fd);
        s->preallocated = err < 0;
    }
    return err == 0 ? segment_give_back(s) : err;
}

static int copy_bytes(const struct file_system *fs, int from, int to, uint64_t size_bytes)
{
    enum { COPY_STEP = 1 << 18 };
    uint8_t *step = xmalloc(COPY_STEP);
    int err = 0;
    for (uint64_t at = 0; err == 0 && at < size_bytes; at += COPY_STEP) {
        size_t n = (size_t)MIN(size_bytes - at, (uint64_t)COPY_STEP);
        err = file_read_all(fs, from, step, n, at);
        if (err == 0)
            err = file_write(fs, to, step, n, at);
    }
    free(step);
    return err == -ENODATA ? -EIO : err;
}

/* The first size bytes become a file of their own, flushed before it takes the name: they may have been flushed before,
 * and a power cut must not take them. The old file lives on for those who were given it. */
static int replace_file(struct segment *s, uint64_t size_bytes)
{
    char *tmp = xasprintf("%s.tmp", s->path);
    int from = segment_fd(s), to = from < 0 ? from : file_open(s->fs, tmp, O_RDWR | O_CREAT | O_TRUNC);
    int err = to < 0 ? to : copy_bytes(s->fs, from, to, size_bytes);
    if (err == 0)
        err = file_fdatasync(s->fs, to);
    if (err == 0)
        err = file_rename(s->fs, tmp, s->path);
    if (err == 0) {
        descriptor_set(&s->file, s->fs, to);
        s->instance = 0;
        s->preallocated = false;
    } else if (to >= 0) {
        file_close(s->fs, to);
        (void)file_unlink(s->fs, tmp);
    }
    free(tmp);
    return err;
}

static int cut_file(struct segment *s, uint64_t size_bytes)
{
    if (s->instance != 0)
        return replace_file(s, size_bytes);
    int fd = segment_fd(s);
    int err = fd < 0 ? fd : file_ftruncate(s->fs, fd, size_bytes);
    /* Before other records come to lie there: a power cut must not mix the two. */
    return err < 0 ? err : file_fdatasync(s->fs, fd);
}

/* The time index lags behind what is in the file: after a cut its last entry need not be the largest time any more. */
static int find_times(struct segment *s)
{
    struct scan sc;
    struct batch b;
    uint64_t position;
    s->max_timestamp = s->first_timestamp = RECORDS_NO_TIMESTAMP;
    s->max_offset = s->base;
    s->max_known = s->first_known = true;
    int err = scan_begin(&sc, s, 0, SCAN_HEADERS);
    if (err < 0)
        return err;
    while ((err = scan_next(&sc, &b, &position)) == 1)
        note_times(s, &b, position);
    scan_end(&sc);
    return err;
}

int segment_truncate(struct segment *s, uint64_t size_bytes, int64_t offset)
{
    int err = cut_file(s, size_bytes);
    if (err == 0)
        err = index_truncate(&s->offsets, (int32_t)size_bytes);
    if (err == 0)
        err = index_truncate(&s->times, (int32_t)MIN(offset - s->base, (int64_t)INT32_MAX));
    if (err == 0)
        err = txn_index_truncate(s, offset);
    if (err < 0)
        return err;
    s->size_bytes = size_bytes;
    s->proved.position = 0;
    s->reserved_to = 0;
    s->since_index_bytes = 0;
    return find_times(s);
}

int segment_load_max(struct segment *s)
{
    if (s->max_known)
        return 0;
    int64_t key;
    int32_t value;
    int err = index_last(&s->times, &key, &value);
    if (err < 0 && err != -ENOENT)
        return err;
    s->max_timestamp = err == 0 ? key : RECORDS_NO_TIMESTAMP;
    s->max_offset = err == 0 ? s->base + value : s->base;
    s->max_known = true;
    return 0;
}

int segment_load_first(struct segment *s)
{
    if (s->first_known)
        return 0;
    struct scan sc;
    struct batch b;
    uint64_t position;
    int err = scan_begin(&sc, s, 0, BATCH_HEADER_SIZE);
    if (err < 0)
        return err;
    err = scan_next(&sc, &b, &position);
    scan_end(&sc);
    if (err < 0 && err != -EBADMSG && err != -ENODATA) /* damage is the readers' matter */
        return err;
    s->first_timestamp = err == 1 ? b.max_timestamp : RECORDS_NO_TIMESTAMP;
    s->first_known = true;
    return 0;
}

static int doom_file(const struct segment *s, const char *path)
{
    char *to = xasprintf("%s.deleted", path);
    int err = file_rename(s->fs, path, to);
    free(to);
    return err == -ENOENT ? 0 : err;
}

int segment_doom(struct segment *s)
{
    int err = doom_file(s, s->path);
    if (err == 0)
        err = doom_file(s, s->index_path);
    if (err == 0)
        err = doom_file(s, s->time_path);
    char *txn = segment_path(s, "txnindex");
    if (err == 0)
        err = doom_file(s, txn);
    free(txn);
    return err;
}

int segment_unlink(const struct segment *s)
{
    static const char *const kinds[] = {"index", "timeindex", "txnindex", "log"};
    int err = 0;
    for (size_t i = 0; i < COUNTOF(kinds) && (err == 0 || err == -ENOENT); i++) {
        char *path = segment_path(s, kinds[i]);
        err = file_unlink(s->fs, path);
        free(path);
    }
    return err == -ENOENT ? 0 : err;
}

void segment_unlink_doomed(const struct segment *s)
{
    static const char *const kinds[] = {"log", "index", "timeindex", "txnindex"};
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        char *path = xasprintf("%s.%s%s.deleted", s->stem, kinds[i], s->suffix);
        (void)file_unlink(s->fs, path);
        free(path);
    }
}
