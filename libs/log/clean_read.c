/* clean_read.c - the worker's side of a cleaning: reading sources, and the keys of the dirty ones. It has descriptors
 * of its own and touches nothing of the log. */
#include "libs/log/clean_internal.h"
#include "libs/log/text.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { RECORD_LEAST = 7 };

int clean_refuse(struct log_clean *c, uint64_t position, int64_t offset, const char *what)
{
    free(c->why);
    c->why = xasprintf("offset %" PRId64 ", byte %" PRIu64 " of segment %" PRId64 ": %s", offset, position,
                       c->sources[c->at].base, what);
    return -EBADMSG;
}

int clean_open_source(struct log_clean *c, int64_t offset)
{
    if (c->in != NULL)
        return 0;
    const struct clean_source *from = &c->sources[c->at];
    struct segment *s = segment_new(c->fs, c->dir, from->base, 0);
    int64_t key;
    int32_t position = 0;
    int err = segment_load(s), found = 0;
    /* Indexes that cannot be right: all of it is read. */
    if (err == 0 && offset > from->base)
        err = found = index_floor(&s->offsets, offset - from->base, &key, &position);
    if (err >= 0 && s->size_bytes < from->size_bytes)
        err = -ECANCELED; /* it was cut */
    c->in_mtime_ms = s->born_ms;
    c->next_offset = MAX(c->next_offset, from->base);
    s->size_bytes = from->size_bytes;
    if (err >= 0)
        err = scan_begin(&c->scan, s, found == 1 ? (uint64_t)(uint32_t)position : 0, c->options.io_bytes);
    if (err < 0)
        segment_free(s);
    else
        c->in = s;
    return err < 0 ? err : 0;
}

void clean_close_source(struct log_clean *c)
{
    if (c->in == NULL)
        return;
    scan_end(&c->scan);
    c->in = segment_free(c->in);
}

int clean_next_batch(struct log_clean *c, struct batch *ret_batch, struct slice *ret_bytes)
{
    uint64_t position = c->scan.at;
    int more = scan_next(&c->scan, ret_batch, &position);
    if (more == -EBADMSG)
        return clean_refuse(c, position, -1, "bytes that are no batch");
    if (more == -ENODATA)
        return clean_refuse(c, position, -1, "a batch is cut short");
    if (more <= 0)
        return more;
    if (ret_batch->magic != RECORDS_MAGIC)
        return clean_refuse(c, position, ret_batch->base_offset,
                            "a message of Kafka before 0.11, whose formats are read but not compacted");
    if (ret_batch->base_offset < c->next_offset)
        return clean_refuse(c, position, ret_batch->base_offset, "offsets out of order");
    c->next_offset = batch_next_offset(ret_batch);
    int err = scan_body(&c->scan, ret_batch, position, ret_bytes);
    if (err < 0)
        return err;
    c->moved += ret_batch->size;
    return batch_crc_holds(ret_batch, *ret_bytes) ? 1
                                                  : clean_refuse(c, position, ret_batch->base_offset, "CRC mismatch");
}

/* ---- before anything else ---- */

static int load_aborts(struct log_clean *c)
{
    int err = 0;
    for (size_t i = 0; i < c->base_count && err == 0; i++) {
        char *path = xasprintf("%s/%020" PRId64 ".txnindex", c->dir, c->bases[i]), *data;
        size_t size;
        err = file_slurp(c->fs, path, TXN_INDEX_MAX_BYTES, &data, &size);
        free(path);
        if (err == 0) {
            /* That of the active segment may be appended to meanwhile: whole entries are all that counts. */
            bool active = i + 1 == c->base_count;
            err = clean_aborts_add(&c->aborts, slice_make(data, active ? size - size % TXN_ENTRY : size));
            free(data);
        }
        if (err == -ENOENT)
            err = 0; /* most have none */
        if (err == -EBADMSG || err == -EFBIG) {
            free(c->why);
            c->why = xasprintf("the .txnindex of segment %" PRId64 " is damaged", c->bases[i]);
            err = -EBADMSG;
        }
    }
    clean_aborts_sort(&c->aborts);
    return err;
}

int clean_load(struct log_clean *c)
{
    int err = load_aborts(c);
    if (err < 0)
        return err;
    /* There cannot be more keys than offsets. */
    uint64_t slots = c->options.map_bytes / CLEAN_MAP_ENTRY;
    double needed = (double)(c->end - c->first_dirty) / c->options.map_load + 2;
    if (needed < (double)slots)
        slots = (uint64_t)needed;
    c->map = clean_map_new(slots, c->options.map_load, c->options.seed);
    if (c->map == NULL)
        return -ENOMEM;
    c->map_txns = clean_txns_new(&c->aborts, c->first_dirty);
    while (c->at + 1 < c->source_count && c->sources[c->at + 1].base <= c->first_dirty)
        c->at++;
    c->phase = CLEAN_MAP;
    return 0;
}

/* ---- the keys ---- */

/* Notes the keys of a batch. 0; 1: the map is full; -EBADMSG. A batch that is the first of the round gets its room in
 * any case: without progress the next round would be the same. */
static int map_batch(struct log_clean *c, const struct batch *b, struct slice bytes)
{
    struct record_iter it;
    struct record r;
    int err = clean_records(&c->filter, b, bytes, &it), more = 0;
    if (err < 0)
        return err == -ENOMEM ? err : clean_refuse(c, c->scan.at - b->size, b->base_offset, "it does not decompress");
    /* No record is shorter than RECORD_LEAST bytes, whatever the header says of their number. */
    uint64_t most = MIN((uint64_t)b->record_count, (uint64_t)(it.end - it.at) / RECORD_LEAST + 1);
    if (c->mapped_to <= c->first_dirty && (err = clean_map_reserve(c->map, most)) < 0)
        return err;
    while ((more = record_iter_next(&it, &r)) == 1) {
        if (slice_is_null(r.key) || r.offset < c->first_dirty)
            continue;
        if (clean_map_room(c->map) == 0)
            return 1;
        clean_map_put(c->map, r.key, r.offset);
    }
    return more < 0 ? clean_refuse(c, c->scan.at - b->size, b->base_offset, "bytes that are no records") : 0;
}

static int look_at_batch(struct log_clean *c, const struct batch *b, struct slice bytes)
{
    int type, err = 0;
    if (batch_is_control(b)) {
        err = clean_control_type(&c->filter, b, bytes, &type);
        if (err < 0)
            return clean_refuse(c, c->scan.at - b->size, b->base_offset, "a control batch that cannot be read");
        (void)clean_txns_on_control(c->map_txns, b, type, NULL);
    } else if (!clean_txns_on_batch(c->map_txns, b)) {
        err = map_batch(c, b, bytes);
    }
    if (err == 0)
        c->mapped_to = MAX(c->mapped_to, batch_next_offset(b));
    return err;
}

static void end_map(struct log_clean *c)
{
    clean_close_source(c);
    c->next_offset = 0;
    c->map_txns = clean_txns_free(c->map_txns);
    c->stats.keys = clean_map_count(c->map);
    c->filter.map = c->map;
    c->filter.mapped_to = c->mapped_to;
    c->filter.round_end = c->end;
    c->filter.txns = clean_txns_new(&c->aborts, c->sources[0].base);
    /* Segments of which nothing is in the map stay as they are. */
    while (c->source_count > 0 && c->sources[c->source_count - 1].base >= c->mapped_to)
        c->source_count--;
    clean_next_group(c);
}

int clean_map_some(struct log_clean *c, uint64_t bytes)
{
    struct batch b;
    struct slice body;
    uint64_t until = c->moved + bytes;
    while (c->moved < until && !atomic_load_explicit(&c->stop, memory_order_relaxed)) {
        int err = clean_open_source(c, c->first_dirty);
        int more = err < 0 ? err : clean_next_batch(c, &b, &body);
        if (more == 1) {
            c->stats.bytes_mapped += b.size;
            more = look_at_batch(c, &b, body);
            if (more == 0)
                continue;
        }
        if (more < 0)
            return more;
        if (more == 0) {
            clean_close_source(c);
            c->at++;
            c->mapped_to = MAX(c->mapped_to, c->at < c->source_count ? c->sources[c->at].base : c->end);
        }
        if (more == 1 || c->at == c->source_count) {
            end_map(c);
            return 0;
        }
    }
    return 0;
}
