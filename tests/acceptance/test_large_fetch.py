"""Large fetches, which storage answers with parts of its files: every byte, whatever is deleted meanwhile, with and without shared memory."""
import collections
import hashlib
import os
import time

import ask
import confluent_kafka
import pytest

import harness
from test_clients import create, produce

MIB = 1 << 20


def value(i):
    """Of 10 bytes to 300 KB, the same for the same i."""
    size = 10 + i * i * 7919 % (300_000 if i % 7 == 0 else 3000)
    seed = hashlib.sha256(b"%d" % i).hexdigest().encode()
    return (b"%d:" % i + seed * (size // len(seed) + 1))[:size]


def read_all(cluster, topic, count, **settings):
    """Values by partition in order of their offsets, which must have no gaps."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "unused", "enable.auto.commit": False, **settings})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])
    seen, deadline = collections.defaultdict(list), time.monotonic() + 90
    while sum(map(len, seen.values())) < count and time.monotonic() < deadline:
        for message in consumer.consume(1000, 1):
            assert not message.error(), message.error()
            assert message.offset() == len(seen[message.partition()])
            seen[message.partition()].append(message.value())
    consumer.close()
    return seen


@pytest.fixture(params=["true", "false"])
def shared_or_not(own_folder, request):
    cluster = harness.Karst(own_folder, config={"karst.bus.shared": request.param, "log.segment.delete.delay.ms": 200,
                                                "log.retention.check.interval.ms": 200, "log.segment.bytes": 4 * MIB})
    cluster.start()
    yield cluster
    cluster.close()


def test_every_byte_whatever_the_client_asks_for(shared_or_not):
    count, partitions = 3000, 3
    create(shared_or_not, "large", partitions)
    produce(shared_or_not, "large", lambda i: i % partitions, map(value, range(count)))
    expected = {p: [value(i) for i in range(p, count, partitions)] for p in range(partitions)}
    for settings in ({}, {"max.partition.fetch.bytes": 70_000}, {"max.partition.fetch.bytes": 50 * MIB, "fetch.max.bytes": 100 * MIB},
                     {"fetch.max.bytes": 500_000, "message.max.bytes": 400_000}, {"isolation.level": "read_uncommitted", "fetch.min.bytes": 200_000}):
        assert read_all(shared_or_not, "large", count, **settings) == expected, settings


def test_javas_consumer(shared_or_not):
    create(shared_or_not, "java", 2)
    produce(shared_or_not, "java", lambda i: i % 2, map(value, range(2000)))
    for more in ("--partition 0", "--partition 1"):
        outcome = shared_or_not.tool("console-consumer", "--topic", "java", *more.split(), "--offset", "earliest", "--max-messages",
                                     "1000", "--timeout-ms", "20000")
        assert outcome.status == 0, outcome
        assert outcome.out.splitlines() == [value(i).decode() for i in range(int(more[-1]), 2000, 2)]


def fetch(topic, max_bytes):
    return {"ReplicaId": -1, "MaxWaitMs": 500, "MinBytes": 1, "MaxBytes": max_bytes, "IsolationLevel": 0, "SessionId": 0, "SessionEpoch": -1,
            "RackId": "", "ForgottenTopicsData": [],
            "Topics": [{"Topic": topic, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": max_bytes}]}]}


def held_files(cluster):
    """Removed files of the data folder that a process still has open."""
    found = []
    for pid in cluster.pids().values():
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if target.startswith(cluster.data) and target.endswith("(deleted)"):
                found.append((pid, target))
    return found


def test_what_is_deleted_under_a_reader(shared_or_not):
    """Clients have asked and read nothing yet; then all is deleted and other records are written. They get what they asked for."""
    create(shared_or_not, "gone")
    produce(shared_or_not, "gone", lambda i: 0, (b"%07d" % i * 10_000 for i in range(300)))
    whole = bytes.fromhex(shared_or_not.ask("Fetch", 12, fetch("gone", 4 * MIB))["Responses"][0]["Partitions"][0]["Records"])
    assert len(whole) > 3 * MIB
    readers = [ask.Connection("127.0.0.1", shared_or_not.port) for _ in range(8)]
    for reader in readers:
        reader.send("Fetch", 12, fetch("gone", 4 * MIB))
    time.sleep(1)
    shared_or_not.ask("DeleteRecords", 2, {"Topics": [{"Name": "gone", "Partitions": [{"PartitionIndex": 0, "Offset": -1}]}], "TimeoutMs": 5000})
    produce(shared_or_not, "gone", lambda i: 0, (b"other %d" % i * 10_000 for i in range(300)))
    folder = os.path.join(shared_or_not.data, "gone-0")
    first = os.path.join(folder, f"{0:020}.log")
    harness.wait_until(lambda: not os.path.exists(first) and not os.path.exists(first + ".deleted"), 20, "the end of the first segment")
    for reader in readers[:4]:
        size = int.from_bytes(reader.receive(4), "big")
        assert whole in reader.receive(size)
    for reader in readers:
        reader.socket.close()
    harness.wait_until(lambda: not held_files(shared_or_not), 20, "removed files to be let go of: " + str(held_files(shared_or_not)))
    assert len(shared_or_not.ask("Fetch", 12, fetch("gone", MIB))["Responses"]) == 1
