/* fetch_room.c - how much a Fetch asks for.
 *
 * Answers that nobody holds back would fill the memory of storage and of the bus: what Reads may bring at once is
 * bounded to RESERVE_MAX_BYTES. A Read that is not answered after RESERVE_MS is parked, and brings what has just been
 * written; it does not count any more. */
#include "services/frontend/fetch.h"

#include <utlist.h>

enum { RESERVE_MS = 50, RESERVE_MAX_BYTES = 64 << 20 };

void fetch_release_room(struct fetch *f)
{
    struct frontend *frontend = f->r->frontend;

    if (!f->is_reserving)
        return;
    f->is_reserving = false;
    frontend->fetch_reserved_bytes -= f->max_bytes;
    DL_DELETE2(frontend->reserving, f, reserving_prev, reserving_next);
}

void fetch_reserve_room(struct fetch *f, uint64_t wanted)
{
    struct frontend *frontend = f->r->frontend;
    uint64_t now = loop_now_ms(frontend->loop);

    while (frontend->reserving != NULL && frontend->reserving->reserved_until_ms <= now)
        fetch_release_room(frontend->reserving);
    uint64_t reserved = MIN(frontend->fetch_reserved_bytes, (uint64_t)RESERVE_MAX_BYTES);
    uint64_t room = MIN(pipeline_output_room(frontend->pipeline), (uint64_t)RESERVE_MAX_BYTES - reserved);
    f->max_bytes = (uint32_t)MIN(wanted, MAX(room, (uint64_t)FETCH_ROOM_MIN_BYTES));
    f->reserved_until_ms = now + RESERVE_MS;
    f->is_reserving = true;
    frontend->fetch_reserved_bytes += f->max_bytes;
    DL_APPEND2(frontend->reserving, f, reserving_prev, reserving_next);
}
