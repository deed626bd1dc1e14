/* segment.h - inside libs/log: one segment, N.log with its N.index and N.timeindex, N being the base offset in 20
 * digits.
 *
 * I1  size_bytes is what is whole and committed; the file may be longer only between a failed write and its undoing.
 * I2  index positions lie below size_bytes.
 * I3  in a file that was given away no byte below size_bytes changes any more: it is appended to and, when an append
 *     failed, cut back to size_bytes. Whatever else would change it makes a new file.
 * I4  a file whose segment is retired, or that has not grown for a while, has no room behind its end.
 * Descriptors are opened on first use and closed by segment_idle, or when others need them (descriptors.h). */
#ifndef KARST_LOG_SEGMENT_H
#define KARST_LOG_SEGMENT_H

#include "libs/log/index.h"
#include "libs/log/log.h"

struct segment {
    const struct file_system *fs;
    int64_t base;
    uint64_t size_bytes;
    struct descriptor file;
    bool used;
    struct read_mode *mode; /* of the log; NULL: reads wait */
    uint64_t written_from;  /* what lies behind was written by this process */
    bool preallocated;      /* the file is longer than size_bytes, with zeroes */
    uint64_t reserved_to;   /* room on the disk was asked for up to there; what is not used is given back */
    bool grew;              /* since segment_idle */
    uint64_t instance;      /* the number under which the file was given away last; 0: it is ours alone */
    struct index offsets, times;
    bool misled;  /* an index did not say what the records say, and is gone: to be told */
    bool damaged; /* bytes that are no batch were met, and that was told */
    /* The largest timestamp so far, and the last offset of its batch; the timestamp is -1 in an empty segment. */
    bool max_known, max_proved;
    struct {
        int64_t key;
        int32_t position;
    } proved; /* the entry of .index that was found to be true last; position 0: none */
    int64_t max_timestamp, max_offset;
    /* The first batch's maxTimestamp, which segment.ms counts from; -1: none. */
    bool first_known;
    int64_t first_timestamp;
    int64_t born_ms; /* wall clock: segment.ms of a segment without timestamps */
    uint64_t since_index_bytes;
    enum { SEGMENT_TXN_UNKNOWN, SEGMENT_TXN_NONE, SEGMENT_TXN_SOME } txn_index; /* is there an N.txnindex? */
    struct descriptor txn_file;
    uint32_t txn_count; /* entries, when that is known */
    bool txn_dirty;     /* not flushed */
    char *stem;         /* DIR/N */
    const char *suffix; /* of all its files' names, behind their kinds; static */
    char *path, *index_path, *time_path;
};

/* What compaction puts behind the names of a segment's files: while they are written, and while they take the place of
 * others. */
#define SEGMENT_CLEANED ".cleaned"
#define SEGMENT_SWAP    ".swap"

/* A segment in a folder with that many bytes in its files; nothing is opened. */
NODISCARD struct segment *segment_new(const struct file_system *fs, const char *dir, int64_t base, int64_t born_ms);
struct segment *segment_free(struct segment *s);
void segment_set_mode(struct segment *s, struct read_mode *mode);
void segment_share_descriptors(struct segment *s, struct descriptors *list);
/* The name of the segment's file of that kind ("txnindex"): malloc'ed. */
NODISCARD char *segment_path(const struct segment *s, const char *kind);
/* From now on its files are called so; open ones stay open. suffix is static. */
void segment_set_suffix(struct segment *s, const char *suffix);
/* Renames its files to another suffix, the log file first or last. 0 or -errno, some may then have the new name. */
NODISCARD int segment_rename(struct segment *s, const char *suffix, bool log_first);
/* Its files are in that folder from now on; what was given away stays with who holds it. */
void segment_rehome(struct segment *s, const char *dir);
/* Makes the files, empty; an older file of the name is emptied. */
NODISCARD int segment_create(struct segment *s, uint32_t index_bytes, bool preallocate, uint32_t segment_bytes);
/* Takes the sizes of the files from the disk. 0; -ENOENT: no log file; 1: the indexes cannot be right and must be built
 * again. */
NODISCARD int segment_load(struct segment *s);
/* Of a loaded segment that gets no more batches. 1: its indexes were not cut to size, or it has none of times, as when
 * a power cut undid its retirement: to be built again. 0, -errno. */
NODISCARD int segment_load_closed(struct segment *s, uint32_t index_bytes);
NODISCARD int segment_fd(struct segment *s);
void segment_idle(struct segment *s);

/* n bytes are about to be written: a file that has grown gets its room on the disk in large pieces, which costs the
 * file system less than finding a page at a time (delayed allocation). At most a quarter of what is there, and no more
 * than the segment may hold (most). */
void segment_reserve(struct segment *s, uint64_t n, uint64_t most);
/* The room that is left goes back; the file's size stays. */
int segment_give_back(struct segment *s);

/* Notes a batch that is in the file from position on: indexes and timestamps, as Kafka's LogSegment.append does. */
NODISCARD int segment_note(struct segment *s, const struct batch *b, uint64_t position, uint32_t interval_bytes);
/* The last time index entry of a segment that gets no more batches. */
NODISCARD int segment_seal_times(struct segment *s);
/* Sealed, and index files cut to size: at roll and clean stop. */
NODISCARD int segment_retire(struct segment *s);
/* Cuts to size bytes, of which the last batch ends at offset - 1. A file that was given away is replaced by a copy. */
NODISCARD int segment_truncate(struct segment *s, uint64_t size_bytes, int64_t offset);
/* max_timestamp and max_offset, read from the time index when they are not known. */
NODISCARD int segment_load_max(struct segment *s);
/* The same, and the batch is looked at: an index that was wrong would let retention remove what is not old. */
NODISCARD int segment_prove_max(struct segment *s);
NODISCARD int segment_load_first(struct segment *s);

/* Is that entry of .index true of the records? 1 with the batch at its position, 0, -errno. */
NODISCARD int segment_entry_holds(struct segment *s, int64_t key, int32_t position, struct batch *ret_batch);
/* The first batch whose last offset is >= offset. 1 with its header and position; 0: none; -EBADMSG, -ENODATA: what is
 * there is no batch; -errno. */
NODISCARD int segment_find(struct segment *s, int64_t offset, struct batch *ret_batch, uint64_t *ret_position);

/* Removes the files of a segment at once. 0, also when they are not there, or -errno. */
NODISCARD int segment_unlink(const struct segment *s);
/* Removal: renames the files to *.deleted, and unlinks those names. */
NODISCARD int segment_doom(struct segment *s);
void segment_unlink_doomed(const struct segment *s);

/* Walks the batches of a segment. buf is the caller's, freed with scan_end. */
struct scan {
    const struct file_system *fs;
    struct read_mode *mode;
    int fd;
    uint64_t at, end; /* the next batch; the file's end */
    uint8_t *data;    /* the bytes from data_at on */
    size_t have, capacity;
    uint64_t data_at;
};
enum { SCAN_HEADERS = 4096, SCAN_BODIES = 1 << 20 };
NODISCARD int scan_begin(struct scan *sc, struct segment *s, uint64_t from, size_t capacity);
void scan_end(struct scan *sc);
/* The next batch's header: 1 with *ret_position; 0 at the end; -ENODATA: cut short; -EBADMSG: no batch; -errno. Batches
 * of magic 0 and 1 (Kafka before 0.11) come with an offset, a size and no timestamp. */
NODISCARD int scan_next(struct scan *sc, struct batch *ret_batch, uint64_t *ret_position);
/* Does its CRC hold, of either kind? bytes: all of the batch. */
bool scan_crc_holds(const struct batch *b, struct slice bytes);
/* The whole bytes of the batch that scan_next just gave; valid until the next call. 0 or -errno. */
NODISCARD int scan_body(struct scan *sc, const struct batch *b, uint64_t position, struct slice *ret_bytes);

#endif
