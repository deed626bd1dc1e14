"""karst up --node: nodes that have a server.properties of their own, with the directories, id and controller listener that it says."""
import os
import shutil
import socket

import pytest

import harness
from harness import KARST, run, wait_until
from test_constellation import consumed, create, produced

LISTENERS = {1: 70, 2: 75, 3: 83}  # of controllers, above the port; not one after the other


class WithFiles(harness.Karst):
    """On the directories of a constellation that karst up made: both folders of a node are those of one file."""

    def __init__(self, folder):
        port = harness.free_port([0, 1, 2, 3, 51, 52, 53, *LISTENERS.values()])
        super().__init__(folder, port, storage=3, controllers=3)
        self.by_files, self.listeners = False, {n: port + above for n, above in LISTENERS.items()}

    def file(self, node, **changes):
        metadata, data = (self.data, self.data) if node == 1 else (f"{self.data}.{kind}/{node}" for kind in ("controllers", "storage"))
        settings = {"process.roles": "broker,controller", "node.id": node, "log.dirs": data, "metadata.log.dir": metadata,
                    "controller.listener.names": "CONTROLLER", "log.retention.ms": 1000000 + node,
                    "listeners": f"PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:{self.listeners[node]}",
                    "advertised.listeners": "PLAINTEXT://127.0.0.1:1", **changes}
        path = os.path.join(self.folder, f"node-{node}.properties")
        with open(path, "w", encoding="utf-8") as f:
            f.write("".join(f"{k}={v}\n" for k, v in settings.items()))
        return path

    def up_command(self, *more):
        if not self.by_files:
            return super().up_command(*more)
        return [KARST, "up", "--data", self.data, "--listen", self.address, "--config", self.file(1), "--node", self.file(3),
                "--node", self.file(2), *more]


@pytest.fixture
def stopped(own_folder):
    cluster = WithFiles(own_folder)
    cluster.start()
    create(cluster, "t", 3, replication_factor=3)
    for partition in range(3):
        produced(cluster, "t", partition, [b"%d" % i for i in range(20)])
    cluster.stop()
    cluster.by_files = True
    yield cluster
    cluster.close()


def accepts(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_nodes_run_on_their_own_files(stopped):
    stopped.start()
    assert stopped.ids("controller") == stopped.ids("storage") == [1, 2, 3]
    assert sorted(d["path"] for d in stopped.whole_status()["directories"]) == sorted([stopped.data, *(f"{stopped.data}.storage/{n}" for n in (2, 3))])
    brokers = stopped.ask("Metadata", 9, {"Topics": []})["Brokers"]
    assert {b["NodeId"]: b["Port"] - stopped.port for b in brokers} == {1: 1, 2: 2, 3: 3}  # not what each file tells clients
    assert all(accepts(port) for port in stopped.listeners.values())
    log = stopped.whole_log()
    assert all(f"listening on CONTROLLER://127.0.0.1:{port} for controller {n}" in log for n, port in stopped.listeners.items()), log
    for partition in range(3):
        assert consumed(stopped, "t", [partition], 20) == [b"%d" % i for i in range(20)]
    produced(stopped, "t", 0, [b"more"])
    stopped.kill("storage", 2)
    wait_until(lambda: stopped.process("storage", 2)["restarts"] == 1 and stopped.is_whole(), 40, "the second storage node again")
    assert consumed(stopped, "t", [0], 21)[-1] == b"more"


def test_what_is_refused(stopped):
    def refused(status, sentence, *nodes, more=()):
        outcome = run([KARST, "up", "--data", stopped.data, "--listen", stopped.address, "--config", stopped.file(1),
                       *(word for n in nodes for word in ("--node", n)), *more], timeout=60)
        assert outcome.status == status and sentence in outcome.err, str(outcome)
    refused(78, "ids that follow that of --data, which is 1, one after the other, were expected", stopped.file(3))
    refused(78, "ids that follow that of --data", stopped.file(2), stopped.file(2))
    refused(78, "No such file", os.path.join(stopped.folder, "none.properties"))
    refused(64, "--node says how many", stopped.file(2), more=["--storage", "2"])
    refused(78, "log.dirs", stopped.file(2, **{"log.dirs": os.path.join(stopped.folder, "missing")}))
    refused(78, "process.roles=broker: broker,controller was expected", stopped.file(2, **{"process.roles": "broker"}))
    empty = os.path.join(stopped.folder, "empty")
    os.makedirs(empty)
    refused(1, "has no meta.properties: --node takes directories that were formatted before",
            stopped.file(2, **{"log.dirs": empty, "metadata.log.dir": empty}))
    other = os.path.join(stopped.folder, "other")
    shutil.copytree(f"{stopped.data}.controllers/2", other)
    with open(os.path.join(other, "meta.properties"), "r+", encoding="utf-8") as f:
        text = f.read().replace("cluster.id=", "cluster.id=x")
        f.seek(0)
        f.write(text)
    refused(1, "belongs to the cluster x", stopped.file(2, **{"log.dirs": other, "metadata.log.dir": other}))
    assert os.listdir(empty) == []
