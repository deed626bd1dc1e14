"""The voters' record: where a Kafka that takes over finds its quorum."""
import os
import re

import pytest

import harness


def recorded(cluster):
    """{controller: (name, port) of each endpoint} of the voters' record."""
    told = cluster.ask("DescribeQuorum", 2, harness.QUORUM)
    return {n["NodeId"]: [(e["Name"], e["Port"]) for e in n["Listeners"]] for n in told["Nodes"]}


def configured(folder, port, controller, **nodes):
    config = {"controller.listener.names": "CONTROLLER", "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
              "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"}
    return harness.Karst(folder, port=port, config=config, **nodes)


@pytest.mark.parametrize("controllers", [1, 3])
def test_another_controller_listener_is_written_down(own_folder, controllers):
    port = harness.free_port([0, *range(60, 63), *range(70, 73)])
    nodes = {"controllers": controllers} if controllers > 1 else {}
    for first in (port + 60, port + 70):
        karst = configured(own_folder, port, first, **nodes)
        karst.start()
        try:
            wanted = {n: [("CONTROLLER", first + n - 1)] for n in range(1, controllers + 1)}
            harness.wait_until(lambda k=karst, w=wanted: recorded(k) == w, 30, f"the endpoints from {first} on")
        finally:
            karst.close()


def test_a_listener_that_nobody_chose_leaves_the_record(own_folder):
    """Another port for clients moves the controller's, and a Kafka that takes over is still found where its voters' record says."""
    karst = harness.Karst(own_folder)
    karst.start()
    before = recorded(karst)
    assert before == {1: [("CONTROLLER", karst.port + 1)]}
    karst.stop()
    karst.port = harness.free_port()
    karst.start()
    try:
        harness.wait_until(lambda: karst.ask("DescribeCluster", 1, {"EndpointType": 2}, port=karst.port + 1)["Brokers"], 20,
                           "the controller's registration")
        assert recorded(karst) == before
    finally:
        karst.close()


def test_three_controllers_are_formed_at_once(own_folder):
    """Each directory is formatted with the same list, as with kafka-storage; what Kafka's tool writes is the same."""
    port = harness.free_port([0, *range(60, 66), *range(1, 4)])
    ids = {n: "AAAAAAAAAAAAAAAAAAAAB" + "QgwA"[n] for n in (1, 2, 3)}
    names = ",".join(f"{n}@127.0.0.1:{port + 60 + n}:{ids[n]}" for n in ids)
    files = {n: os.path.join(own_folder, f"{n}.properties") for n in ids}
    for n, path in files.items():
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"process.roles=broker,controller\nnode.id={n}\nlog.dirs={own_folder}/{n}\ncontroller.listener.names=CONTROLLER\n"
                    f"listeners=PLAINTEXT://127.0.0.1:{port + n},CONTROLLER://127.0.0.1:{port + 60 + n}\n"
                    f"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
                    f"controller.quorum.bootstrap.servers=127.0.0.1:{port + 61}\n")

    def formatted(n, *more, controllers=names):
        return harness.run([harness.KARST, "format", "--data", f"{own_folder}/{n}", "--config", files[n],
                            "--initial-controllers", controllers, *more])
    cluster = ["--cluster-id", "sL02jt0CTo-Lzf3F6faf4w"]
    for wrong in (names.split(",")[1], names + "," + names.split(",")[0], "1@127.0.0.1:" + ids[1], names + "x"):
        refused = formatted(1, *cluster, controllers=wrong)
        assert refused.status == 1 and "--initial-controllers" in refused.err, str(refused)
    assert formatted(1).status == 1
    assert formatted(1, *cluster, "--first").status == 64
    assert harness.run([harness.KARST, "format", "--data", f"{own_folder}/1", "--config", files[1], *cluster]).status == 64
    for n in ids:
        outcome = formatted(n, *cluster)
        assert outcome.status == 0, str(outcome)
    assert formatted(1, *cluster).status == 1
    with open(files[1], encoding="utf-8") as f, open(os.path.join(own_folder, "kafka.properties"), "w", encoding="utf-8") as k:
        k.write(f.read().replace(f"log.dirs={own_folder}/1", f"log.dirs={own_folder}/kafka"))
    harness.ran([harness.KAFKA, "storage", "format", "-t", cluster[1], "-c", k.name, "--initial-controllers", names], timeout=90)
    assert checkpoint(own_folder, "1") == checkpoint(own_folder, "kafka")
    karst = Formed(own_folder, port, files)
    karst.start()
    try:
        assert recorded(karst) == {n: [("CONTROLLER", port + 60 + n)] for n in ids}
        told = karst.ask("DescribeQuorum", 2, harness.QUORUM)["Topics"][0]["Partitions"][0]
        assert {v["ReplicaId"]: v["ReplicaDirectoryId"] for v in told["CurrentVoters"]} == ids
    finally:
        karst.close()


def checkpoint(folder, data):
    """What Kafka's tool reads in the first snapshot, without times and sums."""
    path = os.path.join(folder, data, "__cluster_metadata-0", "00000000000000000000-0000000000.checkpoint")
    out = harness.ran([harness.KAFKA, "dump-log", "--cluster-metadata-decoder", "--files", path], timeout=90)
    return re.sub(r"CreateTime: \d+|crc: \d+|Timestamp\W+\d+", "", out.replace(path, ""))


class Formed(harness.Karst):
    def __init__(self, folder, port, files):
        harness.Cluster.__init__(self, folder, port)
        self.files, self.data, self.last_run_dir, self.nodes = files, os.path.join(folder, "1"), None, {"storage": 3}

    def up_command(self, *more):
        return [harness.KARST, "up", "--data", self.data, "--listen", self.address, "--config", self.files[1],
                "--node", self.files[2], "--node", self.files[3], *more]
