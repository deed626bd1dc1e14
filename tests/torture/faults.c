/* faults.c - the same short life again and again, with one fault that comes one call later each time. */
#include "tests/torture/torture.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { LIFE_STEPS = 30, CALLS_MAX = 20000, FULL_CALLS = 25 };

const char *const fault_names[FAULT_COUNT] = {"eio", "eio-power", "enospc", "full", "short", "kill", "power"};

/*                      append read look roll retain trunc delete flush slow check epoch settings tick stop anew topic
 */
const struct theme themes[] = {
    {"plain", {40, 10, 10, 6, 4, 0, 4, 8, 6, 6, 3, 4, 4, 3, 0, 0}, .segment_bytes = 1500, .retention_bytes = 4000},
    {"flushed",
     {50, 6, 6, 6, 4, 0, 4, 4, 0, 6, 3, 2, 4, 3, 0, 0},
     .flush_each = true,
     .segment_bytes = 1500,
     .retention_bytes = 4000},
    {"producers",
     {50, 4, 4, 6, 4, 0, 4, 6, 4, 6, 3, 2, 4, 6, 0, 0},
     .idempotent = true,
     .segment_bytes = 1200,
     .retention_bytes = -1},
    {"cut",
     {40, 10, 6, 5, 2, 10, 3, 8, 4, 6, 5, 2, 3, 3, 0, 0},

     .segment_bytes = 1500,
     .retention_bytes = -1},
    {"anew",
     {40, 4, 4, 4, 2, 0, 3, 8, 4, 6, 3, 2, 3, 3, 4, 0},
     .idempotent = true,
     .segment_bytes = 1500,
     .retention_bytes = -1},
    {"topics", {40, 4, 4, 4, 2, 0, 3, 8, 4, 6, 3, 2, 3, 3, 0, 5}, .segment_bytes = 1500, .retention_bytes = -1},
};
const size_t theme_count = COUNTOF(themes);

const struct theme *theme_find(const char *name)
{
    for (size_t i = 0; i < theme_count; i++) {
        if (strcmp(themes[i].name, name) == 0)
            return &themes[i];
    }
    return NULL;
}

static void arm(struct node *n, enum fault fault, uint64_t at)
{
    switch (fault) {
    case FAULT_EIO:
    case FAULT_EIO_POWER: disk_fail_after(n->disk, at, 1, EIO); break;
    case FAULT_ENOSPC: disk_fail_after(n->disk, at, 1, ENOSPC); break;
    case FAULT_FULL: disk_fail_writes_after(n->disk, at, FULL_CALLS, ENOSPC); break;
    case FAULT_SHORT:
        disk_short_after(n->disk, at);
        disk_die_after(n->disk, at + 1);
        break;
    case FAULT_KILL:
    case FAULT_POWER: disk_die_after(n->disk, at); break;
    case FAULT_COUNT: break;
    }
}

/* After a death the node starts until it is up; with `again` the first start dies, too. */
static void revive(struct node *n, bool power, int64_t again)
{
    bool cut = power;
    node_die(n, power);
    if (again >= 0) {
        disk_die_after(n->disk, (uint64_t)again);
        int err = node_start(n);
        if (err < 0 || disk_is_dead(n->disk)) {
            torture_cover("died during a recovery");
            node_die(n, power);
        } else {
            disk_disarm(n->disk);
        }
    }
    if (n->log == NULL) {
        int err = node_start(n);
        if (err < 0)
            torture_fail("does not start: %s", strerror(-err));
    }
    node_check_after_death(n, cut);
}

/* The end of each run: what a clean stop leaves, by the reader of our own, and a start on it. */
static void finish(struct node *n, bool power)
{
    if (!node_is_up(n))
        revive(n, power, -1);
    disk_disarm(n->disk);
    if (node_stop(n) < 0)
        torture_fail("does not stop, and nothing is wrong with the disk");
    node_check_files(n);
    if (node_start(n) < 0)
        torture_fail("does not start after a clean stop");
    node_check_content(n);
}

bool fault_run(const struct theme *theme, enum fault fault, uint64_t seed, uint64_t at, int64_t again)
{
    snprintf(torture_replay, sizeof torture_replay,
             "--theme %s --fault %s --seed %" PRIu64 " --call %" PRIu64 " --again %" PRId64, theme->name,
             fault_names[fault], seed, at, again);
    struct node *n = node_new(theme, seed);
    bool power = fault == FAULT_POWER;
    arm(n, fault, at);
    int err = node_start(n);
    if (err < 0)
        revive(n, power, again);
    for (int i = 0; i < LIFE_STEPS; i++) {
        if (!node_step(n))
            revive(n, power, again);
    }
    bool met = disk_changes(n->disk) > at;
    /* A second cut, of whatever was not flushed since. */
    if (power || fault == FAULT_EIO_POWER) {
        revive(n, true, -1);
        torture_cover("power cut");
    }
    finish(n, power);
    node_free(n);
    return met;
}

static void each_call(const struct theme *theme, enum fault fault, uint64_t seed, uint64_t share)
{
    struct dice dice = {seed ^ 0x5eed};
    bool met = true;
    uint64_t at = 0;
    for (; met; at++) {
        if (at > CALLS_MAX)
            torture_fail("no end of it");
        if (dice_below(&dice, share) > 0)
            continue;
        met = fault_run(theme, fault, seed, at, -1);
        if (met && (fault == FAULT_KILL || fault == FAULT_POWER))
            (void)fault_run(theme, fault, seed, at, (int64_t)dice_below(&dice, 60));
    }
    if (torture_verbose || share == 1)
        printf("%s, %s: every one of %" PRIu64 " calls\n", theme->name, fault_names[fault], at);
}

void fault_all(const struct theme *theme, enum fault fault, uint64_t seed, uint64_t share)
{
    for (size_t t = 0; t < theme_count; t++) {
        for (int f = 0; f < FAULT_COUNT; f++) {
            if ((theme == NULL || theme == &themes[t]) && (fault == FAULT_COUNT || (int)fault == f))
                each_call(&themes[t], (enum fault)f, seed, share);
        }
    }
}
