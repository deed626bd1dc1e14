"""Kafka's own tools: each command is run against Karst and against a real Kafka, and what it prints is compared."""
import json
import os
import re

import pytest

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
TIMES = [(r"\b\d{13}\b", "<ms>")]


def make(pair, topic, partitions=1, **configs):
    arguments = [x for k, v in configs.items() for x in ("--config", f"{k.replace('_', '.')}={v}")]
    pair.tool("topics", "--create", "--topic", topic, "--partitions", str(partitions), *arguments)


def test_topics_life(pair):
    make(pair, "life", 3, retention_ms=100000, cleanup_policy="compact")
    pair.tool("topics", "--create", "--topic", "life", status=1)
    pair.tool("topics", "--create", "--topic", "life", "--if-not-exists")
    pair.tool("topics", "--list", "--exclude-internal", only="^life")
    pair.tool("topics", "--describe", "--topic", "life")
    pair.tool("topics", "--describe", "--topics-with-overrides", only="life")
    pair.tool("topics", "--alter", "--topic", "life", "--partitions", "5")
    pair.tool("topics", "--alter", "--topic", "life", "--partitions", "2", status=1)
    pair.tool("topics", "--describe", "--topic", "life")
    pair.tool("topics", "--delete", "--topic", "life")
    pair.tool("topics", "--describe", "--topic", "life", status=1)
    pair.tool("topics", "--delete", "--topic", "life", status=1)
    pair.tool("topics", "--delete", "--topic", "life", "--if-exists")


@pytest.mark.parametrize("arguments", [
    ["--topic", "bad name!"],
    ["--topic", ".."],
    ["--topic", "x" * 250],
    ["--topic", "refused", "--replication-factor", "2"],
    ["--topic", "refused", "--partitions", "0"],
    ["--topic", "refused", "--config", "retention.ms=soon"],
    ["--topic", "refused", "--config", "no.such.key=1"],
    ["--topic", "refused", "--config", "segment.bytes=5"],
    ["--topic", "refused", "--replica-assignment", "1,7"],
], ids=lambda a: " ".join(a)[:40])
def test_topics_refused(pair, arguments):
    pair.tool("topics", "--create", *arguments, status=1)


def test_topics_replica_assignment(pair):
    pair.tool("topics", "--create", "--topic", "assigned", "--replica-assignment", "1,1")
    pair.tool("topics", "--describe", "--topic", "assigned")


def test_configs_of_a_topic(pair):
    make(pair, "configured")
    entity = ["--entity-type", "topics", "--entity-name", "configured"]
    pair.tool("configs", "--describe", *entity)
    pair.tool("configs", "--alter", *entity, "--add-config", "retention.ms=5000,cleanup.policy=[compact,delete],max.message.bytes=2000000")
    pair.tool("configs", "--describe", *entity)
    pair.tool("configs", "--describe", *entity, "--all", sort=True)
    pair.tool("configs", "--alter", *entity, "--delete-config", "retention.ms")
    pair.tool("configs", "--describe", *entity)
    pair.tool("configs", "--alter", *entity, "--add-config", "retention.ms=never", status=1)
    pair.tool("configs", "--alter", *entity, "--add-config", "no.such.key=1", status=1)
    pair.tool("configs", "--describe", "--entity-type", "topics", "--entity-name", "missing-topic")


def broker_configs(text):
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*([a-z][\w.]+)=(.*) sensitive=(\w+) synonyms=\{(.*)\}", line)
        if match:
            found[match[1]] = (match[2], match[3], match[4])
    return found


def test_configs_of_the_broker(pair):
    a, b = pair.both(lambda c: c.tool("configs", "--describe", "--entity-type", "brokers", "--entity-name", "1", "--all"))
    ours, theirs = broker_configs(a.out), broker_configs(b.out)
    assert sorted(ours) == sorted(theirs) and len(ours) == 340
    defaults = {k: v for k, v in theirs.items() if "STATIC" not in v[2] and "STATIC" not in ours[k][2]}
    assert len(defaults) > 300
    assert {k: ours[k] for k in defaults} == defaults


def test_console_clients_with_keys_and_headers(pair):
    make(pair, "console", 3)
    lines = "".join(f"h{i}:v{i},second:x|k{i}|value {i}\n" for i in range(60))
    pair.tool("console-producer", "--topic", "console", "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", "--reader-property",
              "key.separator=|", "--reader-property", "headers.delimiter=|", input=lines)
    shown = ["--formatter-property", "print.key=true", "--formatter-property", "print.headers=true", "--formatter-property", "print.offset=true", "--formatter-property",
             "print.partition=true", "--formatter-property", "print.timestamp=true"]
    out = pair.tool("console-consumer", "--topic", "console", "--from-beginning", "--max-messages", "60", "--timeout-ms", "20000", *shown,
                    sort=True)
    assert len(out.splitlines()) == 60
    assert re.search(r"CreateTime:\d{13}\tPartition:\d\tOffset:\d+\th7:v7,second:x\tk7\tvalue 7", out)


def test_every_compression(pair):
    make(pair, "compressed")
    for codec in CODECS:
        lines = "".join(f"{codec} {i} {'x' * (i % 50)}\n" for i in range(200))
        pair.tool("console-producer", "--topic", "compressed", "--compression-codec", codec, input=lines)
    out = pair.tool("console-consumer", "--topic", "compressed", "--from-beginning", "--max-messages", str(200 * len(CODECS)),
                    "--timeout-ms", "20000")
    expected = [f"{codec} {i} {'x' * (i % 50)}" for codec in CODECS for i in range(200)]
    assert [line.rstrip() for line in out.splitlines()] == [line.rstrip() for line in expected]


def test_timestamps_of_append(pair):
    make(pair, "appended", message_timestamp_type="LogAppendTime")
    pair.tool("console-producer", "--topic", "appended", input="one\ntwo\n")
    out = pair.tool("console-consumer", "--topic", "appended", "--from-beginning", "--max-messages", "2", "--timeout-ms", "20000",
                    "--formatter-property", "print.timestamp=true", more=[(r"LogAppendTime:\d{13}", "LogAppendTime:<time>")])
    assert "LogAppendTime:" in out


GROUP = [(r"(console-consumer|consumer-[\w-]+)-<uuid>", "<member>"), (r"/127\.0\.0\.1", "<host>")]


def test_consumer_groups(pair):
    make(pair, "grouped", 2)
    pair.tool("console-producer", "--topic", "grouped", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:",
              input="".join(f"k{i}:v{i}\n" for i in range(40)))
    pair.tool("console-consumer", "--topic", "grouped", "--group", "readers", "--from-beginning", "--max-messages", "40", "--timeout-ms",
              "20000", sort=True)
    pair.tool("consumer-groups", "--list", sort=True, only="readers")
    pair.tool("consumer-groups", "--list", "--state", only="readers")
    pair.tool("consumer-groups", "--describe", "--group", "readers", sort=True, more=GROUP)
    pair.tool("consumer-groups", "--describe", "--group", "readers", "--state", more=GROUP)
    pair.tool("consumer-groups", "--describe", "--group", "readers", "--members", more=GROUP)
    pair.tool("consumer-groups", "--describe", "--group", "no-such-group")
    reset = ["--reset-offsets", "--group", "readers", "--topic", "grouped"]
    pair.tool("consumer-groups", *reset, "--to-earliest", "--dry-run", sort=True)
    pair.tool("consumer-groups", *reset, "--to-earliest", "--execute", sort=True)
    pair.tool("consumer-groups", *reset, "--shift-by", "3", "--execute", sort=True)
    pair.tool("consumer-groups", *reset, "--to-datetime", "2030-01-01T00:00:00.000", "--execute", sort=True)
    pair.tool("consumer-groups", "--reset-offsets", "--group", "readers", "--topic", "grouped:1", "--to-offset", "4", "--execute")
    pair.tool("consumer-groups", "--describe", "--group", "readers", sort=True, more=GROUP)
    pair.tool("consumer-groups", "--delete-offsets", "--group", "readers", "--topic", "grouped", sort=True)
    pair.tool("consumer-groups", "--delete", "--group", "readers")
    pair.tool("consumer-groups", "--delete", "--group", "readers")
    pair.tool("consumer-groups", "--list", only="readers")


def test_get_offsets_and_delete_records(pair):
    make(pair, "cut", 2)
    pair.tool("console-producer", "--topic", "cut", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:",
              input="".join(f"k{i}:v{i}\n" for i in range(100)))
    pair.tool("get-offsets", "--topic", "cut", sort=True)
    pair.tool("get-offsets", "--topic", "cut", "--time", "-2", sort=True)
    pair.tool("get-offsets", "--topic", "cut", "--time", "-3", sort=True, more=[(r"(cut:\d):\d+", r"\1:<offset>")])
    pair.tool("get-offsets", "--topic", "cut", "--time", "1", sort=True)
    pair.tool("get-offsets", "--topic", "no-such-topic", status=1)
    request = {"partitions": [{"topic": "cut", "partition": 0, "offset": 10}, {"topic": "cut", "partition": 1, "offset": -1}], "version": 1}
    for c in (pair.ours, pair.theirs):
        with open(os.path.join(c.folder, "cut.json"), "w", encoding="utf-8") as f:
            json.dump(request, f)
    pair.tool("delete-records", "--offset-json-file", "{folder}/cut.json", sort=True)
    pair.tool("get-offsets", "--topic", "cut", "--time", "-2", sort=True)
    request["partitions"][0]["offset"] = 100000
    for c in (pair.ours, pair.theirs):
        with open(os.path.join(c.folder, "cut.json"), "w", encoding="utf-8") as f:
            json.dump(request, f)
    pair.tool("delete-records", "--offset-json-file", "{folder}/cut.json", sort=True)


def log_dirs(text):
    line = next(line for line in text.splitlines() if line.startswith("{"))
    return json.loads(line)


def test_log_dirs(pair):
    make(pair, "sized", 2)
    pair.tool("console-producer", "--topic", "sized", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:", input="a:b\nc:d\n")
    a, b = pair.both(lambda c: c.tool("log-dirs", "--describe", "--topic-list", "sized"))
    ours, theirs = log_dirs(a.out), log_dirs(b.out)

    def shape(answer, cluster):
        for broker in answer["brokers"]:
            for folder in broker["logDirs"]:
                folder["logDir"] = folder["logDir"].replace(cluster.data, "<data>")
                folder["partitions"] = sorted(({**p, "size": p["size"] > 0} for p in folder["partitions"]), key=lambda p: p["partition"])
        return answer
    assert shape(ours, pair.ours) == shape(theirs, pair.theirs), f"{a}\n{b}"
    pair.tool("log-dirs", "--describe", "--broker-list", "1", "--topic-list", "no-such-topic")


SERVED = ("Produce Fetch ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat LeaveGroup SyncGroup "
          "DescribeGroups ListGroups ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId OffsetForLeaderEpoch "
          "DescribeConfigs DescribeLogDirs CreatePartitions DeleteGroups IncrementalAlterConfigs OffsetDelete DescribeCluster "
          "DescribeProducers DescribeTopicPartitions").split()


def test_broker_api_versions(pair):
    a, b = pair.both(lambda c: c.tool("broker-api-versions"))
    assert a.status == 0, str(a)

    def rows(outcome):
        return dict(re.findall(r"^\s*(\w+)\(\d+\): (.*?),?$", outcome.out, re.M))
    ours, theirs = rows(a), rows(b)
    assert {k: ours.get(k) for k in SERVED} == {k: theirs[k] for k in SERVED}
    extra = {k for k, v in ours.items() if "UNSUPPORTED" not in v} - set(SERVED)
    assert not {k for k in extra if ours[k] != theirs.get(k)}, "advertised with other versions than Kafka's"


NUMBERS = [(r"\d+([.,]\d+)?", "<n>")]


def test_perf_tools(pair):
    make(pair, "perf", 3)
    out = pair.tool("producer-perf-test", "--topic", "perf", "--num-records", "20000", "--record-size", "100", "--throughput", "-1",
                    more=NUMBERS, only="^20000|sent.*99.9th", check_err=False)
    assert "20000 records sent" in out
    out = pair.tool("consumer-perf-test", "--topic", "perf", "--messages", "20000", "--timeout", "20000", more=NUMBERS, check_err=False)
    assert re.search(r", 20000, ", out), out


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_verifiable_tools(pair):
    make(pair, "verified", 1)

    def produce(c):
        return json_lines(c.tool("verifiable-producer", "--topic", "verified", "--max-messages", "500", "--throughput", "-1").out)
    ours, theirs = pair.both(produce)
    names = [[row["name"] for row in rows] for rows in (ours, theirs)]
    assert names[0] == names[1]
    sent = [row for row in ours if row["name"] == "producer_send_success"]
    assert [(row["offset"], row["value"]) for row in sent] == [(i, str(i)) for i in range(500)]
    assert ours[-1]["acked"] == theirs[-1]["acked"] == 500

    def consume(c):
        return json_lines(c.tool("verifiable-consumer", "--topic", "verified", "--group-id", "verifying", "--max-messages", "500",
                                 "--reset-policy", "earliest", "--verbose").out)
    ours, theirs = pair.both(consume)
    for rows in (ours, theirs):
        records = [row for row in rows if row["name"] == "record_data"]
        assert [(row["offset"], row["value"]) for row in records] == [(i, str(i)) for i in range(500)]
    assert {row["name"] for row in ours} == {row["name"] for row in theirs}


def test_topics_are_the_same_in_the_end(pair):
    """The topics that the tests above made, as both systems list them; the Kafka is shared with other tests."""
    made = "appended assigned compressed configured console cut grouped perf sized verified".split()
    out = pair.tool("topics", "--list", sort=True, only=f"^({'|'.join(made)})$")
    assert {"console", "perf"} <= set(out.split())


def test_metadata_quorum(pair):
    """Offsets differ, as Karst writes other records; cluster and directory are each one's own."""
    own = [(r"ClusterId: .*", "ClusterId"), (r"HighWatermark: .*", "HighWatermark"), (r"MaxFollowerLagTimeMs: .*", "Lag"),
           (r'"directoryId": "[^"]*"', "directory"), (r"CONTROLLER://\S+:\d+", "endpoint"), (r"LeaderEpoch: .*", "LeaderEpoch")]
    pair.tool("metadata-quorum", "describe", "--status", more=own)
    rows = [(r"\b[A-Za-z0-9_-]{22}\b", "<directory>"), (r"\b\d{2,6}\b", "<offset>"), (r"[ \t]+", " "), *TIMES]
    pair.tool("metadata-quorum", "describe", "--replication", more=rows)
