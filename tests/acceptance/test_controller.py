"""The requests that the controller decides: codes, texts and results, each sent to Karst and to a real Kafka 4.3.1 beside it. And the metadata
log across swaps: snapshots of either, and records that only the other acts on."""
import os

import pytest

import harness

ZERO = "A" * 22


def topic(name, partitions=1, replicas=1, assignments=(), configs=()):
    return {"Name": name, "NumPartitions": partitions, "ReplicationFactor": replicas,
            "Assignments": [{"PartitionIndex": i, "BrokerIds": b} for i, b in assignments],
            "Configs": [{"Name": k, "Value": v} for k, v in configs]}


def create(*topics, version=7, **fields):
    return "CreateTopics", version, {"Topics": list(topics), "timeoutMs": 5000, **fields}


def delete(*topics):
    return "DeleteTopics", 6, {"Topics": list(topics), "TimeoutMs": 5000}


def delete_names(version, *names):
    return "DeleteTopics", version, {"TopicNames": list(names), "TimeoutMs": 5000}


def grow(*topics, **fields):
    return "CreatePartitions", 3, {"Topics": [{"Name": n, "Count": c, "Assignments": a and [{"BrokerIds": b} for b in a]}
                                              for n, c, a in topics], "TimeoutMs": 5000, **fields}


SET, DELETE, APPEND, SUBTRACT = range(4)


def alter(*resources, **fields):
    return "IncrementalAlterConfigs", 1, {"Resources": [
        {"ResourceType": t, "ResourceName": n, "Configs": [{"Name": k, "ConfigOperation": o, "Value": v} for k, o, v in c]}
        for t, n, c in resources], **fields}


def alter_topic(key, operation, value, name="a"):
    return alter((2, name, [(key, operation, value)]))


def alter_broker(key, operation, value, name="1"):
    return alter((4, name, [(key, operation, value)]))


# In this order, as later ones need what earlier ones made. "@NAME" stands for that topic's id.
CASES = [
    create(topic("a", 3)), create(topic("b", -1, -1, configs=[("retention.ms", "1000"), ("cleanup.policy", "compact,delete")])),
    create(topic("c", 0)), create(topic("c", -5)), create(topic("c", 1, 0)), create(topic("c", 1, -2)), create(topic("c", 1, 3)),
    create(topic("a")), create(topic("d"), topic("d"), topic("d2")),
    create(*(topic(n) for n in ("", ".", "..", "x" * 250, "a b", "bad/n"))),
    create(topic("x.y")), create(topic("x_y")), create(topic("p.q"), topic("p_q")),
    create(topic("e", 3, -1, [(0, [1])])), create(topic("e", -1, 1, [(0, [1])])), create(topic("e1", -1, -1, [(0, [1]), (1, [1])])),
    create(topic("e2", -1, -1, [(0, [1]), (2, [1])])), create(topic("e2", -1, -1, [(1, [1])])), create(topic("e3", -1, -1, [(0, [5])])),
    create(topic("e4", -1, -1, [(0, [1, 1])])), create(topic("e5", -1, -1, [(0, [])])), create(topic("e6", -1, -1, [(0, [1]), (0, [1])])),
    create(topic("e6", -1, -1, [(0, [-1])])), create(topic("f", configs=[("nope", "1")])), create(topic("f", configs=[("retention.ms", "abc")])),
    create(topic("f", configs=[("retention.ms", None)])), create(topic("f", configs=[("segment.bytes", "1")])),
    create(topic("f", configs=[("cleanup.policy", "zzz")])), create(topic("f9", configs=[("retention.ms", "1"), ("retention.ms", "2")])),
    create(topic("f7", configs=[("min.compaction.lag.ms", "100"), ("max.compaction.lag.ms", "1")])),
    create(topic("f6", configs=[("remote.storage.enable", "true")])), create(topic("__cluster_metadata")),
    create(topic("v1", 2), validateOnly=True), create(topic("a", 2), validateOnly=True), create(topic("w1", 2), version=2),
    create(topic("w2", -1, -1), version=4), create(), create(topic("g", 0, configs=[("nope", "1")])), create(topic("g", 0, 0)),
    create(topic("h", 100001)), create(topic("z1"), topic("a"), topic(""), topic("z0")),
    delete({"Name": "nope"}), delete({"Name": None, "TopicId": "AAAAAAAAAAAAAAAAAAAABQ"}), delete({"Name": "a", "TopicId": "@a"}),
    delete({"Name": None, "TopicId": ZERO}), delete({"Name": None, "TopicId": "@e1"}), delete({"Name": "d2"}, {"Name": "d2"}),
    delete({"Name": "z0"}, {"Name": None, "TopicId": "@z0"}), delete_names(1, "z1", "qq"), delete_names(5, "w1", "qq", "qq"),
    delete({"Name": None, "TopicId": "@w2"}, {"Name": None, "TopicId": "@w2"}), delete(),
    grow(("a", 3, None)), grow(("a", 2, None)), grow(("nope", 2, None)), grow(("a", 4, None)), grow(("a", 5, [[1]])), grow(("a", 8, [[1]])),
    grow(("a", 6, [[1], [1]])), grow(("a", 6, [[9]])), grow(("a", 6, [[1, 1]])), grow(("b", 2, [[1, 2]])), grow(("a", 0, None)),
    grow(("a", -1, None)), grow(("a", 6, None), ("a", 7, None), ("nope", 1, None)), grow(("a", 9, None), ValidateOnly=True), grow(("a", 6, [[]])),
    alter_topic("retention.ms", SET, "5000"), alter_topic("retention.ms", DELETE, None), alter_topic("retention.ms", DELETE, None),
    alter_topic("nope", DELETE, None), alter_topic("nope", SET, "1"), alter_topic("cleanup.policy", APPEND, "compact"),
    alter_topic("cleanup.policy", APPEND, "compact"), alter_topic("cleanup.policy", SUBTRACT, "delete"),
    alter_topic("retention.ms", APPEND, "1"), alter_topic("retention.ms", SUBTRACT, "1"), alter_topic("cleanup.policy", APPEND, "zz"),
    alter_topic("retention.ms", 7, "1"), alter_topic("retention.ms", SET, None), alter_topic("cleanup.policy", APPEND, None),
    alter((2, "a", [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)])), alter((2, "a", []), (2, "a", [])),
    alter_topic("retention.ms", SET, "1", "nope"), alter_topic("retention.ms", SET, "1", "a b"), alter_topic("retention.ms", SET, "1", ""),
    alter_topic("retention.ms", SET, "x"), alter((2, "a", [("retention.ms", SET, "x")]), (2, "b", [("retention.ms", SET, "7")])),
    alter((0, "a", [("retention.ms", SET, "x")])), alter((9, "a", [("retention.ms", SET, "x")])), alter((2, "a", [])), alter(),
    alter_broker("log.dirs", SET, "/x"), alter_broker("log.dirs", SET, "/x", ""), alter_broker("log.cleaner.threads", SET, "2"),
    alter_broker("my.own", SET, "2"), alter_broker("log.cleaner.threads", SET, "x"), alter_broker("log.cleaner.threads", SET, "x", ""),
    alter_broker("log.cleaner.threads", SET, "2", "2"), alter_broker("ssl.keystore.location", SET, "/x", ""),
    alter_broker("ssl.keystore.location", SET, "/x"), alter_broker("advertised.listeners", SET, "PLAINTEXT://x:1", ""),
    alter_broker("log.cleaner.threads", DELETE, None), alter_broker("min.insync.replicas", SET, "2", ""),
    alter_broker("min.insync.replicas", SET, "2"), alter_broker("min.insync.replicas", DELETE, None, ""),
    alter_broker("min.insync.replicas", SET, "1", ""), alter_topic("min.insync.replicas", SET, "2"), alter_topic("min.insync.replicas", DELETE, None),
    alter((32, "g1", [("consumer.session.timeout.ms", SET, "46000")])), alter((32, "g1", [("consumer.session.timeout.ms", SET, "1")])),
    alter((32, "g1", [("zzz", SET, "1")])), alter((32, "", [("consumer.session.timeout.ms", SET, "46000")])),
    alter((16, "m1", [("interval.ms", SET, "46000")])), alter((16, "m1", [("interval.ms", SET, "1")])), alter((16, "", [("interval.ms", SET, "46000")])),
    alter((2, "a", [("retention.ms", SET, "5000")]), ValidateOnly=True), alter_topic("leader.replication.throttled.replicas", APPEND, "0:1"),
    alter_topic("leader.replication.throttled.replicas", APPEND, "zz"), alter_broker("leader.replication.throttled.rate", SET, "100"),
]


def plain(answer):
    """An answer without what differs from one cluster to the next, and in no order where Kafka has none (it shuffles those of DeleteTopics)."""
    if isinstance(answer, list):
        return [plain(a) for a in answer]
    if not isinstance(answer, dict):
        return answer
    return {k: "an id" if k == "TopicId" and v != ZERO else sorted(map(plain, v), key=str) if k in ("Configs", "Responses") and v else plain(v)
            for k, v in answer.items()}


def ids(cluster):
    return {t["Name"]: t["TopicId"] for t in cluster.ask("Metadata", 12, {"Topics": None})["Topics"]}


def with_ids(body, known):
    if isinstance(body, list):
        return [with_ids(b, known) for b in body]
    if isinstance(body, dict):
        return {k: with_ids(v, known) for k, v in body.items()}
    return known[body[1:]] if isinstance(body, str) and body.startswith("@") else body


@pytest.fixture(scope="module")
def both(folder):
    karst, kafka = harness.Karst(os.path.join(folder, "ck")), harness.Kafka(os.path.join(folder, "cr"))
    for cluster in (karst, kafka):
        os.makedirs(cluster.folder)
    try:
        yield karst.start(), kafka.start()
    finally:
        karst.close()
        kafka.close()


def test_answers_are_those_of_kafka(both):
    different = []
    for api, version, body in CASES:
        answers = [plain(c.ask(api, version, with_ids(body, ids(c) if "@" in str(body) else {}))) for c in both]
        if answers[0] != answers[1]:
            different.append(f"{api} {version} {str(body)[:300]}\n  karst {answers[0]}\n  kafka {answers[1]}")
    assert not different, "\n".join(different)
    assert sorted(ids(both[0])) == sorted(ids(both[1]))


def make(cluster, *names):
    for name in names:
        assert cluster.ask(*create(topic(name, 3)))["Topics"][0]["ErrorCode"] == 0


def checkpoints(cluster):
    return sorted(n for n in os.listdir(os.path.join(cluster.data, "__cluster_metadata-0")) if n.endswith(".checkpoint"))


def test_snapshots_go_both_ways(own_folder):
    """Karst starts from a snapshot of Kafka's; then Kafka from one of Karst's, with the quota and the credential that only Kafka acts on."""
    small = "metadata.log.max.record.bytes.between.snapshots"
    for name in ("k", "r"):
        os.makedirs(os.path.join(own_folder, name))
    kafka = harness.Kafka(os.path.join(own_folder, "r"))
    karst = harness.Karst(os.path.join(own_folder, "k"), config={small: 2000})
    karst.data = kafka.data
    try:
        kafka.start(f"{small}=2000")
        make(kafka, *(f"t{i}" for i in range(30)))
        quota = {"Entity": [{"EntityType": "user", "EntityName": "u1"}], "Ops": [{"Key": "producer_byte_rate", "Value": 1000.0}]}
        assert kafka.ask("AlterClientQuotas", 1, {"Entries": [quota]})["Entries"][0]["ErrorCode"] == 0
        scram = {"Name": "u2", "Mechanism": 1, "Iterations": 4096, "Salt": "aabbccdd", "SaltedPassword": "00" * 32}
        assert kafka.ask("AlterUserScramCredentials", 0, {"Deletions": [], "Upsertions": [scram]})["Results"][0]["ErrorCode"] == 0
        harness.wait_until(lambda: len(checkpoints(kafka)) > 1, 30, "a snapshot of Kafka's")
        kafka.stop()
        of_kafka = checkpoints(karst)

        karst.start()
        assert set(ids(karst)) == {f"t{i}" for i in range(30)}
        make(karst, *(f"k{i}" for i in range(10)))
        harness.wait_until(lambda: checkpoints(karst)[-1] > of_kafka[-1], 30, "a snapshot of Karst's")
        karst.stop()
        newest = checkpoints(karst)[-1]
        dumped = harness.ran([harness.KAFKA, "dump-log", "--cluster-metadata-decoder", "--files",
                              os.path.join(karst.data, "__cluster_metadata-0", newest)])
        assert "CLIENT_QUOTA_RECORD" in dumped and "USER_SCRAM_CREDENTIAL_RECORD" in dumped and "SnapshotFooter" in dumped

        kafka.start()
        assert set(ids(kafka)) == {f"t{i}" for i in range(30)} | {f"k{i}" for i in range(10)}
        users = kafka.tool("configs", "--describe", "--entity-type", "users").out
        assert "producer_byte_rate=1000" in users and "SCRAM-SHA-256" in users
    finally:
        karst.close()
        kafka.close()


def test_what_was_answered_survives_kill_9(own_folder):
    karst = harness.Karst(os.path.join(own_folder, "k"))
    os.makedirs(karst.folder)
    try:
        karst.start()
        made = []
        for n in range(5):
            name = f"topic{n}"
            make(karst, name)
            made.append(name)
            before = karst.pids()["controller"]
            os.kill(before, 9)
            harness.wait_until(lambda: karst.pids().get("controller") not in (None, before), 20, "a new controller")
            assert sorted(ids(karst)) == made
        assert all(p["LeaderId"] == 1 for t in karst.ask("Metadata", 12, {"Topics": None})["Topics"] for p in t["Partitions"])
    finally:
        karst.close()


@pytest.mark.parametrize("version", (0, 1, 2))
def test_every_version_of_describe_quorum(karst, version):
    """Directory ids and nodes are of version 2 alone: an older one must not fall over them."""
    answer = karst.ask("DescribeQuorum", version, harness.QUORUM)
    partition = answer["Topics"][0]["Partitions"][0]
    voters = partition["CurrentVoters"]
    assert (answer["ErrorCode"], partition["ErrorCode"], [v["ReplicaId"] for v in voters]) == (0, 0, [partition["LeaderId"]])
    assert bool(answer.get("Nodes")) == ("ReplicaDirectoryId" in voters[0]) == (version == 2)
