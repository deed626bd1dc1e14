/* net.h - two link cores and the wire between them, in virtual time over really encoded bytes. Node 0 calls (front end
 * 1), node 1 serves (storage 1) and may die and come back. */
#ifndef KARST_TESTS_UNIT_BUS_NET_H
#define KARST_TESTS_UNIT_BUS_NET_H

#include "libs/base/buf.h"
#include "libs/bus/link.h"

enum { CALLS = 4096, WIRES = 4096 };

#define APPEND KARST__BUS__CALL__BODY_APPEND
#define READ   KARST__BUS__CALL__BODY_READ
#define IS(o)  KARST__BUS__OUTCOME__OUTCOME_##o

struct packet {
    int to;
    size_t wire;
    struct buf frame0;
    struct ref *frames;
    size_t frame_count;
    struct packet *prev, *next;
};

/* One connection. */
struct wire {
    uint64_t conn[2]; /* its name at each node; 0: that end is gone */
    uint64_t life;    /* of node 1 when it was made */
};

struct seen_call {
    uint64_t id, made_for; /* the incarnation that was meant; 0: any */
    int ended, executed;
    uint64_t executed_by;
    Karst__Bus__Outcome outcome;
    bool nobody;
    int64_t base_offset;
    struct buf payload;
    uint64_t file_bytes;
    struct net *net;
};

struct net {
    uint64_t now;
    struct link_options options[2];
    struct link_core *core[2];
    uint64_t life;    /* the incarnation of node 1; 0: dead */
    uint32_t send_ms; /* of calls from here on */
    struct wire wires[WIRES];
    size_t wire_count;
    struct packet *packets;
    struct seen_call calls[CALLS];
    size_t call_count;
    struct rpc *rpcs[CALLS]; /* executed and not yet answered */
    size_t rpc_of[CALLS], rpc_count;
    size_t gone;
    int reports;
    bool stopped[2]; /* takes nothing from the wire */
    /* A kernel that both share: an arena of node 0, and the files that node 1 has passed. */
    bool shares;
    uint8_t arena[4096];
    struct ref_owner arena_owner; /* one count more than there are slices */
    struct ref_file *passed[8];
    size_t passed_count;
    struct ref held[CALLS];
    size_t held_count;
};

void net_init(struct net *n, const struct link_options *caller, const struct link_options *served);
void net_begin(struct net *n, const struct link_options *caller, const struct link_options *served); /* and both live */
void net_free(struct net *n);
void net_start(struct net *n, uint64_t incarnation); /* node 1 lives */
void net_kill(struct net *n);                        /* node 1 dies; connections break */
void net_break(struct net *n);                       /* connections break, what was on the wire is lost */
/* A call of KAFKA is AddRaftVoter, which came with version 2 of the bus. */
size_t net_call(struct net *n, Karst__Bus__Call__BodyCase kind, uint32_t timeout_ms, size_t payload_bytes);
void net_actions(struct net *n, int node);
bool net_deliver(struct net *n); /* one packet */
void net_settle(struct net *n);  /* until nothing moves */
void net_pass(struct net *n, uint64_t ms);
void net_answer(struct net *n, size_t i); /* the i-th of rpcs */
void net_answer_all(struct net *n);
void net_drop(struct net *n, struct packet *p);
/* It has ended, once, and so. */
void net_ended(const struct net *n, size_t i, Karst__Bus__Outcome outcome);
void net_finish(struct net *n, size_t i); /* all that waits is answered, and call i has ended well */
/* What the packet says that is first on the wire, and stays there; the caller frees it. */
Karst__Bus__Batch *net_first(const struct net *n);
/* A batch made by hand comes to node 1 as one of node 0; its session, sequence and content are the caller's. */
void net_receive(struct net *n, uint64_t conn, Karst__Bus__Batch *b, struct ref *frames, size_t frame_count);
/* From here on payloads of Appends lie in the arena, and replies to Reads are slices of a file. */
void net_share(struct net *n);
void net_hang_up(struct net *n); /* node 1 lets go of all that lies in the arena */
size_t net_slices(const struct net *n);

#endif
