/* world_kraft.c - quorums of 1, 3 and 5 voters with observers: the core of libs/kraft with its store, between a network
 * and disks that fail.
 *
 * Promises, after every step: one leader an epoch, one vote an epoch and node; what is committed is never lost, changed
 * or moved; the high watermark never goes back; two logs that share a batch share all before it; a leader has all that
 * was committed; who reads the log again comes to the same image. When nothing fails any more a leader is there and
 * records are committed everywhere within CALM_MS, and a node that was cut off and returns disturbs nobody (pre-vote).
 */
#include "tests/sim/world_kraft.h"

#include <stdlib.h>
#include <utlist.h>

enum { CALM_MS = 40000, LATE_MS = 3000, CALLS_MAX = 4096, CALM_EVERY = 120, SNAPSHOT_MS = 100 };

/* ---- messages ---- */

struct packet {
    struct kworld *world;
    int32_t from, to;
    uint64_t life; /* a response: of the life that asked */
    bool is_response;
    uint64_t id, from_life;
    struct kraft_message message;
    struct kraft_voter voter;
    struct buf bytes;
};

static struct packet *copy(struct kworld *w, const struct kraft_message *m)
{
    struct packet *p = xcalloc(1, sizeof *p);
    p->world = w;
    p->message = *m;
    if (m->bytes.size > 0)
        buf_append(&p->bytes, m->bytes.data, m->bytes.size);
    p->message.bytes = buf_slice(&p->bytes);
    if (m->voter != NULL) {
        p->voter = *m->voter;
        p->message.voter = &p->voter;
    }
    return p;
}

static void free_packet(struct packet *p)
{
    buf_free(&p->bytes);
    free(p);
}

static void arrive(void *ctx)
{
    struct packet *p = ctx;
    struct kworld *w = p->world;
    struct knode *n = &w->node[p->to];
    uint64_t now = sim_now_ms(w->sim);
    if (!knode_is_up(n) || (p->is_response && n->life != p->life)) {
        free_packet(p);
        return;
    }
    if (n->paused_until > now) {
        (void)sim_at(w->sim, n->paused_until - now, arrive, p);
        return;
    }
    struct kraft_event e = {.kind = p->is_response ? KRAFT_RESPONSE : KRAFT_REQUEST, .message = &p->message};
    if (p->is_response) {
        e.id = p->id;
    } else {
        e.id = ++w->last_call;
        struct kcall *c = xcalloc(1, sizeof *c);
        *c = (struct kcall){p->from, p->from_life, p->id, n->id, e.id, p->message.epoch, NULL, NULL};
        DL_APPEND(w->calls, c);
    }
    knode_step(n, &e);
    free_packet(p);
}

static uint64_t delay(const struct kworld *w)
{
    if (!w->calm && sim_chance(w->sim, w->late))
        return 1 + sim_below(w->sim, LATE_MS);
    return sim_below(w->sim, 4);
}

/* Lost, late, or twice. */
static void put_under_way(struct kworld *w, struct packet *p)
{
    if (p->message.kind == KRAFT_FETCH_SNAPSHOT)
        w->snapshot_ms = sim_now_ms(w->sim);
    sim_state("a snapshot is taken", w->snapshot_ms > 0 && sim_now_ms(w->sim) <= w->snapshot_ms + SNAPSHOT_MS);
    bool cut = p->from >= 0 && w->cut[p->from][p->to];
    if (cut || (!w->calm && sim_chance(w->sim, w->loss))) {
        sim_fault(cut ? "kraft: a message over a cut link" : "kraft: a message lost");
        free_packet(p);
        return;
    }
    if (!w->calm && sim_chance(w->sim, w->doubling)) {
        struct packet *again = copy(w, &p->message);
        again->from = p->from;
        again->to = p->to;
        again->life = p->life;
        again->is_response = p->is_response;
        again->id = p->id;
        again->from_life = p->from_life;
        sim_fault("kraft: a message came twice");
        (void)sim_at(w->sim, delay(w) + sim_below(w->sim, LATE_MS), arrive, again);
    }
    (void)sim_at(w->sim, delay(w), arrive, p);
}

struct patience {
    struct knode *node;
    uint64_t life, id;
};

static void on_patience_over(void *ctx)
{
    struct patience *p = ctx;
    struct knode *n = p->node;
    uint64_t now = sim_now_ms(n->world->sim);
    if (knode_is_up(n) && n->life == p->life && n->paused_until > now) {
        (void)sim_at(n->world->sim, n->paused_until - now, on_patience_over, p);
        return;
    }
    if (knode_is_up(n) && n->life == p->life)
        knode_step(n, &(struct kraft_event){.kind = KRAFT_FAILED, .id = p->id});
    free(p);
}

void knet_send(struct knode *n, const struct kraft_action *a)
{
    struct kworld *w = n->world;
    struct packet *p = copy(w, &a->message);
    struct patience *patience = xmalloc(sizeof *patience);
    *patience = (struct patience){n, n->life, a->id};
    p->from = n->id;
    p->to = a->to;
    p->id = a->id;
    p->from_life = n->life;
    /* A connection that breaks says so at once, one that is silent does not. */
    bool down = !knode_is_up(&w->node[a->to]) && sim_chance(w->sim, 700);
    (void)sim_at(w->sim, down ? 1 : (uint64_t)a->timeout_ms + a->message.wait_ms, on_patience_over, patience);
    put_under_way(w, p);
}

void knet_reply(struct knode *n, uint64_t id, const struct kraft_message *m)
{
    struct kworld *w = n->world;
    struct kcall *c;
    DL_FOREACH (w->calls, c)
        if (c->id == id && c->at == n->id)
            break;
    if (c == NULL)
        sim_fail(w->sim, "node %d answers what nobody asked, or twice", n->id);
    DL_DELETE(w->calls, c);
    if (m->kind == KRAFT_VOTE && m->granted && !m->pre_vote)
        kcheck_grants(n, m->epoch, c->from);
    bool fetches = m->kind == KRAFT_FETCH || m->kind == KRAFT_FETCH_SNAPSHOT;
    if (fetches && m->error == KERR_NONE && c->epoch != m->epoch)
        sim_fail(w->sim, "node %d, leader of epoch %d, takes a fetch of node %d in epoch %d", n->id, m->epoch, c->from,
                 c->epoch);
    if (c->from >= 0) {
        struct packet *p = copy(w, m);
        p->from = n->id;
        p->to = c->from;
        p->life = c->from_life;
        p->id = c->from_id;
        p->is_response = true;
        put_under_way(w, p);
    } else if (m->error == KERR_NONE) {
        sim_note(w->sim, "node %d: the voters are changed", n->id);
        sim_cover(m->kind == KRAFT_ADD_VOTER ? "kraft: a voter added" : "kraft: a voter removed");
    } else {
        sim_note(w->sim, "node %d: the voters stay: %s", n->id, kafka_error_name((int)m->error));
    }
    free(c);
}

void knet_forget(struct knode *n)
{
    struct kcall *c, *next;
    DL_FOREACH_SAFE(n->world->calls, c, next)
    {
        if (c->at != n->id)
            continue;
        DL_DELETE(n->world->calls, c);
        free(c);
    }
}

/* ---- what happens ---- */

static struct knode *any_node(struct kworld *w)
{
    return &w->node[sim_below(w->sim, (uint64_t)w->count)];
}

static struct knode *awake_leader(struct kworld *w)
{
    for (int32_t i = 0; i < w->count; i++)
        if (knode_decides(&w->node[i]) && w->node[i].paused_until <= sim_now_ms(w->sim))
            return &w->node[i];
    return NULL;
}

static void append_some(struct kworld *w)
{
    uint64_t n = 1 + sim_below(w->sim, 5);
    for (int32_t i = 0; i < w->count; i++)
        for (uint64_t j = 0; j < n && knode_decides(&w->node[i]) && w->node[i].paused_until <= sim_now_ms(w->sim); j++)
            knode_append(&w->node[i]); /* a leader that is none any more takes records, too */
}

static void change_voters(struct kworld *w)
{
    struct knode *leader = awake_leader(w), *whom = any_node(w);
    if (leader == NULL)
        return;
    bool is_voter = false;
    const struct kraft_voters *v = kraft_voters(leader->kraft);
    for (int32_t i = 0; i < v->count; i++)
        is_voter |= v->voter[i].id == whom->id;
    struct kraft_voter voter = {.id = whom->id, .directory_id = whom->directory_id, .kraft_version_max = 1};
    struct kraft_message m = {
        .kind = is_voter ? KRAFT_REMOVE_VOTER : KRAFT_ADD_VOTER, .from = -1, .leader = -1, .voter = &voter};
    struct kcall *c = xcalloc(1, sizeof *c);
    *c = (struct kcall){-1, 0, 0, leader->id, ++w->last_call, 0, NULL, NULL};
    DL_APPEND(w->calls, c);
    sim_note(w->sim, "node %d is asked to %s voter %d", leader->id, is_voter ? "remove" : "add", whom->id);
    knode_step(leader, &(struct kraft_event){.kind = KRAFT_REQUEST, .id = c->id, .message = &m});
}

static void cut_link(struct kworld *w)
{
    struct knode *a = any_node(w), *b = any_node(w);
    switch (sim_below(w->sim, 4)) {
    case 0: /* one way */
        w->cut[a->id][b->id] = true;
        sim_fault("kraft: a link cut one way");
        break;
    case 1: /* a node from all */
        for (int32_t i = 0; i < w->count; i++)
            w->cut[a->id][i] = w->cut[i][a->id] = i != a->id;
        sim_fault("kraft: a node cut off");
        break;
    case 2: /* two halves */
        for (int32_t i = 0; i < w->count; i++)
            for (int32_t j = 0; j < w->count; j++)
                w->cut[i][j] = (i < a->id) != (j < a->id);
        sim_fault("kraft: two halves");
        break;
    default: memset(w->cut, 0, sizeof w->cut); break;
    }
    for (int32_t i = 0; i < w->count; i++)
        w->cut[i][i] = false;
}

static void disk_fault(struct kworld *w)
{
    struct knode *n = any_node(w);
    switch (sim_below(w->sim, 3)) {
    case 0: disk_die_after(n->disk, sim_below(w->sim, 12)); break;
    case 1:
        disk_set_capacity(n->disk, 1);
        sim_fault("kraft: a full disk");
        break;
    default: disk_set_capacity(n->disk, 0); break;
    }
}

/* All lose their power; who led comes back last, so that the others decide without it. */
void kworld_outage(void *ctx)
{
    struct kworld *w = ctx;
    int32_t leader = -1;
    if (w->calm)
        return;
    for (int32_t i = 0; i < w->count; i++)
        if (knode_is_up(&w->node[i]) && kraft_role(w->node[i].kraft) == KRAFT_LEADER)
            leader = i;
    for (int32_t i = 0; i < w->count; i++) {
        w->node[i].slow_restart = i == leader;
        knode_stop(&w->node[i], true);
    }
    sim_fault("kraft: all lose power");
}

static void fault(struct kworld *w)
{
    struct knode *n = any_node(w);
    switch (sim_below(w->sim, 7)) {
    case 6: kworld_outage(w); break;
    case 0: knode_stop(n, sim_chance(w->sim, 500)); break;
    case 1:
        n->paused_until = sim_now_ms(w->sim) + sim_below(w->sim, 12000);
        sim_fault("kraft: a node stands still");
        break;
    case 2:
    case 3: cut_link(w); break;
    case 4: disk_fault(w); break;
    default:
        n->wall_jump_ms = (int64_t)sim_below(w->sim, 2000000) - 1000000;
        sim_fault("kraft: the wall clock jumps");
        break;
    }
}

static void resign(struct kworld *w)
{
    struct knode *n = awake_leader(w);
    if (n == NULL)
        return;
    sim_fault("kraft: a leader resigns");
    knode_step(n, &(struct kraft_event){.kind = KRAFT_RESIGN});
}

static void step(struct kworld *w)
{
    uint64_t dice = sim_below(w->sim, 1000);
    sim_until(w->sim, sim_now_ms(w->sim) + 1 + sim_below(w->sim, 400));
    if (dice < 560)
        append_some(w);
    else if (dice < 700)
        fault(w);
    else if (dice < 760)
        knode_snapshot(any_node(w));
    else if (dice < 830)
        change_voters(w);
    else if (dice < 840)
        resign(w);
}

/* ---- nothing fails ---- */

static void heal(struct kworld *w)
{
    w->calm = true;
    memset(w->cut, 0, sizeof w->cut);
    for (int32_t i = 0; i < w->count; i++) {
        struct knode *n = &w->node[i];
        disk_set_capacity(n->disk, 0);
        n->paused_until = 0;
        if (disk_is_dead(n->disk) && knode_is_up(n))
            knode_stop(n, false);
        disk_die_after(n->disk, UINT64_MAX);
    }
}

static bool is_settled(struct kworld *w)
{
    struct knode *leader = awake_leader(w);
    if (leader == NULL)
        return false;
    for (int32_t i = 0; i < w->count; i++) {
        struct knode *n = &w->node[i];
        if (!knode_is_up(n) || kraft_high_watermark(n->kraft) != kraft_log_end(leader->kraft) ||
            kraft_leader(n->kraft) != leader->id)
            return false;
    }
    return true;
}

/* Until all have the leader's log. Disks that were to die do so on the way. */
static void settle(struct kworld *w, const char *what)
{
    uint64_t end = sim_now_ms(w->sim) + CALM_MS;
    do {
        sim_until(w->sim, sim_now_ms(w->sim) + 50);
        if (sim_now_ms(w->sim) > end)
            sim_fail(w->sim, "%s: no leader that all follow within %d ms", what, CALM_MS);
    } while (!is_settled(w));
}

/* A voter that hears nobody for a while comes back: leader and epoch stay. */
static void cut_off_and_return(struct kworld *w)
{
    struct knode *leader = awake_leader(w), *n = any_node(w);
    int32_t epoch = kraft_epoch(leader->kraft);
    if (kraft_voters(leader->kraft)->count < 3)
        return;
    for (int32_t i = 0; i < w->count; i++)
        w->cut[n->id][i] = w->cut[i][n->id] = i != n->id;
    sim_until(w->sim, sim_now_ms(w->sim) + 4000 + sim_below(w->sim, 9000));
    if (n == leader) {
        if (kraft_role(n->kraft) == KRAFT_LEADER && kraft_epoch(n->kraft) == epoch)
            sim_fail(w->sim, "node %d is cut off, and still takes itself for the leader", n->id);
        sim_cover("kraft: a leader that was cut off gave up");
    }
    append_some(w);
    memset(w->cut, 0, sizeof w->cut);
    settle(w, "a node returned");
    if (n == leader)
        return;
    if (awake_leader(w) != leader || kraft_epoch(leader->kraft) != epoch)
        sim_fail(w->sim, "node %d was cut off, and its return ended epoch %d of leader %d", n->id, epoch, leader->id);
    sim_cover("kraft: a node returned and disturbed nobody");
}

static void calm_down(struct kworld *w)
{
    heal(w);
    settle(w, "calm");
    append_some(w);
    settle(w, "records after the calm");
    kcheck_same_images(w);
    cut_off_and_return(w);
    sim_note(w->sim, "calm, committed to %lld", (long long)kcheck_committed_end(w));
    w->calm = false;
}

/* ---- a run ---- */

static void make_node(struct kworld *w, int32_t id)
{
    struct knode *n = &w->node[id];
    *n = (struct knode){.world = w, .id = id, .disk = disk_new(sim_random(w->sim))};
    n->fs = disk_fs(n->disk);
    n->directory_id.b[0] = (uint8_t)(id + 1);
    n->directory_id.b[15] = 7;
    if (file_mkdir(&n->fs, "/data"))
        sim_fail(w->sim, "no folder");
    (void)file_sync_dir(&n->fs, "");
}

static void run(struct sim *sim, uint64_t steps)
{
    static const int32_t sizes[] = {1, 3, 3, 3, 5};
    struct kworld *w = xcalloc(1, sizeof *w);
    w->sim = sim;
    w->promises = kpromises_new(w);
    w->first_voters = sizes[sim_below(sim, COUNTOF(sizes))];
    w->count = w->first_voters + (int32_t)sim_below(sim, 3);
    w->loss = sim_chance(sim, 500) ? sim_below(sim, 150) : 0;
    w->doubling = sim_chance(sim, 500) ? sim_below(sim, 100) : 0;
    w->late = sim_chance(sim, 500) ? sim_below(sim, 200) : 0;
    w->dying = sim_chance(sim, 500) ? sim_below(sim, 4) : 0;
    w->fragile = sim_chance(sim, 500) ? sim_below(sim, 300) : 0;
    w->auto_join = sim_chance(sim, 300);
    for (int32_t i = 0; i < w->count; i++)
        make_node(w, i);
    w->voters.count = w->first_voters;
    for (int32_t i = 0; i < w->first_voters; i++)
        w->voters.voter[i] =
            (struct kraft_voter){.id = i, .directory_id = w->node[i].directory_id, .kraft_version_max = 1};
    for (int32_t i = 0; i < w->count; i++)
        knode_start(&w->node[i]);
    for (uint64_t i = 0; i < steps; i++) {
        step(w);
        if (i % CALM_EVERY == CALM_EVERY - 1)
            calm_down(w);
    }
    calm_down(w);
    w->calm = true;
    for (int32_t i = 0; i < w->count; i++) {
        struct knode *n = &w->node[i];
        knode_stop(n, false);
        n->image = image_release(n->image);
        free(n->log.at);
        free(n->waiting.at);
        n->disk = disk_free(n->disk);
    }
    sim_states_end();
    kpromises_free(w->promises);
    free(w);
}

const struct sim_world world_kraft = {"kraft", run, 20};
