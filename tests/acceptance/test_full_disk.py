"""A directory whose disk becomes full under load, stays so, and gets room again: what was acknowledged is there all the time."""
import contextlib
import os
import re
import signal
import threading

import confluent_kafka
import pytest

import ask
from harness import Karst, alive, ran, run, wait_until
from test_directories import all_open, create, described, partitions_in, status

TOPIC, PARTITIONS = "load", 4
VALUE_BYTES, AT_ONCE, DISK = 4000, 10, "24m"
STORAGE_ERROR = 56


class Load(threading.Thread):
    """An idempotent producer of one partition that never stops."""

    def __init__(self, cluster, partition):
        super().__init__(daemon=True)
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": cluster.address, "enable.idempotence": True, "acks": "all", "linger.ms": 2,
            "message.timeout.ms": 120000, "retry.backoff.ms": 20, "retry.backoff.max.ms": 200, "reconnect.backoff.max.ms": 200})
        self.partition, self.stopping, self.sent = partition, threading.Event(), 0
        self.acked, self.errors, self.left = {}, [], None  # acked: offset to number
        self.start()

    def value(self, number):
        """Of no two numbers the same, over all of its length."""
        return b"%d-%08d " % (self.partition, number) * (VALUE_BYTES // 11)

    def on_delivery(self, error, message):
        if error:
            self.errors.append(str(error))
        else:
            self.acked[message.offset()] = int(message.value()[2:10])

    def run(self):
        while not self.stopping.is_set():
            for _ in range(min(AT_ONCE, 100 - len(self.producer))):
                self.producer.produce(TOPIC, self.value(self.sent), partition=self.partition, on_delivery=self.on_delivery)
                self.sent += 1
            self.producer.poll(0)
            self.stopping.wait(0.02)
        self.left = self.producer.flush(60)

    def check(self, cluster):
        """What is acknowledged by now is there, at its offset, with its content; the load's values are in order and there once."""
        acked = dict(self.acked)
        low = int(cluster.kcat("-Q", "-t", f"{TOPIC}:{self.partition}:-2").out.split()[-1])
        outcome = cluster.kcat("-C", "-q", "-t", TOPIC, "-p", str(self.partition), "-o", "beginning", "-c", str(max(acked) + 1 - low),
                               "-f", "%o %s\\n")
        assert outcome.status == 0, outcome.err
        rows = [line.split(" ", 1) for line in outcome.out.splitlines()]
        found = {int(at): value.encode() for at, value in rows}
        assert all(found[at] == self.value(n) for at, n in acked.items() if at >= low)
        numbers = [int(value[2:10]) for _, value in rows if not value.startswith("probe")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@contextlib.contextmanager
def going_on(*loads):
    """All of them, from before what the block does, so that none may use up the room that it makes before another was looked at."""
    before = [len(x.acked) for x in loads]
    yield
    for load, n in zip(loads, before):
        wait_until(lambda x=load, n=n: len(x.acked) > n + 100, 60, f"acknowledgements of partition {load.partition}")


def probe(cluster, partition):
    """The error of one batch of a client that asks once."""
    records = ask.batch([(None, b"probe" * 10000)])
    answer = cluster.ask("Produce", 9, {"Acks": -1, "TimeoutMs": 10000, "TopicData": [
        {"Name": TOPIC, "PartitionData": [{"Index": partition, "Records": records}]}]})
    return answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"]


def delete_first_half(cluster, load):
    half = max(load.acked) // 2
    answer = cluster.ask("DeleteRecords", 2, {"TimeoutMs": 30000, "Topics": [
        {"Name": TOPIC, "Partitions": [{"PartitionIndex": load.partition, "Offset": half}]}]})
    assert [p["ErrorCode"] for t in answer["Topics"] for p in t["Partitions"]] == [0], answer


@pytest.fixture
def two(own_folder):
    """A cluster on two directories, of which the second is on a disk of its own, a small one."""
    small = os.path.join(own_folder, "small")
    k = Karst(own_folder, config={"log.dirs": f"{own_folder}/data,{small}", "log.segment.bytes": "1048576",
                                  "log.segment.delete.delay.ms": "0", "log.retention.check.interval.ms": "200",
                                  "log.flush.offset.checkpoint.interval.ms": "200"})
    os.makedirs(small)
    if run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", small]).status != 0:
        pytest.skip("a file system of its own cannot be mounted here")
    try:
        yield k
    finally:
        k.close()
        ran(["umount", small])


@contextlib.contextmanager
def loads_on(cluster):
    loads = [Load(cluster, p) for p in range(PARTITIONS)]
    try:
        yield loads
    finally:
        for load in loads:
            load.stopping.set()
        for load in loads:
            load.join(90)


def wait_until_full(cluster, full, others):
    for load in full:
        wait_until(lambda p=load.partition: probe(cluster, p) == STORAGE_ERROR, 60, "the full disk")
    with going_on(*others):
        pass


def told_once(cluster):
    """A checkpoint that finds no room is told of when that begins, not each time it is tried."""
    with open(os.path.join(cluster.run_dir(), "karst.log"), encoding="utf-8") as f:
        told = re.findall(r"recovery-point-offset-checkpoint (cannot be written|is written again)|(opened) 2 partitions", f.read())
    told = [one or two for one, two in told]
    assert all(told[i - 1:i + 1] != ["cannot be written"] * 2 for i in range(1, len(told))), told


def test_nothing_acknowledged_is_lost_on_a_full_disk(two):
    small = os.path.join(two.folder, "small")
    two.start()
    create(two, TOPIC, PARTITIONS)
    in_small = {int(n.split("-")[1]) for n in partitions_in(small)}
    assert len(in_small) == PARTITIONS // 2
    pids = two.pids()
    with loads_on(two) as loads:
        full, others = [x for x in loads if x.partition in in_small], [x for x in loads if x.partition not in in_small]
        wait_until_full(two, full, others)
        assert described(two)[small][0] == 0, "a full disk is no broken one"
        for load in loads:
            load.check(two)
        with going_on(*full):
            delete_first_half(two, full[0])
        for load in full:
            load.check(two)

        wait_until_full(two, full, others)
        assert two.pids() == pids and all(map(alive, pids.values())), "nobody ended"
        os.kill(pids["storage"], signal.SIGKILL)
        wait_until(lambda: two.pids().get("storage") not in (None, pids["storage"]) and all_open(two), 30, "the logs")
        assert status(two)["unopened"] == []
        for load in loads:
            load.check(two)
        with going_on(*full):
            delete_first_half(two, full[1])
        for load in full:
            load.stopping.set()
            delete_first_half(two, load)  # room for what the clients still have
    assert [(load.left, load.errors) for load in loads] == [(0, [])] * PARTITIONS
    assert all(len(load.acked) == load.sent for load in loads)
    told_once(two)
    two.stop()
    two.start()
    wait_until(lambda: all_open(two), 30, "the logs")
    for load in loads:
        load.check(two)
