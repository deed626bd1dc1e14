"""A wrong or hostile client hurts its own connection only: the server lives, the others are served, memory stays bounded."""
import random
import socket
import struct
import time

import pytest

import ask
import harness
from test_clients import create, produce


def connect(cluster, timeout=10):
    return socket.create_connection(("127.0.0.1", cluster.port), timeout)


def answer(s):
    """What comes before the other side closes, or None for a silence of the timeout."""
    data = b""
    try:
        while True:
            more = s.recv(65536)
            if not more:
                return data
            data += more
    except socket.timeout:
        return None
    except ConnectionError:
        return data


def frame(key, version, body=b"", correlation=7, client=b"test"):
    head = struct.pack(">hhi", key, version, correlation) + struct.pack(">h", len(client)) + client
    return struct.pack(">i", len(head + body)) + head + body


@pytest.fixture(autouse=True)
def others_unharmed(karst):
    """Around each test: a well-behaved client works all the time, no process was restarted, and memory stays."""
    before = {p["role"]: (p["pid"], p["restarts"]) for p in karst.status()}
    with ask.Connection("127.0.0.1", karst.port) as bystander:
        assert bystander.ask("Metadata", 12, {"Topics": None})["Brokers"]
        yield
        assert bystander.ask("Metadata", 12, {"Topics": None})["Brokers"], "the bystander's connection still works"
    assert {p["role"]: (p["pid"], p["restarts"]) for p in karst.status()} == before, "a process has died"
    assert all(p["memory_bytes"] < 200 << 20 for p in karst.status()), karst.status()


def test_random_bytes(karst):
    rng = random.Random(1)
    for _ in range(200):
        with connect(karst, 2) as s:
            try:
                s.sendall(rng.randbytes(rng.randrange(1, 3000)))
                s.shutdown(socket.SHUT_WR)
            except ConnectionError:
                continue
            assert answer(s) is not None, "neither an answer nor a close"


def test_random_bodies_behind_a_good_header(karst):
    """A body that cannot be read closes the connection, as in Kafka."""
    rng = random.Random(2)
    for key in range(0, 75):
        for version in (0, 1, 4, 9, 12):
            with connect(karst, 5) as s:
                try:
                    s.sendall(frame(key, version, rng.randbytes(rng.randrange(0, 200))))
                    s.shutdown(socket.SHUT_WR)
                except ConnectionError:
                    continue
                assert answer(s) is not None, f"API {key} version {version}: neither an answer nor a close"


def test_truncated_frames(karst):
    whole = frame(3, 1, struct.pack(">i", -1))
    for cut in range(1, len(whole)):
        with connect(karst) as s:
            s.sendall(whole[:cut])
            s.shutdown(socket.SHUT_WR)
            assert answer(s) == b""


@pytest.mark.parametrize("length", [0x7fffffff, -1, -0x80000000, 104857601, 0, 1, 7])
def test_lengths_that_lie(karst, length):
    """Beyond socket.request.max.bytes (100 MiB), negative, or too short for a header: closed at once."""
    with connect(karst) as s:
        s.sendall(struct.pack(">i", length) + b"\0" * 8)
        assert answer(s) == b""


def test_array_counts_that_lie(karst):
    """A million, or two billion, elements announced in a few bytes: refused before memory is taken."""
    for count in (1_000_000, 0x7fffffff):
        with connect(karst) as s:
            s.sendall(frame(3, 1, struct.pack(">i", count)))
            assert answer(s) == b""


def peak_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM"))


def test_more_names_than_anybody_has(karst):
    """FindCoordinator for seven million groups in 7 MB: the answer alone would be hundreds of megabytes."""
    pid = next(p["pid"] for p in karst.status() if p["role"] == "frontend")
    before = peak_bytes(pid)
    count, varint = 7_000_000 + 1, b""
    while count > 127:
        varint, count = varint + bytes([count & 127 | 128]), count >> 7
    with connect(karst) as s:
        s.sendall(frame(10, 4, b"\0\0" + varint + bytes([count]) + b"\1" * 7_000_000 + b"\0"))
        assert answer(s) == b""
    assert peak_bytes(pid) < max(before, 100 << 20)


def test_small_requests_for_large_answers(karst):
    """What a service needs for its answer is bounded too: one partition's producers 150,000 times, 50,000 bad topics."""
    create(karst, "bad-large")
    with ask.Connection("127.0.0.1", karst.port, 60) as c:
        for i in range(33):
            c.ask("Produce", 9, {"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": "bad-large", "PartitionData": [
                {"Index": 0, "Records": ask.batch([(b"k", b"v")], producer=5000 + i, epoch=0, sequence=0).hex()}]}]})
        rows = c.ask("DescribeProducers", 0, {"Topics": [{"Name": "bad-large", "PartitionIndexes": [0] * 150_000}]})["Topics"][0]["Partitions"]
        assert (rows[0]["ErrorCode"], len(rows[0]["ActiveProducers"])) == (0, 33)
        assert (rows[-1]["ErrorCode"], rows[-1]["ActiveProducers"]) == (42, [])
        rows = c.ask("CreateTopics", 7, {"timeoutMs": 20000, "Topics": [{"Name": f"bad-{i}", "NumPartitions": 0, "ReplicationFactor": -1,
                                                                          "Assignments": [], "Configs": []} for i in range(50_000)]})["Topics"]
        assert {r["ErrorCode"] for r in rows} == {37}


def test_more_partitions_than_one_call_takes(karst):
    """One produce with 40,000 batches: refused alone. Nothing of the others' that is under way is lost with it."""
    create(karst, "bad-many")
    records = ask.batch([(b"k", b"v")]).hex()

    def body(count):
        return {"Acks": -1, "TimeoutMs": 5000,
                "TopicData": [{"Name": "bad-many", "PartitionData": [{"Index": 0, "Records": records}] * count}]}

    with ask.Connection("127.0.0.1", karst.port) as other, ask.Connection("127.0.0.1", karst.port) as hostile:
        parked, header = other.send("Fetch", 12, {"MaxWaitMs": 3000, "MinBytes": 1, "MaxBytes": 1000, "Topics": [
            {"Topic": "bad-many", "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1000}]}]})
        answers = hostile.ask("Produce", 9, body(40_000))["Responses"][0]["PartitionResponses"]
        assert {p["ErrorCode"] for p in answers} == {6}
        answers = hostile.ask("Produce", 9, body(2))["Responses"][0]["PartitionResponses"]
        assert [(p["ErrorCode"], p["BaseOffset"]) for p in answers] == [(0, 0), (0, 1)], "and nothing of it was written"
        data = other.receive(struct.unpack(">i", other.receive(4))[0])
        fetched = parked.read(ask.Codec(other.headers["headerResponseHeader"], header).read(data)[1])[0]
        assert fetched["Responses"][0]["Partitions"][0]["ErrorCode"] == 0


def test_unknown_api(karst):
    for key in (999, -1, 32767):
        with connect(karst) as s:
            s.sendall(frame(key, 0))
            assert answer(s) == b""


def test_unsupported_versions(karst):
    """Kafka closes the connection, but for ApiVersions, which answers version 0 with error 35 and what it has."""
    with connect(karst) as s:
        s.sendall(frame(3, 99))
        assert answer(s) == b""
    with connect(karst) as s:
        s.sendall(frame(18, 99, b"\0"))
        s.shutdown(socket.SHUT_WR)
        data = answer(s)
    size, correlation, error, count = struct.unpack(">iihi", data[:14])
    assert (size, correlation, error) == (len(data) - 4, 7, 35)
    rows = [struct.unpack(">hhh", data[14 + 6 * i:20 + 6 * i]) for i in range(count)]
    assert [r for r in rows if r[0] == 18], "the answer lists ApiVersions itself"


def test_api_versions_rows_are_kafkas(karst, kafka):
    """The same row for each API that we serve, and none that Kafka has not."""
    a, b = ({r["ApiKey"]: (r["MinVersion"], r["MaxVersion"]) for r in c.ask("ApiVersions", 4, {"ClientSoftwareName": "test",
             "ClientSoftwareVersion": "1"})["ApiKeys"]} for c in (karst, kafka))
    assert a == {k: b.get(k) for k in a}


def test_half_open_and_idle_connections(karst):
    """500 connections that say nothing, or half a frame, cost little and are in nobody's way."""
    idle = []
    try:
        for i in range(500):
            s = connect(karst)
            if i % 2:
                s.sendall(b"\0\0\1")
            idle.append(s)
        started = time.monotonic()
        assert karst.ask("Metadata", 12, {"Topics": None})["Brokers"]
        assert time.monotonic() - started < 2
        memory = sum(p["memory_bytes"] for p in karst.status() if p["role"] == "frontend")
        assert memory < 64 << 20
    finally:
        for s in idle:
            s.close()


def test_clients_that_do_not_read(karst):
    """Answers that nobody fetches stop the reading of further requests; memory does not grow with them."""
    create(karst, "unread")
    produce(karst, "unread", lambda i: 0, (b"x" * 50000 for _ in range(400)))
    request = ask.Codec(ask.load("api/Fetch.msg")[0], 4).write({
        "ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 1, "MaxBytes": 10 << 20, "IsolationLevel": 0,
        "Topics": [{"Topic": "unread", "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 10 << 20}]}]})
    sockets = [connect(karst) for _ in range(4)]
    try:
        for s in sockets:
            s.setblocking(False)
            for i in range(2000):
                try:
                    s.send(frame(1, 4, request, i))
                except BlockingIOError:
                    break
        time.sleep(1)
        for p in karst.status():
            assert p["memory_bytes"] < 200 << 20, p
        assert karst.ask("Metadata", 12, {"Topics": None})["Brokers"]
    finally:
        for s in sockets:
            s.close()


def test_slow_frames_arrive_whole(karst):
    """A frame may come a byte at a time."""
    with connect(karst) as s:
        for byte in frame(3, 1, struct.pack(">i", -1)):
            s.sendall(bytes([byte]))
            time.sleep(0.002)
        size, correlation, brokers = struct.unpack(">iii", s.recv(12))
        assert correlation == 7 and brokers == 1


def partition_answer(cluster, records, acks=-1, version=9, topic="bad-batches"):
    response = cluster.ask("Produce", version, {"Acks": acks, "TimeoutMs": 5000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": 0, "Records": records}]}]})
    return response["Responses"][0]["PartitionResponses"][0]


def test_bad_batches_are_refused_as_kafka_refuses_them(karst, kafka):
    """The same error code for each kind of damage, and the log is as it was."""
    good = ask.batch([(b"k", b"v")])
    damaged = {
        "crc": ask.batch([(b"k", b"v")], crc=1),
        "magic 1": good[:16] + b"\1" + good[17:],
        "magic 7": good[:16] + b"\7" + good[17:],
        "cut": good[:-3],
        "only a header": good[:61],
        "batch length 0": good[:8] + b"\0\0\0\0" + good[12:],
        "two batches": good + good,
        "nothing": b"",
        "rubbish": b"\xff" * 100,
    }
    for cluster in (karst, kafka):
        create(cluster, "bad-batches")
    wrong = []
    for name, records in damaged.items():
        codes = []
        for cluster in (karst, kafka):
            try:
                codes.append(partition_answer(cluster, records)["ErrorCode"])
            except ConnectionError:
                codes.append("closed")
        if codes[0] != codes[1]:
            wrong.append(f"{name}: {codes[0]}, Kafka answers {codes[1]}")
    assert not wrong
    assert partition_answer(karst, good)["BaseOffset"] == partition_answer(kafka, good)["BaseOffset"]
