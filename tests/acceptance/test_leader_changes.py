"""Another storage node comes to lead: clients are told as Kafka tells them, and whoever waits goes on at the new leader."""
import os
import signal
import threading

import confluent_kafka
import pytest

import harness
from harness import wait_until
from test_constellation import consumed, create, leaders, produced
from test_kill import PARTITIONS, Load


@pytest.fixture(scope="module")
def three(folder):
    cluster = harness.Karst(os.path.join(folder, "three"), storage=3, frontends=2, config={"broker.session.timeout.ms": "6000"})
    cluster.start()
    yield cluster
    cluster.close()


def partition_of(cluster, topic, partition=0):
    answer = cluster.ask("Metadata", 12, {"Topics": [{"Name": topic}]})["Topics"][0]
    return answer["TopicId"], next(p for p in answer["Partitions"] if p["PartitionIndex"] == partition)


def create_three(cluster, topic, partitions=1):
    """A topic on all nodes, and all of them in sync."""
    create(cluster, topic, partitions, replication_factor=3, config={"min.insync.replicas": "2"})
    wait_whole(cluster, topic)


def wait_whole(cluster, topic):
    def whole():
        answer = cluster.ask("Metadata", 12, {"Topics": [{"Name": topic}]})["Topics"][0]
        return all(len(p["IsrNodes"]) == 3 and p["LeaderId"] >= 0 for p in answer["Partitions"])
    wait_until(whole, 60, "all replicas in sync")


class Frozen:
    """A storage node that does not answer for a while."""

    def __init__(self, cluster, node):
        self.cluster, self.node = cluster, node

    def __enter__(self):
        self.pid = self.cluster.process("storage", self.node)["pid"]
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


def fetch_of(cluster, topic, offset, epoch=-1, wait_ms=40000):
    topic_id, _ = partition_of(cluster, topic)
    return {"MaxWaitMs": wait_ms, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionId": 0, "SessionEpoch": -1, "Topics": [
        {"TopicId": topic_id, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": epoch, "FetchOffset": offset,
                                              "LastFetchedEpoch": -1, "LogStartOffset": -1, "PartitionMaxBytes": 1 << 20}]}]}


def test_parked_fetches_go_on_at_the_new_leader(three):
    """One that named no epoch gets the next record there; one that knows the old epoch is told who leads, and where."""
    create_three(three, "parked")
    assert produced(three, "parked", 0, [b"first"]) == [0]
    _, before = partition_of(three, "parked")
    answers = {}

    def fetch_whole(name, port, epoch):
        answers[name] = three.ask("Fetch", 17, fetch_of(three, "parked", 1, epoch), port=port)
    waiting = [threading.Thread(target=fetch_whole, args=a) for a in (("any", three.port, -1), ("other", three.port + 100, -1),
                                                                      ("old", three.port, before["LeaderEpoch"]))]
    for w in waiting:
        w.start()
    waiting[0].join(0.3)
    assert not answers
    with Frozen(three, before["LeaderId"]):
        wait_until(lambda: leaders(three, "parked")[0] not in (-1, before["LeaderId"]), 40, "another leader")
        waiting[2].join(20)
        _, now = partition_of(three, "parked")
        (told,) = answers["old"]["Responses"][0]["Partitions"]
        assert told["ErrorCode"] == 74 and told["CurrentLeader"] == {"LeaderId": now["LeaderId"], "LeaderEpoch": now["LeaderEpoch"]}, told
        place = next(b for b in three.ask("Metadata", 12, {"Topics": []})["Brokers"] if b["NodeId"] == now["LeaderId"])
        (at,) = answers["old"]["NodeEndpoints"]
        assert (at["NodeId"], at["Host"], at["Port"]) == (place["NodeId"], place["Host"], place["Port"])
        assert produced(three, "parked", 0, [b"second"]) == [1]
        for w, name in zip(waiting[:2], ("any", "other")):
            w.join(20)
            (got,) = answers[name]["Responses"][0]["Partitions"]
            assert got["ErrorCode"] == 0 and got["Records"], got
    wait_whole(three, "parked")


def test_a_frozen_leader_stops_nobody(three):
    """Under load with acks=all, each leader in turn: producer and consumer go on, and what was acknowledged is there once, in order."""
    create_three(three, "load", PARTITIONS)
    load = Load(three, "load")
    consumer = confluent_kafka.Consumer({"bootstrap.servers": three.address, "group.id": "none", "enable.auto.commit": False,
                                         "auto.offset.reset": "earliest"})
    consumer.assign([confluent_kafka.TopicPartition("load", p, 0) for p in range(PARTITIONS)])
    seen = [[] for _ in range(PARTITIONS)]

    def read(seconds=0.1):
        for m in consumer.consume(5000, seconds):
            if not m.error():
                seen[m.partition()].append(load.number(m.value()))
        return sum(map(len, seen))
    load.start()
    wait_until(lambda: read() > 200, 30, "the load")
    for victim in (1, 2, 3):
        with Frozen(three, victim):
            wait_until(lambda: victim not in leaders(three, "load").values() and -1 not in leaders(three, "load").values(), 40, "other leaders")
            acked, got = [len(a) for a in load.acked], [len(s) for s in seen]
            wait_until(lambda: read() and all(len(a) > n + 20 for a, n in zip(load.acked, acked)) and
                       all(len(s) > n + 20 for s, n in zip(seen, got)), 40, "records of all partitions")
        wait_whole(three, "load")
    load.stopping.set()
    load.join()
    assert not load.errors and load.left == 0
    wait_until(lambda: read() and all(len(s) >= len(a) for s, a in zip(seen, load.acked)), 40, "the end")
    consumer.close()
    for partition, acked in enumerate(load.acked):
        assert seen[partition][:len(acked)] == [v for _, v in acked] == list(range(len(acked)))


def test_coordinators_and_look_ups_follow_the_leader(three):
    create_three(three, "looked-up")
    produced(three, "looked-up", 0, [b"%d" % i for i in range(10)])
    leader = leaders(three, "looked-up")[0]
    with Frozen(three, leader):
        wait_until(lambda: leaders(three, "looked-up")[0] not in (-1, leader), 40, "another leader")
        consumer = confluent_kafka.Consumer({"bootstrap.servers": three.address, "group.id": "none"})
        wait_until(lambda: harness.watermarks(consumer, "looked-up") == (0, 10), 20, "the new leader's high watermark")
        consumer.close()
        epoch = {"ReplicaId": -1, "Topics": [{"Topic": "looked-up", "Partitions": [
            {"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}]}
        answer = three.ask("OffsetForLeaderEpoch", 4, epoch)["Topics"][0]["Partitions"][0]
        assert (answer["ErrorCode"], answer["LeaderEpoch"], answer["EndOffset"]) == (0, 0, 10)
        cut = three.ask("DeleteRecords", 2, {"Topics": [{"Name": "looked-up", "Partitions": [{"PartitionIndex": 0, "Offset": 5}]}],
                                             "TimeoutMs": 20000})["Topics"][0]["Partitions"][0]
        assert (cut["ErrorCode"], cut["LowWatermark"]) == (0, 5)
        assert consumed(three, "looked-up", [0], 5) == [b"%d" % i for i in range(5, 10)]
        for group in ("g1", "g2", "g3", "g4"):  # whose coordinators are on any node
            member = confluent_kafka.Consumer({"bootstrap.servers": three.address, "group.id": group, "enable.auto.commit": False})
            place = confluent_kafka.TopicPartition("looked-up", 0, 7)

            def committed():
                try:
                    member.commit(offsets=[place], asynchronous=False)
                    return member.committed([place], timeout=10)[0].offset == 7
                except confluent_kafka.KafkaException:
                    return False
            wait_until(committed, 40, "a commit")
            member.close()
        _, offsets = partition_of(three, "__consumer_offsets")
        assert len(offsets["ReplicaNodes"]) == 3
    wait_whole(three, "looked-up")
