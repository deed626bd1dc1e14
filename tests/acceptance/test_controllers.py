"""Three controllers: any of them may be killed, at any time; one of the others goes on deciding, and nothing that was answered is lost."""
import glob
import json
import os
import re
import signal
import threading
import time

import confluent_kafka
import confluent_kafka.admin

import harness
from test_clients import create
from test_kill import PARTITIONS, Load
from test_swap import dump

ROUNDS = 2  # each controller is killed so many times


class Three:
    """A constellation with three controllers."""

    def __init__(self, cluster):
        self.cluster = cluster

    def start(self):
        outcome = harness.run(self.cluster.up_command("--controllers", "3", "-d"), timeout=90)
        assert outcome.status == 0, f"{outcome}\n{self.cluster.log()}"
        self.cluster.last_run_dir = self.cluster.run_dir()
        self.wait_voters()
        return self

    def status(self):
        return json.loads(harness.ran([harness.KARST, "status", "--data", self.cluster.data, "--json"]))

    def roles(self):
        return {q["id"]: q["role"] for q in self.status()["quorum"]}

    def pid(self, controller):
        return next(p["pid"] for p in self.status()["processes"] if p["role"] == "controller" and p["id"] == controller)

    def wait_voters(self):
        harness.wait_until(lambda: sorted(self.roles().values()) == ["follower", "follower", "leader"], 30,
                           "one leader and two followers")

    def leader(self):
        return next(i for i, role in self.roles().items() if role == "leader")


class Topics(threading.Thread):
    """Makes one topic after the other, and knows which were answered for."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.address, "reconnect.backoff.max.ms": 200})
        self.stopping, self.made, self.longest = threading.Event(), [], 0

    def run(self):
        number = 0
        while not self.stopping.is_set():
            name, began = f"made-{number}", time.monotonic()
            try:
                self.admin.create_topics([confluent_kafka.admin.NewTopic(name, 1, 1)], request_timeout=20)[name].result()
                self.made.append(name)
                self.longest = max(self.longest, time.monotonic() - began)
            except confluent_kafka.KafkaException:
                pass  # made or not: nobody was told
            number += 1
            time.sleep(0.02)


def test_each_of_three_controllers_is_killed_under_load(own_karst):
    three = Three(own_karst).start()
    create(own_karst, "load", PARTITIONS)
    load, topics = Load(own_karst, "load"), Topics(own_karst)
    load.start()
    topics.start()
    harness.wait_until(lambda: len(topics.made) > 5 and sum(map(len, load.acked)) > 200, 20, "the load")
    for victim in [1, 2, 3] * ROUNDS + ["leader", "leader"]:
        pid = three.pid(three.leader() if victim == "leader" else victim)
        os.kill(pid, signal.SIGKILL)
        made, acked = len(topics.made), sum(map(len, load.acked))
        harness.wait_until(lambda: len(topics.made) > made + 5 and sum(map(len, load.acked)) > acked + 200, 40,
                           f"topics and records after the death of controller {victim}")
        three.wait_voters()
    topics.stopping.set()
    load.stopping.set()
    topics.join()
    load.join()
    assert not load.errors and load.left == 0
    print(f"{len(topics.made)} topics, the longest wait {topics.longest:.2f} s")
    listed = topics.admin.list_topics(timeout=20).topics
    assert [t for t in topics.made if t not in listed] == []
    consumer = confluent_kafka.Consumer({"bootstrap.servers": own_karst.address, "group.id": "none", "enable.auto.commit": False})
    for partition, acked in enumerate(load.acked):
        _, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition("load", partition), timeout=20)
        assert end >= max(offset for offset, _ in acked) + 1
    consumer.close()


def test_the_quorum_described(own_karst):
    """What Kafka's tool says; a node alone looks as Kafka's own does (test_tools compares the two)."""
    three = Three(own_karst).start()
    status = own_karst.tool("metadata-quorum", "describe", "--status")
    assert status.status == 0 and re.search(rf"LeaderId:\s+{three.leader()}\n", status.out), str(status)
    assert re.search(r"MaxFollowerLag:\s+0\n", status.out) and status.out.count('"directoryId"') == 3, str(status)
    replication = own_karst.tool("metadata-quorum", "describe", "--replication")
    rows = [line.split() for line in replication.out.splitlines()[1:]]
    assert sorted(row[0] for row in rows) == ["1", "2", "3"], str(replication)
    assert sorted(row[-1] for row in rows) == ["Follower", "Follower", "Leader"], str(replication)


def voters(cluster):
    out = cluster.tool("metadata-quorum", "describe", "--replication").out
    rows = [line.split() for line in out.splitlines()[1:]]
    return {int(row[0]): row[1] for row in rows if row[-1] != "Observer"}, {int(row[0]): row[1] for row in rows if row[-1] == "Observer"}


def test_controllers_are_removed_and_added(own_karst):
    three = Three(own_karst).start()
    ids, _ = voters(own_karst)
    victim = next(i for i in (2, 3) if i != three.leader())
    remove = ("metadata-quorum", "remove-controller", "--controller-id", str(victim), "--controller-directory-id")
    wrong = own_karst.tool(*remove, ids[1])
    assert wrong.status == 1 and "VoterNotFound" in wrong.err, str(wrong)
    done = own_karst.tool(*remove, ids[victim])
    assert done.status == 0, str(done)
    now, observers = voters(own_karst)
    assert sorted(now) == sorted(set(ids) - {victim}) and sorted(observers) == [victim]
    listener = {"Name": "CONTROLLER", "Host": "localhost", "Port": 19999}
    body = {"ClusterId": None, "TimeoutMs": 10000, "VoterId": victim, "VoterDirectoryId": ids[victim], "Listeners": [listener],
            "AckWhenCommitted": True}
    harness.wait_until(lambda: own_karst.ask("AddRaftVoter", 1, body)["ErrorCode"] == 0, 20, "the voter added")
    assert voters(own_karst) == (ids, {})
    assert own_karst.ask("AddRaftVoter", 1, body)["ErrorCode"] == 126  # DUPLICATE_VOTER


def is_made(cluster, topic):
    """A request that was under way to the leader when it froze has an unknown end: the client asks again."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.address})
    try:
        admin.create_topics([confluent_kafka.admin.NewTopic(topic, 1, 1)], request_timeout=5)[topic].result()
        return True
    except confluent_kafka.KafkaException as error:
        return error.args[0].code() == confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS


def test_a_frozen_leader_is_replaced(own_karst):
    three = Three(own_karst).start()
    old = three.leader()
    pid = three.pid(old)
    os.kill(pid, signal.SIGSTOP)
    try:
        harness.wait_until(lambda: any(i != old and role == "leader" for i, role in three.roles().items()), 20, "another leader")
        harness.wait_until(lambda: is_made(own_karst, "meanwhile"), 20, "a topic of the new leader")
    finally:
        os.kill(pid, signal.SIGCONT)
    harness.wait_until(lambda: sorted(three.roles().values()) == ["follower", "follower", "leader"], 20, "the old leader to follow")
    assert three.leader() != old


def test_the_logs_of_three_controllers_are_kafkas_and_the_same(own_karst):
    three = Three(own_karst).start()
    create(own_karst, "first", 3)
    os.kill(three.pid(three.leader()), signal.SIGKILL)
    harness.wait_until(lambda: is_made(own_karst, "second"), 20, "a topic of the new leader")
    three.wait_voters()
    own_karst.stop()
    dumps = []
    for folder in (own_karst.data, f"{own_karst.data}.controllers/2", f"{own_karst.data}.controllers/3"):
        log = sorted(glob.glob(f"{folder}/__cluster_metadata-0/*.log"))
        out = dump("--cluster-metadata-decoder", "--files", ",".join(log))
        assert "KRaftVoters" in out and "LeaderChange" in out and '"name":"second"' in out, out[:2000]
        dumps.append([line for line in out.splitlines() if "ffset" in line])
    shortest = min(map(len, dumps))
    assert shortest > 50
    for other in dumps[1:]:
        assert other[:shortest] == dumps[0][:shortest]


def test_a_start_without_a_majority_is_refused(own_karst):
    Three(own_karst).start()
    own_karst.stop()
    outcome = harness.run(own_karst.up_command("--controllers", "1"), timeout=30)
    assert outcome.status == 1 and "without a majority" in outcome.err, str(outcome)
    own_karst.start()  # as many as there are, and a majority of them elects: start waits for an answer
    assert sum(p["role"] == "controller" for p in own_karst.status()) == 3
