"""The same batches sent to Karst and to Apache Kafka leave the same files, byte for byte; and what Karst builds again from the records
are the files that Kafka wrote beside them. (Compaction is compared in test_compaction.py.)"""
import contextlib
import glob
import os
import re
import shutil
import signal
import struct

import confluent_kafka
import pytest

import ask
import harness

START_MS = 1_700_000_000_000
# What differs by its nature: topic ids, and the broker epoch.
LEFT_OUT = {"partition.metadata"}
SETTINGS = {"log.retention.check.interval.ms": "300", "log.initial.task.delay.ms": "100", "log.flush.offset.checkpoint.interval.ms": "500",
            "log.flush.start.offset.checkpoint.interval.ms": "500", "replica.high.watermark.checkpoint.interval.ms": "500",
            "log.cleaner.enable": "false", "offsets.topic.num.partitions": "1", "log.segment.delete.delay.ms": "100"}
TOPICS = {
    "plain": {"segment.bytes": 1048576},
    "sparse": {"segment.bytes": 1048576, "index.interval.bytes": 65536},
    "dense": {"segment.bytes": 1048576, "index.interval.bytes": 0, "segment.index.bytes": 1200},
    "aged": {"segment.ms": 60000, "retention.ms": -1},
    "producers": {"segment.bytes": 1048576},
    "unordered": {"segment.bytes": 1048576, "index.interval.bytes": 1000},
    "cut": {"segment.bytes": 1048576},
    "retained": {"segment.bytes": 1048576, "retention.bytes": 1200000},
    "flushed": {"segment.bytes": 1048576, "flush.messages": 1},
    "stamped": {"segment.bytes": 1048576, "index.interval.bytes": 1000, "message.timestamp.type": "LogAppendTime"},
}
CLOCKED = {"stamped"}  # each broker's own clock is in its records


def value(i, size):
    return (b"%d." % i * (size // 4 + 1))[:size]


class Batches:
    """The batches of one life, the same for both: a number, its topic and its bytes."""

    def __init__(self, life):
        self.made, self.life = [], life
        self.at_ms = START_MS + life * 10_000_000

    def add(self, topic, sizes, at_ms=None, **options):
        at_ms = self.at_ms if at_ms is None else at_ms
        self.made.append((topic, ask.batch([(b"k%d" % i, value(len(self.made) + i, s)) for i, s in enumerate(sizes)], at_ms=at_ms, **options)))

    def fill(self):
        for i in range(160):
            self.at_ms += 100
            sizes = [1 + (i * 37) % 900] * (1 + i % 20)
            for topic in ("plain", "sparse", "dense", "stamped"):
                self.add(topic, sizes)
            self.add("unordered", sizes, at_ms=self.at_ms - (i * 7919) % 50000)
            self.add("producers", [400] * 3, producer=1000 + i % 4, epoch=self.life, sequence=i // 4 * 3)
            if i % 4 == 0:
                self.add("aged", [50], at_ms=START_MS + (self.life * 160 + i) * 20_000)
                self.add("flushed", sizes)
            if i % 2 == 0:
                self.add("cut", [20000])
                self.add("retained", [30000])
        return self.made


def send(cluster, made):
    for topic, data in made:
        harness.taken(cluster, {"Acks": -1, "TimeoutMs": 9000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": data}]}]})


def create(cluster):
    answer = cluster.ask("CreateTopics", 7, {"Topics": [
        {"Name": t, "NumPartitions": 1, "ReplicationFactor": 1, "Assignments": [],
         "Configs": [{"Name": k, "Value": str(v)} for k, v in {"message.timestamp.before.max.ms": 2**63 - 1, "retention.ms": -1, **c}.items()]}
        for t, c in TOPICS.items()], "timeoutMs": 30000, "validateOnly": False})
    assert all(t["ErrorCode"] == 0 for t in answer["Topics"]), answer


def led(cluster):
    """Every topic has its leader, so that both systems have made their logs."""
    topics = cluster.ask("Metadata", 12, {"Topics": [{"Name": t} for t in TOPICS], "AllowAutoTopicCreation": False})["Topics"]
    return all(t["ErrorCode"] == 0 and t["Partitions"][0]["ErrorCode"] == 0 for t in topics)


def delete_records(cluster, topic, offset):
    answer = cluster.ask("DeleteRecords", 2, {"Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": offset}]}],
                                             "TimeoutMs": 9000})
    assert answer["Topics"][0]["Partitions"][0]["ErrorCode"] == 0, answer


def first_offset(cluster, topic):
    answer = cluster.ask("ListOffsets", 5, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [
        {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": -2}]}]})
    return answer["Topics"][0]["Partitions"][0]["Offset"]


def files(cluster, topic):
    out = {}
    for path in glob.glob(os.path.join(cluster.data, topic + "-0", "*")):
        name = os.path.basename(path)
        if name not in LEFT_OUT and not name.endswith(".deleted"):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:
                out[name] = f.read()
    return out


def entries(name, data):
    if name.endswith(".index"):
        return [struct.unpack(">ii", data[i:i + 8]) for i in range(0, len(data) - 7, 8)]
    if name.endswith(".timeindex"):
        return [struct.unpack(">qi", data[i:i + 12]) for i in range(0, len(data) - 11, 12)]
    if name.endswith(".txnindex"):
        return [struct.unpack(">hqqqq", data[i:i + 34]) for i in range(0, len(data) - 33, 34)]
    if name.endswith(".snapshot"):
        return [data[:10].hex(), *(struct.unpack(">qhiqiqiq", data[i:i + 46]) for i in range(10, len(data) - 45, 46))]
    if name.endswith(".log"):
        out, at = [], 0
        while at + 61 <= len(data):
            base, length, epoch = struct.unpack(">qii", data[at:at + 16])
            if length <= 0:
                break
            out.append((base, length, epoch, data[at + 16:at + 12 + length]))
            at += 12 + length
        return out
    return data.decode().split("\n")


def without_clock(batches):
    """Batches but for their largest timestamps, and so their CRCs."""
    return [(*start, rest[:1] + rest[5:19] + rest[27:]) for *start, rest in batches]


def wrong_times(found, name):
    """Of a time index whose times nobody else has: an entry that its batch does not bear out, or one that is missing at the end."""
    base, batches = int(name[:20]), entries(".log", found[name[:20] + ".log"])
    times = {b + struct.unpack(">i", rest[7:11])[0]: struct.unpack(">q", rest[19:27])[0] for b, _, _, rest in batches}
    noted = entries(name, found[name])
    if noted != sorted(set(noted)) or [t for t, _ in noted] != [times.get(base + offset) for _, offset in noted]:
        return "entries that are not what their batches say"
    return None if noted[-1:] == [] or noted[-1][0] == max(times.values()) else "not the largest time at its end"


def shape(topic, name, data, end):
    """What has to be equal of a file: all of it, but for the choices that docs/storage.md tells of."""
    if topic in CLOCKED and name.endswith(".log"):
        return without_clock(entries(name, data))
    if topic in CLOCKED and name.endswith(".timeindex"):
        return None
    if name.endswith(".snapshot"):  # the order of a map is nobody's promise; a recovered log remembers more batches, the last one counts
        return sorted({e[0]: e for e in entries(name, data)[1:]}.values()) if len(data) > 10 else data
    if name == "leader-epoch-checkpoint":  # an epoch that no record is in
        return [line for line in data.decode().splitlines()[2:] if int(line.split()[1]) < end]
    return data


def log_end(found):
    newest = max(n for n in found if n.endswith(".log"))
    batches = entries(newest, found[newest])
    return batches[-1][0] + struct.unpack(">i", batches[-1][3][7:11])[0] + 1 if batches else int(newest[:20])


def same(pair, when, live=False, recovered=False):
    """All differences at once. After a recovery Kafka has dropped the snapshot that the log begins with, we keep it."""
    wrong = []
    for topic in TOPICS:
        ours, theirs = (files(c, topic) for c in pair)
        end = log_end(theirs)
        if recovered:
            first = min(n for n in theirs if n.endswith(".log"))[:20]
            ours = {n: d for n, d in ours.items() if n != f"{first}.snapshot" or n in theirs}
        if sorted(ours) != sorted(theirs):
            wrong.append(f"{topic}: {sorted(set(ours) ^ set(theirs))} of {'us' if set(ours) - set(theirs) else 'them'} alone")
        newest = max(n for n in theirs if n.endswith(".log"))[:20]
        for name in sorted(set(ours) & set(theirs)):
            # The entries of the active segment's indexes are written in bunches, and its files have room ahead.
            if live and name[:20] == newest and not name.endswith(".log"):
                continue
            if topic in CLOCKED and name.endswith(".timeindex"):
                wrong += [f"{topic}/{name} of {w}: {x}" for w, f in (("us", ours), ("them", theirs)) if (x := wrong_times(f, name))]
            a, b = shape(topic, name, ours[name], end), shape(topic, name, theirs[name], end)
            if a != b:
                x, y = entries(name, ours[name]), entries(name, theirs[name])
                k = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                wrong.append(f"{topic}/{name}: {len(x)} and {len(y)} entries; at {k}: {str(x[k:k + 2])[:160]} and {str(y[k:k + 2])[:160]}")
    assert not wrong, when + "\n" + "\n".join(wrong)


def checkpoint(cluster, name):
    with open(os.path.join(cluster.data, name), encoding="utf-8") as f:
        lines = f.read().splitlines()
    return [lines[0], *sorted(line for line in lines[2:] if line.split()[0] in TOPICS)]


def same_checkpoints(pair):
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint"):
        assert checkpoint(pair[0], name) == checkpoint(pair[1], name), name


def kill(cluster):
    if cluster.name == "kafka":
        with open(os.path.join(cluster.folder, "pid"), encoding="utf-8") as f:
            pids = [int(f.read())]
    else:
        pids = [p["pid"] for p in cluster.status()]
        parent = int(re.search(r"^PPid:\t(\d+)", open(f"/proc/{pids[0]}/status", encoding="utf-8").read(), re.M)[1])
        pids = [parent, *pids] if parent > 1 else pids
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    harness.wait_until(lambda: not any(harness.alive(p) for p in pids), what="the end of what was killed")
    if cluster.name == "kafka":
        os.unlink(os.path.join(cluster.folder, "pid"))


def start(cluster):
    if cluster.name == "kafka":
        cluster.start(*[f"{k}={v}" for k, v in SETTINGS.items()])
    else:
        cluster.start()


def restart(cluster):
    start(cluster)
    harness.wait_until(lambda: led(cluster), 60, "leaders")


def retained(pair):
    """Retention goes by its own clock in both."""
    harness.wait_until(lambda: first_offset(pair[0], "retained") == first_offset(pair[1], "retained") > 0, 30, "the same retention")


@pytest.fixture
def two(own_folder):
    pair = (harness.Karst(os.path.join(own_folder, "k"), config=SETTINGS), harness.Kafka(os.path.join(own_folder, "r")))
    for c in pair:
        os.makedirs(c.folder, exist_ok=True)
    yield pair
    for c in pair:
        c.close()


def test_same_files(two):
    harness.side_by_side(*[lambda c=c: (start(c), create(c), harness.wait_until(lambda: led(c), 30, "leaders")) for c in two])
    made = Batches(0).fill()
    harness.side_by_side(*[lambda c=c: send(c, made) for c in two])
    retained(two)
    same(two, "while they run", live=True)
    for c in two:
        delete_records(c, "cut", 33)
        delete_records(c, "plain", 700)
    harness.side_by_side(*[c.stop for c in two])
    same(two, "after a clean stop")
    same_checkpoints(two)
    harness.side_by_side(*[lambda c=c: restart(c) for c in two])
    made = Batches(1).fill()
    harness.side_by_side(*[lambda c=c: send(c, made) for c in two])
    retained(two)
    same(two, "while they run again", live=True)
    harness.side_by_side(*[lambda c=c: kill(c) for c in two])
    harness.side_by_side(*[lambda c=c: restart(c) for c in two])
    same(two, "after a kill", live=True, recovered=True)
    harness.side_by_side(*[c.stop for c in two])
    same(two, "stopped after a kill", recovered=True)
    same_checkpoints(two)


def write_transactions(kafka, topic):
    """Three producers whose transactions overlap, in some segments; two in five are aborted, and the last of each stays open."""
    producers = [confluent_kafka.Producer({"bootstrap.servers": kafka.address, "transactional.id": f"t{i}", "log_level": 2}) for i in range(3)]
    for p in producers:
        p.init_transactions(30)
        p.begin_transaction()
    count = 210
    for n in range(count):
        p = producers[n % 3]
        for i in range(10):
            p.produce(topic, value(n, 1500), b"k%d" % i, partition=0)
        assert p.flush(30) == 0
        if n < count - 3:
            (p.abort_transaction if n % 5 < 2 else p.commit_transaction)(30)
            p.begin_transaction()
    return producers


def test_built_again(own_folder):
    """Karst gets records of Kafka without anything beside them, and builds what Kafka had written: all indexes, the one of aborted
    transactions, too, and the state of producers with their open transactions."""
    kafka, karst = harness.Kafka(os.path.join(own_folder, "r")), harness.Karst(os.path.join(own_folder, "k"))
    os.makedirs(kafka.folder)
    kafka.start()
    try:
        answer = kafka.ask("CreateTopics", 7, {"Topics": [
            {"Name": "txns", "NumPartitions": 1, "ReplicationFactor": 1, "Assignments": [],
             "Configs": [{"Name": "segment.bytes", "Value": "1048576"}]}], "timeoutMs": 30000, "validateOnly": False})
        assert answer["Topics"][0]["ErrorCode"] == 0, answer
        producers = write_transactions(kafka, "txns")
        kafka.stop()
        assert len(producers) == 3
        shutil.copytree(kafka.data, karst.data)
        os.unlink(os.path.join(karst.data, ".kafka_cleanshutdown"))
        os.unlink(os.path.join(karst.data, "recovery-point-offset-checkpoint"))
        for path in glob.glob(os.path.join(karst.data, "txns-0", "*")):
            if not path.endswith((".log", "partition.metadata")):
                os.unlink(path)
        karst.start()
        harness.wait_until(lambda: first_offset(karst, "txns") == 0, 30, "the log")
        karst.stop()
        ours, theirs = files(karst, "txns"), files(kafka, "txns")
        built = [n for n in theirs if n.endswith((".index", ".timeindex", ".txnindex"))]
        assert sum(len(theirs[n]) // 34 for n in built if n.endswith(".txnindex")) > 40 and len(built) >= 9
        for name in sorted(built):
            assert ours.get(name, b"") == theirs[name], (name, entries(name, ours.get(name, b""))[:3], entries(name, theirs[name])[:3])
        newest, end = max(n for n in theirs if n.endswith(".snapshot")), log_end(theirs)
        for name in (newest, "leader-epoch-checkpoint"):
            assert shape("txns", name, ours[name], end) == shape("txns", name, theirs[name], end)
        assert [e[7] for e in entries(newest, ours[newest])[1:] if e[7] >= 0], "open transactions"
    finally:
        karst.close()
        kafka.close()
