/* request.c - a request from its frame to its answer. */
#include "services/frontend/server.h"

#include "libs/base/log.h"

#include "kafka/api_versions.h"
#include "kafka/apis.h"
#include "libs/pipeline/decode.h"

#include <stdlib.h>
#include <utlist.h>

enum { REQUESTS_PER_TURN = 512, FREE_MAX = 256, SCRATCH_MAX_BYTES = 16 << 10 };

/* ---- their memory ---- */

static struct running *new_running(struct frontend *f)
{
    struct running *q = f->free_running;

    if (q == NULL) {
        q = xcalloc(1, sizeof *q);
        q->decode_arena = arena_new(DECODE_LIMIT_BYTES);
        q->r.arena = arena_new(0);
        return q;
    }
    f->free_running = q->next;
    f->free_running_count--;
    return q;
}

static void free_running(struct running *q)
{
    arena_free(q->decode_arena);
    arena_free(q->r.arena);
    free(q);
}

/* Back to where new_running finds it, with its arenas. */
static void recycle(struct frontend *f, struct running *q)
{
    struct arena *decode_arena = q->decode_arena, *arena = q->r.arena;

    for (struct kept *k = q->kept; k != NULL; k = k->next)
        ref_release(&k->ref);
    image_release(q->r.image);
    if (f->free_running_count >= FREE_MAX) {
        free_running(q);
        return;
    }
    arena_reset(decode_arena);
    arena_reset(arena);
    *q = (struct running){.decode_arena = decode_arena, .r.arena = arena, .next = f->free_running};
    f->free_running = q;
    f->free_running_count++;
}

void requests_free(struct frontend *f)
{
    while (f->held != NULL)
        DL_DELETE(f->held, f->held);
    for (uint32_t i = 0; i < f->requests.size; i++)
        if (f->requests.items[i] != NULL)
            recycle(f, f->requests.items[i]);
    while (f->free_running != NULL) {
        struct running *q = f->free_running;
        f->free_running = q->next;
        free_running(q);
    }
}

void request_keep(struct request *r, const struct ref *ref)
{
    struct running *q = running_of(r);
    struct kept *k = arena_alloc(r->arena, sizeof *k);

    ref_retain(ref);
    *k = (struct kept){*ref, q->kept};
    q->kept = k;
}

/* ---- ending ---- */

static void end(struct request *r, enum pipeline_end how, struct ref *pieces, size_t count)
{
    struct running *q = running_of(r);
    struct frontend *f = r->frontend;

    ASSERT(q->calls == 0);
    by_slot_set(&f->requests, q->id, NULL);
    pipeline_answer(f->pipeline, q->id, how, pieces, count);
    recycle(f, q);
}

void request_finish(struct request *r)
{
    end(r, PIPELINE_NO_ANSWER, NULL, 0);
}
void request_close(struct request *r)
{
    end(r, PIPELINE_CLOSE, NULL, 0);
}

static void cannot_encode(struct request *r)
{
    log_error("%s version %d: the response cannot be encoded; closing the connection", r->api->name, r->version);
    request_close(r);
}

/* The encoded bytes as a ref: small ones are copied in one piece with their owner, so that the scratch stays; large
 * ones are handed over. */
static struct ref take_encoded(struct buf *scratch)
{
    struct ref whole;

    if (scratch->size <= SCRATCH_MAX_BYTES) {
        whole = ref_copy(buf_slice(scratch));
        scratch->size = 0;
        return whole;
    }
    whole = ref_take(scratch->data, scratch->size);
    *scratch = (struct buf){0};
    return whole;
}

void request_reply(struct request *r, const void *response)
{
    struct buf *out = &r->frontend->scratch;

    if (pipeline_encode(r->api, r->version, r->correlation_id, response, out, NULL, 0, NULL) < 0) {
        cannot_encode(r);
        return;
    }
    struct ref whole = take_encoded(out);
    end(r, PIPELINE_ANSWERED, &whole, 1);
}

void request_reply_refs(struct request *r, const void *response, const struct ref *refs, size_t ref_count)
{
    struct buf *out = &r->frontend->scratch;
    struct wire_splice *splices = arena_alloc(r->arena, (ref_count + 1) * sizeof *splices);
    struct ref *pieces = arena_alloc(r->arena, (2 * ref_count + 1) * sizeof *pieces);
    size_t count, at = 0, n = 0;

    if (pipeline_encode(r->api, r->version, r->correlation_id, response, out, splices, ref_count + 1, &count) < 0) {
        cannot_encode(r);
        return;
    }
    ASSERT(count == ref_count);
    struct ref whole = take_encoded(out);
    for (size_t i = 0; i < count; i++) {
        ASSERT(splices[i].records.size == refs[i].size_bytes);
        if (refs[i].size_bytes == 0)
            continue;
        pieces[n++] = ref_part(&whole, at, splices[i].at - at);
        at = splices[i].at;
        ref_retain(&refs[i]);
        pieces[n++] = refs[i];
    }
    if (at < whole.size_bytes)
        pieces[n++] = ref_part(&whole, at, whole.size_bytes - at);
    ref_release(&whole);
    end(r, PIPELINE_ANSWERED, pieces, n);
}

void request_reply_error(struct request *r, enum kafka_error error, const char *message)
{
    if (r->handler->fail == NULL)
        request_close(r);
    else
        r->handler->fail(r, error, message);
}

/* ---- running ---- */

/* A version of ApiVersions that we do not know is answered at version 0 with what we do know (apis.md). */
static void reply_known_versions(struct request *r)
{
    struct kafka_api_versions_response_api_version only = {r->handler->key, r->handler->version_min,
                                                           r->handler->version_max};
    struct kafka_api_versions_response response;

    kafka_api_versions_response_init(&response);
    response.error_code = KERR_UNSUPPORTED_VERSION;
    response.api_keys = &only;
    response.api_keys_count = 1;
    r->version = 0;
    request_reply(r, &response);
}

static void handle(struct running *q)
{
    struct request *r = &q->r;

    r->image = image_retain(r->frontend->image);
    r->client.broker_id = listener_broker(r->frontend, q->listener, r->image);
    r->handler->handle(r);
}

static struct running *open_request(struct frontend *f, const struct pipeline_request *p)
{
    struct running *q = new_running(f);

    q->id = p->id;
    q->frame_owner = p->owner;
    q->connection = by_slot_get(&f->connections, p->conn);
    ASSERT(q->connection != NULL && q->connection->id == p->conn);
    const struct listener *l = q->connection->listener;
    q->listener = l;
    q->r.frontend = f;
    q->r.arrived_ms = loop_now_ms(f->loop);
    q->r.handler = api_handler_of(p->api_key);
    q->r.api = wire_api(p->api_key);
    q->r.client =
        (struct request_client){"User:ANONYMOUS", q->connection->address, l->name, -1, l->controller_id, l->port};
    by_slot_set(&f->requests, q->id, q);
    return q;
}

static void run(struct frontend *f, const struct pipeline_request *p)
{
    struct running *q = open_request(f, p);
    struct request *r = &q->r;
    struct pipeline_decoded d;

    if (r->handler == NULL || (r->client.controller_id >= 0 && !r->handler->at_controllers)) {
        request_close(r);
        return;
    }
    int e = pipeline_decode(r->api, r->handler->version_min, r->handler->version_max, p->frame, q->decode_arena, &d);
    if (e < 0 && !(e == -ENOTSUP && r->handler->key == KAFKA_API_API_VERSIONS)) {
        request_close(r);
        return;
    }
    r->version = d.version;
    r->correlation_id = d.correlation_id;
    if (e < 0) {
        reply_known_versions(r);
        return;
    }
    r->client_id = d.client_id;
    r->body = d.body;
    pipeline_charge(f->pipeline, q->id, arena_used(q->decode_arena));
    if (!f->is_open) {
        DL_APPEND(f->held, q);
        return;
    }
    handle(q);
}

void requests_serve(struct frontend *f)
{
    struct pipeline_request p;

    for (int i = 0; i < REQUESTS_PER_TURN; i++) {
        if (!pipeline_next(f->pipeline, &p))
            return;
        run(f, &p);
    }
    loop_again(f->loop);
}

void requests_open(struct frontend *f)
{
    f->is_open = true;
    while (f->held != NULL) {
        struct running *q = f->held;
        DL_DELETE(f->held, q);
        q->next = q->prev = NULL;
        handle(q);
    }
    loop_again(f->loop);
}

/* ---- the client's going ---- */

void requests_report_gone(struct frontend *f)
{
    uint64_t id;

    while (pipeline_gone(f->pipeline, &id)) {
        struct running *q = by_slot_get(&f->requests, id);
        ASSERT(q != NULL && q->id == id);
        q->is_gone = true;
        q->connection = NULL;
        q->r.client.address = ""; /* it was the connection's */
        if (q->on_gone != NULL)
            q->on_gone(&q->r, q->on_gone_ctx);
    }
}

bool request_is_gone(const struct request *r)
{
    return CONTAINER_OF(r, const struct running, r)->is_gone;
}

void request_on_gone(struct request *r, void (*fn)(struct request *r, void *ctx), void *ctx)
{
    struct running *q = running_of(r);

    q->on_gone = fn;
    q->on_gone_ctx = ctx;
}

/* ---- what is known ---- */

struct config *frontend_config(const struct frontend *f)
{
    return (struct config *)(uintptr_t)f->config;
}
struct loop *frontend_loop(const struct frontend *f)
{
    return f->loop;
}
struct bus *frontend_bus(const struct frontend *f)
{
    return f->bus;
}
struct image *frontend_image(const struct frontend *f)
{
    return f->image;
}
int32_t frontend_controller(const struct frontend *f)
{
    return service_controller(f->service);
}
const char *frontend_cluster_id(const struct frontend *f)
{
    return service_cluster_id(f->service);
}

const Karst__Bus__Caller *request_caller(struct request *r)
{
    struct running *q = running_of(r);
    Karst__Bus__Caller *c = &q->caller;

    if (q->has_caller)
        return c;
    karst__bus__caller__init(c);
    c->principal = (char *)(uintptr_t)r->client.principal;
    c->client_id = arena_str(r->arena, r->client_id);
    c->client_address = arena_str(r->arena, slice_str(r->client.address));
    c->listener = (char *)(uintptr_t)r->client.listener;
    c->connection_broker_id = r->client.broker_id;
    q->has_caller = true;
    return c;
}
