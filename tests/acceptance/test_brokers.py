"""Three storage nodes, seen as brokers: they stop, die, come back and are taken out, partitions follow, and Kafka's tools say so. What
becomes of records is in other files."""
import re
import signal

import harness
import pytest

# A node that stands still while a tool runs stays a member.
SESSION = {"broker.session.timeout.ms": "60000", "broker.heartbeat.interval.ms": "500", "karst.session.silence.ms": "60000"}


@pytest.fixture(scope="module")
def brokers(folder):
    cluster = harness.Karst(folder + "/brokers", config=SESSION, storage=3)
    cluster.start()
    yield cluster
    cluster.close()


def describe(cluster, topic):
    """leader, replicas, isr, elr, last known: of partition 0."""
    answer = cluster.ask("DescribeTopicPartitions", 0, {"Topics": [{"Name": topic}], "ResponsePartitionLimit": 10})["Topics"][0]["Partitions"][0]
    return {"leader": answer["LeaderId"], "replicas": answer["ReplicaNodes"], "isr": sorted(answer["IsrNodes"]),
            "elr": answer["EligibleLeaderReplicas"] or [], "known": answer["LastKnownElr"] or []}


def expect(cluster, topic, **what):
    def there():
        now = describe(cluster, topic)
        return all(now[k] == v for k, v in what.items())
    try:
        harness.wait_until(there, 40)
    except AssertionError:
        raise AssertionError(f"{topic}: {describe(cluster, topic)}, not {what}") from None


def create(cluster, topic, replicas, **configs):
    outcome = cluster.tool("topics", "--create", "--topic", topic, "--replica-assignment", replicas,
                           *[x for k, v in configs.items() for x in ("--config", f"{k.replace('_', '.')}={v}")])
    assert outcome.status == 0, str(outcome)


def back(cluster, node):
    harness.wait_until(lambda: node in [b["BrokerId"] for b in cluster.ask("DescribeCluster", 0, {})["Brokers"]], 40, f"broker {node}")


def test_placement(brokers):
    """Leaders are spread over all brokers, and a factor above their number is refused in Kafka's words."""
    assert brokers.tool("topics", "--create", "--topic", "spread", "--partitions", "12", "--replication-factor", "3").status == 0
    text = brokers.tool("topics", "--describe", "--topic", "spread").out
    leaders = re.findall(r"Leader: (\d+)\s+Replicas: (\d+),\d+,\d+\s+Isr: (\d+),(\d+),(\d+)", text)
    assert len(leaders) == 12 and all(x[0] == x[1] and len({*x[2:]}) == 3 for x in leaders), text
    assert sorted(x[0] for x in leaders) == sorted("123" * 4), text
    outcome = brokers.tool("topics", "--create", "--topic", "wide", "--partitions", "1", "--replication-factor", "4")
    assert outcome.status == 1 and ("Unable to replicate the partition 4 time(s): The target replication factor of 4 cannot be reached because only "
                                    "3 broker(s) are registered or some brokers have all their log directories cordoned.") in outcome.out


def test_a_broker_stops(brokers):
    """With SIGTERM its partitions are led by others before it is gone: nothing waits for a session to end."""
    create(brokers, "stops", "2:1:3", min_insync_replicas=2)
    create(brokers, "alone", "2")
    brokers.kill("storage", 2, signal.SIGTERM)
    expect(brokers, "stops", leader=1)
    back(brokers, 2)
    expect(brokers, "alone", leader=2, isr=[2], elr=[], known=[])  # it stopped cleanly: nothing of it was lost
    expect(brokers, "stops", leader=1, isr=[1, 2, 3], elr=[], known=[])


def test_a_broker_dies(brokers):
    create(brokers, "dies", "3:1:2")
    brokers.kill("storage", 3)
    expect(brokers, "dies", leader=1)
    back(brokers, 3)
    outcome = brokers.tool("leader-election", "--election-type", "unclean", "--topic", "dies", "--partition", "0")
    assert outcome.status == 0 and "Valid replica already elected for partitions dies-0" in outcome.out, str(outcome)
    expect(brokers, "dies", leader=1, isr=[1, 2, 3])
    outcome = brokers.tool("leader-election", "--election-type", "preferred", "--topic", "dies", "--partition", "0")
    assert outcome.status == 0 and "Successfully completed leader election (PREFERRED) for partitions dies-0" in outcome.out, str(outcome)
    expect(brokers, "dies", leader=3, isr=[1, 2, 3])


def test_reassignment(brokers):
    create(brokers, "moves", "1:2")
    brokers.kill("storage", 3, signal.SIGSTOP)  # nobody copies there, so that the move stays under way
    plan = brokers.folder + "/plan.json"
    with open(plan, "w", encoding="utf-8") as f:
        f.write('{"version":1,"partitions":[{"topic":"moves","partition":0,"replicas":[2,3]}]}')
    try:
        outcome = brokers.tool("reassign-partitions", "--reassignment-json-file", plan, "--execute", "--throttle", "1000000")
        assert outcome.status == 0 and "Successfully started partition reassignment for moves-0" in outcome.out, str(outcome)
        assert describe(brokers, "moves")["replicas"] == [2, 3, 1]
        listed = brokers.tool("reassign-partitions", "--list").out
        assert re.search(r"moves-0: replicas: 2,3,1\.\s+adding: 3\.\s+removing: 1\.", listed), listed
        answer = brokers.ask("AlterPartitionReassignments", 0, {"TimeoutMs": 9000, "Topics": [
            {"Name": "moves", "Partitions": [{"PartitionIndex": 0, "Replicas": None}]}]})
        assert answer["Responses"][0]["Partitions"][0]["ErrorCode"] == 0, answer
    finally:
        brokers.kill("storage", 3, signal.SIGCONT)
    assert describe(brokers, "moves")["replicas"] == [2, 1]  # what is left, in the order of the move, as in Kafka
    assert "No partition reassignments found." in brokers.tool("reassign-partitions", "--list").out
    back(brokers, 3)
    outcome = brokers.tool("reassign-partitions", "--reassignment-json-file", plan, "--verify")
    assert outcome.status == 0 and "There is no active reassignment of partition moves-0, but replica set is 2,1 rather than 2,3." in outcome.out, str(outcome)
    assert brokers.tool("reassign-partitions", "--reassignment-json-file", plan, "--execute").status == 0
    expect(brokers, "moves", leader=2, replicas=[2, 3], isr=[2, 3])


def test_unregister(brokers):
    """A live one comes back by itself; Kafka's stays away until it is started anew."""
    outcome = brokers.tool("cluster", "unregister", "--id", "3")
    assert "Broker 3 is no longer registered." in outcome.out, str(outcome)
    back(brokers, 3)
    outcome = brokers.tool("cluster", "unregister", "--id", "77")
    assert "Broker ID 77 is not currently registered" in outcome.err + outcome.out


def test_config_of_one_broker(brokers):
    """Each broker's own directories are what its cordoned.log.dirs is checked against."""
    dirs = {n: brokers.tool("log-dirs", "--describe", "--broker-list", str(n)).out for n in (1, 2)}
    path = {n: re.search(r'"logDir":"([^"]+)"', text).group(1) for n, text in dirs.items()}
    assert path[1] != path[2]

    def cordon(node, value):
        return brokers.tool("configs", "--alter", "--entity-type", "brokers", "--entity-name", str(node), "--add-config", f"cordoned.log.dirs={value}")
    assert cordon(2, path[1]).status == 1
    assert cordon(2, path[2]).status == 0
    harness.wait_until(lambda: "only 2 broker(s)" in brokers.tool("topics", "--create", "--topic", "refused", "--partitions", "4", "--replication-factor", "3").out,
                       30, "the broker to be cordoned")
    brokers.tool("configs", "--alter", "--entity-type", "brokers", "--entity-name", "2", "--delete-config", "cordoned.log.dirs")
