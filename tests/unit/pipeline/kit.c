/* kit.c - see kit.h. */
#include "tests/unit/pipeline/kit.h"
#include "libs/base/bytes.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static bool overlaps(int16_t key)
{
    return key == KEY_PRODUCE;
}

const uint8_t KIT_IP_A[16] = {1}, KIT_IP_B[16] = {2};

struct pipeline_options options(void)
{
    return (struct pipeline_options){
        .frame_max_bytes = 1 << 20,
        .input_budget_bytes = 1 << 20,
        .output_budget_bytes = 1 << 20,
        .conn_requests_max = 8,
        .conn_input_max_bytes = 1 << 20,
        .output_resume_bytes = 1000,
        .connections_max = 4,
        .per_ip_max = 3,
        .idle_ms = 1000,
        .stall_ms = 100,
        .overlaps = overlaps,
    };
}

uint64_t open_conn(struct pipeline *p)
{
    uint64_t conn;

    cr_assert_eq(pipeline_open(p, KIT_IP_A, -1, 0, &conn), 0);
    return conn;
}

/* A frame of an API with a correlation id, padded to size bytes. */
void put_frame(struct buf *b, int16_t key, int32_t correlation, uint32_t size)
{
    uint8_t *at = buf_grow(b, size + 4);

    memset(at, 'x', size + 4);
    put_u32(at, size);
    put_i16(at + 4, key);
    put_i16(at + 6, 9);
    put_i32(at + 8, correlation);
}

/* Offers bytes in pieces of at most chunk, as long as the connection reads. The bytes taken. */
size_t feed(struct pipeline *p, uint64_t conn, const struct buf *b, size_t chunk, uint64_t now)
{
    size_t done = 0;

    while (done < b->size) {
        struct iovec room[2];
        int n = pipeline_input(p, conn, room);
        if (n == 0)
            break;
        size_t want = MIN(chunk, b->size - done), put = 0;
        for (int i = 0; i < n && put < want; i++) {
            size_t part = MIN(room[i].iov_len, want - put);
            memcpy(room[i].iov_base, b->data + done + put, part);
            put += part;
        }
        pipeline_received(p, conn, put, now);
        pipeline_check(p);
        done += put;
    }
    return done;
}

void answer(struct pipeline *p, uint64_t id, const char *text)
{
    struct ref r = ref_copy(slice_str(text));

    pipeline_answer(p, id, PIPELINE_ANSWERED, &r, 1);
    pipeline_check(p);
}

/* Everything that may be written now. */
void take_output(struct pipeline *p, uint64_t conn, size_t chunk, char *out)
{
    struct iovec v[4];
    struct pipeline_file file;
    int n;

    while ((n = pipeline_output(p, conn, v, 4, &file)) > 0) {
        size_t size = MIN(chunk, v[0].iov_len);
        memcpy(out, v[0].iov_base, size);
        out += size;
        pipeline_written(p, conn, size, 0);
        pipeline_check(p);
    }
    *out = '\0';
}

struct pipeline_attention attention_of(struct pipeline *p, uint64_t conn)
{
    struct pipeline_attention a, last = {0};

    while (pipeline_attention(p, &a))
        if (a.conn == conn)
            last = a;
    return last;
}

/* ---- memory as of an arena ---- */

struct kit_block {
    struct ref_owner owner; /* first */
    struct kit_memory *memory;
    size_t size;
    uint8_t data[];
};

static void free_block(struct ref_owner *owner)
{
    struct kit_block *b = CONTAINER_OF(owner, struct kit_block, owner);

    b->memory->taken -= b->size;
    free(b);
}

static bool give(void *ctx, size_t size, struct pipeline_buffer *ret_buffer)
{
    struct kit_memory *m = ctx;
    size_t whole = (size + 4095) & ~(size_t)4095;

    if (m->taken + whole > m->room) {
        m->refused++;
        return false;
    }
    struct kit_block *b = xmalloc(sizeof *b + whole);
    *b = (struct kit_block){.memory = m, .size = whole};
    ref_owner_init(&b->owner, free_block);
    m->taken += whole;
    m->given++;
    *ret_buffer = (struct pipeline_buffer){&b->owner, b->data, whole};
    return true;
}

void kit_use(struct pipeline_options *o, struct kit_memory *m)
{
    o->alloc = give;
    o->alloc_ctx = m;
    o->alloc_bytes = m->room;
}

bool kit_is_given(const struct pipeline_request *r)
{
    return r->owner->free == free_block;
}
