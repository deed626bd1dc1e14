#include "libs/loop/listen.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static int bind_address(const struct addrinfo *a, int backlog)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, zero = 0;

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, backlog) == 0)
        return fd;
    int e = -errno;
    close(fd);
    return e;
}

static int bind_family(const char *host, const char *service, int family, int backlog)
{
    struct addrinfo *found,
        hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};

    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    int fd = bind_address(found, backlog);
    freeaddrinfo(found);
    return fd;
}

int listen_tcp(const char *host, uint16_t port, int backlog)
{
    char service[8];

    snprintf(service, sizeof service, "%u", port);
    if (*host)
        return bind_family(host, service, AF_UNSPEC, backlog);
    int fd = bind_family(NULL, service, AF_INET6, backlog);
    return fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL ? bind_family(NULL, service, AF_INET, backlog) : fd;
}
