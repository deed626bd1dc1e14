/* local_open.c - how local connections begin: the companion's address, connecting, the handshake. Nothing here waits: a
 * peer without a companion costs one connect(2), one that does not answer is given up by the core. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#include "libs/base/log.h"
#include "libs/bus/local.h"
#include "libs/bus/passing.h"

enum { ACCEPT_TURN = 16, BACKLOG = 128, LOOK_MS = 250, HELLO_FDS = 3 };

/* ---- addresses ---- */

/* The companion's; false: not an ipc address, or too long. */
static bool companion_address(const char *address, struct sockaddr_un *ret_to)
{
    *ret_to = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strncmp(address, "ipc://", 6) != 0)
        return false;
    int n = snprintf(ret_to->sun_path, sizeof ret_to->sun_path, "%s.local", address + 6);
    return n > 0 && (size_t)n < sizeof ret_to->sun_path;
}

static int companion_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd < 0 ? -errno : fd;
}

/* 0; -ENOENT, -ECONNREFUSED and others: nobody takes connections there; -EAGAIN: somebody does, but not now. */
static int companion_connect(int fd, const struct sockaddr_un *to)
{
    return connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 ? 0 : -errno;
}

/* ---- listening ---- */

static void on_listener(void *ctx, int events)
{
    struct locals *ls = ctx;

    (void)events;
    ls->accept_due = true;
}

/* A socket file without a listener is what a killed process left. */
static int clear_path(const struct sockaddr_un *at)
{
    int fd = companion_socket();

    if (fd < 0)
        return fd;
    int alive = companion_connect(fd, at);
    close(fd);
    if (alive == 0 || alive == -EAGAIN)
        return -EADDRINUSE;
    return unlink(at->sun_path) == 0 || errno == ENOENT ? 0 : -errno;
}

static int listen_at(struct bus *b, const char *address)
{
    struct locals *ls = b->locals;
    struct sockaddr_un at;

    if (!companion_address(address, &at))
        return 0; /* tcp, or so long that ZeroMQ will refuse it as well */
    int failed = clear_path(&at);
    if (failed < 0)
        return failed;
    int fd = companion_socket();
    if (fd < 0)
        return fd;
    if (bind(fd, (const struct sockaddr *)&at, sizeof at) != 0 || listen(fd, BACKLOG) != 0) {
        failed = -errno;
        close(fd);
        return failed;
    }
    ls->listener = fd;
    ls->path = xstrdup(at.sun_path);
    ls->listener_poll = loop_poll_start(b->loop, fd, LOOP_READABLE, on_listener, ls);
    return 0;
}

int locals_new(struct bus *b, const char *address)
{
    struct locals *ls = xcalloc(1, sizeof *ls);

    ls->listener = -1;
    ls->arena_fd = -1;
    b->locals = ls;
    int failed = address ? listen_at(b, address) : 0;
    if (failed < 0)
        locals_free(b);
    return failed;
}

void locals_free(struct bus *b)
{
    struct locals *ls = b->locals;
    struct local *l;

    if (ls == NULL)
        return;
    DL_FOREACH (ls->all, l)
        local_close(l);
    locals_sweep(b);
    while (ls->all != NULL) { /* zombies: nobody is left to wait for */
        ls->all->state = LOCAL_CLOSED;
        locals_sweep(b);
    }
    loop_timer_stop(ls->timer);
    loop_poll_stop(ls->listener_poll);
    if (ls->listener >= 0) {
        unlink(ls->path);
        close(ls->listener);
    }
    free(ls->path);
    free(ls);
    b->locals = NULL;
}

/* ---- accepting ---- */

static void on_timer(void *ctx)
{
    struct bus *b = ctx;
    struct locals *ls = b->locals;
    struct local *l;

    DL_FOREACH (ls->all, l)
        if (l->state == LOCAL_ACCEPTED && loop_now_ms(b->loop) >= l->since_ms + LOCAL_HANDSHAKE_MS)
            local_close(l);
    if (ls->accept_pauses) {
        ls->accept_pauses = false;
        loop_poll_events(ls->listener_poll, LOOP_READABLE);
    }
    if (ls->half_open == 0)
        ls->timer = loop_timer_stop(ls->timer);
}

static void start_timer(struct bus *b)
{
    if (b->locals->timer == NULL)
        b->locals->timer = loop_timer_start(b->loop, LOOK_MS, LOOK_MS, on_timer, b);
}

static void accept_one(struct bus *b, int fd)
{
    struct locals *ls = b->locals;

    if (ls->half_open >= LOCAL_HALF_OPEN_MAX || ls->served >= LOCAL_SERVED_MAX || !passing_is_same_user(fd)) {
        close(fd);
        return;
    }
    struct local *l = local_new(b, fd);
    l->state = LOCAL_ACCEPTED;
    ls->half_open++;
    ls->served++;
    start_timer(b);
    local_read_hello(l); /* it is there already, mostly */
}

void locals_accept(struct bus *b)
{
    struct locals *ls = b->locals;

    if (!ls->accept_due)
        return;
    ls->accept_due = false;
    for (int i = 0; i < ACCEPT_TURN; i++) {
        int fd = accept4(ls->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            accept_one(b, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            loop_poll_events(ls->listener_poll, 0); /* it would stay readable, and turn us for nothing */
            ls->accept_pauses = true;
            start_timer(b);
            return;
        } else if (errno != ECONNABORTED && errno != EINTR) {
            return;
        }
    }
}

/* ---- the handshake, served end ---- */

static bool is_hello(const struct local_hello *h, ssize_t size, size_t fd_count)
{
    return size == (ssize_t)sizeof *h && memcmp(h->magic, LOCAL_MAGIC, sizeof h->magic) == 0 &&
           h->version == LOCAL_VERSION && h->lane < LINK_LANES && ring_is_capacity(h->to_served) &&
           ring_is_capacity(h->to_caller) && fd_count == HELLO_FDS + (h->arena_id != 0);
}

/* Takes over the descriptors. */
static int take_hello(struct local *l, const struct local_hello *h, const int *fds)
{
    int failed = 0;

    l->bell = fds[1];
    l->peer_bell = fds[2];
    if (!passing_is_eventfd(l->bell) || !passing_is_eventfd(l->peer_bell) || fcntl(l->bell, F_SETFL, O_NONBLOCK) != 0 ||
        fcntl(l->peer_bell, F_SETFL, O_NONBLOCK) != 0)
        failed = -EBADMSG;
    if (failed == 0)
        failed = local_map(l, fds[0], h, true);
    close(fds[0]);
    if (h->arena_id == 0)
        return failed;
    if (failed == 0)
        return local_view_new(l, fds[3], h);
    close(fds[3]);
    return failed;
}

void local_read_hello(struct local *l)
{
    struct locals *ls = l->bus->locals;
    struct local_hello h;
    struct local_note ok = {.kind = LOCAL_NOTE_OK, .version = LOCAL_VERSION};
    int fds[PASSING_FDS];
    size_t fd_count = 0;
    ssize_t n = passing_receive(l->companion, &h, sizeof h, fds, &fd_count);

    if (n == -EAGAIN)
        return;
    if (n > 0 && !is_hello(&h, n, fd_count)) {
        passing_close(fds, fd_count);
        n = -EBADMSG;
    }
    int failed = n == 0 ? -ECONNRESET : n < 0 ? (int)n : take_hello(l, &h, fds);
    if (failed == 0)
        failed = passing_send(l->companion, &ok, sizeof ok, NULL, 0);
    if (failed < 0) {
        if (failed != -ECONNRESET && failed != -EPIPE)
            log_warn("bus: a local connection is refused: %s", strerror(-failed));
        local_close(l);
        return;
    }
    ls->half_open--;
    l->state = LOCAL_OPEN;
    l->lane = (Karst__Bus__Lane)h.lane;
    l->in.payload_max = (uint64_t)l->bus->payload_max;
    local_name(l, link_conn_served(l->lane, ++ls->last_number) | LOCAL_CONN);
    local_watch(l);
}

/* ---- the handshake, caller ---- */

static int send_hello(struct local *l)
{
    const struct locals *ls = l->bus->locals;
    bool bulk = l->lane == KARST__BUS__LANE__LANE_BULK, with_arena = bulk && ls->arena_id != 0;
    struct local_hello h = {.magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .lane = (uint32_t)l->lane};

    h.to_served = h.to_caller = bulk ? LOCAL_RING_BULK : LOCAL_RING_OTHERS;
    l->shares = with_arena;
    h.arena_id = with_arena ? ls->arena_id : 0;
    h.arena_size = with_arena ? ls->arena_size : 0;
    int area = passing_memory_new("karst-bus", LOCAL_HEADER_BYTES + (size_t)h.to_served + h.to_caller);
    if (area < 0)
        return area;
    int failed = local_map(l, area, &h, false);
    if (failed == 0 && ((l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
                        (l->peer_bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0))
        failed = -errno;
    int fds[PASSING_FDS] = {area, l->peer_bell, l->bell, ls->arena_fd};
    if (failed == 0)
        failed = passing_send(l->companion, &h, sizeof h, fds, HELLO_FDS + (size_t)with_arena);
    close(area);
    return failed;
}

bool local_connect(struct bus *b, uint64_t conn, const char *address, Karst__Bus__Lane lane)
{
    struct sockaddr_un to;

    if (!companion_address(address, &to) || loop_now_ms(b->loop) < b->locals->share_again_ms)
        return false;
    int fd = companion_socket();
    if (fd < 0)
        return false;
    int failed = companion_connect(fd, &to);
    if (failed == 0 && !passing_is_same_user(fd))
        failed = -EPERM;
    if (failed < 0) {
        close(fd);
        if (failed == -EAGAIN) /* it lives, and has more callers than it can take: later */
            link_lost(b->core, conn);
        return failed == -EAGAIN;
    }
    struct local *l = local_new(b, fd);
    l->state = LOCAL_ASKED;
    l->lane = lane;
    l->address = xstrdup(address);
    l->in.payload_max = (uint64_t)b->payload_max;
    failed = send_hello(l);
    if (failed < 0) {
        log_warn("bus: no local connection to %s: %s", address, strerror(-failed));
        l->state = LOCAL_CLOSED;
        return false;
    }
    local_name(l, conn);
    return true;
}

/* The peer does not want this kind of connection: the same one over ZeroMQ. */
static void go_over_zmq(struct local *l)
{
    struct bus *b = l->bus;

    struct link_action to = {.conn = l->conn, .address = l->address, .lane = l->lane};

    bus_socket_connect(b, &to);
    l->state = LOCAL_CLOSED;
}

void local_read_answer(struct local *l)
{
    struct local_note note;
    int fds[PASSING_FDS];
    size_t fd_count = 0;
    ssize_t n = passing_receive(l->companion, &note, sizeof note, fds, &fd_count);

    if (n == -EAGAIN)
        return;
    if (n > 0)
        passing_close(fds, fd_count);
    if (n != (ssize_t)sizeof note || note.kind != LOCAL_NOTE_OK || note.version != LOCAL_VERSION || fd_count > 0) {
        go_over_zmq(l);
        return;
    }
    l->state = LOCAL_OPEN;
    local_watch(l);
    link_connected(l->bus->core, l->conn);
}
