"""A process that is dead, or stands still, is found out by evidence: sessions of a minute, which no test waits for, and the load goes on."""
import contextlib
import glob
import os
import signal
import threading
import time

import confluent_kafka
import confluent_kafka.admin
import pytest

import harness
from harness import wait_until
from test_kill import PARTITIONS, Load, check_contents
from test_swap import dump

NODES = (1, 2, 3)
CONFIG = {"broker.session.timeout.ms": "60000", "replica.lag.time.max.ms": "60000"}
SESSION_S = 60
LONG_S = 1.2  # who stood still for less is never taken for dead: silence is 2 s, and each is asked five times a second


class Constellation:
    """Three storage nodes, some controllers, two front ends."""

    def __init__(self, folder, controllers=3, **config):
        self.cluster = harness.Karst(folder, storage=3, controllers=controllers, frontends=2, config={**CONFIG, **config})
        self.cluster.start()
        self.supervisor = parent(self.cluster.process("storage", 1)["pid"])
        self.topics = 0

    def controller(self):
        return next(q["id"] for q in self.cluster.whole_status()["quorum"] if q["role"] == "leader")

    def pid(self, role, number):
        return self.cluster.process(role, number)["pid"]

    def restarts(self):
        return sum(p["restarts"] for p in self.cluster.status())

    def close(self):
        self.cluster.close_sound()


class Case:
    """A load on a topic of its own that never stops while somebody fails."""

    def __init__(self, constellation):
        self.at, self.cluster = constellation, constellation.cluster
        self.pid, self.controller = self.at.pid, self.at.controller
        self.at.topics += 1
        self.topic = f"load-{self.at.topics}"
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": self.cluster.address})
        topic = confluent_kafka.admin.NewTopic(self.topic, PARTITIONS, replication_factor=3, config={"min.insync.replicas": "2"})
        admin.create_topics([topic], request_timeout=20)[self.topic].result()
        self.load = Load(self.cluster, self.topic)
        self.load.start()
        wait_until(lambda: sum(map(len, self.load.acked)) > 200, 30, "the load")

    def partitions(self):
        answer = self.cluster.ask("Metadata", 9, {"Topics": [{"Name": self.topic}]})["Topics"][0]
        return {p["PartitionIndex"]: p for p in answer["Partitions"]}

    def epochs(self):
        return {i: (p["LeaderId"], p["LeaderEpoch"]) for i, p in self.partitions().items()}

    def leader(self):
        return self.partitions()[0]["LeaderId"]

    def is_whole(self):
        return all(sorted(p["IsrNodes"]) == list(NODES) for p in self.partitions().values()) and self.cluster.is_whole()

    def goes_on(self, what):
        """Something new is acknowledged in every partition."""
        before = [len(a) for a in self.load.acked]
        wait_until(lambda: all(len(a) > b for a, b in zip(self.load.acked, before)), SESSION_S / 2, f"acknowledgements in each partition: {what}")

    def leads_nothing(self, node):
        found = self.partitions().values()
        return len(found) == PARTITIONS and all(p["LeaderId"] in NODES and p["LeaderId"] != node and node not in p["IsrNodes"] for p in found)

    def goes_on_without(self, node, what):
        wait_until(lambda: self.leads_nothing(node), SESSION_S / 2, f"other leaders, and an ISR without it: {what}")
        self.goes_on(what)

    def check(self):
        """All are there again, and everything that was acknowledged, once and in order."""
        wait_until(self.is_whole, SESSION_S, "all replicas in sync")
        self.end()
        assert self.load.left == 0 and not self.load.errors, (self.load.left, self.load.errors[:5])
        check_contents(self.cluster, self.load)

    def end(self):
        self.load.stopping.set()
        self.load.join(90)


def parent(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


@contextlib.contextmanager
def stopped(*pids):
    """They stand still inside the block."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def constellation(folder):
    c = Constellation(os.path.join(folder, "three"))
    yield c
    c.close()


@pytest.fixture
def three(constellation):
    case = Case(constellation)
    yield case
    case.end()


@pytest.fixture
def one_controller(own_folder):
    """Its nodes stop without a word."""
    c = Constellation(own_folder, 1, **{"controlled.shutdown.enable": "false"})
    case = Case(c)
    yield case
    case.end()
    c.close()


def test_a_frozen_leader_is_replaced_and_comes_back(three):
    victim = three.leader()
    began = time.monotonic()
    with stopped(three.pid("storage", victim)):
        three.goes_on_without(victim, "the leader stands still")
        assert time.monotonic() - began < SESSION_S  # so no session has timed out yet
    three.check()


def test_a_frozen_follower_leaves_the_isr(three):
    """acks=all waits for it until then: replica.lag.time.max.ms is a minute as well."""
    leader = three.leader()
    victim = leader % 3 + 1
    with stopped(three.pid("storage", victim)):
        three.goes_on_without(victim, "a follower stands still")
    three.check()


def test_a_dead_leader_is_replaced(three):
    """The supervisor, which would start it again, stands still: on another machine nobody is there to do it."""
    victim = three.leader()
    pid = three.pid("storage", victim)
    with stopped(three.at.supervisor):
        os.kill(pid, signal.SIGKILL)
        three.goes_on_without(victim, "the leader is dead")
    three.check()


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "frozen"])
def test_controller_and_leader_go_at_once(three, dies):
    """As when their machine goes: the next controller knows from the beginning that the storage node is gone, too."""
    controller, victim = three.controller(), three.leader()
    pids = three.pid("controller", controller), three.pid("storage", victim)
    with stopped(three.at.supervisor, *([] if dies else pids)):
        for pid in pids if dies else []:
            os.kill(pid, signal.SIGKILL)
        three.goes_on_without(victim, "controller and leader are gone")
    three.check()


class Group(threading.Thread):
    """One member of a consumer group, which commits what it reads."""

    def __init__(self, cluster, topic):
        super().__init__(daemon=True)
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": cluster.address, "group.id": "group", "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "metadata.recovery.strategy": "none", "session.timeout.ms": 45000})
        self.consumer.subscribe([topic])
        self.stopping, self.commits, self.doubled, self.following = threading.Event(), 0, [], {}

    def run(self):
        while not self.stopping.is_set():
            messages = [m for m in self.consumer.consume(200, 0.1) if not m.error()]
            for m in messages:
                if m.offset() != self.following.setdefault(m.partition(), 0):
                    self.doubled.append((m.partition(), m.offset(), self.following[m.partition()]))
                self.following[m.partition()] = m.offset() + 1
            with contextlib.suppress(confluent_kafka.KafkaException):
                if messages:
                    self.consumer.commit(asynchronous=False)
                    self.commits += 1
        self.consumer.close()


def test_a_frozen_coordinator_is_started_again(three):
    """Nobody does its work in its place, but it keeps nothing: the supervisor ends it. Its member goes on where it was."""
    group = Group(three.cluster, three.topic)
    group.start()
    wait_until(lambda: group.commits > 3, 30, "commits")
    pid = three.pid("group", 1)
    with stopped(pid):
        wait_until(lambda: three.pid("group", 1) not in (pid, 0, None), 20, "another life of the coordinator")
        commits = group.commits
        wait_until(lambda: group.commits > commits + 2, SESSION_S / 2, "commits to it")
    group.stopping.set()
    group.join(60)
    assert not group.doubled, group.doubled[:5]
    three.check()


@pytest.mark.parametrize("number", [1, 2])
def test_a_frozen_front_end_is_started_again(three, number):
    """Its clients would wait for it as long as their own timeouts say."""
    pid = three.pid("frontend", number)
    with stopped(pid):
        wait_until(lambda: three.pid("frontend", number) not in (pid, 0, None), 20, "another life of it")
        three.goes_on("a front end stood still")
    three.check()


def test_a_short_pause_is_no_evidence(three):
    """Half a second is nothing, of whomever. Where the machine made more of it, it is done again."""
    for role, number in (("storage", three.leader), ("controller", three.controller), ("frontend", lambda: 1), ("group", lambda: 1)):
        for _ in range(10):
            wait_until(three.is_whole, SESSION_S, "all replicas in sync")
            before, pid, began = (three.epochs(), three.at.restarts()), three.pid(role, number()), time.monotonic()
            with stopped(pid):
                time.sleep(0.5)
            took = time.monotonic() - began
            three.goes_on(f"after a short pause of {role}")
            if took < LONG_S:
                assert (three.epochs(), three.at.restarts()) == before, (role, took)
                break
        else:
            pytest.fail(f"no pause of half a second in ten ended within {LONG_S} s")
    three.check()


def test_a_pause_of_the_controller_fences_nobody(one_controller):
    """It was not there to hear them: that is no silence of theirs."""
    before = one_controller.epochs()
    with stopped(one_controller.pid("controller", 1)):
        one_controller.goes_on("the controller stands still")
        time.sleep(4)
        one_controller.goes_on("the controller stands still")
    made = confluent_kafka.admin.AdminClient({"bootstrap.servers": one_controller.cluster.address})
    made.create_topics([confluent_kafka.admin.NewTopic("after", 1, 1)], request_timeout=20)["after"].result()
    one_controller.goes_on("the controller is back")
    assert one_controller.epochs() == before
    one_controller.check()


def test_a_node_may_stop_without_a_word(one_controller):
    """controlled.shutdown.enable=false: it is led in its place when the controller finds it gone."""
    victim = one_controller.leader()
    pid = one_controller.pid("storage", victim)
    with stopped(one_controller.at.supervisor):
        os.kill(pid, signal.SIGTERM)
        one_controller.goes_on_without(victim, "the leader has stopped")
    one_controller.check()
    one_controller.cluster.stop()
    log = sorted(glob.glob(f"{one_controller.cluster.data}/__cluster_metadata-0/*.log"))
    assert '"inControlledShutdown":1' not in dump("--cluster-metadata-decoder", "--files", ",".join(log))
