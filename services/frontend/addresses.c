/* addresses.c - where clients find a broker: at a front end. Every front end chooses the same one from the same image:
 * on the storage node's host before others, then by rendezvous hashing, so that a front end's coming or going moves
 * only its own share. */
#include "services/frontend/server.h"

enum { STEADY_MS = 5 * 60 * 1000 };

uint16_t listeners_broker_port(uint16_t bootstrap, int32_t broker_id)
{
    return broker_id <= UINT16_MAX - bootstrap ? (uint16_t)(bootstrap + broker_id) : bootstrap;
}

int32_t listener_broker(const struct frontend *f, const struct listener *l, const struct image *image)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(image, &count);

    if (l->controller_id >= 0 || l->broker_id >= 0 || f->has_broker_ports)
        return l->broker_id;
    return count == 1 ? brokers[0]->id : -1;
}

static uint32_t mix(uint32_t a, uint32_t b)
{
    uint32_t x = a * 0x9e3779b1u ^ (b + 0x85ebca6bu);

    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

static const struct image_endpoint *listener_named(const struct image_service *s, const char *name)
{
    for (int32_t i = 0; i < s->listener_count; i++)
        if (slice_eq_str(s->listeners[i].name, name))
            return &s->listeners[i];
    return NULL;
}

/* The front end, among those with such a listener, that clients find the broker at; NULL: there is none. */
static const struct image_service *choose(const struct image *image, int32_t broker_id, const char *listener)
{
    const struct image_service *node = image_service(image, KARST__BUS__ROLE__ROLE_STORAGE, broker_id);
    const struct image_service *best = NULL;
    uint64_t best_score = 0;
    int32_t count;
    const struct image_service *const *services = image_services(image, &count);

    for (int32_t i = 0; i < count; i++) {
        const struct image_service *s = services[i];
        if (s->role != KARST__BUS__ROLE__ROLE_FRONTEND || listener_named(s, listener) == NULL)
            continue;
        bool same_host = node != NULL && slice_eq(node->host, s->host);
        bool same_rack = node != NULL && !slice_is_null(node->rack) && slice_eq(node->rack, s->rack);
        uint64_t score =
            (uint64_t)same_host << 34 | (uint64_t)same_rack << 33 | mix((uint32_t)s->id, (uint32_t)broker_id);
        if (best == NULL || score > best_score) {
            best = s;
            best_score = score;
        }
    }
    return best;
}

static const struct listener *own_listener(const struct frontend *f, const char *name)
{
    for (size_t i = 0; i < f->bootstrap_count; i++)
        if (strcmp(f->listeners[i]->name, name) == 0)
            return f->listeners[i];
    BUG("a connection came by a listener that is none");
}

static bool any_active(const struct image *image)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(image, &count);

    for (int32_t i = 0; i < count; i++)
        if (image_broker_is_active(image, brokers[i]->id))
            return true;
    return false;
}

/* While the last storage node is started again, its broker stays in the answers: it is at our own address, which is
 * alive. A client that is told of no broker at all forgets those it knew (KIP-899, KIP-1102): librdkafka finds them
 * again only after a second, and never when it may not bootstrap again. */
static bool is_listed(const struct image *image, int32_t broker_id)
{
    return image_broker_is_active(image, broker_id) || (image_broker(image, broker_id) != NULL && !any_active(image));
}

bool request_fenced_address(const struct request *r, int32_t broker_id, struct slice *ret_host, uint16_t *ret_port,
                            struct slice *ret_rack)
{
    const struct image_broker *broker = image_broker(r->image, broker_id);
    bool has_port = r->frontend->has_broker_ports;

    if (broker == NULL)
        return false;
    if (ret_rack != NULL)
        *ret_rack = broker->rack;
    const struct image_service *at = choose(r->image, broker_id, r->client.listener);
    if (at != NULL) {
        const struct image_endpoint *e = listener_named(at, r->client.listener);
        *ret_host = e->host;
        *ret_port = has_port ? listeners_broker_port(e->port, broker_id) : e->port;
        return true;
    }
    /* No front end is registered yet, or none any more: we are one. */
    const struct listener *own = own_listener(r->frontend, r->client.listener);
    *ret_host = slice_str(own->advertised_host);
    *ret_port = has_port ? listeners_broker_port(own->advertised_port, broker_id) : own->advertised_port;
    return true;
}

bool request_broker_address(const struct request *r, int32_t broker_id, struct slice *ret_host, uint16_t *ret_port,
                            struct slice *ret_rack)
{
    return is_listed(r->image, broker_id) && request_fenced_address(r, broker_id, ret_host, ret_port, ret_rack);
}

int32_t request_any_broker(const struct request *r)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(r->image, &count);

    if (r->client.broker_id >= 0 && image_broker_is_active(r->image, r->client.broker_id))
        return r->client.broker_id;
    for (int32_t i = 0; i < count; i++)
        if (is_listed(r->image, brokers[i]->id))
            return brokers[i]->id;
    return -1;
}

/* ---- brokers that have moved ---- */

static struct broker_place *place_of(const struct frontend *f, int32_t broker_id)
{
    for (size_t i = 0; i < f->place_count; i++)
        if (f->places[i].id == broker_id)
            return &f->places[i];
    return NULL;
}

static void note_place(struct frontend *f, int32_t broker_id, int32_t frontend)
{
    struct broker_place *p = place_of(f, broker_id);
    if (p == NULL) {
        f->places = xrealloc(f->places, (f->place_count + 1) * sizeof *f->places);
        p = &f->places[f->place_count++];
        *p = (struct broker_place){.id = broker_id, .frontend = frontend};
    }
    if (p->frontend != frontend)
        p->moved_ms = loop_now_ms(f->loop);
    p->frontend = frontend;
}

void addresses_follow(struct frontend *f)
{
    int32_t count;
    const struct image_broker *const *brokers = image_brokers(f->image, &count);

    for (int32_t i = 0; i < count && f->bootstrap_count > 0; i++) {
        const struct image_service *at = choose(f->image, brokers[i]->id, f->listeners[0]->name);
        if (at != NULL)
            note_place(f, brokers[i]->id, at->id);
    }
}

static uint64_t moved_ms(const struct frontend *f, int32_t broker_id)
{
    const struct broker_place *p = place_of(f, broker_id);
    return p != NULL ? p->moved_ms : 0;
}

int32_t request_coordinator_at(const struct request *r, int32_t leader)
{
    const struct frontend *f = r->frontend;
    uint64_t since = moved_ms(f, leader);
    int32_t count, best = leader;
    const struct image_broker *const *brokers = image_brokers(r->image, &count);

    if (since == 0 || loop_now_ms(f->loop) - since > STEADY_MS)
        return leader;
    for (int32_t i = 0; i < count; i++) {
        if (!image_broker_is_active(r->image, brokers[i]->id) || moved_ms(f, brokers[i]->id) >= since)
            continue;
        best = brokers[i]->id;
        since = moved_ms(f, best);
    }
    return best;
}
