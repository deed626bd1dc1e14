/* listen.h - a TCP port to accept on. Any thread. */
#ifndef KARST_LOOP_LISTEN_H
#define KARST_LOOP_LISTEN_H

#include "libs/base/base.h"

/* A non-blocking listening socket, closed on exec, or -errno (-EADDRNOTAVAIL also for a host that is not known). An
 * empty host is all addresses: IPv6 with IPv4 in it, or IPv4 alone where the kernel has no IPv6. port 0: one that is
 * free. */
NODISCARD int listen_tcp(const char *host, uint16_t port, int backlog);

#endif
