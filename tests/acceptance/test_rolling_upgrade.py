"""A constellation goes from one release to the next, and back, one process at a time, while it serves: nothing is lost, nobody waits.

The two releases are two builds: bin/ speaks the present version of the bus and the one before, bin/before (the target `before`) that one
alone. A folder of programs is all that `karst restart` is told.
"""
import contextlib
import os
import socket
import threading
import time

import confluent_kafka
import pytest

import harness
from harness import KARST, run, wait_until
from test_constellation import create
from test_kill import PARTITIONS, Load, check_contents
from test_leader_changes import wait_whole

AFTER = harness.BIN
BEFORE = os.path.join(harness.BIN, "before")
PRESENT = 2  # BUS_VERSION of libs/bus/version.h
UNSUPPORTED_VERSION, DUPLICATE_VOTER = 35, 126


class Upgraded(harness.Karst):
    """Started by the release before."""

    def up_command(self, *more):
        return [os.path.join(BEFORE, "karst"), *super().up_command(*more)[1:]]

    def restart(self, process=None, folder=None):
        return run([KARST, "restart", *([process] if process else []), "--data", self.data, *(["--bin", folder] if folder else [])],
                   timeout=300)

    def versions(self):
        return {f"{p['role']}-{p['id']}": p["bus_version"] for p in self.status()}


class Watched(Load):
    """Remembers the longest time in which a partition had no acknowledgement."""
    longest = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.last = [time.monotonic()] * PARTITIONS

    def on_delivery(self, error, message):
        super().on_delivery(error, message)
        self.longest = max(self.longest, self.last_ack - self.last[message.partition()])
        self.last[message.partition()] = self.last_ack


class Group(threading.Thread):
    """The one member of a group: what it has read, by partition and offset. What a rebalance hands out again must be the same."""

    def __init__(self, cluster, topic):
        super().__init__(daemon=True)
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": cluster.address, "group.id": "readers", "auto.offset.reset": "earliest", "auto.commit.interval.ms": 500,
            "reconnect.backoff.max.ms": 200, "metadata.recovery.strategy": "none"})
        self.consumer.subscribe([topic])
        self.stopping = threading.Event()
        self.rows = [{} for _ in range(PARTITIONS)]
        self.wrong = []

    def run(self):
        while not self.stopping.is_set():
            for m in self.consumer.consume(5000, 0.1):
                if m.error():
                    continue
                rows, value = self.rows[m.partition()], Load.number(m.value())
                if m.offset() > len(rows) or rows.setdefault(m.offset(), value) != value:
                    self.wrong.append((m.partition(), m.offset(), value))
        self.consumer.close()


@pytest.fixture
def upgraded(own_folder):
    if not os.path.exists(os.path.join(BEFORE, "karst")):
        pytest.fail(f"there is no {BEFORE}: build the target before")
    cluster = Upgraded(own_folder, storage=3, controllers=3, frontends=2)
    yield cluster
    cluster.close()


def add_voter(cluster, port=None):
    """The code that AddRaftVoter of a voter gets, which came with the present version."""
    quorum = cluster.ask("DescribeQuorum", 2, harness.QUORUM)
    voter = quorum["Topics"][0]["Partitions"][0]["CurrentVoters"][0]
    listeners = [{"Name": "CONTROLLER", "Host": "localhost", "Port": 1}]
    return cluster.ask("AddRaftVoter", 0, {"ClusterId": None, "TimeoutMs": 5000, "VoterId": voter["ReplicaId"],
                                           "VoterDirectoryId": voter["ReplicaDirectoryId"], "Listeners": listeners}, port=port)["ErrorCode"]


def test_a_release_is_replaced_by_the_next_and_taken_back(upgraded):
    upgraded.start()
    wait_until(lambda: set(upgraded.versions().values()) == {PRESENT - 1}, 20, "all processes to say what they speak")
    create(upgraded, "load", PARTITIONS, replication_factor=3, config={"min.insync.replicas": "2"})
    wait_whole(upgraded, "load")
    load, group = Watched(upgraded, "load"), Group(upgraded, "load")
    load.start()
    group.start()

    def go_on(step):
        acked, read = [len(a) for a in load.acked], [len(r) for r in group.rows]
        wait_until(lambda: all(len(a) > n + 20 for a, n in zip(load.acked, acked)) and
                   all(len(r) > n + 20 for r, n in zip(group.rows, read)), 60, f"records of all partitions, after {step}")
        assert not load.errors and not group.wrong, (step, load.errors[:3], group.wrong[:3])

    def replace(process, folder, version):
        load.longest = 0
        pid = next(p["pid"] for p in upgraded.status() if f"{p['role']}-{p['id']}" == process)
        outcome = upgraded.restart(process, folder)
        assert outcome.status == 0, f"{outcome}\n{upgraded.log()}"
        assert upgraded.versions()[process] == version and not harness.alive(pid)
        go_on(f"{process} was replaced by version {version}")
        pauses.append((round(load.longest, 2), process, version))

    go_on("the start")
    pauses = []
    everybody = list(upgraded.versions())
    for process in everybody:
        assert add_voter(upgraded) == UNSUPPORTED_VERSION  # as long as one is left
        replace(process, AFTER, PRESENT)
    for port in (upgraded.port, upgraded.port + 100):
        wait_until(lambda: add_voter(upgraded, port) == DUPLICATE_VOTER, 20, "the level of the cluster to rise")
    # Back, in the other order. With the first that comes the level falls.
    for process in reversed(everybody):
        replace(process, BEFORE, PRESENT - 1)
        assert wait_until(lambda: add_voter(upgraded) == UNSUPPORTED_VERSION, 20, "the level of the cluster to fall")
    assert set(upgraded.versions().values()) == {PRESENT - 1}
    assert all(p["restarts"] == 0 for p in upgraded.status()), "a process died"

    load.stopping.set()
    load.join(90)
    assert load.left == 0 and not load.errors, (load.left, load.errors[:5])
    wait_until(lambda: all(len(r) >= len(a) for r, a in zip(group.rows, load.acked)), 60, "the group to read all")
    group.stopping.set()
    group.join(30)
    assert not group.wrong
    check_contents(upgraded, load)
    print("pauses in seconds, longest first:", sorted(pauses, reverse=True))
    wrong = [line for line in upgraded.whole_log().splitlines() if "broke the rules" in line or "refuses us: VERSION" in line]
    assert not wrong, wrong[:5]


def test_all_processes_one_after_the_other(upgraded):
    upgraded.start()
    create(upgraded, "kept", 6, replication_factor=3)
    before = {p["pid"] for p in upgraded.status()}
    outcome = upgraded.restart(folder=AFTER)
    assert outcome.status == 0, f"{outcome}\n{upgraded.log()}"
    assert [line.split()[0] for line in outcome.out.splitlines() if "controller" not in line] == [
        "storage-1", "storage-2", "storage-3", "group-1", "txn-1", "frontend-1", "frontend-2"]
    assert outcome.out.count("controller-") == 3
    assert set(upgraded.versions().values()) == {PRESENT} and not before & {p["pid"] for p in upgraded.status()}
    wait_whole(upgraded, "kept")
    # A process that dies is started as what it was last.
    upgraded.kill("storage", 2)
    wait_until(lambda: upgraded.process("storage", 2)["restarts"] == 1 and upgraded.process("storage", 2)["bus_version"] == PRESENT,
               30, "storage 2")


def test_a_release_that_does_not_start_costs_its_process_a_pause(own_karst, own_folder):
    """What is asked for wrongly is refused, and what does not come up is put back."""
    own_karst.start()
    folder = os.path.join(own_folder, "broken")
    os.makedirs(folder)

    def restart(*words):
        outcome = run([KARST, "restart", "--data", own_karst.data, *words], timeout=120)
        return outcome.status, outcome.err

    pids = own_karst.pids()
    assert restart("nobody-1")[0] == restart("storage-7")[0] == 1
    status, err = restart("storage", "--bin", folder)
    assert status == 1 and f"cannot run {folder}/karst-storage" in err
    assert restart("storage", "--bin", os.path.join(folder, "none"))[0] == 1
    assert own_karst.pids() == pids, "nothing was stopped"
    for role in ("group", "storage", "frontend"):
        program = os.path.join(folder, f"karst-{role}")
        for content in ("#!/bin/sh\nexit 78\n", "neither a script nor a program\n"):
            with open(program, "w", encoding="utf-8") as f:
                f.write(content)
            os.chmod(program, 0o755)
            pid = own_karst.pids()[role]
            status, err = restart(f"{role}-1", "--bin", folder)
            assert status == 1 and "before it was ready" in err and "is started again" in err, err
            wait_until(lambda: own_karst.process(role, 1)["bus_version"], 30, f"the {role} that was there before")
            assert own_karst.pids()[role] != pid
    outcome = own_karst.kcat("-P", "-t", "alive", "-X", "message.timeout.ms=30000", input="yes\n")
    assert outcome.status == 0, outcome
    assert restart()[0] == 0 and not set(own_karst.pids().values()) & set(pids.values())
    with contextlib.ExitStack() as stack:  # who has nothing to say, or nothing that makes sense, keeps nobody up
        said = []
        for words in (b"", b"restart", b"restart\n", b"restart storage x\n", b"x" * 5000, b"restart nobody 1 \n"):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(20)
            client.connect(os.path.join(own_karst.run_dir(), "control"))
            client.sendall(words)
            if words.endswith(b"\n") or len(words) > 4000:
                with contextlib.suppress(ConnectionResetError):
                    said.append(client.recv(100))
        assert said[:2] == [b"not understood\n"] * 2 and said[-1] == b"there is no nobody-1\n", said
        own_karst.stop()
    assert restart("storage")[0] == 3
