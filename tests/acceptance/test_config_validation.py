"""Configuration as CreateTopics and IncrementalAlterConfigs take it: the same requests to Karst and to a real Kafka, with the same error
codes and the same words, and the same description of what is set then.

What Karst refuses on purpose, in words of its own, are keys of things that it does not have yet, with any value but their default. Numbers
in forms that only Java reads (digits of other scripts, hexadecimal doubles, NaN) are no part of this."""
import json
import os

import harness
import pytest

SET, DELETE, APPEND, SUBTRACT = range(4)
TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
LONG_MAX, INT_MAX = str((1 << 63) - 1), str((1 << 31) - 1)

# Numbers of every kind, for every key: what is in range where, Kafka says.
NUMBERS = ("", " ", "x", "1.5", "-1", "-2", "-3", "0", "1", " 7 ", "+5", "1e3", "0x10", INT_MAX, "2147483648", "-2147483649", LONG_MAX, "9223372036854775808",
           "100%", "null", "7,8")
NUMBER_KEYS = (
    "compression.gzip.level", "compression.lz4.level", "compression.zstd.level", "delete.retention.ms", "file.delete.delay.ms", "flush.messages",
    "flush.ms", "index.interval.bytes", "max.compaction.lag.ms", "max.message.bytes", "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms", "min.cleanable.dirty.ratio", "min.compaction.lag.ms", "min.insync.replicas", "retention.bytes", "retention.ms",
    "segment.bytes", "segment.index.bytes", "segment.jitter.ms", "segment.ms")

VALUES = {
    "cleanup.policy": ("", " ", "delete", "compact", "compact,delete", "delete, compact", "delete,delete", "compact,", ",", ",delete", "Delete", "none",
                       "delete,none", "[delete]"),
    "compression.type": ("", "none", "gzip", "GZIP", "uncompressed", "producer", "zstd", "lz4", "snappy", " gzip ", "gzip,lz4"),
    "message.timestamp.type": ("", "CreateTime", "createtime", "LogAppendTime", "NoTimestampType", " LogAppendTime"),
    "preallocate": ("", "true", "TRUE", "false", "yes", "1", " true "),
    "unclean.leader.election.enable": ("", "maybe", "false", "False"),
    "leader.replication.throttled.replicas": ("", "*", "0:1", "0:1,1:2", "0", "a:b", "0:1,", "*,0:1", "0:1:2", " 0:1 "),
    "follower.replication.throttled.replicas": ("*", "0:1", "none", "0:-1"),
    "internal.segment.bytes": ("1", "0", "x"),
    "compression.gzip.level": ("-1", "0", "1", "9", "10"),
    "compression.lz4.level": ("0", "1", "17", "18"),
    "compression.zstd.level": ("-131073", "-131072", "22", "23"),
    "min.cleanable.dirty.ratio": ("0.0", "1.0", "1.00001", "-0.1", ".5", "5e-1", "1.5e-9", "12345678.9"),
    "segment.bytes": ("1048575", "1048576"),
    "segment.index.bytes": ("3", "4"),
    "message.format.version": ("2.8",), "max.message.byte": ("1",), "Retention.ms": ("1",), "": ("1",), "retention.ms ": ("1",),
    "log.retention.ms": ("1",), "message.downconversion.enable": ("true",), "min.insync.replicas": ("2", "1"),
}

# Several keys at once.
TOGETHER = (
    {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "9"}, {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "10"},
    {"max.compaction.lag.ms": "5"}, {"min.compaction.lag.ms": LONG_MAX}, {"retention.ms": "x", "nope": "1"}, {"nope": "1", "retention.ms": "x"},
    {"cleanup.policy": "", "retention.ms": "1"}, {"segment.ms": "1", "segment.jitter.ms": "2"},
    {"max.message.bytes": "2000000", "segment.bytes": "1048576"}, {"segment.bytes": "1", "retention.ms": "-7"}, {"retention.ms": "-7", "segment.bytes": "1"},
    {"retention.ms": "5", "local.retention.ms": "-2"}, {"retention.bytes": "100", "local.retention.bytes": "-2"},
)

# Broker keys: name of the resource, key, operation, value.
BROKER_VALUES = {
    "log.retention.ms": ("1", "-1", "-2", "0", "x", "", "null"), "log.retention.minutes": ("1",), "log.retention.hours": ("1",),
    "log.segment.bytes": ("1048576", "1", "1048575"), "log.roll.ms": ("1", "0", "x"), "log.roll.hours": ("1",),
    "log.cleanup.policy": ("compact", "none", "", "compact,delete", "delete,delete"), "log.index.interval.bytes": ("0", "-1"), "log.index.size.max.bytes": ("3", "4"),
    "log.flush.interval.messages": ("0", "1"), "log.flush.interval.ms": ("1", "-1"), "log.message.timestamp.type": ("LogAppendTime", "x"),
    "log.message.timestamp.before.max.ms": ("-1", "5"), "log.message.timestamp.after.max.ms": ("-1", "3600000"), "log.preallocate": ("true", "x"),
    "log.segment.delete.delay.ms": ("-1", "60000"), "message.max.bytes": ("-1", "1048588", "x"), "compression.type": ("gzip", "none", "GZIP"),
    "compression.gzip.level": ("0", "6"), "compression.lz4.level": ("99",), "compression.zstd.level": ("99",),
    "log.cleaner.threads": ("1", "3", "100"), "log.cleaner.io.max.bytes.per.second": ("x", "1000"), "log.cleaner.dedupe.buffer.size": ("1",),
    "log.cleaner.io.buffer.size": ("-1", "524288"), "log.cleaner.backoff.ms": ("-1", "15000"), "log.cleaner.min.cleanable.ratio": ("2", "0.4"),
    "log.cleaner.delete.retention.ms": ("-1", "7"), "log.cleaner.min.compaction.lag.ms": ("-1", "7"), "log.cleaner.max.compaction.lag.ms": ("0", "7"),
    "log.retention.check.interval.ms": ("1",), "log.dirs": ("/x",), "log.cleaner.enable": ("false",), "node.id": ("9",), "num.partitions": ("3",),
    "process.roles": ("broker",), "log.roll.jitter.ms": ("5", "-1"), "log.roll.jitter.hours": ("1",), "log.flush.scheduler.interval.ms": ("1",), "min.insync.replicas": ("0", "1", "2", "x"),
    "log.retention.bytes": ("1", "-1", "x"), "max.connections": ("x", "-1", "100"), "background.threads": ("1", "0", "1000"), "not.a.key": ("1",), "num.io.threads": ("100",),
    "log.local.retention.ms": ("-3", "-2"), "unclean.leader.election.enable": ("x", "false"), "auto.create.topics.enable": ("false",),
    "leader.replication.throttled.rate": ("-1", "0", "5", "x"), "delete.topic.enable": ("false",), "retention.ms": ("1",), "segment.bytes": ("1",),
}


def rows():
    """(label, function of the cluster that gives what is compared)"""
    for key in NUMBER_KEYS:
        for value in NUMBERS:
            yield create({key: value})
    for key, values in VALUES.items():
        for value in values:
            yield create({key: value})
            yield alter([(key, SET, value)])
    for configs in TOGETHER:
        yield create(configs)
        yield alter([(k, SET, v) for k, v in configs.items()])
    yield create({"retention.ms": None})
    yield create({"retention.ms": None, "nope": None})
    yield create_raw([("retention.ms", "1"), ("retention.ms", "2")])
    yield create_raw([("retention.ms", "x"), ("retention.ms", "2")])
    for changes in alterations():
        yield alter(changes)
    for key, values in BROKER_VALUES.items():
        for value in values:
            for name in ("1", ""):
                yield alter([(key, SET, value)], BROKER, name)
                yield alter([(key, SET, value)], BROKER, name, validate_only=False, undo=True)
    for changes in broker_alterations():
        for name in ("1", "", "2", "x"):
            yield alter(changes, BROKER, name)
    for kind, name in ((TOPIC, ""), (TOPIC, "a/b"), (TOPIC, "missing"), (BROKER, "-1"), (3, "x"), (GROUP, ""), (GROUP, "g"), (METRICS, ""), (METRICS, "m")):
        yield alter([("retention.ms", SET, "1")], kind, name)
        yield alter([], kind, name)


def alterations():
    yield [("retention.ms", SET, None)]
    yield [("retention.ms", DELETE, None)]
    yield [("retention.ms", DELETE, "x")]
    yield [("nope", DELETE, None)]
    yield [("nope", SET, "1")]
    yield [("nope", APPEND, "1")]
    yield [("retention.ms", APPEND, "1")]
    yield [("retention.ms", SUBTRACT, "1")]
    yield [("cleanup.policy", APPEND, "compact")]
    yield [("cleanup.policy", APPEND, "compact,delete")]
    yield [("cleanup.policy", APPEND, "none")]
    yield [("cleanup.policy", APPEND, "")]
    yield [("cleanup.policy", APPEND, None)]
    yield [("cleanup.policy", SUBTRACT, "delete")]
    yield [("cleanup.policy", SUBTRACT, "compact")]
    yield [("cleanup.policy", SUBTRACT, "none")]
    yield [("cleanup.policy", SUBTRACT, None)]
    yield [("leader.replication.throttled.replicas", APPEND, "0:1")]
    yield [("leader.replication.throttled.replicas", APPEND, "x")]
    yield [("retention.ms", SET, "1"), ("retention.ms", SET, "2")]
    yield [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)]
    yield [("retention.ms", SET, "1"), ("segment.ms", SET, "0")]
    yield [("segment.ms", SET, "0"), ("nope", SET, "2")]
    yield [("retention.ms", 4, "1")]
    yield [("retention.ms", -1, "1")]
    yield [("retention.ms", SET, "1" * 40000)]
    yield [("cleanup.policy", SET, "delete," * 9000)]


def broker_alterations():
    yield [("log.retention.ms", SET, None)]
    yield [("log.retention.ms", DELETE, None)]
    yield [("log.retention.ms", APPEND, "1")]
    yield [("log.cleanup.policy", APPEND, "compact")]
    yield [("log.cleanup.policy", SUBTRACT, "delete")]
    yield [("log.cleanup.policy", APPEND, "none")]
    yield [("node.id", DELETE, None)]
    yield [("log.dirs", SET, "x"), ("log.retention.ms", SET, "x")]
    yield [("log.cleaner.min.compaction.lag.ms", SET, "10"), ("log.cleaner.max.compaction.lag.ms", SET, "9")]
    yield [("ssl.keystore.location", SET, "x")]
    yield [("listener.name.plaintext.max.connections", SET, "7")]
    yield [("max.connections", SET, "1"), ("max.connections", SET, "2")]


# ------------------------------------------------------------------------------------------------------------------------------

def create(configs):
    return create_raw(list(configs.items()))


def create_raw(configs):
    def run(cluster):
        answer = cluster.ask("CreateTopics", 7, {"timeoutMs": 9000, "validateOnly": True, "Topics": [
            {"Name": "new", "NumPartitions": 1, "ReplicationFactor": 1, "Configs": [{"Name": k, "Value": v} for k, v in configs]}]})["Topics"][0]
        mine = {k for k, _ in configs}
        return answer["ErrorCode"], answer["ErrorMessage"], sorted((c["Name"], c["Value"], c["ConfigSource"]) for c in answer["Configs"] or []
                                                                   if c["Name"] in mine)
    return f"create {shorten(configs)}", run


def shorten(x):
    return json.dumps(x)[:200]


def alter(changes, kind=TOPIC, name="there", validate_only=True, undo=False):
    def run(cluster):
        def ask(list_, only):
            answer = cluster.ask("IncrementalAlterConfigs", 1, {"ValidateOnly": only, "Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [
                {"Name": k, "ConfigOperation": o, "Value": v} for k, o, v in list_]}]})["Responses"][0]
            return answer["ErrorCode"], answer["ErrorMessage"]
        answer = ask(changes, validate_only)
        if undo and answer[0] == 0:
            ask([(k, DELETE, None) for k, _, _ in changes], False)
        return answer
    return f"{'try' if validate_only else 'alter'} {kind} {name!r} {shorten(changes)}", run


def everything(cluster):
    cluster.ask("CreateTopics", 7, {"timeoutMs": 9000, "Topics": [{"Name": "there", "NumPartitions": 1, "ReplicationFactor": 1}]})
    harness.wait_until(lambda: not cluster.ask("Metadata", 9, {"Topics": [{"Name": "there"}]})["Topics"][0]["ErrorCode"])
    return [(label, attempt(run, cluster)) for label, run in rows()]


def attempt(run, cluster):
    try:
        return run(cluster)
    except ConnectionError:
        return "closed"


@pytest.fixture(scope="module")
def pair(karst, folder):
    """Beside a Kafka of its own: what is set here for all brokers, such as min.insync.replicas, cannot be taken back."""
    kafka = harness.Kafka(os.path.join(folder, "kafka"))
    kafka.start()
    yield harness.Pair(karst, kafka)
    kafka.close()


@pytest.fixture(scope="module")
def both(pair):
    return pair.both(everything)


def test_answers(both):
    ours, theirs = both
    wrong = [f"{label}\n  karst {json.dumps(x)[:900]}\n  kafka {json.dumps(y)[:900]}" for (label, x), (_, y) in zip(ours, theirs) if x != y]
    assert not wrong, f"{len(wrong)} of {len(ours)}\n" + "\n".join(wrong)


def explain(cluster, kind, name, key):
    answer = cluster.ask("DescribeConfigs", 4, {"IncludeSynonyms": True, "Resources": [
        {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": [key]}]})["Results"][0]
    return [(c["Name"], c["Value"], c["ConfigSource"], c["ReadOnly"], c["IsSensitive"], c["ConfigType"], c["Synonyms"]) for c in answer["Configs"]]


# Where a key is set: (kind, name of the resource, key, value), one after the other, and what is asked about it each time.
PLACES = {
    "segment.bytes": [(BROKER, "", "log.segment.bytes", "2000000"), (BROKER, "1", "log.segment.bytes", "3000000"), (TOPIC, "there", "segment.bytes", " 4000000")],
    "retention.ms": [(BROKER, "", "log.retention.ms", "9000"), (TOPIC, "there", "retention.ms", "-1")],
    "segment.ms": [(BROKER, "", "log.roll.ms", "800000"), (BROKER, "1", "log.roll.ms", "900000")],
    "flush.ms": [(BROKER, "1", "log.flush.interval.ms", "5000")],
    "cleanup.policy": [(BROKER, "1", "log.cleanup.policy", "compact, delete"), (TOPIC, "there", "cleanup.policy", "")],
    "compression.type": [(BROKER, "", "compression.type", "lz4"), (TOPIC, "there", "compression.type", "gzip")],
    "min.cleanable.dirty.ratio": [(BROKER, "1", "log.cleaner.min.cleanable.ratio", "5e-1"), (TOPIC, "there", "min.cleanable.dirty.ratio", ".25")],
    "not.a.key": [(BROKER, "1", "not.a.key", "7"), (BROKER, "", "not.a.key", "8")],
    "leader.replication.throttled.rate": [(BROKER, "1", "leader.replication.throttled.rate", "1000")],
}


@pytest.mark.parametrize("key", PLACES)
def test_places(pair, key):
    """Precedence and synonyms: the same is described after each step. Kafka's broker takes a change a moment after it was answered."""
    for cluster in (pair.ours, pair.theirs):
        cluster.ask("CreateTopics", 7, {"timeoutMs": 9000, "Topics": [{"Name": "there", "NumPartitions": 1, "ReplicationFactor": 1}]})

    def show(cluster):
        server = PLACES[key][0][2]
        return [explain(cluster, TOPIC, "there", key), explain(cluster, BROKER, "1", server), explain(cluster, BROKER, "", server)]

    def change(kind, name, its_key, operation, value):
        for cluster in (pair.ours, pair.theirs):
            assert alter([(its_key, operation, value)], kind, name, validate_only=False)[1](cluster) == (0, None)
        harness.wait_until(lambda: show(pair.ours) == show(pair.theirs),
                           what=f"the same of {key}:\n{json.dumps(show(pair.ours))}\n{json.dumps(show(pair.theirs))}\nwhich")
    for kind, name, its_key, value in PLACES[key]:
        change(kind, name, its_key, SET, value)
    for kind, name, its_key, _ in PLACES[key]:
        change(kind, name, its_key, DELETE, None)


@pytest.mark.parametrize("key, value, default", [("local.retention.ms", "5", "-2"), ("local.retention.bytes", "5", "-2"),
                                                 ("remote.log.copy.disable", "true", "false"), ("remote.log.delete.on.disable", "true", "false")])
def test_tiered_storage_is_refused(karst, key, value, default):
    answer = create({key: value})[1](karst)
    assert answer[:2] == (40, f"Invalid value {value} for configuration {key}: Karst has no tiered storage yet: nothing but the default {default} is possible")
    assert create({key: default})[1](karst)[:2] == (0, None)


@pytest.mark.parametrize("name", ["1", ""])
def test_keys_without_effect_are_refused(karst, name):
    answer = alter([("num.io.threads", SET, "9")], BROKER, name)[1](karst)
    assert answer == (40, "Karst does not honour num.io.threads yet: nothing but the value that it has is possible")
    assert alter([("num.io.threads", SET, "8")], BROKER, name)[1](karst) == (0, None)
    assert alter([("num.io.threads", DELETE, None)], BROKER, name)[1](karst) == (0, None)
