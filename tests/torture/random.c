/* random.c - a long life of one log: every step, and now and then a death, a full disk, a failing call. */
#include "tests/torture/torture.h"
#include <inttypes.h>
#include <stdio.h>

static void some_fault(struct node *n)
{
    switch (dice_below(&n->dice, 5)) {
    case 0: disk_die_after(n->disk, dice_below(&n->dice, 60)); break;
    case 1: disk_short_after(n->disk, dice_below(&n->dice, 20)); break;
    case 2: disk_fail_writes_after(n->disk, dice_below(&n->dice, 20), 1 + dice_below(&n->dice, 20), ENOSPC); break;
    case 3: disk_fail_after(n->disk, dice_below(&n->dice, 60), 1, EIO); break;
    case 4: disk_die_after(n->disk, 0); break;
    }
}

static void revive(struct node *n)
{
    bool power = dice_chance(&n->dice, 40);
    node_die(n, power);
    /* Some die again while they start. */
    while (dice_chance(&n->dice, 20)) {
        disk_die_after(n->disk, dice_below(&n->dice, 80));
        int err = node_start(n);
        if (err == 0 && !disk_is_dead(n->disk)) {
            disk_disarm(n->disk);
            break;
        }
        torture_cover("died during a recovery");
        bool cut = dice_chance(&n->dice, 40);
        power = power || cut;
        node_die(n, cut);
    }
    if (n->log == NULL) {
        int err = node_start(n);
        if (err < 0)
            torture_fail("does not start: %s", strerror(-err));
    }
    node_check_after_death(n, power);
}

void random_run(const struct theme *theme, uint64_t seed, uint64_t steps)
{
    snprintf(torture_replay, sizeof torture_replay, "--random --theme %s --seed %" PRIu64 " --steps %" PRIu64,
             theme->name, seed, steps);
    struct node *n = node_new(theme, seed);
    if (node_start(n) < 0)
        torture_fail("does not start");
    for (uint64_t i = 0; i < steps; i++) {
        if (dice_below(&n->dice, 100) < 2)
            some_fault(n);
        if (!node_step(n))
            revive(n);
    }
    disk_disarm(n->disk);
    if (node_stop(n) < 0)
        torture_fail("does not stop, and nothing is wrong with the disk");
    node_check_files(n);
    if (node_start(n) < 0)
        torture_fail("does not start after a clean stop");
    node_check_content(n);
    node_free(n);
}
