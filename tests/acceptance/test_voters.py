"""The voters' record: where a Kafka that takes over finds its quorum."""
import pytest

import harness

QUORUM = {"Topics": [{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}]}


def recorded(cluster):
    """{controller: (name, port) of each endpoint} of the voters' record."""
    told = cluster.ask("DescribeQuorum", 2, QUORUM)
    return {n["NodeId"]: [(e["Name"], e["Port"]) for e in n["Listeners"]] for n in told["Nodes"]}


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
