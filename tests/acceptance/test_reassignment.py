"""Partitions with data move between storage nodes by kafka-reassign-partitions while they are written: they grow, move, shrink, are held back
by the tool's throttles, cancelled, and survive kills; no acknowledged record is lost, and what has left leaves no files."""
import json
import os
import re
import time

import confluent_kafka
import confluent_kafka.admin
import pytest

import harness
from harness import wait_until
from test_moves import PARTITIONS, Load, fill, read_all
from test_replication import log_bytes, partitions_of

NODES = (1, 2, 3, 4)
RATES = ("leader.replication.throttled.rate", "follower.replication.throttled.rate")
THROTTLED = ("leader.replication.throttled.replicas", "follower.replication.throttled.replicas")
DIRECTORIES_RATE = "replica.alter.log.dirs.io.max.bytes.per.second"


@pytest.fixture(scope="module")
def four(folder):
    """Four storage nodes; the first has two directories."""
    path = os.path.join(folder, "four")
    cluster = harness.Karst(path, storage=4, config={
        "log.dirs": f"{path}/data,{path}/second", "log.segment.delete.delay.ms": "500", "broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500",
        "replica.lag.time.max.ms": "3000"})
    cluster.start()
    yield cluster
    cluster.close_sound()


def directories_of(cluster, node):
    return [cluster.data, os.path.join(cluster.folder, "second")] if node == 1 else [f"{cluster.data}.storage/{node}"]


def create(cluster, topic, assignments, **configs):
    """assignments: the replicas of each partition, in order."""
    entries = [{"Name": k.replace("_", "."), "Value": str(v)} for k, v in configs.items()]
    answer = cluster.ask("CreateTopics", 7, {"Topics": [{"Name": topic, "NumPartitions": -1, "ReplicationFactor": -1, "Configs": entries, "Assignments": [
        {"PartitionIndex": p, "BrokerIds": replicas} for p, replicas in enumerate(assignments)]}], "timeoutMs": 20000})
    assert answer["Topics"][0]["ErrorCode"] == 0, answer


def plan(cluster, topic, assignments, directories=None):
    """The tool's file; assignments: partition to replicas; directories: partition to one directory a replica."""
    path = os.path.join(cluster.folder, f"{topic}.json")
    rows = [{"topic": topic, "partition": p, "replicas": replicas, **({"log_dirs": directories[p]} if directories and p in directories else {})}
            for p, replicas in assignments.items()]
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"version": 1, "partitions": rows}, f)
    return path


def reassign(cluster, path, action, *more, status=0):
    outcome = cluster.tool("reassign-partitions", "--reassignment-json-file", path, action, *more)
    assert outcome.status == status, str(outcome)
    return outcome.out


def moves(cluster):
    """What is under way: (topic, partition) to replicas, those that come and those that go."""
    answer = cluster.ask("ListPartitionReassignments", 0, {"TimeoutMs": 5000, "Topics": None})
    return {(t["Name"], p["PartitionIndex"]): (p["Replicas"], p["AddingReplicas"], p["RemovingReplicas"])
            for t in answer["Topics"] for p in t["Partitions"]}


def settled(cluster, topic, assignments):
    """The partitions are where they should be, all in sync, and one of their replicas leads."""
    now = partitions_of(cluster, topic)
    return all(now[p]["ReplicaNodes"] == replicas and sorted(now[p]["IsrNodes"]) == sorted(replicas) and now[p]["LeaderId"] in replicas
               for p, replicas in assignments.items()) and not any(t == topic for t, _ in moves(cluster))


def settle(cluster, topic, assignments, timeout=90):
    wait_until(lambda: settled(cluster, topic, assignments), timeout, f"{topic} at {assignments}")


def folders(cluster, topic, partition):
    """Nodes that have the partition's folder, whatever it is called while it comes or goes."""
    found = {}
    for node in NODES:
        names = [name for path in directories_of(cluster, node) for name in os.listdir(path) if name.startswith(f"{topic}-{partition}") and
                 name[len(f"{topic}-{partition}"):][:1] in ("", ".", "-")]
        if names:
            found[node] = names
    return found


def only_there(cluster, topic, assignments):
    wait_until(lambda: all(sorted(folders(cluster, topic, p)) == sorted(replicas) for p, replicas in assignments.items()), 60,
               f"the files of {topic} to be at {assignments} alone")


def configs(cluster, kind, name, keys):
    """Dynamic values of a topic (2) or broker (4), as far as they are set."""
    answer = cluster.ask("DescribeConfigs", 4, {"Resources": [{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": list(keys)}]},
                         port=cluster.port if kind == 2 else cluster.port + int(name))["Results"][0]
    assert answer["ErrorCode"] == 0, answer
    return {c["Name"]: c["Value"] for c in answer["Configs"] if c["ConfigSource"] in (1, 2)}


def throttles_are_gone(cluster, topic):
    return not configs(cluster, 2, topic, THROTTLED) and not any(configs(cluster, 4, str(n), (*RATES, DIRECTORIES_RATE)) for n in NODES)


def size_at(cluster, node, topic, partition):
    total = 0
    for path in directories_of(cluster, node):
        folder = f"{path}/{topic}-{partition}"
        try:
            total += sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name.endswith(".log"))
        except OSError:
            pass
    return total


def test_partitions_grow_move_and_shrink_under_load(four):
    """1 replica, 3, 3 on other nodes, 1: each step by the tool, under an idempotent load; then nothing is left of what went."""
    create(four, "steps", [[1], [2], [3], [4]])
    fill(four, "steps", 2000)
    load = Load(four, "steps")
    load.start()
    wait_until(lambda: load.count() > 500, 30, "the load")
    steps = ({0: [1, 2, 3], 1: [2, 3, 4], 2: [3, 4, 1], 3: [4, 1, 2]}, {0: [4, 2, 3], 1: [4, 3, 1], 2: [2, 1, 4], 3: [1, 2, 3]},
             {0: [2, 3], 1: [1], 2: [4], 3: [3]})
    for assignments in steps:
        path = plan(four, "steps", assignments)
        out = reassign(four, path, "--execute")
        assert "Successfully started partition reassignments for steps-0,steps-1,steps-2,steps-3" in out, out
        settle(four, "steps", assignments)
        before = load.count()
        wait_until(lambda: load.count() > before + 200, 60, "the load goes on")
        out = reassign(four, path, "--verify")
        assert re.findall(r"Reassignment of partition steps-(\d) is completed\.", out) == ["0", "1", "2", "3"], out
        only_there(four, "steps", assignments)
    assert four.tool("reassign-partitions", "--list").out.split("\n")[-2] == "No partition reassignments found."
    load.finish()
    check_all(four, load, 2000)
    wait_until(lambda: log_bytes(four, 2, "steps", 0) == log_bytes(four, 3, "steps", 0), 30, "the same bytes")


def check_all(cluster, load, filled):
    """What fill wrote first, then what the load was told: each once, in order, and nothing else."""
    for partition in range(load.partitions):
        found = read_all(cluster, load.topic, partition)
        numbers = [int(found[offset][:12]) for offset in sorted(found)]
        first = filled // load.partitions
        assert numbers[:first] == [partition + load.partitions * i for i in range(first)]
        assert numbers[first:] == list(range(len(numbers) - first)), f"{partition}: lost, doubled or out of order"
        assert all(found.get(offset) is not None and int(found[offset][:12]) == n for offset, n in load.acked[partition].items())


def test_the_tools_throttle_bounds_a_move_and_goes_with_it(four):
    """--throttle writes rates and replicas, what moves keeps to it, more of it is let through later, and --verify takes it away."""
    rate = 200_000
    create(four, "braked", [[1, 2], [2, 1]])
    fill(four, "braked", 8000, partitions=2)  # four MB a partition, of which ten seconds' worth go at once
    assignments = {0: [3, 2], 1: [4, 1]}
    path = plan(four, "braked", assignments)
    began = time.monotonic()
    out = reassign(four, path, "--execute", "--throttle", str(rate))
    assert f"The inter-broker throttle limit was set to {rate} B/s" in out, out
    for node in NODES:
        assert configs(four, 4, str(node), RATES) == dict.fromkeys(RATES, str(rate)), node
    assert configs(four, 2, "braked", THROTTLED) == {
        "leader.replication.throttled.replicas": "0:1,0:2,1:1,1:2", "follower.replication.throttled.replicas": "0:3,1:4"}
    wait_until(lambda: size_at(four, 3, "braked", 0) >= 5 * rate and size_at(four, 4, "braked", 1) >= 5 * rate, 60, "the first records")
    for _ in range(30):
        for node, partition in ((3, 0), (4, 1)):  # what one answer brings beyond the rate is a megabyte
            there, since = size_at(four, node, "braked", partition), time.monotonic() - began
            assert there <= rate * (10 + since) + (2 << 20), f"{there} bytes in {since:.1f} s at node {node}"
        time.sleep(0.1)
    assert moves(four) == {("braked", 0): ([3, 2, 1], [3], [1]), ("braked", 1): ([4, 1, 2], [4], [2])}
    listed = four.tool("reassign-partitions", "--list").out
    assert "braked-0: replicas: 3,2,1. adding: 3. removing: 1." in listed, listed
    out = reassign(four, path, "--verify")
    assert out.count("is still in progress.") == 2 and configs(four, 4, "3", RATES), out
    assert partitions_of(four, "braked")[0]["LeaderId"] == 1, "who is in sync leads on"
    out = reassign(four, path, "--execute", "--additional", "--throttle", "100000000")
    settle(four, "braked", assignments)
    out = reassign(four, path, "--verify")
    assert "Clearing broker-level throttles on brokers 1,2,3,4" in out and "Clearing topic-level throttles on topic braked" in out, out
    assert throttles_are_gone(four, "braked")
    only_there(four, "braked", assignments)


def held_back(cluster, topic, now, then, count=8000):
    """A move of partition 0 that will not end by itself: its path, with the first records at the new replicas."""
    create(cluster, topic, [now])
    fill(cluster, topic, count, partitions=1)
    path = plan(cluster, topic, {0: then})
    reassign(cluster, path, "--execute", "--throttle", "100000")
    coming = [n for n in then if n not in now]
    wait_until(lambda: all(size_at(cluster, n, topic, 0) > 0 for n in coming), 60, "the first records")
    assert (topic, 0) in moves(cluster)
    return path


def test_a_cancel_in_the_middle(four):
    """All is as before: replicas, leader, no throttle, and no files where the new replicas were being made. Of these both had some records
    soon: the leader's throttle lets neither have all."""
    path = held_back(four, "cancelled", [1, 2], [3, 4])
    leader = partitions_of(four, "cancelled")[0]["LeaderId"]
    out = reassign(four, path, "--cancel")
    assert "Successfully cancelled partition reassignment for: cancelled-0" in out, out
    settle(four, "cancelled", {0: [1, 2]})
    assert partitions_of(four, "cancelled")[0]["LeaderId"] == leader and throttles_are_gone(four, "cancelled")
    only_there(four, "cancelled", {0: [1, 2]})
    assert len(read_all(four, "cancelled", 0)) == 8000
    again = reassign(four, path, "--cancel")
    assert "None of the specified partition reassignments are active." in again, again


def test_kills_in_the_middle_of_a_move(four):
    """The new replica, then the leader, then both killed while a move is under way and a load writes: it goes on and ends."""
    create(four, "killed", [[1, 2]] * PARTITIONS, min_insync_replicas=1)
    fill(four, "killed", 16000)
    load = Load(four, "killed")
    load.start()
    wait_until(lambda: load.count() > 300, 30, "the load")
    assignments = {p: [3, 4] for p in range(PARTITIONS)}
    path = plan(four, "killed", assignments)
    reassign(four, path, "--execute", "--throttle", "200000")
    for victim in (3, 1, 2, 4):
        assert any(t == "killed" for t, _ in moves(four)), "the move has ended before the kill"
        pid = four.process("storage", victim)["pid"]
        four.kill("storage", victim)
        wait_until(lambda: four.process("storage", victim)["pid"] not in (pid, None), 30, "a new process")
        before = load.count()
        wait_until(lambda: load.count() > before + 100, 60, f"the load goes on after the kill of {victim}")
    reassign(four, path, "--execute", "--additional", "--throttle", "100000000")
    settle(four, "killed", assignments, 120)
    before = load.count()
    wait_until(lambda: load.count() > before + 100, 60, "the load goes on at the new leaders")
    reassign(four, path, "--verify")
    assert throttles_are_gone(four, "killed")
    load.finish()
    check_all(four, load, 16000)
    only_there(four, "killed", assignments)


def test_another_move_takes_the_place_of_one_under_way(four):
    """Who came for the first and is not wanted for the second goes again, with its files."""
    held_back(four, "redone", [1], [2])
    other = plan(four, "redone", {0: [3, 1]})
    outcome = four.tool("reassign-partitions", "--reassignment-json-file", other, "--execute")
    assert outcome.status != 0 and "Cannot execute because there is an existing partition assignment." in outcome.out + outcome.err, str(outcome)
    reassign(four, other, "--execute", "--additional", "--throttle", "100000000")
    settle(four, "redone", {0: [3, 1]})
    only_there(four, "redone", {0: [3, 1]})
    reassign(four, other, "--verify")
    assert throttles_are_gone(four, "redone")
    assert len(read_all(four, "redone", 0)) == 8000


def test_a_move_to_a_directory(four):
    """The plan names a directory of the new replica's node, which it is made in, or moves to when the node is faster than the tool; and
    one of where it is, which it moves to, throttled."""
    second = directories_of(four, 1)[1]
    create(four, "placed", [[2], [1]])
    fill(four, "placed", 6000, partitions=2)
    wait_until(lambda: folders(four, "placed", 1), 20, "its folder")
    home = next(path for path in directories_of(four, 1) if os.path.isdir(f"{path}/placed-1"))
    other = next(path for path in directories_of(four, 1) if path != home)
    assignments = {0: [1, 2], 1: [1]}
    path = plan(four, "placed", assignments, {0: [second, "any"], 1: [other]})
    out = reassign(four, path, "--execute", "--replica-alter-log-dirs-throttle", "100000")
    assert "The replica-alter-dir throttle limit was set to 100000 B/s" in out, out
    assert configs(four, 4, "1", [DIRECTORIES_RATE]) == {DIRECTORIES_RATE: "100000"}
    settle(four, "placed", assignments)
    assert os.path.isdir(f"{home}/placed-1"), "three MB at that rate take half a minute"
    reassign(four, path, "--execute", "--additional", "--replica-alter-log-dirs-throttle", "100000000")
    wait_until(lambda: os.path.isdir(f"{second}/placed-0") and not os.path.isdir(f"{four.data}/placed-0"), 60, "the directory that is named")
    wait_until(lambda: os.path.isdir(f"{other}/placed-1") and not os.path.isdir(f"{home}/placed-1"), 60, "the other directory")
    out = reassign(four, path, "--verify")
    assert "Reassignment of replica placed-0-1 completed successfully." in out and "Reassignment of replica placed-1-1 completed successfully." in out, out
    assert throttles_are_gone(four, "placed")
    assert [len(read_all(four, "placed", p)) for p in range(2)] == [3000, 3000]


def test_what_the_tool_generates_can_be_executed(four):
    create(four, "made", [[1, 2], [2, 1], [1, 2]])
    wanted = os.path.join(four.folder, "made.topics.json")
    with open(wanted, "w", encoding="utf-8") as f:
        json.dump({"version": 1, "topics": [{"topic": "made"}]}, f)
    outcome = four.tool("reassign-partitions", "--topics-to-move-json-file", wanted, "--broker-list", "3,4", "--generate")
    assert outcome.status == 0, str(outcome)
    now, proposed = (json.loads(line) for line in outcome.out.splitlines() if line.startswith("{"))
    assert {r["partition"]: r["replicas"] for r in now["partitions"]} == {0: [1, 2], 1: [2, 1], 2: [1, 2]}
    path = os.path.join(four.folder, "made.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(proposed, f)
    reassign(four, path, "--execute")
    assignments = {r["partition"]: r["replicas"] for r in proposed["partitions"]}
    assert all(sorted(r) == [3, 4] for r in assignments.values())
    settle(four, "made", assignments)
    only_there(four, "made", assignments)
