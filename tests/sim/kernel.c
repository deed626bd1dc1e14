/* kernel.c - see kernel.h: descriptors, unix sockets, eventfds. */
#include "tests/sim/kernel_internal.h"

#include "libs/bus/passing.h"
#include "tests/sim/poll.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <utlist.h>

enum { QUEUE_MAX = 11, BACKLOG_MAX = 128 }; /* net.unix.max_dgram_qlen, as Linux counts it */

struct descriptor {
    int fd;
    struct process *process;
    struct kfile *file;
    struct descriptor *prev, *next; /* of the same file */
    UT_hash_handle hh;
};

struct message {
    struct buf bytes;
    struct kfile *files[PASSING_FDS];
    int disk_fds[PASSING_FDS]; /* of files[i] == NULL: one of the simulated disk's, made for the receiver */
    size_t fd_count;
    struct message *next;
};

/* A name of a socket in the file system; it stays when its listener is gone. */
struct name {
    char *path;
    struct kfile *listener; /* NULL: a dead one's */
    struct name *prev, *next;
};

static struct descriptor *descriptors;
static int next_fd = KERNEL_FD_FIRST;
static struct name *names;
static struct kernel_faults faults;

void kernel_set_faults(const struct kernel_faults *f)
{
    faults = *f;
}

bool kernel_is_fd(int fd)
{
    return fd >= KERNEL_FD_FIRST;
}

static struct sim *sim_of(struct process *p)
{
    return machine_sim(process_machine(p));
}

/* ---- descriptors ---- */

struct kfile *kernel_file_of(int fd)
{
    struct descriptor *d;
    HASH_FIND_INT(descriptors, &fd, d);
    return d ? d->file : NULL;
}

struct kfile *kernel_file_new(enum kfile_kind kind)
{
    struct kfile *f = xcalloc(1, sizeof *f);
    f->kind = kind;
    f->count = 1;
    return f;
}

/* Takes over a count of f. */
int kernel_open(struct process *p, struct kfile *f)
{
    struct descriptor *d = xcalloc(1, sizeof *d);
    *d = (struct descriptor){.fd = next_fd++, .process = p, .file = f};
    HASH_ADD_INT(descriptors, fd, d);
    DL_APPEND(f->descriptors, d);
    return d->fd;
}

/* Whoever polls f has news. */
static void tell(const struct kfile *f)
{
    const struct descriptor *d;
    DL_FOREACH (f->descriptors, d) {
        struct sim *s = sim_of(d->process);
        uint64_t delay = sim_below(s, 2);
        if (sim_chance(s, faults.late)) {
            sim_fault("news of a bell or a companion were late");
            delay = sim_below(s, 400);
        }
        poll_poke(d->fd, delay);
    }
}

static void drop_message(struct message *m)
{
    for (size_t i = 0; i < m->fd_count; i++) {
        if (m->files[i])
            kernel_file_release(m->files[i]);
        else
            (void)disk_close_fd(m->disk_fds[i]);
    }
    buf_free(&m->bytes);
    free(m);
}

static void close_socket(struct kfile *f)
{
    if (f->peer) {
        f->peer->ended = true;
        f->peer->reset |= f->queue != NULL;
        f->peer->peer = NULL;
        tell(f->peer);
    }
    while (f->queue) {
        struct message *m = f->queue;
        LL_DELETE(f->queue, m);
        drop_message(m);
    }
}

static void close_listener(struct kfile *f)
{
    struct name *n;
    DL_FOREACH (names, n)
        if (n->listener == f)
            n->listener = NULL;
    for (size_t i = 0; i < f->accepting_count; i++)
        kernel_file_release(f->accepting[i]);
    f->accepting_count = 0;
}

void kernel_file_release(struct kfile *f)
{
    if (--f->count > 0)
        return;
    if (f->kind == KFILE_SOCKET)
        close_socket(f);
    if (f->kind == KFILE_LISTENER)
        close_listener(f);
    if (f->kind == KFILE_MEMORY)
        kernel_memory_free(f);
    free(f);
}

static void close_descriptor(struct descriptor *d)
{
    struct kfile *f = d->file;
    poll_forget(d->fd);
    HASH_DEL(descriptors, d);
    DL_DELETE(f->descriptors, d);
    free(d);
    kernel_file_release(f);
}

void kernel_forget(const struct process *p)
{
    struct descriptor *d, *next;
    HASH_ITER (hh, descriptors, d, next)
        if (d->process == p)
            close_descriptor(d);
    kernel_memory_forget(p);
}

void kernel_free(void)
{
    ASSERT(descriptors == NULL);
    while (names) {
        struct name *n = names;
        DL_DELETE(names, n);
        free(n->path);
        free(n);
    }
    next_fd = KERNEL_FD_FIRST;
}

size_t kernel_descriptors(const struct process *p)
{
    struct descriptor *d, *next;
    size_t count = 0;
    HASH_ITER (hh, descriptors, d, next)
        count += d->process == p;
    return count;
}

/* ---- system calls ---- */

/* The caller of a system call; NULL when it is a ghost, or dies right before it. */
struct process *kernel_enter(struct process **ret_before)
{
    struct process *p = process_current();
    ASSERT(p != NULL);
    bool acts = process_acts(p);
    *ret_before = process_enter(NULL);
    return acts ? p : NULL;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_bind(int fd, const struct sockaddr *at, socklen_t size);
int __wrap_listen(int fd, int backlog);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t size);
int __wrap_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags);
int __wrap_shutdown(int fd, int how);
int __wrap_eventfd(unsigned count, int flags);
ssize_t __real_read(int fd, void *to, size_t size);
ssize_t __wrap_read(int fd, void *to, size_t size);
ssize_t __real_write(int fd, const void *from, size_t size);
ssize_t __wrap_write(int fd, const void *from, size_t size);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __real_fstat(int fd, struct stat *ret);
int __wrap_fstat(int fd, struct stat *ret);

int __wrap_close(int fd)
{
    if (fd >= DISK_FD_FIRST && fd < DISK_FD_END)
        return process_current() && process_is_ghost(process_current()) ? 0 : disk_close_fd(fd);
    if (tcp_is_fd(fd))
        return tcp_close_fd(fd);
    if (!kernel_is_fd(fd))
        return __real_close(fd);
    struct descriptor *d;
    HASH_FIND_INT(descriptors, &fd, d);
    if (d == NULL)
        BUG("a descriptor is closed that is not open");
    if (process_is_ghost(d->process))
        return 0;
    struct process *before = process_enter(NULL);
    close_descriptor(d);
    process_leave(before);
    return 0;
}

int __wrap_socket(int domain, int type, int protocol)
{
    (void)domain, (void)type, (void)protocol;
    struct process *p = process_current(), *before = process_enter(NULL);
    int fd = kernel_open(p, kernel_file_new(KFILE_SOCKET));
    process_leave(before);
    return fd;
}

static struct name *find_name(const char *path)
{
    struct name *n;
    DL_FOREACH (names, n)
        if (strcmp(n->path, path) == 0)
            return n;
    return NULL;
}

static const char *path_of(const struct sockaddr *at)
{
    return ((const struct sockaddr_un *)(const void *)at)->sun_path;
}

int __wrap_bind(int fd, const struct sockaddr *at, socklen_t size)
{
    (void)size;
    struct process *before, *p = kernel_enter(&before);
    int error = p && find_name(path_of(at)) ? EADDRINUSE : 0;
    if (p != NULL && error == 0) {
        struct name *n = xcalloc(1, sizeof *n);
        n->path = xstrdup(path_of(at));
        n->listener = kernel_file_of(fd);
        DL_APPEND(names, n);
    }
    process_leave(before);
    return error ? fail(error) : 0;
}

int __wrap_listen(int fd, int backlog)
{
    (void)backlog;
    kernel_file_of(fd)->kind = KFILE_LISTENER;
    return 0;
}

int __wrap_connect(int fd, const struct sockaddr *to, socklen_t size)
{
    (void)size;
    struct process *before, *p = kernel_enter(&before);
    struct name *n = find_name(path_of(to));
    struct kfile *l = n ? n->listener : NULL, *f = kernel_file_of(fd);
    int error = 0;
    if (n == NULL)
        error = ENOENT;
    else if (p == NULL || l == NULL || l->kind != KFILE_LISTENER || sim_chance(sim_of(p), faults.refuse))
        error = ECONNREFUSED;
    else if (l->accepting_count >= BACKLOG_MAX)
        error = EAGAIN;
    if (error == 0) {
        struct kfile *server = kernel_file_new(KFILE_SOCKET);
        server->peer = f;
        f->peer = server;
        l->accepting = xrealloc(l->accepting, (l->accepting_count + 1) * sizeof(struct kfile *));
        l->accepting[l->accepting_count++] = server;
        tell(l);
    }
    process_leave(before);
    return error ? fail(error) : 0;
}

int __wrap_accept4(int fd, struct sockaddr *peer, socklen_t *size, int flags)
{
    (void)peer, (void)size, (void)flags;
    struct process *before, *p = kernel_enter(&before);
    struct kfile *l = kernel_file_of(fd);
    int accepted = -1;
    if (p != NULL && l->accepting_count > 0) {
        accepted = kernel_open(p, l->accepting[0]);
        memmove(l->accepting, l->accepting + 1, --l->accepting_count * sizeof(struct kfile *));
    }
    process_leave(before);
    return accepted < 0 ? fail(EAGAIN) : accepted;
}

int __wrap_shutdown(int fd, int how)
{
    (void)how; /* SHUT_WR */
    struct process *before, *p = kernel_enter(&before);
    struct kfile *f = kernel_file_of(fd);
    if (p != NULL && f->peer) {
        f->peer->ended = true;
        f->shut = true;
        tell(f->peer);
    }
    process_leave(before);
    return 0;
}

int __wrap_unlink(const char *path)
{
    struct name *n = find_name(path);
    if (n == NULL)
        return __real_unlink(path);
    struct process *before, *p = kernel_enter(&before);
    if (p != NULL) {
        DL_DELETE(names, n);
        free(n->path);
        free(n);
    }
    process_leave(before);
    return 0;
}

/* What waits would wait for others, who do nothing meanwhile. */
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    (void)fds, (void)count, (void)timeout_ms;
    return 0;
}

int __wrap_fstat(int fd, struct stat *ret)
{
    if (fd < DISK_FD_FIRST)
        return __real_fstat(fd, ret);
    memset(ret, 0, sizeof *ret);
    ret->st_mode = S_IFREG;
    return 0;
}

/* ---- bells ---- */

int __wrap_eventfd(unsigned count, int flags)
{
    (void)count, (void)flags;
    struct process *p = process_current(), *before = process_enter(NULL);
    int fd = kernel_open(p, kernel_file_new(KFILE_EVENT));
    process_leave(before);
    return fd;
}

ssize_t __wrap_read(int fd, void *to, size_t size)
{
    if (!kernel_is_fd(fd))
        return __real_read(fd, to, size);
    struct kfile *f = kernel_file_of(fd);
    uint64_t times = f->times;
    if (times == 0 || process_is_ghost(process_current()))
        return fail(EAGAIN);
    memcpy(to, &times, sizeof times);
    f->times = 0;
    return sizeof times;
}

ssize_t __wrap_write(int fd, const void *from, size_t size)
{
    if (!kernel_is_fd(fd))
        return __real_write(fd, from, size);
    struct process *before, *p = kernel_enter(&before);
    struct kfile *f = kernel_file_of(fd);
    if (p != NULL) {
        f->times++;
        sim_cover("a bell was rung");
        tell(f);
    }
    process_leave(before);
    return (ssize_t)size;
}

int kernel_ready(int fd)
{
    const struct kfile *f = kernel_file_of(fd);
    bool is = f->kind == KFILE_SOCKET     ? f->queue || f->ended || f->reset
              : f->kind == KFILE_LISTENER ? f->accepting_count > 0
                                          : f->times > 0;
    return is ? LOOP_READABLE : 0;
}

/* ---- libs/bus/passing.h ---- */

static struct process *receiver_of(const struct kfile *f)
{
    return f->descriptors != NULL ? f->descriptors->process : NULL;
}

static void put_descriptor(struct message *m, const struct kfile *to, int fd)
{
    struct kfile *f = kernel_is_fd(fd) ? kernel_file_of(fd) : NULL;
    if (f != NULL)
        f->count++;
    else
        m->disk_fds[m->fd_count] = disk_pass(fd, receiver_of(to));
    m->files[m->fd_count++] = f;
}

static int send_message(struct process *p, struct kfile *f, const void *bytes, size_t size, const int *fds,
                        size_t fd_count)
{
    struct message *m, *other;
    size_t waiting = 0;
    if (f->peer == NULL || f->shut)
        return -EPIPE;
    LL_COUNT(f->peer->queue, other, waiting);
    if (waiting >= QUEUE_MAX || (fd_count > 0 && sim_chance(sim_of(p), faults.refuse))) {
        sim_fault("a companion had no room for a message");
        return -EAGAIN;
    }
    m = xcalloc(1, sizeof *m);
    buf_append(&m->bytes, bytes, size);
    for (size_t i = 0; i < fd_count; i++)
        put_descriptor(m, f->peer, fds[i]);
    if (fd_count > 0)
        sim_cover("descriptors were passed");
    LL_APPEND(f->peer->queue, m);
    tell(f->peer);
    return 0;
}

int passing_send(int socket_fd, const void *bytes, size_t size, const int *fds, size_t fd_count)
{
    struct process *before, *p = kernel_enter(&before);
    int failed = p ? send_message(p, kernel_file_of(socket_fd), bytes, size, fds, fd_count) : 0;
    process_leave(before);
    return failed;
}

static ssize_t receive_message(struct process *p, struct kfile *f, void *bytes, size_t size, int fds[PASSING_FDS],
                               size_t *ret_fd_count)
{
    struct message *m = f->queue;
    if (f->reset) {
        f->reset = false;
        return -ECONNRESET;
    }
    if (m == NULL)
        return f->ended ? 0 : -EAGAIN;
    LL_DELETE(f->queue, m);
    ssize_t n = m->bytes.size > size ? -EBADMSG : (ssize_t)m->bytes.size;
    if (n > 0) {
        memcpy(bytes, m->bytes.data, (size_t)n);
        for (size_t i = 0; i < m->fd_count; i++)
            fds[i] = m->files[i] ? kernel_open(p, m->files[i]) : m->disk_fds[i];
        *ret_fd_count = m->fd_count;
        m->fd_count = 0;
    }
    drop_message(m);
    return n;
}

ssize_t passing_receive(int socket_fd, void *bytes, size_t size, int fds[PASSING_FDS], size_t *ret_fd_count)
{
    struct process *before, *p = kernel_enter(&before);
    ssize_t n = p ? receive_message(p, kernel_file_of(socket_fd), bytes, size, fds, ret_fd_count) : -EAGAIN;
    process_leave(before);
    return n;
}

void passing_close(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        __wrap_close(fds[i]);
}

bool passing_is_eventfd(int fd)
{
    return kernel_is_fd(fd) && kernel_file_of(fd)->kind == KFILE_EVENT;
}

bool passing_is_same_user(int socket_fd)
{
    (void)socket_fd;
    return true;
}
