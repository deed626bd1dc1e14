/* watch.c - see watch.h. The follower keeps one image that it applies what comes to, as every service does; from time
 * to time it reads the whole log (or snapshot and log) once more into a fresh image, and both must say the same at the
 * same offset. */
#include "tests/sim/watch.h"

#include "libs/metadata/image.h"
#include "tests/sim/platform.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    OWNERS_MAX = 4096,
    LOADS_MAX = 256,
    REPLICA_COORDINATOR = -3,
    FOLLOW_MS = 4000,
    AGAIN_MS = 3000,
    CONTROLLERS_MAX = 8
};

/* Who appended to a coordinator's partition in an epoch. */
struct owner {
    uint8_t topic_id[16];
    int32_t partition, epoch, role, id;
    uint64_t incarnation;
};

/* Up to where an owner was told that its partition's log goes, when it began to load it. */
struct load {
    struct owner owner; /* its epoch is not known */
    int64_t end;
};

struct watch {
    struct machine *machine;
    struct sim *sim;
    const struct metawatch *meta;
    struct owner owners[OWNERS_MAX];
    size_t owner_count;
    struct load loads[LOADS_MAX]; /* the last of each partition */
    size_t load_count;
    struct process *process;
    struct bus *bus;
    struct image *kept, *fresh;    /* fresh NULL: it is not read at present */
    bool compared;                 /* both were the same somewhere */
    int64_t high_watermark;        /* the highest that a controller told */
    int64_t told[CONTROLLERS_MAX]; /* the last by each of them: that of an only one never goes back */
    int32_t controllers, asks;
    bool calling, asked_fresh;
    uint64_t event;
};

/* ---- owners ---- */

static void check_owner(struct watch *w, const Karst__Bus__AppendPartition *p, const Karst__Bus__CoordinatorOwner *o)
{
    struct owner now = {.partition = p->partition,
                        .epoch = o->coordinator_epoch,
                        .role = o->role,
                        .id = o->id,
                        .incarnation = o->incarnation};
    if (p->topic_id.len != sizeof now.topic_id)
        sim_fail(w->sim, "a coordinator appends to no topic");
    memcpy(now.topic_id, p->topic_id.data, sizeof now.topic_id);
    for (size_t i = 0; i < w->owner_count; i++) {
        const struct owner *known = &w->owners[i];
        if (known->partition != now.partition || known->epoch != now.epoch ||
            memcmp(known->topic_id, now.topic_id, 16) != 0)
            continue;
        if (known->role != now.role || known->id != now.id || known->incarnation != now.incarnation)
            sim_fail(w->sim, "two owners act in epoch %d of coordinator partition %d", now.epoch, now.partition);
        return;
    }
    ASSERT(w->owner_count < OWNERS_MAX);
    w->owners[w->owner_count++] = now;
}

static void on_call(void *ctx, struct process *p, const struct rpc *rpc)
{
    struct watch *w = ctx;
    const Karst__Bus__Call *call = rpc_call(rpc);
    (void)p;
    if (call->body_case != KARST__BUS__CALL__BODY_APPEND || call->append->owner == NULL)
        return;
    for (size_t i = 0; i < call->append->n_partitions; i++)
        check_owner(w, call->append->partitions[i], call->append->owner);
}

/* ---- loads ---- */

static struct watch *the_watch;

static struct load *load_of(struct watch *w, const ProtobufCBinaryData *topic_id, int32_t partition)
{
    for (size_t i = 0; i < w->load_count; i++) {
        struct load *l = &w->loads[i];
        if (l->owner.partition == partition && topic_id->len == 16 &&
            memcmp(l->owner.topic_id, topic_id->data, topic_id->len) == 0)
            return l;
    }
    return NULL;
}

/* Of whoever owns it by the newest image: one that did, and does not know, may load as much as it likes. */
static void note_load(struct watch *w, const Karst__Bus__Peer *from, const Karst__Bus__ReadPartition *q,
                      const Karst__Bus__ReadResult *r)
{
    struct owner owner = {.partition = q->partition, .role = (int32_t)from->role, .id = from->id};
    owner.incarnation = from->incarnation;
    bool begins = q->fetch_offset <= r->log_start_offset;
    if (r->error != 0 || !begins || q->topic_id.len != sizeof owner.topic_id)
        return;
    memcpy(owner.topic_id, q->topic_id.data, sizeof owner.topic_id);
    if (!metawatch_owns(w->meta, owner.topic_id, owner.partition, owner.role, owner.id, owner.incarnation))
        return;
    struct load *l = load_of(w, &q->topic_id, q->partition);
    if (l == NULL) {
        ASSERT(w->load_count < LOADS_MAX);
        l = &w->loads[w->load_count++];
    }
    *l = (struct load){.owner = owner, .end = r->log_end_offset};
    sim_cover("a coordinator began to load");
}

static void check_append(struct watch *w, const Karst__Bus__CoordinatorOwner *o, const Karst__Bus__AppendPartition *q,
                         const Karst__Bus__AppendResult *r)
{
    const struct load *l = load_of(w, &q->topic_id, q->partition);
    if (r->error != 0 || l == NULL || r->base_offset < l->end)
        return;
    if (l->owner.role != o->role || l->owner.id != o->id || l->owner.incarnation != o->incarnation)
        sim_fail(
            w->sim,
            "an owner of before, %d, wrote offset %lld of coordinator partition %d, and the next one, %d, was told "
            "that it ends at %lld",
            o->id, (long long)r->base_offset, q->partition, l->owner.id, (long long)l->end);
}

static void on_reply(struct watch *w, const struct rpc *rpc, Karst__Bus__Reply__BodyCase kind, const void *body)
{
    const Karst__Bus__Call *call = rpc_call(rpc);
    if (kind == KARST__BUS__REPLY__BODY_READ && call->read->replica_id == REPLICA_COORDINATOR) {
        const Karst__Bus__ReadReply *reply = body;
        for (size_t i = 0; i < reply->n_results && i < call->read->n_partitions; i++)
            note_load(w, rpc_from(rpc), call->read->partitions[i], reply->results[i]);
    } else if (kind == KARST__BUS__REPLY__BODY_APPEND && call->append->owner != NULL) {
        const Karst__Bus__AppendReply *reply = body;
        for (size_t i = 0; i < reply->n_results && i < call->append->n_partitions; i++)
            check_append(w, call->append->owner, call->append->partitions[i], reply->results[i]);
    }
}

void __real_rpc_reply(struct rpc *r, Karst__Bus__Reply__BodyCase kind, const void *body, const struct ref *payloads,
                      size_t payload_count, int64_t metadata_offset);
void __wrap_rpc_reply(struct rpc *r, Karst__Bus__Reply__BodyCase kind, const void *body, const struct ref *payloads,
                      size_t payload_count, int64_t metadata_offset);
void __wrap_rpc_reply(struct rpc *r, Karst__Bus__Reply__BodyCase kind, const void *body, const struct ref *payloads,
                      size_t payload_count, int64_t metadata_offset)
{
    const struct process *p = process_current();
    if (the_watch != NULL && p != NULL && !process_is_ghost(p))
        on_reply(the_watch, r, kind, body);
    __real_rpc_reply(r, kind, body, payloads, payload_count, metadata_offset);
}

/* ---- the metadata log ---- */

static void apply(struct watch *w, struct image **image, const Karst__Bus__FollowReply *reply, struct slice bytes)
{
    struct image *next = NULL;
    int error = reply->is_snapshot ? image_load(PLATFORM_CLUSTER_ID, bytes, reply->next_offset, -1, &next)
                                   : image_apply(*image, bytes, &next, NULL);
    if (error)
        sim_fail(w->sim, "the metadata log behind offset %lld cannot be replayed", (long long)image_offset(*image));
    if (image_offset(next) < image_offset(*image))
        sim_fail(w->sim, "the metadata log went back from %lld to %lld", (long long)image_offset(*image),
                 (long long)image_offset(next));
    image_release(*image);
    *image = next;
}

static void compare(struct watch *w)
{
    if (w->fresh == NULL || image_offset(w->fresh) != image_offset(w->kept))
        return;
    if (!image_equal(w->fresh, w->kept))
        sim_fail(w->sim, "replaying the metadata log to offset %lld gives another image",
                 (long long)image_offset(w->kept));
    w->compared = true;
    sim_cover("the metadata log was replayed to the same image");
    w->fresh = image_release(w->fresh);
}

static void on_followed(void *ctx, const struct bus_result *result)
{
    struct watch *w = ctx;
    w->calling = false;
    bool refused = result->outcome == KARST__BUS__OUTCOME__OUTCOME_OK && result->reply->follow->error != 0;
    int32_t asked = w->asks;
    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK || refused)
        w->asks = 1 + (int32_t)sim_below(w->sim, (uint64_t)w->controllers);
    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK)
        return;
    const Karst__Bus__FollowReply *reply = result->reply->follow;
    if (reply->error == 0 && reply->next_offset > image_offset(w->asked_fresh ? w->fresh : w->kept) &&
        result->payload_count == 1 && ref_bytes(&result->payloads[0]).size > 0) {
        struct slice bytes = ref_bytes(&result->payloads[0]);
        apply(w, w->asked_fresh ? &w->fresh : &w->kept, reply, bytes);
        compare(w);
    }
    if (reply->error == 0) {
        if (w->controllers == 1 && reply->high_watermark < w->told[asked])
            sim_fail(w->sim, "the high watermark of the metadata log went back from %lld to %lld",
                     (long long)w->told[asked], (long long)reply->high_watermark);
        w->told[asked] = reply->high_watermark;
        w->high_watermark = MAX(w->high_watermark, reply->high_watermark);
    }
}

static void follow(struct watch *w)
{
    Karst__Bus__FollowRequest body = KARST__BUS__FOLLOW_REQUEST__INIT;
    w->asked_fresh = w->fresh && image_offset(w->fresh) < image_offset(w->kept);
    body.from_offset = image_offset(w->asked_fresh ? w->fresh : w->kept) + 1;
    body.max_bytes = 500 + (uint32_t)sim_below(w->sim, 20000);
    body.max_wait_ms = 500;
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_FOLLOW, .body = &body, .timeout_ms = FOLLOW_MS};
    w->calling = true;
    struct process *before = process_enter(w->process);
    bus_call(w->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, w->asks, &request, on_followed, w);
    loop_ask_turn(process_loop(w->process));
    process_leave(before);
}

static void tick(void *ctx)
{
    struct watch *w = ctx;
    w->event = sim_at(w->sim, 50 + sim_below(w->sim, 200), tick, w);
    if (w->fresh == NULL && sim_below(w->sim, AGAIN_MS) < 200)
        w->fresh = image_empty(PLATFORM_CLUSTER_ID);
    if (!w->calling)
        follow(w);
}

static void on_death(void *ctx)
{
    (void)ctx;
}

struct watch *watch_new(struct machine *m, const struct metawatch *meta, int controllers)
{
    struct watch *w = xcalloc(1, sizeof *w);
    struct bus_options o = {
        .role = KARST__BUS__ROLE__ROLE_FRONTEND, .id = 1000, .incarnation = 1, .cluster_id = PLATFORM_CLUSTER_ID};
    w->machine = m;
    w->meta = meta;
    w->sim = machine_sim(m);
    w->controllers = controllers;
    w->asks = 1;
    w->kept = image_empty(PLATFORM_CLUSTER_ID);
    w->process = process_new(m, "watch", NULL, on_death, w);
    process_protect(w->process, true);
    struct process *before = process_enter(w->process);
    if (bus_new(process_loop(w->process), &o, &w->bus))
        sim_fail(w->sim, "no bus");
    process_leave(before);
    for (int32_t id = 1; id <= controllers; id++) {
        char address[64];
        snprintf(address, sizeof address, "ipc:///run/karst/controller-%d", id);
        before = process_enter(w->process);
        bus_set_peer(w->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, id, 0, address);
        process_leave(before);
    }
    machine_watch(m, on_call, w);
    the_watch = w;
    w->event = sim_at(w->sim, 100, tick, w);
    return w;
}

struct watch *watch_free(struct watch *w)
{
    if (w == NULL)
        return NULL;
    machine_watch(w->machine, NULL, NULL);
    the_watch = NULL;
    sim_cancel(w->sim, w->event);
    /* Images that its own process made are its process's memory. */
    struct process *before = process_enter(w->process);
    image_release(w->kept);
    image_release(w->fresh);
    process_leave(before);
    process_free(w->process);
    free(w);
    return NULL;
}

bool watch_is_done(const struct watch *w)
{
    return w->compared;
}

void watch_check(struct watch *w)
{
    if (!watch_is_done(w))
        sim_fail(w->sim, "the metadata log could not be replayed: the follower is at %lld of %lld",
                 (long long)image_offset(w->kept), (long long)w->high_watermark);
}
