"""Kafka's tools against three storage nodes and against a Kafka of three nodes: the same arguments, the same output."""
import json
import os
import re
import signal

import pytest

import ask
import harness
from harness import wait_until
from kafka_cluster import KafkaCluster

NODES = (1, 2, 3)
QUICK = {"broker.session.timeout.ms": "4000", "broker.heartbeat.interval.ms": "500", "replica.lag.time.max.ms": "4000",
         "leader.imbalance.check.interval.seconds": "3600"}
TOPIC = [(r"TopicId: \S+", "TopicId: <id>"), (r"Isr: ([\d,]+)", lambda m: "Isr: " + ",".join(sorted(m[1].split(","))))]  # who joined first: by chance
EPOCH = (r"Epoch: \d+", "Epoch: <n>")


class Reached:
    """At the ports of those of its brokers that are not frozen: a tool that asks one of these waits for a minute."""
    reachable = NODES

    @property
    def address(self):
        return ",".join(f"127.0.0.1:{self.port + n}" for n in self.reachable)


class OurThree(Reached, harness.Karst):
    def up_command(self, *more):
        return [word if word != self.address else f"127.0.0.1:{self.port}" for word in super().up_command(*more)]


class TheirThree(Reached, KafkaCluster):
    data = "(of its own each)"


# After what harness.normal hides: folders and ports are those of a node.
PLACES = [(r"<data>\.storage/(\d)", r"<data \1>"), (r"<folder>/(\d)/data", r"<data \1>"), (r"<data>", "<data 1>")]


class Three(harness.Pair):
    def tool(self, name, *arguments, **options):
        ports = [(rf"\b{c.port + node}\b", f"<port {node}>") for c in (self.ours, self.theirs) for node in NODES]
        return super().tool(name, *arguments, **{**options, "more": [*PLACES, *ports, *options.get("more", ())]})


@pytest.fixture(scope="module")
def three(folder):
    ours = OurThree(os.path.join(folder, "k"), storage=3, controllers=3, config={**QUICK, "group.initial.rebalance.delay.ms": "0"}, port=harness.free_port(range(4)))
    theirs = TheirThree(os.path.join(folder, "r"), config=QUICK)
    try:
        harness.side_by_side(ours.start, theirs.start)
        yield Three(ours, theirs)
    finally:
        theirs.close()
        ours.close()


def partitions_of(cluster, topic):
    return {p["PartitionIndex"]: p for p in cluster.ask("Metadata", 9, {"Topics": [{"Name": topic}]})["Topics"][0]["Partitions"]}


def create(three, topic, assignment, *configs):
    three.tool("topics", "--create", "--topic", topic, "--replica-assignment", assignment,
               *[word for c in configs for word in ("--config", c)])
    for c in (three.ours, three.theirs):
        wait_until(lambda: all(sorted(p["IsrNodes"]) == sorted(p["ReplicaNodes"]) for p in partitions_of(c, topic).values()), 60, topic)


def written(cluster, topic, partition, count):
    """count batches of one record each, acknowledged by all."""
    leader = partitions_of(cluster, topic)[partition]["LeaderId"]
    for i in range(count):
        body = {"Acks": -1, "TimeoutMs": 20000, "TopicData": [{"Name": topic, "PartitionData": [
            {"Index": partition, "Records": ask.batch([(None, b"%08d" % i)]).hex()}]}]}
        row = cluster.ask("Produce", 9, body, port=cluster.port + leader)["Responses"][0]["PartitionResponses"][0]
        assert (row["ErrorCode"], row["BaseOffset"]) == (0, i), row


def signal_node(cluster, node, how):
    if isinstance(cluster, KafkaCluster):
        cluster.processes[node].send_signal(how)
    else:
        cluster.kill("storage", node, how)


def test_topics(three):
    create(three, "three", "1:2:3,2:3:1,3:1:2")
    create(three, "tight", "1:2,2:3,3:1", "min.insync.replicas=2")
    three.tool("topics", "--create", "--topic", "many", "--replication-factor", "4", status=1)
    three.tool("topics", "--create", "--topic", "wrong", "--replica-assignment", "1:9", status=1)
    three.tool("topics", "--describe", sort=True, more=TOPIC)
    for what in ("--under-replicated-partitions", "--at-min-isr-partitions", "--under-min-isr-partitions", "--unavailable-partitions"):
        three.tool("topics", "--describe", what, sort=True)
    three.tool("topics", "--alter", "--topic", "tight", "--partitions", "4", "--replica-assignment", "1:2,2:3,3:1,2:1")
    three.tool("topics", "--describe", "--topic", "tight", more=TOPIC)


def test_cluster_and_features(three):
    three.tool("cluster", "cluster-id")
    three.tool("cluster", "list-endpoints")
    three.tool("cluster", "list-endpoints", "--include-fenced-brokers")
    three.tool("cluster", "unregister", "--id", "9", check_err=False, status=1)
    three.tool("features", "describe", more=[EPOCH])
    three.tool("features", "upgrade", "--release-version", "4.3", sort=True)
    # Which APIs there are is in docs/compatibility.md; that all brokers say the same, and who they are, is the same here.
    three.tool("broker-api-versions", sort=True, only=r"id: \d|Metadata|Produce|ElectLeaders|Reassignment")


def test_quorum(three):
    """Who leads is by chance."""
    numbers = [(r"(LeaderId|LeaderEpoch|HighWatermark|MaxFollowerLag|MaxFollowerLagTimeMs):\s+\d+", r"\1: <n>"),
               (r"CONTROLLER://127.0.0.1:\S+?\"", 'CONTROLLER://<address>"')]
    three.tool("metadata-quorum", "describe", "--status", more=numbers)

    def replication(c):
        outcome = c.tool("metadata-quorum", "describe", "--replication")
        assert outcome.status == 0, str(outcome)
        head, *rows = [line.split() for line in outcome.out.splitlines() if line.strip()]
        return head, sorted(row[0] for row in rows), sorted(row[-1] for row in rows), {len(row) for row in rows}
    ours, theirs = three.both(replication)
    assert ours == theirs


def test_records_and_where_they_are(three):
    create(three, "kept", "1:2:3,2:3:1,3:1:2")
    three.both(lambda c: [written(c, "kept", p, 20) for p in range(3)])
    three.tool("get-offsets", "--topic", "kept")
    three.tool("get-offsets", "--topic", "kept", "--time", "earliest")
    three.tool("log-dirs", "--describe", "--topic-list", "kept")
    three.tool("log-dirs", "--describe", "--topic-list", "kept", "--broker-list", "3,1")
    three.tool("log-dirs", "--describe", "--topic-list", "kept", "--broker-list", "2,9", status=1)
    three.tool("console-consumer", "--topic", "kept", "--from-beginning", "--group", "g", "--max-messages", "60", sort=True)
    three.tool("consumer-groups", "--describe", "--group", "g", sort=True)
    three.tool("consumer-groups", "--describe", "--group", "g", "--members")
    three.tool("consumer-groups", "--describe", "--group", "g", "--state", more=[(r"127.0.0.1:<port.\d> *\(\d\)", "<coordinator>")])
    three.tool("consumer-groups", "--list")

    def write_plan(c):
        with open(os.path.join(c.folder, "delete.json"), "w", encoding="utf-8") as f:
            json.dump({"version": 1, "partitions": [{"topic": "kept", "partition": p, "offset": 5 + p} for p in range(3)]}, f)
    three.both(write_plan)
    three.tool("delete-records", "--offset-json-file", "{folder}/delete.json", sort=True)
    three.tool("get-offsets", "--topic", "kept", "--time", "earliest")
    three.tool("consumer-groups", "--reset-offsets", "--group", "g", "--topic", "kept", "--to-earliest", "--execute", sort=True)


def test_replicas_are_verified(three):
    """The tool reads every replica as a broker that follows would, on the brokers' ports."""
    create(three, "verified", "1:2:3,2:3:1,3:1:2")
    three.both(lambda c: [written(c, "verified", p, 20) for p in range(3)])

    def verified(c):
        outcome = harness.run([harness.KAFKA, "replica-verification", "--broker-list", c.address, "--topics-include", "verified", "--time", "-2",
                               "--report-interval-ms", "500"], timeout=15)  # it never ends
        return set(re.findall(r"max lag is .*", outcome.out)), str(outcome)
    ours, theirs = three.both(verified)
    assert theirs[0] and ours[0] == theirs[0], (ours, theirs)


def test_configs_of_brokers(three):
    """Each broker says what its own file says."""
    def shown(c):
        rows = {}
        for node in NODES:
            out = c.tool("configs", "--entity-type", "brokers", "--entity-name", str(node), "--describe", "--all").out
            rows[node] = dict(re.findall(r"^  ([\w.]+)=(.*?) sensitive=", out, re.M))
        return rows
    ours, theirs = three.both(shown)
    apart = {"advertised.listeners", "listeners", "listener.security.protocol.map", "log.dirs", "metadata.log.dir",  # addresses and folders
             "controller.quorum.bootstrap.servers", "default.replication.factor"}                                  # the helper's own settings
    for node in NODES:
        assert ours[node].keys() == theirs[node].keys()
        differ = {k: (v, theirs[node][k]) for k, v in ours[node].items() if theirs[node][k] != v and k not in apart}
        assert not differ, differ
        assert ours[node]["node.id"] == ours[node]["broker.id"] == str(node)
        assert ours[node]["log.dirs"] == (three.ours.data if node == 1 else f"{three.ours.data}.storage/{node}")
    entity = ("--entity-type", "brokers", "--entity-name")
    three.tool("configs", *entity, "2", "--alter", "--add-config", "log.retention.ms=777000,leader.replication.throttled.rate=1000")
    for node in ("1", "2"):
        three.tool("configs", *entity, node, "--describe", sort=True)
    three.tool("configs", "--entity-type", "brokers", "--entity-default", "--alter", "--add-config", "log.retention.ms=888000")
    for node in ("1", "2"):
        three.tool("configs", *entity, node, "--describe", "--all", only=r"log\.(retention|dirs)|node\.id|throttled", sort=True)
    three.tool("configs", *entity, "2", "--alter", "--delete-config", "log.retention.ms,leader.replication.throttled.rate")
    three.tool("configs", "--entity-type", "brokers", "--entity-default", "--alter", "--delete-config", "log.retention.ms")
    three.tool("configs", *entity, "2", "--describe")
    three.tool("configs", *entity, "9", "--describe", check_err=False)


def test_requests_for_one_broker_come_to_it(three):
    """Another broker refuses them."""
    for resource in ("2", "9", "x", ""):
        body = {"Resources": [{"ResourceType": 4, "ResourceName": resource, "ConfigurationKeys": ["node.id", "log.retention.ms"]}]}
        ours, theirs = three.both(lambda c: c.ask("DescribeConfigs", 4, body, port=c.port + 3))
        assert ours == theirs


def test_elections(three):
    create(three, "led", "1:2:3,2:3:1")
    for kind in ("preferred", "unclean"):
        three.tool("leader-election", "--election-type", kind, "--topic", "led", "--partition", "0")
        three.tool("leader-election", "--election-type", kind, "--all-topic-partitions", sort=True)
    three.tool("leader-election", "--election-type", "preferred", "--topic", "led", "--partition", "9", check_err=False, status=1)

    def write_plan(c):
        with open(os.path.join(c.folder, "led.json"), "w", encoding="utf-8") as f:
            json.dump({"version": 1, "partitions": [{"topic": "led", "partition": 0, "replicas": [3, 1, 2]}, {"topic": "led", "partition": 1, "replicas": [1, 2, 3]}]}, f)
        with open(os.path.join(c.folder, "elect.json"), "w", encoding="utf-8") as f:
            json.dump({"partitions": [{"topic": "led", "partition": p} for p in range(2)]}, f)
    three.both(write_plan)
    three.tool("reassign-partitions", "--reassignment-json-file", "{folder}/led.json", "--execute", sort=True)
    three.tool("reassign-partitions", "--reassignment-json-file", "{folder}/led.json", "--verify", sort=True)
    three.tool("topics", "--describe", "--topic", "led", more=TOPIC)
    three.tool("leader-election", "--election-type", "preferred", "--path-to-json-file", "{folder}/elect.json", sort=True)
    three.tool("topics", "--describe", "--topic", "led", more=TOPIC)


def test_reassignments(three):
    create(three, "moved", "1:2,2:3", "retention.bytes=-1")
    three.both(lambda c: [written(c, "moved", p, 20) for p in range(2)])

    def write_plan(c):
        with open(os.path.join(c.folder, "moved.json"), "w", encoding="utf-8") as f:
            json.dump({"version": 1, "partitions": [{"topic": "moved", "partition": 0, "replicas": [3, 1]},
                                                    {"topic": "moved", "partition": 1, "replicas": [1, 2, 3]}]}, f)
        with open(os.path.join(c.folder, "wrong.json"), "w", encoding="utf-8") as f:
            json.dump({"version": 1, "partitions": [{"topic": "moved", "partition": 0, "replicas": [3, 9]},
                                                    {"topic": "nosuch", "partition": 1, "replicas": [1]}]}, f)
        with open(os.path.join(c.folder, "topics.json"), "w", encoding="utf-8") as f:
            json.dump({"version": 1, "topics": [{"topic": "moved"}]}, f)
    three.both(write_plan)
    plan = ("--reassignment-json-file", "{folder}/moved.json")
    three.tool("reassign-partitions", "--topics-to-move-json-file", "{folder}/topics.json", "--broker-list", "1,2", "--generate",
               only="Current|moved.*replicas|Proposed", more=[(r"(Proposed[^\n]*\n)\{.*\}", r"\1<by chance>")])
    three.tool("reassign-partitions", *plan, "--execute", "--throttle", "50000000", sort=True)
    for c in (three.ours, three.theirs):
        wait_until(lambda: [sorted(partitions_of(c, "moved")[p]["IsrNodes"]) for p in range(2)] == [[1, 3], [1, 2, 3]] and
                   not c.ask("ListPartitionReassignments", 0, {"TimeoutMs": 5000, "Topics": None})["Topics"], 60, "the end of the moves")
    three.tool("configs", "--entity-type", "topics", "--entity-name", "moved", "--describe", sort=True)
    for node in ("1", "3"):
        three.tool("configs", "--entity-type", "brokers", "--entity-name", node, "--describe", sort=True)
    three.tool("reassign-partitions", *plan, "--verify", "--preserve-throttles", sort=True)
    three.tool("reassign-partitions", *plan, "--verify", sort=True)
    three.tool("configs", "--entity-type", "topics", "--entity-name", "moved", "--describe", sort=True)
    three.tool("configs", "--entity-type", "brokers", "--entity-name", "3", "--describe", sort=True)
    three.tool("reassign-partitions", *plan, "--cancel", sort=True)
    three.tool("reassign-partitions", "--list")
    three.tool("reassign-partitions", "--reassignment-json-file", "{folder}/wrong.json", "--execute", status=1)
    three.tool("topics", "--describe", "--topic", "moved", more=TOPIC)


def test_while_a_node_is_away(three):
    """Fenced: what is under-replicated, at and under its minimum, and offline; elections of what it led; and a move that waits for it."""
    create(three, "away", "3:1:2,1:2:3", "min.insync.replicas=2")
    create(three, "under", "3:1,1:3", "min.insync.replicas=2")
    create(three, "alone", "3,1")
    for c in (three.ours, three.theirs):
        signal_node(c, 3, signal.SIGSTOP)
        c.reachable = (1, 2)
    try:
        for c in (three.ours, three.theirs):
            port = c.port + 1
            wait_until(lambda: [p["LeaderId"] for p in c.ask("Metadata", 9, {"Topics": [{"Name": "alone"}]}, port=port)["Topics"][0]["Partitions"]]
                       == [-1, 1], 60, "node 3 to be fenced")
        topics = ("--topic", "away|under|alone")
        for what in ((), ("--under-replicated-partitions",), ("--at-min-isr-partitions",), ("--under-min-isr-partitions",), ("--unavailable-partitions",)):
            three.tool("topics", "--describe", *topics, *what, sort=True, more=TOPIC, only="away|under|alone")
        three.tool("cluster", "list-endpoints", "--include-fenced-brokers")
        three.tool("leader-election", "--election-type", "preferred", "--topic", "away", "--partition", "0", check_err=False)
        three.tool("leader-election", "--election-type", "unclean", "--topic", "alone", "--partition", "0", check_err=False)
        three.tool("topics", "--create", "--topic", "later", "--replica-assignment", "3:1")

        def write_plan(c):
            with open(os.path.join(c.folder, "away.json"), "w", encoding="utf-8") as f:
                json.dump({"version": 1, "partitions": [{"topic": "alone", "partition": 1, "replicas": [3, 2]}]}, f)
        three.both(write_plan)
        plan = ("--reassignment-json-file", "{folder}/away.json")
        three.tool("reassign-partitions", *plan, "--execute", sort=True)
        three.tool("reassign-partitions", "--list", sort=True)
        three.tool("reassign-partitions", *plan, "--cancel", sort=True)
    finally:
        for c in (three.ours, three.theirs):
            signal_node(c, 3, signal.SIGCONT)
            c.reachable = NODES
    for c in (three.ours, three.theirs):
        wait_until(lambda: all(sorted(p["IsrNodes"]) == sorted(p["ReplicaNodes"]) for t in ("away", "under", "alone") for p in partitions_of(c, t).values()),
                   90, "node 3 in sync again")
    three.tool("topics", "--describe", "--under-replicated-partitions", sort=True)
    three.tool("leader-election", "--election-type", "preferred", "--topic", "away", "--partition", "0")
