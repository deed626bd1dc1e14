/* shared.c - the memory that clients' bytes are read to, which storage nodes of this machine see: a payload there is
 * named to them, not sent. */
#include "services/frontend/server.h"

#include "libs/base/log.h"

#include <string.h>
#include <sys/random.h>

enum {
    SHM_BYTES = 256 << 20, /* address space: what the input budget may take, and what begun frames may claim */
    TRIM_MS = 2000,
    SHARE_MIN_BYTES = 2048 /* fewer bytes are copied to storage: cheaper than naming where they lie */
};

void shared_open(struct frontend *f)
{
    uint64_t id = 0;
    int error;

    if (!config_bool(f->config, "karst.bus.shared"))
        return;
    while (id == 0)
        if (getrandom(&id, sizeof id, 0) != sizeof id)
            return;
    f->shm = shm_arena_new(id, SHM_BYTES, &error);
    if (f->shm == NULL) {
        log_warn("no shared memory, records are copied to storage: %s", strerror(-error));
        return;
    }
    bus_set_arena(f->bus, shm_arena_fd(f->shm), id, shm_arena_size(f->shm));
}

void shared_close(struct frontend *f)
{
    f->shm = shm_arena_free(f->shm);
}

bool shared_alloc(void *ctx, size_t size, struct pipeline_buffer *ret_buffer)
{
    struct frontend *f = ctx;
    struct shm_block *b = shm_arena_alloc(f->shm, size);

    if (b == NULL)
        return false;
    *ret_buffer = (struct pipeline_buffer){&b->owner, b->data, b->capacity};
    return true;
}

static void on_trim(void *ctx)
{
    struct frontend *f = ctx;

    if (!shm_arena_trim(f->shm))
        f->trim_timer = loop_timer_stop(f->trim_timer);
}

void shared_serve(struct frontend *f)
{
    if (f->shm != NULL && f->trim_timer == NULL && shm_arena_wants_trim(f->shm))
        f->trim_timer = loop_timer_start(f->loop, TRIM_MS, TRIM_MS, on_trim, f);
}

struct ref request_frame_ref(const struct request *r, struct slice bytes)
{
    const struct shm_arena *shm = r->frontend->shm;
    struct ref ref = ref_inline(bytes, CONTAINER_OF(r, const struct running, r)->frame_owner);

    if (bytes.size >= SHARE_MIN_BYTES && shm_arena_holds(shm, bytes)) {
        ref.kind = REF_ARENA;
        ref.instance = shm_arena_id(shm);
        ref.position = shm_arena_position(shm, bytes.data);
    }
    return ref;
}
