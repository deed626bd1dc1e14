/* change.c - voters added, removed and changed while the quorum runs (KIP-853), one at a time: any two sets of voters
 * that follow each other share a majority, so that no two leaders can be elected by different ones.
 *
 * A set counts from the moment it is in the log. It is answered when it is committed: by a majority of the new set. */
#include <stdlib.h>
#include <string.h>

#include "libs/kraft/kraft_internal.h"

enum { JOIN_RETRY_MS = 1000, DYNAMIC = 1 /* kraft.version from which the log has the voters */ };

static void refuse(struct kraft *k, uint64_t id, const struct kraft_message *m, enum kafka_error error,
                   const char *text)
{
    kraft_reply(k, m->kind, id, error)->text = text;
}

/* Checks that all have; false: refused. */
static bool may_change(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    if (k->role != KRAFT_LEADER)
        refuse(k, id, m, KERR_NOT_LEADER_OR_FOLLOWER, NULL);
    else if (m->voter == NULL && m->kind != KRAFT_UPGRADE)
        refuse(k, id, m, KERR_INVALID_REQUEST, "The request names no voter.");
    else if (lineage_voters(k)->kraft_version < DYNAMIC && m->kind != KRAFT_UPGRADE)
        refuse(k, id, m, KERR_UNSUPPORTED_VERSION,
               "Cluster doesn't support adding voters because the kraft.version feature is 0");
    else if (k->high_watermark <= k->epoch_start)
        refuse(k, id, m, KERR_REQUEST_TIMED_OUT, "The leader has not committed a record of its epoch yet.");
    else if (lineage_voters(k)->offset >= k->high_watermark || k->change != 0)
        refuse(k, id, m, KERR_REQUEST_TIMED_OUT, "Another change of the voters is not committed yet.");
    else
        return true;
    return false;
}

static int32_t find(const struct kraft_voters *v, int32_t id)
{
    for (int32_t i = 0; i < v->count; i++)
        if (v->voter[i].id == id)
            return i;
    return -1;
}

/* A node that asks for itself has its answer at once: the set may need its fetches to be committed (KIP-1186). */
static void append(struct kraft *k, uint64_t id, const struct kraft_message *m, int16_t version,
                   const struct kraft_voters *voters)
{
    leader_append_control(k, false, version, voters);
    k->change = id;
    k->change_kind = m->kind;
    if (m->from >= 0)
        change_end(k, KERR_NONE);
    leader_update_high_watermark(k); /* fewer voters may be a majority already */
}

/* A voter that is far behind would make the quorum weaker, not stronger. */
static bool has_caught_up(struct kraft *k, const struct kraft_voter *v)
{
    const struct peer *p = kraft_peer(k, v->id, v->directory_id);
    return p != NULL && p->fetched && k->now_ms - p->last_fetch_ms < k->fetch_ms && p->caught_up_ms != 0 &&
           k->now_ms - p->caught_up_ms < (uint64_t)60 * 60 * 1000 && p->end >= k->epoch_start;
}

static void add(struct kraft *k, uint64_t id, const struct kraft_message *m, struct kraft_voters *voters)
{
    if (find(voters, m->voter->id) >= 0)
        refuse(k, id, m, KERR_DUPLICATE_VOTER, "The voter id is already part of the set of voters.");
    else if (voters->count == KRAFT_VOTERS_MAX)
        refuse(k, id, m, KERR_INVALID_REQUEST, "The set of voters is full.");
    else if (uuid_is_zero(m->voter->directory_id) || m->voter->kraft_version_max < lineage_voters(k)->kraft_version)
        refuse(k, id, m, KERR_INVALID_REQUEST, "The voter has no directory id, or does not support the kraft.version.");
    else if (!has_caught_up(k, m->voter))
        refuse(k, id, m, KERR_REQUEST_TIMED_OUT, "The voter has not caught up with the leader's log.");
    else {
        voters->voter[voters->count++] = *m->voter;
        append(k, id, m, -1, voters);
    }
}

static void drop(struct kraft *k, uint64_t id, const struct kraft_message *m, struct kraft_voters *voters)
{
    int32_t at = find(voters, m->voter->id);
    if (at < 0 || !uuid_eq(voters->voter[at].directory_id, m->voter->directory_id)) {
        refuse(k, id, m, KERR_VOTER_NOT_FOUND, "The voter is not part of the set of voters.");
    } else if (voters->count == 1) {
        refuse(k, id, m, KERR_INVALID_REQUEST, "The last voter cannot be removed.");
    } else {
        memmove(&voters->voter[at], &voters->voter[at + 1], (size_t)(voters->count - at - 1) * sizeof voters->voter[0]);
        voters->count--;
        append(k, id, m, -1, voters);
    }
}

static void update(struct kraft *k, uint64_t id, const struct kraft_message *m, struct kraft_voters *voters)
{
    int32_t at = find(voters, m->voter->id);
    if (at < 0 || !uuid_eq(voters->voter[at].directory_id, m->voter->directory_id)) {
        refuse(k, id, m, KERR_VOTER_NOT_FOUND, "The voter is not part of the set of voters.");
    } else if (m->voter->kraft_version_max < lineage_voters(k)->kraft_version) {
        refuse(k, id, m, KERR_INVALID_REQUEST, "The voter does not support the kraft.version.");
    } else {
        voters->voter[at] = *m->voter;
        append(k, id, m, -1, voters);
    }
}

/* ---- static voters become dynamic ---- */

/* Below kraft.version 1 no record says who the voters are but for their ids. Each tells the leader, which keeps it in
 * mind for the upgrade, as Kafka's does. */
static void claim(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    if (find(kraft_voters(k), m->voter->id) < 0 || m->from != m->voter->id) {
        refuse(k, id, m, KERR_VOTER_NOT_FOUND, "The voter is not part of the set of voters.");
        return;
    }
    int32_t at = find(&k->claims, m->voter->id);
    if (at < 0)
        at = k->claims.count++; /* one each of the voters: it fits */
    k->claims.voter[at] = *m->voter;
    kraft_reply(k, m->kind, id, KERR_NONE);
}

static const struct kraft_voter *claimed_by(const struct kraft *k, int32_t id)
{
    int32_t at = find(&k->claims, id);
    return id == k->node_id ? &k->self : at >= 0 ? &k->claims.voter[at] : NULL;
}

const char *kraft_upgrade_refusal(const struct kraft *k)
{
    const struct kraft_voters *v = kraft_voters(k);
    for (int32_t i = 0; i < v->count; i++) {
        const struct kraft_voter *c = claimed_by(k, v->voter[i].id);
        if (c == NULL || uuid_is_zero(c->directory_id) || c->endpoint_count == 0)
            return "Not every voter has told the leader its directory id and where it is found.";
        if (c->kraft_version_max < DYNAMIC)
            return "Not every voter supports this kraft.version.";
    }
    return k->high_watermark <= k->epoch_start ? "The leader has not committed a record of its epoch yet." : NULL;
}

static void upgrade(struct kraft *k, uint64_t id, const struct kraft_message *m, struct kraft_voters *voters)
{
    const char *why = kraft_upgrade_refusal(k);
    if (lineage_voters(k)->kraft_version >= DYNAMIC || why != NULL) {
        refuse(k, id, m, KERR_INVALID_UPDATE_VERSION, why);
        return;
    }
    for (int32_t i = 0; i < voters->count; i++)
        voters->voter[i] = *claimed_by(k, voters->voter[i].id);
    append(k, id, m, DYNAMIC, voters);
}

void change_on_request(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    if (m->kind == KRAFT_UPDATE_VOTER && m->voter != NULL && k->role == KRAFT_LEADER &&
        lineage_voters(k)->kraft_version < DYNAMIC) {
        claim(k, id, m);
        return;
    }
    if (!may_change(k, id, m))
        return;
    struct kraft_voters *voters = xmalloc(sizeof *voters);
    *voters = *kraft_voters(k);
    if (m->kind == KRAFT_ADD_VOTER)
        add(k, id, m, voters);
    else if (m->kind == KRAFT_REMOVE_VOTER)
        drop(k, id, m, voters);
    else if (m->kind == KRAFT_UPDATE_VOTER)
        update(k, id, m, voters);
    else
        upgrade(k, id, m, voters);
    free(voters);
}

void change_end(struct kraft *k, enum kafka_error error)
{
    if (k->change == 0)
        return;
    kraft_reply(k, k->change_kind, k->change, error);
    k->change = 0;
}

/* A leader that is no voter any more stays until that is committed, and then goes. */
void change_committed(struct kraft *k)
{
    if (lineage_voters(k)->offset >= k->high_watermark)
        return;
    change_end(k, KERR_NONE);
    if (!kraft_is_voter(k))
        kraft_to_resigned(k);
}

/* ---- what the record says of us ---- */

static struct kraft_endpoint *named(struct kraft_voter *v, const char *name)
{
    for (int32_t i = 0; i < v->endpoint_count; i++)
        if (strcmp(v->endpoints[i].name, name) == 0)
            return &v->endpoints[i];
    return NULL;
}

/* The record's entry of us with what we are; an endpoint of a name that we do not have stays, as it is another
 * program's. False: it says so already. */
static bool correct(const struct kraft *k, struct kraft_voter *ret)
{
    const struct kraft_voters *v = kraft_voters(k);
    int32_t at = find(v, k->node_id);
    if (at < 0 || !uuid_eq(v->voter[at].directory_id, k->directory_id))
        return false;
    *ret = v->voter[at];
    bool news =
        ret->kraft_version_min != k->self.kraft_version_min || ret->kraft_version_max != k->self.kraft_version_max;
    ret->kraft_version_min = k->self.kraft_version_min;
    ret->kraft_version_max = k->self.kraft_version_max;
    for (int32_t i = 0; i < k->self.endpoint_count; i++) {
        const struct kraft_endpoint *own = &k->self.endpoints[i];
        struct kraft_endpoint *e = named(ret, own->name);
        if (e == NULL && ret->endpoint_count == KRAFT_ENDPOINTS_MAX)
            continue;
        if (e == NULL)
            e = &ret->endpoints[ret->endpoint_count++];
        else if (strcmp(e->host, own->host) == 0 && e->port == own->port)
            continue;
        *e = *own;
        news = true;
    }
    return news;
}

void change_lead(struct kraft *k)
{
    if (!k->update_self || lineage_voters(k)->kraft_version < DYNAMIC || k->high_watermark <= k->epoch_start ||
        lineage_voters(k)->offset >= k->high_watermark || k->change != 0 || !correct(k, &k->corrected))
        return;
    struct kraft_voters *voters = xmalloc(sizeof *voters);
    *voters = *kraft_voters(k);
    voters->voter[find(voters, k->node_id)] = k->corrected;
    leader_append_control(k, false, -1, voters);
    free(voters);
}

/* KIP-1186: an observer asks the leader to make it a voter; before that, to remove the voter of its id that had another
 * directory, which is lost. */
static enum kraft_message_kind join(struct kraft *k, const struct kraft_voter **ret_voter)
{
    int32_t former = find(kraft_voters(k), k->node_id);
    if (former < 0)
        return KRAFT_ADD_VOTER;
    k->corrected = kraft_voters(k)->voter[former];
    *ret_voter = &k->corrected;
    return KRAFT_REMOVE_VOTER;
}

/* What to tell the leader: what it asks for is in *ret_voter; false: nothing. */
static bool wants(struct kraft *k, enum kraft_message_kind *ret_kind, const struct kraft_voter **ret_voter)
{
    bool is_dynamic = lineage_voters(k)->kraft_version >= DYNAMIC;
    *ret_voter = &k->self;
    if (kraft_is_voter(k)) {
        *ret_kind = KRAFT_UPDATE_VOTER;
        if (is_dynamic)
            *ret_voter = &k->corrected;
        return is_dynamic ? k->update_self && correct(k, &k->corrected) : !k->claimed;
    }
    if (!k->auto_join || k->has_voted || !is_dynamic || k->high_watermark < 0)
        return false;
    *ret_kind = join(k, ret_voter);
    return true;
}

void change_pump(struct kraft *k)
{
    enum kraft_message_kind kind;
    const struct kraft_voter *voter;
    /* What a former life left counts, as nobody knows yet whether it was committed; a set of this life only when it is:
     * a leader that dies may take it along. */
    k->has_voted = k->has_voted || kraft_is_voter_for_good(k) || (k->high_watermark < 0 && kraft_is_voter(k));
    if (!k->fetched || k->now_ms < k->join_at || !wants(k, &kind, &voter))
        return;
    struct peer *p = kraft_peer(k, k->state.leader_id, UUID_ZERO);
    struct kraft_message *m = p != NULL ? kraft_ask(k, p, kind) : NULL;
    if (m == NULL)
        return;
    m->voter = voter;
    k->join_at = k->now_ms + JOIN_RETRY_MS;
}
