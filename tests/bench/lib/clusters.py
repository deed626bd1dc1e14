"""clusters.py - the systems that are measured, with three nodes each: what is written lies on all three, and any of them may die."""
import contextlib
import json
import os
import signal
import subprocess
import time

import systems  # (first: it makes the others known)
import kafka_cluster
from systems import harness

NODES = (1, 2, 3)
STOP_S = 180  # of Kafka, with 10,000 partitions


class Nodes:
    """What both have: replication factor 3, and a node that can be killed."""
    replicas = len(NODES)

    def create(self, topic, partitions, configs=None, leader=None):
        """leader: of all partitions, for plain sockets, which send all to one address; None: each node leads a third."""
        order = list(NODES)
        assignments = []
        for i in range(partitions):
            first = order.index(leader) if leader else i % len(order)
            assignments.append({"PartitionIndex": i, "BrokerIds": order[first:] + order[:first]})
        self.create_assigned(topic, assignments, configs)

    def create_assigned(self, topic, assignments, configs=None):
        answer = self.ask("CreateTopics", 5, {"Topics": [{"Name": topic, "NumPartitions": -1, "ReplicationFactor": -1, "Assignments": assignments,
                                                          "Configs": [{"Name": k, "Value": v} for k, v in (configs or {}).items()]}],
                                              "timeoutMs": 120000, "validateOnly": False}, timeout_s=180)
        error = answer["Topics"][0]["ErrorCode"]
        if error != 0:
            raise RuntimeError(f"{self.name}: CreateTopics {topic}: error {error}")
        harness.wait_until(lambda: self.in_sync(topic, len(assignments)), 300, f"all replicas of {topic} in sync")

    def in_sync(self, topic, partitions):
        try:
            found = self.metadata([topic])["Topics"][0]
            return found["ErrorCode"] == 0 and len(found["Partitions"]) == partitions and \
                all(p["ErrorCode"] == 0 and len(p["IsrNodes"]) == self.replicas for p in found["Partitions"]) and self.leads(topic, partitions)
        except OSError:
            return False

    def metadata(self, topics, port=None):
        with harness.ask.Connection("127.0.0.1", port or self.port, 60) as c:
            return c.ask("Metadata", 9, {"Topics": [{"Name": t} for t in topics], "AllowAutoTopicCreation": False})

    def offsets(self, topic, timestamp):
        """{partition: its offset at a special time}, each asked of its leader at the address that Metadata gives."""
        answer = self.metadata([topic])
        ports = {b["NodeId"]: b["Port"] for b in answer["Brokers"]}
        by_leader = {}
        for p in answer["Topics"][0]["Partitions"]:
            by_leader.setdefault(p["LeaderId"], []).append({"PartitionIndex": p["PartitionIndex"], "Timestamp": timestamp, "CurrentLeaderEpoch": -1})
        found = {}
        for leader, asked in by_leader.items():
            if leader in ports:
                with harness.ask.Connection("127.0.0.1", ports[leader], 60) as c:
                    body = {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [{"Name": topic, "Partitions": asked}]}
                    partitions = c.ask("ListOffsets", 4, body)["Topics"][0]["Partitions"]
                found.update((p["PartitionIndex"], p["Offset"]) for p in partitions if p["ErrorCode"] == 0)
        return found

    def leads(self, topic, partitions):
        return len(self.offsets(topic, -1)) == partitions

    def records(self, topic, _partitions):
        first, last = self.offsets(topic, -2), self.offsets(topic, -1)
        return sum(last.values()) - sum(first.values())

    def quorum_leader(self):
        return self.ask("DescribeQuorum", 0, harness.QUORUM)["Topics"][0]["Partitions"][0]["LeaderId"]

    @contextlib.contextmanager
    def frozen(self, node):
        """The node stands still, as if its machine were cut off: nobody is told, and nobody starts it again."""
        pids = self.node_pids(node)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield time.monotonic()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


class Karst(Nodes, systems.Karst):
    """3 storage nodes, 3 controllers, 2 front ends. Memory and processor time are those of all of them."""

    def __init__(self, name="Karst", programs=harness.BIN, settings=None):
        super().__init__(name, programs, settings)
        self.port = harness.free_port([*(100 * f + n for f in range(2) for n in range(len(NODES) + 1)), *harness.CONTROLLER_PORTS])

    def command(self):
        return [*super().command(), "--storage", "3", "--controllers", "3", "--frontends", "2"]

    def prepare(self):
        self.settings = {"offsets.topic.replication.factor": "3", **self.settings}
        super().prepare()

    def wait(self, timeout_s=120):
        super().wait(timeout_s)
        harness.wait_until(lambda: len(self.metadata([])["Brokers"]) == len(NODES), timeout_s, "three brokers")
        return self

    def others(self, _node):
        """Addresses where clients of the other nodes ask: all front ends."""
        return [self.port, self.port + 100]

    def node_pids(self, node):
        status = harness.ran([os.path.join(self.programs, "karst"), "status", "--data", os.path.join(self.folder, "data"), "--json"])
        return [p["pid"] for p in json.loads(status)["processes"] if p["role"] in ("storage", "controller") and p["id"] == node]

    @staticmethod
    def variant(text):
        return systems.Karst.variant(text, Karst)


class Kafka(Nodes, systems.Kafka):
    """Three nodes, each broker and controller, as Kafka's own start script runs them."""

    def __init__(self):
        super().__init__()
        self.cluster = kafka_cluster.KafkaCluster(self.folder, len(NODES), config=systems.SOON, environment=self.environment())
        self.port = self.cluster.broker_port(1)

    def prepare(self):
        self.cluster.format()

    def run(self):
        self.started = time.monotonic()
        self.cluster.start(wait=False)
        self.process = self.cluster.processes[1]
        return self

    def wait(self, timeout_s=180):
        super().wait(timeout_s)
        harness.wait_until(lambda: len(self.metadata([])["Brokers"]) == len(NODES), timeout_s, "three brokers")
        return self

    def alive(self):
        return all(map(self.cluster.running, NODES))

    def pids(self):
        return [pid for n in NODES for pid in self.node_pids(n)]

    def log(self):
        return self.cluster.log(lines=8)

    def others(self, node):
        return [self.cluster.broker_port(n) for n in NODES if n != node]

    def node_pids(self, node):
        return systems.tree(self.cluster.processes[node].pid)

    def end(self):
        killed = self.cluster.stop(patience_s=STOP_S)
        if killed:
            raise subprocess.TimeoutExpired(f"the clean stop of nodes {killed}", STOP_S)
