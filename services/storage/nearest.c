/* nearest.c - which replica a consumer is to read that has said its rack (KIP-392), as Kafka's RackAwareReplicaSelector
 * chooses.
 *
 * Only those in sync are chosen from, and of these only who has what the consumer asks for next: one that lags would
 * hold it up, or send it back here. The leader itself is best when it is in the rack; else who has most of the log,
 * then who had all of it last, then the highest id. */
#include "services/storage/read.h"
#include "services/storage/replication.h"

static bool is_in_rack(const struct storage *s, int32_t id, const char *rack)
{
    const struct image_broker *b = image_broker(s->image, id);
    return b != NULL && !b->fenced && slice_eq_str(b->rack, rack);
}

static bool is_better(const struct replica_follower *a, const struct replica_follower *than)
{
    if (a->log_end != than->log_end)
        return a->log_end > than->log_end;
    return a->caught_up_ms != than->caught_up_ms ? a->caught_up_ms > than->caught_up_ms : a->id > than->id;
}

int32_t nearest_replica(const struct read_part *p)
{
    const struct storage *s = p->call->storage;
    const struct replica_core *core = p->replica->core;
    const char *rack = p->call->request->rack;
    int64_t offset = p->request->fetch_offset;
    struct replica_follower best = {.id = -1};
    if (!s->rack_aware || core == NULL || replica_role(core) != REPLICA_LEADER ||
        is_in_rack(s, service_id(s->service), rack))
        return -1;
    for (size_t i = 0; i < replica_follower_count(core); i++) {
        struct replica_follower f = replica_follower_at(core, i);
        if (!replica_is_in_sync(core, f.id) || f.log_end < offset || f.log_start > offset || !is_in_rack(s, f.id, rack))
            continue;
        if (best.id < 0 || is_better(&f, &best))
            best = f;
    }
    return best.id;
}
