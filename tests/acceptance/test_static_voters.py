"""Kafkas with static voters (controller.quorum.voters, kraft.version 0): Karst takes them over and makes the voters dynamic, and a Kafka with
a dynamic quorum goes on."""
import os

import harness
from kafka_cluster import KafkaCluster
from test_swap_three import Whole
from test_voters import recorded


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


def test_a_static_quorum_of_three_becomes_dynamic(own_folder):
    """Each of three controllers of Karst reads its voters in controller.quorum.voters, and tells the leader who it is."""
    config = {"controlled.shutdown.enable": "false"}  # or the last would wait for a majority that has gone
    with KafkaCluster(os.path.join(own_folder, "kafka"), dynamic=False, config=config) as kafka:
        kafka.start()
        harness.ran([harness.KAFKA, "topics", "--bootstrap-server", kafka.address, "--create", "--topic", "before",
                     "--replication-factor", "3"], timeout=90)
        kafka.stop()
        karst = Whole(kafka)
        karst.start()
        try:
            assert topics(karst) == ["before"] and level(karst, "kraft.version") == 0
            roles = sorted(q["role"] for q in karst.whole_status()["quorum"])
            assert roles == ["follower", "follower", "leader"]

            def upgraded():  # a follower may not have told the leader yet
                return karst.tool("features", "upgrade", "--feature", "kraft.version=1").status == 0
            harness.wait_until(upgraded, 60, "the upgrade of kraft.version")
            assert level(karst, "kraft.version") == 1
            assert recorded(karst) == {n: [("CONTROLLER", kafka.controller_port(n))] for n in (1, 2, 3)}
        finally:
            karst.close()
        kafka.dynamic = True
        kafka.start()
        assert level(kafka, "kraft.version") == 1 and topics(kafka) == ["before"]
        assert recorded(kafka) == {n: [("CONTROLLER", kafka.controller_port(n))] for n in (1, 2, 3)}
