/* clean_internal.h - inside libs/log: a cleaning under way; see clean.h. */
#ifndef KARST_LOG_CLEAN_INTERNAL_H
#define KARST_LOG_CLEAN_INTERNAL_H

#include "libs/log/clean.h"
#include "libs/log/clean_filter.h"
#include "libs/log/segment.h"
#include <stdatomic.h>

/* Who acts next: steps (S) and turns (T) take turns. */
enum clean_phase {
    CLEAN_LOAD,     /* S the aborted transactions, memory for the map */
    CLEAN_MAP,      /* S the keys of the dirty segments */
    CLEAN_COPY,     /* S what stays of a group */
    CLEAN_TO_SWAP,  /* T .cleaned -> .swap */
    CLEAN_SWAPPED,  /* S folder flushed */
    CLEAN_REPLACE,  /* T the old segments leave */
    CLEAN_REPLACED, /* S folder flushed */
    CLEAN_TO_NAME,  /* T .swap -> the name */
    CLEAN_DONE,
};

/* A closed segment as it was at the beginning. */
struct clean_source {
    int64_t base;
    uint64_t size_bytes;
    uint32_t index_bytes, time_index_bytes;
};

struct log_clean {
    /* The owner's. */
    struct log *log; /* NULL: it is gone */
    bool swapped;    /* out is called .swap, and has not taken its place yet */
    atomic_bool stop;

    /* Whose turn it is. */
    enum clean_phase phase;
    int err;
    const struct file_system *fs;
    char *dir;
    struct log_clean_options options;
    uint32_t interval_bytes, segment_bytes, segment_index_bytes; /* of the topic */
    int64_t first_dirty, end, mapped_to;
    struct clean_source *sources; /* those before end */
    size_t source_count;
    int64_t *bases; /* of all segments, for their .txnindex files */
    size_t base_count;
    struct clean_producer *producers;
    struct clean_aborts aborts;
    struct clean_map *map;
    struct clean_txns *map_txns;
    struct clean_filter filter;

    size_t group_from, group_to; /* sources of the present group */
    size_t at;                   /* the source that is being read */
    struct segment *in;
    struct scan scan;
    int64_t in_mtime_ms;
    int64_t next_offset; /* the least that the next batch may have */
    struct segment *out;
    struct buf pending; /* for out */
    uint64_t unsynced;
    uint64_t moved; /* bytes, since log_clean_take_bytes */
    struct log_clean_stats stats;
    char *why;
};

/* clean_read.c: opens source c->at, unless it is open. Position 0, or that of the index for an offset. */
NODISCARD int clean_open_source(struct log_clean *c, int64_t offset);
void clean_close_source(struct log_clean *c);
/* The next batch of the source, checked: 1 with its bytes, 0 at its end, -errno. */
NODISCARD int clean_next_batch(struct log_clean *c, struct batch *ret_batch, struct slice *ret_bytes);
/* Notes what is wrong, of the present source; returns -EBADMSG. */
int clean_refuse(struct log_clean *c, uint64_t position, int64_t offset, const char *what);

NODISCARD int clean_load(struct log_clean *c);
NODISCARD int clean_map_some(struct log_clean *c, uint64_t bytes);

/* clean_copy.c */
void clean_next_group(struct log_clean *c);
NODISCARD int clean_copy_some(struct log_clean *c, uint64_t bytes);

#endif
