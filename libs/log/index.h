/* index.h - inside libs/log: an .index or .timeindex file.
 *   .index      8 bytes: int32 offset less base, int32 position. The offset is the last of the batch that starts at
 * position .timeindex 12 bytes: int64 largest timestamp so far, int32 offset less base, of the batch where it is
 *
 * I1  the first field of the entries rises strictly.
 * I2  entries are those in the file, then those waiting in memory; waiting <= INDEX_PENDING.
 * Entries wait so that an append costs one system call; a crash loses them, and recovery builds them again. While the
 * segment is active the file has its full size, with zeroes behind the entries, as Kafka keeps it. The descriptor is
 * opened when it is needed. */
#ifndef KARST_LOG_INDEX_H
#define KARST_LOG_INDEX_H

#include "libs/log/descriptors.h"

enum { INDEX_OFFSET_ENTRY = 8, INDEX_TIME_ENTRY = 12, INDEX_PENDING = 64 };

/* How the owner of files reads just now: with now set a read that would wait for the disk fails with -EAGAIN, and what
 * it wanted is noted. */
struct read_mode {
    bool now;
    int fd;
    uint64_t at;
    size_t size_bytes;
};
NODISCARD int read_with(const struct file_system *fs, struct read_mode *mode, int fd, void *p, size_t n, uint64_t at);

struct index {
    struct read_mode *mode; /* NULL: reads wait */
    const struct file_system *fs;
    const char *path; /* the segment's; without it the file is not opened */
    uint32_t entry_size;
    uint32_t in_file, pending;
    uint8_t *tail;      /* the pending entries; malloc'ed when there are any */
    int64_t last_key;   /* the last entry's first field; INT64_MIN: not known yet */
    int32_t last_value; /* and its second */
    bool full_size;     /* the file is preallocated */
    bool dirty;         /* entries in the file were changed since the last flush of it */
    bool used;          /* since the last index_idle */
    struct descriptor file;
};

void index_init(struct index *x, const struct file_system *fs, const char *path, uint32_t entry_size,
                uint64_t size_bytes);
void index_free(struct index *x); /* pending entries are lost */
static inline uint32_t index_count(const struct index *x)
{
    return x->in_file + x->pending;
}

/* The file as it has to be while the segment is active: at least max_bytes, rounded down to whole entries. */
NODISCARD int index_grow(struct index *x, uint32_t max_bytes);
NODISCARD int index_add(struct index *x, int64_t key, int32_t value);
/* Writes the pending entries. */
NODISCARD int index_write(struct index *x);
/* Writes and cuts the file to its entries. */
NODISCARD int index_trim(struct index *x);
/* Keeps the first entries of the file, and writes at most that many. */
NODISCARD int index_keep(struct index *x, uint32_t count);
/* How many entries at the beginning of the file are such as are written: the first field is above 0 and rises, the
 * second does not fall, and is below value_limit; the first field is below key_limit. The last of them, when there is
 * one. */
NODISCARD int index_sound(struct index *x, int64_t key_limit, int32_t value_limit, uint32_t *ret_count,
                          int64_t *ret_key, int32_t *ret_value);
/* Forgets all entries. */
NODISCARD int index_reset(struct index *x);
/* It does not say what the records say: it goes, with its file, so that the next start builds it again. */
NODISCARD int index_distrust(struct index *x);
/* Forgets entries whose second field (position, or relative offset) is >= value. */
NODISCARD int index_truncate(struct index *x, int32_t value);

/* Entry i: 0 or -errno. */
NODISCARD int index_get(struct index *x, uint32_t i, int64_t *ret_key, int32_t *ret_value);
/* The last entry; 0, or -ENOENT when there is none. */
NODISCARD int index_last(struct index *x, int64_t *ret_key, int32_t *ret_value);
/* The last entry whose key is <= key. 1; 0: there is none; -errno. */
NODISCARD int index_floor(struct index *x, int64_t key, int64_t *ret_key, int32_t *ret_value);
/* The first entry of the file whose second field is >= value; of one whose fields do not rise, any. 1; 0: there is
 * none; -errno. */
NODISCARD int index_ceiling(struct index *x, int32_t value, int64_t *ret_key, int32_t *ret_value);
/* Closes the descriptor unless it was used since the last call. */
void index_idle(struct index *x);
/* The open descriptor, or -errno. */
NODISCARD int index_fd(struct index *x);

#endif
