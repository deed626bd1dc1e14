/* index.c - index files: written in bunches, searched in one block where the entry should be, and else by halves. */
#include "libs/log/index.h"
#include "libs/base/bytes.h"
#include <stdlib.h>

enum { INDEX_BLOCK = 256 }; /* entries that a search reads at once */
enum { SOUND_BLOCK = 1024 };

int read_with(const struct file_system *fs, struct read_mode *mode, int fd, void *p, size_t n, uint64_t at)
{
    if (mode == NULL || !mode->now)
        return file_read_all(fs, fd, p, n, at);
    int err = file_read_now(fs, fd, p, n, at);
    if (err == -EAGAIN) {
        mode->fd = fd;
        mode->at = at;
        mode->size_bytes = n;
    }
    return err;
}

void index_init(struct index *x, const struct file_system *fs, const char *path, uint32_t entry_size,
                uint64_t size_bytes)
{
    *x = (struct index){
        .fs = fs,
        .path = path,
        .entry_size = entry_size,
        .in_file = (uint32_t)(size_bytes / entry_size),
        .last_key = INT64_MIN,
        .file = DESCRIPTOR_CLOSED,
    };
}

void index_free(struct index *x)
{
    descriptor_close(&x->file, x->fs);
    free(x->tail);
    x->tail = NULL;
    x->pending = 0;
}

int index_fd(struct index *x)
{
    x->used = true;
    return descriptor_open(&x->file, x->fs, x->path, O_RDWR | O_CREAT);
}

void index_idle(struct index *x)
{
    if (!x->used)
        descriptor_close(&x->file, x->fs);
    x->used = false;
}

int index_grow(struct index *x, uint32_t max_bytes)
{
    if (x->full_size)
        return 0;
    int fd = index_fd(x);
    if (fd < 0)
        return fd;
    uint64_t size = MAX((uint64_t)(max_bytes - max_bytes % x->entry_size), (uint64_t)x->in_file * x->entry_size);
    int err = file_ftruncate(x->fs, fd, size);
    x->full_size = err == 0;
    return err;
}

static int64_t entry_key(const struct index *x, const uint8_t *e)
{
    return x->entry_size == INDEX_TIME_ENTRY ? get_i64(e) : get_i32(e);
}

static int32_t entry_value(const struct index *x, const uint8_t *e)
{
    return get_i32(e + x->entry_size - 4);
}

int index_add(struct index *x, int64_t key, int32_t value)
{
    if (x->pending == INDEX_PENDING) {
        int err = index_write(x);
        if (err < 0)
            return err;
    }
    if (x->tail == NULL)
        x->tail = xmalloc((size_t)INDEX_PENDING * x->entry_size);
    uint8_t *e = x->tail + (size_t)x->pending * x->entry_size;
    if (x->entry_size == INDEX_TIME_ENTRY)
        put_i64(e, key);
    else
        put_i32(e, (int32_t)key);
    put_i32(e + x->entry_size - 4, value);
    x->pending++;
    x->last_key = key;
    x->last_value = value;
    return 0;
}

int index_write(struct index *x)
{
    if (x->pending == 0)
        return 0;
    int fd = index_fd(x);
    if (fd < 0)
        return fd;
    int err = file_write(x->fs, fd, x->tail, (size_t)x->pending * x->entry_size, (uint64_t)x->in_file * x->entry_size);
    if (err < 0)
        return err;
    x->in_file += x->pending;
    x->pending = 0;
    x->dirty = true;
    return 0;
}

int index_trim(struct index *x)
{
    int err = index_write(x);
    int fd = err < 0 ? err : index_fd(x);
    if (fd < 0)
        return fd;
    err = file_ftruncate(x->fs, fd, (uint64_t)x->in_file * x->entry_size);
    /* Also without entries: the zeroes that a power cut brings back would pass for some. */
    x->dirty = x->dirty || x->full_size;
    x->full_size = x->full_size && err < 0;
    return err;
}

int index_keep(struct index *x, uint32_t count)
{
    ASSERT(count <= x->in_file);
    x->dirty = x->dirty || count < x->in_file;
    x->in_file = count;
    x->pending = 0;
    x->last_key = INT64_MIN;
    return index_trim(x);
}

int index_reset(struct index *x)
{
    return index_keep(x, 0);
}

int index_distrust(struct index *x)
{
    int err = file_unlink(x->fs, x->path);
    if (err < 0 && err != -ENOENT)
        return err;
    descriptor_close(&x->file, x->fs);
    x->in_file = x->pending = 0;
    x->last_key = INT64_MIN;
    x->full_size = x->dirty = false;
    return 0;
}

int index_get(struct index *x, uint32_t i, int64_t *ret_key, int32_t *ret_value)
{
    uint8_t disk[INDEX_TIME_ENTRY];
    const uint8_t *e = disk;
    ASSERT(i < index_count(x));
    if (i >= x->in_file) {
        e = x->tail + (size_t)(i - x->in_file) * x->entry_size;
    } else {
        int fd = index_fd(x);
        int err = fd < 0 ? fd : read_with(x->fs, x->mode, fd, disk, x->entry_size, (uint64_t)i * x->entry_size);
        if (err < 0)
            return err;
    }
    *ret_key = entry_key(x, e);
    *ret_value = entry_value(x, e);
    return 0;
}

int index_last(struct index *x, int64_t *ret_key, int32_t *ret_value)
{
    if (index_count(x) == 0)
        return -ENOENT;
    if (x->last_key == INT64_MIN) {
        int err = index_get(x, index_count(x) - 1, &x->last_key, &x->last_value);
        if (err < 0)
            return err;
    }
    *ret_key = x->last_key;
    *ret_value = x->last_value;
    return 0;
}

/* How many entries of the file have a second field below value. */
static int count_below(struct index *x, int32_t value, uint32_t *ret_count)
{
    uint32_t low = 0, high = x->in_file;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        int64_t key;
        int32_t v;
        int err = index_get(x, mid, &key, &v);
        if (err < 0)
            return err;
        if (v >= value)
            high = mid;
        else
            low = mid + 1;
    }
    *ret_count = low;
    return 0;
}

int index_ceiling(struct index *x, int32_t value, int64_t *ret_key, int32_t *ret_value)
{
    uint32_t low;
    int err = count_below(x, value, &low);
    if (err < 0 || low == x->in_file)
        return err;
    err = index_get(x, low, ret_key, ret_value);
    return err < 0 ? err : 1;
}

int index_truncate(struct index *x, int32_t value)
{
    uint32_t low = 0;
    int err = index_write(x);
    if (err == 0)
        err = count_below(x, value, &low);
    if (err < 0)
        return err;
    return index_keep(x, low);
}

int index_sound(struct index *x, int64_t key_limit, int32_t value_limit, uint32_t *ret_count, int64_t *ret_key,
                int32_t *ret_value)
{
    uint8_t block[SOUND_BLOCK * INDEX_TIME_ENTRY];
    uint32_t count = 0;
    int64_t last_key = 0;
    int32_t last_value = 0;
    int fd = x->in_file > 0 ? index_fd(x) : 0;
    if (fd < 0)
        return fd;
    for (bool sound = true; sound && count < x->in_file;) {
        uint32_t n = MIN(x->in_file - count, (uint32_t)SOUND_BLOCK);
        int err = read_with(x->fs, x->mode, fd, block, (size_t)n * x->entry_size, (uint64_t)count * x->entry_size);
        if (err < 0)
            return err;
        for (uint32_t i = 0; sound && i < n; i++) {
            int64_t key = entry_key(x, block + (size_t)i * x->entry_size);
            int32_t value = entry_value(x, block + (size_t)i * x->entry_size);
            sound = key > last_key && key < key_limit && value >= last_value && value < value_limit;
            if (!sound)
                break;
            last_key = key;
            last_value = value;
            count++;
        }
    }
    *ret_count = count;
    *ret_key = last_key;
    *ret_value = last_value;
    return 0;
}

/* Where in the file the last entry <= key may be: among entries low .. high - 1, or nowhere. */
struct window {
    uint32_t low, high;
};

/* Looks at entries from .. to - 1 of the window at once. 1: the last one <= key is there; 0: it is not, and the window
 * is what is left. */
static int look_in_block(struct index *x, struct window *w, uint32_t from, uint32_t to, int64_t key, int64_t *ret_key,
                         int32_t *ret_value)
{
    uint8_t block[INDEX_BLOCK * INDEX_TIME_ENTRY];
    int fd = index_fd(x);
    if (fd < 0)
        return fd;
    ASSERT(w->low <= from && from < to && to <= w->high && to - from <= INDEX_BLOCK);
    int err = read_with(x->fs, x->mode, fd, block, (size_t)(to - from) * x->entry_size, (uint64_t)from * x->entry_size);
    if (err < 0)
        return err;
    uint32_t i = to - from;
    while (i > 0 && entry_key(x, block + (size_t)(i - 1) * x->entry_size) > key)
        i--;
    if (i == 0) {
        w->high = from;
        return 0;
    }
    if (i == to - from && to < w->high) {
        w->low = to - 1;
        return 0;
    }
    const uint8_t *e = block + (size_t)(i - 1) * x->entry_size;
    *ret_key = entry_key(x, e);
    *ret_value = entry_value(x, e);
    return 1;
}

/* Offsets lie nearly evenly in most segments: the first look goes where the entry would be then. */
static int guess_floor(struct index *x, struct window *w, int64_t key, int64_t *ret_key, int32_t *ret_value)
{
    int64_t last_key;
    int32_t last_value;
    int err = index_last(x, &last_key, &last_value);
    if (err < 0)
        return err;
    if (last_key <= 0 || key < 0 || key > INT32_MAX)
        return 0;
    uint64_t at = (uint64_t)key * w->high / (uint64_t)last_key;
    uint32_t from = (uint32_t)MIN(at > INDEX_BLOCK / 2 ? at - INDEX_BLOCK / 2 : 0, (uint64_t)w->high - INDEX_BLOCK);
    return look_in_block(x, w, from, from + INDEX_BLOCK, key, ret_key, ret_value);
}

int index_floor(struct index *x, int64_t key, int64_t *ret_key, int32_t *ret_value)
{
    for (uint32_t i = x->pending; i > 0; i--) {
        const uint8_t *e = x->tail + (size_t)(i - 1) * x->entry_size;
        if (entry_key(x, e) <= key) {
            *ret_key = entry_key(x, e);
            *ret_value = entry_value(x, e);
            return 1;
        }
    }
    struct window w = {0, x->in_file};
    if (w.high > INDEX_BLOCK && x->entry_size == INDEX_OFFSET_ENTRY) {
        int err = guess_floor(x, &w, key, ret_key, ret_value);
        if (err != 0)
            return err;
    }
    while (w.high - w.low > INDEX_BLOCK) {
        uint32_t mid = w.low + (w.high - w.low) / 2;
        int64_t k;
        int32_t v;
        int err = index_get(x, mid, &k, &v);
        if (err < 0)
            return err;
        if (k <= key)
            w.low = mid;
        else
            w.high = mid;
    }
    return w.high == w.low ? 0 : look_in_block(x, &w, w.low, w.high, key, ret_key, ret_value);
}
