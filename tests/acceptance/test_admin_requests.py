"""Requests that only change metadata: elections, moves, features, client quotas, SCRAM credentials, brokers. Karst's answers are Kafka's, and its tools'."""
import json

import pytest

ALICE = ("--entity-type", "users", "--entity-name", "alice")


def elect(topic, partitions, kind):
    return {"ElectionType": kind, "TopicPartitions": [{"Topic": topic, "Partitions": partitions}], "TimeoutMs": 5000}


def elections():
    yield from (("ElectLeaders", 2, elect(*x)) for x in (("one", [0, 1], 0), ("one", [0], 1), ("nope", [0], 0), ("one", [0], 5), ("one", [], 0)))
    for topics, kind in ((None, 0), (None, 5), ([], 0)):
        yield "ElectLeaders", 2, {"ElectionType": kind, "TopicPartitions": topics, "TimeoutMs": 5000}
    yield "ElectLeaders", 0, {"TopicPartitions": [{"Topic": "one", "Partitions": [0]}], "TimeoutMs": 5000}
    yield "UnregisterBroker", 0, {"BrokerId": 77}


def moves():
    for replicas in ([], [1, 1], [7, 8], [7], [1], None):
        for allow in (False, True):
            yield "AlterPartitionReassignments", 1, {"TimeoutMs": 5000, "AllowReplicationFactorChange": allow, "Topics": [
                {"Name": "one", "Partitions": [{"PartitionIndex": 0, "Replicas": replicas}]}]}


def features():
    def update(version, *changes, validate=False):
        how = (lambda t: {"UpgradeType": t}) if version > 0 else (lambda t: {"AllowDowngrade": t > 1})
        body = {"timeoutMs": 5000, "FeatureUpdates": [{"Feature": n, "MaxVersionLevel": level, **how(t)} for n, level, t in changes]}
        return "UpdateFeatures", version, {**body, "ValidateOnly": validate} if version > 0 else body
    for version in (2, 1, 0):
        yield update(version)
        for name, level in (("group.version", 1), ("group.version", 5), ("group.version", 0), ("group.version", -1), ("foo.version", 1), ("", 1)):
            yield update(version, (name, level, 1))
    for name, level, kind in (
            ("group.version", 1, 0), ("group.version", 1, 9), ("group.version", 1, 3), ("metadata.version", 31, 1), ("metadata.version", 6, 2),
            ("metadata.version", 0, 2), ("metadata.version", 29, 1), ("kraft.version", 0, 2), ("kraft.version", 1, 1), ("kraft.version", 2, 1),
            ("transaction.version", 0, 2), ("transaction.version", 2, 1), ("eligible.leader.replicas.version", 0, 2),
            ("eligible.leader.replicas.version", 1, 1), ("streams.version", 0, 2), ("share.version", 0, 2)):
        yield update(2, (name, level, kind))
    yield update(2, ("streams.version", 1, 1), ("share.version", 1, 1))
    yield update(2, ("group.version", 1, 1), ("foo", 1, 1))
    yield update(1, ("metadata.version", 20, 2), ("group.version", 0, 2))
    for level in range(29, 6, -1):
        yield update(2, ("metadata.version", level, 2 + level % 2), validate=True)
    yield update(2, ("group.version", 0, 2), validate=True)


def quota(entity, *values, validate=False):
    return {"Entries": [{"Entity": [{"EntityType": t, "EntityName": n} for t, n in entity],
                         "Ops": [{"Key": k, "Value": v or 0.0, "Remove": v is None} for k, v in values]}], "ValidateOnly": validate}


def quotas():
    a, c, ip = [("user", "a")], [("client-id", "c")], [("ip", "1.2.3.4")]
    for entity, *values in (
            ([], ("producer_byte_rate", 1.0)), (a, ("producer_byte_rate", 100.0)), (a, ("producer_byte_rate", 0.0)), (a, ("producer_byte_rate", -1.0)),
            (a, ("producer_byte_rate", 1.5)), (a, ("request_percentage", 1.5)), (a, ("controller_mutation_rate", 1.5)),
            (a, ("connection_creation_rate", 1.5)), (a, ("nope", 1.0)), (a, ("nope", None)), ([("user", "")], ("producer_byte_rate", 1.0)),
            ([("user", "a"), ("user", "b")], ("producer_byte_rate", 1.0)), ([("foo", "a")], ("producer_byte_rate", 1.0)),
            (ip, ("connection_creation_rate", 3.0)), (ip, ("connection_creation_rate", 3.5)), (ip, ("connection_creation_rate", 3e10)),
            ([("ip", "no such host")], ("connection_creation_rate", 3.0)), ([*ip, *a], ("connection_creation_rate", 3.0)),
            ([("ip", None)], ("connection_creation_rate", 3.0)), ([*a, ("client-id", None)], ("consumer_byte_rate", 9.0)),
            (c, ("consumer_byte_rate", 1e19)), (c, ("consumer_byte_rate", 7.0), ("consumer_byte_rate", 8.0)), (c,)):
        yield "AlterClientQuotas", 1, quota(entity, *values)
    yield "AlterClientQuotas", 1, quota([("user", "v")], ("producer_byte_rate", 100.0), validate=True)
    yield "AlterClientQuotas", 0, quota(a, ("producer_byte_rate", 101.0))
    user, default, any_user = ("user", 0, "a"), ("client-id", 1, None), ("user", 2, None)
    for parts, strict in (
            ([], False), ([], True), ([user], False), ([user], True), ([any_user], False), ([any_user], True), ([("user", 1, None)], False),
            ([default], False), ([("user", 0, None)], False), ([("user", 1, "x")], False), ([("user", 2, "x")], False), ([("user", 3, None)], False),
            ([("", 0, "x")], False), ([("foo", 0, "x")], False), ([user, ("user", 0, "b")], False), ([("ip", 2, None)], False),
            ([("ip", 2, None), any_user], False), ([user, default], True)):
        yield "DescribeClientQuotas", 1, {"Components": [{"EntityType": t, "MatchType": m, "Match": x} for t, m, x in parts], "Strict": strict}
    for entity, key in ((a, "producer_byte_rate"), (a, "request_percentage"), (a, "controller_mutation_rate"), ([("user", "b")], "producer_byte_rate"),
                        (ip, "connection_creation_rate"), ([("ip", None)], "connection_creation_rate"), ([*a, ("client-id", None)], "consumer_byte_rate")):
        yield "AlterClientQuotas", 1, quota(entity, (key, None))
    yield "DescribeClientQuotas", 1, {"Components": [], "Strict": False}


def credentials():
    def alter(deletions=(), upsertions=()):
        return "AlterUserScramCredentials", 0, {
            "Deletions": [{"Name": n, "Mechanism": m} for n, m in deletions],
            "Upsertions": [{"Name": n, "Mechanism": m, "Iterations": i, "Salt": "73616c74", "SaltedPassword": "70617373"} for n, m, i in upsertions]}
    for user in (("al", 1, 4096), ("al", 1, 4095), ("al", 1, 16385), ("al", 2, 4096), ("", 1, 4096), ("al", 0, 4096), ("al", 9, 4096)):
        yield alter((), [user])
    for users in ([("bo", 1, 5000), ("bo", 2, 5000)], [("bo", 1, 5000), ("ca", 2, 5000)]):
        yield alter((), users)
    yield alter([("al", 2)], [("al", 1, 5000)])
    for users in (None, [], ["al"], ["al", "zz"], ["al", "al"], [""]):
        yield "DescribeUserScramCredentials", 0, {"Users": None if users is None else [{"Name": u} for u in users]}
    for users in ([("al", 1)], [("al", 1)], [("al", 2)], [("xx", 1)], [("", 1)], [("xx", 7)], [("bo", 1), ("ca", 2)]):
        yield alter(users)
    yield "DescribeUserScramCredentials", 0, {"Users": None}


def shape(x):
    if isinstance(x, dict):
        return {k: shape(v) for k, v in x.items()}
    if isinstance(x, list):  # Kafka's lists come in the order of a hash
        return sorted((shape(v) for v in x), key=lambda v: json.dumps(v, sort_keys=True))
    return x


@pytest.fixture(scope="module")
def topics(pair):
    pair.tool("topics", "--create", "--topic", "one", "--partitions", "1")
    yield
    pair.tool("topics", "--delete", "--topic", "one")


@pytest.mark.parametrize("requests", [elections, moves, features, quotas, credentials], ids=lambda f: f.__name__)
def test_answers(pair, topics, requests):
    def of_the_test(answer):  # an election of all meets topics of other tests in the Kafka that they share
        if "ReplicaElectionResults" in answer:
            answer["ReplicaElectionResults"] = [t for t in answer["ReplicaElectionResults"] if t["Topic"] in ("one", "nope")]
        return shape(answer)
    for api, version, body in requests():
        ours, theirs = pair.both(lambda c: of_the_test(c.ask(api, version, body)))
        assert ours == theirs, f"{api} {version} {body}"


def test_tools(pair, topics):
    pair.tool("features", "describe", more=[(r"Epoch: \d+", "Epoch: <n>")])
    pair.tool("features", "downgrade", "--feature", "transaction.version=1")
    pair.tool("features", "describe", only="transaction", more=[(r"Epoch: \d+", "Epoch: <n>")])
    pair.tool("features", "upgrade", "--release-version", "4.3", sort=True)
    pair.tool("features", "downgrade", "--feature", "metadata.version=20", status=1)
    pair.tool("features", "upgrade", "--feature", "group.version=5", status=1)
    pair.tool("features", "disable", "--feature", "metadata.version", status=1)
    pair.tool("leader-election", "--election-type", "preferred", "--topic", "one", "--partition", "0")
    pair.tool("leader-election", "--election-type", "unclean", "--topic", "one", "--partition", "0")
    pair.tool("leader-election", "--election-type", "preferred", "--topic", "one", "--partition", "9", status=1, check_err=False)
    pair.tool("cluster", "unregister", "--id", "77", check_err=False)
    pair.tool("configs", "--alter", *ALICE, "--add-config", "producer_byte_rate=1024,consumer_byte_rate=2048")
    pair.tool("configs", "--alter", *ALICE, "--add-config", "SCRAM-SHA-256=[iterations=4096,password=x]")
    pair.tool("configs", "--alter", "--entity-type", "users", "--entity-default", "--add-config", "request_percentage=50")
    pair.tool("configs", "--describe", "--entity-type", "users", sort=True)
    pair.tool("configs", "--describe", *ALICE)
    pair.tool("configs", "--alter", *ALICE, "--delete-config", "SCRAM-SHA-512", status=1, check_err=False)
    pair.tool("configs", "--alter", *ALICE, "--delete-config", "SCRAM-SHA-256")
    pair.tool("configs", "--alter", *ALICE, "--delete-config", "producer_byte_rate,consumer_byte_rate")
    pair.tool("configs", "--alter", "--entity-type", "users", "--entity-default", "--delete-config", "request_percentage")
    pair.tool("configs", "--describe", "--entity-type", "users")


def test_what_is_set_outlives_the_controller(own_karst):
    """Quotas and credentials come back from the log, as they were."""
    own_karst.start()
    own_karst.ask("AlterClientQuotas", 1, quota([("user", "a")], ("producer_byte_rate", 100.0)))
    *_, body = next(credentials())
    own_karst.ask("AlterUserScramCredentials", 0, body)
    own_karst.stop()
    own_karst.start()
    answer = own_karst.ask("DescribeClientQuotas", 1, {"Components": [], "Strict": False})
    assert answer["Entries"] == [{"Entity": [{"EntityType": "user", "EntityName": "a"}], "Values": [{"Key": "producer_byte_rate", "Value": 100.0}]}]
    answer = own_karst.ask("DescribeUserScramCredentials", 0, {"Users": None})
    assert [(r["User"], r["CredentialInfos"]) for r in answer["Results"]] == [("al", [{"Mechanism": 1, "Iterations": 4096}])]
