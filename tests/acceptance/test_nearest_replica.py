"""Consumers that say their rack read from the replica there (KIP-392): who sends them, what a follower gives them, and what happens when it
is behind or dies."""
import json
import os
import signal
import threading
import time

import confluent_kafka
import pytest

import ask
import harness
from harness import wait_until
from kafka_cluster import KafkaCluster
from test_moves import Load
from test_reassignment import create
from test_replication import partitions_of

RACKS = {1: "a", 2: "b", 3: "c"}
CONFIG = {"karst.racks": "a,first b,first c", "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
          "broker.session.timeout.ms": "6000", "broker.heartbeat.interval.ms": "500", "replica.lag.time.max.ms": "30000"}
OUT_OF_RANGE, UNKNOWN_LEADER_EPOCH = 1, 75


def racks_of(cluster):
    return {b["NodeId"]: b["Rack"] for b in cluster.ask("Metadata", 9, {"Topics": []})["Brokers"]}


def start_in_racks(cluster):
    """Two nodes get a rack of their own once more, a retention, and a new life that reads them."""
    cluster.start()
    assert racks_of(cluster) == dict(zip(RACKS, CONFIG["karst.racks"].split(",")))
    for node in (2, 3):
        with open(os.path.join(cluster.run_dir(), f"storage-{node}.properties"), "a", encoding="utf-8") as f:
            f.write(f"\nbroker.rack={RACKS[node]}\nlog.retention.check.interval.ms=1000\n")
        cluster.kill("storage", node)
    wait_until(lambda: racks_of(cluster) == RACKS, 40, "the racks")
    return cluster


@pytest.fixture(scope="module")
def racked(folder):
    cluster = harness.Karst(os.path.join(folder, "k"), storage=3, config=CONFIG)
    yield start_in_racks(cluster)
    cluster.close()


def in_sync(cluster, topic):
    wait_until(lambda: all(sorted(p["IsrNodes"]) == [1, 2, 3] for p in partitions_of(cluster, topic).values()), 60, f"{topic} in sync")


def made(cluster, topic, count=10, **configs):
    """Led by node 1, the others follow; with count records, which all replicas know to be committed."""
    create(cluster, topic, [[1, 2, 3]], **configs)
    in_sync(cluster, topic)
    write(cluster, topic, count)
    for node in (2, 3):
        wait_until(lambda: fetch(cluster, node, topic, 0, RACKS[node])["HighWatermark"] == count, 30, f"the high watermark at node {node}")


def write(cluster, topic, count, acks=-1):
    """Records one by one."""
    for _ in range(count):
        harness.taken(cluster, {"Acks": acks, "TimeoutMs": 20000, "TopicData": [{"Name": topic, "PartitionData": [
            {"Index": 0, "Records": ask.batch([(None, b"x" * 50)]).hex()}]}]})


def fetch(cluster, node, topic, offset, rack, version=15, wait_ms=0, epoch=-1):
    """The row of partition 0, as the broker gives it."""
    topic_id = cluster.ask("Metadata", 12, {"Topics": [{"Name": topic}]})["Topics"][0]["TopicId"]
    named = {"TopicId": topic_id} if version >= 13 else {"Topic": topic}
    body = {"MaxWaitMs": wait_ms, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionId": 0, "SessionEpoch": -1,
            **({"RackId": rack} if version >= 11 else {}), "Topics": [{**named, "Partitions": [
                {"Partition": 0, "CurrentLeaderEpoch": epoch, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20}]}]}
    port = cluster.port + node if len({b["Port"] for b in cluster.ask("Metadata", 9, {"Topics": []})["Brokers"]}) > 1 else None
    return cluster.ask("Fetch", version, body, port=port)["Responses"][0]["Partitions"][0]


def seen(row):
    return row["ErrorCode"], row.get("PreferredReadReplica", -1), bool(row["Records"])


def test_racks_that_do_not_fit_are_refused(own_folder):
    for number, (sentence, storage, config) in enumerate([
            ("karst.racks names 2 racks for 3 storage nodes", 3, {"karst.racks": "a,b"}),
            ("karst.racks names 3 racks for 1 storage nodes", None, {"karst.racks": "a,b,c"}),
            ("karst.racks and broker.rack are both set", 3, {"karst.racks": "a,b,c", "broker.rack": "a"})]):
        cluster = harness.Karst(os.path.join(own_folder, str(number)), storage=storage, config=config)
        outcome = harness.run(cluster.up_command("-d"))
        assert outcome.status == 78 and sentence in outcome.err, str(outcome)


def test_the_leader_sends_to_the_rack(racked):
    made(racked, "sent")
    assert seen(fetch(racked, 1, "sent", 0, "b")) == (0, 2, False)
    assert seen(fetch(racked, 1, "sent", 0, "c", version=11)) == (0, 3, False)
    for rack in ("a", "", "nowhere"):
        assert seen(fetch(racked, 1, "sent", 0, rack)) == (0, -1, True)
    began = time.monotonic()
    assert seen(fetch(racked, 1, "sent", 10, "b", wait_ms=20000)) == (0, 2, False) and time.monotonic() - began < 15, "at once, as Kafka"
    for node, rack in ((2, "b"), (3, "c")):
        row = fetch(racked, node, "sent", 0, rack)
        assert seen(row) == (0, -1, True) and row["HighWatermark"] == 10
        assert seen(fetch(racked, node, "sent", 10, rack)) == (0, -1, False)
    epoch = partitions_of(racked, "sent")[0]["LeaderEpoch"]
    assert [fetch(racked, 2, "sent", 0, "b", epoch=at)["ErrorCode"] for at in (-1, epoch, epoch + 1)] == [0, 0, UNKNOWN_LEADER_EPOCH]


def test_a_node_of_the_release_before_keeps_consumers_with_the_leader(racked):
    """It would send who was sent to it back to the leader, and so on, in circles."""
    made(racked, "older")
    before = os.path.join(harness.BIN, "before")
    assert os.path.exists(os.path.join(before, "karst-storage")), f"there is no {before}: build the target before"
    for folder, wanted in ((before, (0, -1, True)), (harness.BIN, (0, 2, False))):
        outcome = harness.run([harness.KARST, "restart", "storage-3", "--data", racked.data, "--bin", folder], timeout=300)
        assert outcome.status == 0, str(outcome)
        wait_until(lambda w=wanted: seen(fetch(racked, 1, "older", 0, "b")) == w, 30, f"a consumer in rack b gets {wanted} with {folder}")
        assert seen(fetch(racked, 2, "older", 0, "b")) == (0, -1, True)
    in_sync(racked, "older")


def test_a_follower_gives_what_is_committed_alone(racked):
    """Records that not all in sync have are in its log, and not for consumers; behind its log it is out of range."""
    made(racked, "held")
    racked.kill("storage", 3, signal.SIGSTOP)
    try:
        write(racked, "held", 5, acks=1)
        size = lambda: os.path.getsize(f"{racked.data}.storage/2/held-0/00000000000000000000.log")
        wait_until(lambda: size() == os.path.getsize(f"{racked.data}/held-0/00000000000000000000.log"), 20, "the records at node 2")
        for offset in (10, 12, 15):
            row = fetch(racked, 2, "held", offset, "b")
            assert seen(row) == (0, -1, False) and row["HighWatermark"] == 10, row
        assert seen(fetch(racked, 2, "held", 16, "b"))[0] == OUT_OF_RANGE
        assert fetch(racked, 2, "held", 5, "b")["Records"].count("78" * 50) == 5, "what is before the high watermark"
    finally:
        racked.kill("storage", 3, signal.SIGCONT)
    wait_until(lambda: fetch(racked, 2, "held", 10, "b")["Records"], 60, "the rest, once it is committed")
    in_sync(racked, "held")


def test_nobody_is_sent_to_one_that_is_behind(racked):
    """In sync, but without what the consumer asks for next; and not at all once it is out of sync or fenced."""
    made(racked, "lags")
    racked.kill("storage", 2, signal.SIGSTOP)
    try:
        write(racked, "lags", 5, acks=1)
        assert seen(fetch(racked, 1, "lags", 5, "b")) == (0, 2, False)
        assert seen(fetch(racked, 1, "lags", 12, "b")) == (0, -1, False)
        wait_until(lambda: 2 not in partitions_of(racked, "lags")[0]["IsrNodes"], 60, "node 2 to be fenced")
        wait_until(lambda: seen(fetch(racked, 1, "lags", 5, "b")) == (0, -1, True), 20, "the leader to answer itself")
        assert seen(fetch(racked, 2, "lags", 5, "b")) == (0, -1, True), "who asks the fenced one is served by the leader"
    finally:
        racked.kill("storage", 2, signal.SIGCONT)
    in_sync(racked, "lags")
    wait_until(lambda: seen(fetch(racked, 1, "lags", 12, "b")) == (0, 2, False), 20, "node 2 again")


def test_nobody_is_sent_to_one_that_has_removed_it(racked):
    """Retention comes to each node in its own time, to the leader minutes later: nothing is written that would tell the leader so."""
    made(racked, "aged")
    assert seen(fetch(racked, 1, "aged", 0, "b")) == (0, 2, False)
    answer = racked.ask("IncrementalAlterConfigs", 1, {"ValidateOnly": False, "Resources": [{"ResourceType": 2, "ResourceName": "aged", "Configs": [
        {"Name": "retention.ms", "ConfigOperation": 0, "Value": "1"}]}]})["Responses"][0]
    assert answer["ErrorCode"] == 0, answer
    wait_until(lambda: seen(fetch(racked, 2, "aged", 0, "b"))[0] == OUT_OF_RANGE, 30, "node 2 to remove the records")
    wait_until(lambda: seen(fetch(racked, 1, "aged", 0, "b")) != (0, 2, False), 20, "the leader to send nobody there")
    assert seen(fetch(racked, 1, "aged", 0, "b")) in ((0, -1, True), (OUT_OF_RANGE, -1, False))


def test_answers_are_kafkas(racked, folder):
    """Of leader and followers, to consumers of each rack, at offsets that are there and not."""
    settings = {k: v for k, v in CONFIG.items() if k != "karst.racks"}
    kafka = KafkaCluster(os.path.join(folder, "r"), config=settings, node_config={n: {"broker.rack": r} for n, r in RACKS.items()})

    def answers(cluster):
        made(cluster, "alike")
        epoch = partitions_of(cluster, "alike")[0]["LeaderEpoch"]
        asked = [(node, offset, rack, version, at) for offset in (0, 9, 10, 11, 100) for version in (11, 17) for at in (-1, epoch, epoch + 1)
                 for node, rack in ((1, "a"), (1, "b"), (1, "c"), (1, ""), (1, "x"), (2, "b"), (3, "c"))]
        rows = {}
        for node, offset, rack, version, at in asked:
            row = fetch(cluster, node, "alike", offset, rack, version=version, epoch=at)
            rows[node, offset, rack, version, at - epoch] = (*seen(row), row["HighWatermark"], row["LogStartOffset"], row["LastStableOffset"])
        return rows
    with kafka:
        kafka.start()
        ours, theirs = harness.side_by_side(lambda: answers(racked), lambda: answers(kafka))
    assert ours == theirs, {k: (ours[k], theirs.get(k)) for k in ours if ours[k] != theirs.get(k)}


def test_javas_consumer_reads_in_its_rack(racked):
    made(racked, "java", 50)
    outcome = harness.run([harness.KAFKA, "console-consumer", "--bootstrap-server", racked.address, "--topic", "java", "--from-beginning",
                           "--max-messages", "50", "--command-property", "client.rack=b"], env={"KARST_KAFKA_LOG": "DEBUG"}, timeout=90)
    assert outcome.status == 0 and outcome.out.split() == ["x" * 50] * 50, str(outcome)[-3000:]
    assert "preferred read replica for partition java-0 to 2" in outcome.err, outcome.err[-3000:]


class Reader(threading.Thread):
    """librdkafka with a rack, from the beginning, without a group; notes what it reads and the broker that it reads it from."""

    def __init__(self, cluster, topic, rack):
        super().__init__(daemon=True)
        self.values, self.brokers, self.errors, self.stopping = [], set(), [], threading.Event()
        self.now, self.topic = None, topic
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": cluster.address, "group.id": "none", "enable.auto.commit": False, "client.rack": rack, "auto.offset.reset": "error",
            "statistics.interval.ms": 100, "stats_cb": self.on_stats, "fetch.wait.max.ms": 100, "reconnect.backoff.max.ms": 200,
            "topic.metadata.refresh.interval.ms": 2000, "metadata.recovery.strategy": "none"})
        self.consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])

    def on_stats(self, text):
        partitions = json.loads(text)["topics"].get(self.topic, {"partitions": {}})["partitions"]
        if "0" in partitions:
            self.now = partitions["0"]["broker"]
            self.brokers.add(self.now)

    def run(self):
        while not self.stopping.is_set():
            m = self.consumer.poll(0.1)
            if m is not None and m.error():
                self.errors.append(str(m.error()))
            elif m is not None:
                self.values.append((m.offset(), m.value()))
        self.consumer.close()


def test_librdkafka_reads_in_its_rack_while_nodes_die(racked):
    """The follower killed and frozen, then the leader killed, under load: all is read, once and in order."""
    made(racked, "rd", 0)
    load, reader = Load(racked, "rd", partitions=1), Reader(racked, "rd", "b")
    load.start()
    reader.start()
    wait_until(lambda: reader.now == 2 and len(reader.values) > 200, 40, "records from node 2")
    for victim, how in ((2, signal.SIGKILL), (2, signal.SIGSTOP), (1, signal.SIGKILL)):
        pid = racked.process("storage", victim)["pid"]
        os.kill(pid, how)
        if how == signal.SIGSTOP:
            wait_until(lambda: 2 not in partitions_of(racked, "rd")[0]["IsrNodes"], 60, "node 2 to be fenced")
            before = len(reader.values)
            wait_until(lambda: len(reader.values) > before + 200, 60, "records from the leader")
            os.kill(pid, signal.SIGCONT)
        before = len(reader.values)
        wait_until(lambda: len(reader.values) > before + 200, 60, f"records after the end of {victim}")
        in_sync(racked, "rd")
    load.finish()
    wait_until(lambda: len(reader.values) >= load.count(), 60, "the rest")
    reader.stopping.set()
    reader.join(30)
    assert [offset for offset, _ in reader.values] == list(range(load.count())), reader.errors[:5]
    assert [int(value[:12]) for _, value in reader.values] == list(range(load.count()))
    assert 2 in reader.brokers


def test_one_address_reads_near_by_itself(own_folder):
    """No client can be sent anywhere there: the front end reads from the follower, and asks the leader where that cannot answer."""
    cluster = harness.Karst(own_folder, port=harness.free_port(), storage=3,
                            config={**CONFIG, "karst.one.address": "true", "replica.fetch.wait.max.ms": "5000", "replica.fetch.min.bytes": "1"})
    try:
        start_in_racks(cluster)
        create(cluster, "one", [[1, 2, 3]])
        in_sync(cluster, "one")
        write(cluster, "one", 10)
        # A follower hears that its last records are committed with the next ones, or when its Read's time is over.
        assert seen(fetch(cluster, 0, "one", 9, "a")) == (0, -1, True)
        write(cluster, "one", 1)
        near = fetch(cluster, 0, "one", 0, "b")
        assert near["HighWatermark"] < fetch(cluster, 0, "one", 0, "a")["HighWatermark"] == 11 and seen(near) == (0, -1, True), near
        assert fetch(cluster, 0, "one", 10, "b")["ErrorCode"] == 0
        assert fetch(cluster, 0, "one", 12, "b")["ErrorCode"] == OUT_OF_RANGE
        cluster.kill("storage", 2, signal.SIGSTOP)
        try:
            write(cluster, "one", 5, acks=1)
            assert fetch(cluster, 0, "one", 0, "b", wait_ms=500)["ErrorCode"] == 0
            wait_until(lambda: seen(fetch(cluster, 0, "one", 15, "b", wait_ms=100)) == (0, -1, True), 60, "what the leader alone has")
        finally:
            cluster.kill("storage", 2, signal.SIGCONT)
    finally:
        cluster.close()


def test_other_classes_are_refused(own_folder):
    for name in ("org.apache.kafka.common.replica.LeaderSelector", "com.example.Mine"):  # Kafka 4.3.1 has none of these either
        cluster = harness.Karst(own_folder, config={"replica.selector.class": name})
        outcome = harness.run(cluster.up_command(), timeout=30)
        assert outcome.status != 0 and "replica.selector.class" in outcome.err and name in outcome.err, str(outcome)
