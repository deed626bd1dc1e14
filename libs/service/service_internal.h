/* service_internal.h - what the files of libs/service share: service.c (start, signals, end), follow.c (the image),
 * member.c (registration and heartbeats). */
#ifndef KARST_SERVICE_SERVICE_INTERNAL_H
#define KARST_SERVICE_SERVICE_INTERNAL_H

#include "libs/config/config.h"
#include "libs/metadata/image.h"
#include "libs/service/service.h"

struct waiter {
    uint64_t id;
    int64_t offset;
    loop_fn *fn;
    void *ctx;
    struct waiter *prev, *next;
};

struct service {
    struct service_options options;
    struct arena *arena; /* what lives as long as the service */
    struct config *config;
    struct loop *loop;
    struct bus *bus;
    int32_t id;
    uint64_t incarnation;
    char cluster_id[64];
    const char *run_dir, *address, *rack;
    char host[256];
    int exit_status;
    bool joined, draining, drained, stopping;
    bool silently; /* a storage node that stops without a word to the controller */
    bool leaving;  /* a storage node that works on until it may go; its drain begins then */
    struct loop_timer *drain_timer, *stop_timer, *leave_timer, *leave_again, *alive_timer;
    struct loop_timer *sync_timer; /* until it has told that it is in sync */
    int64_t looked_offset;         /* of the image that last did not say so; -1: none */

    struct trust *trust;     /* keys of the bus over tcp; NULL: none */
    bool networked;          /* peers on other hosts may be called over tcp */
    const char *tcp_listen;  /* NULL: no other host calls us */
    const char *tcp_address; /* that others reach it at */
    const char *place;       /* of our run folder: where our ipc addresses are of use */

    int32_t controllers[SERVICE_CONTROLLERS_MAX];
    const char *controller_addresses[SERVICE_CONTROLLERS_MAX];
    size_t controller_count, controller_at;
    bool controller_found; /* the one at controller_at has answered as the leader, and not failed since */
    int32_t told_epoch;    /* of the newest leader that told us so by itself; -1 */
    int32_t led_by;        /* the last that was found; -1: none */
    int32_t silent;        /* a controller that did not answer: what others say of it is of the past; -1: none */

    struct image *image;
    struct waiter *waiters;
    uint64_t last_waiter;
    uint64_t follow_call;
    int32_t follow_asked;
    struct loop_timer *follow_timer;

    bool registered, ready;
    int64_t epoch, registered_offset; /* that the image must reach for `ready` */
    int32_t reported_error;
    uint64_t register_call, heartbeat_call;
    bool heartbeat_wanted; /* sooner than by the timer */
    struct loop_timer *register_timer, *heartbeat_timer;
    uint64_t cpu_ms;            /* that the process had used at the last heartbeat */
    uint64_t trimmed_at_cpu_ms; /* when the heap was last trimmed */
};

/* network.c */
NODISCARD int service_network_open(struct service *s); /* 0, or the exit status after a message */
void service_network_close(struct service *s);
enum { SERVICE_ENDPOINTS_MAX = 3 };
size_t service_network_endpoints(const struct service *s, const char *ret_addresses[SERVICE_ENDPOINTS_MAX]);
/* Which of a peer's addresses we use; NULL: we can use none. */
const char *service_network_choose(const struct service *s, const struct image_service *peer);

void service_follow_start(struct service *s);
void service_follow_stop(struct service *s);
/* A controller says that it leads, in this epoch of the quorum. */
void service_follow_told(struct service *s, int32_t leader, int32_t epoch);

void service_member_leader_changed(struct service *s); /* the controllers have another leader than before */
void service_member_start(struct service *s);
void service_member_image_changed(struct service *s);
void service_member_drain(struct service *s); /* tells the controller that we are about to go */
bool service_member_is_told(const struct service *s);
void service_member_stop(struct service *s);

void service_notify_ready(struct service *s); /* whoever started us, if they want to know */

void service_stop_when_told(struct service *s);
void service_left(void *ctx); /* the service may go, or has waited long enough for that: drains */

#endif
