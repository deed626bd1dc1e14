/* probe.c - when may a client come? Metadata version 1 for no topic, until the answer names a broker.
 *
 *   connecting --refused--> pause --PAUSE_MS--> connecting
 *   connecting --connected--> asking --no broker yet, or closed--> pause
 *                             asking --a broker--> done */
#include <stdlib.h>

#include "libs/base/bytes.h"
#include "services/karst/supervisor.h"

enum { PAUSE_MS = 4, ANSWER_BYTES = 12 };

static const char request[] = "\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\0\0\0";

struct probe {
    uv_loop_t *loop;
    struct sockaddr_storage address;
    uv_timer_t timer;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    uint8_t answer[ANSWER_BYTES + 500];
    size_t size;
    bool tcp_open, stopped;
    probe_done_fn *done;
    void *ctx;
};

static void try_connect(uv_timer_t *timer);

static void free_when_closed(struct probe *p)
{
    if (p->stopped && !p->tcp_open)
        free(p);
}

static void on_tcp_closed(uv_handle_t *h)
{
    struct probe *p = h->data;
    p->tcp_open = false;
    if (!p->stopped)
        uv_timer_start(&p->timer, try_connect, PAUSE_MS, 0);
    else if (!uv_is_active((uv_handle_t *)&p->timer) && uv_is_closing((uv_handle_t *)&p->timer))
        free_when_closed(p);
}

static void again(struct probe *p)
{
    if (!uv_is_closing((uv_handle_t *)&p->tcp))
        uv_close((uv_handle_t *)&p->tcp, on_tcp_closed);
}

static void on_room(uv_handle_t *h, size_t suggested UNUSED, uv_buf_t *ret)
{
    struct probe *p = h->data;
    *ret = uv_buf_init((char *)p->answer + p->size, (unsigned)(sizeof(p->answer) - p->size));
}

/* size, correlation id, count of brokers */
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *b UNUSED)
{
    struct probe *p = stream->data;
    if (n > 0)
        p->size += (size_t)n;
    if (n >= 0 && p->size < ANSWER_BYTES)
        return;
    if (n < 0 || get_i32(p->answer + 8) <= 0) {
        again(p);
        return;
    }
    uv_read_stop(stream);
    p->done(p->ctx);
}

static void on_written(uv_write_t *w UNUSED, int status UNUSED) {} /* a failure ends the reading, too */

static void on_connected(uv_connect_t *connect, int status)
{
    struct probe *p = connect->data;
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)request, sizeof(request));
    if (status < 0 || uv_write(&p->write, (uv_stream_t *)&p->tcp, &b, 1, on_written) != 0 ||
        uv_read_start((uv_stream_t *)&p->tcp, on_room, on_read) != 0)
        again(p);
}

static void try_connect(uv_timer_t *timer)
{
    struct probe *p = timer->data;
    p->size = 0;
    p->tcp_open = true;
    uv_tcp_init(p->loop, &p->tcp);
    p->tcp.data = p->connect.data = p;
    if (uv_tcp_connect(&p->connect, &p->tcp, (const struct sockaddr *)&p->address, on_connected) != 0)
        again(p);
}

struct probe *probe_start(uv_loop_t *loop, const char *host, uint16_t port, probe_done_fn *done, void *ctx)
{
    uv_getaddrinfo_t lookup;
    char service[8];
    struct probe *p = xcalloc(1, sizeof(*p));
    p->loop = loop;
    p->done = done;
    p->ctx = ctx;
    uv_timer_init(loop, &p->timer);
    p->timer.data = p;
    snprintf(service, sizeof(service), "%u", port);
    if (uv_getaddrinfo(loop, &lookup, NULL, host, service, NULL) == 0 && lookup.addrinfo) {
        memcpy(&p->address, lookup.addrinfo->ai_addr, lookup.addrinfo->ai_addrlen);
        uv_freeaddrinfo(lookup.addrinfo);
    }
    try_connect(&p->timer);
    return p;
}

static void on_timer_closed(uv_handle_t *h)
{
    free_when_closed(h->data);
}

void probe_stop(struct probe *p)
{
    if (p == NULL)
        return;
    p->stopped = true;
    if (p->tcp_open)
        again(p);
    uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}
