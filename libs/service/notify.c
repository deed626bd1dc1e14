/* notify.c - tells whoever started us that we serve, by systemd's protocol (sd_notify(3)): a datagram to
 * $NOTIFY_SOCKET. `karst up` listens there, and shows what the process speaks on the bus. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "libs/base/log.h"
#include "libs/bus/version.h"
#include "libs/service/service_internal.h"

void service_notify_ready(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = 1}; /* a supervisor that stands still holds nobody up */
    char text[64];

    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path)
        return;
    memcpy(to.sun_path, path, strlen(path));
    if (path[0] == '@') /* abstract, in systemd's way of writing it */
        to.sun_path[0] = 0;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    int n = snprintf(text, sizeof text, "READY=1\nX_KARST_BUS_VERSION=%u\n", bus_version_max());
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
        sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&to, size) < 0)
        log_warn("cannot tell %s that we serve: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}
