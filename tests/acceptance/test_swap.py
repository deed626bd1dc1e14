"""One data directory under Karst, then under a real Kafka 4.3.1, then under Karst again; and the tools that read the files."""
import os
import re

import confluent_kafka
import pytest

import harness
from test_clients import create, produce


def commit(cluster, group, topic, offset):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": group})
    consumer.commit(offsets=[confluent_kafka.TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def committed(cluster, group, topic):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": group})
    try:
        return consumer.committed([confluent_kafka.TopicPartition(topic, 0)], timeout=30)[0].offset
    finally:
        consumer.close()


def read_all(cluster, topic, count):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "swap-reader", "enable.auto.commit": False,
                                         "auto.offset.reset": "earliest"})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    rows = []
    harness.wait_until(lambda: rows.extend(consumer.consume(5000, 0.2)) or len(rows) >= count, 60, f"{count} records of {topic}")
    consumer.close()
    return [(m.offset(), m.key(), m.value(), m.timestamp(), m.headers()) for m in rows]


def test_there_and_back_again(own_folder):
    """Nothing is lost or changed in either direction, group offsets included; configs and topic ids stay."""
    karst = harness.Karst(os.path.join(own_folder, "k"))
    os.makedirs(karst.folder)
    kafka = None
    try:
        karst.start()
        create(karst, "ours", 3)
        for codec in ("none", "gzip", "lz4", "zstd", "snappy"):
            produce(karst, "ours", lambda i: 0, (b"%s %d" % (codec.encode(), i) for i in range(400)),
                    **{"compression.type": codec, "enable.idempotence": True})
        assert karst.tool("configs", "--alter", "--entity-type", "topics", "--entity-name", "ours", "--add-config",
                          "retention.ms=987654321").status == 0
        commit(karst, "swappers", "ours", 1234)
        before = read_all(karst, "ours", 2000)
        described = karst.tool("topics", "--describe", "--topic", "ours").out
        assert "987654321" in described
        karst.stop()

        kafka = harness.Kafka(os.path.join(own_folder, "r"), data=karst.data)
        os.makedirs(kafka.folder)
        kafka.start()
        assert "ours" in kafka.tool("topics", "--list").out.split()
        assert kafka.tool("topics", "--describe", "--topic", "ours").out == described
        assert read_all(kafka, "ours", 2000) == before
        assert committed(kafka, "swappers", "ours") == 1234
        create(kafka, "theirs", 2)
        produce(kafka, "theirs", lambda i: 0, (b"kafka %d" % i for i in range(3000)), **{"compression.type": "zstd",
                                                                                           "enable.idempotence": True})
        produce(kafka, "ours", lambda i: 0, (b"more %d" % i for i in range(500)))
        commit(kafka, "swappers", "ours", 2222)
        theirs, ours = read_all(kafka, "theirs", 3000), read_all(kafka, "ours", 2500)
        kafka.stop()

        karst.start()
        assert sorted(t for t in karst.tool("topics", "--list").out.split() if not t.startswith("__")) == ["ours", "theirs"]
        assert read_all(karst, "theirs", 3000) == theirs
        assert read_all(karst, "ours", 2500) == ours
        assert committed(karst, "swappers", "ours") == 2222
        produce(karst, "theirs", lambda i: 0, (b"back %d" % i for i in range(100)))
        assert len(read_all(karst, "theirs", 3100)) == 3100
    finally:
        karst.close()
        if kafka:
            kafka.close()


@pytest.fixture(scope="module")
def written(folder):
    """A directory that Karst has written and left cleanly."""
    karst = harness.Karst(os.path.join(folder, "w"))
    os.makedirs(karst.folder)
    karst.start()
    try:
        create(karst, "dumped", 1)
        produce(karst, "dumped", lambda i: 0, (b"value %d" % i for i in range(100)), **{"enable.idempotence": True})
        commit(karst, "dumpers", "dumped", 42)
    finally:
        karst.close()
    return karst


def dump(*arguments):
    return harness.ran([harness.KAFKA, "dump-log", *arguments])


def test_dump_log_reads_the_metadata_log(written):
    out = dump("--cluster-metadata-decoder", "--files", f"{written.data}/__cluster_metadata-0/00000000000000000000.log")
    kinds = set(re.findall(r'"type":"(\w+)"', out))
    assert {"TOPIC_RECORD", "PARTITION_RECORD", "REGISTER_BROKER_RECORD", "FEATURE_LEVEL_RECORD"} <= kinds
    assert '"name":"dumped"' in out


def test_dump_log_reads_a_partition(written):
    path = f"{written.data}/dumped-0/00000000000000000000"
    out = dump("--deep-iteration", "--print-data-log", "--files", f"{path}.log")
    assert re.findall(r"payload: (value \d+)", out) == [f"value {i}" for i in range(100)]
    assert "isvalid: true" in out and "isvalid: false" not in out
    for kind in ("index", "timeindex"):
        checked = dump("--files", f"{path}.{kind}")
        assert "Found" not in checked, checked


def test_dump_log_reads_the_offsets(written):
    found = ""
    for name in sorted(os.listdir(written.data)):
        if name.startswith("__consumer_offsets-"):
            path = os.path.join(written.data, name, "00000000000000000000.log")
            if os.path.getsize(path):
                found += dump("--offsets-decoder", "--print-data-log", "--files", path)
    assert '"group":"dumpers"' in found and '"offset":42' in found


def test_metadata_shell_reads_a_copy(written, folder):
    copy = os.path.join(folder, "copy.log")
    with open(f"{written.data}/__cluster_metadata-0/00000000000000000000.log", "rb") as f, open(copy, "wb") as to:
        to.write(f.read())
    seen = []

    def shell_shows_it():  # on a busy machine the shell may print before it has read all of the file
        seen.append(harness.run([harness.KAFKA, "metadata-shell", "--snapshot", copy, "ls", "/image/topics/byName"], timeout=60))
        return "dumped" in seen[-1].out or len(seen) > 4
    harness.wait_until(shell_shows_it, 300)
    assert "dumped" in seen[-1].out, str(seen[-1])
