/* state.h - the pipeline's own structs, shared by its files (pipeline.c connections and time, input.c frames, answer.c
 * requests and output). Private to libs/pipeline. */
#ifndef KARST_PIPELINE_STATE_H
#define KARST_PIPELINE_STATE_H

#include "libs/pipeline/pipeline.h"
#include "libs/pipeline/slots.h"

#include <uthash.h>
#include <utlist.h>

/* Memory that is read to. */
struct input {
    struct ref_owner *owner; /* NULL: there is none */
    uint8_t *data;
    size_t capacity, used;
};

/* What many frames are read to. The process is charged for all of it while a request lies in it, as one request keeps
 * the whole alive; the connections for their own frames. */
struct piece {
    struct input input;
    uint32_t items;
    struct piece *prev, *next; /* all that are current or have items */
};

enum item_state { ITEM_QUEUED, ITEM_RUNNING, ITEM_ENDED };

/* A request from its whole frame to its answer's turn to leave. */
struct item {
    struct item *next; /* in its connection, by arrival; or in the free list */
    struct item *gone_prev, *gone_next;
    struct conn *conn; /* NULL: the client has gone */
    uint64_t id;       /* 0: not running */
    enum item_state state;
    enum pipeline_end end;
    bool is_gone_listed;
    struct slice frame;
    uint64_t charged; /* to the connection: the frame, and what pipeline_charge added */
    struct ref_owner *owner;
    struct piece *piece; /* NULL: the frame has memory of its own */
    struct ref *pieces;  /* only_piece, or a list of its own */
    struct ref only_piece;
    size_t piece_count;
    uint64_t answer_bytes; /* in memory: without parts of files */
};

struct address {
    uint8_t ip[PIPELINE_IP_BYTES];
    uint32_t count;
    UT_hash_handle hh;
};

struct conn {
    uint64_t id;
    struct conn *prev, *next;                 /* all, the longest quiet first */
    struct conn *attn_prev, *attn_next;       /* to be told to the adapter */
    struct conn *ready_prev, *ready_next;     /* have a request that may run */
    struct conn *starved_prev, *starved_next; /* had bytes to read while the input budget was used up */
    bool in_attn, in_ready, in_starved;
    struct address *address;
    uint64_t quiet_since_ms, frame_grew_ms;

    uint8_t head[4]; /* a length that is cut */
    uint32_t head_have;
    struct input frame; /* begun and not whole: used of size bytes are there */
    uint32_t frame_size;
    uint64_t frame_claim; /* in p->claimed */
    bool sends_large;     /* the last frame was a large one */

    struct item *first, *last; /* not yet in output */
    struct item *start;        /* the first queued one */
    uint32_t waiting, running; /* queued or running; running */
    uint64_t input_bytes;      /* of those, and of the frame begun */

    struct ref *out;
    size_t out_first, out_count, out_capacity, out_at; /* out_at: written bytes of the first */
    uint64_t out_bytes, out_memory;                    /* all that waits; without parts of files */
    uint64_t out_since_ms, wrote_ms; /* since when there is output without a break; when some of it last left */

    bool input_closed; /* no more reading; closes once all is answered and written */
    bool failed;       /* closes now */
    const char *reason;
};

struct pipeline {
    struct pipeline_options o;
    struct slots conns, items;
    struct conn *all, *attention, *ready, *starved;
    struct conn *favoured; /* may read though the budget is used up (I3) */
    struct address *addresses;
    struct item *free_items, *gone;
    struct piece *pieces, *shared; /* shared: the current one, or NULL */
    uint64_t input_used, output_used;
    uint64_t claimed; /* of the room behind o.alloc, by frames that are not whole */
    uint32_t waiting, running;
    bool draining, is_over;
    struct iovec room[2]; /* of the pipeline_input that pipeline_received must follow */
    int room_count;
    uint64_t room_conn;
    uint64_t now_ms;     /* the latest that we were told */
    uint64_t checked_ms; /* of the last look for those who hold memory and do not move */
};

void conn_attention(struct pipeline *p, struct conn *c);
void conn_fail(struct pipeline *p, struct conn *c, const char *reason);
/* No more reading; reason may be NULL. */
void conn_close_input(struct pipeline *p, struct conn *c, const char *reason);
void conn_update_ready(struct pipeline *p, struct conn *c);
bool conn_may_read(const struct pipeline *p, const struct conn *c);

/* c may be NULL: the process alone. */
void input_charge(struct pipeline *p, struct conn *c, uint64_t bytes);
void input_discharge(struct pipeline *p, struct conn *c, uint64_t bytes);

/* A request lies in it; has gone. */
void piece_enter(struct pipeline *p, struct piece *piece);
void piece_leave(struct pipeline *p, struct piece *piece);
void frame_drop(struct pipeline *p, struct conn *c); /* of a connection that ends */
void shared_drop(struct pipeline *p);                /* for the end */

/* A whole frame: takes over a count of owner. piece: where it lies, or NULL. */
void item_add(struct pipeline *p, struct conn *c, struct slice frame, struct ref_owner *owner, struct piece *piece);
void item_free(struct pipeline *p, struct item *i);
/* It is no longer held for its client; c: NULL when that is not charged for it any more. */
void item_discharge(struct pipeline *p, struct item *i, struct conn *c);
/* Everything of c that is queued is dropped, what runs loses its connection. */
void items_drop(struct pipeline *p, struct conn *c);

#endif
