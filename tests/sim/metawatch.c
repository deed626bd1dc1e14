/* metawatch.c - see metawatch.h: who has seen what. */
#include "tests/sim/metawatch_internal.h"

#include <inttypes.h>
#include <stdlib.h>

#include "libs/controller/controller.h"
#include "libs/kraft/kraft.h"
#include "tests/sim/heap.h"

enum { MOVES_MS = 1500, WHOLE_EVERY = 16 };

static struct metawatch *the_watch;

struct metawatch *metawatch_new(struct sim *s)
{
    struct metawatch *w = xcalloc(1, sizeof *w);
    w->sim = s;
    w->offset = -1;
    the_watch = w;
    return w;
}

struct metawatch *metawatch_free(struct metawatch *w)
{
    if (w == NULL)
        return NULL;
    the_watch = NULL;
    metawatch_rules_free(w);
    free(w->hashes);
    free(w->deciders);
    free(w);
    return NULL;
}

static struct watched *find(struct metawatch *w, const struct process *p)
{
    const char *name = process_name(p);
    for (int i = 0; i < w->watched_count; i++)
        if (strcmp(w->watched[i].name, name) == 0)
            return &w->watched[i];
    ASSERT(w->watched_count < WATCHED_MAX);
    w->watched[w->watched_count] = (struct watched){.name = name, .is_up = true, .offset = -1};
    return &w->watched[w->watched_count++];
}

void metawatch_life(void *ctx, struct process *p, bool starts)
{
    struct watched *n = find(ctx, p);
    n->is_up = starts;
    n->offset = -1;
}

/* ---- W1: one image an offset ---- */

static void add_bytes(void *ctx, struct slice record)
{
    uint64_t h = *(uint64_t *)ctx ^ record.size;
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= record.size; i += sizeof word) {
        memcpy(&word, record.data + i, sizeof word);
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    for (; i < record.size; i++)
        h = (h ^ record.data[i]) * 0x100000001b3u;
    *(uint64_t *)ctx = h;
}

static uint64_t hash_of(const struct image *i)
{
    uint64_t h = 0xcbf29ce484222325u;
    image_each_record(i, add_bytes, &h);
    add_bytes(&h, image_voters(i));
    int64_t next_producer_id = image_next_producer_id(i);
    add_bytes(&h, slice_make(&next_producer_id, sizeof next_producer_id));
    return h ? h : 1;
}

static void on_topic(void *ctx, const struct image_topic *before UNUSED, const struct image_topic *after UNUSED)
{
    *(bool *)ctx = true;
}
static void on_config(void *ctx, enum image_resource type UNUSED, struct slice name UNUSED)
{
    *(bool *)ctx = true;
}
static void on_broker(void *ctx, const struct image_broker *before UNUSED, const struct image_broker *after UNUSED)
{
    *(bool *)ctx = true;
}
static void on_service(void *ctx, const struct image_service *before UNUSED, const struct image_service *after UNUSED)
{
    *(bool *)ctx = true;
}
static void on_owner(void *ctx, const struct image_owner *before UNUSED, const struct image_owner *after UNUSED)
{
    *(bool *)ctx = true;
}

static void on_kept(void *ctx)
{
    *(bool *)ctx = true;
}

/* Whether there is anything in newer that is not in old: by identity, so that it costs what changed. */
static bool has_news(const struct image *old, const struct image *newer)
{
    bool news = image_next_producer_id(old) != image_next_producer_id(newer) ||
                !slice_eq(image_voters(old), image_voters(newer)) || image_offset(newer) % WHOLE_EVERY == 0;
    struct image_diff d = {on_topic, on_config, on_broker, on_service, on_owner, on_kept, &news};
    if (!news)
        __real_image_diff(old, newer, &d);
    return news;
}

static void keep_hash(struct metawatch *w, const struct watched *n, int64_t offset)
{
    if (offset >= w->hash_room) {
        int64_t room = offset * 2 + 1024;
        uint32_t owner = heap_enter(0);
        w->hashes = xrealloc(w->hashes, (size_t)room * sizeof *w->hashes);
        (void)heap_enter(owner);
        memset(w->hashes + w->hash_room, 0, (size_t)(room - w->hash_room) * sizeof *w->hashes);
        w->hash_room = room;
    }
    if (w->hashes[offset] == 0)
        w->hashes[offset] = n->hash;
    else if (w->hashes[offset] != n->hash)
        sim_fail(w->sim, "%s has another image at offset %" PRId64 " than who had it before", n->name, offset);
    else
        sim_cover("two programs had the same image");
}

static void saw(struct metawatch *w, struct watched *n, const struct image *old, const struct image *newer)
{
    int64_t offset = image_offset(newer);
    if (offset <= n->offset) {
        if (offset < n->offset)
            sim_fail(w->sim, "%s goes back from offset %" PRId64 " to %" PRId64, n->name, n->offset, offset);
        return;
    }
    if (offset >= w->committed)
        sim_fail(w->sim, "%s publishes offset %" PRId64 ", and all before %" PRId64 " is committed", n->name, offset,
                 w->committed);
    bool same = old != NULL && n->offset == image_offset(old) && n->offset >= 0 && !has_news(old, newer);
    if (!same)
        n->hash = hash_of(newer);
    bool is_next = old != NULL && image_offset(old) == w->offset;
    n->offset = offset;
    keep_hash(w, n, offset);
    if (offset <= w->offset)
        return;
    uint64_t now = sim_now_ms(w->sim);
    if (now > w->moved_ms + MOVES_MS)
        w->moving_since_ms = now;
    w->moved_ms = now;
    w->offset = offset;
    metawatch_rules(w, is_next ? old : NULL, newer);
}

void __wrap_image_diff(const struct image *old, const struct image *newer, const struct image_diff *diff);
void __wrap_image_diff(const struct image *old, const struct image *newer, const struct image_diff *diff)
{
    struct process *p = process_current();
    if (the_watch != NULL && p != NULL && !process_is_ghost(p))
        saw(the_watch, find(the_watch, p), old, newer);
    __real_image_diff(old, newer, diff);
}

/* ---- W10: what is committed ---- */

struct kraft_actions __real_kraft_step(struct kraft *k, const struct kraft_event *e);
struct kraft_actions __wrap_kraft_step(struct kraft *k, const struct kraft_event *e);
struct kraft_actions __wrap_kraft_step(struct kraft *k, const struct kraft_event *e)
{
    struct process *p = process_current();
    bool leads = kraft_role(k) == KRAFT_LEADER; /* one that commits its own removal leads no more behind the step */
    struct kraft_actions actions = __real_kraft_step(k, e);
    if (the_watch == NULL || p == NULL || process_is_ghost(p))
        return actions;
    struct metawatch *w = the_watch;
    int64_t end = kraft_high_watermark(k);
    if (leads || kraft_role(k) == KRAFT_LEADER)
        w->committed = MAX(w->committed, end);
    else if (end > w->committed)
        sim_fail(w->sim, "%s takes all before offset %" PRId64 " for committed, and all before %" PRId64 " is",
                 process_name(p), end, w->committed);
    return actions;
}

/* ---- W2: who decides ---- */

static void decides(struct metawatch *w, const struct process *p, int32_t epoch)
{
    for (size_t i = 0; i < w->decider_count; i++)
        if (w->deciders[i].epoch == epoch && strcmp(w->deciders[i].name, process_name(p)) != 0)
            sim_fail(w->sim, "%s and %s both decide in epoch %d", w->deciders[i].name, process_name(p), epoch);
    uint32_t owner = heap_enter(0);
    w->deciders = xrealloc(w->deciders, (w->decider_count + 1) * sizeof *w->deciders);
    (void)heap_enter(owner);
    w->deciders[w->decider_count++] = (struct decider){epoch, process_name(p)};
    w->moving_since_ms = sim_now_ms(w->sim);
    sim_cover("a controller began to decide");
}

void __real_controller_activate(struct controller *c, const struct image *image, int64_t next_offset, int32_t epoch,
                                const struct image *bootstrap, uint64_t now_ms);
void __wrap_controller_activate(struct controller *c, const struct image *image, int64_t next_offset, int32_t epoch,
                                const struct image *bootstrap, uint64_t now_ms);
void __wrap_controller_activate(struct controller *c, const struct image *image, int64_t next_offset, int32_t epoch,
                                const struct image *bootstrap, uint64_t now_ms)
{
    const struct process *p = process_current();
    if (the_watch != NULL && p != NULL && !process_is_ghost(p))
        decides(the_watch, p, epoch);
    __real_controller_activate(c, image, next_offset, epoch, bootstrap, now_ms);
}

/* ---- what others ask ---- */

const char *metawatch_decider(const struct metawatch *w)
{
    return w->decider_count > 0 ? w->deciders[w->decider_count - 1].name : NULL;
}

int64_t metawatch_offset(const struct metawatch *w)
{
    return w->offset;
}

uint64_t metawatch_moving_since(const struct metawatch *w)
{
    return w->moving_since_ms;
}

uint64_t metawatch_moved(const struct metawatch *w)
{
    return w->moved_ms;
}

int64_t metawatch_offset_of(const struct metawatch *w, const char *process)
{
    for (int i = 0; i < w->watched_count; i++)
        if (strcmp(w->watched[i].name, process) == 0)
            return w->watched[i].is_up ? w->watched[i].offset : -1;
    return -1;
}
