"""Storage and front end are killed, and stopped past every deadline, while records lie in memory and files that they share: every record
that is read is byte for byte what was sent, and none that was acknowledged is lost. KARST_TEST_KILLS: how many faults; about
half of them kills."""
import hashlib
import os
import random
import signal
import threading
import time

import confluent_kafka
import pytest

import harness
from test_clients import create
from test_kill import PARTITIONS, Load, check_contents

FAULTS = int(os.environ.get("KARST_TEST_KILLS", "20"))
CONSUMERS = 2
KILLS_A_MINUTE = 8  # of one process; at ten deaths karst up gives up


def value_of(partition, number):
    """From some bytes to several pages: by reference, and as a copy."""
    seed = hashlib.sha256(b"%d %d" % (partition, number)).digest()
    return b"%012d" % number + seed * (seed[0] if number % 3 else seed[0] * 4)


class LargeLoad(Load):
    pause = 0.05
    value = staticmethod(value_of)


class Reader(threading.Thread):
    """Reads everything again and again: most of it comes out of segment files."""

    def __init__(self, cluster, topic, stopping):
        super().__init__(daemon=True)
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": cluster.address, "group.id": "reader", "check.crcs": True, "enable.auto.commit": False,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "queued.max.messages.kbytes": 16384, "log_level": 2})
        self.topic, self.stopping, self.read, self.failure = topic, stopping, 0, None

    def run(self):
        try:
            while not self.stopping.is_set():
                self.consumer.assign([confluent_kafka.TopicPartition(self.topic, p, 0) for p in range(PARTITIONS)])
                self.read_for(random.uniform(2, 10))
        except BaseException as error:
            self.failure = error
        self.consumer.close()

    def read_for(self, seconds):
        end, following = time.monotonic() + seconds, [0] * PARTITIONS
        while time.monotonic() < end and not self.stopping.is_set():
            for message in self.consumer.consume(500, 0.1):
                if message.error():
                    continue
                partition, offset = message.partition(), message.offset()
                assert offset == following[partition], f"offset {offset} of {partition} behind {following[partition] - 1}"
                assert message.value() == value_of(partition, offset), f"other bytes at offset {offset} of partition {partition}"
                following[partition] += 1
                self.read += 1


def stop_for(pid, seconds):
    os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("shared", ["true", "false"], ids=["shared", "copied"])
def test_kills_and_stalls_under_load(own_folder, shared):
    seed = int(os.environ.get("KARST_TEST_SEED", random.randrange(1 << 30)))
    rng = random.Random(seed)
    print(f"KARST_TEST_SEED={seed}")
    # A front end that stands still is to come back as it was, not to be started again: karst.session.silence.ms.
    karst = harness.Karst(own_folder, config={"karst.bus.shared": shared, "log.segment.bytes": 4 << 20, "karst.session.silence.ms": 0})
    try:
        karst.start()
        run_load(karst, rng, seed)
    except BaseException:
        print(karst.log())
        raise
    finally:
        karst.close()


def run_load(karst, rng, seed):
    create(karst, "large", PARTITIONS)
    load, stopping = LargeLoad(karst, "large"), threading.Event()
    readers = [Reader(karst, "large", stopping) for _ in range(CONSUMERS)]
    for thread in [load, *readers]:
        thread.start()
    harness.wait_until(lambda: sum(map(len, load.acked)) > 200, 20, "the load")
    stops = [0.2, 1, 4]  # the last one: longer than a link waits for a sign of life
    faults = [(role, stop) for role in ("storage", "frontend") for stop in (None, None, None, *stops)]
    faults = [rng.choice(faults) for _ in range(FAULTS)]
    kills = []  # (when, role)
    for role, stop in faults:
        if stop is None and sum(r == role and t > time.monotonic() - 65 for t, r in kills) >= KILLS_A_MINUTE:
            stop = stops[0]
        pid, begun = karst.pids()[role], time.monotonic()
        before = load.last_ack
        if stop is None:
            os.kill(pid, signal.SIGKILL)
            kills.append((begun, role))
        else:
            stop_for(pid, stop)
        harness.wait_until(lambda: load.last_ack > max(before, begun), 60,
                           f"an acknowledgement after {role} was {'killed' if stop is None else f'stopped for {stop} s'} (seed {seed})")
        time.sleep(rng.uniform(0.1, 0.8))
        harness.wait_until(lambda: all(p["pid"] and harness.alive(p["pid"]) for p in karst.status()), 20, "all processes again")
        for reader in readers:
            assert reader.failure is None, f"{reader.failure!r} (seed {seed})"
    stopping.set()
    load.stopping.set()
    load.join(90)
    assert load.left == 0 and not load.errors, (load.left, load.errors[:5])
    for reader in readers:
        reader.join(30)
        assert reader.failure is None and reader.read > 1000, (reader.failure, reader.read, seed)
    assert sum(p["restarts"] for p in karst.status()) == len(kills)
    print(f"{len(kills)} kills, {len(faults) - len(kills)} stops, {load.sent} records sent, {[r.read for r in readers]} read")
    check_contents(karst, load)
