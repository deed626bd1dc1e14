"""Offsets by time, epochs, aborted transactions and damaged records: Karst and a real Kafka answer the same over the same files."""
import os
import struct

import ask
import confluent_kafka
import harness

START = 1_700_000_000_000
RECORDS = 1500
MIB = 1 << 20
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
DAMAGED_AT = 40  # the batch of the topic `damaged` that is overwritten
# At most what both list of special times: latest, earliest, max timestamp, earliest local, latest tiered, earliest pending upload.
SPECIAL = {-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11}


def create(cluster, name, **configs):
    configs = {"segment.bytes": str(MIB), **{k.replace("_", "."): v for k, v in configs.items()}}
    answer = cluster.ask("CreateTopics", 5, {"Topics": [{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1, "Assignments": [],
                                                         "Configs": [{"Name": k, "Value": v} for k, v in configs.items()]}],
                                             "timeoutMs": 60000, "validateOnly": False})
    assert answer["Topics"][0]["ErrorCode"] == 0, answer


def timestamp_of(i):
    """They rise, but every 100th lies far back and every 250th far ahead."""
    return START + i * 1000 + (-700_000 if i % 100 == 99 else 900_000 if i % 250 == 100 else 0)


def produce(cluster, topic, first, count, **options):
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.address, "linger.ms": 20, "batch.num.messages": 17, **options})
    for i in range(first, first + count):
        producer.produce(topic, b"%07d" % i * 270, b"k%d" % (i % 50), 0, timestamp=timestamp_of(i))
        if i % 500 == 0:
            producer.flush()
    assert producer.flush(60) == 0


def transactions(cluster, topic):
    """Some that are committed, some that are aborted, in turns of two producers; at the end one stays open."""
    two = [confluent_kafka.Producer({"bootstrap.servers": cluster.address, "transactional.id": f"{topic}-{i}", "linger.ms": 5,
                                     "transaction.timeout.ms": 800000}) for i in range(2)]
    for p in two:
        p.init_transactions(60)
    for turn in range(25):
        for p in two:
            p.begin_transaction()
        for i in range(12):
            two[i % 2].produce(topic, b"%07d" % i * 300, timestamp=START + turn * 1000 + i)
            two[i % 2].flush()
        for i, p in enumerate(two):
            if (turn + i) % 3 == 0:
                p.commit_transaction(60)
            else:
                p.abort_transaction(60)
    two[0].begin_transaction()
    two[0].produce(topic, b"open", timestamp=START)
    two[0].flush()
    return two


def offsets(cluster, topic, times, isolation, version):
    found = {}
    with ask.Connection("127.0.0.1", cluster.port) as c:
        for t in times:
            answer = c.ask("ListOffsets", version, {"ReplicaId": -1, "IsolationLevel": isolation, "TimeoutMs": 10000, "Topics": [
                {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": -1, "Timestamp": t}]}]})
            p = answer["Topics"][0]["Partitions"][0]
            # The epoch of the end is that of the leader now, which is another one after each start.
            epoch = None if t == -1 else p.get("LeaderEpoch")
            found[t] = (p["ErrorCode"], p["Offset"], p["Timestamp"], epoch)
    return found


def all_offsets(cluster, topic):
    times = [START - 10_000_000, START + 10_000_000]
    for i in range(0, RECORDS, 37):
        times += [timestamp_of(i) + d for d in (-1, 0, 1)]
    found = {}
    for isolation in (0, 1):
        found[isolation] = offsets(cluster, topic, times, isolation, 7)
        for t, version in SPECIAL.items():
            found[isolation, t] = offsets(cluster, topic, [t], isolation, version)
    return found


def epochs(cluster, topic, up_to):
    found = []
    with ask.Connection("127.0.0.1", cluster.port) as c:
        for e in range(up_to + 1):
            answer = c.ask("OffsetForLeaderEpoch", 4, {"ReplicaId": -1, "Topics": [
                {"Topic": topic, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": e}]}]})
            p = answer["Topics"][0]["Partitions"][0]
            found.append((p["ErrorCode"], p["LeaderEpoch"], p["EndOffset"]))
    return found


def latest_epoch(cluster, topic):
    with ask.Connection("127.0.0.1", cluster.port) as c:
        return c.ask("Metadata", 9, {"Topics": [{"Name": topic}], "AllowAutoTopicCreation": False})["Topics"][0]["Partitions"][0]["LeaderEpoch"]


def fetch(cluster, topic, offset, isolation, max_bytes=50_000):
    answer = cluster.ask("Fetch", 11, {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 1, "MaxBytes": 1 << 24, "IsolationLevel": isolation,
                                       "SessionId": 0, "SessionEpoch": -1, "RackId": "", "ForgottenTopicsData": [], "Topics": [
                                           {"Topic": topic, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "FetchOffset": offset,
                                                                            "LogStartOffset": -1, "PartitionMaxBytes": max_bytes}]}]})
    p = answer["Responses"][0]["Partitions"][0]
    aborted = [(a["ProducerId"], a["FirstOffset"]) for a in p["AbortedTransactions"] or []]
    return p["ErrorCode"], p["LastStableOffset"], sorted(aborted), p["Records"]


def batches(path):
    """(position, base offset) of each."""
    with open(path, "rb") as f:
        data = f.read()
    at, found = 0, []
    while at + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        found.append((at, base))
        at += 12 + length
    return found


TOPICS = [f"codec-{c}" for c in CODECS] + ["append-time", "start-moved", "in-transactions", "damaged"]


def write_all(cluster):
    for codec in CODECS:
        create(cluster, f"codec-{codec}")
        produce(cluster, f"codec-{codec}", 0, RECORDS, **{"compression.type": codec})
    create(cluster, "append-time", message_timestamp_type="LogAppendTime")
    produce(cluster, "append-time", 0, RECORDS)
    create(cluster, "start-moved")
    produce(cluster, "start-moved", 0, RECORDS)
    answer = cluster.ask("DeleteRecords", 2, {"TimeoutMs": 30000, "Topics": [{"Name": "start-moved", "Partitions": [
        {"PartitionIndex": 0, "Offset": 777}]}]})
    assert answer["Topics"][0]["Partitions"][0]["ErrorCode"] == 0
    create(cluster, "damaged")
    produce(cluster, "damaged", 0, RECORDS, **{"linger.ms": 0, "batch.num.messages": 1})
    create(cluster, "in-transactions")


def answers(cluster, epochs_up_to):
    seen = {}
    for topic in TOPICS:
        seen[topic, "epochs"] = epochs(cluster, topic, epochs_up_to[topic])
        if topic == "damaged":
            continue
        seen[topic, "offsets"] = all_offsets(cluster, topic)
    end = offsets(cluster, "in-transactions", [-1], 0, 1)[-1][1]
    for offset in range(0, end, 11):
        for isolation in (0, 1):
            seen["fetch", offset, isolation] = fetch(cluster, "in-transactions", offset, isolation)
    seen["damaged"] = [fetch(cluster, "damaged", o, 0, 1000)[0] for o in (DAMAGED_AT - 1, DAMAGED_AT, DAMAGED_AT + 200, 1200)]
    return seen


def differences(theirs, ours):
    """In the offsets by time of a log whose start was moved Kafka does not look behind the first segment that has a later record, though
    all of that lie before the start until the segment is removed; Karst goes on."""
    for key, a in theirs.items():
        b = ours[key]
        if key == ("start-moved", "offsets"):
            for isolation in (0, 1):
                b[isolation] = {t: a[isolation][t] if a[isolation][t] == (0, -1, -1, -1) and found[1] >= 777 else found
                                for t, found in b[isolation].items()}
        if not isinstance(a, dict):
            a, b = {"": {"": a}}, {"": {"": b}}
        for kind in a:
            for t in a[kind]:
                if a[kind][t] != b[kind][t]:
                    yield f"{key} {kind} {t}: Kafka {str(a[kind][t])[:200]}, Karst {str(b[kind][t])[:200]}"


def wait_for_leaders(cluster):
    harness.wait_until(lambda: all(offsets(cluster, t, [-2], 0, 1)[-2][0] == 0 for t in TOPICS), 60, "leaders")


def damage(data):
    path = os.path.join(data, "damaged-0", "0" * 20 + ".log")
    position, base = batches(path)[DAMAGED_AT]
    assert base == DAMAGED_AT
    with open(path, "r+b") as f:
        f.seek(position + 8)
        f.write(bytes(50))  # no size, no magic


def test_the_same_over_the_same_files(own_folder):
    kafka = harness.Kafka(os.path.join(own_folder, "k"))
    os.makedirs(kafka.folder)
    karst = harness.Karst(os.path.join(own_folder, "o"))
    open_ones = None
    try:
        kafka.start()
        write_all(kafka)
        kafka.stop()  # the next start begins another leader epoch
        kafka.start()
        harness.wait_until(lambda: latest_epoch(kafka, "codec-none") >= 0, 60, "a leader")
        for topic in ("codec-none", "codec-zstd"):
            produce(kafka, topic, RECORDS, 300)
        open_ones = transactions(kafka, "in-transactions")
        kafka.stop()
        damage(kafka.data)
        kafka.start()
        wait_for_leaders(kafka)
        # Not of the latest: nothing was written in it, so that the next start takes its entry away.
        up_to = {t: latest_epoch(kafka, t) - 1 for t in TOPICS}
        theirs = answers(kafka, up_to)
        kafka.stop()
        karst.data = kafka.data
        os.makedirs(karst.folder, exist_ok=True)
        karst.start()
        wait_for_leaders(karst)
        ours = answers(karst, up_to)
        assert theirs["damaged"] == [0, 2, 0, 0]
        assert any(aborted for key, value in theirs.items() if key[0] == "fetch" for aborted in [value[2]])
        different = list(differences(theirs, ours))
        assert not different, "\n".join(different[:40])
    finally:
        karst.close()
        kafka.close()
        del open_ones
