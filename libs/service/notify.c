/* notify.c - tells whoever started us how far we are, by systemd's protocol (sd_notify(3)): datagrams to
 * $NOTIFY_SOCKET. `karst up` listens there. READY: we serve. A storage node tells later, once, that it is in sync
 * wherever it has a replica: then the next one may go. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "libs/base/log.h"
#include "libs/bus/version.h"
#include "libs/service/service_internal.h"

enum { LOOK_MS = 100 };

static void notify(const char *path, const char *text)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = 1}; /* a supervisor that stands still holds nobody up */

    if ((path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path)
        return;
    memcpy(to.sun_path, path, strlen(path));
    if (path[0] == '@') /* abstract, in systemd's way of writing it */
        to.sun_path[0] = 0;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
        sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to, size) < 0)
        log_warn("cannot tell %s how far we are: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

struct look {
    const struct image *image;
    const struct image_broker *broker;
    bool behind;
};

/* What it has on a directory that failed waits for another disk, not for the node. */
static void look_at_topic(void *ctx, const struct image_topic *t)
{
    struct look *l = ctx;
    int32_t id = l->broker->id;

    for (int32_t i = 0; i < t->partition_count && !l->behind; i++) {
        const struct image_partition *p = image_partition(t, i);
        l->behind = image_lists(p->replicas, p->replica_count, id) && !image_lists(p->isr, p->isr_count, id) &&
                    image_dir_is_online(l->broker, image_replica_dir(p, id));
    }
}

/* In our own image, which is not older than our registration: what it says of us is of this life. */
static bool is_in_sync(const struct service *s)
{
    struct look l = {.image = s->image, .broker = image_broker(s->image, s->id)};

    if (l.broker == NULL || l.broker->fenced || l.broker->epoch != s->epoch)
        return false;
    image_each_topic(s->image, look_at_topic, &l);
    return !l.behind;
}

static void on_look(void *ctx)
{
    struct service *s = ctx;
    const char *path = getenv("NOTIFY_SOCKET");

    if (service_metadata_offset(s) == s->looked_offset)
        return;
    s->looked_offset = service_metadata_offset(s);
    if (!is_in_sync(s))
        return;
    s->sync_timer = loop_timer_stop(s->sync_timer);
    if (path != NULL)
        notify(path, "X_KARST_IN_SYNC=1\n");
}

void service_notify_ready(struct service *s)
{
    const char *path = getenv("NOTIFY_SOCKET");
    char text[64];

    if (path == NULL)
        return;
    snprintf(text, sizeof text, "READY=1\nX_KARST_BUS_VERSION=%u\n", bus_version_max());
    notify(path, text);
    if (s->options.role == KARST__BUS__ROLE__ROLE_STORAGE)
        s->sync_timer = loop_timer_start(s->loop, 1, LOOK_MS, on_look, s);
}
