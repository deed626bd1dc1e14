"""A whole Kafka of three nodes becomes a constellation of Karst, and a Kafka again, twice there and back, on the same directories, under load.

As in test_swap_ten.py a checker knows every acknowledged record and group offset, and Kafka's dump tool reads all files after a clean stop; here
the files of three replicas are compared, too, and what Kafka says when it starts on what Karst wrote is looked at. The first Kafka leaves one
node killed, with a topic that was deleted meanwhile."""
import glob
import os
import re
import struct

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

import harness
import test_swap_ten as ten
from harness import KARST, wait_until
from kafka_cluster import KafkaCluster

NODES, SINGLE, SINGLES = (1, 2, 3), "single", 6
# What a Kafka of three says at any start or stop: others are not there yet, or no more; and notes on the configuration of the test.
USUAL = r"could not be established|in the broker role|NetworkClient that has already been closed|marked as failed|NotController|" \
        r"Unexpected error handling request|Renouncing the leadership|Graceful shutdown of RaftClient failed|This error may be returned transiently|" \
        r"controller activation|Graceful shutdown timed out|Loaded stray log: \S+/late-|Error sending fetch request|Error in response for fetch|slow controller event|was disconnected|Timeout expired before graceful"


class Whole(harness.Karst):
    """Karst on the directories and with the server.properties of a Kafka of three."""

    def __init__(self, kafka):
        harness.Cluster.__init__(self, kafka.folder, kafka.port)
        self.kafka, self.data, self.last_run_dir = kafka, kafka.data_of(1)[0], None
        self.nodes = {"storage": len(NODES)}

    def up_command(self, *more):
        first, *others = [self.kafka.write_settings(n) for n in NODES]
        return [KARST, "up", "--data", self.data, "--listen", self.address, "--config", first,
                *(word for other in reversed(others) for word in ("--node", other)), *more]


def batches(folder, topic, partition):
    """{base offset: bytes} of a replica."""
    found = {}
    for path in sorted(glob.glob(os.path.join(folder, f"{topic}-{partition}", "*.log"))):
        with open(path, "rb") as f:
            data = f.read()
        at = 0
        while at < len(data):
            base, size = struct.unpack_from(">qi", data, at)
            found[base] = data[at:at + 12 + size]
            at += 12 + size
    return found


def epochs(folder, topic, partition, end):
    """Of a replica: the epochs in which something was written."""
    with open(os.path.join(folder, f"{topic}-{partition}", "leader-epoch-checkpoint"), encoding="utf-8") as f:
        rows = [tuple(map(int, line.split())) for line in f.read().splitlines()[2:]]
    return [row for row in rows if row[1] < end]


class Swap:
    """Nodes stop at once, so without a controlled shutdown: the last Kafka would wait for five minutes for a majority that has gone."""

    def __init__(self, folder):
        second = [os.path.join(folder, "2", name) for name in ("data", "other", "third")]
        self.kafka = KafkaCluster(folder, dirs={2: second}, config={**ten.SETTINGS, "controlled.shutdown.enable": "false"})
        self.karst = Whole(self.kafka)
        self.facts, self.position, self.own, self.dumper = ten.Facts(), 0, None, ten.Dumper()
        self.singles = [(SINGLE, p) for p in range(SINGLES)]

    def close(self):
        self.karst.close()
        self.kafka.close()
        self.dumper.close()

    def folder_of(self, node, topic, partition):
        """The log directory that a node has the partition in."""
        folders = [d for d in self.kafka.data_of(node) if os.path.isdir(os.path.join(d, f"{topic}-{partition}"))]
        assert len(folders) <= 1, folders
        return folders[0] if folders else None

    # ------------------------------------------------------------------------------------------------------- a life

    def make_topics(self):
        admin = AdminClient({"bootstrap.servers": self.kafka.address})
        topics = [NewTopic(t, ten.PARTITIONS, 3, config=c) for t, c in ten.TOPICS.items()]
        topics += [NewTopic("late", 3, 3), NewTopic(SINGLE, SINGLES, 1), NewTopic("gone", 3, 3)]
        for future in admin.create_topics(topics).values():
            future.result(120)
        admin.delete_topics(["gone"])["gone"].result(120)

    def write_singles(self, cluster):
        writer = ten.Writer(cluster, self.facts)
        for i in range(300):
            writer.send(SINGLE, i % SINGLES, self.facts.value())
        writer.flush()

    def begin(self, cluster, turn):
        cluster.start()
        if turn == 0:
            self.make_topics()
        else:
            ten.check(cluster, self.facts, self.own, turn - 1, self.singles)
        gone = {"gone", *({"late"} if turn else ())}
        wait_until(lambda: not gone & {t["Name"] for t in cluster.ask("Metadata", 9, {"Topics": None})["Topics"]}, 30, "the end of what was deleted")
        if cluster is self.karst:
            assert not re.search(r" ERROR | is damaged", cluster.whole_log()), cluster.log()

    def work(self, cluster, turn):
        clean = {n: ten.cleaned_to(self.kafka.data_of(n)) for n in NODES}
        ten.write_some(cluster, self.facts)
        self.write_singles(cluster)
        if cluster is self.kafka:  # Karst refuses transactions, but reads them
            ten.write_transactions(cluster, self.facts)
        self.position = ten.go_on_reading(cluster, self.facts, self.position)
        for n in NODES:
            wait_until(lambda: all(at > before for at, before in zip(ten.cleaned_to(self.kafka.data_of(n)), clean[n])), 90,
                       f"compaction on node {n} by {cluster.name}")
        self.own = ten.admin_work(cluster, self.facts, turn)

    def in_sync(self, cluster):
        topics = cluster.ask("Metadata", 9, {"Topics": None})["Topics"]
        return all(len(p["IsrNodes"]) == len(p["ReplicaNodes"]) for t in topics for p in t["Partitions"])

    def turn(self, turn):
        cluster = self.karst if turn % 2 else self.kafka
        self.begin(cluster, turn)
        load = ten.Load(cluster, self.facts)
        load.start()
        self.work(cluster, turn)
        load.stop()
        wait_until(lambda: self.in_sync(cluster), 60, "all replicas in sync")
        self.end(cluster, turn)

    def end(self, cluster, turn):
        killed = []
        if turn == 0:
            killed = [3]
            self.kafka.kill(3)
            wait_until(lambda: all(self.kafka.known(n) == {1, 2} for n in (1, 2)), 180, "the end of the killed node's session")
            admin = AdminClient({"bootstrap.servers": cluster.address})
            admin.delete_topics(["late"], request_timeout=110)["late"].result(120)
        killed += cluster.stop() or []
        self.compare()
        self.dumper.everything([d for n in NODES if n not in killed for d in self.kafka.data_of(n)])

    # ------------------------------------------------------------------------------------------------------- files

    def compare(self):
        """All replicas of a partition have the same batches and epochs; where one starts earlier, from where the others do."""
        for topic in [*(t for t in ten.TOPICS if t not in ten.COMPACTED), "__transaction_state"]:
            for partition in range(ten.PARTITIONS):
                folders = [self.folder_of(n, topic, partition) for n in NODES]
                replicas = [batches(f, topic, partition) for f in folders]
                start = max(min(r, default=0) for r in replicas)
                first, *others = [{k: v for k, v in r.items() if k >= start} for r in replicas]
                for node, other in zip(NODES[1:], others):
                    different = sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k))
                    assert not different, f"{topic}-{partition}: nodes 1 and {node} differ at {different[:5]}, of {max(first, default=0)}"
                if first:
                    told = [[row for row in epochs(f, topic, partition, max(first) + 1)] for f in folders]
                    last = [rows[-1:] for rows in told]
                    assert last[0] == last[1] == last[2], f"{topic}-{partition}: {told}"

    def said(self):
        """What Kafka said since it was last asked, but for what is usual: the first lines of warnings and errors."""
        found = []
        for node in NODES:
            path = os.path.join(self.kafka.folder_of(node), "log")
            with open(path, encoding="utf-8", errors="replace") as f:
                found += [f"{node}: {line.strip()}" for line in f if re.match(r"\[[^]]+\] (WARN|ERROR|FATAL) ", line) and not re.search(USUAL, line)]
            os.truncate(path, 0)
        return found

    def verify_replicas(self):
        """Kafka's own comparison of replicas, which goes on until it is ended."""
        told = harness.run([harness.KAFKA, "replica-verification", "--broker-list", self.kafka.address, "--report-interval-ms", "1000",
                            "--topics-include", "plain.*|txns|read|cut|retained"], timeout=25)
        lags = re.findall(r"max lag is (\d+) for partition", told.out)
        assert lags and lags[-1] == "0" and "differ" not in told.out and "doesn't match" not in told.out, str(told)


@pytest.fixture
def swap(own_folder):
    s = Swap(own_folder)
    yield s
    s.close()


def test_twice_there_and_back(swap):
    swap.turn(0)
    swap.said()
    for turn in (1, 2, 3):
        swap.turn(turn)
        if turn == 2:
            assert swap.said() == []
    swap.begin(swap.kafka, 4)
    swap.verify_replicas()
    swap.kafka.stop()
    assert swap.said() == []
