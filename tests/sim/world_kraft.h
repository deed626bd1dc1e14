/* world_kraft.h - the state of the world `kraft`. Internal to world_kraft*.c.
 *
 * Controllers that are nothing but the core of the quorum (libs/kraft/kraft.h) and its store on a simulated disk, a
 * network that loses, delays and doubles, and clients that append and change voters. */
#ifndef KARST_TESTS_SIM_WORLD_KRAFT_H
#define KARST_TESTS_SIM_WORLD_KRAFT_H

#include "libs/kraft/kraft.h"
#include "libs/kraft/store.h"
#include "libs/metadata/image.h"
#include "tests/sim/disk.h"
#include "tests/sim/sim.h"

enum { KNODES_MAX = 8 };

/* A batch as a log holds it. */
struct kbatch {
    int64_t base, next;
    int32_t epoch;
    uint32_t crc;
};
struct kbatches {
    struct kbatch *at;
    size_t count, room;
};

struct kworld;
struct knode {
    struct kworld *world;
    int32_t id;
    struct uuid directory_id;
    struct disk *disk;
    struct file_system fs;
    struct kraft_store *store; /* NULL: the process is not there */
    struct kraft *kraft;
    struct image *image; /* what is committed, as the node knows it */
    uint64_t life, paused_until;
    int64_t wall_jump_ms;
    bool dies, installed, moved;
    bool slow_restart;             /* the next one only */
    uint64_t tick, flush, restart; /* events of the simulator; 0: none */
    struct kbatches log;           /* what its log holds, staged or not */
    int64_t durable;               /* of it: what no power cut takes, up to there */
    struct kbatches waiting;       /* appended as a leader, not answered */
};

/* A request that a node has and has not answered. */
struct kcall {
    int32_t from; /* -1: a client */
    uint64_t from_life, from_id;
    int32_t at;
    uint64_t id;   /* there */
    int32_t epoch; /* that it was asked in */
    struct kcall *prev, *next;
};

struct kworld {
    struct sim *sim;
    struct knode node[KNODES_MAX];
    int32_t count, first_voters;
    struct kraft_voters voters;                    /* of the format */
    bool cut[KNODES_MAX][KNODES_MAX];              /* [from][to] */
    uint64_t loss, doubling, late, dying, fragile; /* per thousand */
    bool auto_join;
    bool calm;            /* nothing fails */
    uint64_t snapshot_ms; /* a piece of one was under way last */
    struct kcall *calls;
    uint64_t last_call, value;
    struct kpromises *promises;
};

/* ---- world_kraft_node.c ---- */
void knode_start(struct knode *n); /* until it is up, or the disk is full: then it tries again */
void knode_stop(struct knode *n, bool power_cut);
void knode_step(struct knode *n, const struct kraft_event *e);
void knode_append(struct knode *n);
void knode_snapshot(struct knode *n);
bool knode_is_up(const struct knode *n);
bool knode_decides(const struct knode *n); /* a leader whose epoch has begun */

/* ---- world_kraft.c: messages ---- */
void knet_send(struct knode *n, const struct kraft_action *a);
void knet_reply(struct knode *n, uint64_t id, const struct kraft_message *m);
void knet_forget(struct knode *n); /* what it has not answered is not answered any more */

void kworld_outage(void *ctx); /* all lose their power, but not in a calm */

/* ---- world_kraft_check.c ---- */
void kbatches_push(struct kbatches *l, struct kbatch b);
struct kpromises *kpromises_new(struct kworld *w);
void kpromises_free(struct kpromises *p);
void kcheck_leads(struct knode *n, int32_t epoch);
void kcheck_saves(struct knode *n, const struct kraft_quorum_state *s);
void kcheck_grants(struct knode *n, int32_t epoch, int32_t candidate);
void kcheck_appends(struct knode *n, struct kbatch b); /* before it is pushed to n->log */
void kcheck_decides(struct knode *n);                  /* its high watermark has moved */
void kcheck_commits(struct knode *n, struct kbatch b);
void kcheck_voters(struct knode *n);  /* behind a step: its log is the core's */
void kcheck_answers(struct knode *n); /* what waited there and is below the high watermark */
int64_t kcheck_committed_end(const struct kworld *w);
/* All nodes hold the same, byte for byte. */
void kcheck_same_images(struct kworld *w);

#endif
