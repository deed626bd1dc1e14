/* Many members that join, sync, heartbeat, commit, leave, come back late or not at all, while appends fail and owners
 * change. After each step groups_check holds; at the end every request has been answered once, and what was
 * acknowledged is in the log. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/groups/harness.h"

enum { MEMBERS = 24, GROUPS = 3, STEPS = 12000 };

struct actor {
    char id[128], instance[16];
    int group;
    int32_t generation;
    uint64_t join, sync; /* parked; 0: none */
    bool leads;
};

static uint64_t seed_state;

static uint32_t below(uint32_t n)
{
    seed_state = seed_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed_state >> 33) % n;
}

static const char *group_name(int i)
{
    static const char *const names[GROUPS] = {"alpha", "beta", "gamma"};
    return names[i];
}

static void forget(struct actor *a)
{
    a->id[0] = '\0';
    a->generation = -1;
}

static void take_join(struct harness *h, struct actor *a)
{
    const struct kafka_join_group_response *r = joined(h, a->join);
    if (r == NULL)
        return;
    a->join = 0;
    if (r->error_code == KERR_NONE || r->error_code == KERR_MEMBER_ID_REQUIRED)
        snprintf(a->id, sizeof a->id, SLICE_F, SLICE_A(r->member_id));
    else if (r->error_code != KERR_NOT_COORDINATOR && r->error_code != KERR_REBALANCE_IN_PROGRESS &&
             r->error_code != KERR_COORDINATOR_LOAD_IN_PROGRESS && r->error_code != KERR_COORDINATOR_NOT_AVAILABLE)
        forget(a);
    a->generation = r->error_code == KERR_NONE ? r->generation_id : -1;
    a->leads = r->error_code == KERR_NONE && slice_eq(r->leader, r->member_id);
}

static void do_join(struct harness *h, struct actor *a)
{
    static const char *const protocols[] = {"range", "range,sticky", "sticky,range"};
    if (a->join != 0)
        return;
    a->join = ask_join(h, (struct join_options){.group = group_name(a->group),
                                                .member = a->id,
                                                .instance = a->instance[0] ? a->instance : NULL,
                                                .protocols = protocols[below(3)],
                                                .rebalance_ms = 5000 + (int32_t)below(20000),
                                                .version = (int16_t)(5 + below(5))});
    take_join(h, a);
}

static void do_sync(struct harness *h, struct actor *a)
{
    if (a->sync != 0 || a->generation < 0)
        return;
    struct kafka_sync_group_request q;
    struct kafka_sync_group_request_sync_group_request_assignment mine = {.member_id = slice_str(a->id),
                                                                          .assignment = SLICE_OF("everything")};
    kafka_sync_group_request_init(&q);
    q.group_id = slice_str(group_name(a->group));
    q.generation_id = a->generation;
    q.member_id = slice_str(a->id);
    q.group_instance_id = a->instance[0] ? slice_str(a->instance) : SLICE_NULL;
    q.assignments = &mine;
    q.assignments_count = a->leads;
    a->sync = harness_ask(h, KAFKA_API_SYNC_GROUP, 4, &q);
}

static void act(struct harness *h, struct actor *a)
{
    const char *group = group_name(a->group);
    if (a->join != 0)
        take_join(h, a);
    if (a->sync != 0 && synced(h, a->sync) != NULL)
        a->sync = 0;
    switch (below(12)) {
    case 0:
    case 1: do_join(h, a); break;
    case 2:
    case 3:
    case 4: do_sync(h, a); break;
    case 5:
    case 6:
    case 7: {
        int error = heartbeat(h, group, a->generation, a->id, a->instance[0] ? a->instance : NULL);
        if (error == KERR_UNKNOWN_MEMBER_ID || error == KERR_FENCED_INSTANCE_ID)
            forget(a);
        if (error == KERR_REBALANCE_IN_PROGRESS)
            do_join(h, a);
        break;
    }
    case 8: commit(h, 9, group, a->generation, a->id, "t", (int32_t)below(3), below(1000), ""); break;
    case 9:
        if (below(6) == 0) {
            leave(h, 5, group, a->id, NULL);
            forget(a);
        }
        break;
    case 10:
        if (below(20) == 0)
            forget(a); /* it died, and starts anew */
        break;
    default: harness_pass(h, below(1500)); break;
    }
}

static void disturb(struct harness *h)
{
    switch (below(400)) {
    case 0: h->fail_appends = !h->fail_appends; break;
    case 1:
        for (int32_t p = 0; p < HARNESS_PARTITIONS; p++) {
            harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_RELEASE, .partition = p});
            harness_event(
                h, &(struct groups_event){.kind = GROUPS_EVENT_ACQUIRE, .partition = p, .epoch = (int32_t)h->requests});
        }
        break;
    case 2: delete_group(h, group_name((int)below(GROUPS))); break;
    case 3: harness_event(h, &(struct groups_event){.kind = GROUPS_EVENT_TOPIC_DELETED, .topic = SLICE_OF("t")}); break;
    case 4: commit(h, 9, "simple", -1, "", "t", 0, 1, ""); break;
    case 5: harness_pass(h, 700000); break;
    default: break;
    }
}

static void run(uint64_t seed)
{
    struct harness h;
    struct actor actors[MEMBERS] = {0};
    seed_state = seed;
    harness_open(&h);
    for (int i = 0; i < MEMBERS; i++) {
        actors[i].group = (int)below(GROUPS);
        actors[i].generation = -1;
        if (below(3) == 0)
            snprintf(actors[i].instance, sizeof actors[i].instance, "i%u", below(6)); /* some claim the same */
    }
    for (int i = 0; i < STEPS; i++) {
        act(&h, &actors[below(MEMBERS)]);
        disturb(&h);
    }
    h.fail_appends = false;
    int64_t offsets[GROUPS][3];
    for (int g = 0; g < GROUPS; g++)
        for (int32_t p = 0; p < 3; p++)
            offsets[g][p] = committed(&h, group_name(g), "t", p);
    harness_pass(&h, 2000000); /* whoever waits is answered in the end */
    cr_expect_eq(h.answered, h.requests, "seed %llu: %llu of %llu requests were answered", (unsigned long long)seed,
                 (unsigned long long)h.answered, (unsigned long long)h.requests);
    harness_restart(&h);
    for (int g = 0; g < GROUPS; g++)
        for (int32_t p = 0; p < 3; p++)
            cr_expect_eq(committed(&h, group_name(g), "t", p), offsets[g][p], "seed %llu", (unsigned long long)seed);
    harness_close(&h);
}

Test(random, many_members)
{
    const char *one = getenv("KARST_SEED");
    if (one != NULL) {
        run(strtoull(one, NULL, 0));
        return;
    }
    for (uint64_t seed = 1; seed <= 12; seed++)
        run(seed);
}
