/* look.c - what others may know of a node: its role, epoch, log and voters, and how far its peers are. Changes nothing.
 */
#include "libs/kraft/kraft_internal.h"

const char *kraft_role_name(enum kraft_role role)
{
    switch (role) {
    case KRAFT_UNATTACHED: return "unattached";
    case KRAFT_PROSPECTIVE: return "prospective";
    case KRAFT_CANDIDATE: return "candidate";
    case KRAFT_LEADER: return "leader";
    case KRAFT_FOLLOWER: return "follower";
    case KRAFT_RESIGNED: return "resigned";
    }
    BUG("a role without a name");
}

enum kraft_role kraft_role(const struct kraft *k)
{
    return k->role;
}

int32_t kraft_epoch(const struct kraft *k)
{
    return k->state.leader_epoch;
}

int32_t kraft_leader(const struct kraft *k)
{
    return k->state.leader_id != k->node_id || k->role == KRAFT_LEADER ? k->state.leader_id : -1;
}

bool kraft_is_voter(const struct kraft *k)
{
    return kraft_is_voter_key(k, k->node_id, k->directory_id);
}

bool kraft_is_voter_for_good(const struct kraft *k)
{
    return kraft_is_voter(k) && lineage_voters(k)->offset < k->high_watermark;
}

int64_t kraft_log_end(const struct kraft *k)
{
    return k->log_end;
}

int64_t kraft_high_watermark(const struct kraft *k)
{
    return k->high_watermark;
}

int64_t kraft_epoch_start(const struct kraft *k)
{
    return k->epoch_start;
}

int16_t kraft_version(const struct kraft *k)
{
    return lineage_voters(k)->kraft_version;
}

const struct kraft_voters *kraft_voters(const struct kraft *k)
{
    return &lineage_voters(k)->voters;
}

static int64_t wall(const struct kraft *k, uint64_t at_ms, int64_t now_wall_ms)
{
    return now_wall_ms - (int64_t)(k->now_ms - MIN(at_ms, k->now_ms));
}

static struct kraft_peer_status status_of(const struct kraft *k, const struct peer *p, bool voter, int64_t now_wall_ms)
{
    return (struct kraft_peer_status){
        .id = p->id,
        .directory_id = p->directory_id,
        .is_voter = voter,
        .log_end = p->end,
        .last_fetch_ms = p->fetched ? wall(k, p->last_fetch_ms, now_wall_ms) : -1,
        .last_caught_up_ms = p->caught_up_ms ? wall(k, p->caught_up_ms, now_wall_ms) : -1,
    };
}

size_t kraft_describe(const struct kraft *k, int64_t now_wall_ms, struct kraft_peer_status *ret_status, size_t room)
{
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        bool voters = pass == 0;
        if (kraft_is_voter(k) == voters && n < room)
            ret_status[n++] = (struct kraft_peer_status){.id = k->node_id,
                                                         .directory_id = k->directory_id,
                                                         .is_voter = voters,
                                                         .log_end = k->log_end,
                                                         .last_fetch_ms = now_wall_ms,
                                                         .last_caught_up_ms = now_wall_ms};
        for (size_t i = 0; i < k->peer_count && n < room; i++) {
            const struct peer *p = &k->peers[i];
            if (kraft_is_voter_key(k, p->id, p->directory_id) == voters && (voters || p->fetched))
                ret_status[n++] = status_of(k, p, voters, now_wall_ms);
        }
    }
    return n;
}

bool kraft_is_news(struct kraft_told *t, const struct kraft_message *answer)
{
    bool known = t->kind == answer->kind && t->error == answer->error;
    if (answer->kind != KRAFT_ADD_VOTER && answer->kind != KRAFT_REMOVE_VOTER && answer->kind != KRAFT_UPDATE_VOTER)
        return false;
    *t = (struct kraft_told){answer->kind, answer->error};
    return !known;
}
