/* staging.c - private headers, copies of small batches, and the vectors over them. */
#include "libs/log/staging.h"
#include "libs/base/bytes.h"
#include <stdlib.h>

enum {
    CHUNK_SIZE = 16384,
    CHUNK_ALIGN = 16,
    POOL_STAGINGS = 64,  /* logs that are written in one turn without malloc */
    POOL_CHUNKS = 64,    /* 1 MiB */
    POOL_ENTRIES = 1024, /* batches of a staging whose arrays are kept */
};

/* Bytes to be written grow from the front; what is ours alone is taken from the back. */
struct staging_chunk {
    struct staging_chunk *next;
    size_t size, used, top;
    _Alignas(CHUNK_ALIGN) uint8_t data[];
};

struct log_pool {
    struct staging *stagings;
    struct staging_chunk *chunks;
    size_t staging_count, chunk_count;
    uint64_t instances;
    struct check_tools tools;
    struct descriptors descriptors;
};

struct log_pool *log_pool_new(void)
{
    struct log_pool *p = xcalloc(1, sizeof *p);
    p->descriptors.max = DESCRIPTORS_DEFAULT;
    return p;
}

void log_pool_bound_descriptors(struct log_pool *p, size_t max)
{
    p->descriptors.max = max;
}

struct descriptors *log_pool_descriptors(struct log_pool *p)
{
    return &p->descriptors;
}

static void staging_free(struct staging *s)
{
    free(s->batches);
    free(s->vectors);
    free(s);
}

struct log_pool *log_pool_free(struct log_pool *p)
{
    if (p == NULL)
        return NULL;
    while (p->stagings != NULL) {
        struct staging *s = p->stagings;
        p->stagings = s->next;
        staging_free(s);
    }
    while (p->chunks != NULL) {
        struct staging_chunk *c = p->chunks;
        p->chunks = c->next;
        free(c);
    }
    check_tools_free(&p->tools);
    ASSERT(p->descriptors.count == 0);
    free(p);
    return NULL;
}

struct check_tools *log_pool_tools(struct log_pool *p)
{
    return &p->tools;
}

uint64_t log_pool_instance(struct log_pool *p)
{
    return ++p->instances;
}

/* ---- chunks ---- */

static void push_chunk(struct log_pool *p, struct staging *s, size_t size)
{
    struct staging_chunk *c = p->chunks;
    size = (size + CHUNK_ALIGN - 1) & ~(size_t)(CHUNK_ALIGN - 1);
    if (size <= CHUNK_SIZE && c != NULL) {
        p->chunks = c->next;
        p->chunk_count--;
    } else {
        c = xmalloc(sizeof *c + MAX(size, (size_t)CHUNK_SIZE));
        c->size = MAX(size, (size_t)CHUNK_SIZE);
    }
    c->used = 0;
    c->top = c->size;
    c->next = s->chunks;
    s->chunks = c;
}

static void pop_chunk(struct log_pool *p, struct staging *s)
{
    struct staging_chunk *c = s->chunks;
    s->chunks = c->next;
    if (c->size > CHUNK_SIZE || p->chunk_count == POOL_CHUNKS) {
        free(c);
        return;
    }
    c->next = p->chunks;
    p->chunks = c;
    p->chunk_count++;
}

static uint8_t *grow(struct log_pool *p, struct staging *s, size_t n)
{
    if (s->chunks == NULL || s->chunks->top - s->chunks->used < n)
        push_chunk(p, s, n);
    uint8_t *at = s->chunks->data + s->chunks->used;
    s->chunks->used += n;
    return at;
}

void *staging_alloc(struct log_pool *p, struct staging *s, size_t size)
{
    size = (size + CHUNK_ALIGN - 1) & ~(size_t)(CHUNK_ALIGN - 1);
    if (s->chunks == NULL || s->chunks->top - s->chunks->used < size)
        push_chunk(p, s, size);
    s->chunks->top -= size;
    return s->chunks->data + s->chunks->top;
}

/* ---- a staging's life ---- */

struct staging *staging_get(struct log_pool *p)
{
    struct staging *s = p->stagings;
    if (s == NULL)
        return xcalloc(1, sizeof *s);
    p->stagings = s->next;
    p->staging_count--;
    return s;
}

struct staging *staging_put(struct log_pool *p, struct staging *s)
{
    if (s == NULL)
        return NULL;
    while (s->chunks != NULL)
        pop_chunk(p, s);
    if (p->staging_count == POOL_STAGINGS || s->batch_capacity > POOL_ENTRIES || s->vector_capacity > POOL_ENTRIES) {
        staging_free(s);
        return NULL;
    }
    *s = (struct staging){
        .next = p->stagings,
        .batches = s->batches,
        .vectors = s->vectors,
        .batch_capacity = s->batch_capacity,
        .vector_capacity = s->vector_capacity,
    };
    p->stagings = s;
    p->staging_count++;
    return NULL;
}

/* ---- taking ---- */

int staging_take_header(struct staging *s, struct slice *rest, const struct batch **ret_batch)
{
    if (rest->size == 0)
        return 0;
    struct slice bytes = *rest;
    size_t head = MIN(bytes.size, sizeof s->header);
    struct batch b;
    bytes_take(s->header, bytes.data, head);
    int err = batch_parse_header(slice_make(s->header, head), &b);
    if (err < 0)
        return err;
    if (b.size > bytes.size)
        return -ENODATA;
    if (s->batch_count == s->batch_capacity) {
        s->batch_capacity = s->batch_capacity ? s->batch_capacity * 2 : 8;
        s->batches = xrealloc(s->batches, s->batch_capacity * sizeof *s->batches);
    }
    s->batches[s->batch_count] = (struct staged_batch){.batch = b, .bytes = slice_make(bytes.data, b.size)};
    *rest = slice_make(bytes.data + b.size, bytes.size - b.size);
    *ret_batch = &s->batches[s->batch_count].batch;
    return 1;
}

/* What lies behind the last vector in memory makes it longer. */
static void add_vector(struct staging *s, const uint8_t *data, size_t size)
{
    struct iovec *last = s->vector_count > 0 ? &s->vectors[s->vector_count - 1] : NULL;
    if (last != NULL && (const uint8_t *)last->iov_base + last->iov_len == data) {
        last->iov_len += size;
        return;
    }
    if (s->vector_count == s->vector_capacity) {
        s->vector_capacity = s->vector_capacity ? s->vector_capacity * 2 : 8;
        s->vectors = xrealloc(s->vectors, s->vector_capacity * sizeof *s->vectors);
    }
    union { /* pwritev only reads, but its vectors do not say so */
        const uint8_t *in;
        void *out;
    } bytes = {.in = data};
    s->vectors[s->vector_count++] = (struct iovec){bytes.out, size};
}

struct staged_batch *staging_take_body(struct log_pool *p, struct staging *s, bool whole)
{
    struct staged_batch *b = &s->batches[s->batch_count++];
    size_t rest = b->batch.size - BATCH_HEADER_SIZE;
    whole = whole || b->batch.size <= STAGING_COPY_MAX;
    b->header = grow(p, s, whole ? b->batch.size : BATCH_HEADER_SIZE);
    memcpy(b->header, s->header, BATCH_HEADER_SIZE);
    if (whole) {
        bytes_take(b->header + BATCH_HEADER_SIZE, b->bytes.data + BATCH_HEADER_SIZE, rest);
        b->bytes.data = b->header;
        add_vector(s, b->header, b->batch.size);
    } else {
        add_vector(s, b->header, BATCH_HEADER_SIZE);
        add_vector(s, b->bytes.data + BATCH_HEADER_SIZE, rest);
    }
    return b;
}

/* The batch that was taken last is the newest in its chunk and in the vectors. */
static void untake(struct staging *s, const struct staged_batch *b)
{
    bool whole = b->bytes.data == b->header;
    size_t size = whole ? b->batch.size : BATCH_HEADER_SIZE;
    if (!whole && b->batch.size > BATCH_HEADER_SIZE)
        s->vector_count--;
    struct iovec *last = &s->vectors[s->vector_count - 1];
    ASSERT(last->iov_len >= size && s->chunks->used >= size);
    s->chunks->used -= size;
    last->iov_len -= size;
    if (last->iov_len == 0)
        s->vector_count--;
}

void staging_replace(struct log_pool *p, struct staging *s, struct slice made)
{
    struct staged_batch *b = &s->batches[s->batch_count - 1];
    untake(s, b);
    b->header = grow(p, s, made.size);
    memcpy(b->header, made.data, made.size);
    b->bytes = slice_make(b->header, made.size);
    b->batch.size = (uint32_t)made.size;
    b->batch.attributes = get_i16(b->header + BATCH_ATTRIBUTES);
    add_vector(s, b->header, made.size);
}

struct staged_batch *staging_taken(const struct staging *s, size_t *ret_count)
{
    *ret_count = s->batch_count - s->kept.batches;
    return s->batches + s->kept.batches;
}

void staging_keep(struct staging *s)
{
    s->kept = (struct staging_mark){
        .batches = s->batch_count,
        .vectors = s->vector_count,
        .last_bytes = s->vector_count > 0 ? s->vectors[s->vector_count - 1].iov_len : 0,
        .chunk = s->chunks,
        .chunk_used = s->chunks != NULL ? s->chunks->used : 0,
    };
}

void staging_drop(struct log_pool *p, struct staging *s)
{
    while (s->chunks != s->kept.chunk)
        pop_chunk(p, s);
    if (s->chunks != NULL)
        s->chunks->used = s->kept.chunk_used;
    s->batch_count = s->kept.batches;
    s->vector_count = s->kept.vectors;
    if (s->vector_count > 0)
        s->vectors[s->vector_count - 1].iov_len = s->kept.last_bytes;
}

struct iovec *staging_vectors(struct staging *s, size_t *ret_count, struct iovec *ret_last)
{
    ASSERT(s->kept.vectors > 0);
    struct iovec *last = &s->vectors[s->kept.vectors - 1];
    *ret_count = s->kept.vectors;
    *ret_last = *last;
    last->iov_len = s->kept.last_bytes;
    return s->vectors;
}

void staging_done(struct staging *s, struct iovec last)
{
    size_t gone = s->kept.vectors;
    if (last.iov_len > s->kept.last_bytes) {
        gone--;
        s->vectors[gone] =
            (struct iovec){(uint8_t *)last.iov_base + s->kept.last_bytes, last.iov_len - s->kept.last_bytes};
    }
    s->vector_count -= gone;
    memmove(s->vectors, s->vectors + gone, s->vector_count * sizeof *s->vectors);
    s->batch_count -= s->kept.batches;
    memmove(s->batches, s->batches + s->kept.batches, s->batch_count * sizeof *s->batches);
    s->kept.batches = s->kept.vectors = s->kept.last_bytes = 0;
}
