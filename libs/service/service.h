/* service.h - what the main() of every Karst service shares: arguments, configuration, loop, bus, signals, and the life
 * in the cluster: registration, heartbeats, and the image that follows the metadata log.
 *
 *   service_open   arguments `--config FILE --id N`, the config, the cluster id (meta.properties beside the
 * metadata log), loop, bus, signals service_join   connect to the controllers, register, heartbeat, follow the metadata
 * log (not for the controller, which has its own log) service_run    the loop, until the service has drained; gives the
 * exit status service_close
 *
 * A main() is: open, make the service's own state and bus_serve its kinds, join, run, free the state, close.
 *
 *   opened --service_join--> joining --registered and image at the registration--> ready --SIGTERM, SIGINT--> draining
 * --service_drained--> stopped
 *
 * A second SIGTERM or SIGINT ends the process at once, and so does a drain longer than drain_ms. A supervisor that puts
 * its process id into KARST_PARENT_PID gets PR_SET_PDEATHSIG: the service drains when the supervisor dies, however it
 * dies.
 *
 * Threading: the loop's thread only. */
#ifndef KARST_SERVICE_SERVICE_H
#define KARST_SERVICE_SERVICE_H

#include "libs/bus/bus.h"

struct service;
struct trust;  /* libs/bus/trust.h */
struct config; /* libs/config/config.h */
struct image;  /* libs/metadata/image.h */

struct service_options {
    Karst__Bus__Role role;
    void *ctx;         /* the first argument of each callback; may be set later with service_set_ctx */
    uint32_t drain_ms; /* how long a drain may take; 0: 10 s */

    /* Every callback may be NULL. */

    /* Before each RegisterRequest leaves. Role, id, incarnation, host, rack, the bus endpoint and version are filled
     * in; the service adds listeners, log_dirs, previous_broker_epoch. What it points to must live until the next call
     * of on_register. */
    void (*on_register)(void *ctx, Karst__Bus__RegisterRequest *request);
    /* Before each HeartbeatRequest leaves: the service may add offline_log_dirs. */
    void (*on_heartbeat)(void *ctx, Karst__Bus__HeartbeatRequest *request);
    /* The controller has taken the one that left last. */
    void (*on_heartbeat_taken)(void *ctx);
    /* The controller had ended our session, and others did our work since; we register again. */
    void (*on_session_lost)(void *ctx);
    /* After each change of the image, in its order; before the waiters of service_wait_offset. old_image is NULL at
     * first. Both live until it returns; to keep one, take a count of it. */
    void (*on_image)(void *ctx, const struct image *old_image, const struct image *new_image);
    /* Once: registered, and the image holds the registration. The service is known to all others from here on. */
    void (*on_ready)(void *ctx);
    /* Once: take no new work, finish what is there, then call service_drained. NULL: nothing to finish. */
    void (*on_drain)(void *ctx);
};

/* Reads arguments and configuration and opens loop and bus, listening on ipc://RUN_DIR/ROLE-ID. 0 with *ret_service, or
 * the exit status for main() after a message on stderr (64 usage, 78 configuration, 1 anything else). */
NODISCARD int service_open(int argc, char **argv, const struct service_options *options, struct service **ret_service);
void service_set_ctx(struct service *s, void *ctx);
void service_join(struct service *s);
NODISCARD int service_run(struct service *s);
struct service *service_close(struct service *s); /* takes NULL; returns NULL */

/* The service has nothing left to finish: the process says goodbye on its links and service_run returns 0. */
void service_drained(struct service *s);
/* The service cannot go on (message already logged): service_run returns status after a drain. */
void service_fail(struct service *s, int status);

struct loop *service_loop(struct service *s);
struct bus *service_bus(struct service *s);
const struct config *service_config(const struct service *s);
const char *service_cluster_id(const struct service *s); /* 22 characters */
const char *service_run_dir(const struct service *s);    /* karst.run.dir */
const char *service_role_name(int32_t role);             /* "storage"; "none" for what is no role */
int32_t service_id(const struct service *s);
uint64_t service_incarnation(const struct service *s);
int64_t
service_epoch(const struct service *s); /* of the registration (storage: the broker epoch); -1: not registered */
/* There is something to tell: the next heartbeat leaves now, or when the one under way has been answered. */
void service_heartbeat_soon(struct service *s);
bool service_is_ready(const struct service *s);
bool service_is_draining(const struct service *s);

/* The controller to ask: the one that last answered as leader, or the first configured. */
int32_t service_controller(const struct service *s);
/* The ids of all that karst.controllers names; the count. */
enum { SERVICE_CONTROLLERS_MAX = 16 };
size_t service_controllers(const struct service *s, int32_t ret_ids[SERVICE_CONTROLLERS_MAX]);
/* A reply said NOT_CONTROLLER, or a call to it failed: the next one is asked, as long as none has been found that
 * leads. Following the log finds it, and notices when it is gone. */
void service_controller_failed(struct service *s, int32_t id);

/* The newest image; NULL before the first. Valid until the next turn; to keep it, take a count of it. */
struct image *service_image(const struct service *s);
/* Whether the image is that of now, as far as can be told: the leading controller said less than 1.5 s ago that it has
 * nothing newer. One who is cut off may know others for leaders long after those have been replaced, which takes at
 * least karst.session.silence.ms, 2 s. */
bool service_is_current(const struct service *s);
/* The offset that the image has reached: that of its last record. -1 before the first image. */
int64_t service_metadata_offset(const struct service *s);

/* Runs fn once the image has reached offset: before this returns if it has already (then 0 is returned), else after the
 * on_image that reaches it. Returns an id for service_wait_cancel. Waiters that are still there at service_close never
 * run. */
uint64_t service_wait_offset(struct service *s, int64_t offset, loop_fn *fn, void *ctx);
void service_wait_cancel(struct service *s, uint64_t wait_id); /* 0 and ids that have run are ignored */

/* For the controller, whose image comes from its own log: what following does with a new image (peers, metadata offset
 * of the bus, on_image, waiters). Takes a count of its own. */
void service_publish_image(struct service *s, struct image *image);

enum { SERVICE_PORTS_A_NODE = 16 }; /* from that of karst.bus.listen on: of the processes of one node */

/* The keys of the bus over tcp, as karst.bus.key.file and karst.bus.hosts.file name them: 0 with *ret_trust, which the
 * caller frees; NULL: there is no tcp, or it is karst.bus.unencrypted. Else -errno with *ret_error (the caller frees):
 * the keys contradict each other, or a file is wrong. */
NODISCARD int service_open_trust(const struct config *c, struct trust **ret_trust, char **ret_error);

#endif
