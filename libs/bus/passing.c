#include "libs/bus/passing.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { KERNEL_FDS_MAX = 253 }; /* SCM_MAX_FD: a message has no more */

int passing_send(int socket_fd, const void *bytes, size_t size, const int *fds, size_t fd_count)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(PASSING_FDS * sizeof(int))];
    } control = {0};
    union { /* sendmsg only reads */
        const void *in;
        void *out;
    } data = {.in = bytes};
    struct iovec piece = {data.out, size};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};

    ASSERT(fd_count <= PASSING_FDS);
    if (fd_count > 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    ssize_t n = sendmsg(socket_fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    return (size_t)n == size ? 0 : -EIO;
}

void passing_close(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

/* All descriptors of a message are ours as soon as recvmsg returns, wanted or not. */
static size_t take_fds(struct msghdr *m, int fds[PASSING_FDS])
{
    size_t count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++, count++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (count < PASSING_FDS)
                fds[count] = fd;
            else
                close(fd);
        }
    }
    return count;
}

ssize_t passing_receive(int socket_fd, void *bytes, size_t size, int fds[PASSING_FDS], size_t *ret_fd_count)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(KERNEL_FDS_MAX * sizeof(int))];
    } control;
    struct iovec piece = {bytes, size};
    struct msghdr m = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(socket_fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0)
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    size_t count = take_fds(&m, fds);
    int failed = (m.msg_flags & MSG_CTRUNC) ? -EMFILE : (m.msg_flags & MSG_TRUNC) || count > PASSING_FDS ? -EBADMSG : 0;
    if (failed < 0 || n == 0) {
        passing_close(fds, MIN(count, (size_t)PASSING_FDS));
        return failed;
    }
    *ret_fd_count = count;
    return n;
}

int passing_memory_new(const char *name, size_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return fd;
    int failed = -errno;
    close(fd);
    return failed;
}

bool passing_is_memory(int fd, size_t size)
{
    struct stat st;
    struct statfs fs;
    int seals = fcntl(fd, F_GET_SEALS); /* of nothing but memory of this kind */

    return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &st) == 0 && st.st_size >= 0 &&
           (uint64_t)st.st_size >= size && fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

bool passing_is_eventfd(int fd)
{
    static const char kind[] = "anon_inode:[eventfd]";
    char path[64], target[sizeof kind + 1];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof target);
    return n == (ssize_t)sizeof kind - 1 && memcmp(target, kind, sizeof kind - 1) == 0;
}

bool passing_is_same_user(int socket_fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;

    return getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}
