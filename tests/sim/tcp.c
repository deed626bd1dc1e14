/* tcp.c - see tcp.h. A server's end is a number from FD_FIRST on, so that it is no descriptor of this program. */
#include "tests/sim/tcp.h"

#include "libs/loop/listen.h"
#include "tests/sim/disk.h"
#include "tests/sim/kernel.h"
#include "tests/sim/poll.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <utlist.h>

enum { FD_FIRST = 1 << 20, FD_END = 1 << 24, WINDOW_BYTES = 64 << 10 };

/* The server's end, or a listener. */
struct sock {
    int fd;
    struct process *process;
    uint16_t port; /* of a listener */
    bool listening;
    struct tcp_client *accepting[64]; /* connections that wait for accept */
    size_t accepting_count;
    struct tcp_client *client; /* NULL: gone */
    struct buf in;
    bool ended; /* the client closed: behind in comes the end */
    struct sock *prev, *next;
};

struct tcp_client {
    struct tcp *tcp;
    struct sock *server; /* NULL: gone, or not yet accepted */
    uint64_t life;       /* process_life of whom it connected to */
    tcp_bytes_fn *on_bytes;
    sim_fn *on_closed;
    void *ctx;
    uint64_t to_server_ms, to_client_ms; /* nothing arrives before: bytes keep their order */
    size_t flying;                       /* bytes under way to the client */
    struct buf waiting;                  /* written before it was accepted */
    bool closed;                         /* by the model client */
    size_t events;                       /* that name it */
    struct tcp_client *prev, *next;
};

struct chunk {
    struct tcp_client *client;
    struct buf bytes;
    bool to_server, is_end;
    uint64_t event;
    struct chunk *prev, *next;
};

struct tcp {
    struct machine *machine;
    struct sim *sim;
    uint64_t breaks;
    struct sock *socks;
    struct tcp_client *clients;
    struct chunk *chunks;
    int next_fd;
};

static struct tcp *the_tcp; /* socket calls have no room for it */

int sim_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int sim_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags);
int sim_getsockname(int fd, struct sockaddr *address, socklen_t *size);
ssize_t sim_readv(int fd, const struct iovec *iov, int count);
ssize_t sim_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t sim_sendfile(int to, int from, off_t *at, size_t size);

struct tcp *tcp_new(struct machine *m, uint64_t breaks)
{
    struct tcp *t = xcalloc(1, sizeof *t);
    *t = (struct tcp){.machine = m, .sim = machine_sim(m), .breaks = breaks, .next_fd = FD_FIRST};
    the_tcp = t;
    return t;
}

void tcp_heal(struct tcp *t)
{
    t->breaks = 0;
}

static struct sock *sock_of(int fd)
{
    struct sock *s;
    DL_FOREACH (the_tcp->socks, s)
        if (s->fd == fd)
            return s;
    BUG("a socket call on something else");
}

/* ---- polls (poll.c) ---- */

static int ready(const struct sock *s)
{
    if (s->listening)
        return s->accepting_count ? LOOP_READABLE : 0;
    int events = s->in.size || s->ended || s->client == NULL ? LOOP_READABLE : 0;
    if (s->client == NULL || s->client->flying < WINDOW_BYTES)
        events |= LOOP_WRITABLE;
    return events;
}

int tcp_ready(int fd)
{
    return ready(sock_of(fd));
}

static void poke(struct sock *s, uint64_t delay_ms)
{
    poll_poke(s->fd, delay_ms);
}

/* ---- bytes under way ---- */

static void free_if_over(struct tcp_client *c)
{
    if (!c->closed || c->server || c->events)
        return;
    DL_DELETE(c->tcp->clients, c);
    buf_free(&c->waiting);
    free(c);
}

static void drop_chunk(struct tcp *t, struct chunk *k)
{
    sim_cancel(t->sim, k->event);
    DL_DELETE(t->chunks, k);
    k->client->events--;
    if (!k->to_server)
        k->client->flying -= k->bytes.size;
    buf_free(&k->bytes);
    free(k);
}

static void client_hears(struct tcp_client *c, const struct chunk *k)
{
    if (k->is_end)
        c->closed = true;
    if (k->is_end)
        c->on_closed(c->ctx);
    else
        c->on_bytes(c->ctx, buf_slice(&k->bytes));
}

static void arrive(void *ctx)
{
    struct chunk *k = ctx, kept = *k;
    struct tcp_client *c = k->client;
    DL_DELETE(c->tcp->chunks, k);
    free(k);
    struct sock *s = c->server;
    if (kept.to_server && s) {
        buf_append(&s->in, kept.bytes.data, kept.bytes.size);
        s->ended = s->ended || kept.is_end;
        poke(s, 0);
    } else if (!kept.to_server) {
        c->flying -= kept.bytes.size;
        if (!c->closed)
            client_hears(c, &kept);
        if (c->server)
            poke(c->server, 0);
    }
    buf_free(&kept.bytes);
    c->events--;
    free_if_over(c);
}

static void push(struct tcp_client *c, bool to_server, struct slice bytes, bool is_end)
{
    struct tcp *t = c->tcp;
    uint64_t *not_before = to_server ? &c->to_server_ms : &c->to_client_ms, now = sim_now_ms(t->sim);
    struct chunk *k = xcalloc(1, sizeof *k);
    *k = (struct chunk){.client = c, .to_server = to_server, .is_end = is_end};
    buf_append(&k->bytes, bytes.data, bytes.size);
    *not_before = MAX(*not_before, now + sim_below(t->sim, 3));
    k->event = sim_at(t->sim, *not_before - now, arrive, k);
    c->events++;
    if (!to_server)
        c->flying += bytes.size;
    DL_APPEND(t->chunks, k);
}

static void push_split(struct tcp_client *c, bool to_server, struct slice bytes)
{
    while (bytes.size) {
        size_t n = sim_chance(c->tcp->sim, 100) ? 1 + (size_t)sim_below(c->tcp->sim, bytes.size) : bytes.size;
        push(c, to_server, slice_make(bytes.data, n), false);
        bytes = slice_make(bytes.data + n, bytes.size - n);
    }
}

/* The connection is over for the client: a prefix of what is under way still comes. */
static void cut(struct tcp_client *c)
{
    struct chunk *k, *next;
    size_t kept = (size_t)sim_below(c->tcp->sim, 4);
    DL_FOREACH_SAFE(c->tcp->chunks, k, next)
    {
        if (k->client != c)
            continue;
        if (!k->to_server && kept > 0)
            kept--;
        else
            drop_chunk(c->tcp, k);
    }
    if (c->server) {
        c->server->client = NULL;
        poke(c->server, 0);
    }
    c->server = NULL;
    if (!c->closed)
        push(c, false, SLICE_EMPTY, true);
    free_if_over(c);
}

static void maybe_break(struct tcp_client *c)
{
    if (!sim_chance(c->tcp->sim, c->tcp->breaks))
        return;
    sim_fault("a client's connection broke");
    cut(c);
}

/* ---- the server's calls ---- */

static struct sock *sock_new(struct tcp *t)
{
    struct sock *s = xcalloc(1, sizeof *s);
    s->fd = t->next_fd++;
    s->process = NULL;
    DL_APPEND(t->socks, s);
    return s;
}

static void sock_free(struct tcp *t, struct sock *s)
{
    for (size_t i = 0; i < s->accepting_count; i++)
        cut(s->accepting[i]);
    if (s->client)
        cut(s->client);
    poll_forget(s->fd);
    DL_DELETE(t->socks, s);
    buf_free(&s->in);
    free(s);
}

/* libs/loop/listen.h */
int listen_tcp(const char *host, uint16_t port, int backlog)
{
    (void)host, (void)backlog;
    struct process *p = process_enter(NULL);
    struct sock *s = sock_new(the_tcp);
    s->process = p;
    s->port = port;
    s->listening = true;
    process_leave(p);
    return s->fd;
}

int sim_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    (void)fd, (void)level, (void)name, (void)value, (void)size;
    return 0;
}

int sim_getsockname(int fd, struct sockaddr *address, socklen_t *size)
{
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)address;
    *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(sock_of(fd)->port)};
    *size = sizeof *in;
    return 0;
}

int sim_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags)
{
    (void)flags;
    struct sock *l = sock_of(fd);
    if (l->accepting_count == 0) {
        errno = EAGAIN;
        return -1;
    }
    struct process *p = process_enter(NULL);
    struct sock *s = sock_new(the_tcp);
    struct tcp_client *c = l->accepting[0];
    memmove(l->accepting, l->accepting + 1, --l->accepting_count * sizeof *l->accepting);
    s->process = p;
    s->client = c;
    c->server = s;
    struct buf waiting = c->waiting;
    c->waiting = (struct buf){0};
    push_split(c, true, buf_slice(&waiting));
    buf_free(&waiting);
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)peer;
    *in = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *size = sizeof *in;
    process_leave(p);
    return s->fd;
}

ssize_t sim_readv(int fd, const struct iovec *iov, int count)
{
    struct sock *s = sock_of(fd);
    size_t done = 0;
    if (s->in.size == 0) {
        errno = s->client == NULL ? ECONNRESET : EAGAIN;
        return s->ended ? 0 : -1;
    }
    for (int i = 0; i < count && done < s->in.size; i++) {
        size_t n = MIN(iov[i].iov_len, s->in.size - done);
        memcpy(iov[i].iov_base, s->in.data + done, n);
        done += n;
    }
    buf_consume(&s->in, done);
    return (ssize_t)done;
}

ssize_t sim_sendmsg(int fd, const struct msghdr *message, int flags)
{
    (void)flags;
    struct sock *s = sock_of(fd);
    size_t sent = 0;
    if (!process_acts(s->process))
        return (ssize_t)message->msg_iov[0].iov_len;
    if (s->client == NULL) {
        errno = EPIPE;
        return -1;
    }
    struct process *p = process_enter(NULL);
    struct tcp_client *c = s->client;
    size_t room = c->flying < WINDOW_BYTES ? WINDOW_BYTES - c->flying : 0;
    for (size_t i = 0; i < message->msg_iovlen && room > 0; i++) {
        size_t n = MIN(message->msg_iov[i].iov_len, room);
        push_split(c, false, slice_make(message->msg_iov[i].iov_base, n));
        sent += n;
        room -= n;
    }
    maybe_break(c);
    process_leave(p);
    if (sent > 0)
        return (ssize_t)sent;
    errno = EAGAIN;
    return -1;
}

/* The file as it is now. */
ssize_t sim_sendfile(int to, int from, off_t *at, size_t size)
{
    enum { PIECE = 32 << 10 };
    struct sock *s = sock_of(to);
    if (!process_acts(s->process))
        return (ssize_t)size;
    if (s->client == NULL) {
        errno = EPIPE;
        return -1;
    }
    size_t room = s->client->flying < WINDOW_BYTES ? WINDOW_BYTES - s->client->flying : 0;
    if (room == 0) {
        errno = EAGAIN;
        return -1;
    }
    struct process *p = process_enter(NULL);
    uint8_t bytes[PIECE];
    size_t most = MIN(size, room);
    ssize_t n = disk_read_passed(from, bytes, MIN(most, sizeof bytes), (uint64_t)*at);
    if (n > 0) {
        sim_cover("bytes of a passed file were sent to a client");
        *at += n;
        push_split(s->client, false, slice_make(bytes, (size_t)n));
        maybe_break(s->client);
    }
    process_leave(p);
    if (n >= 0)
        return n;
    errno = (int)-n;
    return -1;
}

bool tcp_is_fd(int fd)
{
    return fd >= FD_FIRST && fd < FD_END;
}

int tcp_close_fd(int fd)
{
    struct process *p = process_enter(NULL);
    sock_free(the_tcp, sock_of(fd));
    process_leave(p);
    return 0;
}

void tcp_forget(struct tcp *t, struct process *p)
{
    struct sock *s, *next;
    DL_FOREACH_SAFE(t->socks, s, next)
    {
        if (s->process == p)
            sock_free(t, s);
    }
}

/* ---- clients ---- */

struct tcp_client *tcp_connect(struct tcp *t, uint16_t port, tcp_bytes_fn *on_bytes, sim_fn *on_closed, void *ctx)
{
    struct sock *l;
    DL_FOREACH (t->socks, l)
        if (l->listening && l->port == port && !process_is_ghost(l->process))
            break;
    if (l == NULL || l->accepting_count == COUNTOF(l->accepting))
        return NULL;
    struct tcp_client *c = xcalloc(1, sizeof *c);
    *c = (struct tcp_client){
        .tcp = t, .life = process_life(l->process), .on_bytes = on_bytes, .on_closed = on_closed, .ctx = ctx};
    DL_APPEND(t->clients, c);
    l->accepting[l->accepting_count++] = c;
    poke(l, 0);
    return c;
}

uint64_t tcp_life(const struct tcp_client *c)
{
    return c->life;
}

static bool is_accepting(const struct tcp_client *c)
{
    struct sock *l;
    DL_FOREACH (c->tcp->socks, l)
        for (size_t i = 0; i < l->accepting_count; i++)
            if (l->accepting[i] == c)
                return true;
    return false;
}

void tcp_write(struct tcp_client *c, struct slice bytes)
{
    if (c->server == NULL) {
        if (is_accepting(c))
            buf_append(&c->waiting, bytes.data, bytes.size);
        return;
    }
    push_split(c, true, bytes);
    maybe_break(c);
}

struct tcp_client *tcp_close(struct tcp_client *c)
{
    struct sock *l;
    if (c == NULL)
        return NULL;
    c->closed = true;
    DL_FOREACH (c->tcp->socks, l)
        for (size_t i = 0; i < l->accepting_count; i++)
            if (l->accepting[i] == c)
                memmove(l->accepting + i, l->accepting + i + 1, (--l->accepting_count - i) * sizeof *l->accepting);
    if (c->server)
        cut(c);
    else
        free_if_over(c);
    return NULL;
}

struct tcp *tcp_free(struct tcp *t)
{
    while (t->socks)
        sock_free(t, t->socks);
    while (t->chunks)
        drop_chunk(t, t->chunks);
    while (t->clients) {
        struct tcp_client *c = t->clients;
        DL_DELETE(t->clients, c);
        buf_free(&c->waiting);
        free(c);
    }
    free(t);
    the_tcp = NULL;
    return NULL;
}
