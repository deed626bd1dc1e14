/* follow.c - the image of a service: the metadata log by parked Follow calls, who waits for an offset, and the peers
 * that it names.
 *
 * One call is under way at a time; it parks at the controller while there is nothing new. Only the leader of several
 * controllers answers it: so following also finds who leads, for all other calls of the service.
 *
 *   searching --an answer without error--> found --an error, no answer, the link ends--> searching: the one that was
 * named as leader, or the next one */
#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "libs/service/service_internal.h"

enum {
    FOLLOW_WAIT_MS = 10000,
    FOLLOW_TIMEOUT_MS = 13000,
    SEARCH_TIMEOUT_MS = 500,
    FOLLOW_BYTES = 8 << 20,
    RETRY_MS = 50,
    CURRENT_MS = 1500,
    STATUS_DAMAGED = 1
};

/* ---- a new image ---- */

static void on_service_changed(void *ctx, const struct image_service *before, const struct image_service *after)
{
    struct service *s = ctx;
    const struct image_service *which = after ? after : before;
    Karst__Bus__Role role = (Karst__Bus__Role)which->role;

    if (role == KARST__BUS__ROLE__ROLE_CONTROLLER) /* those are named by the configuration */
        return;
    if (after == NULL)
        bus_set_peer(s->bus, role, which->id, 0, NULL);
    else
        bus_set_peer(s->bus, role, after->id, after->incarnation, service_network_choose(s, after));
}

static struct waiter *next_waiter(struct service *s, int64_t reached)
{
    struct waiter *w;

    DL_FOREACH (s->waiters, w)
        if (w->offset <= reached)
            return w;
    return NULL;
}

/* A waiter may add and cancel others; those that are there to be run are found again each time. */
static void run_waiters(struct service *s)
{
    struct waiter *w;

    while ((w = next_waiter(s, service_metadata_offset(s))) != NULL) {
        DL_DELETE(s->waiters, w);
        w->fn(w->ctx);
        free(w);
    }
}

static void take_level(struct service *s, const struct image *old)
{
    if (!image_has_services_of(s->image, old))
        bus_set_level(s->bus, (uint32_t)image_bus_level(s->image));
}

void service_publish_image(struct service *s, struct image *image)
{
    struct image *old = s->image;
    struct image_diff diff = {.service = on_service_changed, .ctx = s};

    image_retain(image);
    s->image = image;
    image_diff(old, image, &diff);
    take_level(s, old);
    if (s->options.on_image != NULL)
        s->options.on_image(s->options.ctx, old, image);
    bus_set_metadata_offset(s->bus, image_offset(image)); /* behind on_image: batches that waited see what it did */
    run_waiters(s);
    if (s->joined)
        service_member_image_changed(s);
    else if (old == NULL) /* a controller that knows what is committed */
        service_notify_ready(s);
    image_release(old);
}

struct image *service_image(const struct service *s)
{
    return s->image;
}

int64_t service_metadata_offset(const struct service *s)
{
    return s->image ? image_offset(s->image) : -1;
}

bool service_is_current(const struct service *s)
{
    return s->controller_found && s->follow_call != 0 &&
           bus_silence_ms(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, s->led_by, KARST__BUS__CALL__BODY_FOLLOW) <
               CURRENT_MS;
}

uint64_t service_wait_offset(struct service *s, int64_t offset, loop_fn *fn, void *ctx)
{
    if (service_metadata_offset(s) >= offset) {
        fn(ctx);
        return 0;
    }
    struct waiter *w = xcalloc(1, sizeof *w);
    *w = (struct waiter){.id = ++s->last_waiter, .offset = offset, .fn = fn, .ctx = ctx};
    DL_APPEND(s->waiters, w);
    return w->id;
}

void service_wait_cancel(struct service *s, uint64_t wait_id)
{
    struct waiter *w;

    DL_FOREACH (s->waiters, w) {
        if (w->id != wait_id)
            continue;
        DL_DELETE(s->waiters, w);
        free(w);
        return;
    }
}

/* ---- following ---- */

static void follow(void *ctx);

static void follow_later(struct service *s)
{
    s->follow_timer = loop_timer_stop(s->follow_timer);
    s->follow_timer = loop_timer_start(s->loop, RETRY_MS, 0, follow, s);
}

/* 0, or -EBADMSG when the log cannot be understood: the service must not act on half of it. */
static int apply(struct service *s, const Karst__Bus__FollowReply *reply, struct slice bytes)
{
    struct image *image = NULL, *empty = NULL;
    int64_t bad_offset = -1;
    int failed;

    if (reply->is_snapshot) {
        failed = image_load(s->cluster_id, bytes, reply->next_offset, -1, &image);
    } else {
        if (s->image == NULL)
            empty = image_empty(s->cluster_id);
        failed = image_apply(s->image ? s->image : empty, bytes, &image, &bad_offset);
    }
    image_release(empty);
    if (failed != 0) {
        log_error("the metadata log cannot be understood at offset %" PRId64, bad_offset);
        return failed;
    }
    service_publish_image(s, image);
    image_release(image);
    return 0;
}

/* Where the controller is in our list; its end: not in it. */
static size_t place_of(const struct service *s, int32_t id)
{
    size_t at = 0;

    while (at < s->controller_count && s->controllers[at] != id)
        at++;
    return at;
}

/* What waits for the former leader ends, and is asked again of the new one. While it was asked, others' failures may
 * have turned us to the next one: the one that has answered counts. */
static void found(struct service *s, int32_t id)
{
    int32_t before = s->led_by;
    s->silent = -1;
    if (s->controller_found)
        return;
    s->controller_found = true;
    s->led_by = id;
    s->controller_at = place_of(s, id);
    if (before < 0 || before == id)
        return;
    log_info("controller %" PRId32 " leads now, no longer %" PRId32, id, before);
    for (size_t i = 0; i < s->controller_count; i++) {
        if (s->controllers[i] != before)
            continue;
        bus_set_peer(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, before, 0, NULL);
        bus_set_peer(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, before, 0, s->controller_addresses[i]);
    }
    service_member_leader_changed(s);
}

/* leader: who leads, by the word of the one that was asked; -1: nobody said. */
static void lost(struct service *s, int32_t asked, int32_t leader)
{
    s->controller_found = false;
    if (leader < 0)
        s->silent = asked;
    for (size_t i = 0; i < s->controller_count && leader >= 0 && leader != asked && leader != s->silent; i++)
        if (s->controllers[i] == leader) {
            s->controller_at = i;
            return;
        }
    service_controller_failed(s, asked);
}

static void on_follow(void *ctx, const struct bus_result *result)
{
    struct service *s = ctx;
    int32_t asked = s->follow_asked;

    if (result->outcome == KARST__BUS__OUTCOME__OUTCOME_CANCELLED) /* by us, and another has taken its place */
        return;
    s->follow_call = 0;
    if (!s->joined)
        return;
    if (result->outcome != KARST__BUS__OUTCOME__OUTCOME_OK) {
        bool gone = result->outcome == KARST__BUS__OUTCOME__OUTCOME_UNKNOWN ||
                    result->outcome == KARST__BUS__OUTCOME__OUTCOME_TIMEOUT;
        lost(s, asked, -1);
        if (gone && s->controller_count == 1)
            follow(s); /* the bus waits until the controller is back */
        else
            follow_later(s);
        return;
    }
    const Karst__Bus__FollowReply *reply = result->reply->follow;
    if (reply->error != 0) {
        lost(s, asked, reply->leader_id);
        follow_later(s);
        return;
    }
    found(s, asked);
    if (result->payload_count > 0 && apply(s, reply, ref_bytes(&result->payloads[0])) != 0)
        service_fail(s, STATUS_DAMAGED);
    else
        follow(s);
}

static void follow(void *ctx)
{
    struct service *s = ctx;
    Karst__Bus__FollowRequest body = KARST__BUS__FOLLOW_REQUEST__INIT;
    bool searches = s->controller_count > 1 && !s->controller_found;

    s->follow_timer = loop_timer_stop(s->follow_timer);
    body.from_offset = service_metadata_offset(s) + 1;
    body.max_bytes = FOLLOW_BYTES;
    body.max_wait_ms = searches ? 0 : FOLLOW_WAIT_MS;
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_FOLLOW,
                                  .body = &body,
                                  .timeout_ms = searches ? SEARCH_TIMEOUT_MS : FOLLOW_TIMEOUT_MS};
    s->follow_asked = service_controller(s);
    s->follow_call = bus_call(s->bus, KARST__BUS__ROLE__ROLE_CONTROLLER, s->follow_asked, &request, on_follow, s);
}

void service_follow_told(struct service *s, int32_t leader, int32_t epoch)
{
    size_t at = place_of(s, leader);

    if (!s->joined || s->drained || epoch <= s->told_epoch)
        return;
    s->told_epoch = epoch;
    if (at == s->controller_count || (s->controller_found && s->controller_at == at))
        return;
    bus_cancel(s->bus, s->follow_call);
    s->controller_found = false;
    s->controller_at = at;
    follow(s);
}

void service_follow_start(struct service *s)
{
    follow(s);
}

void service_follow_stop(struct service *s)
{
    s->follow_timer = loop_timer_stop(s->follow_timer);
    bus_cancel(s->bus, s->follow_call);
}
