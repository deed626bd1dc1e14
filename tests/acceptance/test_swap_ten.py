"""Ten times back and forth: Karst and Apache Kafka take turns on the same directories, under load, stopped cleanly or killed.

A checker knows every acknowledged record; Kafka's dump tool reads all files at each change of hands.
"""
import collections
import glob
import os
import threading

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

import harness
from test_same_files import kill

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SETTINGS = {"log.retention.check.interval.ms": "300", "log.initial.task.delay.ms": "200", "log.flush.offset.checkpoint.interval.ms": "1000",
            "log.flush.start.offset.checkpoint.interval.ms": "1000", "replica.high.watermark.checkpoint.interval.ms": "1000",
            "log.cleaner.backoff.ms": "300", "offsets.topic.num.partitions": "3", "transaction.state.log.num.partitions": "2",
            "log.cleaner.dedupe.buffer.size": "4194304"}
TOPICS = {
    **{f"plain-{c}": {"compression.type": "producer"} for c in CODECS},
    "keyed": {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "2000",
              "max.compaction.lag.ms": "1000"},
    "txns": {},
    "cut": {"segment.bytes": "1048576"},
    "retained": {"segment.bytes": "1048576", "retention.bytes": "1200000"},
    "read": {},
}
PARTITIONS = 2
COMPACTED, TRANSACTIONAL = {"keyed"}, {"txns"}


class Facts:
    """What was sent and what was acknowledged, by topic and partition."""

    def __init__(self):
        self.acked = collections.defaultdict(dict)   # (topic, partition) -> offset -> value
        self.sent = collections.defaultdict(set)     # values of which nobody knows
        self.aborted = set()
        self.start = collections.defaultdict(int)    # DeleteRecords
        self.unique = 0

    def value(self, size=60):
        self.unique += 1
        return b"%d:" % self.unique + b"x" * size


class Writer:
    """One producer; the facts learn what it was told."""

    def __init__(self, cluster, facts, **settings):
        self.facts, self.errors = facts, []
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": cluster.address, "linger.ms": 5, "enable.idempotence": True, "message.timeout.ms": 20000,
            "log_level": 2, **settings})

    def on_delivery(self, error, message):
        at = (message.topic(), message.partition())
        if error:
            self.errors.append(error)
            return
        self.facts.acked[at][message.offset()] = (message.key(), message.value())
        self.facts.sent[at].discard(message.value())

    def send(self, topic, partition, value, key=None):
        self.facts.sent[topic, partition].add(value)
        while True:
            try:
                self.producer.produce(topic, value, key, partition=partition, on_delivery=self.on_delivery)
                return
            except BufferError:
                self.producer.poll(0.05)

    def flush(self):
        assert self.producer.flush(30) == 0 and not self.errors, self.errors[:3]


class Load(threading.Thread):
    """Writes to all plain topics and the keyed one until it is stopped, or its cluster is killed."""

    def __init__(self, cluster, facts):
        super().__init__(daemon=True)
        self.writers = {c: Writer(cluster, facts, **{"compression.type": c, "message.timeout.ms": 3000}) for c in CODECS}
        self.facts, self.stopping = facts, threading.Event()

    def run(self):
        i = 0
        while not self.stopping.is_set():
            for codec, writer in self.writers.items():
                for _ in range(20):
                    writer.send(f"plain-{codec}", i % PARTITIONS, self.facts.value(30 + i % 50))
                    i += 1
                writer.send("keyed", i % PARTITIONS, self.facts.value(), b"key-%d" % (i % 37))
                writer.producer.poll(0)
            self.stopping.wait(0.002)
        for writer in self.writers.values():
            writer.producer.flush(20)


def write_some(cluster, facts):
    """What each life writes besides the load."""
    writer = Writer(cluster, facts)
    for i in range(30):
        writer.send("retained", 0, facts.value(30000))
        writer.send("cut", i % PARTITIONS, facts.value(500))
        writer.send("read", 0, facts.value())
        if i % 6 == 0:
            writer.flush()
    writer.flush()


def write_transactions(cluster, facts):
    """Committed ones and aborted ones; values of the aborted must never be read."""
    writer = Writer(cluster, facts, **{"transactional.id": "swapper"})
    writer.producer.init_transactions(30)
    for n in range(6):
        writer.producer.begin_transaction()
        values = [facts.value() for _ in range(5)]
        for i, value in enumerate(values):
            writer.send("txns", i % PARTITIONS, value)
        assert writer.producer.flush(30) == 0
        if n % 3 == 2:
            writer.producer.abort_transaction(30)
            facts.aborted.update(values)
        else:
            writer.producer.commit_transaction(30)


def read_all(cluster, topic, partition):
    """[(offset, key, value)] of committed records, from the log start to the end."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "checker", "enable.auto.commit": False,
                                         "enable.partition.eof": True, "isolation.level": "read_committed", "log_level": 2})
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, confluent_kafka.OFFSET_BEGINNING)])
    rows, ended = [], []

    def more():
        for m in consumer.consume(5000, 0.5):
            if m.error() is None:
                rows.append((m.offset(), m.key(), m.value()))
            elif m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.append(True)
        return ended
    harness.wait_until(more, 60, f"the end of {topic}-{partition}")
    consumer.close()
    return rows


def check(cluster, facts):
    """Every acknowledged record is there, once, where it was acknowledged; nothing else but what was under way at a kill."""
    for topic in TOPICS:
        for partition in range(PARTITIONS):
            at, rows = (topic, partition), read_all(cluster, topic, partition)
            acked, where = facts.acked[at], f"{topic}-{partition} under {cluster.name}"
            offsets = [o for o, _, _ in rows]
            assert offsets == sorted(set(offsets)), where
            for offset, key, value in rows:
                assert value not in facts.aborted, f"{where}: offset {offset} is of an aborted transaction"
                if offset not in acked:
                    assert value in facts.sent[at], f"{where}: offset {offset} holds what nobody sent, or again: {value[:30]}"
                    facts.sent[at].discard(value)
                    acked[offset] = (key, value)
                assert acked[offset] == (key, value), f"{where}: offset {offset}"
            facts.sent[at].clear()  # what is not there now never comes
            low, _ = watermarks(cluster, topic, partition)
            assert low >= facts.start[at], f"{where}: starts at {low}, deleted was to {facts.start[at]}"
            wanted = {o: kv for o, kv in acked.items() if o >= low and kv[1] not in facts.aborted}
            if topic in COMPACTED:
                newest = {kv[0]: o for o, kv in sorted(wanted.items())}
                wanted = {o: wanted[o] for o in newest.values()}
            missing = sorted(set(wanted) - set(offsets))
            assert not missing, f"{where}: {len(missing)} acknowledged records are lost, the first at {missing[0]} of {low}..{offsets[-1:]}"


def watermarks(cluster, topic, partition):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "marks", "log_level": 2})
    try:
        return consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), 20)
    finally:
        consumer.close()


def go_on_reading(cluster, facts, position):
    """The group goes on where it left off, under whichever system that was."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "readers", "enable.auto.commit": False,
                                         "auto.offset.reset": "earliest", "log_level": 2})
    consumer.subscribe(["read"])
    rows = []
    harness.wait_until(lambda: rows.extend(m for m in consumer.consume(20 - len(rows), 0.2) if m.error() is None and m.partition() == 0)
                       or len(rows) >= 20, 60, "20 records for the group")
    assert rows[0].offset() == position, f"the group goes on at {rows[0].offset()}, it had committed {position}"
    assert [m.value() for m in rows] == [facts.acked["read", 0][m.offset()][1] for m in rows]
    consumer.commit(offsets=[confluent_kafka.TopicPartition("read", 0, rows[-1].offset() + 1)], asynchronous=False)
    consumer.close()
    return rows[-1].offset() + 1


def admin_work(cluster, facts, turn):
    """Each side deletes the other's topic, makes one of its own, and deletes records."""
    admin = AdminClient({"bootstrap.servers": cluster.address})
    own, other = f"of-{cluster.name}", "of-kafka" if cluster.name == "karst" else "of-karst"
    if turn > 0:
        admin.delete_topics([other])[other].result(30)
    admin.create_topics([NewTopic(own, 1, 1)])[own].result(30)
    writer = Writer(cluster, Facts())
    writer.send(own, 0, b"turn %d" % turn)
    writer.flush()
    for partition in range(PARTITIONS):
        to = max(facts.acked["cut", partition], default=0) - 5
        if to > 0:
            asked = confluent_kafka.TopicPartition("cut", partition, to)
            next(iter(admin.delete_records([asked]).values())).result(30)
            facts.start["cut", partition] = to
    return own


def dump(paths, *options):
    """Kafka's own reader finds nothing wrong."""
    if not paths:
        return
    out = harness.ran([harness.KAFKA, "dump-log", *options, "--files", ",".join(paths)], timeout=120)
    for bad in ("isvalid: false", "Found timestamp mismatch", "Found out of order timestamp", "Index offset", "Mismatches in", "Non-consecutive offsets",
                "Could not", "Exception"):
        assert bad not in out, f"{options}: {bad}\n" + "\n".join(line for line in out.splitlines() if bad in line)[:2000]


def dump_everything(folders):
    def found(pattern, kind):
        return sorted(p for f in folders for p in glob.glob(os.path.join(f, pattern, f"*.{kind}")))
    logs = [p for p in found("*-[0-9]*", "log") if "__" not in p and "-delete" not in p]
    dump(logs, "--deep-iteration", "--print-data-log")
    dump(found("__consumer_offsets-*", "log"), "--offsets-decoder")
    dump(found("__transaction_state-*", "log"), "--transaction-log-decoder")
    dump(found("__cluster_metadata-0", "log"), "--cluster-metadata-decoder")
    indexes = [p for k in ("index", "timeindex") for p in found("*-[0-9]*", k) if "-delete" not in p and os.path.getsize(p)]
    dump(indexes, "--index-sanity-check")
    dump(indexes, "--verify-index-only")


def run_ten(folder, folders, takes_transactions):
    log_dirs = {"log.dirs": ",".join(folders)}
    karst = harness.Karst(os.path.join(folder, "k"), config={**SETTINGS, **log_dirs})
    karst.data = folders[0]
    kafka = harness.Kafka(os.path.join(folder, "r"), data=folders[0])
    os.makedirs(kafka.folder)
    facts, position, own = Facts(), 0, None
    try:
        for turn in range(10):
            cluster = kafka if turn % 2 else karst
            if cluster is kafka:
                kafka.start(*[f"{k}={v}" for k, v in {**SETTINGS, **log_dirs}.items()])
                with open(os.path.join(kafka.folder, "server.properties"), "a", encoding="utf-8") as f:
                    f.write("\n".join(f"{k}={v}" for k, v in log_dirs.items()) + "\n")
            else:
                karst.start()
            if turn == 0:
                admin = AdminClient({"bootstrap.servers": cluster.address})
                for future in admin.create_topics([NewTopic(t, PARTITIONS, 1, config=c) for t, c in TOPICS.items()]).values():
                    future.result(30)
            else:
                check(cluster, facts)
                assert [v for _, _, v in read_all(cluster, own, 0)] == [b"turn %d" % (turn - 1)]
            load, deleted_before = Load(cluster, facts), dict(facts.start)
            load.start()
            write_some(cluster, facts)
            if cluster is kafka or takes_transactions:
                write_transactions(cluster, facts)
            position = go_on_reading(cluster, facts, position)
            own = admin_work(cluster, facts, turn)
            if turn % 4 >= 2:
                kill(cluster)
                if cluster is kafka:  # it writes the log starts down only once in a while, so a kill may undo the last
                    facts.start.update({at: deleted_before.get(at, 0) for at in facts.start})
                load.stopping.set()
                load.join()
            else:
                load.stopping.set()
                load.join()
                cluster.stop()
                dump_everything(folders)
    finally:
        karst.close()
        kafka.close()


def test_ten_times(own_folder):
    run_ten(own_folder, [os.path.join(own_folder, "data")], False)
