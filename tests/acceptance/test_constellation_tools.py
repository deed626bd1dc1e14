"""Kafka's tools and clients against several storage nodes behind two front ends."""
import json
import os
import re
import threading

import confluent_kafka
import confluent_kafka.admin
import pytest

import harness
from harness import alive, wait_until
from test_constellation import consumed, create, leaders, produced
from test_kill import PARTITIONS, Load


@pytest.fixture(scope="module")
def three(folder):
    cluster = harness.Karst(os.path.join(folder, "three"), storage=3, controllers=3, frontends=2)
    cluster.start()
    yield cluster
    cluster.close()


def data_of(cluster, node):
    return cluster.data if node == 1 else f"{cluster.data}.storage/{node}"


def places(cluster, shift=0):
    """Where brokers are, by their ports above that of the first front end."""
    return {b["NodeId"]: b["Port"] - cluster.port for b in
            cluster.ask("Metadata", 9, {"Topics": []}, port=cluster.port + shift)["Brokers"]}


def test_log_dirs_of_each_broker(three):
    create(three, "dirs", 6, replication_factor=1)
    by_node = {node: {p for p, n in leaders(three, "dirs").items() if n == node} for node in (1, 2, 3)}
    answer = three.tool("log-dirs", "--describe", "--topic-list", "dirs")
    assert answer.status == 0, str(answer)
    brokers = json.loads(next(line for line in answer.out.splitlines() if line.startswith("{")))["brokers"]
    assert {b["broker"] for b in brokers} == {1, 2, 3}
    for b in brokers:
        (directory,) = b["logDirs"]
        assert directory["logDir"] == data_of(three, b["broker"]) and directory["error"] is None
        assert {p["partition"] for p in directory["partitions"]} == {f"dirs-{p}" for p in by_node[b["broker"]]}
    one = three.tool("log-dirs", "--describe", "--broker-list", "2")
    assert one.status == 0 and data_of(three, 2) in one.out and data_of(three, 3) not in one.out, str(one)


def test_the_connection_says_which_broker_is_meant(three):
    """At the port of a broker, whichever front end; the bootstrap port stands for none."""
    for shift in (0, 100):
        for node in (1, 2, 3):
            answer = three.ask("DescribeLogDirs", 4, {"Topics": None}, port=three.port + shift + node)
            assert [r["LogDir"] for r in answer["Results"]] == [data_of(three, node)]
    create(three, "move", 3, replication_factor=1)
    partition = next(p for p, node in leaders(three, "move").items() if node == 2)
    move = {"Dirs": [{"Path": data_of(three, 2), "Topics": [{"Name": "move", "Partitions": [partition]}]}]}
    errors = {node: three.ask("AlterReplicaLogDirs", 2, move, port=three.port + node)["Results"][0]["Partitions"][0]["ErrorCode"]
              for node in (2, 3)}
    assert errors == {2: 0, 3: 57}  # 57: node 3 has no such directory


def test_configs_of_each_broker(three):
    def value(node, key="log.retention.ms"):
        out = three.tool("configs", "--entity-type", "brokers", "--entity-name", str(node), "--describe").out
        found = re.search(rf"^\s*{re.escape(key)}=(\S+) ", out, re.M)
        return found and found[1]
    done = three.tool("configs", "--entity-type", "brokers", "--entity-name", "2", "--alter", "--add-config", "log.retention.ms=777000")
    assert done.status == 0, str(done)
    assert value(2) == "777000" and value(1) is None and value(3) is None
    body = {"Resources": [{"ResourceType": 4, "ResourceName": "2",
                           "Configs": [{"Name": "log.retention.ms", "ConfigOperation": 0, "Value": "1"}]}]}
    wrong = three.ask("IncrementalAlterConfigs", 1, body, port=three.port + 3)["Responses"][0]
    assert wrong["ErrorCode"] == 42 and wrong["ErrorMessage"] == "Unexpected broker id, expected 3, but received 2"
    assert three.ask("IncrementalAlterConfigs", 1, body, port=three.port + 102)["Responses"][0]["ErrorCode"] == 0
    assert value(2) == "1"
    for node in (1, 2, 3):
        answer = three.ask("DescribeConfigs", 4, {"Resources": [{"ResourceType": 4, "ResourceName": str(node), "ConfigurationKeys": ["node.id"]}]},
                           port=three.port + node)
        assert answer["Results"][0]["Configs"][0]["Value"] == str(node)


def test_cluster_and_quorum_tools(three):
    def cluster(command):
        return harness.run([harness.KAFKA, "cluster", command, "--bootstrap-server", three.address], timeout=60)
    listed = cluster("list-endpoints")
    assert listed.status == 0, str(listed)
    rows = {int(line.split()[0]): line.split() for line in listed.out.splitlines() if line[:1].isdigit()}
    assert {node: int(row[2]) - three.port for node, row in rows.items()} == places(three)
    identity = cluster("cluster-id")
    assert identity.status == 0 and three.ask("DescribeCluster", 0, {})["ClusterId"] in identity.out, str(identity)
    quorum = three.tool("metadata-quorum", "describe", "--replication")
    assert [line.split()[-1] for line in quorum.out.splitlines()[1:4]].count("Follower") == 2, str(quorum)
    versions = three.tool("broker-api-versions")
    assert versions.status == 0 and len(re.findall(r"^127\.0\.0\.1:\d+ \(id: [123] ", versions.out, re.M)) == 3, str(versions)


def test_producers_of_a_partition(three):
    create(three, "made", 3, replication_factor=1)
    for partition in range(3):
        producer = confluent_kafka.Producer({"bootstrap.servers": three.address, "enable.idempotence": True})
        producer.produce("made", b"x", partition=partition)
        assert producer.flush(30) == 0
    partition = next(p for p, node in leaders(three, "made").items() if node == 2)
    told = three.tool("transactions", "describe-producers", "--topic", "made", "--partition", str(partition))
    assert told.status == 0 and len(told.out.splitlines()) == 2, str(told)


def test_topics_records_and_groups_with_kafkas_tools(three):
    assert three.tool("topics", "--create", "--topic", "plain", "--partitions", "6").status == 0
    lines = "".join(f"{i}\n" for i in range(300))
    assert three.tool("console-producer", "--topic", "plain", "--command-property", "batch.size=16", input=lines).status == 0
    read = three.tool("console-consumer", "--topic", "plain", "--from-beginning", "--group", "g", "--max-messages", "300", timeout=60)
    assert sorted(map(int, read.out.split())) == list(range(300)), str(read)
    described = three.tool("consumer-groups", "--describe", "--group", "g")
    rows = [line.split() for line in described.out.splitlines() if line.startswith("g ")]
    assert sum(int(row[3]) for row in rows) == 300 and all(row[5] == "0" for row in rows), str(described)
    offsets = three.tool("get-offsets", "--topic", "plain")
    assert sum(int(line.rsplit(":", 1)[1]) for line in offsets.out.split()) == 300, str(offsets)
    spec = os.path.join(three.folder, "delete.json")
    with open(spec, "w", encoding="utf-8") as f:
        json.dump({"partitions": [{"topic": "plain", "partition": p, "offset": -1} for p in range(6)], "version": 1}, f)
    deleted = three.tool("delete-records", "--offset-json-file", spec)
    assert deleted.status == 0 and deleted.out.count("low_watermark") == 6, str(deleted)
    assert set(re.findall(r":(\d+)$", three.tool("get-offsets", "--topic", "plain", "--time", "earliest").out, re.M)) == \
        set(re.findall(r":(\d+)$", three.tool("get-offsets", "--topic", "plain").out, re.M))


def test_a_fetch_over_several_nodes_comes_with_the_first_news(three):
    """Of one client, in one request: what one node has is not held back by what others do not have."""
    create(three, "wide", 6, replication_factor=1)
    topic = three.ask("Metadata", 12, {"Topics": [{"Name": "wide"}]})["Topics"][0]["TopicId"]
    answers = []

    def fetch():
        body = {"MaxWaitMs": 20000, "MinBytes": 1, "MaxBytes": 1 << 20, "SessionId": 0, "SessionEpoch": -1,
                "Topics": [{"TopicId": topic, "Partitions": [
                    {"Partition": p, "CurrentLeaderEpoch": -1, "FetchOffset": 0, "LastFetchedEpoch": -1, "LogStartOffset": -1,
                     "PartitionMaxBytes": 1 << 20} for p in range(6)]}]}
        answers.append(three.ask("Fetch", 13, body))
    for news in ((4,), (0, 1, 2)):
        waiting = threading.Thread(target=fetch)
        waiting.start()
        if news == (4,):
            waiting.join(0.5)
            assert waiting.is_alive() and not answers
        for p in news:
            produced(three, "wide", p, [b"news"])
        waiting.join(15)
        assert not waiting.is_alive()
        rows = {p["PartitionIndex"]: p for p in answers[-1]["Responses"][0]["Partitions"]}
        assert set(rows) == set(range(6)) and all(p["ErrorCode"] == 0 and p["HighWatermark"] >= 0 for p in rows.values()), rows
        assert rows[4]["Records"]


def test_front_ends_are_killed_under_load(three):
    """Each by kill -9, again and again: clients go on, brokers stay where they are, and nothing acknowledged is lost."""
    create(three, "load", PARTITIONS, replication_factor=1)
    load, before = Load(three, "load"), places(three)
    load.start()
    wait_until(lambda: sum(map(len, load.acked)) > 200, 20, "the load")
    for victim in (1, 2) * 4:
        pid, acked = three.process("frontend", victim)["pid"], sum(map(len, load.acked))
        three.kill("frontend", victim)
        assert places(three, 100 if victim == 1 else 0) == before
        wait_until(lambda: not alive(pid) and sum(map(len, load.acked)) > acked + 400, 40, "records after the death of a front end")
    load.stopping.set()
    load.join()
    assert not load.errors and load.left == 0
    for partition, acked in enumerate(load.acked):
        values = [int(v) for v in consumed(three, "load", [partition], len(acked))]
        assert [v for _, v in acked] == values[:len(acked)] == list(range(len(acked)))
    assert three.process("frontend", 1)["restarts"] == three.process("frontend", 2)["restarts"] == 4
    assert places(three) == before


def test_two_listeners(own_folder):
    """Each client is told of brokers at the listener that it came by, with ports of their own there, too."""
    port = harness.free_port([n + k for n in (0, 20, 100, 120) for k in range(4)])
    cluster = harness.Karst(own_folder, port=port, storage=3, frontends=2, config={
        "listeners": f"PLAINTEXT://127.0.0.1:{port},OTHER://127.0.0.1:{port + 20}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},OTHER://localhost:{port + 20}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT,CONTROLLER:PLAINTEXT"})
    command = [x for x in cluster.up_command("-d") if x not in ("--listen", cluster.address)]
    outcome = harness.run(command, timeout=60)
    try:
        assert outcome.status == 0, str(outcome)
        wait_until(cluster.is_whole, 40, "all brokers")
        create(cluster, "t", 3, replication_factor=1)
        for shift, host in ((0, "127.0.0.1"), (20, "localhost")):
            for front_end in (0, 100):
                brokers = cluster.ask("Metadata", 9, {"Topics": []}, port=port + front_end + shift)["Brokers"]
                assert {b["Host"] for b in brokers} == {host}
                assert all(b["Port"] - port - shift - b["NodeId"] in (0, 100) for b in brokers)
                assert len({b["Port"] for b in brokers}) == 3
        for address in (f"127.0.0.1:{port}", f"localhost:{port + 120}"):
            for partition in range(3):
                assert harness.run(["kcat", "-b", address, "-t", "t", "-p", str(partition), "-P"], input="x\n").status == 0
                read = harness.run(["kcat", "-b", address, "-t", "t", "-p", str(partition), "-C", "-e", "-q"])
                assert read.status == 0 and "x" in read.out
    finally:
        cluster.close()


def test_one_address(own_folder):
    """All brokers at one address: enough for Java's clients."""
    cluster = harness.Karst(own_folder, port=harness.free_port(), storage=3, config={"karst.one.address": "true"})
    try:
        cluster.start()
        brokers = cluster.ask("Metadata", 9, {"Topics": []})["Brokers"]
        assert sorted(b["NodeId"] for b in brokers) == [1, 2, 3] and {b["Port"] for b in brokers} == {cluster.port}
        assert cluster.tool("topics", "--create", "--topic", "t", "--partitions", "3").status == 0
        assert set(leaders(cluster, "t").values()) == {1, 2, 3}
        lines = "".join(f"{i}\n" for i in range(90))
        assert cluster.tool("console-producer", "--topic", "t", "--command-property", "batch.size=16", input=lines).status == 0
        read = cluster.tool("console-consumer", "--topic", "t", "--from-beginning", "--group", "g", "--max-messages", "90", timeout=60)
        assert sorted(map(int, read.out.split())) == list(range(90)), str(read)
    finally:
        cluster.close()
