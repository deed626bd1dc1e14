/* Random lives, losses, stalls and cuts, from seeds that replay: each call ends exactly once, is executed at most once,
 * and when its caller heard OK, by the life that answered. net_free checks the counts. */
#include <criterion/criterion.h>
#include <utlist.h>

#include "net.h"

static uint64_t random_state;

static uint32_t roll(uint32_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

static void lose_suffix(struct net *n)
{
    int to = (int)roll(2);
    struct packet *p, *next;

    DL_FOREACH_SAFE(n->packets, p, next)
    {
        if (p->to == to)
            net_drop(n, p);
    }
}

static void one_fault(struct net *n, uint64_t *life)
{
    switch (roll(8)) {
    case 0:
        if (n->core[1] != NULL)
            net_kill(n);
        break;
    case 1: net_break(n); break;
    case 2: lose_suffix(n); break;
    case 3: n->stopped[roll(2)] = true; break;
    case 4: n->stopped[0] = n->stopped[1] = false; break;
    case 5:
        if (n->core[1] != NULL)
            link_set_peer(n->core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, roll(2) ? n->life : 0, "ipc:///there");
        break;
    case 6: /* one-way cut: the wire takes no more to one side */
        if (n->wire_count > 0)
            n->wires[n->wire_count - 1].conn[1] = 0;
        break;
    case 7: link_set_metadata_offset(n->core[roll(2)] ? n->core[0] : n->core[0], (int64_t)(*life * 10)); break;
    }
    if (n->core[1] == NULL && roll(2) == 0) {
        n->options[1].version_max = 1 + roll(2); /* of this release, or of the one before */
        net_start(n, ++*life);
        if (roll(2))
            link_set_peer(n->core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, n->life, "ipc:///there");
    }
    if (n->core[1] != NULL && roll(3) == 0)
        link_set_metadata_offset(n->core[1], (int64_t)(*life * 10));
}

static void live(uint64_t seed)
{
    static const Karst__Bus__Call__BodyCase kinds[] = {KARST__BUS__CALL__BODY_APPEND, KARST__BUS__CALL__BODY_READ,
                                                       KARST__BUS__CALL__BODY_KAFKA};
    static struct net n;
    struct link_options few = {.credit_calls = 64, .credit_bytes = 100000};
    uint64_t life = 5;

    random_state = seed;
    net_init(&n, NULL, &few);
    net_start(&n, life);
    link_set_level(n.core[0], 2);
    link_set_peer(n.core[0], KARST__BUS__ROLE__ROLE_STORAGE, 1, 0, "ipc:///there");
    for (int step = 0; step < 600 && n.wire_count < WIRES - 16; step++) {
        for (uint32_t i = roll(5); i > 0 && n.call_count < CALLS; i--)
            (void)net_call(&n, kinds[roll(COUNTOF(kinds))], 1 + roll(3000), roll(4) ? 0 : roll(5000));
        if (n.call_count > 0 && roll(6) == 0)
            link_cancel(n.core[0], n.calls[roll((uint32_t)n.call_count)].id);
        for (uint32_t i = roll(20); i > 0; i--)
            net_deliver(&n);
        while (n.rpc_count > 0 && roll(3))
            net_answer(&n, roll((uint32_t)n.rpc_count));
        if (roll(15) == 0)
            one_fault(&n, &life);
        if (roll(2))
            net_pass(&n, roll(60));
    }
    n.stopped[0] = n.stopped[1] = false;
    net_pass(&n, 10000);
    for (size_t i = 0; i < n.call_count; i++) {
        const struct seen_call *c = &n.calls[i];
        cr_assert_eq(c->ended, 1, "seed %lu: call %zu ended %d times", seed, i, c->ended);
        cr_assert_leq(c->executed, 1, "seed %lu: call %zu executed %d times", seed, i, c->executed);
        if (c->outcome == KARST__BUS__OUTCOME__OUTCOME_OK)
            cr_assert_eq(c->executed, 1, "seed %lu: call %zu was answered and not executed", seed, i);
        if (c->outcome == KARST__BUS__OUTCOME__OUTCOME_NOT_SENT || c->outcome == KARST__BUS__OUTCOME__OUTCOME_EXPIRED ||
            c->outcome == KARST__BUS__OUTCOME__OUTCOME_UNSUPPORTED)
            cr_assert_eq(c->executed, 0, "seed %lu: call %zu was executed, and its caller told that it was not", seed,
                         i);
    }
    net_free(&n);
}

Test(faults, three_hundred_lives, .timeout = 60)
{
    for (uint64_t seed = 1; seed <= 300; seed++)
        live(seed);
}
