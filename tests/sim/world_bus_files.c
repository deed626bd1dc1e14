/* world_bus_files.c - the storage nodes' files of the world `bus`: written on, rolled, cut, deleted while others read
 * them by passed descriptors. */
#include "tests/sim/world_bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

enum { SEGMENTS_MAX = 4, GROWTH_MAX = 20000, SEGMENT_MAX = 200000, READ_MAX = 60000 };

/* One file in one life of its server. Files are numbered in the world: what is at a position of file g is known. */
struct segment {
    struct node *node;
    uint64_t generation, size;
    struct ref_file *file;
    struct segment *prev, *next; /* the one that is written last */
};

/* Bytes of a file on their way to a client. */
struct sending {
    struct node *node;
    struct ref file;
    uint64_t generation;
    struct loop_timer *timer;
    struct sending *prev, *next;
};

static uint8_t byte_at(uint64_t generation, uint64_t at)
{
    return (uint8_t)(generation * 131 + at * 7 + (at >> 8));
}

static void check_bytes(const struct world *w, uint64_t generation, uint64_t position, const uint8_t *bytes,
                        size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != byte_at(generation, position + i))
            sim_fail(w->sim, "other bytes than those of file %llu at %llu", (unsigned long long)generation,
                     (unsigned long long)(position + i));
}

/* ---- the server ---- */

static void path_of(const struct segment *s, char path[32])
{
    snprintf(path, 32, "segment-%llu", (unsigned long long)s->generation);
}

static void grow(struct segment *s, uint64_t size)
{
    uint8_t *bytes = xmalloc(size);
    const struct file_system *fs = &file_system_real;
    for (uint64_t i = 0; i < size; i++)
        bytes[i] = byte_at(s->generation, s->size + i);
    struct iovec piece = {bytes, size};
    ssize_t n = fs->ops->pwritev(fs->ctx, s->file->fd, &piece, 1, s->size);
    if (n > 0)
        s->size += (uint64_t)n;
    free(bytes);
}

static void roll(struct node *n)
{
    struct segment *s = xcalloc(1, sizeof *s);
    const struct file_system *fs = &file_system_real;
    char path[32];
    *s = (struct segment){.node = n, .generation = ++n->world->generations};
    path_of(s, path);
    int fd = file_open(fs, path, O_RDWR | O_CREAT);
    if (fd < 0) { /* it is about to die */
        free(s);
        return;
    }
    s->file = ref_file_new(fd, ++n->instances);
    DL_APPEND(n->segments, s);
    grow(s, 1 + sim_below(n->world->sim, GROWTH_MAX));
}

/* Nobody is given the file from here on. */
static void leave(struct segment *s)
{
    s->file->retired = true;
    ref_owner_release(&s->file->owner);
    DL_DELETE(s->node->segments, s);
    free(s);
}

static void delete_first(struct node *n)
{
    struct segment *s = n->segments;
    const struct file_system *fs = &file_system_real;
    char path[32];
    path_of(s, path);
    (void)file_unlink(fs, path);
    sim_cover("a file was deleted under its readers");
    leave(s);
}

static void cut(struct node *n)
{
    struct segment *s = n->segments->prev;
    const struct file_system *fs = &file_system_real;
    (void)file_ftruncate(fs, s->file->fd, sim_below(n->world->sim, s->size));
    sim_cover("a file was cut under its readers");
    leave(s);
}

static void churn(void *ctx)
{
    struct node *n = ctx;
    struct sim *s = n->world->sim;
    (void)process_acts(n->process);
    if (n->segments && sim_chance(s, 50))
        cut(n);
    if (n->segments == NULL || n->segments->prev->size > SEGMENT_MAX || sim_chance(s, 100))
        roll(n);
    else
        grow(n->segments->prev, 1 + sim_below(s, GROWTH_MAX));
    struct segment *e;
    int count = 0;
    DL_COUNT(n->segments, e, count);
    if (count > SEGMENTS_MAX || (count > 1 && sim_chance(s, 50)))
        delete_first(n);
}

void files_start(struct node *n)
{
    n->segments = NULL;
    n->instances = 0;
    churn(n);
    n->churn = loop_timer_start(process_loop(n->process), 100, 100, churn, n);
}

static const struct ref *as_copy(struct segment *s, uint64_t position, uint64_t size, struct ref *ret_copy)
{
    const struct file_system *fs = &file_system_real;
    uint8_t *bytes = xmalloc(size);
    ssize_t n = fs->ops->pread(fs->ctx, s->file->fd, bytes, size, position);
    *ret_copy = ref_take(bytes, n > 0 ? (size_t)n : 0);
    return ret_copy;
}

void files_on_read(void *ctx, struct rpc *r)
{
    struct node *n = ctx;
    struct sim *sim = n->world->sim;
    struct segment *s = n->segments;
    bus_world_executed(n, rpc_call(r)->read->max_bytes);
    if (s == NULL) {
        rpc_fail(r, KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED);
        return;
    }
    while (s->next && sim_chance(sim, 500))
        s = s->next;
    uint64_t position = sim_below(sim, s->size), size = 1 + sim_below(sim, MIN(s->size - position, (uint64_t)READ_MAX));
    Karst__Bus__ReadReply body = KARST__BUS__READ_REPLY__INIT;
    Karst__Bus__ReadResult result = KARST__BUS__READ_RESULT__INIT, *results = &result;
    struct ref payload;
    body.n_results = 1;
    body.results = &results;
    result.high_watermark = (int64_t)s->generation;
    result.last_stable_offset = (int64_t)position;
    if (sim_chance(sim, 800) && rpc_share_file(r, s->file))
        payload = ref_of_file(s->file, position, size);
    else
        (void)as_copy(s, position, size, &payload);
    rpc_reply(r, KARST__BUS__REPLY__BODY_READ, &body, &payload, 1, 0);
    ref_release(&payload);
}

void files_end(struct node *n)
{
    struct process *before = process_enter(n->process);
    n->churn = loop_timer_stop(n->churn);
    while (n->segments)
        delete_first(n);
    loop_ask_turn(process_loop(n->process));
    process_leave(before);
}

/* ---- the caller ---- */

static void send_file(void *ctx)
{
    struct sending *s = ctx;
    struct node *n = s->node;
    uint8_t *bytes = xmalloc(s->file.size_bytes);
    ssize_t got = disk_read_passed(ref_fd(&s->file), bytes, s->file.size_bytes, s->file.position);
    if (got < 0)
        sim_fail(n->world->sim, "a file that is held cannot be read");
    check_bytes(n->world, s->generation, s->file.position, bytes, (size_t)got);
    sim_cover((uint64_t)got < s->file.size_bytes ? "a file was shorter when it was sent" : "bytes of a file were sent");
    free(bytes);
    ref_release(&s->file);
    DL_DELETE(n->sendings, s);
    loop_timer_stop(s->timer);
    free(s);
}

void files_take(struct node *n, const struct bus_result *result)
{
    const Karst__Bus__ReadResult *r = result->reply->read->results[0];
    const struct ref *payload = &result->payloads[0];
    struct sim *sim = n->world->sim;
    if (payload->kind == REF_INLINE) {
        struct slice bytes = ref_bytes(payload);
        check_bytes(n->world, (uint64_t)r->high_watermark, (uint64_t)r->last_stable_offset, bytes.data, bytes.size);
        return;
    }
    if (payload->position != (uint64_t)r->last_stable_offset)
        sim_fail(sim, "a file arrived with another position");
    struct sending *s = xcalloc(1, sizeof *s);
    *s = (struct sending){.node = n, .file = *payload, .generation = (uint64_t)r->high_watermark};
    ref_retain(payload);
    s->timer = loop_timer_start(process_loop(n->process), sim_below(sim, 3000), 0, send_file, s);
    DL_APPEND(n->sendings, s);
}

void files_forget(struct node *n)
{
    n->segments = NULL;
    n->sendings = NULL;
    if (n->disk)
        disk_restart(n->disk);
}
