/* server.h - the front end's own state, shared by its files: main.c (life), listener.c (accepting), connection.c
 * (sockets), request.c (requests), forward.c (asking others), addresses.c, auto_create.c and the handlers of the hot
 * path. Other handlers need frontend.h alone. */
#ifndef KARST_FRONTEND_SERVER_H
#define KARST_FRONTEND_SERVER_H

#include "libs/config/config.h"
#include "libs/metadata/image.h"
#include "libs/pipeline/pipeline.h"
#include "libs/pipeline/session.h"
#include "libs/service/service.h"
#include "libs/shm/shm_arena.h"
#include "services/frontend/frontend.h"

#include <netinet/in.h>

enum {
    HOLD_MS = 5000,                /* requests wait so long at the start for a first image with a live broker */
    DECODE_LIMIT_BYTES = 16 << 20, /* of the structs of one request; answers may have several times that */
    SLOTS_GROWTH = 64
};

struct listener {
    struct frontend *frontend;
    const char *name;      /* PLAINTEXT */
    const char *host;      /* of `listeners`, as written */
    uint16_t port;         /* the real one, also when the configured one is 0 */
    int32_t broker_id;     /* that it stands for; -1: a listener of the configuration, the bootstrap port */
    int32_t controller_id; /* a controller listener: that it stands for; -1: it is none */
    const char *advertised_host;
    uint16_t advertised_port;
    int fd;
    struct loop_poll *poll;
};

struct connection {
    struct frontend *frontend;
    uint64_t id; /* in the pipeline */
    int fd;
    int events;   /* what poll watches */
    bool blocked; /* the socket took less than there was */
    struct loop_poll *poll;
    const struct listener *listener;
    char address[INET6_ADDRSTRLEN];
};

/* What a request keeps alive until its end. */
struct kept {
    struct ref ref;
    struct kept *next;
};

struct running {
    struct request r;              /* first */
    uint64_t id;                   /* in the pipeline */
    struct connection *connection; /* NULL: gone */
    const struct listener *listener;
    struct ref_owner *frame_owner; /* of the frame; borrowed from the pipeline */
    struct arena *decode_arena;
    void (*on_gone)(struct request *r, void *ctx);
    void *on_gone_ctx;
    bool is_gone;
    uint32_t calls; /* of request_call, in flight */
    Karst__Bus__Caller caller;
    bool has_caller;
    struct kept *kept;
    struct running *prev, *next; /* in held, or (next) in the free list */
};

struct by_slot {
    void **items;
    uint32_t size;
};

struct creation; /* auto_create.c */
struct fetch;    /* fetch.h */

struct frontend {
    struct service *service;
    struct loop *loop;
    struct bus *bus;
    const struct config *config;
    struct arena *arena;   /* lives as long as the process: listeners, names */
    struct shm_arena *shm; /* where clients' bytes are read to, for storage to see; NULL: none */
    struct loop_timer *trim_timer;
    struct pipeline *pipeline;
    struct session_cache *sessions;
    struct image *image;         /* a count of it; image_empty before the first */
    uint64_t leaders_number;     /* another with each image whose topics differ */
    struct listener **listeners; /* clients' of the configuration first, then those of controllers and broker ids */
    size_t listener_count, bootstrap_count;
    bool has_broker_ports; /* each broker has a port of its own, also while only one is registered yet */
    bool brokers_changed, leaders_changed; /* in the image that is being taken */
    struct broker_place {
        int32_t id, frontend;
        uint64_t moved_ms; /* there since; 0: since we know of it */
    } * places;            /* addresses.c: where clients find each broker */
    size_t place_count;
    struct loop_timer *listen_timer;
    struct by_slot connections, requests; /* by the low half of their pipeline ids */
    struct running *free_running;
    struct buf scratch; /* for encoding; empty between uses */
    uint32_t free_running_count;
    struct running *held; /* waiting for the first usable image */
    bool is_open;         /* requests are no longer held */
    bool is_draining, is_drained;
    bool accept_paused;
    struct loop_timer *hold_timer, *tick_timer, *accept_timer;
    uint64_t tick_at_ms;
    struct fetch *parked;    /* api_fetch.c: all that are not answered */
    struct fetch *reserving; /* of these, those whose max_bytes count in fetch_reserved_bytes; the oldest first */
    uint64_t fetch_reserved_bytes;
    struct creation *creations;
    uint32_t creation_count;
    struct ip_limit {
        uint8_t ip[PIPELINE_IP_BYTES];
        int32_t limit;
    } * ip_limits;
    size_t ip_limit_count;
    int32_t fetch_max_bytes;
    bool rack_aware;                                 /* replica.selector.class: consumers read in their rack */
    int32_t send_buffer_bytes, receive_buffer_bytes; /* -1: the kernel's choice */
};

/* ---- by_slot.c ---- */

void by_slot_set(struct by_slot *s, uint64_t id, void *item);
void *by_slot_get(const struct by_slot *s, uint64_t id);

/* ---- listener.c ---- */

/* Reads the listener keys and binds them all. 0, or the exit status after a message. */
NODISCARD int listeners_open(struct frontend *f);
/* With several brokers each has a port of its own, its id above the bootstrap port: those that are missing are opened,
 * and tried again when somebody else has one. */
void listeners_follow(struct frontend *f);
/* Accepting starts, or goes on after a connection has ended. */
void listeners_resume(struct frontend *f);
void listeners_close(struct frontend *f);

/* ---- addresses.c ---- */

/* With each image whose services or brokers differ: notes which brokers are at another front end now. */
void addresses_follow(struct frontend *f);

/* The advertised port of a broker at a front end, whose bootstrap port is given. */
uint16_t listeners_broker_port(uint16_t bootstrap, int32_t broker_id);
/* The broker that requests of the listener are for; -1: none in particular. */
int32_t listener_broker(const struct frontend *f, const struct listener *l, const struct image *image);

/* ---- connection.c ---- */

void connection_open(struct frontend *f, const struct listener *l, int fd, const struct sockaddr_in6 *peer);
/* Carries out what the pipeline wants of all connections: writes, watches, closes. */
void connections_serve(struct frontend *f);
/* All of them, with what their requests wait for. */
void connections_close(struct frontend *f);

/* ---- request.c ---- */

/* Runs what may run; a cap per turn. */
void requests_serve(struct frontend *f);
/* Requests are no longer held back. */
void requests_open(struct frontend *f);
void requests_report_gone(struct frontend *f);
/* Keeps a count of ref until r ends. */
void request_keep(struct request *r, const struct ref *ref);
static inline struct running *running_of(struct request *r)
{
    return CONTAINER_OF(r, struct running, r);
}
void requests_free(struct frontend *f);

/* ---- shared.c ---- */

/* Before the first call on the bus. f->shm stays NULL where karst.bus.shared is false or there is none to have. */
void shared_open(struct frontend *f);
void shared_close(struct frontend *f); /* after the bus */
/* pipeline_options.alloc; ctx is the front end, which has f->shm. */
bool shared_alloc(void *ctx, size_t size, struct pipeline_buffer *ret_buffer);
/* At the end of a turn: memory that is not used any more goes back to the system some seconds later. While nobody sends
 * anything there is no timer. */
void shared_serve(struct frontend *f);
/* A ref on bytes of the request's frame, for a payload. */
struct ref request_frame_ref(const struct request *r, struct slice bytes);

/* ---- api_fetch.c ---- */

/* Long polls end: their connections are closed, as Kafka does at its end. */
void fetch_drain(struct frontend *f);
/* Partitions have other leaders than before. */
void fetch_leaders_changed(struct frontend *f);
/* Requests take all the memory that they may: the largest of the long polls is answered now, unread partitions with
 * NOT_LEADER_OR_FOLLOWER, so that nobody keeps others waiting by asking for much and waiting long. */
void fetch_relieve(struct frontend *f);

void auto_create_free(struct frontend *f);

#endif
