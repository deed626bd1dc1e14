"""The controller listener (KIP-919): what takes --bootstrap-controller, beside a real Kafka, of one and of three controllers."""
import contextlib
import os
import re
import signal

import pytest

import harness
from kafka_cluster import KafkaCluster

NUMBERS = [(r"\b\d+\b", "<n>")]
# What Kafka has there and Karst serves nowhere: SASL, ACLs, tokens, and what Kafka's own processes ask of a controller.
NOT_SERVED = {1, 17, 29, 30, 31, 33, 36, 38, 39, 40, 41, 52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82}


def at_controller(cluster, api, version, body=None, node=1):
    return cluster.ask(api, version, body, port=cluster.controller_port(node))


def both(pair, api, version, body=None):
    ours, theirs = pair.both(lambda c: at_controller(c, api, version, body))
    return ours, theirs


@pytest.mark.parametrize("tool, arguments, options", [
    ("metadata-quorum", ["describe", "--status"], {"more": NUMBERS}),
    ("metadata-quorum", ["describe", "--replication"], {"more": NUMBERS}),
    ("features", ["describe"], {"more": [(r"Epoch: \d+", "Epoch")]}),
    ("features", ["upgrade", "--feature", "kraft.version=7"], {"status": 1}),
    ("features", ["upgrade", "--feature", "transaction.version=2"], {}),
    ("configs", ["--describe", "--entity-type", "brokers"], {}),
    ("configs", ["--describe", "--entity-type", "brokers", "--entity-default"], {}),
    ("configs", ["--alter", "--entity-type", "brokers", "--entity-name", "5", "--add-config", "log.cleaner.threads=2"], {}),
    ("configs", ["--describe", "--entity-type", "topics"], {}),
    ("reassign-partitions", ["--list"], {}),
], ids=lambda x: " ".join(x) if isinstance(x, list) else None)
def test_tools(pair, tool, arguments, options):
    pair.tool(tool, *arguments, controllers=True, **options)


def test_the_cluster_tool(pair):
    """Its subcommands come before the address."""
    for words in (["cluster-id"], ["list-endpoints"], ["unregister", "--id", "9"]):
        a, b = pair.both(lambda c: harness.run([harness.KAFKA, "cluster", *words, "--bootstrap-controller", c.controller_address]))
        assert a.status == b.status
        assert harness.normal(a.out, pair.ours) == harness.normal(b.out, pair.theirs), f"{a}\n{b}"
        assert harness.shape_err(a.err, pair.ours, ()) == harness.shape_err(b.err, pair.theirs, ())


def test_a_configuration_of_the_node(pair):
    entity = ["--entity-type", "brokers", "--entity-name", "1"]
    pair.tool("configs", "--alter", *entity, "--add-config", "log.cleaner.threads=2", controllers=True)
    pair.tool("configs", "--describe", *entity, controllers=True)
    pair.tool("configs", "--alter", *entity, "--delete-config", "log.cleaner.threads", controllers=True)
    pair.tool("configs", "--describe", *entity, controllers=True)


def test_the_wrong_listener(pair):
    """A tool that takes one kind of listener for the other is told so, and does not hang."""
    for words in (["--bootstrap-controller", "{clients}"], ["--bootstrap-server", "{controllers}"]):
        def ask(cluster):
            at = [w.format(clients=cluster.address, controllers=cluster.controller_address) for w in words]
            return harness.run([harness.KAFKA, "metadata-quorum", *at, "describe", "--status"])
        a, b = pair.both(ask)
        assert a.status == b.status == 1

        def last_line(outcome):
            return [line for line in outcome.err.splitlines() if line.startswith("Caused by: ")][-1]
        assert last_line(a) == last_line(b)


def test_what_is_served(pair):
    ours, theirs = both(pair, "ApiVersions", 4, {"ClientSoftwareName": "a", "ClientSoftwareVersion": "1"})

    def ranges(answer):
        return {k["ApiKey"]: (k["MinVersion"], k["MaxVersion"]) for k in answer["ApiKeys"]}
    a, b = ranges(ours), ranges(theirs)
    assert set(b) - set(a) == NOT_SERVED and set(a) - set(b) == set()
    assert {k: v for k, v in a.items() if b[k] != v} == {}
    assert sorted(f["Name"] for f in ours["FinalizedFeatures"]) == sorted(f["Name"] for f in theirs["FinalizedFeatures"])


def test_what_is_not_served_ends_the_connection(pair):
    for api, version, body in (("Metadata", 12, {"Topics": None}), ("FindCoordinator", 4, {"CoordinatorKeys": ["g"]})):
        for cluster in (pair.ours, pair.theirs):
            with pytest.raises(ConnectionError):
                at_controller(cluster, api, version, body)


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_describe_cluster(pair, kind, version):
    body = {"EndpointType": kind} if version > 0 else {}
    ours, theirs = both(pair, "DescribeCluster", version, body)
    for answer, cluster in ((ours, pair.ours), (theirs, pair.theirs)):
        for row in answer["Brokers"]:
            assert row["Port"] == cluster.controller_port(1)
            row["Port"] = 0
        answer["ClusterId"] = len(answer["ClusterId"])
    assert ours == theirs
    asked = pair.both(lambda c: c.ask("DescribeCluster", version, body))
    assert asked[0]["ErrorCode"] == asked[1]["ErrorCode"] and asked[0]["ErrorMessage"] == asked[1]["ErrorMessage"]


def test_requests(pair):
    """Topics are made and changed there, too."""
    topic = {"Name": "made-there", "NumPartitions": 1, "ReplicationFactor": 1}
    resources = [{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": ["retention.ms", "log.cleaner.threads"]}
                 for kind, name in ((2, "made-there"), (4, "1"), (4, "2"), (4, ""), (4, "x"), (2, "none"))]
    for api, version, body, keep in (
            ("CreateTopics", 7, {"Topics": [topic], "timeoutMs": 20000}, ["Topics", "ErrorCode", "ErrorMessage", "NumPartitions"]),
            ("CreatePartitions", 3, {"Topics": [{"Name": "made-there", "Count": 2}], "TimeoutMs": 20000}, None),
            ("ElectLeaders", 2, {"ElectionType": 0, "TopicPartitions": None, "TimeoutMs": 20000}, ["ErrorCode"]),
            ("ListPartitionReassignments", 0, {"Topics": None}, None),
            ("IncrementalAlterConfigs", 1, {"Resources": [
                {"ResourceType": 4, "ResourceName": "7", "Configs": [{"Name": "log.cleaner.threads", "ConfigOperation": 0, "Value": "1"}]}]},
             None),
            ("DescribeConfigs", 4, {"Resources": resources},
             ["Results", "ErrorCode", "ErrorMessage", "ResourceName", "Configs", "Name", "Value", "ConfigSource"]),
            ("DeleteTopics", 6, {"Topics": [{"Name": "made-there"}], "TimeoutMs": 20000}, ["Responses", "Name", "ErrorCode"])):
        ours, theirs = (only(a, keep) for a in both(pair, api, version, body))
        assert ours == theirs, api


def only(value, keep):
    if isinstance(value, dict):
        return {k: only(v, keep) for k, v in value.items() if keep is None or k in keep}
    return [only(v, keep) for v in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------------------- several

@pytest.fixture
def three(own_folder):
    cluster = harness.Karst(own_folder, controllers=3, storage=3, frontends=2)
    yield cluster.start()
    cluster.close()


def endpoints(cluster):
    out = harness.ran([harness.KAFKA, "cluster", "list-endpoints", "--bootstrap-controller", cluster.controller_address])
    return [line.split()[:3] for line in out.splitlines()[1:]]


def test_three_controllers_beside_a_kafka_of_three(three, own_folder):
    with KafkaCluster(os.path.join(own_folder, "kafka")) as kafka:
        kafka.start()
        for cluster in (three, kafka):
            harness.wait_until(lambda c=cluster: len(endpoints(c)) == 3, 30, "three registered controllers")
            assert endpoints(cluster) == [[str(n), "127.0.0.1", str(cluster.controller_port(n))] for n in (1, 2, 3)]
        pair = harness.Pair(three, kafka)
        for arguments in (["describe", "--status"], ["describe", "--replication"]):
            a, b = pair.both(lambda c, w=arguments: c.tool("metadata-quorum", *w, controllers=True))
            assert a.status == b.status == 0

            def shape(text):  # who leads, and how far each is, differs
                return sorted(re.sub(r"Leader\b|Follower\b", "<role>", line)
                              for line in harness.normal(text, three, [(r"\b[\w-]{22}\b", "<id>"), *NUMBERS]).splitlines())
            assert shape(a.out) == shape(b.out), f"{a}\n{b}"
        described = [pair.both(lambda c, n=node: at_controller(c, "DescribeConfigs", 4, {"Resources": [
            {"ResourceType": 4, "ResourceName": "2", "ConfigurationKeys": ["node.id"]}]}, node=n)) for node in (1, 2, 3)]
        assert [[a["Results"][0]["ErrorMessage"] for a in x] for x in described] == \
            [[text, text] for text in ("Unexpected broker id, expected 1 or empty string, but received 2", "",
                                       "Unexpected broker id, expected 3 or empty string, but received 2")]


def test_voters_come_and_go_by_the_controller_listener(three):
    directory = voters(three)[3]
    removed = three.tool("metadata-quorum", "remove-controller", "--controller-id", "3", "--controller-directory-id", directory,
                         controllers=True)
    assert removed.status == 0, str(removed)
    assert sorted(voters(three)) == [1, 2]
    # The tool reads the node's own file for what it adds, as Kafka's does.
    node = os.path.join(three.run_dir(), "controller-3.properties")
    added = harness.run([harness.KAFKA, "metadata-quorum", "--command-config", node, "--bootstrap-controller", three.controller_address,
                         "add-controller"])
    assert added.status == 0, str(added)
    harness.wait_until(lambda: sorted(voters(three)) == [1, 2, 3], 30, "three voters")


def voters(cluster):
    told = at_controller(cluster, "DescribeQuorum", 2, harness.QUORUM)
    return {v["ReplicaId"]: v["ReplicaDirectoryId"] for v in told["Topics"][0]["Partitions"][0]["CurrentVoters"]}


def test_a_controller_listener_outlives_front_ends_and_controllers(three):
    """Both front ends have the ports; while one stands still the other answers. Who leads is found by any controller's port."""
    for victim in (1, 2):
        three.kill("frontend", victim, signal.SIGSTOP)
        try:
            for node in (1, 2, 3):
                assert at_controller(three, "DescribeCluster", 1, {"EndpointType": 2})["ErrorCode"] == 0, node
        finally:
            three.kill("frontend", victim, signal.SIGCONT)
    leader = at_controller(three, "DescribeCluster", 1, {"EndpointType": 2})["ControllerId"]
    three.kill("controller", leader)

    def another_leads():
        with contextlib.suppress(OSError):
            return at_controller(three, "DescribeCluster", 1, {"EndpointType": 2}, node=leader)["ControllerId"] != leader
    harness.wait_until(another_leads, 40, "another leader")
    assert len(endpoints(three)) == 3
