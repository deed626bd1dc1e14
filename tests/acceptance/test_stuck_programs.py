"""A program that starts and then neither serves nor ends: `karst up` finds out who stands still, and `karst restart` replaces it all the same."""
import contextlib
import os
import re
import subprocess

import pytest

import harness
from harness import KARST, run, wait_until

SILENCE_MS = 1500


def program(folder, script):
    """A folder with a group service of our own; what it writes to descriptor 0 is its sign of life."""
    os.makedirs(folder)
    path = os.path.join(folder, "karst-group")
    with open(path, "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\n" + script)
    os.chmod(path, 0o755)
    return folder


def command(karst, *words):
    return [KARST, "restart", "--data", karst.data, *words]


@pytest.mark.parametrize("script, least, most", [("exec sleep 1000\n", SILENCE_MS, 5 * SILENCE_MS), ("while :; do :; done\n", 5 * SILENCE_MS, 10 ** 9)],
                         ids=["stands_still", "is_busy"])
def test_who_runs_has_longer_than_who_stands_still(own_folder, script, least, most):
    """A machine with much to do must not have its front ends killed for it."""
    karst = harness.Karst(own_folder, config={"karst.session.silence.ms": SILENCE_MS})
    with contextlib.closing(karst):
        karst.start()
        outcome = run(command(karst, "group", "--bin", program(os.path.join(own_folder, "bin"), "printf x >&0\n" + script)), timeout=120)
        assert outcome.status == 1 and "was ended by signal 9 before it was ready" in outcome.err, str(outcome)
        silent_ms = [int(ms) for ms in re.findall(r"group has stood still for (\d+) ms: killing it", karst.log())]
        assert len(silent_ms) == 1 and least <= silent_ms[0] < most, silent_ms
        wait_until(lambda: karst.process("group", 1)["bus_version"], 30, "the group service that was there before")


def test_a_program_that_never_serves_is_replaced(own_karst, own_folder):
    own_karst.start()
    before = own_karst.pids()["group"]
    hung = program(os.path.join(own_folder, "bin"), "exec sleep 1000\n")
    with subprocess.Popen(command(own_karst, "group", "--bin", hung), stderr=subprocess.DEVNULL) as asker:
        try:
            wait_until(lambda: own_karst.pids()["group"] not in (before, 0), 30, "the program that never serves")
            for name in ("group", "txn"):
                outcome = run(command(own_karst, name), timeout=60)
                assert outcome.status == 1 and "group-1 is being restarted at this moment" in outcome.err, str(outcome)
        finally:
            asker.kill()
    others = []
    wait_until(lambda: others.append(run(command(own_karst, "txn"), timeout=60)) or "being restarted" not in others[-1].err, 30, "nobody waits any more")
    assert others[-1].status == 1 and "group-1 was restarted, and does not serve yet" in others[-1].err, f"no more than one is away: {others[-1]}"
    wait_until(lambda: run(command(own_karst, "group", "--bin", harness.BIN), timeout=120).status == 0, 60, "the group service again")
    assert own_karst.process("group", 1)["bus_version"]
    assert run(command(own_karst, "txn"), timeout=60).status == 0
