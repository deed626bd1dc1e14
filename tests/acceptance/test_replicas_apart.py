"""Three replicas whose logs part, or fall behind: they become the same again, byte for byte, and no faster than they may."""
import os
import signal
import time

import confluent_kafka
import pytest

import harness
from harness import wait_until
from test_replication import NODES, all_in_sync, create, delete_records, folder_of, log_bytes, partitions_of, produce, \
    same_everywhere, three  # noqa: F401: a fixture


def pause(cluster, *nodes):
    for node in nodes:
        cluster.kill("storage", node, signal.SIGSTOP)


def go_on(cluster, *nodes):
    for node in nodes:
        cluster.kill("storage", node, signal.SIGCONT)


def values_of(cluster, topic):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.address, "group.id": "none", "auto.offset.reset": "earliest",
                                         "enable.auto.commit": False})
    high = wait_until(lambda: harness.watermarks(consumer, topic), 20, "a high watermark")[1]
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    rows = []
    wait_until(lambda: rows.extend(consumer.consume(1000, 0.2)) or len(rows) >= high, 60, f"{high} records")
    consumer.close()
    assert [m.offset() for m in rows] == list(range(high))
    return [m.value() for m in rows]


def test_logs_that_parted_become_one_again(three):
    """Unclean elections: each node in turn leads alone and writes what the others do not have. Whoever comes back cuts its log where the
    epochs part, and takes what the present leader has; in the end all replicas are the same byte for byte."""
    create(three, "parted", 1, **{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"})
    assert produce(three, "parted", 0, [b"common"]) == ([0], [])
    for turn in range(3):
        alone = partitions_of(three, "parted")[0]["LeaderId"]
        others = [n for n in NODES if n != alone]
        pause(three, *others)
        wait_until(lambda: partitions_of(three, "parted")[0]["IsrNodes"] == [alone], 60, f"node {alone} alone in sync")
        base = len(values_of(three, "parted"))
        lost = [b"%d of %d" % (i, alone) for i in range(4 + turn)]
        assert produce(three, "parted", 0, lost, acks="1") == (list(range(base, base + len(lost))), [])
        pause(three, alone)
        heir = others[turn % 2]
        go_on(three, heir)
        wait_until(lambda: partitions_of(three, "parted")[0]["LeaderId"] == heir, 60, f"node {heir} leads")
        kept = [b"%d of heir %d" % (i, heir) for i in range(3)]
        offsets, errors = produce(three, "parted", 0, kept, acks="1")
        assert not errors and offsets[0] <= base, (offsets, errors)
        go_on(three, *[n for n in NODES if n != heir])
        wait_until(lambda: all_in_sync(three, "parted"), 60, "all in sync")
        values = values_of(three, "parted")
        assert values[-3:] == kept and values[0] == b"common" and not set(lost) & set(values)
        wait_until(lambda: same_everywhere(three, "parted", 1), 30, "the same bytes in all replicas")
    epochs = [open(f"{folder_of(three, n)}/parted-0/leader-epoch-checkpoint", encoding="utf-8").read() for n in NODES]
    assert epochs[0] == epochs[1] == epochs[2], epochs


def configure(cluster, kind, name, **values):
    configs = [{"Name": k, "ConfigOperation": 1 if v is None else 0, "Value": v} for k, v in values.items()]
    answer = cluster.ask("IncrementalAlterConfigs", 1, {"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": configs}],
                                                        "ValidateOnly": False})
    assert [r["ErrorCode"] for r in answer["Responses"]] == [0], answer


@pytest.mark.parametrize("side", ["leader", "follower"])
def test_a_throttled_replica_catches_up_no_faster(three, side):
    """Ten seconds' worth go at once; the rest comes at the rate, until the throttle is taken away."""
    rate, size, count = 100_000, 20_000, 200  # four MB, of which one goes at once
    topic = f"slow-{side}"
    create(three, topic, 1, **{"min.insync.replicas": "1"})
    leader = partitions_of(three, topic)[0]["LeaderId"]
    away = next(n for n in NODES if n != leader)
    pause(three, away)
    wait_until(lambda: away not in partitions_of(three, topic)[0]["IsrNodes"], 60, "a smaller ISR")
    producer = confluent_kafka.Producer({"bootstrap.servers": three.address, "compression.type": "none"})
    for _ in range(count):
        producer.produce(topic, os.urandom(size), partition=0)
        producer.flush(30)
    configure(three, 4, "", **{f"{side}.replication.throttled.rate": str(rate)})
    configure(three, 2, topic, **{f"{side}.replication.throttled.replicas": f"0:{leader if side == 'leader' else away}"})
    began = time.monotonic()
    go_on(three, away)
    there = lambda: sum(map(len, log_bytes(three, away, topic, 0).values()))
    wait_until(lambda: there() >= 5 * rate, 60, "the first records")
    while time.monotonic() - began < 6:
        # What an answer brings beyond the rate is one of them, of a megabyte.
        assert there() <= rate * (10 + time.monotonic() - began) + (2 << 20), "faster than its rate"
        time.sleep(0.1)
    assert away not in partitions_of(three, topic)[0]["IsrNodes"]
    configure(three, 4, "", **{f"{side}.replication.throttled.rate": None})
    wait_until(lambda: all_in_sync(three, topic), 60, "all in sync")
    assert same_everywhere(three, topic, 1)


def test_a_follower_that_was_away_for_longer_than_the_records_are_kept(three):
    """Its log ends before the leader's begins: it begins anew there."""
    create(three, "behind", 1, **{"segment.bytes": "1048576", "min.insync.replicas": "1"})
    leader = partitions_of(three, "behind")[0]["LeaderId"]
    away = next(n for n in NODES if n != leader)
    assert produce(three, "behind", 0, [b"old" * 100] * 5) == (list(range(5)), [])
    pause(three, away)
    wait_until(lambda: away not in partitions_of(three, "behind")[0]["IsrNodes"], 60, "a smaller ISR")
    assert produce(three, "behind", 0, [b"%d" % i for i in range(5, 25)]) == (list(range(5, 25)), [])
    assert delete_records(three, "behind", 20, 20000) == (0, 20)
    go_on(three, away)
    wait_until(lambda: all_in_sync(three, "behind"), 60, "all in sync")
    pause(three, *[n for n in NODES if n != away])
    try:
        wait_until(lambda: partitions_of(three, "behind")[0]["LeaderId"] == away, 60, "the one that was away leads")
        consumer = confluent_kafka.Consumer({"bootstrap.servers": three.address, "group.id": "none"})
        wait_until(lambda: harness.watermarks(consumer, "behind") == (20, 25), 30, "its bounds")
        consumer.close()
    finally:
        go_on(three, *[n for n in NODES if n != away])
