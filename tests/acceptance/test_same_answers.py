"""Produce, Fetch, Metadata and ApiVersions, request by request and version by version: Karst's answer is Kafka's, field by field."""
import json
import time

import ask
import pytest

NO_SUCH_ID = "AAAAAAAAAAAAAAAAAAAAZw"
MIB = 1 << 20
OURS = {"ClusterId", "FinalizedFeaturesEpoch", "ControllerId", "Port", "LogAppendTimeMs"}  # may differ
NOW = int(time.time() * 1000) - 5000


def batch(*values, at_ms=NOW, **header):
    return ask.batch([(b"k", v) for v in values or (b"v", b"w")], at_ms=at_ms, **header)


class Asker:
    """Asks one cluster and notes the answers, in a shape that can be compared."""

    def __init__(self, cluster, topic):
        self.cluster, self.topic, self.notes = cluster, topic, []
        created = cluster.ask("CreateTopics", 7, {"Topics": [
            {"Name": topic, "NumPartitions": 3, "ReplicationFactor": 1, "Assignments": [], "Configs": []}], "timeoutMs": 5000})
        self.id = created["Topics"][0]["TopicId"]
        # Kafka's broker leads a while after its metadata says so.
        while not self.leads():
            time.sleep(0.02)

    def leads(self):
        answer = self.cluster.ask("Fetch", 12, self.fetch_body(12, [p(0), p(1), p(2)]))
        return not any(x["ErrorCode"] for t in answer["Responses"] for x in t["Partitions"])

    def shape(self, x, key=None):
        if isinstance(x, dict):
            return {k: self.shape(v, k) for k, v in x.items() if k not in OURS}
        if isinstance(x, list):
            return sorted((self.shape(v) for v in x), key=lambda v: json.dumps(v, sort_keys=True))
        if key == "SessionId":
            return x != 0
        return "ID" if x == self.id else x

    def ask(self, label, api, version, body, connection=None):
        try:
            answer = connection.ask(api, version, body) if connection else self.cluster.ask(api, version, body)
        except (ConnectionError, OSError) as e:
            answer = {"closed": isinstance(e, ConnectionError)}
        self.notes.append((f"{api} {version} {label}", self.shape(answer)))
        return answer

    def produce(self, label, version, records, acks=-1, topic=None, partition=0, transactional=None):
        name = {"TopicId": topic or self.id} if version >= 13 else {"Name": topic or self.topic}
        self.ask(label, "Produce", version, {"TransactionalId": transactional, "Acks": acks, "TimeoutMs": 3000, "TopicData": [
            {**name, "PartitionData": [{"Index": partition, "Records": records}]}]})

    def fetch_body(self, version, parts, topic=None, max_bytes=MIB, min_bytes=0, session=0, epoch=-1, isolation=0, replica=-1, forget=()):
        field, name = ("TopicId", topic or self.id) if version >= 13 else ("Topic", topic or self.topic)
        body = {"MaxWaitMs": 100, "MinBytes": min_bytes, "MaxBytes": max_bytes, "IsolationLevel": isolation, "SessionId": session,
                "SessionEpoch": epoch, "RackId": "", "ForgottenTopicsData": [{field: name, "Partitions": list(forget)}] if forget else [],
                "Topics": [{field: name, "Partitions": [
                    {"Partition": p, "FetchOffset": o, "PartitionMaxBytes": m, **more} for p, o, m, more in parts]}] if parts else []}
        if version < 15:
            body["ReplicaId"] = replica
        elif replica >= 0:
            body["ReplicaState"] = {"ReplicaId": replica, "ReplicaEpoch": 0}
        return body

    def fetch(self, label, version, *parts, connection=None, **more):
        return self.ask(label, "Fetch", version, self.fetch_body(version, parts, **more), connection)

    def metadata(self, version, topics, auto=False, operations=False, label="", quiet=False):
        body = {"Topics": topics}
        if version >= 4:
            body["AllowAutoTopicCreation"] = auto
        if version >= 8:
            body["IncludeTopicAuthorizedOperations"] = operations
        if 8 <= version <= 10:
            body["IncludeClusterAuthorizedOperations"] = operations
        return self.cluster.ask("Metadata", version, body) if quiet else self.ask(label, "Metadata", version, body)


def p(partition, offset=0, size=MIB, **more):
    return partition, offset, size, more


def ask_produce(a):
    for version in range(3, 14):
        a.produce("good", version, batch())
    a.produce("unknown id", 13, batch(), topic=NO_SUCH_ID)
    a.produce("unknown topic", 9, batch(), topic="nope")
    a.produce("unknown partition", 9, batch(), partition=99)
    a.produce("acks 2", 9, batch(), acks=2)
    a.produce("empty", 9, b"")
    a.produce("cut", 9, batch()[:-3])
    a.produce("two batches", 9, batch() + batch())
    a.produce("magic 1", 9, batch(magic=1))
    a.produce("magic 7", 9, batch(magic=7))
    a.produce("base offset 5", 9, batch(base=5))
    a.produce("control", 9, batch(attributes=0x20))
    a.produce("wrong crc", 9, batch(crc=1))
    a.produce("zstd too early", 6, batch(attributes=4))
    a.produce("transactional without an id", 9, batch(attributes=0x10, producer=7, epoch=0, sequence=0))
    a.produce("too large", 9, batch(b"v" * 1100000))
    for label, epoch, sequence in (("first", 0, 0), ("again", 0, 0), ("gap", 0, 5), ("new epoch, gap", 1, 3), ("new epoch", 1, 0), ("old epoch", 0, 1)):
        a.produce(f"idempotent {label}", 9, batch(b"v", producer=4242, epoch=epoch, sequence=sequence), partition=1)


def ask_fetch(a):
    for version in range(4, 19):
        a.fetch("two", version, p(0), p(1))
    a.fetch("in the middle", 12, p(0, 1))
    a.fetch("small partitions", 12, p(0, 0, 10), p(1, 0, 10))
    a.fetch("small in all", 12, p(0), p(1), max_bytes=10)
    a.fetch("cut in a batch", 12, p(0, 0, 200))
    a.fetch("at the end, waiting", 12, p(2), min_bytes=1)
    a.fetch("at the end", 12, p(2))
    a.fetch("above", 12, p(0, 9999))
    a.fetch("below", 12, p(0, -5))
    a.fetch("unknown topic", 12, p(0), topic="nope")
    a.fetch("unknown id", 13, p(0), topic=NO_SUCH_ID)
    a.fetch("unknown partition", 12, p(50))
    a.fetch("newer epoch", 12, p(0, CurrentLeaderEpoch=9))
    a.fetch("a replica", 12, p(0), replica=7)
    a.fetch("a replica", 16, p(0), replica=7)
    a.fetch("read committed", 12, p(0), p(2), isolation=1)
    a.fetch("one good, one bad", 12, p(0), p(77))


def ask_sessions(a, version):
    other = 13 if version == 12 else 12
    with ask.Connection("127.0.0.1", a.cluster.port) as c:
        s = a.fetch("full", version, p(0), p(1), p(2), epoch=0, connection=c)["SessionId"]
        a.fetch("same again", version, session=s, epoch=1, connection=c)
        a.fetch("moved", version, p(0, 24), p(1, 1), session=s, epoch=2, connection=c)
        a.fetch("nothing new", version, session=s, epoch=3, min_bytes=1, connection=c)
        a.fetch("wrong epoch", version, session=s, epoch=9, connection=c)
        a.fetch("an unknown one", version, p(66), session=s, epoch=4, connection=c)
        a.fetch("its error again", version, session=s, epoch=5, connection=c)
        a.fetch("forget", version, session=s, epoch=6, forget=(66, 2), connection=c)
        a.fetch("names for ids", other, session=s, epoch=7, connection=c)
        a.fetch("forget all", version, session=s, epoch=7, forget=(0, 1), connection=c)
        a.fetch("after it", version, session=s, epoch=8, connection=c)
        a.fetch("close an unknown one", version, p(0), session=12345, connection=c)
        a.fetch("empty", version, epoch=0, connection=c)
        a.fetch("epoch -3", version, epoch=-3, connection=c)


def ask_metadata(a):
    for version in range(14):
        a.metadata(version, [{"Name": a.topic}], label="one")
    a.metadata(1, [], label="none")
    a.metadata(9, [{"Name": "nope"}], label="unknown")
    a.metadata(9, [{"Name": n} for n in ("a/b", "", ".", "x" * 250)], label="illegal")
    a.metadata(9, [{"Name": a.topic}] * 2, operations=True, label="twice")
    a.metadata(12, [{"TopicId": a.id, "Name": None}], label="id")
    a.metadata(12, [{"TopicId": NO_SUCH_ID, "Name": None}], label="unknown id")
    a.metadata(10, [{"TopicId": a.id, "Name": "x"}], label="id")
    a.metadata(11, [{"TopicId": a.id, "Name": None}], label="id")
    a.metadata(12, [{"TopicId": a.id, "Name": None}, {"Name": "nope"}], label="id and name")
    a.metadata(9, [{"Name": a.topic + "-auto"}], auto=True, label="makes itself")
    while a.metadata(9, [{"Name": a.topic + "-auto"}], quiet=True)["Topics"][0]["ErrorCode"]:
        time.sleep(0.02)


def ask_versions(a):
    for version in range(5):
        who = {"ClientSoftwareName": "a", "ClientSoftwareVersion": "b"} if version >= 3 else {}
        a.ask("", "ApiVersions", version, who)
        keys = a.notes[-1][1]["ApiKeys"]
        keys[:] = [k for k in keys if k["ApiKey"] in (0, 1, 3, 18)]
    a.ask("a bad name", "ApiVersions", 3, {"ClientSoftwareName": " ", "ClientSoftwareVersion": "b"})


@pytest.fixture(scope="module")
def notes(pair):
    def everything(cluster):
        a = Asker(cluster, "same-answers")
        ask_produce(a)
        ask_fetch(a)
        ask_sessions(a, 12)
        ask_sessions(a, 17)
        ask_metadata(a)
        ask_versions(a)
        return a.notes
    return pair.both(everything)


@pytest.mark.parametrize("api", ["Produce", "Fetch", "Metadata", "ApiVersions"])
def test_answers_are_kafkas(notes, api):
    ours, theirs = ([(label, x) for label, x in side if label.startswith(api)] for side in notes)
    assert [label for label, _ in ours] == [label for label, _ in theirs]
    different = [f"{label}\n  karst {json.dumps(x)[:2000]}\n  kafka {json.dumps(y)[:2000]}" for (label, x), (_, y) in zip(ours, theirs) if x != y]
    assert not different, "\n".join(different)
