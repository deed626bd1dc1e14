// link: log records base
/* fuzz_log_recovery.c - a start on any bytes as segment, indexes, epochs and snapshot: it opens or says why not, what
 * it serves afterwards is whole batches in order, and it takes appends. On a file system in memory, a few files big. */
#include "libs/base/bytes.h"
#include "libs/log/log.h"
#include <stdio.h>
#include <stdlib.h>

enum { FILES_MAX = 64, NAME_MAX_BYTES = 96 };

struct mem_file {
    char name[NAME_MAX_BYTES];
    struct buf bytes;
    bool used;
    int opens;
};

static struct mem_file files[FILES_MAX];

static struct mem_file *find(const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (files[i].used && strcmp(files[i].name, path) == 0)
            return &files[i];
    }
    return NULL;
}

static struct mem_file *make(const char *path)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (!files[i].used && files[i].opens == 0) {
            files[i].used = true;
            files[i].bytes.size = 0;
            snprintf(files[i].name, sizeof files[i].name, "%s", path);
            return &files[i];
        }
    }
    return NULL;
}

static int m_open(void *ctx UNUSED, const char *path, int flags)
{
    struct mem_file *f = find(path);
    if (f == NULL && (flags & O_CREAT))
        f = make(path);
    if (f == NULL)
        return flags & O_CREAT ? -ENOSPC : -ENOENT;
    if (flags & O_TRUNC)
        f->bytes.size = 0;
    f->opens++;
    return (int)(f - files);
}
static int m_dup(void *ctx UNUSED, int fd)
{
    files[fd].opens++;
    return fd;
}
static int m_close(void *ctx UNUSED, int fd)
{
    ASSERT(files[fd].opens > 0);
    files[fd].opens--;
    return 0;
}
static ssize_t m_pread(void *ctx UNUSED, int fd, void *p, size_t n, uint64_t at)
{
    const struct buf *b = &files[fd].bytes;
    if (at >= b->size)
        return 0;
    n = MIN(n, b->size - (size_t)at);
    memcpy(p, b->data + at, n);
    return (ssize_t)n;
}
static int m_ftruncate(void *ctx UNUSED, int fd, uint64_t size)
{
    struct buf *b = &files[fd].bytes;
    if (size > b->size) {
        size_t more = (size_t)size - b->size;
        memset(buf_grow(b, more), 0, more);
    }
    b->size = (size_t)size;
    return 0;
}
static ssize_t m_pwritev(void *ctx, int fd, const struct iovec *iov, int count, uint64_t at)
{
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        if (at + iov[i].iov_len > files[fd].bytes.size)
            (void)m_ftruncate(ctx, fd, at + iov[i].iov_len);
        if (iov[i].iov_len > 0)
            memcpy(files[fd].bytes.data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
        total += (ssize_t)iov[i].iov_len;
    }
    return total;
}
static int m_sync(void *ctx UNUSED, int fd UNUSED)
{
    return 0;
}
static int m_fstat(void *ctx UNUSED, int fd, struct file_stat *s)
{
    *s = (struct file_stat){.size_bytes = files[fd].bytes.size};
    return 0;
}
static int m_stat(void *ctx UNUSED, const char *path, struct file_stat *s)
{
    const struct mem_file *f = find(path);
    if (f == NULL)
        return -ENOENT;
    *s = (struct file_stat){.size_bytes = f->bytes.size};
    return 0;
}
static int m_unlink(void *ctx UNUSED, const char *path)
{
    struct mem_file *f = find(path);
    if (f == NULL)
        return -ENOENT;
    f->used = false;
    return 0;
}
static int m_rename(void *ctx, const char *from, const char *to)
{
    struct mem_file *f = find(from);
    if (f == NULL)
        return -ENOENT;
    (void)m_unlink(ctx, to);
    snprintf(f->name, sizeof f->name, "%s", to);
    return 0;
}
static int m_mkdir(void *ctx UNUSED, const char *path UNUSED)
{
    return -EEXIST;
}
static int m_dir(void *ctx UNUSED, const char *path UNUSED)
{
    return 0;
}
static int m_list(void *ctx UNUSED, const char *path, file_list_fn *fn, void *arg)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        char name[NAME_MAX_BYTES];
        if (!files[i].used)
            continue;
        snprintf(name, sizeof name, "%s", files[i].name + strlen(path) + 1);
        fn(arg, name);
    }
    return 0;
}

static const struct file_ops ops = {m_open,      m_dup,   m_close, m_pread,  m_pwritev, m_sync,
                                    m_ftruncate, m_fstat, m_stat,  m_rename, m_unlink,  m_mkdir,
                                    m_dir,       m_dir,   m_list,  NULL,     NULL,      NULL};

static void put_file(const char *name, struct slice bytes)
{
    char path[NAME_MAX_BYTES];
    snprintf(path, sizeof path, "t-0/%s", name);
    struct mem_file *f = make(path);
    ASSERT(f != NULL);
    buf_append(&f->bytes, bytes.data, bytes.size);
}

/* A length and that many bytes of the input. */
static struct slice take(struct slice *rest)
{
    if (rest->size < 2)
        return SLICE_EMPTY;
    size_t n = MIN((size_t)get_u16(rest->data), rest->size - 2);
    struct slice s = slice_make(rest->data + 2, n);
    *rest = slice_make(rest->data + 2 + n, rest->size - 2 - n);
    return s;
}

/* Batches with a true CRC, so that the fuzzer's changes get past it. */
static struct slice mend(struct slice bytes, struct buf *copy)
{
    if (bytes.size == 0)
        return SLICE_EMPTY;
    buf_append(copy, bytes.data, bytes.size);
    size_t at = 0;
    struct batch b;
    while (batch_read_header(slice_make(copy->data + at, copy->size - at), &b) == 0 && b.size <= copy->size - at) {
        put_u32(copy->data + at + BATCH_CRC,
                bytes_crc32c(0, copy->data + at + BATCH_ATTRIBUTES, b.size - BATCH_ATTRIBUTES));
        at += b.size;
    }
    return buf_slice(copy);
}

/* From the log start to the end: each read gives exactly one whole batch, which ends behind the offset asked for, so
 * that a reader always gets on. What is not checked at the start, as in Kafka (all of it after a clean stop, what was
 * flushed after a crash), may have bytes that are no batch, or no batch where one should be: a read says so. */
static void check_readable(struct log *l, bool clean, int64_t flushed)
{
    int64_t at = log_start(l);
    while (at < log_end(l)) {
        struct log_range r;
        enum kafka_error error = log_locate(l, at, log_end(l), 1, true, &r);
        if (error != KERR_NONE || r.size_bytes == 0) {
            ASSERT(clean || at < flushed);
            return;
        }
        uint8_t *bytes = xmalloc(r.size_bytes);
        struct batch b;
        ASSERT(log_copy(l, &r, bytes) == 0);
        int err = batch_read_header(slice_make(bytes, r.size_bytes), &b);
        free(bytes);
        if (err == -EPROTO)
            b.last_offset_delta = 0; /* a message of Kafka before 0.11 */
        ASSERT((err == 0 || err == -EPROTO) && b.size == r.size_bytes && batch_next_offset(&b) > at);
        at = batch_next_offset(&b);
    }
}

static void append_one(struct log *l)
{
    struct buf out = {0};
    struct batch_builder b;
    batch_begin(&b, &out, &BATCH_OPTIONS);
    batch_add(&b, 1, SLICE_OF("k"), SLICE_OF("v"), NULL, 0);
    ASSERT(batch_end(&b) == 0);
    struct log_append a = {.bytes = out.data, .size = out.size, .leader_epoch = 0, .now_wall_ms = 1};
    int64_t end = log_end(l);
    if (log_stage(l, &a) == KERR_NONE && log_commit(l) == 0)
        ASSERT(a.base_offset == end && log_end(l) == end + 1);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice rest = slice_make(size ? data : (const uint8_t *)"", size);
    struct buf mended = {0};
    if (rest.size < 2)
        return 0;
    uint8_t flags = rest.data[0], point = rest.data[1];
    rest = slice_make(rest.data + 2, rest.size - 2);
    put_file("00000000000000000000.log", flags & 1 ? mend(take(&rest), &mended) : take(&rest));
    if (flags & 2)
        put_file("00000000000000000000.index", take(&rest));
    if (flags & 4)
        put_file("00000000000000000000.timeindex", take(&rest));
    if (flags & 8)
        put_file("leader-epoch-checkpoint", take(&rest));
    if (flags & 16)
        put_file("00000000000000000005.snapshot", take(&rest));
    if (flags & 32)
        put_file("00000000000000000005.log", take(&rest));
    const struct file_system fs = {&ops, NULL};
    struct log_options o = {.fs = &fs, .dir = "t-0", .clean = flags & 64, .recovery_point = point, .now_wall_ms = 1};
    log_config_init(&o.config);
    o.config.segment_index_bytes = 4096;
    struct log *l;
    if (log_open(&o, &l) == 0) {
        struct log_offset found;
        check_readable(l, o.clean, o.recovery_point);
        ASSERT(log_start(l) <= log_high_watermark(l) && log_high_watermark(l) <= log_end(l));
        (void)log_offset_by_time(l, 0, &found);
        (void)log_offset_of_max_time(l, &found);
        append_one(l);
        if (flags & 128)
            ASSERT(log_close(l, 1) <= 0);
        else
            log_abandon(l);
    }
    for (size_t i = 0; i < FILES_MAX; i++) {
        ASSERT(files[i].opens == 0);
        files[i].used = false;
    }
    buf_free(&mended);
    return 0;
}
