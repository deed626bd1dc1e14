/* watching.c - bus request Ping, both ends: who answers, and who leads (libs/controller/presence.h).
 *
 * Alone in its role nobody is watched: nobody could do its work. So a constellation of one of each does not ping. */
#include <stdlib.h>

#include "libs/base/log.h"
#include "services/controller/quorum.h"

void ping_on_call(void *ctx, struct rpc *rpc)
{
    Karst__Bus__PingReply body = KARST__BUS__PING_REPLY__INIT;
    (void)ctx;
    rpc_reply(rpc, KARST__BUS__REPLY__BODY_PING, &body, NULL, 0, 0);
}

/* ---- asking ---- */

struct ping {
    struct quorum *quorum;
    struct presence_life life;
};

/* What could not leave, but not as nobody is there, waits for credit, or for a link over a slow way: it says nothing.
 * Whatever else comes back was said by somebody who is alive. */
static enum presence_end end_of(const struct bus_result *result)
{
    switch (result->outcome) {
    case KARST__BUS__OUTCOME__OUTCOME_NOT_SENT: return result->nobody ? PRESENCE_UNREACHABLE : PRESENCE_UNANSWERED;
    case KARST__BUS__OUTCOME__OUTCOME_UNKNOWN:
    case KARST__BUS__OUTCOME__OUTCOME_TIMEOUT:
    case KARST__BUS__OUTCOME__OUTCOME_CANCELLED: return PRESENCE_UNANSWERED;
    case KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED: return PRESENCE_MUTE;
    case KARST__BUS__OUTCOME__OUTCOME_OK:
    case KARST__BUS__OUTCOME__OUTCOME_EXPIRED:
    case KARST__BUS__OUTCOME__OUTCOME_MALFORMED:
    case KARST__BUS__OUTCOME__OUTCOME_OVERLOADED:
    case _KARST__BUS__OUTCOME_IS_INT_SIZE: break;
    }
    return PRESENCE_ANSWERED;
}

static void on_answer(void *ctx, const struct bus_result *result)
{
    struct ping *p = ctx;
    struct quorum *q = p->quorum;
    if (q->presence != NULL)
        presence_ended(q->presence, p->life, end_of(result));
    free(p);
}

static void ask(struct quorum *q, struct presence_life life)
{
    Karst__Bus__PingRequest body = KARST__BUS__PING_REQUEST__INIT;
    struct ping *p = xcalloc(1, sizeof *p);
    *p = (struct ping){q, life};
    body.leads = q->active;
    body.epoch = kraft_epoch(q->kraft);
    struct bus_request request = {.kind = KARST__BUS__CALL__BODY_PING,
                                  .body = &body,
                                  .timeout_ms = (uint32_t)config_int(q->config, "karst.session.silence.ms"),
                                  .send_ms = PRESENCE_SEND_MS};
    (void)bus_call(q->bus, (Karst__Bus__Role)life.role, life.id, &request, on_answer, p);
}

/* ---- what follows ---- */

static void on_leader_gone(struct quorum *q, int32_t id, const char *text)
{
    if (kraft_role(q->kraft) != KRAFT_FOLLOWER || kraft_leader(q->kraft) != id)
        return;
    log_info("controller %d, which leads the metadata quorum, %s", id, text);
    quorum_step(q, &(struct kraft_event){.kind = KRAFT_LOST, .node = id});
}

/* True: its session has ended. */
static bool on_gone(struct quorum *q, struct presence_life life, enum presence_why why)
{
    const char *text = why == PRESENCE_GONE_SILENT ? "has been silent for too long" : "cannot be reached any more";
    if (life.role == KARST__BUS__ROLE__ROLE_CONTROLLER) {
        on_leader_gone(q, life.id, text);
        return false;
    }
    if (!q->active || !controller_end_session(q->controller, life.role, life.id, life.incarnation))
        return false;
    log_warn("%s %d %s: its session ends", service_role_name(life.role), life.id, text);
    quorum_record(q);
    return true;
}

/* An end may be what another had to wait for: a front end goes when all else of its host has gone. */
static void tell_gone(struct quorum *q)
{
    struct presence_life life;
    enum presence_why why;
    bool any = true;
    while (any) {
        any = false;
        while (presence_next_gone(q->presence, &life, &why))
            any = on_gone(q, life, why) || any;
        if (any)
            presence_tell_again(q->presence);
    }
}

static void on_tick(void *ctx)
{
    struct quorum *q = ctx;
    struct presence_life life;
    if (q->failed || q->ended)
        return;
    presence_tick(q->presence, loop_now_ms(q->loop));
    tell_gone(q);
    while (presence_next_ask(q->presence, &life))
        ask(q, life);
}

/* ---- whom ---- */

/* Two of a role that counts: they are sorted by it. */
static bool wants_watch(const struct quorum *q, const struct image_service *const *services, int32_t count)
{
    int32_t controllers[SERVICE_CONTROLLERS_MAX];
    if (service_controllers(q->service, controllers) > 1)
        return true;
    for (int32_t i = 1; i < count; i++)
        if (services[i]->role == services[i - 1]->role && services[i]->role != KARST__BUS__ROLE__ROLE_FRONTEND)
            return true;
    return false;
}

static void name_all(struct quorum *q, const struct image_service *const *services, int32_t count)
{
    int32_t controllers[SERVICE_CONTROLLERS_MAX];
    size_t controller_count = service_controllers(q->service, controllers);
    for (int32_t i = 0; i < count; i++)
        presence_name(q->presence,
                      (struct presence_life){services[i]->role, services[i]->id, services[i]->incarnation});
    for (size_t i = 0; i < controller_count; i++)
        if (controllers[i] != service_id(q->service))
            presence_name(q->presence, (struct presence_life){KARST__BUS__ROLE__ROLE_CONTROLLER, controllers[i], 0});
}

void watching_on_image(void *ctx, const struct image *old, const struct image *image)
{
    struct quorum *q = ctx;
    int32_t count, silence_ms = config_int(q->config, "karst.session.silence.ms");
    const struct image_service *const *services = image_services(image, &count);
    if (silence_ms == 0 || image_has_services_of(image, old))
        return;
    if (q->presence == NULL)
        q->presence = presence_new((uint32_t)silence_ms, loop_now_ms(q->loop));
    presence_begin(q->presence);
    if (wants_watch(q, services, count))
        name_all(q, services, count);
    presence_done(q->presence);
    if (presence_count(q->presence) == 0)
        q->watch_timer = loop_timer_stop(q->watch_timer);
    else if (q->watch_timer == NULL)
        q->watch_timer = loop_timer_start(q->loop, PRESENCE_TICK_MS, PRESENCE_TICK_MS, on_tick, q);
}

void watching_tell_all(struct quorum *q)
{
    if (q->presence == NULL)
        return;
    presence_hurry(q->presence);
    presence_tell_again(q->presence);
    if (q->watch_timer != NULL)
        loop_timer_again(q->watch_timer, 0);
}

void watching_heard(struct quorum *q, const struct rpc *rpc)
{
    const Karst__Bus__Peer *from = rpc_from(rpc);
    if (q->presence != NULL)
        presence_heard(q->presence, (struct presence_life){(int32_t)from->role, from->id, from->incarnation});
}

void watching_stop(struct quorum *q)
{
    q->watch_timer = loop_timer_stop(q->watch_timer);
    q->presence = presence_free(q->presence);
}
