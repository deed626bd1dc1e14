"""Short runs of scripts/jepsen and scripts/kills: every kind of client, processes killed and frozen two at a time; then one fault at a
time, each of them once. What clients saw is judged; the times are not."""
import os
import random
import sys

import pytest

import harness
import namespaces

SECONDS = 25
needs_hosts = pytest.mark.skipif(namespaces.missing() is not None, reason=str(namespaces.missing()))


def run(folder, *command):
    """A seed that fails can be run again with KARST_TEST_SEED; the history stays in the folder of the run."""
    seed = os.environ.get("KARST_TEST_SEED", str(random.randrange(1 << 30)))
    path = os.path.join(harness.ROOT, "tests", *command[0].split("/"))
    outcome = harness.run([sys.executable, "-B", path, *command[1:], "--seed", seed, "--out", os.path.join(folder, "out")], timeout=500)
    print(outcome)
    assert outcome.status == 0, str(outcome)


def test_several_at_a_time(own_folder):
    run(own_folder, "jepsen/jepsen.py", "--minutes", str(SECONDS / 60), "--pause", "2", "--life", "5")


@pytest.mark.parametrize("kinds", ["kill,stop,disk", pytest.param("cut,oneway", marks=needs_hosts)])
def test_one_at_a_time(own_folder, kinds):
    run(own_folder, "kills/kills.py", "--each", "5", "--only", kinds, "--stop-s", "1", "--peers", "karst")


def test_a_run_that_does_nothing_proves_nothing(own_folder):
    path = os.path.join(harness.ROOT, "tests", "kills", "kills.py")
    outcome = harness.run([sys.executable, "-B", path, "--each", "0", "--out", os.path.join(own_folder, "out")], timeout=60)
    assert outcome.status == 64 and "nothing to do" in outcome.out, str(outcome)
