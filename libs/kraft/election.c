/* election.c - votes, asked and given.
 *
 * Before a node raises its epoch it asks whether it would win (pre-vote, KIP-996): one that was cut off and comes back
 * disturbs nobody, as those who hear their leader say no.
 *
 *   PROSPECTIVE --majority would--> CANDIDATE --majority does--> LEADER
 *   PROSPECTIVE --majority would not, or time over--> FOLLOWER of the leader that was known, else UNATTACHED
 *   CANDIDATE --majority does not, or time over--> back-off --> PROSPECTIVE */
#include "libs/kraft/kraft_internal.h"

enum { BACKOFF_MS = 50, LOSSES_MAX = 10 };

/* Voters that said so; a candidate grants itself. */
static int32_t count(struct kraft *k, enum vote vote)
{
    const struct kraft_voters *v = kraft_voters(k);
    int32_t n = 0;
    for (int32_t i = 0; i < v->count; i++) {
        if (kraft_same_replica(v->voter[i].id, v->voter[i].directory_id, k->node_id, k->directory_id)) {
            n += vote == VOTE_GRANTED;
            continue;
        }
        const struct peer *p = kraft_peer(k, v->voter[i].id, v->voter[i].directory_id);
        n += p != NULL && p->vote == vote;
    }
    return n;
}

static bool is_won(struct kraft *k)
{
    return count(k, VOTE_GRANTED) > kraft_voters(k)->count / 2;
}

static bool is_lost(struct kraft *k)
{
    return kraft_voters(k)->count - count(k, VOTE_REJECTED) <= kraft_voters(k)->count / 2;
}

/* ---- asking ---- */

static void become_candidate(struct kraft *k)
{
    kraft_leave_role(k);
    k->role = KRAFT_CANDIDATE;
    k->deadline = kraft_election_deadline(k);
    k->state = (struct kraft_quorum_state){.leader_id = -1,
                                           .leader_epoch = k->state.leader_epoch + 1,
                                           .voted_id = k->node_id,
                                           .voted_directory_id = k->directory_id};
    if (is_won(k)) { /* alone: what is saved is the leadership, one write instead of two */
        leader_begin(k);
        return;
    }
    kraft_save(k);
}

void election_prospective(struct kraft *k)
{
    kraft_leave_role(k);
    k->role = KRAFT_PROSPECTIVE;
    k->deadline = kraft_election_deadline(k);
    if (is_won(k))
        become_candidate(k);
}

/* A follower that could not win follows on; if its leader is gone it is back here after another fetch timeout. */
static void give_up(struct kraft *k)
{
    int32_t leader = kraft_leader(k);
    if (k->role == KRAFT_CANDIDATE) {
        uint32_t backoff = (uint32_t)BACKOFF_MS << MIN(k->losses, (uint32_t)LOSSES_MAX);
        k->losses++;
        k->lost = true;
        k->deadline = k->now_ms + 1 + kraft_random_below(k, MIN(backoff, k->backoff_max_ms));
    } else if (leader >= 0) {
        kraft_to_follower(k, k->state.leader_epoch, leader);
    } else {
        kraft_to_unattached(k, k->state.leader_epoch);
    }
}

static void ask_votes(struct kraft *k)
{
    const struct kraft_voters *v = kraft_voters(k);
    for (int32_t i = 0; i < v->count; i++) {
        struct peer *p = kraft_peer(k, v->voter[i].id, v->voter[i].directory_id);
        if (p == NULL || p->vote != VOTE_UNASKED)
            continue;
        struct kraft_message *m = kraft_ask(k, p, KRAFT_VOTE);
        if (m == NULL)
            continue;
        m->to_directory = v->voter[i].directory_id;
        m->pre_vote = k->role == KRAFT_PROSPECTIVE;
        m->offset = k->log_end;
        m->last_epoch = lineage_last_epoch(k);
    }
}

void election_pump(struct kraft *k)
{
    if (!kraft_may_lead(k)) {
        kraft_to_unattached(k, k->state.leader_epoch);
    } else if (k->now_ms >= k->deadline) {
        if (k->lost || k->role == KRAFT_CANDIDATE)
            election_prospective(k);
        else
            give_up(k);
    } else if (!k->lost) {
        ask_votes(k);
    }
}

void election_on_response(struct kraft *k, struct peer *p, const struct kraft_message *m)
{
    bool asks = k->role == KRAFT_PROSPECTIVE || k->role == KRAFT_CANDIDATE;
    if (!asks || k->lost || m->epoch != k->state.leader_epoch || m->pre_vote != (k->role == KRAFT_PROSPECTIVE))
        return;
    p->vote = m->granted && m->error == KERR_NONE ? VOTE_GRANTED : VOTE_REJECTED;
    if (is_won(k)) {
        if (k->role == KRAFT_PROSPECTIVE)
            become_candidate(k);
        else
            leader_begin(k);
    } else if (is_lost(k)) {
        give_up(k);
    }
}

/* ---- giving ---- */

/* Does the candidate's log hold all that ours does? Raft, 5.4.1. */
static bool is_up_to_date(const struct kraft *k, const struct kraft_message *m)
{
    int32_t own = lineage_last_epoch(k);
    return m->last_epoch != own ? m->last_epoch > own : m->offset >= k->log_end;
}

static bool would_grant(const struct kraft *k, const struct kraft_message *m)
{
    bool hears_leader = k->role == KRAFT_LEADER || (k->role == KRAFT_FOLLOWER && k->fetched);
    return is_up_to_date(k, m) && !hears_leader;
}

/* I4. */
static bool may_grant(const struct kraft *k, const struct kraft_message *m)
{
    if (k->state.leader_id >= 0)
        return false;
    if (k->state.voted_id >= 0)
        return kraft_same_replica(m->from, m->from_directory, k->state.voted_id, k->state.voted_directory_id);
    return is_up_to_date(k, m);
}

static void grant(struct kraft *k, const struct kraft_message *m)
{
    k->state.voted_id = m->from;
    k->state.voted_directory_id = m->from_directory;
    if (k->role == KRAFT_UNATTACHED)
        k->deadline = kraft_election_deadline(k);
    kraft_save(k);
}

void election_on_request(struct kraft *k, uint64_t id, const struct kraft_message *m)
{
    enum kafka_error error = KERR_NONE;
    bool granted = false;
    if (m->from < 0 || m->last_epoch < 0 || m->offset < 0 || m->last_epoch > m->epoch)
        error = KERR_INVALID_REQUEST;
    else if (!uuid_is_zero(m->to_directory) && !uuid_eq(m->to_directory, k->directory_id))
        error = KERR_INVALID_VOTER_KEY;
    else if (m->epoch < k->state.leader_epoch)
        error = KERR_FENCED_LEADER_EPOCH;
    if (error == KERR_NONE) {
        if (m->epoch > k->state.leader_epoch)
            kraft_to_unattached(k, m->epoch);
        granted = m->pre_vote ? would_grant(k, m) : may_grant(k, m);
        if (granted && !m->pre_vote)
            grant(k, m);
    }
    struct kraft_message *reply = kraft_reply(k, KRAFT_VOTE, id, error);
    reply->pre_vote = m->pre_vote;
    reply->granted = granted;
}
