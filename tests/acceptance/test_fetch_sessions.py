"""Fetch sessions of many partitions, of which storage keeps what a client is interested in: their answers beside those without a session."""
import os
import random
import signal
import threading

import ask
from test_clients import create, produce

import harness

PARTITIONS = 40


def asked(partition, offset):
    return {"Partition": partition, "CurrentLeaderEpoch": -1, "FetchOffset": offset, "LastFetchedEpoch": -1, "LogStartOffset": -1,
            "PartitionMaxBytes": 100_000}


def fetch(session, epoch, partitions, forgotten=(), wait_ms=0):
    return {"ReplicaId": -1, "MaxWaitMs": wait_ms, "MinBytes": 1, "MaxBytes": 50_000_000, "IsolationLevel": 0, "SessionId": session,
            "SessionEpoch": epoch, "RackId": "",
            "Topics": [{"Topic": "many", "Partitions": [asked(p, o) for p, o in partitions.items()]}] if partitions else [],
            "ForgottenTopicsData": [{"Topic": "many", "Partitions": list(forgotten)}] if forgotten else []}


def told(answer):
    assert answer["ErrorCode"] == 0, answer
    return {p["PartitionIndex"]: p for t in answer["Responses"] for p in t["Partitions"]}


class Session:
    """A client that reads at its own pace, adds and forgets partitions, and compares each answer with a full Fetch."""

    def __init__(self, cluster, chance):
        self.cluster, self.chance, self.connection = cluster, chance, ask.Connection("127.0.0.1", cluster.port)
        self.offsets = {p: 0 for p in range(PARTITIONS - 5)}
        self.start()

    def start(self):
        answer = self.connection.ask("Fetch", 12, fetch(0, 0, self.offsets))
        self.id, self.epoch, self.seen = answer["SessionId"], 1, told(answer)
        assert self.id != 0 and set(self.seen) == set(self.offsets)

    def step(self):
        moved, forgotten = {}, []
        for p in range(PARTITIONS):
            what = self.chance.random()
            if p not in self.offsets and what < 0.1:
                moved[p] = self.chance.randrange(5)
                self.seen.pop(p, None)
            elif p in self.offsets and what < 0.03 and len(self.offsets) > 12:
                forgotten.append(p)
            elif p in self.offsets and what < 0.3:
                moved[p] = max(self.seen.get(p, {}).get("HighWatermark", 0) - self.chance.choice((0, 0, 0, 1, 3)), 0)
        for p in forgotten:
            del self.offsets[p]
        self.offsets.update(moved)
        answer = self.connection.ask("Fetch", 12, fetch(self.id, self.epoch, moved, forgotten))
        assert answer["SessionId"] == self.id
        self.epoch += 1
        now, truth = told(answer), told(self.cluster.ask("Fetch", 12, fetch(0, -1, self.offsets)))
        assert set(now) <= set(self.offsets)
        for p, full in truth.items():
            mine = now.get(p)
            if mine is None:  # nothing was to be told
                assert not full["Records"] and full["ErrorCode"] == 0, (p, full)
                for field in ("HighWatermark", "LogStartOffset"):
                    assert self.seen[p][field] == full[field], (p, field)
            else:
                for field in ("ErrorCode", "HighWatermark", "LogStartOffset", "Records"):
                    assert mine[field] == full[field], (p, field)
                self.seen[p] = mine


def test_sessions_say_what_full_fetches_say(own_karst):
    own_karst.start()
    create(own_karst, "many", PARTITIONS)
    chance = random.Random(4)
    session = Session(own_karst, chance)
    for step in range(150):
        if chance.random() < 0.6:
            produce(own_karst, "many", lambda i: chance.randrange(PARTITIONS), (b"%d-%d" % (step, i) for i in range(chance.randrange(1, 6))))
        if chance.random() < 0.05:
            own_karst.ask("DeleteRecords", 2, {"Topics": [{"Name": "many", "Partitions": [
                {"PartitionIndex": chance.randrange(PARTITIONS), "Offset": -1}]}], "TimeoutMs": 5000})
        if step == 70:  # other metadata: the leaders are looked for anew
            create(own_karst, "another")
        if step == 100:  # storage has forgotten the set
            old = own_karst.pids()["storage"]
            os.kill(old, signal.SIGKILL)
            harness.wait_until(lambda: own_karst.pids().get("storage") not in (None, old), 20, "another storage node")
            harness.wait_until(lambda: all(p["ErrorCode"] in (0, 1) for p in told(own_karst.ask("Fetch", 12, fetch(0, -1, session.offsets))).values()),
                               20, "its partitions")
            session.start()
        session.step()


def test_a_parked_fetch_of_a_session_wakes(own_karst):
    own_karst.start()
    create(own_karst, "many", PARTITIONS)
    with ask.Connection("127.0.0.1", own_karst.port) as client:
        answer = client.ask("Fetch", 12, fetch(0, 0, {p: 0 for p in range(PARTITIONS)}))
        session, offsets = answer["SessionId"], [0] * PARTITIONS
        client.ask("Fetch", 12, fetch(session, 1, {}))
        moved = {}
        for epoch in range(2, 60):
            partition = epoch * 7 % PARTITIONS
            codec, header = client.send("Fetch", 12, fetch(session, epoch, moved, wait_ms=20_000))
            produce(own_karst, "many", lambda i: partition, [b"record %d" % epoch])
            data = client.receive(int.from_bytes(client.receive(4), "big"))
            body, _ = codec.read(ask.Codec(client.headers["headerResponseHeader"], header).read(data)[1])
            now = told(body)
            assert [p for p, x in now.items() if x["Records"]] == [partition]
            assert b"record %d" % epoch in bytes.fromhex(now[partition]["Records"])
            offsets[partition] += 1
            moved = {partition: offsets[partition]}


def reading(cluster, until):
    """One client of a session over all partitions that reads on, whatever it is told, until it is to end; how often it was answered."""
    answers = 0
    while not until.is_set():
        try:
            with ask.Connection("127.0.0.1", cluster.port) as client:
                offsets = {p: 0 for p in range(PARTITIONS)}
                answer = client.ask("Fetch", 12, fetch(0, 0, offsets))
                session, epoch, moved = answer["SessionId"], 1, {}
                while answer["ErrorCode"] == 0 and not until.is_set():
                    answer = client.ask("Fetch", 12, fetch(session, epoch, moved, wait_ms=100))
                    moved = {p["PartitionIndex"]: p["HighWatermark"] for t in answer["Responses"] for p in t["Partitions"]
                             if p["ErrorCode"] == 0 and p["HighWatermark"] >= 0}
                    epoch, answers = epoch + 1, answers + 1
        except (OSError, EOFError):
            pass
    return answers


def deleting(cluster, partition, until, starts):
    """Another that deletes the partition's records one after the other, and notes the start that it was told last."""
    while not until.is_set():
        try:
            with ask.Connection("127.0.0.1", cluster.port) as client:
                while not until.is_set():
                    answer = client.ask("DeleteRecords", 2, {"TimeoutMs": 5000, "Topics": [{"Name": "many", "Partitions": [
                        {"PartitionIndex": partition, "Offset": -1}]}]})["Topics"][0]["Partitions"][0]
                    if answer["ErrorCode"] == 0:
                        starts[partition] = answer["LowWatermark"]
        except (OSError, EOFError):
            pass


def test_a_clean_stop_under_sessions(own_karst):
    """Sets name partitions, and end before the logs do (a sanitizer reports who touches what is gone). What comes when the logs are
    closed is refused: no checkpoint is written without them."""
    own_karst.start()
    create(own_karst, "many", PARTITIONS)
    produce(own_karst, "many", lambda i: i % PARTITIONS, (b"%d" % i for i in range(2 * PARTITIONS)))
    end, counts, starts = threading.Event(), [], {}
    clients = [threading.Thread(target=lambda: counts.append(reading(own_karst, end))) for _ in range(4)]
    clients += [threading.Thread(target=deleting, args=(own_karst, p, end, starts)) for p in range(3)]
    for t in clients:
        t.start()
    for stop in range(3):
        produce(own_karst, "many", lambda i: i % PARTITIONS, (b"%d-%d" % (stop, i) for i in range(200)))
        old = own_karst.pids()["storage"]
        os.kill(old, signal.SIGTERM)
        harness.wait_until(lambda: not harness.alive(old), 10, "the end of the storage node")
        harness.wait_until(lambda: own_karst.pids().get("storage") not in (None, old), 20, "another storage node")
    end.set()
    for t in clients:
        t.join()
    log = own_karst.log()
    assert log.count(f"closed {PARTITIONS} partitions cleanly") == log.count("storage ended with status 0") == 3, log
    assert len(counts) == 4 and min(counts) > 10

    def deleted():  # what the answer says of the last record before each start
        return {p["ErrorCode"] for p in told(own_karst.ask("Fetch", 12, fetch(0, -1, {p: s - 1 for p, s in starts.items()}))).values()}
    harness.wait_until(lambda: deleted() <= {0, 1}, 20, "the partitions")
    assert len(starts) == 3 and deleted() == {1}  # OFFSET_OUT_OF_RANGE
