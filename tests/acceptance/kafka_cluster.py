"""kafka_cluster.py - a real Apache Kafka of several nodes on 127.0.0.1, for tests beside a constellation of Karst.

  with KafkaCluster(folder) as kafka:                      three nodes, each broker and controller, a dynamic quorum
      kafka.start()                                        all, side by side; returns when each knows all brokers
      kafka.kill(2); kafka.start(2)                        one; kill(2, signal.SIGSTOP) and SIGCONT freeze and thaw it
      kafka.ask("Metadata", 9, {"Topics": None})           at the first broker that runs; node=3 says at which

Broker N is at port + N, where a constellation with the same port has it, too; controller N at port + 10 + N. With combined=False
controllers are processes of their own, with ids from 101 on; with dynamic=False the voters are in the configuration
(controller.quorum.voters), as in clusters of before KIP-853.

Nodes are child processes, ended by their process id; each has a folder of its own: FOLDER/N with server.properties and log, and its
log.dirs, FOLDER/N/data unless told otherwise. A heap of 384 MiB and the serial collector, unless told otherwise: three fit on a small machine.
"""
import base64
import contextlib
import os
import signal
import subprocess
import time
import uuid

import harness
from harness import KAFKA, alive, ran, side_by_side, wait_until

BROKER, CONTROLLER = 0, 10  # above the port
APART = 100                 # ids of controllers that are processes of their own
START_S, STOP_S = 240, 45   # three JVMs beside other work on two cores
SMALL = {"KAFKA_HEAP_OPTS": "-Xms64m -Xmx384m", "KAFKA_OPTS": "-XX:-UseG1GC -XX:+UseSerialGC"}


def random_uuid():
    """As Kafka writes them; never with a dash in front, which the format tool takes for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


class KafkaCluster(harness.Cluster):
    name = "kafka"

    def __init__(self, folder, nodes=3, port=None, combined=True, dynamic=True, config=None, node_config=None, dirs=None, environment=None):
        """config: properties of all nodes; node_config: {node: properties} on top of them; dirs: {node: [log directories]};
        environment: of its JVMs."""
        self.ids = list(range(1, nodes + 1))
        self.controllers = self.ids if combined else [APART + n for n in self.ids]
        super().__init__(folder, port or harness.free_port([0, *[base + n for base in (BROKER, CONTROLLER) for n in self.ids]]))
        self.combined, self.dynamic, self.environment = combined, dynamic, environment or SMALL
        self.config, self.node_config, self.dirs = dict(config or {}), node_config or {}, dirs or {}
        self.processes, self.cluster_id = {}, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---------------------------------------------------------------------------------------------------------- where

    @property
    def nodes(self):
        """The ids of all processes."""
        return self.ids if self.combined else [*self.ids, *self.controllers]

    def host(self, node):
        return "127.0.0.1"

    def command(self, node, words):
        """What runs words where the node is."""
        return words

    def broker_port(self, node):
        return self.port + BROKER + node

    def controller_port(self, node):
        return self.port + CONTROLLER + node % APART

    @property
    def address(self):
        """All brokers, so that any of them may be dead."""
        return ",".join(f"{self.host(n)}:{self.broker_port(n)}" for n in self.ids)

    @property
    def controller_address(self):
        return ",".join(f"{self.host(n)}:{self.controller_port(n)}" for n in self.controllers)

    def folder_of(self, node):
        return os.path.join(self.folder, str(node))

    def data_of(self, node):
        """Its log directories; the metadata log is in the first."""
        return self.dirs.get(node) or [os.path.join(self.folder_of(node), "data")]

    # --------------------------------------------------------------------------------------------------- configuration

    def settings(self, node):
        leads, serves = node in self.controllers, node in self.ids
        listeners = [f"PLAINTEXT://{self.host(node)}:{self.broker_port(node)}"] * serves + \
            [f"CONTROLLER://{self.host(node)}:{self.controller_port(node)}"] * leads
        voters = ",".join(f"{n}@{self.host(n)}:{self.controller_port(n)}" for n in self.controllers)
        factor, isr = str(min(3, len(self.ids))), str(min(2, len(self.ids)))
        return {
            "process.roles": ",".join(["broker"] * serves + ["controller"] * leads),
            "node.id": str(node), "listeners": ",".join(listeners), "advertised.listeners": ",".join(listeners),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            **({"controller.quorum.bootstrap.servers": self.controller_address} if self.dynamic else {"controller.quorum.voters": voters}),
            "log.dirs": ",".join(self.data_of(node)), "metadata.log.dir": self.data_of(node)[0],
            "offsets.topic.replication.factor": factor, "transaction.state.log.replication.factor": factor,
            "transaction.state.log.min.isr": isr, "share.coordinator.state.topic.replication.factor": factor,
            "share.coordinator.state.topic.min.isr": isr, "default.replication.factor": factor,
            "group.initial.rebalance.delay.ms": "0",
            **self.config, **self.node_config.get(node, {})}

    def write_settings(self, node):
        os.makedirs(self.folder_of(node), exist_ok=True)
        path = os.path.join(self.folder_of(node), "server.properties")
        with open(path, "w", encoding="utf-8") as f:
            f.write("".join(f"{k}={v}\n" for k, v in self.settings(node).items()))
        return path

    def format(self):
        """Directories that have no meta.properties yet; those that have it are left as they are."""
        new = [n for n in self.nodes if not os.path.exists(os.path.join(self.data_of(n)[0], "meta.properties"))]
        if not new:
            return
        assert new == self.nodes, f"only {new} of {self.nodes} are not formatted"
        self.cluster_id = random_uuid()
        voters = ",".join(f"{n}@{self.host(n)}:{self.controller_port(n)}:{random_uuid()}" for n in self.controllers)

        def one(node):
            how = []
            if self.dynamic:
                how = ["--initial-controllers", voters] if node in self.controllers else ["--no-initial-controllers"]
            ran([KAFKA, "storage", "format", "-t", self.cluster_id, "-c", self.write_settings(node), *how], timeout=120)
        side_by_side(*[lambda n=n: one(n) for n in self.nodes])

    # ------------------------------------------------------------------------------------------------------- processes

    def running(self, node):
        return node in self.processes and self.processes[node].poll() is None

    def pids(self):
        return {n: p.pid for n, p in self.processes.items() if p.poll() is None}

    def launch(self, node):
        assert not self.running(node), f"node {node} runs already"
        path = self.write_settings(node)
        with open(os.path.join(self.folder_of(node), "log"), "ab") as log:
            self.processes[node] = subprocess.Popen(self.command(node, [KAFKA, "server", path]), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                    env={**os.environ, **self.environment}, start_new_session=True)

    def start(self, node=None, wait=True):
        """One node, or all. Returns when every broker that runs names all brokers that run."""
        if node is None:
            self.format()
        for n in [node] if node is not None else self.nodes:
            self.launch(n)
        if wait:
            wait_until(self.is_whole, START_S, f"brokers that know each other, of {self.pids()}")
        return self

    def is_whole(self):
        ended = {n: p.poll() for n, p in self.processes.items() if p.poll() not in (None, -signal.SIGKILL, 0, 143)}
        assert not ended, f"nodes ended: {ended}\n{self.log()}"
        wanted = {n for n in self.ids if self.running(n)}
        return all(self.known(n) == wanted for n in wanted)

    def known(self, node):
        """The brokers that a broker tells clients of; None while it does not answer."""
        with contextlib.suppress(OSError):
            return {b["NodeId"] for b in self.ask("Metadata", 9, {"Topics": []}, node=node)["Brokers"]}

    def kill(self, node, how=signal.SIGKILL):
        """Sends the signal; after one that ends it, waits until it has ended."""
        process = self.processes[node]
        process.send_signal(how)
        if how in (signal.SIGKILL, signal.SIGTERM):
            process.wait(120)
            wait_until(lambda: not alive(process.pid), 30, f"the end of node {node}")

    def stop(self, node=None, patience_s=STOP_S):
        """Cleanly: one node, or all, brokers before controllers that are processes of their own. The nodes that had to be killed: one that
        finds no controller any more would wait for five minutes, which happens where the last ones stop one after the other."""
        killed = []
        for nodes in [[node]] if node is not None else [self.ids, self.controllers]:
            nodes = [n for n in nodes if self.running(n)]
            for n in nodes:
                self.processes[n].terminate()
            deadline = time.monotonic() + patience_s
            for n in nodes:
                try:
                    self.processes[n].wait(max(1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self.kill(n)
                    killed.append(n)
        return killed

    def close(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(60)

    def log(self, node=None, lines=40):
        """The last lines that nodes said, for a failed test's message."""
        text = ""
        for n in [node] if node is not None else self.nodes:
            with contextlib.suppress(OSError), open(os.path.join(self.folder_of(n), "log"), encoding="utf-8", errors="replace") as f:
                text += f"--- node {n}\n" + "".join(f.readlines()[-lines:])
        return text or "(no log)"

    # -------------------------------------------------------------------------------------------------------- requests

    def ask(self, api, version, body=None, port=None, node=None):
        """Of the broker at a port, or of a node, or of the first broker that runs."""
        node = node or next(n for n in self.ids if self.running(n))
        return super().ask(api, version, body, port or self.broker_port(node))
