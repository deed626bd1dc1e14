/* kclient.c - see kclient.h. */
#include "tests/sim/kclient.h"

#include "kafka/request_header.h"
#include "kafka/response_header.h"
#include "libs/base/bytes.h"
#include "libs/wire/wire.h"

#include <stdlib.h>
#include <utlist.h>

struct waiting {
    const struct wire_api *api;
    int16_t version;
    int32_t correlation_id;
    kclient_fn *fn;
    void *ctx;
    struct waiting *next;
};

struct kclient {
    struct tcp *tcp;
    struct sim *sim;
    const char *client_id;
    struct tcp_client *connection;
    struct buf in;
    struct waiting *waiting;
    int32_t last_id;
    uint64_t timeout_event;
};

struct kclient *kclient_new(struct tcp *t, struct sim *s, const char *client_id)
{
    struct kclient *c = xcalloc(1, sizeof *c);
    *c = (struct kclient){.tcp = t, .sim = s, .client_id = client_id};
    return c;
}

/* Those who wait hear of the end; what they do then may open the next connection. */
static void end(struct kclient *c)
{
    struct waiting *waiting = TAKE_PTR(c->waiting);
    sim_cancel(c->sim, c->timeout_event);
    c->timeout_event = 0;
    c->in.size = 0;
    c->connection = tcp_close(c->connection);
    while (waiting) {
        struct waiting w = *waiting;
        free(waiting);
        waiting = w.next;
        w.fn(w.ctx, NULL);
    }
}

static void on_timeout(void *ctx)
{
    struct kclient *c = ctx;
    c->timeout_event = 0;
    sim_cover("a client gave up waiting");
    end(c);
}

static void arm(struct kclient *c)
{
    sim_cancel(c->sim, c->timeout_event);
    c->timeout_event = c->waiting ? sim_at(c->sim, KCLIENT_REQUEST_MS, on_timeout, c) : 0;
}

static void on_closed(void *ctx)
{
    struct kclient *c = ctx;
    end(c);
}

static void on_response(struct kclient *c, struct slice frame)
{
    struct waiting *w = c->waiting;
    struct kafka_response_header header;
    struct arena *arena = arena_new(0);
    size_t used;
    if (w == NULL)
        sim_fail(c->sim, "%s: a response to nothing", c->client_id);
    if (wire_decode(&kafka_response_header_type, wire_response_header_version(w->api, w->version), frame, arena,
                    &header, &used) ||
        header.correlation_id != w->correlation_id)
        sim_fail(c->sim, "%s: the response to %s has another id", c->client_id, w->api->name);
    void *body = arena_calloc(arena, 1, wire_struct_size(w->api->response));
    if (wire_decode(w->api->response, w->version, slice_make(frame.data + used, frame.size - used), arena, body, NULL))
        sim_fail(c->sim, "%s: the response to %s %d cannot be read", c->client_id, w->api->name, w->version);
    LL_DELETE(c->waiting, w);
    arm(c);
    w->fn(w->ctx, body);
    free(w);
    arena_free(arena);
}

static void on_bytes(void *ctx, struct slice bytes)
{
    struct kclient *c = ctx;
    buf_append(&c->in, bytes.data, bytes.size);
    while (c->connection && c->in.size >= 4 && c->in.size - 4 >= get_u32(c->in.data)) {
        size_t size = get_u32(c->in.data);
        struct buf frame = {0};
        buf_append(&frame, c->in.data + 4, size);
        buf_consume(&c->in, 4 + size);
        on_response(c, buf_slice(&frame));
        buf_free(&frame);
    }
}

bool kclient_connect(struct kclient *c, uint16_t port)
{
    if (c->connection == NULL)
        c->connection = tcp_connect(c->tcp, port, on_bytes, on_closed, c);
    return c->connection != NULL;
}

uint64_t kclient_life(const struct kclient *c)
{
    ASSERT(c->connection != NULL);
    return tcp_life(c->connection);
}

size_t kclient_waiting(const struct kclient *c)
{
    size_t n = 0;
    const struct waiting *w;
    LL_COUNT(c->waiting, w, n);
    return n;
}

void kclient_ask(struct kclient *c, int16_t api_key, int16_t version, const void *request, kclient_fn *fn, void *ctx)
{
    const struct wire_api *api = wire_api(api_key);
    struct buf out = {0};
    struct kafka_request_header header;
    struct waiting *w = xcalloc(1, sizeof *w);
    ASSERT(c->connection != NULL);
    *w = (struct waiting){.api = api, .version = version, .correlation_id = ++c->last_id, .fn = fn, .ctx = ctx};
    kafka_request_header_init(&header);
    header.request_api_key = api_key;
    header.request_api_version = version;
    header.correlation_id = w->correlation_id;
    header.client_id = slice_str(c->client_id);
    (void)buf_grow(&out, 4);
    if (wire_encode(&kafka_request_header_type, wire_request_header_version(api, version), &header, &out) ||
        wire_encode(api->request, version, request, &out))
        sim_fail(c->sim, "%s: a %s %d cannot be written", c->client_id, api->name, version);
    put_u32(out.data, (uint32_t)(out.size - 4));
    LL_APPEND(c->waiting, w);
    arm(c);
    tcp_write(c->connection, buf_slice(&out));
    buf_free(&out);
}

struct kclient *kclient_free(struct kclient *c)
{
    sim_cancel(c->sim, c->timeout_event);
    while (c->waiting) {
        struct waiting *w = c->waiting;
        LL_DELETE(c->waiting, w);
        free(w);
    }
    tcp_close(c->connection);
    buf_free(&c->in);
    free(c);
    return NULL;
}
