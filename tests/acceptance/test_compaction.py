"""Compaction: the same directory cleaned by Kafka and by Karst comes out the same; readers and crashes meanwhile; each goes on where the other
stopped."""
import glob
import os
import random
import re
import shutil
import signal
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

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


# ------------------------------------------------------------------------------------------------------- what readers see

def latest(topic_records):
    """What a table made of these records holds."""
    table = {}
    for _, key, value in topic_records:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    return table


def read_to_end(cluster, topic):
    """(offset, key, value) from the start of the partition to its end as it is now; offsets rise."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "to-end", "enable.auto.commit": False,
                                         "enable.partition.eof": True, "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, confluent_kafka.OFFSET_BEGINNING)])
    rows, at_end = [], False
    deadline = time.monotonic() + 60
    while not at_end:
        assert time.monotonic() < deadline, f"the reader of {topic} stalls behind offset {rows[-1][0] if rows else None}"
        for m in consumer.consume(5000, 0.5):
            if m.error():
                at_end = at_end or m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF
            else:
                rows.append((m.offset(), m.key(), m.value()))
    consumer.close()
    assert all(a[0] < b[0] for a, b in zip(rows, rows[1:]))
    return rows


class Table:
    """Writes to a topic and knows what is the last value of each key."""

    def __init__(self, topic, keys, seed):
        self.topic, self.keys, self.rng, self.n, self.table, self.sent = topic, keys, random.Random(seed), 0, {}, 0

    def write(self, producer, count):
        for _ in range(count):
            key, self.n = b"key-%d" % self.rng.randrange(self.keys), self.n + 1
            value = None if self.rng.random() < 0.05 else value_of(self.rng, self.n)
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value
            put(producer, self.topic, key, value)
            producer.poll(0)


def test_each_goes_on_where_the_other_stopped(own_folder):
    """One directory: Kafka, Karst, Kafka, Karst; each cleans what the one before it left, and all of it stays readable."""
    kafka = harness.Kafka(os.path.join(own_folder, "kafka"))
    karst = harness.Karst(os.path.join(own_folder, "karst"), config=CLEANER)
    os.makedirs(kafka.folder)
    tables = [Table("to-and-fro", 300, 5), Table("packed", 300, 6)]
    kafka.start(*[f"{k}={v}" for k, v in CLEANER.items()])
    try:
        create(kafka, "to-and-fro")
        create(kafka, "packed", **{"compression.type": "zstd"})
        cluster, sizes = kafka, []
        for turn in range(4):
            if turn == 1:
                karst.data = kafka.data
            if turn:
                cluster.stop()
                cluster = karst if cluster is kafka else kafka
                cluster.start(*([] if cluster is karst else [f"{k}={v}" for k, v in CLEANER.items()]))
            for table in tables:
                producer = producer_of(cluster, **{"enable.idempotence": True})
                table.write(producer, 12000)
                assert producer.flush(60) == 0
            wait_cleaned(cluster, ["to-and-fro-0", "packed-0"])
            for table in tables:
                assert latest(read_to_end(cluster, table.topic)) == table.table
            sizes.append(sum(os.path.getsize(p) for p in glob.glob(os.path.join(cluster.data, "to-and-fro-0", "*.log"))))
        cluster.stop()
        assert max(sizes) < 3 << 20, sizes
        for table in tables:
            dump(kafka.data, f"{table.topic}-0")
            check_files(kafka.data, f"{table.topic}-0")
    finally:
        kafka.close()
        karst.close()


def test_console_consumer_reads_over_holes(cleaned):
    """Kafka's own consumer, on what Karst cleaned: most offsets are not there any more, and it misses none that is."""
    _, ours = cleaned
    ours.start()
    try:
        for topic in ("plain-none", "plain-lz4"):
            rows = read_to_end(ours, topic)
            out = ours.tool("console-consumer", "--topic", topic, "--from-beginning", "--max-messages", str(len(rows)), "--timeout-ms", "30000",
                            "--property", "print.offset=true", "--property", "print.value=false")
            assert [int(n) for n in re.findall(r"Offset:(\d+)", out.out)] == [r[0] for r in rows], out.err
            assert rows[-1][0] > 1.5 * len(rows)
            # From an offset that is gone, the next one that is there.
            gone = next(a[0] + 1 for a, b in zip(rows, rows[1:]) if b[0] > a[0] + 1)
            first = ours.tool("console-consumer", "--topic", topic, "--partition", "0", "--offset", str(gone), "--max-messages", "1",
                              "--timeout-ms", "30000", "--property", "print.offset=true")
            assert f"Offset:{next(r[0] for r in rows if r[0] > gone)}" in first.out, str(first)
    finally:
        ours.close()


class Follower(threading.Thread):
    """Reads on and on: from the start again each time, or along the tail."""

    def __init__(self, cluster, topic, again):
        super().__init__(daemon=True)
        self.cluster, self.topic, self.again = cluster, topic, again
        self.done, self.errors, self.rounds, self.table, self.offset = threading.Event(), [], 0, {}, -1

    def run(self):
        try:
            if self.again:
                while not self.done.is_set():
                    read_to_end(self.cluster, self.topic)
                    self.rounds += 1
            else:
                self.follow()
        except BaseException as error:
            self.errors.append(repr(error))

    def follow(self):
        consumer = confluent_kafka.Consumer({"bootstrap.servers": self.cluster.address, "group.id": "tail", "enable.auto.commit": False,
                                             "auto.offset.reset": "error"})
        consumer.assign([confluent_kafka.TopicPartition(self.topic, 0, 0)])
        while not self.done.is_set():
            for m in consumer.consume(1000, 0.2):
                if m.error():
                    assert m.error().retriable() or m.error().code() < 0, m.error()
                    continue
                assert m.offset() > self.offset
                self.offset = m.offset()
                if m.value() is None:
                    self.table.pop(m.key(), None)
                else:
                    self.table[m.key()] = m.value()
        consumer.close()


def test_under_load_and_kills(own_folder):
    """Compaction while a producer writes, readers read from the start and along the tail, and the storage node is killed again and again."""
    karst = harness.Karst(own_folder, config={**CLEANER, "log.cleaner.io.max.bytes.per.second": "6000000"})
    karst.start()
    table = Table("loaded", 400, 9)
    try:
        create(karst, "loaded")
        producer = producer_of(karst, **{"enable.idempotence": True, "message.timeout.ms": 120000})
        followers = [Follower(karst, "loaded", again) for again in (True, False)]
        for f in followers:
            f.start()
        cleaned = 0
        for kill in range(5):
            table.write(producer, 9000)
            assert producer.flush(90) == 0
            harness.wait_until(lambda: glob.glob(os.path.join(karst.data, "loaded-0", "*.cleaned")) or
                               checkpoint(karst.data).get("loaded-0", 0) > cleaned, 60, "a cleaning")
            cleaned = checkpoint(karst.data).get("loaded-0", 0)
            pid = karst.pids()["storage"]
            os.kill(pid, signal.SIGKILL)
            harness.wait_until(lambda: karst.pids().get("storage") not in (pid, None, 0), 30, "the storage node's next life")
        wait_cleaned(karst, ["loaded-0"])
        end = read_to_end(karst, "loaded")
        assert latest(end) == table.table
        harness.wait_until(lambda: followers[1].offset >= end[-1][0] or followers[1].errors, 60, "the reader at the tail")
        for f in followers:
            f.done.set()
        for f in followers:
            f.join(90)
            assert not f.errors, f.errors
        assert followers[0].rounds > 0
        assert followers[1].table == table.table
        karst.stop()
        dump(karst.data, "loaded-0")
        check_files(karst.data, "loaded-0")
        assert not glob.glob(os.path.join(karst.data, "loaded-0", "*.cleaned"))
    finally:
        karst.close()


def alter(cluster, kind, name, **settings):
    admin = AdminClient({"bootstrap.servers": cluster.address})
    entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in settings.items()]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    admin.incremental_alter_configs([resource])[resource].result(20)


def test_what_ends_a_cleaning(own_folder):
    """Slow cleanings are ended by a new cleanup.policy, by the topic's deletion and by a clean stop; a higher rate, set while running, lets
    them through."""
    karst = harness.Karst(own_folder, config={**CLEANER, "log.cleaner.io.max.bytes.per.second": "400000", "log.cleaner.threads": "3",
                                              "log.segment.delete.delay.ms": "1000"})
    karst.start()
    topics = ("kept", "gone", "delete")
    tables = {t: Table(t, 100, t) for t in topics}

    def working(topic):
        return glob.glob(os.path.join(karst.data, f"{topic}-0", "*.cleaned"))
    try:
        for t in topics:
            create(karst, t)
            producer = producer_of(karst, **{"enable.idempotence": True})
            tables[t].write(producer, 14000)
            assert producer.flush(60) == 0
        harness.wait_until(lambda: all(working(t) for t in topics), 60, "three cleanings at a time")
        admin = AdminClient({"bootstrap.servers": karst.address})
        admin.delete_topics(["gone"])["gone"].result(20)
        alter(karst, ConfigResource.Type.TOPIC, "delete", **{"cleanup.policy": "delete"})
        harness.wait_until(lambda: not working("delete"), 30, "the end of the cleaning of what is not compacted any more")
        cleaned = checkpoint(karst.data).get("delete-0")  # of a cleaning that was done before the last record came
        harness.wait_until(lambda: not glob.glob(os.path.join(karst.data, "gone*")), 30, "the removal of the deleted topic")
        started = time.monotonic()
        karst.stop()
        assert time.monotonic() - started < 15
        assert os.path.exists(os.path.join(karst.data, ".kafka_cleanshutdown"))
        assert not working("kept")
        karst.start()
        harness.wait_until(lambda: working("kept"), 60, "the cleaning that begins again")
        alter(karst, ConfigResource.Type.BROKER, "1", **{"log.cleaner.io.max.bytes.per.second": "1.0E9"})
        wait_cleaned(karst, ["kept-0"])
        assert checkpoint(karst.data).get("delete-0") == cleaned
        for t in ("kept", "delete"):
            assert latest(read_to_end(karst, t)) == tables[t].table
    finally:
        karst.close()


def test_committed_offsets_are_compacted(own_folder):
    """__consumer_offsets shrinks, and every group finds what it committed last, also after a restart."""
    karst = harness.Karst(own_folder, config={**CLEANER, "offsets.topic.segment.bytes": "1048576", "offsets.topic.num.partitions": "1",
                                              "log.cleaner.min.cleanable.ratio": "0.01"})
    karst.start()
    try:
        create(karst, "read")
        consumer = confluent_kafka.Consumer({"bootstrap.servers": karst.address, "group.id": "many", "enable.auto.commit": False})
        metadata = "m" * 3000
        for n in range(1, 1501):
            consumer.commit(offsets=[confluent_kafka.TopicPartition("read", 0, n, metadata)], asynchronous=n % 100 != 0)
        wait_cleaned(karst, ["__consumer_offsets-0"])
        size = sum(os.path.getsize(p) for p in glob.glob(os.path.join(karst.data, "__consumer_offsets-0", "*.log")))
        assert size < 3 << 20, size
        consumer.close()
        karst.stop()
        karst.start()
        consumer = confluent_kafka.Consumer({"bootstrap.servers": karst.address, "group.id": "many"})
        assert consumer.committed([confluent_kafka.TopicPartition("read", 0)], timeout=30)[0].offset == 1500
        consumer.close()
        assert not checkpoint(karst.data).get("__cluster_metadata-0")
    finally:
        karst.close()
