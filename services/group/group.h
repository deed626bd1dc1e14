/* group.h - what the files of karst-group share: the adapter between the group core (libs/groups) and the bus.
 *
 *   main.c       the life of the process, its turn            request.c    clients' requests, and carrying out what the
 * core wants ownership.c  the image: partitions we own, deleted topics load.c       reading a partition into the core
 *   append.c     writing the core's records
 *
 * The core never runs inside itself: a step carries out its actions, which only stage calls and replies. What ends at
 * once (no leader to ask) is kept in `ended` and told to the core in the next turn. Threading: the loop's thread only.
 */
#ifndef KARST_SERVICES_GROUP_GROUP_H
#define KARST_SERVICES_GROUP_GROUP_H

#include <uthash.h>
#include <utlist.h>

#include "libs/config/config.h"
#include "libs/groups/groups.h"
#include "libs/metadata/image.h"
#include "libs/service/service.h"

enum {
    LOADS_MAX = 16, /* reads under way at once, of LOAD_READ_BYTES each */
    LOAD_READ_BYTES = 1 << 20,
    LOAD_RETRY_MS = 50,
    LOAD_BAD_RETRY_MS = 5000, /* after records that cannot be read */
    LOAD_WAIT_MS = 500,       /* how long a read that waits for the high watermark parks */
    LOAD_TIMEOUT_MS = 5000,
    DECOMPRESS_MAX = 128 << 20, /* records of one compressed batch that Kafka wrote */
};

#define GROUP_TOPIC SLICE_OF("__consumer_offsets")

struct group_service {
    struct service *service;
    struct loop *loop;
    struct bus *bus;
    struct groups *core;
    struct image *image; /* one count; NULL before the first */
    struct uuid topic_id;
    bool has_topic, draining;
    struct request *requests; /* by id: those that the core has not answered */
    struct load *loads;       /* by partition */
    uint32_t loads_running;
    uint32_t loaded_partitions; /* since the last line about it */
    uint64_t loaded_records;
    bool load_trouble;        /* it has been logged that loads fail */
    struct append *ended;     /* utlist: appends whose end the core has not been told */
    struct loop_timer *timer; /* the core's deadline */
    uint64_t timer_due_ms;
    uint64_t next_request;
    uint64_t unreadable; /* as last logged */
    uint32_t append_timeout_ms;
    int codec;
};

/* main.c: one step of the core, with what it wants carried out. */
void group_step(struct group_service *g, const struct groups_event *event);

/* request.c */
void group_serve(struct group_service *g);
void group_reply(struct group_service *g, const struct groups_action *a);

/* ownership.c */
void group_on_image(void *ctx, const struct image *old_image, const struct image *new_image);
void group_release_all(struct group_service *g);
/* Who leads the partition of our topic; false: nobody that we know of. */
bool group_leader(const struct group_service *g, int32_t partition, int32_t *ret_leader, int32_t *ret_leader_epoch);

/* load.c */
void load_start(struct group_service *g, const struct groups_action *a);
void load_on_image(struct group_service *g); /* perhaps there are leaders now */
void load_drop(struct group_service *g, int32_t partition);

/* append.c */
void append_start(struct group_service *g, const struct groups_action *a);
void append_tell_ended(struct group_service *g);
void append_free_all(struct group_service *g);

#endif
