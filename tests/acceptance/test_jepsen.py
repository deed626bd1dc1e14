"""Short runs of scripts/jepsen and scripts/kills: every kind of client, processes killed and frozen two at a time; then one fault at a
time, each of them once. What clients saw is judged; the times are not."""
import os
import random
import sys

import pytest

import harness

SECONDS = 25


def run(folder, *command):
    """A seed that fails can be run again with KARST_TEST_SEED; the history stays in the folder of the run."""
    seed = os.environ.get("KARST_TEST_SEED", str(random.randrange(1 << 30)))
    path = os.path.join(harness.ROOT, "tests", *command[0].split("/"))
    outcome = harness.run([sys.executable, "-B", path, *command[1:], "--seed", seed, "--out", os.path.join(folder, "out")], timeout=500)
    print(outcome)
    assert outcome.status == 0, str(outcome)


def test_several_at_a_time(own_folder):
    run(own_folder, "jepsen/jepsen.py", "--minutes", str(SECONDS / 60), "--pause", "2", "--life", "5")


@pytest.mark.parametrize("kinds", ["kill,stop,disk", "cut,oneway"])
def test_one_at_a_time(own_folder, kinds):
    run(own_folder, "kills/kills.py", "--each", "1", "--only", kinds, "--stop-s", "1", "--peers", "karst")
