"""A changed key reaches the logs that are open, without a restart, from each place where it may be set."""
import glob
import json
import os
import time

import ask
import harness
import pytest
from test_config_validation import BROKER, DELETE, SET, TOPIC

PLACES = [(BROKER, ""), (BROKER, "1"), (TOPIC, "changing")]


def alter(cluster, kind, name, operation, key, value):
    answer = cluster.ask("IncrementalAlterConfigs", 1, {"Resources": [
        {"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": key, "ConfigOperation": operation, "Value": value}]}]})["Responses"][0]
    assert answer["ErrorCode"] == 0, answer


def produce(cluster, value=b"v", at_ms=None):
    made = ask.batch([(b"k", value)], at_ms=at_ms)
    return cluster.ask("Produce", 9, {"Acks": -1, "TimeoutMs": 9000, "TopicData": [
        {"Name": "changing", "PartitionData": [{"Index": 0, "Records": made}]}]})["Responses"][0]["PartitionResponses"][0]


def segments(cluster):
    return sorted(os.path.basename(p) for p in glob.glob(os.path.join(cluster.data, "changing-0", "*.log")))


def last_attributes(cluster):
    """Of the last batch in the log."""
    with open(max(glob.glob(os.path.join(cluster.data, "changing-0", "*.log"))), "rb") as f:
        data = f.read()
    at = 0
    while at + 12 + int.from_bytes(data[at + 8:at + 12], "big") < len(data):
        at += 12 + int.from_bytes(data[at + 8:at + 12], "big")
    return data[at + 22]


def is_rolled(cluster, value):
    before = segments(cluster)
    produce(cluster, value)
    return segments(cluster) != before


# (topic key, broker key, value, what shows that it works now)
KEYS = [
    ("max.message.bytes", "message.max.bytes", "200", lambda c: produce(c, b"v" * 300)["ErrorCode"] == 10),
    ("compression.type", "compression.type", "gzip", lambda c: produce(c)["ErrorCode"] == 0 and last_attributes(c) & 7 == 1),
    ("message.timestamp.type", "log.message.timestamp.type", "LogAppendTime", lambda c: produce(c)["LogAppendTimeMs"] > 0),
    ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", "1000", lambda c: produce(c, at_ms=5)["ErrorCode"] == 32),
    ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", "5000",
     lambda c: produce(c, at_ms=int(time.time() * 1000) + 600000)["ErrorCode"] == 32),
    ("segment.bytes", "log.segment.bytes", "1048576", lambda c: is_rolled(c, b"v" * 700000)),
    ("segment.ms", "log.roll.ms", "1", lambda c: is_rolled(c, b"v")),
    ("retention.bytes", "log.retention.bytes", "1", lambda c: len(segments(c)) == 1),
    ("cleanup.policy", "log.cleanup.policy", "compact", lambda c: produce_keyless(c) == 87),
]


def produce_keyless(cluster):
    made = ask.batch([(None, b"v")])
    return cluster.ask("Produce", 9, {"Acks": -1, "TimeoutMs": 9000, "TopicData": [
        {"Name": "changing", "PartitionData": [{"Index": 0, "Records": made}]}]})["Responses"][0]["PartitionResponses"][0]["ErrorCode"]


@pytest.fixture(scope="module")
def cluster(folder):
    made = harness.Karst(os.path.join(folder, "dynamic"), config={"log.retention.check.interval.ms": "50"})
    made.start()
    made.ask("CreateTopics", 7, {"timeoutMs": 9000, "Topics": [{"Name": "changing", "NumPartitions": 1, "ReplicationFactor": 1}]})
    harness.wait_until(lambda: produce(made)["ErrorCode"] == 0, what="a leader")
    yield made
    made.close()


@pytest.mark.parametrize("key, broker_key, value, works", KEYS, ids=[k[0] for k in KEYS])
def test_reaches_the_log(cluster, key, broker_key, value, works):
    if key == "retention.bytes":
        alter(cluster, TOPIC, "changing", SET, "segment.ms", "1")
    for kind, name in PLACES:
        its_key = key if kind == TOPIC else broker_key
        if key == "retention.bytes":
            harness.wait_until(lambda: is_rolled(cluster, b"v") and len(segments(cluster)) > 1, what="several segments")
        else:
            assert not works(cluster), json.dumps([kind, name])
        alter(cluster, kind, name, SET, its_key, value)
        harness.wait_until(lambda: works(cluster), what=f"{its_key} of {name!r}")  # noqa: B023
        alter(cluster, kind, name, DELETE, its_key, None)
    if key == "retention.bytes":
        alter(cluster, TOPIC, "changing", DELETE, "segment.ms", None)
