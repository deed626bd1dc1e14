"""Several log directories as tools and clients see them: moves between them, cordoned and failed ones, beside a real Kafka."""
import contextlib
import json
import os
import random
import re
import signal
import threading
import time

import confluent_kafka
import pytest

import harness
from harness import wait_until

NAMES = ("data", "second", "third")
PARTITIONS = 4


def paths_of(cluster):
    return [os.path.join(cluster.folder, name) for name in NAMES]


def karst_on_three(folder, **config):
    paths = [os.path.join(folder, name) for name in NAMES]
    return harness.Karst(folder, config={"log.dirs": ",".join(paths), **{k.replace("_", "."): v for k, v in config.items()}})


@pytest.fixture
def three(own_folder):
    k = karst_on_three(own_folder)
    k.start()
    yield k
    k.close()


@pytest.fixture(scope="module")
def both(folder):
    """A Karst and a Kafka on three directories each."""
    ours, theirs = karst_on_three(os.path.join(folder, "k")), harness.Kafka(os.path.join(folder, "r"))
    harness.side_by_side(ours.start, lambda: theirs.start("log.dirs=" + ",".join(paths_of(theirs))))
    yield harness.Pair(ours, theirs)
    ours.close()
    theirs.close()


def create(cluster, topic, partitions, **configs):
    entries = [{"Name": k.replace("_", "."), "Value": str(v)} for k, v in configs.items()]
    answer = cluster.ask("CreateTopics", 7, {"Topics": [{"Name": topic, "NumPartitions": partitions, "ReplicationFactor": 1, "Assignments": [],
                                                         "Configs": entries}]})
    assert answer["Topics"][0]["ErrorCode"] == 0, answer
    wait_until(lambda: len(places(cluster, topic)) == partitions, 20, "the folders of " + topic)


def alter(cluster, moves):
    """{(topic, partition): directory} to the rows of the answer."""
    dirs = [{"Path": path, "Topics": [{"Name": topic, "Partitions": [partition]}]} for (topic, partition), path in moves.items()]
    answer = cluster.ask("AlterReplicaLogDirs", 2, {"Dirs": dirs})
    return {(t["TopicName"], p["PartitionIndex"]): p["ErrorCode"] for t in answer["Results"] for p in t["Partitions"]}


def rows(cluster):
    """(topic, partition, is future) to directory and row, by DescribeLogDirs."""
    answer = cluster.ask("DescribeLogDirs", 5, {"Topics": None})
    return {(t["Name"], p["PartitionIndex"], p["IsFutureKey"]): (d["LogDir"], p)
            for d in answer["Results"] for t in d["Topics"] for p in t["Partitions"]}


def places(cluster, topic):
    return {partition: path for (name, partition, future), (path, _) in rows(cluster).items() if name == topic and not future}


def arrive(cluster, moves, timeout=60):
    def there():
        now = rows(cluster)
        return all((t, p, True) not in now and now[t, p, False][0] == path for (t, p), path in moves.items())
    wait_until(there, timeout, f"the moves {moves}")


def cordon(cluster, value, op=0, node="1"):
    answer = cluster.ask("IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": 4, "ResourceName": node, "Configs": [
        {"Name": "cordoned.log.dirs", "ConfigOperation": op, "Value": value}]}], "ValidateOnly": False})
    return answer["Responses"][0]["ErrorCode"], answer["Responses"][0]["ErrorMessage"]


def limit(cluster, rate):
    answer = cluster.ask("IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": 4, "ResourceName": "", "Configs": [
        {"Name": "replica.alter.log.dirs.io.max.bytes.per.second", "ConfigOperation": 0 if rate is not None else 1,
         "Value": None if rate is None else str(rate)}]}], "ValidateOnly": False})
    assert answer["Responses"][0]["ErrorCode"] == 0, answer


def fill(cluster, topic, count, size=1000, partitions=PARTITIONS):
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.address, "enable.idempotence": True, "linger.ms": 5})
    for i in range(count):
        while True:
            try:
                producer.produce(topic, b"%012d" % i + b"x" * (size - 12), partition=i % partitions)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(60) == 0


class Load(threading.Thread):
    """An idempotent producer that never stops, and what it was told; values count up per partition."""

    def __init__(self, cluster, topic, partitions=PARTITIONS, size=200):
        super().__init__(daemon=True)
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": cluster.address, "enable.idempotence": True, "acks": "all", "linger.ms": 2, "message.timeout.ms": 120000,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20, "retry.backoff.max.ms": 200,
            "topic.metadata.refresh.fast.interval.ms": 50, "metadata.recovery.strategy": "none"})
        self.topic, self.partitions, self.size, self.stopping = topic, partitions, size, threading.Event()
        self.acked = [{} for _ in range(partitions)]  # offset to number
        self.errors = []

    def on_delivery(self, error, message):
        if error:
            self.errors.append(str(error))
        else:
            self.acked[message.partition()][message.offset()] = int(message.value()[:12])

    def count(self):
        return sum(map(len, self.acked))

    def run(self):
        i = 0
        while not self.stopping.is_set():
            for _ in range(20):
                try:
                    self.producer.produce(self.topic, b"%012d" % (i // self.partitions) + b"x" * self.size, partition=i % self.partitions,
                                          on_delivery=self.on_delivery)
                    i += 1
                except BufferError:
                    break
            self.producer.poll(0.005)
        self.left = self.producer.flush(90)

    def finish(self):
        self.stopping.set()
        self.join(120)
        assert self.left == 0 and not self.errors, (self.left, self.errors[:5])


def read_all(cluster, topic, partition):
    """Offset to value, from the log start to the end."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "check", "enable.auto.commit": False,
                                         "auto.offset.reset": "earliest"})

    def bounds():  # a partition whose log is being opened has no leader for a moment, which this call takes for final
        try:
            return consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), 30)
        except confluent_kafka.KafkaException:
            return None
    low, high = wait_until(bounds, 30, f"{topic}-{partition}")
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, low)])
    found = {}
    wait_until(lambda: found.update((m.offset(), m.value()) for m in consumer.consume(5000, 0.2)) or len(found) >= high - low, 90,
               f"{high - low} records of {topic}-{partition}")
    consumer.close()
    return found


def check(cluster, load):
    """Every acknowledged record is there at its offset, and each once, in order."""
    for partition in range(load.partitions):
        found = {offset: int(value[:12]) for offset, value in read_all(cluster, load.topic, partition).items()}
        assert all(found.get(offset) == number for offset, number in load.acked[partition].items()), f"{partition}: lost or changed"
        numbers = [found[offset] for offset in sorted(found)]
        assert numbers == sorted(set(numbers)), f"{partition}: doubled or out of order"


def live_folders(cluster, topic):
    return sorted(f"{name}" for path in paths_of(cluster) if os.path.isdir(path) for name in os.listdir(path)
                  if name.startswith(topic + "-") and name[len(topic) + 1:].isdigit())


# ------------------------------------------------------------------------------------------------------------ beside Kafka

def test_tools_move_replicas(both):
    """The same JSON, the same output; the sizes afterwards are those of before."""
    both.both(lambda c: create(c, "tooled", 3))
    first = both.both(lambda c: alter(c, {("tooled", p): paths_of(c)[p] for p in range(3)}))
    assert first[0] == first[1] == {("tooled", p): 0 for p in range(3)}
    both.both(lambda c: arrive(c, {("tooled", p): paths_of(c)[p] for p in range(3)}))
    both.both(lambda c: fill(c, "tooled", 3000, partitions=3))

    def write_plan(c):
        plan = {"version": 1, "partitions": [{"topic": "tooled", "partition": p, "replicas": [1], "log_dirs": [paths_of(c)[(p + 1) % 3]]}
                                             for p in range(3)]}
        with open(os.path.join(c.folder, "plan.json"), "w", encoding="utf-8") as f:
            json.dump(plan, f)
    both.both(write_plan)
    both.tool("reassign-partitions", "--reassignment-json-file", "{folder}/plan.json", "--execute", sort=True)
    both.both(lambda c: arrive(c, {("tooled", p): paths_of(c)[(p + 1) % 3] for p in range(3)}))
    both.tool("reassign-partitions", "--reassignment-json-file", "{folder}/plan.json", "--verify", sort=True)
    both.tool("reassign-partitions", "--list")

    def shown(c):
        outcome = c.tool("log-dirs", "--describe", "--topic-list", "tooled")
        assert outcome.status == 0, str(outcome)
        found = json.loads(outcome.out.splitlines()[-1])["brokers"][0]["logDirs"]
        return {d["logDir"].replace(c.folder, "<folder>"): (d["error"], sorted((p["partition"], p["offsetLag"], p["isFuture"]) for p in
                                                                           d["partitions"])) for d in found}
    ours, theirs = both.both(shown)
    assert ours == theirs
    a, b = both.both(lambda c: [len(read_all(c, "tooled", p)) for p in range(3)])
    assert a == b == [1000] * 3


def test_the_tools_throttle(both):
    """The rate is the tool's to set and to take away."""
    both.both(lambda c: create(c, "braked", 1))
    both.both(lambda c: alter(c, {("braked", 0): paths_of(c)[0]}))
    both.both(lambda c: arrive(c, {("braked", 0): paths_of(c)[0]}))
    both.both(lambda c: fill(c, "braked", 2000, partitions=1))

    def write_plan(c):
        plan = {"version": 1, "partitions": [{"topic": "braked", "partition": 0, "replicas": [1], "log_dirs": [paths_of(c)[1]]}]}
        with open(os.path.join(c.folder, "braked.json"), "w", encoding="utf-8") as f:
            json.dump(plan, f)
    both.both(write_plan)
    key = "replica.alter.log.dirs.io.max.bytes.per.second"
    both.tool("reassign-partitions", "--reassignment-json-file", "{folder}/braked.json", "--execute", "--replica-alter-log-dirs-throttle", "100000")
    assert ("braked", 0, True) in rows(both.ours)
    both.tool("configs", "--describe", "--entity-type", "brokers", "--entity-name", "1", only=key)
    both.tool("reassign-partitions", "--reassignment-json-file", "{folder}/braked.json", "--execute", "--additional",
              "--replica-alter-log-dirs-throttle", "100000000")
    both.both(lambda c: arrive(c, {("braked", 0): paths_of(c)[1]}))
    both.tool("reassign-partitions", "--reassignment-json-file", "{folder}/braked.json", "--verify")
    both.tool("configs", "--describe", "--entity-type", "brokers", "--entity-name", "1", only=key)


@pytest.mark.parametrize("replicas,partition,topic", [([1], 0, "tooled"), (None, 0, "tooled"), ([], 0, "tooled"), ([2], 0, "tooled"), ([1, 2], 0, "tooled"),
                                                      ([1, 1], 0, "tooled"), ([1], 99, "tooled"), ([1], 0, "nosuch"), ([-1], 0, "tooled")])
def test_reassignments_are_answered_alike(both, replicas, partition, topic):
    body = {"TimeoutMs": 5000, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": partition, "Replicas": replicas}]}]}
    a, b = both.both(lambda c: c.ask("AlterPartitionReassignments", 1, body))
    assert a == b
    a, b = both.both(lambda c: c.ask("ListPartitionReassignments", 0, {"TimeoutMs": 1000, "Topics": None}))
    assert a == b


def test_moves_that_cannot_be(both):
    both.both(lambda c: create(c, "still", 2))

    def answers(c):
        first, second = paths_of(c)[:2]
        return [alter(c, {("still", 0): "/nope", ("still", 9): "/nope"}), alter(c, {("still", 9): first}), alter(c, {("nosuch", 0): first}),
                alter(c, {("still", 0): "relative"}), alter(c, {("still", 0): second + "/"}), alter(c, {("x" * 240, 0): first}),
                alter(c, {("still", 0): places(c, "still")[0]})]
    a, b = both.both(answers)
    assert a == b


def test_a_partition_is_made_where_it_was_asked_for(both):
    """Asked for before it is there: an error, and remembered."""
    a, b = both.both(lambda c: alter(c, {("later", p): paths_of(c)[1] for p in range(4)}))
    assert a == b == {("later", p): 3 for p in range(4)}
    both.both(lambda c: create(c, "later", 4))
    for c in (both.ours, both.theirs):
        assert set(places(c, "later").values()) == {paths_of(c)[1]}


def test_cordoned_directories(both):
    def values(c):
        first, second, third = paths_of(c)
        out = [cordon(c, value) for value in ("/nope", f"{first},/nope", f"{first},{first}", first + "/", "*,/x", f"*,{first}", "/b,/a,/b")]
        out += [cordon(c, first, node=""), cordon(c, "/zz", op=2), cordon(c, f" {second}"), cordon(c, "")]
        return [(code, text and text.replace(c.folder, "<folder>")) for code, text in out]
    a, b = both.both(values)
    assert a == b

    def flags(c):
        return [d["IsCordoned"] for d in c.ask("DescribeLogDirs", 5, {"Topics": []})["Results"]]

    def cordon_two(c):
        assert cordon(c, ",".join(paths_of(c)[1:])) == (0, None)
        wait_until(lambda: flags(c) == [False, True, True], 10, "the cordoned directories")
        create(c, "kept", 6)
        return (set(places(c, "kept").values()) == {paths_of(c)[0]}, alter(c, {("kept", 0): paths_of(c)[1], ("nosuch", 0): paths_of(c)[1]}))
    a, b = both.both(cordon_two)
    assert a == b and a[0]

    def cordon_all(c):
        assert cordon(c, "*") == (0, None)
        wait_until(lambda: flags(c) == [True] * 3, 10, "the cordoned directories")
        new = {"Topics": [{"Name": "none", "NumPartitions": 1, "ReplicationFactor": 1, "Assignments": [], "Configs": []}]}
        by_hand = {"Topics": [{"Name": "byhand", "NumPartitions": -1, "ReplicationFactor": -1, "Configs": [],
                               "Assignments": [{"PartitionIndex": 0, "BrokerIds": [1]}]}]}
        wait_until(lambda: c.ask("CreateTopics", 7, {**new, "validateOnly": True})["Topics"][0]["ErrorCode"] == 38, 10, "the refusal")
        refused, taken = c.ask("CreateTopics", 7, new)["Topics"][0], c.ask("CreateTopics", 7, by_hand)["Topics"][0]
        more = c.ask("CreatePartitions", 3, {"Topics": [{"Name": "kept", "Count": 8, "Assignments": None}], "TimeoutMs": 5000,
                                             "ValidateOnly": False})["Results"][0]
        return (refused["ErrorCode"], refused["ErrorMessage"], taken["ErrorCode"], more)
    a, b = both.both(cordon_all)
    assert a == b
    both.both(lambda c: cordon(c, None, op=1))
    both.both(lambda c: wait_until(lambda: flags(c) == [False] * 3, 10, "no cordoned directory"))
    both.both(lambda c: create(c, "again", 3))


def records_since(cluster, offset):
    """The metadata records from an offset on, as Kafka's own tool reads them, without ids and services; and the next offset."""
    folder = os.path.join(cluster.folder, "data", "__cluster_metadata-0")
    files = ",".join(sorted(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".log")))
    text = harness.ran([harness.KAFKA, "dump-log", "--cluster-metadata-decoder", "--files", files])
    found, last = [], offset
    for line in text.splitlines():
        match = re.match(r"\| offset: (\d+) .*? payload: (\{.*\})$", line)
        if not match or int(match[1]) < offset:
            continue
        last = int(match[1]) + 1
        record = json.loads(match[2])
        if record["type"] in ("PARTITION_RECORD", "PARTITION_CHANGE_RECORD", "BROKER_REGISTRATION_CHANGE_RECORD"):
            ids = {d: name for d, name in zip(map(directory_id, paths_of(cluster)), NAMES)}
            data = {k: v for k, v in record["data"].items() if k not in ("topicId", "brokerEpoch")}
            for key in ("directories", "logDirs", "cordonedLogDirs"):
                if key in data:
                    data[key] = sorted(ids.get(d, d) for d in data[key])
            found.append((record["type"], record["version"], json.dumps(data, sort_keys=True)))
    return found, last


def directory_id(path):
    for place in (path, path + ".away"):
        with contextlib.suppress(OSError), open(os.path.join(place, "meta.properties"), encoding="utf-8") as f:
            return next(line.split("=", 1)[1].strip() for line in f if line.startswith("directory.id="))
    return None


def test_a_directory_fails(own_folder):
    """A directory fails under load: its partitions go, the others do not notice; tools, clients and the metadata log see what they see of
    a Kafka. With its return and a restart all is there again."""
    quick = {"replica.high.watermark.checkpoint.interval.ms": "200", "log.flush.offset.checkpoint.interval.ms": "200"}
    ours, theirs = harness.Karst(os.path.join(own_folder, "k"), config={"log.dirs": ",".join(os.path.join(own_folder, "k", n) for n in NAMES),
                                                                        **quick}), harness.Kafka(os.path.join(own_folder, "r"))
    pair = harness.Pair(ours, theirs)
    settings = [f"{k}={v}" for k, v in quick.items()]
    try:
        harness.side_by_side(ours.start, lambda: theirs.start("log.dirs=" + ",".join(paths_of(theirs)), *settings))
        pair.both(lambda c: create(c, "t", 3))
        pair.both(lambda c: alter(c, {("t", p): paths_of(c)[p] for p in range(3)}))
        pair.both(lambda c: arrive(c, {("t", p): paths_of(c)[p] for p in range(3)}))
        loads = pair.both(lambda c: Load(c, "t", partitions=2))
        [load.start() for load in loads]
        pair.both(lambda c: fill(c, "t", 300, partitions=3))
        marks = pair.both(lambda c: records_since(c, 0)[1])

        def fail(c):
            os.rename(paths_of(c)[2], paths_of(c)[2] + ".away")
            with open(paths_of(c)[2], "w", encoding="utf-8"):
                pass
            producer = confluent_kafka.Producer({"bootstrap.servers": c.address, "message.timeout.ms": 2000})
            producer.produce("t", b"changes a checkpoint", partition=2)
            producer.flush(5)
            wait_until(lambda: c.ask("Metadata", 12, {"Topics": [{"Name": "t"}]})["Topics"][0]["Partitions"][2]["LeaderId"] == -1, 30,
                       "the directory's failure")
        pair.both(fail)
        before = [load.count() for load in loads]
        [wait_until(lambda: load.count() > n + 200, 30, "the load goes on") for load, n in zip(loads, before)]

        def seen(c):
            batch = harness.ask.batch([(b"k", b"v")])
            produced = c.ask("Produce", 9, {"Acks": 1, "TimeoutMs": 1000, "TopicData": [
                {"Name": "t", "PartitionData": [{"Index": 2, "Records": batch}]}]})["Responses"][0]["PartitionResponses"][0]["ErrorCode"]
            described = {d["LogDir"].replace(c.folder, ""): (d["ErrorCode"], d["TotalBytes"] > 0, sorted(
                p["PartitionIndex"] for t in d["Topics"] for p in t["Partitions"])) for d in c.ask("DescribeLogDirs", 5, {
                    "Topics": [{"Topic": "t", "Partitions": [0, 1, 2]}]})["Results"]}
            partitions = c.ask("Metadata", 12, {"Topics": [{"Name": "t"}]})["Topics"][0]["Partitions"]
            first, second, third = paths_of(c)
            return (produced, described, partitions, alter(c, {("t", 0): third, ("t", 2): second}), alter(c, {("t", 1): second, ("t", 0): second}))
        a, b = pair.both(seen)
        assert a == b
        pair.tool("topics", "--describe", "--topic", "t")
        a, b = harness.side_by_side(lambda: records_since(ours, marks[0])[0], lambda: records_since(theirs, marks[1])[0])
        assert sorted(a) == sorted(b)
        [load.finish() for load in loads]

        def mend(c):
            c.stop()
            os.remove(paths_of(c)[2])
            os.rename(paths_of(c)[2] + ".away", paths_of(c)[2])
            c.start()
            return [len(read_all(c, "t", p)) for p in range(3)][2] >= 100
        assert pair.both(mend) == [True, True]
        for c, load in zip((ours, theirs), loads):
            for p in range(2):
                found = read_all(c, "t", p)
                assert all(int(found[o][:12]) == n for o, n in load.acked[p].items())
    finally:
        ours.close()
        theirs.close()


def test_swap_with_several_directories(own_folder):
    """A move that a clean stop of Karst cut short goes on under Kafka, and one that Kafka's stop cut short under Karst."""
    karst, kafka = karst_on_three(os.path.join(own_folder, "k")), None
    try:
        karst.start()
        create(karst, "swap", 3)
        fill(karst, "swap", 9000, partitions=3)
        before = [read_all(karst, "swap", p) for p in range(3)]
        home = places(karst, "swap")
        limit(karst, 100000)
        target = {p: next(d for d in paths_of(karst) if d != home[p]) for p in range(3)}
        assert set(alter(karst, {("swap", p): target[p] for p in range(3)}).values()) == {0}
        wait_until(lambda: any(future for _, _, future in rows(karst)), 10, "the moves")
        karst.stop()

        kafka = harness.Kafka(os.path.join(own_folder, "r"), data=karst.data)
        os.makedirs(kafka.folder)
        kafka.start("log.dirs=" + ",".join(paths_of(karst)))
        assert [read_all(kafka, "swap", p) for p in range(3)] == before
        limit(kafka, None)
        arrive(kafka, {("swap", p): target[p] for p in range(3)}, 90)
        assert [read_all(kafka, "swap", p) for p in range(3)] == before
        limit(kafka, 100000)
        assert set(alter(kafka, {("swap", p): home[p] for p in range(3)}).values()) == {0}
        wait_until(lambda: any(future for _, _, future in rows(kafka)), 10, "the moves")
        kafka.stop()

        karst.start()
        assert [read_all(karst, "swap", p) for p in range(3)] == before
        limit(karst, None)
        arrive(karst, {("swap", p): home[p] for p in range(3)})
        assert [read_all(karst, "swap", p) for p in range(3)] == before
    finally:
        karst.close()
        if kafka:
            kafka.close()


# ------------------------------------------------------------------------------------------------------------ under load

def test_a_move_is_shown_while_it_goes_on(three):
    """At a rate: the copy is a future row that grows; another target takes its place, and the place itself ends it."""
    create(three, "slow", 1)
    fill(three, "slow", 3000, partitions=1)
    home = places(three, "slow")[0]
    others = [p for p in paths_of(three) if p != home]
    limit(three, 200000)
    assert alter(three, {("slow", 0): others[0]}) == {("slow", 0): 0}
    assert alter(three, {("slow", 0): others[0]}) == {("slow", 0): 0}
    wait_until(lambda: rows(three)["slow", 0, True][1]["PartitionSize"] > 0, 10, "the first bytes")
    path, row = rows(three)["slow", 0, True]
    assert path == others[0] and row["OffsetLag"] > 0 and row["PartitionSize"] < rows(three)["slow", 0, False][1]["PartitionSize"]
    assert alter(three, {("slow", 0): others[1]}) == {("slow", 0): 0}
    assert rows(three)["slow", 0, True][0] == others[1]
    assert alter(three, {("slow", 0): home}) == {("slow", 0): 0}
    assert ("slow", 0, True) not in rows(three)
    wait_until(lambda: not any("-future" in n or "-delete" in n for p in paths_of(three) for n in os.listdir(p)), 10, "the copies to go")
    assert alter(three, {("slow", 0): others[0]}) == {("slow", 0): 0}
    limit(three, None)
    arrive(three, {("slow", 0): others[0]})
    assert len(read_all(three, "slow", 0)) == 3000


@pytest.mark.parametrize("configs", [{}, {"flush_messages": 1}, {"segment_bytes": 1048576, "compression_type": "zstd"},
                                     {"preallocate": "true", "segment_bytes": 1048576}], ids=["plain", "flushed", "segments", "preallocated"])
def test_moves_under_load(three, configs):
    """Every record that was acknowledged while its partition went round the directories is there, once and in order."""
    create(three, "load", PARTITIONS, **configs)
    fill(three, "load", 4000)
    load = Load(three, "load")
    load.acked = [{} for _ in range(PARTITIONS)]
    load.start()
    wait_until(lambda: load.count() > 500, 30, "the load")
    for turn in range(6):
        now = places(three, "load")
        moves = {("load", p): paths_of(three)[(paths_of(three).index(now[p]) + 1 + turn % 2) % 3] for p in range(PARTITIONS)}
        assert set(alter(three, moves).values()) == {0}
        arrive(three, moves)
        before = load.count()
        wait_until(lambda: load.count() > before + 50, 30, "the load goes on")
    load.finish()
    for partition in range(PARTITIONS):
        found = read_all(three, "load", partition)
        assert all(int(found[o][:12]) == n for o, n in load.acked[partition].items())
        assert len(found) == 1000 + len(load.acked[partition])
    assert live_folders(three, "load") == [f"load-{p}" for p in range(PARTITIONS)]
    three.stop()
    three.start()
    assert sum(len(read_all(three, "load", p)) for p in range(PARTITIONS)) == 4000 + load.count()


def test_deleted_records_and_topics_while_moving(three):
    """What DeleteRecords removed stays away in the new place and after a kill; a topic that is deleted takes its copy along."""
    create(three, "cut", 1)
    create(three, "gone", 1)
    fill(three, "cut", 2000, partitions=1)
    fill(three, "gone", 2000, partitions=1)
    limit(three, 300000)
    target = {t: next(p for p in paths_of(three) if p != places(three, t)[0]) for t in ("cut", "gone")}
    assert set(alter(three, {(t, 0): target[t] for t in target}).values()) == {0}
    wait_until(lambda: rows(three)["cut", 0, True][1]["PartitionSize"] > 0, 10, "the first bytes")
    answer = three.ask("DeleteRecords", 2, {"Topics": [{"Name": "cut", "Partitions": [{"PartitionIndex": 0, "Offset": 700}]}], "TimeoutMs": 5000})
    assert answer["Topics"][0]["Partitions"][0] == {"PartitionIndex": 0, "LowWatermark": 700, "ErrorCode": 0}
    answer = three.ask("DeleteTopics", 6, {"Topics": [{"Name": "gone", "TopicId": "AAAAAAAAAAAAAAAAAAAAAA"}], "TimeoutMs": 5000})
    assert answer["Responses"][0]["ErrorCode"] == 0
    wait_until(lambda: not any(n.startswith("gone-") and not n.endswith("-delete") for p in paths_of(three) for n in os.listdir(p)), 20,
               "the deleted topic's folders")
    limit(three, None)
    arrive(three, {("cut", 0): target["cut"]})
    os.kill(three.pids()["storage"], signal.SIGKILL)
    wait_until(lambda: ask_start(three) == 700, 30, "the log start")
    assert min(read_all(three, "cut", 0)) == 700 and len(read_all(three, "cut", 0)) == 1300


def ask_start(cluster):
    try:
        answer = cluster.ask("ListOffsets", 7, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [
            {"Name": "cut", "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": -2}]}]})
        return answer["Topics"][0]["Partitions"][0]["Offset"]
    except (OSError, EOFError, AssertionError):
        return None


def test_a_directory_fails_in_a_move(three):
    """The new one: the replica stays where it is, and the move goes on when the directory is back. The old one: its partition is offline, and
    nothing is made of the half copy."""
    create(three, "half", 1)
    fill(three, "half", 3000, partitions=1)
    home = places(three, "half")[0]
    data = paths_of(three)[0]
    target = next(p for p in paths_of(three) if p not in (home, data))

    def replace(path):
        os.rename(path, path + ".away")
        with open(path, "w", encoding="utf-8"):
            pass

    def mend(path):
        three.stop()
        os.remove(path)
        os.rename(path + ".away", path)
        three.start()
    limit(three, 200000)
    assert alter(three, {("half", 0): target}) == {("half", 0): 0}
    wait_until(lambda: rows(three)["half", 0, True][1]["PartitionSize"] > 0, 10, "the first bytes")
    replace(target)
    errors = lambda: {d["LogDir"]: d["ErrorCode"] for d in three.ask("DescribeLogDirs", 5, {"Topics": []})["Results"]}  # noqa: E731
    wait_until(lambda: errors()[target] == 56, 20, "the failure")
    assert ("half", 0, True) not in rows(three) and len(read_all(three, "half", 0)) == 3000
    fill(three, "half", 100, partitions=1)
    limit(three, None)
    mend(target)
    arrive(three, {("half", 0): target})
    assert len(read_all(three, "half", 0)) == 3100

    if home == data:  # the metadata log's directory ends the node: another one is the old one now
        home = next(p for p in paths_of(three) if p not in (target, data))
        assert alter(three, {("half", 0): home}) == {("half", 0): 0}
        arrive(three, {("half", 0): home})
        home, target = target, home
    limit(three, 200000)
    old, new = places(three, "half")[0], data
    assert alter(three, {("half", 0): new}) == {("half", 0): 0}
    wait_until(lambda: rows(three)["half", 0, True][1]["PartitionSize"] > 0, 10, "the first bytes")
    replace(old)
    wait_until(lambda: errors()[old] == 56, 20, "the failure")
    wait_until(lambda: three.ask("Metadata", 12, {"Topics": [{"Name": "half"}]})["Topics"][0]["Partitions"][0]["LeaderId"] == -1, 20, "offline")
    assert live_folders(three, "half") == []
    limit(three, None)
    mend(old)
    arrive(three, {("half", 0): new})
    assert len(read_all(three, "half", 0)) == 3100


def test_a_full_directory_makes_a_move_wait(own_folder):
    """Until there is room; meanwhile the replica is where it was."""
    full = os.path.join(own_folder, "third")
    os.makedirs(full)
    if harness.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", full]).status != 0:
        pytest.skip("no tmpfs can be mounted here")
    three = karst_on_three(own_folder)
    try:
        three.start()
        create(three, "big", 1)
        if places(three, "big")[0] == full:
            other = paths_of(three)[0]
            alter(three, {("big", 0): other})
            arrive(three, {("big", 0): other})
        fill(three, "big", 6000, partitions=1)
        assert alter(three, {("big", 0): full}) == {("big", 0): 0}
        wait_until(lambda: "waits" in three.log(), 20, "the full disk")
        assert len(read_all(three, "big", 0)) == 6000
        harness.ran(["mount", "-o", "remount,size=64m", full])
        arrive(three, {("big", 0): full})
        assert len(read_all(three, "big", 0)) == 6000
        three.stop()
    finally:
        three.close()
        harness.run(["umount", "-l", full])


def test_compacted_topics_move(own_folder):
    """Compaction and moves of one log take turns: of each key the last value is there."""
    three = karst_on_three(own_folder, log_cleaner_backoff_ms="50")
    three.start()
    try:
        create(three, "keyed", 2, cleanup_policy="compact", segment_bytes=1048576, min_cleanable_dirty_ratio="0.01", segment_ms="1000")
        producer = confluent_kafka.Producer({"bootstrap.servers": three.address, "enable.idempotence": True, "linger.ms": 5})
        last = [{}, {}]
        for turn in range(8):
            for i in range(4000):
                key = b"%d" % (i % 500)
                last[i % 2][key] = b"%d %d" % (turn, i) + b"x" * 500
                producer.produce("keyed", last[i % 2][key], key, partition=i % 2)
                producer.poll(0)
            assert producer.flush(60) == 0
            now = places(three, "keyed")
            moves = {("keyed", p): paths_of(three)[(paths_of(three).index(now[p]) + 1) % 3] for p in range(2)}
            assert set(alter(three, moves).values()) == {0}
            if turn % 2 == 0:
                arrive(three, moves)

        def latest(p):
            consumer = confluent_kafka.Consumer({"bootstrap.servers": three.address, "group.id": "keys", "enable.auto.commit": False})
            high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition("keyed", p), 30)[1]
            consumer.assign([confluent_kafka.TopicPartition("keyed", p, 0)])
            found, end = {}, [-1]

            def more():
                for m in consumer.consume(5000, 0.2):
                    found[m.key()] = m.value()
                    end[0] = m.offset()
                return end[0] >= high - 1
            wait_until(more, 60, "the last record")
            consumer.close()
            return found
        assert [latest(p) for p in range(2)] == last
        wait_until(lambda: not any(future for _, _, future in rows(three)), 30, "the last move")
        wait_until(lambda: any(os.path.exists(os.path.join(p, "cleaner-offset-checkpoint")) and "keyed" in
                               open(os.path.join(p, "cleaner-offset-checkpoint"), encoding="utf-8").read() for p in paths_of(three)), 30,
                   "a cleaning")
        os.kill(three.pids()["storage"], signal.SIGKILL)
        wait_until(lambda: len(tolerant_places(three, "keyed")) == 2, 30, "the partitions")
        assert [latest(p) for p in range(2)] == last
    finally:
        three.close()


def test_kills_and_stops_in_moves(three):
    """kill -9 of the storage node, and clean stops, at random moments of moves: nothing acknowledged is lost, no partition is there twice, and the moves
    end where they were asked to."""
    seed = int(os.environ.get("KARST_TEST_SEED", random.randrange(1 << 30)))
    rng = random.Random(seed)
    print(f"KARST_TEST_SEED={seed}")
    create(three, "load", PARTITIONS)
    load = Load(three, "load", size=3000)
    load.start()
    wait_until(lambda: load.count() > 500, 30, "the load")
    for turn in range(20):
        wait_until(lambda: all(p["pid"] and harness.alive(p["pid"]) for p in three.status()), 30, "all processes again")
        wait_until(lambda: len(tolerant_places(three, "load")) == PARTITIONS, 30, "the partitions")
        now = tolerant_places(three, "load")
        moves = {("load", p): rng.choice([d for d in paths_of(three) if d != now[p]]) for p in range(PARTITIONS)}
        limit(three, rng.choice([None, 2000000]))
        assert set(alter(three, moves).values()) == {0}, seed
        time.sleep(rng.choice([0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.2]))
        if turn % 6 == 5:  # a clean stop in the middle of it; and the supervisor forgets how often it had to start the node again
            three.stop()
            three.start()
        else:
            os.kill(three.pids()["storage"], signal.SIGKILL)
        live = live_folders(three, "load")
        assert len(live) == len(set(live)), f"{live}, seed {seed}"
        before = load.count()
        wait_until(lambda: load.count() > before + 100, 60, f"the load goes on (seed {seed})")
    limit(three, None)
    load.finish()
    wait_until(lambda: not any(future for _, _, future in rows(three)), 60, "the last moves")
    assert live_folders(three, "load") == [f"load-{p}" for p in range(PARTITIONS)]
    check(three, load)


def tolerant_places(cluster, topic):
    try:
        return places(cluster, topic)
    except (OSError, EOFError, AssertionError, KeyError):
        return {}
