/* client_group.c - clients of the group coordinator: one that commits by itself, and the members of a classic group. */
#include "tests/sim/clients.h"

#include "kafka/apis.h"
#include "kafka/find_coordinator.h"
#include "kafka/heartbeat.h"
#include "kafka/join_group.h"
#include "kafka/offset_commit.h"
#include "kafka/offset_fetch.h"
#include "kafka/sync_group.h"
#include "libs/base/kafka_error.h"
#include "tests/sim/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

static bool is_refused_for_now(int16_t error)
{
    return error == KERR_COORDINATOR_LOAD_IN_PROGRESS || error == KERR_COORDINATOR_NOT_AVAILABLE ||
           error == KERR_NOT_COORDINATOR || error == KERR_REQUEST_TIMED_OUT || error == KERR_UNKNOWN_TOPIC_OR_PARTITION;
}

static void on_found(void *ctx, const void *response)
{
    bool *found = ctx;
    const struct kafka_find_coordinator_response *r = response;
    *found = r && r->error_code == KERR_NONE;
}

/* Makes the offsets topic, the first time. */
static void find(struct kclient *c, struct sim *s, const char *group, bool *found)
{
    struct kafka_find_coordinator_request q;
    kafka_find_coordinator_request_init(&q);
    q.key = slice_str(group);
    kclient_ask(c, KAFKA_API_FIND_COORDINATOR, (int16_t)sim_below(s, 4), &q, on_found, found);
}

/* ---- the committer ---- */

/* A commit whose answer never came. A front end that stood still may read it behind what came by the next connection,
 * as a Kafka broker may, whose connections are read by several threads; it runs once at most, and not behind what a
 * later life of the front end was told is committed. */
struct open_commit {
    int64_t offset;
    uint64_t life; /* process_life of the front end */
    struct open_commit *next;
};

struct committer {
    struct clients *clients;
    struct sim *sim;
    struct kclient *client;
    bool found;
    int64_t sent, acked; /* offsets; -1: none */
    uint64_t life;       /* where the last one was sent */
    struct open_commit *open;
    int64_t floor; /* what was acknowledged, or read, when the fetch under way was asked */
    bool verified; /* a fetch after the last commit */
    uint64_t event;
};

static void note_unanswered(struct committer *m)
{
    struct open_commit *o = xcalloc(1, sizeof *o);
    *o = (struct open_commit){.offset = m->sent, .life = m->life};
    LL_PREPEND(m->open, o);
}

static void close_commit(struct committer *m, struct open_commit *o)
{
    LL_DELETE(m->open, o);
    free(o);
}

static void close_before(struct committer *m, uint64_t life)
{
    struct open_commit *o, *next;
    LL_FOREACH_SAFE(m->open, o, next)
    if (o->life < life)
        close_commit(m, o);
}

/* It was read: it has run. False: no answer to it is missing. */
static bool has_run(struct committer *m, int64_t offset)
{
    struct open_commit *o;
    LL_FOREACH (m->open, o) {
        if (o->offset != offset)
            continue;
        close_commit(m, o);
        return true;
    }
    return false;
}

static void on_committed(void *ctx, const void *response)
{
    struct committer *m = ctx;
    const struct kafka_offset_commit_response *r = response;
    if (r == NULL) {
        note_unanswered(m);
        return;
    }
    int16_t error = r->topics[0].partitions[0].error_code;
    if (error == KERR_NONE) {
        m->acked = m->sent;
        close_before(m, m->life);
    } else if (!is_refused_for_now(error))
        sim_fail(m->sim, "OffsetCommit: %s", kafka_error_name(error));
    sim_note(m->sim, "commit of %lld: %s", (long long)m->sent, kafka_error_name(error));
}

static void commit(struct committer *m)
{
    struct kafka_offset_commit_request q;
    struct kafka_offset_commit_request_offset_commit_request_topic t;
    struct kafka_offset_commit_request_offset_commit_request_partition p;
    kafka_offset_commit_request_init(&q);
    kafka_offset_commit_request_offset_commit_request_topic_init(&t);
    kafka_offset_commit_request_offset_commit_request_partition_init(&p);
    q.group_id = SLICE_OF("committer");
    p.committed_offset = ++m->sent;
    p.committed_metadata = SLICE_OF("");
    t.name = SLICE_OF(CLIENTS_TOPIC);
    t.partitions = &p;
    t.partitions_count = 1;
    q.topics = &t;
    q.topics_count = 1;
    m->verified = false;
    m->life = kclient_life(m->client);
    kclient_ask(m->client, KAFKA_API_OFFSET_COMMIT, (int16_t)(2 + sim_below(m->sim, 8)), &q, on_committed, m);
}

static void check_offset(struct committer *m, int64_t offset)
{
    bool late = has_run(m, offset) && offset < m->floor;
    if (offset < m->floor && !late)
        sim_fail(m->sim, "the committed offset %lld went back to %lld", (long long)m->floor, (long long)offset);
    if (offset > m->sent)
        sim_fail(m->sim, "offset %lld was never committed", (long long)offset);
    m->acked = late ? offset : MAX(m->acked, offset); /* what was read once must stay */
    if (late)
        sim_cover("a commit without an answer ran behind a later one");
    m->verified = true;
    sim_cover("a committed offset was read again");
}

static void on_offset(void *ctx, const void *response)
{
    struct committer *m = ctx;
    const struct kafka_offset_fetch_response *r = response;
    if (r == NULL)
        return;
    int16_t error = r->groups_count ? r->groups[0].error_code : r->error_code;
    if (error == KERR_NONE && r->groups_count == 0)
        error = r->topics[0].partitions[0].error_code;
    if (error == KERR_NONE)
        check_offset(m, r->groups_count ? r->groups[0].topics[0].partitions[0].committed_offset
                                        : r->topics[0].partitions[0].committed_offset);
    else if (!is_refused_for_now(error))
        sim_fail(m->sim, "OffsetFetch: %s", kafka_error_name(error));
}

static void ask_offset(struct committer *m)
{
    int32_t zero[] = {0};
    struct kafka_offset_fetch_request q;
    struct kafka_offset_fetch_request_offset_fetch_request_topic t = {SLICE_OF(CLIENTS_TOPIC), zero, 1};
    struct kafka_offset_fetch_request_offset_fetch_request_topics ts;
    struct kafka_offset_fetch_request_offset_fetch_request_group g;
    int16_t version = (int16_t)(1 + sim_below(m->sim, 9));
    kafka_offset_fetch_request_init(&q);
    kafka_offset_fetch_request_offset_fetch_request_topics_init(&ts);
    kafka_offset_fetch_request_offset_fetch_request_group_init(&g);
    if (version < 8) {
        q.group_id = SLICE_OF("committer");
        q.topics = &t;
        q.topics_count = 1;
    } else {
        ts.name = SLICE_OF(CLIENTS_TOPIC);
        ts.partition_indexes = zero;
        ts.partition_indexes_count = 1;
        g.group_id = SLICE_OF("committer");
        g.topics = &ts;
        g.topics_count = 1;
        q.groups = &g;
        q.groups_count = 1;
    }
    m->floor = m->acked;
    kclient_ask(m->client, KAFKA_API_OFFSET_FETCH, version, &q, on_offset, m);
}

static void committer_tick(void *ctx)
{
    struct committer *m = ctx;
    m->event = sim_at(m->sim, 20 + sim_below(m->sim, 200), committer_tick, m);
    /* Always the same front end: what a stalled one still has under way would run behind a commit by way of another, as
     * it can with two connections to a Kafka broker. */
    if (!m->clients->has_topic || !kclient_connect(m->client, cluster_port(1)) || kclient_waiting(m->client))
        return;
    if (!m->found)
        find(m->client, m->sim, "committer", &m->found);
    else if (!m->clients->finishing && sim_chance(m->sim, 600))
        commit(m);
    else
        ask_offset(m);
}

struct committer *committer_new(struct clients *c)
{
    struct committer *m = xcalloc(1, sizeof *m);
    *m = (struct committer){.clients = c, .sim = c->sim, .sent = -1, .acked = -1};
    m->client = kclient_new(c->tcp, c->sim, "committer");
    m->event = sim_at(c->sim, 0, committer_tick, m);
    return m;
}

struct committer *committer_free(struct committer *m)
{
    sim_cancel(m->sim, m->event);
    kclient_free(m->client);
    while (m->open)
        close_commit(m, m->open);
    free(m);
    return NULL;
}

void committer_go_on(struct committer *m)
{
    m->verified = false;
}

bool committer_is_done(const struct committer *m)
{
    return m->verified;
}

/* ---- members ---- */

/* What the leader of a generation gave to its members. */
struct generation {
    int32_t number;
    char leader[80];
    struct generation *next;
};

struct generations {
    struct generation *all;
};

struct member {
    struct clients *clients;
    struct sim *sim;
    int32_t index;
    struct kclient *client;
    bool found;
    char id[80]; /* "": none yet */
    int32_t generation;
    enum { OUT, JOINED, STABLE } state;
    char assignment[120]; /* of the generation, as its leader wrote it */
    uint64_t event;
};

/* One leader a generation. A generation that was lost with its coordinator may come again with another one: only what
 * was committed counts, which is what a member got by SyncGroup. */
static void note_leader(struct member *m, int32_t number, const char *leader)
{
    struct clients *c = m->clients;
    struct generation *g;
    if (c->generations == NULL)
        c->generations = xcalloc(1, sizeof *c->generations);
    LL_FOREACH (c->generations->all, g)
        if (g->number == number) {
            if (strcmp(g->leader, leader) != 0)
                sim_fail(m->sim, "generation %d has the leaders %s and %s", number, g->leader, leader);
            return;
        }
    g = xcalloc(1, sizeof *g);
    g->number = number;
    snprintf(g->leader, sizeof g->leader, "%s", leader);
    LL_PREPEND(c->generations->all, g);
}

struct generations *generations_free(struct generations *g)
{
    while (g && g->all) {
        struct generation *first = g->all;
        LL_DELETE(g->all, first);
        free(first);
    }
    free(g);
    return NULL;
}

/* What an error says about the membership; true: go on as before. */
static bool take_error(struct member *m, int16_t error, const char *what)
{
    if (error == KERR_NONE)
        return true;
    if (error == KERR_UNKNOWN_MEMBER_ID)
        m->id[0] = '\0';
    else if (error != KERR_REBALANCE_IN_PROGRESS && error != KERR_ILLEGAL_GENERATION &&
             error != KERR_MEMBER_ID_REQUIRED && !is_refused_for_now(error))
        sim_fail(m->sim, "%s of member %d: %s", what, m->index, kafka_error_name(error));
    if (!is_refused_for_now(error))
        m->state = OUT;
    return false;
}

static void on_synced(void *ctx, const void *response)
{
    struct member *m = ctx;
    const struct kafka_sync_group_response *r = response;
    if (r == NULL) {
        m->state = OUT;
        return;
    }
    if (!take_error(m, r->error_code, "SyncGroup")) {
        m->state = OUT;
        return;
    }
    char leader[80] = "";
    int32_t number = -1;
    char text[120];
    snprintf(text, sizeof text, SLICE_F, SLICE_A(r->assignment));
    if (sscanf(text, "%d %79[^ ]", &number, leader) != 2 || number != m->generation)
        sim_fail(m->sim, "member %d got the assignment \"%s\" in generation %d", m->index, text, m->generation);
    if (strstr(text, m->id) == NULL)
        sim_fail(m->sim, "member %d got the assignment of another: %s", m->index, text);
    note_leader(m, number, leader);
    m->state = STABLE;
    sim_cover("a member got its assignment");
}

static void sync(struct member *m, const struct kafka_join_group_response *joined)
{
    struct arena *arena = arena_new(0);
    struct kafka_sync_group_request q;
    kafka_sync_group_request_init(&q);
    q.group_id = SLICE_OF("members");
    q.generation_id = m->generation;
    q.member_id = slice_str(m->id);
    q.protocol_type = SLICE_OF("consumer");
    q.protocol_name = SLICE_OF("range");
    if (slice_eq_str(joined->leader, m->id)) {
        q.assignments = arena_calloc(arena, (size_t)joined->members_count, sizeof *q.assignments);
        q.assignments_count = joined->members_count;
        for (int32_t i = 0; i < joined->members_count; i++) {
            q.assignments[i].member_id = joined->members[i].member_id;
            q.assignments[i].assignment = slice_str(
                arena_printf(arena, "%d %s " SLICE_F, m->generation, m->id, SLICE_A(joined->members[i].member_id)));
        }
    }
    kclient_ask(m->client, KAFKA_API_SYNC_GROUP, (int16_t)sim_below(m->sim, 6), &q, on_synced, m);
    arena_free(arena);
}

static void on_joined(void *ctx, const void *response)
{
    struct member *m = ctx;
    const struct kafka_join_group_response *r = response;
    if (r == NULL)
        return;
    if (r->error_code == KERR_NONE || r->error_code == KERR_MEMBER_ID_REQUIRED)
        snprintf(m->id, sizeof m->id, SLICE_F, SLICE_A(r->member_id));
    if (!take_error(m, r->error_code, "JoinGroup"))
        return;
    m->generation = r->generation_id;
    m->state = JOINED;
    sim_note(m->sim, "member %d is %s in generation %d", m->index, m->id, m->generation);
    sync(m, r);
}

static void join(struct member *m)
{
    struct kafka_join_group_request q;
    struct kafka_join_group_request_join_group_request_protocol protocol = {SLICE_OF("range"), SLICE_OF("x")};
    kafka_join_group_request_init(&q);
    q.group_id = SLICE_OF("members");
    q.session_timeout_ms = 3000;
    q.rebalance_timeout_ms = 3000;
    q.member_id = slice_str(m->id);
    q.protocol_type = SLICE_OF("consumer");
    q.protocols = &protocol;
    q.protocols_count = 1;
    kclient_ask(m->client, KAFKA_API_JOIN_GROUP, (int16_t)(1 + sim_below(m->sim, 9)), &q, on_joined, m);
}

static void on_beat(void *ctx, const void *response)
{
    struct member *m = ctx;
    const struct kafka_heartbeat_response *r = response;
    if (r)
        (void)take_error(m, r->error_code, "Heartbeat");
}

static void beat(struct member *m)
{
    struct kafka_heartbeat_request q;
    kafka_heartbeat_request_init(&q);
    q.group_id = SLICE_OF("members");
    q.generation_id = m->generation;
    q.member_id = slice_str(m->id);
    kclient_ask(m->client, KAFKA_API_HEARTBEAT, (int16_t)sim_below(m->sim, 5), &q, on_beat, m);
}

static void member_tick(void *ctx)
{
    struct member *m = ctx;
    m->event = sim_at(m->sim, 100 + sim_below(m->sim, 400), member_tick, m);
    if (!m->clients->has_topic || !kclient_connect(m->client, client_port(m->clients)) || kclient_waiting(m->client))
        return;
    if (!m->found)
        find(m->client, m->sim, "members", &m->found);
    else if (m->state == STABLE)
        beat(m);
    else
        join(m);
}

struct member *member_new(struct clients *c, int32_t index)
{
    static const char *const names[] = {"member-0", "member-1"};
    struct member *m = xcalloc(1, sizeof *m);
    *m = (struct member){.clients = c, .sim = c->sim, .index = index};
    m->client = kclient_new(c->tcp, c->sim, names[index]);
    m->event = sim_at(c->sim, 0, member_tick, m);
    return m;
}

struct member *member_free(struct member *m)
{
    sim_cancel(m->sim, m->event);
    kclient_free(m->client);
    free(m);
    return NULL;
}

bool member_is_done(const struct member *m)
{
    return m->state == STABLE;
}
