"""Answers that are sent from segment files: segments roll, are deleted and dropped from memory, and topics are deleted, while clients are
in the middle of reading. Every record is what was written at its offset."""
import glob
import hashlib
import os
import random
import socket
import struct
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

import ask
import harness

MIB = 1 << 20
OFFSET_OUT_OF_RANGE = 1
SECONDS = 8


def value_of(generation, offset):
    seed = hashlib.sha256(b"%d %d" % (generation, offset)).digest()
    return b"%04d%012d" % (generation, offset) + seed * (50 + offset % 700)


def varint(data, at):
    n = shift = 0
    while True:
        byte = data[at]
        at += 1
        n |= (byte & 0x7f) << shift
        if byte < 0x80:
            return (n >> 1) ^ -(n & 1), at
        shift += 7


def records_of(data):
    """(offset, value) of every whole uncompressed batch."""
    at = 0
    while at + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        end = at + 12 + length
        if end > len(data):
            return
        count, = struct.unpack_from(">i", data, at + 57)
        at += 61
        for _ in range(count):
            size, at = varint(data, at)
            following = at + size
            _, at = varint(data, at + 1)
            delta, at = varint(data, at)
            key, at = varint(data, at)
            length, at = varint(data, at + max(key, 0))
            yield base + delta, data[at:at + length]
            at = following
        assert at == end


def create(cluster, topic, **config):
    admin = AdminClient({"bootstrap.servers": cluster.address})
    admin.create_topics([NewTopic(topic, 1, 1, config={k.replace("_", "."): str(v) for k, v in config.items()})])[topic].result(20)
    return admin


class Writer:
    """Record i of the topic is at offset i."""

    def __init__(self, cluster, topic, generation=0):
        self.producer = confluent_kafka.Producer({"bootstrap.servers": cluster.address, "enable.idempotence": True, "linger.ms": 5,
                                                  "queue.buffering.max.kbytes": 8192})
        self.topic, self.generation, self.count, self.errors = topic, generation, 0, []

    def on_delivery(self, error, message):
        if error or message.offset() < 0:
            self.errors.append(str(error))

    def write(self, records):
        for _ in range(records):
            value = value_of(self.generation, self.count)
            while True:
                try:
                    self.producer.produce(self.topic, value, partition=0, on_delivery=self.on_delivery)
                    break
                except BufferError:
                    self.producer.poll(0.01)
            self.count += 1
        self.producer.poll(0)

    def flush(self):
        assert self.producer.flush(60) == 0 and not self.errors, self.errors[:3]


class Client:
    """Fetches by hand; with slow, through a small window, so that the server waits in the middle of an answer."""

    def __init__(self, cluster, topic, slow=False):
        self.topic, self.connection = topic, ask.Connection("127.0.0.1", cluster.port)
        if slow:
            self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131072)
        self.header = self.connection.headers["headerResponseHeader"]

    def send(self, offset, max_bytes, wait_ms=200):
        self.answer, self.header_version = self.connection.send("Fetch", 12, {
            "ReplicaId": -1, "MaxWaitMs": wait_ms, "MinBytes": 1, "MaxBytes": max_bytes, "IsolationLevel": 0, "SessionId": 0,
            "SessionEpoch": -1, "RackId": "", "ForgottenTopicsData": [],
            "Topics": [{"Topic": self.topic, "Partitions": [{"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": max_bytes}]}]})

    def receive(self, pause=0.0):
        """The one partition of the answer; pauses in the middle of it."""
        size, = struct.unpack(">i", self.connection.receive(4))
        data = self.connection.receive(min(size, 65536))
        time.sleep(pause)
        data += self.connection.receive(size - len(data))
        return self.read(data)

    def read(self, data):
        _, data = ask.Codec(self.header, self.header_version).read(data)
        part = self.answer.read(data)[0]["Responses"][0]["Partitions"][0]
        part["Records"] = bytes.fromhex(part["Records"] or "")
        return part


def check(records, generation, offset):
    """The next offset."""
    for at, value in records_of(records):
        assert value == value_of(generation, at), f"other bytes at offset {at}"
        offset = max(offset, at + 1)
    return offset


class Reader(threading.Thread):
    def __init__(self, cluster, topic, stopping, slow, seed):
        super().__init__(daemon=True)
        self.client, self.stopping, self.slow = Client(cluster, topic, slow), stopping, slow
        self.random = random.Random(seed)
        self.large = self.bytes = self.out_of_range = 0
        self.failure = None

    def run(self):
        try:
            offset = 0
            while not self.stopping.is_set():
                self.client.send(offset, 8 * MIB if self.slow else MIB)
                part = self.client.receive(self.random.uniform(0, 0.8) if self.slow else 0)
                if part["ErrorCode"] == OFFSET_OUT_OF_RANGE:
                    self.out_of_range += 1
                    offset = max(part["LogStartOffset"], earliest(self.client))
                    continue
                assert part["ErrorCode"] == 0, part["ErrorCode"]
                records = part["Records"]
                self.large += len(records) >= 65536
                self.bytes += len(records)
                offset = check(records, 0, offset)
                if self.slow or self.random.random() < 0.02:
                    offset = max(part["LogStartOffset"], 0)  # of what is deleted next
        except BaseException as error:
            self.failure = error


def earliest(client):
    body = client.connection.ask("ListOffsets", 5, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [
        {"Name": client.topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": -2}]}]})
    return body["Topics"][0]["Partitions"][0]["Offset"]


def forget_pages(cluster, topic):
    for path in glob.glob(os.path.join(cluster.data, f"{topic}-0", "*.log")):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def deleted_files(cluster):
    """Segments that somebody still holds though they are gone."""
    held = []
    for role, pid in cluster.pids().items():
        for fd in glob.glob(f"/proc/{pid}/fd/*"):
            try:
                path = os.readlink(fd)
            except FileNotFoundError:
                continue
            if path.endswith(" (deleted)") and ".log" in path:
                held.append((role, path))
    return held


@pytest.fixture(params=["true", "false"], ids=["shared", "copied"])
def short_lived(request, own_folder):
    cluster = harness.Karst(own_folder, config={"karst.bus.shared": request.param, "log.retention.check.interval.ms": 300,
                                                "log.segment.delete.delay.ms": 0})
    cluster.start()
    yield cluster
    cluster.close()


def test_segments_leave_under_readers(short_lived):
    seed = int(os.environ.get("KARST_TEST_SEED", random.randrange(1 << 30)))
    rng = random.Random(seed)
    print(f"KARST_TEST_SEED={seed}")
    admin = create(short_lived, "t", segment_bytes=8 * MIB, retention_bytes=32 * MIB, file_delete_delay_ms=0)
    writer, stopping = Writer(short_lived, "t"), threading.Event()
    writer.write(1000)
    writer.flush()
    readers = [Reader(short_lived, "t", stopping, i % 2 == 0, seed + i) for i in range(6)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        writer.write(100)
        time.sleep(0.05)  # some 20 MB/s: two segments are removed in a second or three
        if rng.random() < 0.2:
            forget_pages(short_lived, "t")
        if rng.random() < 0.1:
            start = earliest(Client(short_lived, "t"))
            position = confluent_kafka.TopicPartition("t", 0, start + rng.randrange(400))
            for future in admin.delete_records([position]).values():
                future.result(20)
    writer.flush()
    stopping.set()
    for reader in readers:
        reader.join(30)
        assert reader.failure is None, f"{reader.failure}\n{short_lived.log()}"
        assert reader.large > 3 and reader.bytes > MIB, (reader.slow, reader.large, reader.bytes)
    print(writer.count, [(r.slow, r.large, r.bytes, r.out_of_range) for r in readers])
    assert earliest(Client(short_lived, "t")) > 1000
    harness.wait_until(lambda: not deleted_files(short_lived), 40, "the end of the last descriptor of a removed segment")


def test_topics_leave_under_readers(short_lived):
    for generation in range(6):
        admin = create(short_lived, "t", file_delete_delay_ms=0)
        writer = Writer(short_lived, "t", generation)
        writer.write(1000)
        writer.flush()
        if generation % 2:
            forget_pages(short_lived, "t")
        clients = [Client(short_lived, "t", slow=True) for _ in range(4)]
        for client in clients:
            client.send(0, 8 * MIB)
        begun = [client.connection.receive(4) for client in clients]
        admin.delete_topics(["t"])["t"].result(20)
        harness.wait_until(lambda: not glob.glob(os.path.join(short_lived.data, "t-0*")), 20, "the removal of the folder")
        for client, size in zip(clients, begun):
            part = client.read(client.connection.receive(struct.unpack(">i", size)[0]))
            assert part["ErrorCode"] == 0 and len(part["Records"]) > 4 * MIB
            assert check(part["Records"], generation, 0) > 300
            client.connection.socket.close()
    harness.wait_until(lambda: not deleted_files(short_lived), 40, "the end of the last descriptor of a removed topic")
