"""kcat and Python's confluent-kafka, both on librdkafka: what goes in comes out, by content."""
import collections
import json
import threading
import time

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

import harness

PARTITIONS = 6


def create(cluster, topic, partitions=1):
    admin = AdminClient({"bootstrap.servers": cluster.address})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(20)
    # As in Kafka a leader is named a moment before it serves, where a topic has many partitions.
    harness.wait_until(lambda: leads(cluster, topic, partitions), 20, f"the leaders of {topic}")


def leads(cluster, topic, partitions):
    asked = [{"PartitionIndex": i, "Timestamp": -1} for i in range(partitions)]
    answer = cluster.ask("ListOffsets", 2, {"ReplicaId": -1, "IsolationLevel": 0, "Topics": [{"Name": topic, "Partitions": asked}]})
    return all(p["ErrorCode"] == 0 for p in answer["Topics"][0]["Partitions"])


def produce(cluster, topic, partition_of, values, **settings):
    """Sends (partition, value) and waits; the offsets by partition, in order of sending."""
    acked, errors = collections.defaultdict(list), []

    def on_delivery(error, message):
        if error:
            errors.append(str(error))
        else:
            acked[message.partition()].append(message.offset())
    producer = confluent_kafka.Producer({"bootstrap.servers": cluster.address, "linger.ms": 5, "queue.buffering.max.messages": 500000,
                                         "enable.idempotence": True, **settings})
    for i, value in enumerate(values):
        while True:
            try:
                producer.produce(topic, value, partition=partition_of(i), on_delivery=on_delivery)
                break
            except BufferError:
                producer.poll(0.05)
        if i % 1000 == 0:
            producer.poll(0)
    assert producer.flush(120) == 0, "not all was acknowledged in time"
    assert not errors, errors[:5]
    return acked


class Reader(threading.Thread):
    """A consumer of a group: notes (partition, offset, value) until it is told to leave."""

    def __init__(self, cluster, group, topic, **settings):
        super().__init__(daemon=True)
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": cluster.address, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "session.timeout.ms": 10000, "heartbeat.interval.ms": 500, **settings})
        self.topic, self.seen, self.leaving, self.errors, self.assigned = topic, [], threading.Event(), [], 0

    def on_revoke(self, consumer, _partitions):
        self.commit()

    def commit(self):
        try:
            self.consumer.commit(asynchronous=False)
        except confluent_kafka.KafkaException as error:
            if error.args[0].code() != confluent_kafka.KafkaError._NO_OFFSET:
                self.errors.append(str(error))

    def run(self):
        def on_assign(_consumer, partitions):
            self.assigned += len(partitions)
        self.consumer.subscribe([self.topic], on_assign=on_assign, on_revoke=self.on_revoke)
        while not self.leaving.is_set():
            for message in self.consumer.consume(5000, 0.2):
                if message.error():
                    self.errors.append(str(message.error()))
                else:
                    self.seen.append((message.partition(), message.offset(), message.value()))
        self.consumer.close()  # revokes, and so commits


def test_a_million_records_with_consumers_joining_and_leaving(karst):
    """Each record once, in order, by content; two consumers share the work, come and go."""
    count = 1_000_000
    create(karst, "million", PARTITIONS)
    expected = [[] for _ in range(PARTITIONS)]

    def values():
        for i in range(count):
            value = b"%d:%d" % (i, i * 2654435761 % 1000003)
            expected[i % PARTITIONS].append(value)
            yield value
    sender = threading.Thread(target=produce, args=(karst, "million", lambda i: i % PARTITIONS, values()), daemon=True)
    first, second, third = (Reader(karst, "millions", "million") for _ in range(3))
    sender.start()
    first.start()
    harness.wait_until(lambda: len(first.seen) > 50_000, 60, "the first consumer's records")
    second.start()
    harness.wait_until(lambda: len(second.seen) > 50_000, 60, "the second consumer's records")
    first.leaving.set()
    first.join(60)
    third.start()
    readers = [first, second, third]
    harness.wait_until(lambda: sum(len(r.seen) for r in readers) >= count or not all(r.is_alive() for r in (second, third)), 180,
                       "all records")
    sender.join(60)
    time.sleep(0.5)  # a record that comes twice would come now
    for reader in (second, third):
        reader.leaving.set()
        reader.join(60)
    assert not sum((r.errors for r in readers), [])
    seen = [[] for _ in range(PARTITIONS)]
    for reader in readers:
        positions = {}
        for partition, offset, value in reader.seen:
            assert offset > positions.get(partition, -1), "a consumer went backwards"
            positions[partition] = offset
            seen[partition].append((offset, value))
    for partition in range(PARTITIONS):
        rows = sorted(seen[partition])
        assert [offset for offset, _ in rows] == list(range(len(expected[partition]))), f"partition {partition}: lost or doubled"
        assert [value for _, value in rows] == expected[partition]
    assert all(r.seen for r in readers), "each consumer had its share"


def test_cooperative_and_static_members(karst):
    create(karst, "members", PARTITIONS)
    produce(karst, "members", lambda i: i % PARTITIONS, (b"%d" % i for i in range(6000)))
    for settings in ({"partition.assignment.strategy": "cooperative-sticky"},
                     {"partition.assignment.strategy": "range"},
                     {"partition.assignment.strategy": "roundrobin"}):
        strategy = settings["partition.assignment.strategy"]
        readers = [Reader(karst, f"group-{strategy}", "members", **settings, **{"group.instance.id": f"member-{i}"}) for i in range(2)]
        for reader in readers:
            reader.start()
        harness.wait_until(lambda: sum(len(r.seen) for r in readers) >= 6000, 40, f"all records with {strategy}")
        for reader in readers:
            reader.leaving.set()
        for reader in readers:
            reader.join(30)
        assert not sum((r.errors for r in readers), [])
        assert sorted(v for r in readers for _, _, v in r.seen) == sorted(b"%d" % i for i in range(6000))


def test_every_codec_headers_and_timestamps(karst):
    create(karst, "codecs")
    now = int(time.time() * 1000)
    sent = []
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        producer = confluent_kafka.Producer({"bootstrap.servers": karst.address, "compression.type": codec, "enable.idempotence": True,
                                             "linger.ms": 20})
        for i in range(500):
            record = (b"key %d" % i, (codec.encode() + b" %d " % i) * 20, now + i, [("codec", codec.encode()), ("null", None)])
            producer.produce("codecs", record[1], record[0], timestamp=record[2], headers=record[3])
            sent.append(record)
        assert producer.flush(30) == 0
    reader = Reader(karst, "codecs-readers", "codecs")
    reader.consumer.assign([confluent_kafka.TopicPartition("codecs", 0, 0)])
    got = []
    harness.wait_until(lambda: got.extend(reader.consumer.consume(1000, 0.2)) or len(got) >= len(sent), 30, "all records")
    assert [(m.key(), m.value(), m.timestamp(), m.headers()) for m in got] == \
        [(k, v, (confluent_kafka.TIMESTAMP_CREATE_TIME, t), h) for k, v, t, h in sent]
    reader.consumer.close()


def test_kcat(karst):
    """A new user's first commands; the topic makes itself."""
    harness.ran(["kcat", "-b", karst.address, "-t", "greetings", "-P", "-K", ":"], input="a:1\nb:2\nc:3\n")
    out = harness.ran(["kcat", "-b", karst.address, "-t", "greetings", "-C", "-e", "-q", "-o", "beginning", "-f", "%p %o %k %s\n"])
    assert out.splitlines() == ["0 0 a 1", "0 1 b 2", "0 2 c 3"]
    metadata = json.loads(harness.ran(["kcat", "-b", karst.address, "-L", "-J", "-t", "greetings"]))
    assert metadata["brokers"] == [{"id": 1, "name": karst.address}]
    assert [p["leader"] for t in metadata["topics"] for p in t["partitions"]] == [1]
    assert harness.ran(["kcat", "-b", karst.address, "-Q", "-t", "greetings:0:-1"]).strip().endswith("offset 3")
    out = harness.run(["kcat", "-b", karst.address, "-G", "kcat-group", "-e", "-q", "-X", "auto.offset.reset=earliest", "greetings"])
    assert out.out.splitlines() == ["1", "2", "3"], str(out)


def test_a_long_poll_wakes_with_the_record(karst):
    """A parked fetch is answered when the record comes, not at its end."""
    create(karst, "parked")
    consumer = confluent_kafka.Consumer({"bootstrap.servers": karst.address, "group.id": "parked", "fetch.wait.max.ms": 40000})
    consumer.assign([confluent_kafka.TopicPartition("parked", 0, 0)])
    assert consumer.poll(1.0) is None
    started = time.monotonic()
    produce(karst, "parked", lambda i: 0, [b"now"])
    message = consumer.poll(60)
    assert message is not None and message.value() == b"now"
    assert time.monotonic() - started < 20
    consumer.close()
