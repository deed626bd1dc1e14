// link: pipeline shm wire bus base
/* fuzz_pipeline.c - what a hostile client sends: bytes in short reads through the framing, every frame decoded as the
 * API that it names, at every version there is. The first byte says how short the reads are, and whether they go to an
 * arena of shared memory (which is small: often full) or to the heap. */
#include "libs/pipeline/decode.h"
#include "libs/pipeline/pipeline.h"
#include "libs/shm/shm_arena.h"

#include <stdlib.h>

static bool overlaps(int16_t key)
{
    return key == 0;
}

static void serve(struct pipeline *p, struct arena *arena)
{
    struct pipeline_request r;

    while (pipeline_next(p, &r)) {
        const struct wire_api *api = wire_api(r.api_key);
        struct pipeline_decoded d;
        struct ref answer = ref_copy(SLICE_OF("1234"));
        bool good = api != NULL && api->version_min <= api->version_max &&
                    pipeline_decode(api, api->version_min, api->version_max, r.frame, arena, &d) == 0;
        if (good) {
            struct buf json = {0};
            wire_json(api->request, d.version, d.body, &json);
            buf_free(&json);
            pipeline_answer(p, r.id, PIPELINE_ANSWERED, &answer, 1);
        } else {
            ref_release(&answer);
            pipeline_answer(p, r.id, PIPELINE_CLOSE, NULL, 0);
        }
        arena_reset(arena);
        pipeline_check(p);
    }
}

static void drop_output(struct pipeline *p, uint64_t conn)
{
    struct iovec v[2];
    struct pipeline_file file;

    while (pipeline_output(p, conn, v, 2, &file) > 0)
        pipeline_written(p, conn, v[0].iov_len, 0);
}

enum { ARENA_BYTES = 256 << 10 };

static bool alloc_shared(void *ctx, size_t size, struct pipeline_buffer *ret_buffer)
{
    struct shm_block *b = shm_arena_alloc(ctx, size);

    if (b == NULL)
        return false;
    *ret_buffer = (struct pipeline_buffer){&b->owner, b->data, b->capacity};
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t ip[PIPELINE_IP_BYTES] = {0};
    static struct shm_arena *shm;
    struct pipeline_options options = {
        .frame_max_bytes = 1 << 20,
        .input_budget_bytes = 64 << 10,
        .output_budget_bytes = 64 << 10,
        .conn_requests_max = 4,
        .conn_input_max_bytes = 32 << 10,
        .output_resume_bytes = 1000,
        .connections_max = 1,
        .per_ip_max = 1,
        .stall_ms = 100,
        .overlaps = overlaps,
    };
    uint64_t conn;

    if (size == 0)
        return 0;
    int error;
    if (shm == NULL && (shm = shm_arena_new(1, ARENA_BYTES, &error)) == NULL)
        abort();
    if (data[0] & 0x80) {
        options.alloc = alloc_shared;
        options.alloc_ctx = shm;
        options.alloc_bytes = ARENA_BYTES;
    }
    struct pipeline *p = pipeline_new(&options);
    struct arena *arena = arena_new(16 << 20);
    if (pipeline_open(p, ip, -1, 0, &conn) != 0)
        abort();
    for (size_t at = 1; at < size;) {
        struct iovec room[2];
        if (pipeline_input(p, conn, room) == 0)
            break;
        size_t n = MIN(room[0].iov_len, (size_t)(data[0] & 0x7f) * 4 + 1);
        n = MIN(n, size - at);
        memcpy(room[0].iov_base, data + at, n);
        pipeline_received(p, conn, n, 0);
        pipeline_check(p);
        at += n;
        serve(p, arena);
        drop_output(p, conn);
    }
    pipeline_free(p);
    arena_free(arena);
    (void)shm_arena_trim(shm);
    if (shm_arena_used(shm) != 0)
        abort();
    return 0;
}
