"""One of three storage nodes has a full disk: others lead and are in sync without it at once, and it comes back when there is room. What ends
a follower's membership by time is set to minutes, which no test waits for."""
import signal
import time

import confluent_kafka
import confluent_kafka.admin
import pytest

import ask
import disks
import harness
from harness import wait_until
from test_full_disk import STORAGE_ERROR
from test_kill import PARTITIONS, Load, check_contents
from test_replication import NODES, all_in_sync, create, folder_of, partitions_of, same_everywhere

VICTIM = 2
CONFIG = {"replica.lag.time.max.ms": "240000", "broker.session.timeout.ms": "60000", "log.segment.bytes": "1048576",
          "auto.leader.rebalance.enable": "false"}


class Heavy(Load):
    """Enough to be through with what a log has reserved on the disk, within seconds; and not more than the disk holds, when a slow machine
    takes minutes."""
    pause = 0.05

    @staticmethod
    def value(partition, number):
        return b"%012d" % number + b"%d" % partition * 1500

    def rest(self):
        self.producer.poll(0)
        time.sleep(self.pause)

    @classmethod
    def lasts(cls, cluster, topic):
        load = cls(cluster, topic)
        load.start()
        wait_until(lambda: all(load.acked), 30, "the load")
        return load

    def goes_on(self, what):
        before = [len(a) for a in self.acked]
        wait_until(lambda: all(len(a) > b + 20 for a, b in zip(self.acked, before)), 60, f"acknowledgements in each partition: {what}")


@pytest.fixture
def three(own_folder):
    reason = disks.missing(own_folder)
    if reason:
        pytest.skip(reason)
    cluster = harness.Karst(own_folder, storage=3, config=CONFIG)
    cluster.disk = disks.Disk(folder_of(cluster, VICTIM), "96m")
    cluster.disk.mount()
    try:
        cluster.start()
        yield cluster
        assert "is offline" not in cluster.whole_log()
        cluster.close_sound()
    finally:
        cluster.close()
        cluster.disk.unmount()


def leads_or_is_in_sync(cluster, topic):
    return [i for i, p in partitions_of(cluster, topic).items() if p["LeaderId"] == VICTIM or VICTIM in p["IsrNodes"]]


def wait_until_it_is_out(cluster, topics):
    wait_until(lambda: not any(leads_or_is_in_sync(cluster, t) for t in topics), 60, "other leaders, and an ISR without the full disk")


def create_alone(cluster, topic):
    """On the victim and nowhere else."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cluster.address})
    new = confluent_kafka.admin.NewTopic(topic, 1, replica_assignment=[[VICTIM]])
    admin.create_topics([new], request_timeout=20)[topic].result()


def probe(cluster, topic, node=VICTIM):
    """The error of one batch of a client that asks once."""
    records = ask.batch([(None, b"probe" * 100000)])
    answer = cluster.ask("Produce", 9, {"Acks": -1, "TimeoutMs": 10000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": 0, "Records": records}]}]}, cluster.port + node)
    return answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"]


def test_a_full_disk_gives_way_and_comes_back(three):
    """Its partitions, led and followed, busy and idle. The replica that nobody else has stays, refuses, and serves again."""
    create(three, "load", PARTITIONS, **{"min.insync.replicas": "2"})
    create(three, "idle", 3)
    create_alone(three, "alone")
    wait_until(lambda: probe(three, "alone") == 0, 20, "a leader")
    load = Heavy.lasts(three, "load")
    wait_until(lambda: all_in_sync(three, "load"), 30, "all replicas in sync")
    leaders = [p["LeaderId"] for t in ("load", "idle") for p in partitions_of(three, t).values()]
    assert VICTIM in leaders and set(leaders) - {VICTIM}, "it leads some and follows others"

    three.disk.fill()
    wait_until_it_is_out(three, ["load", "idle"])
    load.goes_on("the disk is full")
    wait_until(lambda: probe(three, "alone") == STORAGE_ERROR, 20, "an append that does not fit")
    assert leads_or_is_in_sync(three, "alone") == [0]

    before = three.process("storage", VICTIM)["pid"]
    three.kill("storage", VICTIM, signal.SIGKILL)
    wait_until(lambda: three.process("storage", VICTIM)["pid"] not in (None, before) and three.is_whole(), 60, "its next life")
    load.goes_on("its next life finds the disk full")
    three.disk.fill()
    wait_until_it_is_out(three, ["load"])
    load.goes_on("the disk is full, and its next life knows")

    three.disk.empty()
    wait_until(lambda: all_in_sync(three, "load") and all_in_sync(three, "idle"), 60, "all replicas in sync")
    wait_until(lambda: probe(three, "alone") == 0, 20, "room for the only replica")
    load.goes_on("there is room")
    load.stopping.set()
    load.join(90)
    assert load.left == 0 and not load.errors, (load.left, load.errors[:5])
    check_contents(three, load)
    wait_until(lambda: same_everywhere(three, "load", PARTITIONS), 30, "the same bytes in all replicas")
    assert sorted(NODES) == sorted(three.ids("storage"))


def test_records_that_are_deleted_go_from_a_full_disk_too(three):
    """Its replica lacks records, which it cannot write; what the leader deletes it does not keep, and the request does not wait for room."""
    create(three, "cut", 1)

    def leader():
        return partitions_of(three, "cut")[0]["LeaderId"]

    def append():
        wait_until(lambda: probe(three, "cut", leader()) == 0, 30, "an append")
    append()
    append()
    wait_until(lambda: all_in_sync(three, "cut"), 30, "all replicas in sync")
    three.disk.fill()

    def behind():
        append()
        return not leads_or_is_in_sync(three, "cut")
    wait_until(behind, 60, "another leader, and an ISR without the full disk")
    append()
    answer = three.ask("DeleteRecords", 2, {"TimeoutMs": 30000, "Topics": [
        {"Name": "cut", "Partitions": [{"PartitionIndex": 0, "Offset": 1}]}]}, three.port + leader())
    assert [(p["ErrorCode"], p["LowWatermark"]) for t in answer["Topics"] for p in t["Partitions"]] == [(0, 1)]
    assert not leads_or_is_in_sync(three, "cut")
    three.disk.empty()
    wait_until(lambda: all_in_sync(three, "cut"), 60, "all replicas in sync")
    append()
    wait_until(lambda: same_everywhere(three, "cut", 1), 30, "the same bytes in all replicas")
