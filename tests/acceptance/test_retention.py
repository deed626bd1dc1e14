"""Rolling and retention beside a real Kafka: the same batches with the same timestamps make the same segments, and the same of them go, by
time, by size and by DeleteRecords, under each cleanup.policy and as keys change."""
import glob
import os
import re
import time

import ask
import harness
import pytest
from test_config_validation import DELETE, SET, TOPIC

NOW = int(time.time() * 1000)
HOUR = 3600000
OFTEN = {"log.retention.check.interval.ms": "100", "log.segment.delete.delay.ms": "0", "log.cleaner.backoff.ms": "100"}
SMALL = {"internal.segment.bytes": "1000"}  # three of the batches below
BY_TIME = {"segment.ms": str(HOUR), "message.timestamp.after.max.ms": str(1 << 60)}


def put(*ats, value=b"v" * 200):
    """A batch of some 280 bytes for each time."""
    return ("put", [ask.batch([(b"k", value)], at_ms=at) for at in ats])


def old(*hours):
    return [NOW - int(h * HOUR) for h in hours]


# name: (configuration, steps). A step puts batches, changes keys, deletes records, or waits until retention has looked; after each the segments
# and the log start are compared.
CASES = {
    "rolls-by-size": (SMALL, [put(*[NOW] * 10)]),
    "rolls-by-record-time": (BY_TIME, [put(*old(9, 8.5, 8, 7.99, 7, 6.5, 5.9, 4)), put(*old(-50)), put(*old(-51.5, -50.6))]),
    "rolls-by-time-back-in-time": (BY_TIME, [put(*old(1, 5, 9, 0.5, 0, -0.1))]),
    "rolls-without-times": (BY_TIME, [put(-1, -1), put(*old(5)), put(*old(3)), put(-1)]),
    "rolls-for-time-and-size": ({**BY_TIME, **SMALL}, [put(*old(9, 9, 9, 9, 7, 7, 7, 7, 1))]),
    "rolls-at-compaction-lag": ({**BY_TIME, "cleanup.policy": "compact", "max.compaction.lag.ms": str(HOUR // 2), "min.cleanable.dirty.ratio": "1"},
                                [put(*old(3, 2.8, 2.4, 2.3))]),
    "segment-ms-shrinks": ({"segment.ms": str(100 * HOUR)}, [put(*old(9, 8, 7)), ("set", {"segment.ms": str(HOUR)}), put(*old(6.9, 5))]),
    "segment-bytes-shrinks": ({"internal.segment.bytes": "100000"}, [put(*[NOW] * 9), ("set", {"internal.segment.bytes": "1000"}), put(*[NOW] * 3)]),
    "by-time": ({**BY_TIME, "retention.ms": str(4 * HOUR)}, [put(*old(9, 7, 5, 3, 1)), "look"]),
    "by-time-a-young-one-first": ({**BY_TIME, "retention.ms": str(4 * HOUR)}, [put(*old(0, 9, 7)), "look"]),
    "by-time-all-of-it": ({**BY_TIME, "retention.ms": str(HOUR)}, [put(*old(9, 7, 5)), "look", put(*old(0)), "look"]),
    "by-time-in-the-future": ({**BY_TIME, "retention.ms": str(HOUR)}, [put(*old(9, -100, 7, 3, 2)), "look"]),
    "by-time-without-times": ({**SMALL, "retention.ms": str(HOUR)}, [put(-1, -1, -1, -1, -1), "look"]),
    "retention-ms-0": ({**SMALL, "retention.ms": "0"}, [put(*old(1, 1, 1, 1, 1)), "look", "look"]),
    "retention-ms-unlimited": ({**BY_TIME, "retention.ms": "-1"}, [put(5, 3, 99999999), "look"]),
    "by-size": ({**SMALL, "retention.ms": "-1", "retention.bytes": "2000"}, [put(*[NOW] * 20), "look", put(*[NOW] * 2), "look"]),
    "by-size-0": ({**SMALL, "retention.ms": "-1", "retention.bytes": "0"}, [put(*[NOW] * 8), "look", "look"]),
    "by-size-exactly": ({**SMALL, "retention.ms": "-1", "retention.bytes": "1000000"}, [put(*[NOW] * 8), ("exactly", 0), "look", ("exactly", 1), "look"]),
    "by-size-and-time": ({**BY_TIME, **SMALL, "retention.ms": str(6 * HOUR), "retention.bytes": "2500"},
                         [put(*old(9, 9, 9, 9, 7, 7, 7, 7, 1, 1, 1, 1, 1, 1, 1, 1)), "look"]),
    "records-deleted": ({**SMALL, "retention.ms": "-1"}, [put(*[NOW] * 10), ("delete", 4), "look", ("delete", 6), "look", ("delete", 10), "look", put(NOW), "look"]),
    "records-deleted-of-all": ({**SMALL, "retention.ms": "-1"}, [put(*[NOW] * 5), ("delete", -1), "look"]),
    "compact": ({**SMALL, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "1", "min.compaction.lag.ms": str(1 << 60), "retention.ms": "1", "retention.bytes": "0"},
                [put(*[NOW] * 7), "look", ("delete", 4), "look"]),
    "compact-and-delete": ({**BY_TIME, "cleanup.policy": "compact,delete", "min.compaction.lag.ms": str(1 << 60), "retention.ms": str(4 * HOUR)},
                           [put(*old(9, 7, 5, 3, 1)), "look"]),
    "no-policy": ({**SMALL, "cleanup.policy": "", "retention.ms": "1", "retention.bytes": "0"}, [put(*old(*[5] * 7)), "look", ("delete", 4), "look"]),
    "policy-changes": ({**SMALL, "cleanup.policy": "compact", "min.compaction.lag.ms": str(1 << 60), "retention.ms": str(HOUR)},
                       [put(*old(*[5] * 7)), "look", ("set", {"cleanup.policy": "delete"}), "look"]),
    "retention-changes": ({**BY_TIME, "retention.ms": "-1"}, [put(*old(9, 7, 5, 3, 1)), "look", ("set", {"retention.ms": str(6 * HOUR)}), "look",
                                                              ("set", {"retention.ms": str(2 * HOUR)}), "look", ("unset", ["retention.ms"]), "look"]),
    "index-full": ({"segment.index.bytes": "40", "index.interval.bytes": "1"}, [put(*[NOW + i for i in range(15)])]),
    "many-offsets-in-a-segment": ({}, [put(NOW, NOW)]),
}


class Runner:
    def __init__(self, cluster, name):
        self.cluster, self.name, self.notes = cluster, name, []
        # What is compacted, too, Kafka deletes from in the turns of its cleaner.
        self.canary = "canary-compacted" if "compact" in CASES[name][0].get("cleanup.policy", "") else "canary"

    def ask(self, api, version, body):
        return self.cluster.ask(api, version, body)

    def produce(self, topic, made):
        row = self.ask("Produce", 9, {"Acks": -1, "TimeoutMs": 9000, "TopicData": [
            {"Name": topic, "PartitionData": [{"Index": 0, "Records": made}]}]})["Responses"][0]["PartitionResponses"][0]
        assert row["ErrorCode"] == 0, row
        return row["BaseOffset"]

    def make(self, topic, configs):
        self.ask("CreateTopics", 7, {"timeoutMs": 9000, "Topics": [{"Name": topic, "NumPartitions": 1, "ReplicationFactor": 1, "Configs": [
            {"Name": k, "Value": v} for k, v in configs.items()]}]})

    def segments(self, topic):
        return sorted(int(os.path.basename(p)[:-4]) for p in glob.glob(os.path.join(self.cluster.data, f"{topic}-0", "*.log")))

    def start(self):
        row = self.ask("ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": self.name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -2}]}]})
        return row["Topics"][0]["Partitions"][0]["Offset"]

    def alter(self, operation, configs):
        answer = self.ask("IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": TOPIC, "ResourceName": self.name, "Configs": [
            {"Name": k, "ConfigOperation": operation, "Value": v} for k, v in configs]}]})["Responses"][0]
        assert answer["ErrorCode"] == 0, answer
        self.settled(operation, configs)

    def settled(self, operation, configs):
        """Kafka's log takes a change a moment after the answer."""
        def is_there():
            shown = self.ask("DescribeConfigs", 4, {"Resources": [{"ResourceType": TOPIC, "ResourceName": self.name}]})["Results"][0]["Configs"]
            sources = {c["Name"]: (c["Value"], c["ConfigSource"]) for c in shown}
            return all(k not in sources or sources[k] == (v, 1) if operation == SET else sources[k][1] != 1 for k, v in configs)
        harness.wait_until(is_there, what="the change")
        self.look()

    def look(self):
        """Two canaries that retention takes: between them it has looked at every log."""
        for _ in range(2):
            offset = self.produce(self.canary, ask.batch([(b"k", b"v")], at_ms=1000))
            harness.wait_until(lambda: self.segments(self.canary)[0] > offset, what="retention")  # noqa: B023

    def step(self, step):
        if step == "look":
            self.look()
        elif step[0] == "put":
            for made in step[1]:
                self.produce(self.name, made)
        elif step[0] == "set":
            self.alter(SET, list(step[1].items()))
        elif step[0] == "unset":
            self.alter(DELETE, [(k, None) for k in step[1]])
        elif step[0] == "exactly":  # so that the first segment may just go, or just not
            paths = sorted(glob.glob(os.path.join(self.cluster.data, f"{self.name}-0", "*.log")))
            sizes = [os.path.getsize(p) for p in paths]
            self.alter(SET, [("retention.bytes", str(sum(sizes[1:]) + 1 - step[1]))])
        elif step[0] == "delete":
            answer = self.ask("DeleteRecords", 2, {"TimeoutMs": 9000, "Topics": [{"Name": self.name, "Partitions": [{"PartitionIndex": 0, "Offset": step[1]}]}]})
            self.notes.append(answer["Topics"][0]["Partitions"][0]["ErrorCode"])

    def run(self):
        configs, steps = CASES[self.name]
        self.make(self.name, configs)
        policy = "delete" if self.canary == "canary" else "compact,delete"
        self.make(self.canary, {"retention.ms": "1", "segment.ms": "1", "cleanup.policy": policy})
        for topic in (self.name, self.canary):
            harness.wait_until(lambda: self.leads(topic), what="a leader")  # noqa: B023
        for step in steps:
            self.step(step)
            if step[0] in ("put", "delete") and "look" in steps:
                continue  # retention may have looked, or not
            self.notes.append((re.sub(r"b'.*", "..", str(step))[:60], self.segments(self.name), self.start()))
        return self.notes

    def leads(self, topic):
        return self.ask("ListOffsets", 7, {"ReplicaId": -1, "Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}]})[
            "Topics"][0]["Partitions"][0]["ErrorCode"] == 0


@pytest.fixture(scope="module")
def both(folder):
    ours = harness.Karst(os.path.join(folder, "karst"), config=OFTEN)
    theirs = harness.Kafka(os.path.join(folder, "kafka"))
    ours.start()
    theirs.start(*[f"{k}={v}" for k, v in OFTEN.items()], "log.initial.task.delay.ms=50")
    yield harness.Pair(ours, theirs)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("name", CASES)
def test_same_segments(both, name):
    ours, theirs = both.both(lambda cluster: Runner(cluster, name).run())
    assert ours == theirs
