"""A short run of scripts/jepsen: every kind of client, processes killed and frozen two at a time, and a judged history."""
import os
import random
import sys

import harness

SECONDS = 40


def test_a_short_run_is_valid(own_folder):
    seed = int(os.environ.get("KARST_TEST_SEED", random.randrange(1 << 30)))
    outcome = harness.run([sys.executable, "-B", os.path.join(harness.ROOT, "tests", "jepsen", "jepsen.py"), "--minutes", str(SECONDS / 60),
                           "--seed", str(seed), "--pause", "2", "--life", "5", "--out", own_folder], timeout=400)
    print(outcome)
    assert outcome.status == 0, str(outcome)
