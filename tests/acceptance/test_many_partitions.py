"""10,000 partitions on one node: what they cost in memory and descriptors, at rest, when each is written to, and after a start."""
import os
import time

import ask
from harness import Karst, wait_until

TOPICS, PARTITIONS = 10, 1000
MEMORY_MIB, DESCRIPTORS = 128, 2000
# UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT (on a busy machine), KAFKA_STORAGE_ERROR (being opened)
RETRIED = {3, 6, 7, 56}


def memory_mib(pids):
    """Proportional set size: what two processes share is half of each."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            total += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    return total / 1024


def descriptors(pids):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def check_bounds(k, when):
    pids = list(k.pids().values())
    memory, open_files = memory_mib(pids), descriptors(pids)
    print(f"{when}: {memory:.1f} MiB, {open_files} descriptors")
    assert memory < MEMORY_MIB, f"{when}: {memory:.1f} MiB"
    assert open_files < DESCRIPTORS, f"{when}: {open_files} descriptors"


def all_lead(k):
    for t in range(TOPICS):
        found = k.ask("Metadata", 9, {"Topics": [{"Name": f"many{t}"}], "AllowAutoTopicCreation": False})["Topics"][0]
        if found["ErrorCode"] != 0 or len(found["Partitions"]) != PARTITIONS or any(p["ErrorCode"] for p in found["Partitions"]):
            return False
    return True


def write_to_each(k, value):
    """Looks at the bounds in the middle of it, too. A partition that is still being opened is tried again."""
    records = ask.batch([(b"key", value)])
    with ask.Connection("127.0.0.1", k.port, 60) as c:
        for t in range(TOPICS):
            left, until = list(range(PARTITIONS)), time.monotonic() + 300
            while left:
                assert time.monotonic() < until, f"{len(left)} partitions of many{t} do not take records"
                body = {"Acks": -1, "TimeoutMs": 30000, "TopicData": [
                    {"Name": f"many{t}", "PartitionData": [{"Index": p, "Records": records} for p in left[:250]]}]}
                answers = c.ask("Produce", 9, body)["Responses"][0]["PartitionResponses"]
                done = {a["Index"] for a in answers if a["ErrorCode"] == 0}
                refused = {a["ErrorCode"] for a in answers} - {0}
                assert refused <= RETRIED, f"errors {refused} of many{t}"
                left = [p for p in left if p not in done]
            if t == TOPICS // 2:
                check_bounds(k, "while they are written to")


def test_ten_thousand_partitions_within_their_bounds(own_folder):
    k = Karst(own_folder).start()
    try:
        for t in range(TOPICS):
            answer = k.ask("CreateTopics", 5, {"Topics": [{"Name": f"many{t}", "NumPartitions": PARTITIONS, "ReplicationFactor": 1,
                                                           "Assignments": [], "Configs": []}], "timeoutMs": 60000, "validateOnly": False})
            assert answer["Topics"][0]["ErrorCode"] == 0
        wait_until(lambda: all_lead(k), timeout=300, what="leaders")
        check_bounds(k, "empty")
        write_to_each(k, b"first")
        check_bounds(k, "written to")
        k.stop()
        k.start()
        wait_until(lambda: all_lead(k), timeout=300, what="leaders after a start")
        check_bounds(k, "started")
        write_to_each(k, b"second")
        check_bounds(k, "written to after a start")
    finally:
        k.close()
