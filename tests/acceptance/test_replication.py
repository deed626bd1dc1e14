"""Three replicas of each partition on three storage nodes: acks=all, what a client is told while some are gone, nodes killed and stopped
under load, and the replicas' files, which are the same byte for byte."""
import os
import random
import signal
import time

import confluent_kafka
import confluent_kafka.admin
import pytest

import ask
import harness
from harness import wait_until
from test_kill import PARTITIONS, Load, check_contents

NODES = (1, 2, 3)
CONFIG = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500", "replica.lag.time.max.ms": "3000"}


@pytest.fixture
def three(own_folder):
    cluster = harness.Karst(own_folder, storage=3, config=CONFIG)
    cluster.start()
    yield cluster
    cluster.close_sound()


def create(cluster, topic, partitions, **config):
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.address})
    admin.create_topics([confluent_kafka.admin.NewTopic(topic, partitions, replication_factor=3, config=config)],
                        request_timeout=20)[topic].result()


def partitions_of(cluster, topic):
    answer = cluster.ask("Metadata", 9, {"Topics": [{"Name": topic}]})["Topics"][0]
    return {p["PartitionIndex"]: p for p in answer["Partitions"]}


def all_in_sync(cluster, topic):
    return all(sorted(p["IsrNodes"]) == list(NODES) for p in partitions_of(cluster, topic).values())


def folder_of(cluster, node):
    return cluster.data if node == 1 else f"{cluster.data}.storage/{node}"


def log_bytes(cluster, node, topic, partition):
    folder = f"{folder_of(cluster, node)}/{topic}-{partition}"
    return {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder)) if name.endswith(".log")}


def same_everywhere(cluster, topic, partitions):
    for partition in range(partitions):
        first = log_bytes(cluster, NODES[0], topic, partition)
        if any(log_bytes(cluster, node, topic, partition) != first for node in NODES[1:]):
            return False
    return True


def produce(cluster, topic, partition, values, acks="all", timeout_ms=30000, **more):
    """(offsets, error codes) of values sent one after the other by a client that does not try again."""
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.address, "acks": acks, "retries": 0, "linger.ms": 0,
                                         "request.timeout.ms": timeout_ms, "message.timeout.ms": 2 * timeout_ms, **more})
    offsets, errors = [], []
    for value in values:
        producer.produce(topic, value, partition=partition,
                         on_delivery=lambda e, m: errors.append(e.code()) if e else offsets.append(m.offset()))
        producer.flush(2 * timeout_ms / 1000 + 5)
    return offsets, errors


def test_kills_under_load_lose_nothing_and_leave_the_same_files(three):
    seed = int(os.environ.get("KARST_TEST_SEED", random.randrange(1 << 30)))
    rng = random.Random(seed)
    print(f"KARST_TEST_SEED={seed}")
    create(three, "load", PARTITIONS, **{"min.insync.replicas": "2"})
    load = Load(three, "load")
    load.start()
    wait_until(lambda: sum(map(len, load.acked)) > 200, 30, "the load")
    pauses = []
    for kill in range(8):
        # A follower and the leader of partition 0 in turn; each is the other for the other partitions.
        leader = partitions_of(three, "load")[0]["LeaderId"]
        node = leader if kill % 2 else rng.choice([n for n in NODES if n != leader])
        three.kill("storage", node, signal.SIGTERM if kill in (2, 5) else signal.SIGKILL)
        killed = time.monotonic()
        before = [len(a) for a in load.acked]
        wait_until(lambda: all(len(a) > b for a, b in zip(load.acked, before)), 60,
                   f"an acknowledgement in each partition after node {node} was killed (seed {seed})")
        pauses.append(round(time.monotonic() - killed, 2))
        wait_until(lambda: all_in_sync(three, "load"), 60, f"node {node} in sync again (seed {seed})")
    load.stopping.set()
    load.join(90)
    print("until all partitions were acknowledged again, in seconds:", sorted(pauses, reverse=True))
    assert load.left == 0 and not load.errors, (load.left, load.errors[:5])
    check_contents(three, load)
    wait_until(lambda: same_everywhere(three, "load", PARTITIONS), 30, "the same bytes in all replicas")


def test_acks_all_waits_for_the_others_and_says_so(three):
    """With both followers stopped an append is written, but not committed: REQUEST_TIMED_OUT, and consumers do not see it."""
    create(three, "wait", 1)
    assert produce(three, "wait", 0, [b"0", b"1"]) == ([0, 1], [])
    leader = partitions_of(three, "wait")[0]["LeaderId"]
    followers = [n for n in NODES if n != leader]
    pids = [three.process("storage", n)["pid"] for n in followers]
    body = {"Acks": -1, "TimeoutMs": 300, "TopicData": [{"Name": "wait", "PartitionData": [
        {"Index": 0, "Records": ask.batch([(None, b"2")]).hex()}]}]}
    consumer = confluent_kafka.Consumer({"bootstrap.servers": three.address, "group.id": "none"})
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        answer = three.ask("Produce", 9, body)["Responses"][0]["PartitionResponses"][0]
        assert answer["ErrorCode"] == 7, answer
        assert consumer.get_watermark_offsets(confluent_kafka.TopicPartition("wait", 0), 20) == (0, 2)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: harness.watermarks(consumer, "wait") == (0, 3), 60, "the record that was timed out")
    consumer.close()


def test_too_few_in_sync_replicas(three):
    create(three, "few", 1, **{"min.insync.replicas": "3"})
    assert produce(three, "few", 0, [b"0"]) == ([0], [])
    victim = next(n for n in NODES if n != partitions_of(three, "few")[0]["LeaderId"])
    pid = three.process("storage", victim)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: len(partitions_of(three, "few")[0]["IsrNodes"]) == 2, 60, "a smaller ISR")
        assert produce(three, "few", 0, [b"lost"]) == ([], [19])
        assert produce(three, "few", 0, [b"1"], acks="1") == ([1], [])
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: all_in_sync(three, "few"), 60, "the whole ISR")
    assert produce(three, "few", 0, [b"2"]) == ([2], [])


def delete_records(cluster, topic, offset, timeout_ms):
    body = {"Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": offset}]}], "TimeoutMs": timeout_ms}
    row = cluster.ask("DeleteRecords", 2, body)["Topics"][0]["Partitions"][0]
    return row["ErrorCode"], row["LowWatermark"]


def test_deleted_records_are_gone_from_every_replica(three):
    """The answer waits for all that are alive; whoever leads next does not bring them back."""
    create(three, "gone", 1)
    assert produce(three, "gone", 0, [b"%d" % i for i in range(10)]) == (list(range(10)), [])
    assert delete_records(three, "gone", 5, 20000) == (0, 5)
    leader = partitions_of(three, "gone")[0]["LeaderId"]
    stopped = three.process("storage", next(n for n in NODES if n != leader))["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert delete_records(three, "gone", 7, 1000)[0] == 7
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: all_in_sync(three, "gone"), 60, "the whole ISR")
    assert delete_records(three, "gone", 7, 20000) == (0, 7)
    three.kill("storage", leader, signal.SIGSTOP)
    try:
        wait_until(lambda: partitions_of(three, "gone")[0]["LeaderId"] not in (leader, -1), 60, "another leader")
        consumer = confluent_kafka.Consumer({"bootstrap.servers": three.address, "group.id": "none"})
        wait_until(lambda: harness.watermarks(consumer, "gone") == (7, 10), 30, "the new leader's bounds")
        consumer.close()
    finally:
        three.kill("storage", leader, signal.SIGCONT)
