"""Ten times back and forth: Karst and Apache Kafka take turns on the same three directories, under load, stopped cleanly or killed.

A checker knows every acknowledged record; Kafka's dump tool reads all files after each clean stop.
"""
import collections
import glob
import os
import re
import subprocess
import threading

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

import harness
from test_same_files import kill

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
SETTINGS = {"log.retention.check.interval.ms": "300", "log.initial.task.delay.ms": "200", "log.flush.offset.checkpoint.interval.ms": "1000",
            "log.flush.start.offset.checkpoint.interval.ms": "1000", "replica.high.watermark.checkpoint.interval.ms": "1000",
            "log.cleaner.backoff.ms": "300", "offsets.topic.num.partitions": "3", "transaction.state.log.num.partitions": "2",
            "log.cleaner.dedupe.buffer.size": "4194304", "group.initial.rebalance.delay.ms": "0"}
TOPICS = {
    **{f"plain-{c}": {"compression.type": "producer"} for c in CODECS},
    "keyed": {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "2000",
              "max.compaction.lag.ms": "1000"},
    "txns": {},
    "cut": {"segment.bytes": "1048576"},
    "retained": {"segment.bytes": "1048576", "retention.bytes": "1200000"},
    "read": {},
}
PARTITIONS, DIRECTORIES = 2, 3
COMPACTED = {"keyed"}


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
            "bootstrap.servers": cluster.address, "linger.ms": 5, "enable.idempotence": True, "message.timeout.ms": 120000,
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
        assert self.producer.flush(120) == 0 and not self.errors, self.errors[:3]


class Load(threading.Thread):
    """Writes to all plain topics and the keyed one until it is stopped, or its cluster is killed."""

    def __init__(self, cluster, facts):
        super().__init__(daemon=True)
        self.writers = {c: Writer(cluster, facts, **{"compression.type": c}) for c in CODECS}
        self.facts, self.stopping = facts, threading.Event()

    def run(self):
        i = keyed = 0
        while not self.stopping.is_set():
            for codec, writer in self.writers.items():
                for _ in range(10):
                    writer.send(f"plain-{codec}", i % PARTITIONS, self.facts.value(30 + i % 50))
                    i += 1
                writer.send("keyed", keyed % PARTITIONS, self.facts.value(), b"key-%d" % (keyed % 37))
                keyed += 1
                writer.producer.poll(0)
            self.stopping.wait(0.01)

    def stop(self):
        self.stopping.set()
        self.join()
        for writer in self.writers.values():
            writer.flush()

    def give_up(self):
        """Its cluster is gone: of what is under way nobody knows."""
        self.stopping.set()
        self.join()
        for writer in self.writers.values():
            writer.producer.purge()
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
    writer = Writer(cluster, facts, **{"transactional.id": "swapper", "transaction.timeout.ms": 120000})
    writer.producer.init_transactions(120)
    for n in range(6):
        writer.producer.begin_transaction()
        values = [facts.value() for _ in range(5)]
        for i, value in enumerate(values):
            writer.send("txns", i % PARTITIONS, value)
        assert writer.producer.flush(120) == 0
        if n % 3 == 2:
            writer.producer.abort_transaction(120)
            facts.aborted.update(values)
        else:
            writer.producer.commit_transaction(120)


def read_all(cluster, where):
    """(topic, partition) to (log start, [(offset, key, value)]): the committed records, from the log start to the end."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "checker", "enable.auto.commit": False,
                                         "enable.partition.eof": True, "isolation.level": "read_committed", "log_level": 2})
    consumer.assign([confluent_kafka.TopicPartition(t, p, confluent_kafka.OFFSET_BEGINNING) for t, p in where])
    rows, ended = {at: [] for at in where}, set()

    def more():
        for m in consumer.consume(10000, 0.2):
            if m.error() is None:
                rows[m.topic(), m.partition()].append((m.offset(), m.key(), m.value()))
            elif m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.add((m.topic(), m.partition()))
        return len(ended) == len(where)
    harness.wait_until(more, 120, f"the ends of {where} under {cluster.name}")
    lows = {at: harness.wait_until(lambda at=at: harness.watermarks(consumer, *at), 30, f"the log start of {at}")[0] for at in where}
    consumer.close()
    return {at: (lows[at], rows[at]) for at in where}


def check_partition(facts, at, where, low, rows):
    acked, offsets = facts.acked[at], [o for o, _, _ in rows]
    assert offsets == sorted(set(offsets)), where
    for offset, key, value in rows:
        assert value not in facts.aborted, f"{where}: offset {offset} is of an aborted transaction"
        if offset not in acked:
            assert value in facts.sent[at], f"{where}: offset {offset} holds what nobody sent, or again: {value[:30]}"
            facts.sent[at].discard(value)
            acked[offset] = (key, value)
        assert acked[offset] == (key, value), f"{where}: offset {offset}"
    facts.sent[at].clear()  # what is not there now never comes
    assert low >= facts.start[at], f"{where}: starts at {low}, deleted was to {facts.start[at]}"
    wanted = {o: kv for o, kv in acked.items() if o >= low and kv[1] not in facts.aborted}
    if at[0] in COMPACTED:
        assert len(rows) < len(wanted), f"{where}: nothing was compacted"
        newest = {kv[0]: o for o, kv in sorted(wanted.items())}
        wanted = {o: wanted[o] for o in newest.values()}
    missing = sorted(set(wanted) - set(offsets))
    assert not missing, f"{where}: {len(missing)} acknowledged records are lost, the first at {missing[0]} of {low}..{offsets[-1:]}"


def check(cluster, facts, own, turn, more=()):
    """Every acknowledged record is there, once, where it was acknowledged; nothing else but what was under way at a kill. Of the
    topics that come and go, the one of the life before is there. more: further partitions that are looked at."""
    found = read_all(cluster, [(own, 0), *((t, p) for t in TOPICS for p in range(PARTITIONS)), *more])
    assert [v for _, _, v in found.pop((own, 0))[1]] == [b"turn %d" % turn]
    for at, (low, rows) in found.items():
        check_partition(facts, at, f"{at[0]}-{at[1]} under {cluster.name}", low, rows)
    there = AdminClient({"bootstrap.servers": cluster.address}).list_topics(timeout=30).topics
    assert {t for t in there if t.startswith("of-")} == {own}


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
        admin.delete_topics([other])[other].result(120)
    admin.create_topics([NewTopic(own, 1, 1)])[own].result(120)
    writer = Writer(cluster, Facts())
    writer.send(own, 0, b"turn %d" % turn)
    writer.flush()
    for partition in range(PARTITIONS):
        to = max(facts.acked["cut", partition], default=0) - 5
        if to > 0:
            asked = confluent_kafka.TopicPartition("cut", partition, to)
            next(iter(admin.delete_records([asked], request_timeout=110).values())).result(120)
            facts.start["cut", partition] = to
    return own


def cleaned_to(folders):
    """How far the compacted partitions are clean, by what the cleaner of either writes down."""
    found = {}
    for folder in folders:
        path = os.path.join(folder, "cleaner-offset-checkpoint")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                found.update({(t, int(p)): int(o) for t, p, o in re.findall(r"^(\S+) (\d+) (\d+)$", f.read(), re.M)})
    return [found.get((t, p), 0) for t in sorted(COMPACTED) for p in range(PARTITIONS)]


class Dumper:
    """Kafka's own reader of files, started once for all of them."""

    def __init__(self):
        self.process = subprocess.Popen([harness.KAFKA, "run", os.path.join(harness.ROOT, "tests/tools/DumpLogs.java")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace")

    def lines(self, paths, *options):
        assert paths
        print("\t".join([*options, "--files", ",".join(paths)]), file=self.process.stdin, flush=True)
        out = []
        while (line := self.process.stdout.readline()) != "end of dump\n":
            assert line, "the dump tool ended"
            out.append(line.rstrip())
        return out

    def records(self, paths, *options, holes=False):
        lines = self.lines(paths, *options)
        assert sum(line.startswith("Log starting offset") for line in lines) == len(paths)
        # The tool takes every file for one that begins at 0, and says "-1 is followed by" of others.
        bad = r"isvalid: false|Could not|Exception" + ("" if holes else r"|^  \d+ is followed by \d+$")
        wrong = [line for line in lines if re.search(bad, line)]
        assert not wrong, (options, wrong[:10])

    def indexes(self, paths, option, verdict):
        lines = self.lines(paths, option)
        wrong = [i for i, line in enumerate(lines) if not re.fullmatch(rf"Dumping \S+|\S+ is empty\.|{verdict}", line)]
        assert not wrong, (option, lines[max(wrong[0] - 1, 0):wrong[0] + 10])

    def everything(self, folders):
        """Nothing wrong is found in any file."""
        def found(pattern, *kinds):
            return sorted(p for f in folders for k in kinds for p in glob.glob(os.path.join(f, pattern, f"*.{k}"))
                          if not re.search("-(delete|stray)/", p))
        logs, holes = found("[a-z]*-[0-9]*", "log"), tuple(f"/{t}-" for t in COMPACTED)
        self.records([p for p in logs if not any(h in p for h in holes)], "--deep-iteration", "--print-data-log")
        self.records([p for p in logs if any(h in p for h in holes)], "--deep-iteration", "--print-data-log", holes=True)
        self.records(found("__consumer_offsets-*", "log"), "--offsets-decoder", holes=True)
        if transactions := found("__transaction_state-*", "log"):
            self.records(transactions, "--transaction-log-decoder", holes=True)
        self.records(found("__cluster_metadata-0", "log"), "--cluster-metadata-decoder")
        indexes = [p for p in found("*-[0-9]*", "index", "timeindex") if os.path.getsize(p)]
        self.indexes(indexes, "--index-sanity-check", r"\S+ passed sanity check\.")
        # Of a batch that compaction emptied the header keeps the time, which an index may name; the tool looks for it in the records.
        emptied = rf"Found timestamp mismatch in :\S+/({'|'.join(COMPACTED)})-\d+/\S+|  Index timestamp: \d+, log timestamp: -1"
        self.indexes(indexes, "--verify-index-only", emptied)

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


class Swap:
    """The two systems on the same directories, and what is known of these."""

    def __init__(self, folder):
        self.folders = [os.path.join(folder, name) for name in ("data", "second", "third")][:DIRECTORIES]
        self.config = {**SETTINGS, "log.dirs": ",".join(self.folders)}
        self.karst = harness.Karst(os.path.join(folder, "k"), config=self.config)
        self.karst.data = self.folders[0]
        self.kafka = harness.Kafka(os.path.join(folder, "r"), data=self.folders[0])
        os.makedirs(self.kafka.folder)
        self.facts, self.position, self.own = Facts(), 0, None
        self.dumper = Dumper()

    def close(self):
        self.karst.close()
        self.kafka.close()
        self.dumper.close()

    def begin(self, cluster, turn):
        if cluster is self.karst:
            cluster.start()
        else:
            cluster.start(*[f"{k}={v}" for k, v in self.config.items()])
        if turn > 0:
            check(cluster, self.facts, self.own, turn - 1)
            return
        admin = AdminClient({"bootstrap.servers": cluster.address})
        for future in admin.create_topics([NewTopic(t, PARTITIONS, 1, config=c) for t, c in TOPICS.items()]).values():
            future.result(120)
        harness.wait_until(lambda: all(len(glob.glob(os.path.join(f, "[a-z]*-[0-9]"))) > 3 for f in self.folders), 30,
                           "some partitions in each directory")

    def work(self, cluster, turn):
        clean = cleaned_to(self.folders)
        write_some(cluster, self.facts)
        if cluster is self.kafka:  # Karst refuses transactions, but reads them
            write_transactions(cluster, self.facts)
        self.position = go_on_reading(cluster, self.facts, self.position)
        harness.wait_until(lambda: all(at > before for at, before in zip(cleaned_to(self.folders), clean)), 60,
                           f"compaction by {cluster.name}")
        self.own = admin_work(cluster, self.facts, turn)

    def turn(self, turn):
        cluster = self.kafka if turn % 2 else self.karst
        self.begin(cluster, turn)
        load, deleted_before = Load(cluster, self.facts), dict(self.facts.start)
        load.start()
        self.work(cluster, turn)
        if turn % 4 >= 2:
            kill(cluster)
            if cluster is self.kafka:  # it writes the log starts down only once in a while, so a kill may undo the last
                self.facts.start.update({at: deleted_before.get(at, 0) for at in self.facts.start})
            load.give_up()
        else:
            load.stop()
            cluster.stop()
            self.dumper.everything(self.folders)


@pytest.fixture
def swap(own_folder):
    s = Swap(own_folder)
    yield s
    s.close()


def test_ten_times(swap):
    for turn in range(10):
        swap.turn(turn)
