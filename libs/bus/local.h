/* local.h - connections between processes of one kernel: what bus.c and the files of the local transport share.
 *
 * A worker that serves listens on PATH.local beside its ZeroMQ addresses (a companion socket, SOCK_SEQPACKET). Who can
 * open it, and pass descriptors over it, is on the same kernel and of the same user: nothing else has to be believed. A
 * connection is then two rings in one piece of shared memory (ring.h, stream.h), an eventfd for each end, the bell that
 * is rung only when that end sleeps, and the companion, which tells who hangs up and carries descriptors.
 *
 *   the caller    (nothing) --local_connect: descriptors are sent--> ASKED --"ok"--> OPEN: link_connected
 *                 ASKED --refused, closed--> the same connection goes over ZeroMQ
 *                 OPEN --the core closes it, the peer has ended it or breaks a rule--> ZOMBIE --the peer has hung
 *                 up, or nothing of our arena is with it--> CLOSED
 *                 OPEN --the peer hangs up--> CLOSED: link_lost
 *   the served    ACCEPTED --a good hello--> OPEN --the core closes it, the peer hangs up or breaks a rule--> CLOSED
 *   end           ACCEPTED --a wrong one, or none in time--> CLOSED
 *
 * I1  The served end closes its companion only when its connection has ended and nothing refers to its view of the
 *     caller's arena. So what the caller lent is its own again when the companion hangs up, and never before.
 * I2  Whoever ends a connection publishes first what is written, and whoever sees the end reads first what is there.
 * I3  Every descriptor that arrives is checked, kept or closed.
 *
 * Messages on the companion: one hello of the caller (struct local_hello with the descriptors of the area, of the
 * served end's bell, of the caller's bell and, if there is one, of the arena); then notes of the served end only.
 * Threading: the loop's thread, but for the release of views. */
#ifndef KARST_BUS_LOCAL_H
#define KARST_BUS_LOCAL_H

#include <uthash.h>

#include "libs/bus/bus_internal.h"
#include "libs/bus/stream.h"

enum {
    LOCAL_VERSION = 1,
    LOCAL_RING_BULK = 256 << 10, /* each way */
    LOCAL_RING_OTHERS = 64 << 10,
    LOCAL_HEADER_BYTES = 4096, /* of the area, before the rings: their positions */
    LOCAL_FILES_MAX = 256,     /* descriptors that one connection keeps for its peer */
    LOCAL_SERVED_MAX = 1024,
    LOCAL_HALF_OPEN_MAX = 64,
    LOCAL_HANDSHAKE_MS = 2000,
};

/* Numbers of served connections differ from ZeroMQ's. */
#define LOCAL_CONN (UINT64_C(1) << 48)

struct local_hello {
    char magic[8];
    uint32_t version, lane;
    uint32_t to_served, to_caller; /* capacities; the rings lie behind the header in this order */
    uint64_t arena_id, arena_size; /* 0: none */
};
static_assert(sizeof(struct local_hello) == 40, "the same in every build");
#define LOCAL_MAGIC "KARSTBUS"

enum local_note_kind {
    LOCAL_NOTE_OK = 1, /* the answer to a good hello */
    LOCAL_NOTE_FILE,   /* with a descriptor: the file of this instance */
    LOCAL_NOTE_DROP,   /* no message of the ring at or behind position names the instance */
    LOCAL_NOTE_ENDED,  /* the connection is over, but we are still reading in your arena */
};

struct local_note {
    uint32_t kind, version;
    uint64_t instance, position;
};
static_assert(sizeof(struct local_note) == 24, "the same in every build");

enum local_state { LOCAL_ACCEPTED, LOCAL_ASKED, LOCAL_OPEN, LOCAL_ZOMBIE, LOCAL_CLOSED };

/* A caller's arena as the served end sees it. Each ref into it holds a count, and the connection one. */
struct local_view {
    struct ref_owner owner;
    const uint8_t *data;
    size_t size;
    uint64_t id;
    int companion; /* closed with the last count; -1: the connection still has it */
};

/* A file that was passed: to the peer (served end), or by it. */
struct local_file {
    uint64_t instance;
    struct ref_file *file;
    bool leaving;                   /* served end: will be announced; caller: was announced */
    uint64_t drop_at;               /* caller: position of our reader at which nothing names it any more */
    struct local_file *prev, *next; /* the one used longest ago first */
    UT_hash_handle hh;
};

struct local {
    struct bus *bus;
    enum local_state state;
    uint64_t conn;
    Karst__Bus__Lane lane;
    char *address; /* where ZeroMQ goes if the peer refuses */
    uint64_t since_ms;
    int companion, bell, peer_bell;
    struct loop_poll *companion_poll, *bell_poll;
    bool shares; /* an arena came with the hello: its maker works with references */
    bool has_notes, rang;
    bool ended, hung_up; /* by the peer */
    const char *wrong;   /* what the peer or we did so that it cannot go on; NULL: nothing */
    void *area;
    size_t area_size;
    struct ring_writer writer;
    struct ring_reader reader;
    struct stream_out out;
    struct stream_in in;
    struct local_view *view; /* served end; NULL: no arena */
    struct local_file *files, *files_by_use;
    bool files_leave; /* some are `leaving` */
    struct ref *held; /* counts of ours, until the peer hangs up */
    size_t held_count;
    struct local *prev, *next;
    UT_hash_handle hh; /* by conn, while it has one */
};

/* Of a bus that shares. */
struct locals {
    struct local *all, *by_conn;
    int listener;
    char *path; /* of the listener; NULL: none */
    struct loop_poll *listener_poll;
    struct loop_timer *timer; /* while a handshake is under way, or accepting pauses */
    bool accept_due, accept_pauses;
    size_t served, half_open;
    uint32_t last_number;
    uint64_t share_again_ms; /* descriptors ran out: until then everything goes over ZeroMQ */
    int arena_fd;            /* of the process's own arena, which its calls lie in; the caller of bus_new keeps it */
    uint64_t arena_id;
    size_t arena_size;
};

/* ---- local_open.c ---- */

/* address: where to listen; NULL: it only calls. 0, or -errno: -EADDRINUSE: somebody listens there. */
NODISCARD int locals_new(struct bus *b, const char *address);
void locals_free(struct bus *b); /* with all connections; the address is free again */
/* false: the peer has no companion, or we cannot have another connection: ZeroMQ may. */
NODISCARD bool local_connect(struct bus *b, uint64_t conn, const char *address, Karst__Bus__Lane lane);
void locals_accept(struct bus *b);
void local_read_hello(struct local *l);
void local_read_answer(struct local *l);

/* ---- local.c ---- */

struct local *local_new(struct bus *b, int companion);
struct local *local_find(struct bus *b, uint64_t conn); /* NULL: not local, or over */
void local_name(struct local *l, uint64_t conn);
/* Maps the area fd, which stays the caller's; 0 or -errno. The two ends read what the other writes. */
NODISCARD int local_map(struct local *l, int fd, const struct local_hello *h, bool is_served);
void local_watch(struct local *l); /* its bell */
void local_close(struct local *l); /* the core is through with it */
void local_hold(struct local *l, const struct ref *frames, size_t count);
void local_send(struct local *l, const struct link_action *a);
bool local_receive(struct local *l); /* false: there was nothing, and the core was told nothing */
void locals_wake(struct bus *b);     /* a turn begins, which will look at the rings: no bells until it has ended */
bool locals_flush(struct bus *b);    /* true: one ended, and the core was told of it */
void locals_linger(struct bus *b, int ms); /* waits so long for peers to take what has no room */
void locals_end_turn(struct bus *b);
void locals_sweep(struct bus *b);

/* ---- local_files.c ---- */

bool local_shares(void *bus, uint64_t conn);
bool local_pass_file(void *bus, uint64_t conn, struct ref_file *f);
int local_resolve(void *bus, uint64_t conn, const Karst__Bus__Payload *p, struct ref *ret_ref);
NODISCARD int local_view_new(struct local *l, int fd, const struct local_hello *h); /* closes fd; 0 or -errno */
/* The connection is over; true: something still reads the view, and the companion is the view's now. */
bool local_view_leave(struct local *l);
void local_read_notes(struct local *l);    /* as far as there are any; sets ended, hung_up, wrong */
void local_files_retire(struct local *l);  /* looks for files that their maker has retired */
void local_files_leave(struct local *l);   /* end of a turn: announces what leaves */
void local_files_dropped(struct local *l); /* after reading: lets go what nothing names any more */
void local_files_clear(struct local *l);

#endif
