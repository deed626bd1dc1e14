"""Batches that the broker compresses anew: other partitions are served meanwhile, the order stays, and nothing is lost when it stops."""
import os
import struct

import ask
import harness
import packing
import pytest
from test_validation import batch, log_of, many, records

SLOW = {"compression.type": "zstd", "compression.zstd.level": "15"}
VALUE = b"".join(b"%d word " % (i * i) for i in range(200))


@pytest.fixture
def cluster(own_folder):
    made = harness.Karst(os.path.join(own_folder, "k"))
    made.start()
    made.ask("CreateTopics", 7, {"timeoutMs": 9000, "Topics": [
        {"Name": name, "NumPartitions": 2, "ReplicationFactor": 1, "Configs": [{"Name": k, "Value": v} for k, v in configs.items()]}
        for name, configs in (("slow", SLOW), ("quick", {}))]})
    for name in ("slow", "quick"):
        harness.wait_until(lambda: produce(made, name, batch())["ErrorCode"] == 0, what="a leader")  # noqa: B023
    yield made
    made.close()


def body(topic, made, partition=0):
    return {"Acks": -1, "TimeoutMs": 30000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": partition, "Records": made}]}]}


def produce(cluster, topic, made):
    return cluster.ask("Produce", 9, body(topic, made))["Responses"][0]["PartitionResponses"][0]


def answers(connection, codec, count):
    for _ in range(count):
        data = connection.receive(struct.unpack(">i", connection.receive(4))[0])
        yield codec[0].read(data[5:])[0]["Responses"][0]["PartitionResponses"][0]


def large(sequence, codec=packing.NONE):
    return batch(records(*many(200, VALUE)), codec, count=200, producer=77, epoch=0, sequence=sequence)


def test_others_are_served_meanwhile(cluster):
    with ask.Connection("127.0.0.1", cluster.port) as slow, ask.Connection("127.0.0.1", cluster.port) as quick:
        for i in range(6):
            codec = slow.send("Produce", 9, body("slow", large(200 * i)))
        for _ in range(20):
            assert quick.ask("Produce", 9, body("quick", batch()))["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 0
        # Twenty answers came while the six are still being compressed: their last one is not there yet.
        assert len(log_of(cluster, "slow")) < 7
        assert [a["ErrorCode"] for a in answers(slow, codec, 6)] == [0] * 6
    assert [made[22] & 7 for made in log_of(cluster, "slow")[1:]] == [packing.ZSTD] * 6


def test_the_order_stays(cluster):
    """Some need the slow pool, some do not: the producer's sequences arrive as they were sent."""
    with ask.Connection("127.0.0.1", cluster.port) as c:
        sequence = 0
        for i in range(30):
            count, made = (200, large(sequence, i // 2 % 5)) if i % 2 else \
                (2, batch(codec=i // 2 % 5, producer=77, epoch=0, sequence=sequence))
            codec = c.send("Produce", 9, body("slow", made))
            sequence += count
        got = list(answers(c, codec, 30))
    assert [a["ErrorCode"] for a in got] == [0] * 30
    assert [a["BaseOffset"] for a in got] == sorted(a["BaseOffset"] for a in got)
    assert [struct.unpack(">i", made[53:57])[0] for made in log_of(cluster, "slow")[1:]] == [i // 2 * 202 + i % 2 * 2 for i in range(30)]


@pytest.mark.parametrize("end", ["stop", "delete"])
def test_ends_while_it_compresses(cluster, end):
    with ask.Connection("127.0.0.1", cluster.port) as c:
        for i in range(6):
            codec = c.send("Produce", 9, body("slow", large(200 * i)))
        if end == "delete":
            cluster.ask("DeleteTopics", 6, {"TimeoutMs": 9000, "Topics": [{"Name": "slow"}]})
            codes = [a["ErrorCode"] for a in answers(c, codec, 6)]
            assert set(codes) <= {0, 3, 6} and codes == sorted(codes), codes
            assert produce(cluster, "quick", batch())["ErrorCode"] == 0
            return
        first = next(answers(c, codec, 1))
        assert first["ErrorCode"] == 0
    cluster.stop()
    assert len(log_of(cluster, "slow")) >= 2
    cluster.start()
    harness.wait_until(lambda: produce(cluster, "slow", batch())["ErrorCode"] == 0, what="a leader")
