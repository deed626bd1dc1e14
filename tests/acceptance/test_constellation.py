"""Several storage nodes, controllers and front ends on one machine: how they are started, shown, and live without each other."""
import os
import re
import signal

import confluent_kafka
import confluent_kafka.admin
import pytest

import harness
from harness import KARST, ran, run, wait_until


@pytest.fixture(scope="module")
def three(folder):
    """Three storage nodes and controllers behind two front ends; tests leave all of it running."""
    cluster = harness.Karst(os.path.join(folder, "three"), storage=3, controllers=3, frontends=2)
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture
def own_three(own_folder):
    """Not started yet; of this test alone."""
    cluster = harness.Karst(own_folder, storage=3, controllers=3)
    yield cluster
    cluster.close()


def create(cluster, topic, partitions, **more):
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.address})
    admin.create_topics([confluent_kafka.admin.NewTopic(topic, partitions, **more)], request_timeout=20)[topic].result()


def leaders(cluster, topic):
    answer = cluster.ask("Metadata", 9, {"Topics": [{"Name": topic}]})["Topics"][0]
    return {p["PartitionIndex"]: p["LeaderId"] for p in answer["Partitions"]}


def produced(cluster, topic, partition, values):
    """The offsets of values, each acknowledged."""
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.address, "acks": "all", "message.timeout.ms": 30000})
    offsets, errors = [], []
    for value in values:
        producer.produce(topic, value, partition=partition,
                         on_delivery=lambda e, m: errors.append(e) if e else offsets.append(m.offset()))
    producer.flush(40)
    assert not errors and len(offsets) == len(values), errors
    return offsets


def consumed(cluster, topic, partitions, count):
    """count values of the partitions, from their beginnings, by one consumer."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "none", "enable.auto.commit": False,
                                         "auto.offset.reset": "earliest"})
    consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])
    values = []

    def enough():
        values.extend(m.value() for m in consumer.consume(1000, 0.2) if not m.error())
        return len(values) >= count
    wait_until(enough, 40, f"{count} records")
    consumer.close()
    return values


def test_status_shows_all(three):
    rows = [(p["role"], p["id"], p["state"], p["restarts"]) for p in three.status()]
    assert rows == [(role, i, "running", 0) for role, ids in (("controller", (1, 2, 3)), ("storage", (1, 2, 3)), ("frontend", (1, 2)),
                                                             ("group", (1,)), ("txn", (1,))) for i in ids]
    status = three.whole_status()
    assert [(d["node"], d["path"], d["state"]) for d in status["directories"]] == [
        (1, three.data, "online"), (2, f"{three.data}.storage/2", "online"), (3, f"{three.data}.storage/3", "online")]
    table = ran([KARST, "status", "--data", three.data])
    assert f"directory {three.data}.storage/3: online" in table and "controller 3: " in table


def test_folders_are_kafkas(three):
    """A folder a node, with a meta.properties of its own, of one cluster."""
    seen = {}
    for node, path in ((1, three.data), (2, f"{three.data}.storage/2"), (3, f"{three.data}.storage/3")):
        with open(os.path.join(path, "meta.properties"), encoding="utf-8") as f:
            seen[node] = dict(line.strip().split("=", 1) for line in f if "=" in line)
    assert {n: m["node.id"] for n, m in seen.items()} == {1: "1", 2: "2", 3: "3"}
    assert len({m["cluster.id"] for m in seen.values()}) == 1 and len({m["directory.id"] for m in seen.values()}) == 3


def test_each_broker_has_an_address_and_both_front_ends_say_the_same(three):
    answers = [three.ask("Metadata", 9, {"Topics": []}, port=three.port + shift)["Brokers"] for shift in (0, 100)]
    assert answers[0] == answers[1]
    places = {b["NodeId"]: b["Port"] - three.port for b in answers[0]}
    assert sorted(places) == [1, 2, 3] and all(place in (n, 100 + n) for n, place in places.items()), places
    for shift in (0, 1, 2, 3, 100, 101, 102, 103):  # any front end serves any broker's port
        assert len(three.ask("DescribeCluster", 0, {}, port=three.port + shift)["Brokers"]) == 3


def test_partitions_are_spread_and_served(three):
    create(three, "spread", 6, replication_factor=1)
    assert sorted(leaders(three, "spread").values()) == [1, 1, 2, 2, 3, 3]
    for partition in range(6):
        assert produced(three, "spread", partition, [b"%d-%d" % (partition, i) for i in range(50)]) == list(range(50))
    values = consumed(three, "spread", range(6), 300)
    assert sorted(values) == sorted(b"%d-%d" % (p, i) for p in range(6) for i in range(50))
    for node, path in ((1, three.data), (2, f"{three.data}.storage/2"), (3, f"{three.data}.storage/3")):
        there = {p for p in range(6) if os.path.isdir(f"{path}/spread-{p}")}
        assert there == {p for p, leader in leaders(three, "spread").items() if leader == node}


def test_a_storage_node_dies_and_the_others_go_on(own_three):
    own_three.start()
    create(own_three, "t", 3, replication_factor=1)
    by_node = {node: p for p, node in leaders(own_three, "t").items()}
    before = {p["id"]: p["pid"] for p in own_three.status() if p["role"] == "storage"}
    own_three.kill("storage", 2, signal.SIGSTOP)  # it does not come back before the others were asked
    try:
        for node in (1, 3):
            assert produced(own_three, "t", by_node[node], [b"x"] * 10) == list(range(10))
            assert consumed(own_three, "t", [by_node[node]], 10) == [b"x"] * 10
    finally:
        own_three.kill("storage", 2)
    wait_until(lambda: own_three.process("storage", 2)["pid"] not in (before[2], None), 20, "a new storage process")
    assert produced(own_three, "t", by_node[2], [b"y"] * 10) == list(range(10))
    assert {p["id"]: p["restarts"] for p in own_three.status() if p["role"] == "storage"} == {1: 0, 2: 1, 3: 0}
    assert all(own_three.process("storage", n)["pid"] == before[n] for n in (1, 3))


def spoil(path):
    """Makes a folder another node's, which no start forgives; returns what puts it right."""
    path = os.path.join(path, "meta.properties")
    with open(path, encoding="utf-8") as f:
        text = f.read()

    def write(content):
        with open(path, "w", encoding="utf-8") as f:
            f.write(content)
    write(re.sub(r"node\.id=\d+", "node.id=77", text))
    return lambda: write(text)


@pytest.mark.parametrize("role, folder_of", [("storage", "storage"), ("controller", "controllers")])
def test_one_that_cannot_start_stays_down_alone(own_three, role, folder_of):
    own_three.start()
    create(own_three, "t", 3, replication_factor=1)
    by_node = {node: p for p, node in leaders(own_three, "t").items()}
    mend = spoil(f"{own_three.data}.{folder_of}/3")
    own_three.kill(role, 3)
    wait_until(lambda: own_three.process(role, 3)["state"] == "down", 60, "down")
    assert f"{role}-3 " in own_three.log() and "it stays down, and is tried again" in own_three.log()
    assert re.search(rf"^{role} +3 +0 +down", ran([KARST, "status", "--data", own_three.data]), re.M)
    create(own_three, "meanwhile", 1, replication_factor=1)
    assert produced(own_three, "t", by_node[1], [b"x"] * 10) == list(range(10))
    mend()
    wait_until(lambda: own_three.process(role, 3)["state"] == "running" and own_three.is_whole(), 60, "it to be back")
    assert produced(own_three, "t", by_node[3], [b"z"] * 10) == list(range(10))


def test_a_removed_controller_stays_removed_after_a_restart(own_three):
    own_three.start()

    def voters():
        answer = own_three.ask("DescribeQuorum", 2, harness.QUORUM)
        p = answer["Topics"][0]["Partitions"][0]
        return {v["ReplicaId"] for v in p["CurrentVoters"]}, {v["ReplicaId"] for v in p["Observers"]}
    with open(f"{own_three.data}.controllers/3/meta.properties", encoding="utf-8") as f:
        directory = re.search(r"directory\.id=(\S+)", f.read())[1]
    remove = own_three.tool("metadata-quorum", "remove-controller", "--controller-id", "3", "--controller-directory-id", directory)
    assert remove.status == 0, str(remove)
    own_three.kill("controller", 3)
    wait_until(lambda: voters() == ({1, 2}, {3}), 30, "an observer")
    own_three.stop()
    outcome = run(own_three.up_command("-d"), timeout=90)
    assert outcome.status == 0, str(outcome)
    wait_until(lambda: voters() == ({1, 2}, {3}), 30, "an observer")
    create(own_three, "t", 3, replication_factor=1)
    assert voters() == ({1, 2}, {3})


def test_as_many_as_there_are_folders(own_three):
    own_three.start()
    create(own_three, "t", 6, replication_factor=1)
    for partition in range(6):
        produced(own_three, "t", partition, [b"%d" % partition])
    own_three.stop()
    fewer = run([KARST, "up", "--data", own_three.data, "--listen", own_three.address, "--storage", "2"], timeout=30)
    assert fewer.status == 1 and "3 storage nodes" in fewer.err and "would be offline" in fewer.err, str(fewer)
    own_three.nodes = {}
    own_three.start()
    wait_until(own_three.is_whole, 40, "all of them")
    assert own_three.ids("storage") == own_three.ids("controller") == [1, 2, 3]
    assert sorted(consumed(own_three, "t", range(6), 6)) == [b"%d" % p for p in range(6)]


def test_a_cluster_of_one_becomes_one_of_three(own_folder):
    cluster = harness.Karst(own_folder, port=harness.free_port([*range(4), *harness.CONTROLLER_PORTS]))
    try:
        cluster.start()
        create(cluster, "old", 2, replication_factor=1)
        produced(cluster, "old", 0, [b"x"] * 5)
        assert cluster.ask("Metadata", 9, {"Topics": []})["Brokers"][0]["Port"] == cluster.port  # alone it is at the port itself
        cluster.stop()
        cluster.nodes = {"storage": 3}
        cluster.start()
        assert set(leaders(cluster, "old").values()) == {1}
        assert consumed(cluster, "old", [0], 5) == [b"x"] * 5
        create(cluster, "new", 3, replication_factor=1)
        assert set(leaders(cluster, "new").values()) == {1, 2, 3}
    finally:
        cluster.close()


def test_a_folder_of_another_is_refused(own_three):
    own_three.start()
    own_three.stop()
    mend = spoil(f"{own_three.data}.storage/2")
    outcome = run(own_three.up_command(), timeout=30)
    assert outcome.status == 1 and f"{own_three.data}.storage/2 is not of storage 2" in outcome.err, str(outcome)
    mend()
    os.rename(f"{own_three.data}.storage/3", f"{own_three.data}.storage/kept")
    os.makedirs(f"{own_three.data}.storage/3/holiday-pictures")
    outcome = run(own_three.up_command(), timeout=30)
    assert outcome.status == 1 and "holiday-pictures" in outcome.err, str(outcome)


def test_wrong_counts():
    for arguments in (["--storage", "0"], ["--storage", "17"], ["--storage", "three"], ["--frontends", "9"], ["--frontends", "-1"]):
        outcome = run([KARST, "up", "--data", "/tmp/never", *arguments])
        assert outcome.status == 64 and arguments[0] in outcome.err, str(outcome)
