"""The voters' record: who the voters are and where a Kafka that takes over finds them; static voters that become dynamic ones."""
import os

import pytest

import harness
from kafka_cluster import KafkaCluster

QUORUM = {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]}


def recorded(cluster):
    """{controller: (name, port) of each endpoint} of the voters' record."""
    told = cluster.ask("DescribeQuorum", 2, QUORUM)
    return {n["NodeId"]: [(e["Name"], e["Port"]) for e in n["Listeners"]] for n in told["Nodes"]}


def level(cluster, feature):
    told = cluster.ask("ApiVersions", 3, {"ClientSoftwareName": "t", "ClientSoftwareVersion": "1"})
    return next((f["MaxVersionLevel"] for f in told["FinalizedFeatures"] if f["Name"] == feature), 0)


def topics(cluster):
    return cluster.tool("topics", "--list", "--exclude-internal").out.split()


def test_a_static_quorum_of_one_becomes_dynamic(own_folder):
    """A Kafka formatted it with controller.quorum.voters; Karst upgrades kraft.version, and a Kafka with a dynamic quorum goes on."""
    with KafkaCluster(os.path.join(own_folder, "kafka"), nodes=1, dynamic=False) as kafka:
        kafka.start()
        harness.ran([harness.KAFKA, "topics", "--bootstrap-server", kafka.address, "--create", "--topic", "before"], timeout=90)
        kafka.stop()
        karst = harness.Karst(own_folder, port=kafka.broker_port(1), config=kafka.settings(1))
        karst.data = kafka.data_of(1)[0]
        karst.start()
        try:
            assert level(karst, "kraft.version") == 0 and topics(karst) == ["before"]
            refused = karst.tool("metadata-quorum", "remove-controller", "--controller-id", "7", "--controller-directory-id", "A" * 22)
            assert refused.status == 1 and "kraft.version" in refused.err, str(refused)
            upgraded = karst.tool("features", "upgrade", "--feature", "kraft.version=1", timeout=60)
            assert upgraded.status == 0 and "kraft.version was upgraded to 1." in upgraded.out, str(upgraded)
            assert level(karst, "kraft.version") == 1
            assert recorded(karst) == {1: [("CONTROLLER", kafka.controller_port(1))]}
            again = karst.tool("features", "downgrade", "--feature", "kraft.version=0", timeout=60)
            assert again.status == 1, str(again)
        finally:
            karst.close()
        kafka.dynamic = True
        kafka.start()
        assert level(kafka, "kraft.version") == 1 and topics(kafka) == ["before"]
        assert recorded(kafka) == {1: [("CONTROLLER", kafka.controller_port(1))]}


def configured(folder, port, controller, **nodes):
    config = {"controller.listener.names": "CONTROLLER", "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
              "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"}
    return harness.Karst(folder, port=port, config=config, **nodes)


@pytest.mark.parametrize("controllers", [1, 3])
def test_another_controller_listener_is_written_down(own_folder, controllers):
    port = harness.free_port([0, *range(60, 63), *range(70, 73)])
    nodes = {"controllers": controllers} if controllers > 1 else {}
    for first in (port + 60, port + 70):
        karst = configured(own_folder, port, first, **nodes)
        karst.start()
        try:
            wanted = {n: [("CONTROLLER", first + n - 1)] for n in range(1, controllers + 1)}
            harness.wait_until(lambda k=karst, w=wanted: recorded(k) == w, 30, f"the endpoints from {first} on")
        finally:
            karst.close()


def test_a_listener_that_nobody_chose_leaves_the_record(own_folder):
    """Another port for clients moves the controller's, and a Kafka that takes over is still found where its voters' record says."""
    karst = harness.Karst(own_folder)
    karst.start()
    before = recorded(karst)
    assert before == {1: [("CONTROLLER", karst.port + 1)]}
    karst.stop()
    karst.port = harness.free_port()
    karst.start()
    try:
        harness.wait_until(lambda: karst.ask("DescribeCluster", 1, {"EndpointType": 2}, port=karst.port + 1)["Brokers"], 20,
                           "the controller's registration")
        assert recorded(karst) == before
    finally:
        karst.close()
