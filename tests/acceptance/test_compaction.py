"""Compaction: the same directory cleaned by Kafka and by Karst comes out the same; readers and crashes meanwhile; each goes on where the other
stopped."""
import glob
import os
import random
import re
import shutil

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

import harness

COMPACTED = {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01", "index.interval.bytes": "4096"}
CLEANER = {"log.cleaner.backoff.ms": "100", "log.flush.offset.checkpoint.interval.ms": "500"}
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def create(cluster, topic, **config):
    admin = AdminClient({"bootstrap.servers": cluster.address})
    admin.create_topics([NewTopic(topic, 1, 1, config={**COMPACTED, **config})])[topic].result(30)


def producer_of(cluster, **config):
    return confluent_kafka.Producer({"bootstrap.servers": cluster.address, "linger.ms": 3, "batch.size": 30000, **config})


def put(producer, topic, key, value):
    while True:
        try:
            return producer.produce(topic, value, key, partition=0)
        except BufferError:
            producer.poll(0.05)


def value_of(rng, n, size=400):
    return b"%08d" % n + bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randrange(size)))


def fill(producer, topic, count, keys, seed, tombstones=0.03):
    """Records with random keys, each of which comes several times; some are tombstones."""
    rng = random.Random(seed)
    for n in range(count):
        put(producer, topic, b"key-%d" % rng.randrange(keys), None if rng.random() < tombstones else value_of(rng, n))
    assert producer.flush(60) == 0


def fill_transactions(cluster, topic, count, seed):
    rng = random.Random(seed)
    producers = [producer_of(cluster, **{"transactional.id": f"t-{i}"}) for i in range(3)]
    for p in producers:
        p.init_transactions(30)
    for n in range(count):
        p = producers[n % 3]
        p.begin_transaction()
        for i in range(rng.randrange(1, 40)):
            put(p, topic, b"key-%d" % rng.randrange(200), value_of(rng, n))
        p.flush(30)
        if rng.random() < 0.4:
            p.abort_transaction(30)
        else:
            p.commit_transaction(30)


def checkpoint(data):
    """What cleaner-offset-checkpoint says, by partition."""
    try:
        with open(os.path.join(data, "cleaner-offset-checkpoint"), encoding="utf-8") as f:
            lines = f.read().split("\n")
    except OSError:
        return {}
    return {"-".join(line.split()[:2]): int(line.split()[2]) for line in lines[2:] if line}


def bases(data, partition):
    return sorted(int(os.path.basename(p)[:20]) for p in glob.glob(os.path.join(data, partition, "*.log")))


def wait_cleaned(cluster, partitions, timeout=60):
    """Until all that may be cleaned is."""
    harness.wait_until(lambda: all(checkpoint(cluster.data).get(p, -1) == bases(cluster.data, p)[-1] and
                                   not glob.glob(os.path.join(cluster.data, p, "*.swap")) for p in partitions), timeout,
                       f"the end of compaction; {[(p, checkpoint(cluster.data).get(p), bases(cluster.data, p)) for p in partitions]}")


def dump(data, partition):
    """Every batch and record of a partition as Kafka's own tool shows it, without what a clock decides."""
    files = sorted(glob.glob(os.path.join(data, partition, "*.log")))
    out = harness.ran([harness.KAFKA, "dump-log", "--deep-iteration", "--print-data-log", "--files", ",".join(files)], timeout=240)
    assert "isvalid: false" not in out
    return re.sub(r"(deleteHorizonMs: OptionalLong\[)\d+|(?: position| size| crc): \d+|^Dumping .*$|Log starting offset: \d+",
                  r"\1", out, flags=re.M)


def check_files(data, partition):
    """Kafka's tool finds nothing wrong with logs and indexes."""
    for kind in ("index", "timeindex"):
        files = sorted(glob.glob(os.path.join(data, partition, f"*.{kind}")))
        out = harness.ran([harness.KAFKA, "dump-log", "--index-sanity-check", "--files", ",".join(files)], timeout=240)
        out += harness.ran([harness.KAFKA, "dump-log", "--files", ",".join(files)], timeout=240)
        assert not re.search(r"Found|Exception|mismatch|corrupt", out), out[-3000:]


def read_file(path):
    with open(path, "rb") as f:
        return f.read()


@pytest.fixture(scope="module")
def uncleaned(folder):
    """A directory that Kafka has written with its cleaner off."""
    kafka = harness.Kafka(os.path.join(folder, "source"))
    os.makedirs(kafka.folder)
    kafka.start("log.cleaner.enable=false")
    try:
        for codec in CODECS:
            create(kafka, f"plain-{codec}")
            fill(producer_of(kafka, **{"compression.type": codec}), f"plain-{codec}", 16000, 3000, codec)
        create(kafka, "values")
        fill(producer_of(kafka, **{"enable.idempotence": True}), "values", 16000, 500, 1, tombstones=0)
        create(kafka, "txns")
        fill_transactions(kafka, "txns", 700, 2)
    finally:
        kafka.stop()
    return kafka.data


PARTITIONS = [f"plain-{codec}-0" for codec in CODECS] + ["values-0", "txns-0"]


@pytest.fixture(scope="module")
def cleaned(folder, uncleaned):
    """Copies of it, cleaned by Kafka and by Karst."""
    theirs = harness.Kafka(os.path.join(folder, "theirs"))
    shutil.copytree(uncleaned, theirs.data)
    ours = harness.Karst(os.path.join(folder, "ours"), config=CLEANER)
    shutil.copytree(uncleaned, ours.data)
    theirs.start(*[f"{k}={v}" for k, v in CLEANER.items()])
    try:
        ours.start()
        wait_cleaned(theirs, PARTITIONS)
        wait_cleaned(ours, PARTITIONS)
    finally:
        theirs.stop()
        ours.close()
    return theirs, ours


@pytest.mark.parametrize("partition", PARTITIONS)
def test_cleaned_as_kafka_does_it(cleaned, uncleaned, partition):
    theirs, ours = cleaned
    before = sum(os.path.getsize(p) for p in glob.glob(os.path.join(uncleaned, partition, "*.log")))
    after = sum(os.path.getsize(p) for p in glob.glob(os.path.join(ours.data, partition, "*.log")))
    assert after < 0.8 * before
    assert checkpoint(ours.data)[partition] == checkpoint(theirs.data)[partition]
    assert bases(ours.data, partition) == bases(theirs.data, partition)
    assert dump(ours.data, partition) == dump(theirs.data, partition)
    check_files(ours.data, partition)


def test_the_same_bytes(cleaned):
    """Where no clock and no codec decides: segments, indexes, and the index of aborted transactions."""
    theirs, ours = cleaned
    compared = 0
    for path in sorted(glob.glob(os.path.join(theirs.data, "values-0", "*"))):
        name = os.path.basename(path)
        if re.fullmatch(r"\d{20}\.(log|index|timeindex)", name):
            assert read_file(path) == read_file(os.path.join(ours.data, "values-0", name)), name
            compared += 1
    assert compared >= 6
    indexes = [os.path.basename(p) for p in glob.glob(os.path.join(theirs.data, "txns-0", "*.txnindex"))]
    assert any(os.path.getsize(os.path.join(theirs.data, "txns-0", name)) for name in indexes)
    for name in indexes:
        mine = os.path.join(ours.data, "txns-0", name)
        assert read_file(os.path.join(theirs.data, "txns-0", name)) == (read_file(mine) if os.path.exists(mine) else b""), name
