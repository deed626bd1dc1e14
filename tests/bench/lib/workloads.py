"""workloads.py - what scripts/bench runs: a table of named workloads, and the few shapes that they have.

A shape is a function (Run) -> figures of one system. Figures have the names of report.FIGURES. Sizes and times are those of Run: full,
quick or smoke. Every topic is the workload's own, and deleted after it.
"""
import dataclasses
import json
import os
import re
import shutil
import subprocess
import threading
import time

import compaction
import failover
import starts
import systems
from systems import harness

LOAD = os.path.join(harness.BIN, "karst-load")
BYTES_MAX = 2_000_000_000  # that one run writes


class Failed(Exception):
    pass


def parse_load(out, what):
    try:
        result = json.loads(out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Failed(f"{what}: no result") from None
    if result["errors"]:
        raise Failed(f"{what}: {result['errors']} errors: {result['error']}")
    return result


@dataclasses.dataclass
class Run:
    """One workload on one running system."""
    system: systems.System
    seconds: float
    bulk: int           # bytes that a prefilled topic has
    many: int           # connections or partitions of the idle workloads
    counting: bool      # system calls are counted, in a run of their own, since that costs time
    topics: list = dataclasses.field(default_factory=list)
    calls: int = 0
    profile: str = ""   # where perf's records of the server go, without their suffix

    def topic(self, partitions, configs=None, **more):
        name = f"bench-{time.monotonic_ns()}"
        self.system.create(name, partitions, configs, **more)
        self.topics.append(name)
        return name

    def command(self, mode, topic, partitions, options):
        words = [LOAD, mode, "--bootstrap", self.system.address, "--topic", topic, "--partitions", str(partitions)]
        for key, value in options.items():
            flag = "--" + key.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
        return words

    def load(self, mode, topic, partitions, **options):
        """karst-load's result; with the count of the server's system calls when they are counted."""
        if mode in ("produce", "wire"):
            options.setdefault("seconds", self.seconds)
            if not options.get("rate"):
                options.setdefault("records", BYTES_MAX // options.get("size", 100))
        words, counts = self.command(mode, topic, partitions, options), None
        if self.counting:
            counts = os.path.join(self.system.folder, "calls")
            words = ["perf", "stat", "-x", ",", "-o", counts, "-e", "raw_syscalls:sys_enter", "-p",
                     ",".join(map(str, self.system.pids())), "--", *words]
        elif self.profile:
            words = ["perf", "record", "-q", "-F", "4999", "--call-graph", "fp", "-o", self.profile + ".perf", "-p",
                     ",".join(map(str, self.system.pids())), "--", *words]
        result = parse_load(harness.run(words, timeout=120 + 6 * options.get("seconds", 60)).out, f"karst-load {mode}")
        if counts:
            found = re.search(r"^(\d+),.*raw_syscalls", systems.read(counts), re.M)
            self.calls += int(found[1]) if found else 0
        return result

    def fill(self, topic, partitions, size, total=None):
        """Batches of at most 100 KB, of which nothing is counted. total: bytes, if not as many as usual."""
        plain = dataclasses.replace(self, counting=False, profile="")
        plain.load("wire", topic, partitions, size=size, records=(total or self.bulk) // size, batch_records=max(1, min(1000, 100_000 // size)),
                   depth=8, connections=2, seconds=0)

    def clean(self):
        for name in self.topics:
            self.system.delete(name)
        self.topics.clear()


class Meter:
    """What the server processes and the machine spend while it is open."""

    def __init__(self, system):
        self.system = system

    def __enter__(self):
        pids = self.system.pids()
        self.cpu, self.switches, self.machine, self.started = (systems.cpu_s(pids), systems.switches(pids), systems.machine_cpu(), time.monotonic())
        return self

    def __exit__(self, *_):
        pids, machine = self.system.pids(), systems.machine_cpu()
        self.seconds = time.monotonic() - self.started
        self.cpu, self.switches = systems.cpu_s(pids) - self.cpu, systems.switches(pids) - self.switches
        self.busy = (machine[0] - self.machine[0]) / max(machine[1] - self.machine[1], 1e-9)


def figures_of(meter, records, size, seconds, latency=None, client_cpu=None, rate=0):
    """What all loads have: rates, cost a record and a GB, latencies in ms. rate: what was wanted; 0: as much as goes."""
    if records == 0 or seconds <= 0:
        raise Failed("no record came through")
    figures = {"records_s": records / seconds, "mb_s": records * size / seconds / 1e6, "cpu_mrec_s": meter.cpu / records * 1e6,
               "cpu_gb_s": meter.cpu / (records * size) * 1e9, "switches_rec": meter.switches / records,
               "memory_mib": systems.pss_mib(meter.system.pids()), "machine_busy": meter.busy}
    if rate:
        figures["wanted_s"] = rate
    if client_cpu is not None:
        figures["client_cpu_mrec_s"] = client_cpu / records * 1e6
    if latency:
        figures.update({"p50_ms": latency["p50_us"] / 1e3, "p99_ms": latency["p99_us"] / 1e3, "p999_ms": latency["p999_us"] / 1e3})
    return figures


def counted(run, records):
    return {"calls_rec": run.calls / records}


# --------------------------------------------------------------------------------------------------------------------- shapes

def produce(mode="produce", partitions=6, configs=None, leader=None, **options):
    """karst-load on a topic of its own; with consumers, latency is that of the way to them. leader: of all partitions, with several nodes."""
    def shape(run):
        topic = run.topic(partitions, configs, **({"leader": leader} if leader else {}))
        with Meter(run.system) as meter:
            result = run.load(mode, topic, partitions, **options)
        if run.counting:
            return counted(run, result["records"])
        size, there = options.get("size", 100), run.system.records(topic, partitions)
        if there < result["records"]:
            raise Failed(f"{result['records']} records were acknowledged, and {there} are there")
        return figures_of(meter, result["records"], size, result["seconds"], result.get("arrived") or result["acked"], result["client_cpu_s"],
                          options.get("rate", 0))
    return shape


def catch_up(size, cold, partitions=6, **options):
    """Reads a full topic from the beginning; from the disk when cold."""
    def shape(run):
        topic = run.topic(partitions)
        run.fill(topic, partitions, size)
        if cold:
            run.system.forget_cache()
        with Meter(run.system) as meter:
            result = run.load("consume", topic, partitions, lag=30, **options)
        if run.counting:
            return counted(run, result["consumed"])
        return figures_of(meter, result["consumed"], size, result["consume_seconds"], None, result["client_cpu_s"])
    return shape


def fetch(size, partitions=6, **options):
    """Reads a full topic from the page cache over plain sockets, again and again; latency is that of a Fetch."""
    def shape(run):
        topic = run.topic(partitions)
        run.fill(topic, partitions, size)
        with Meter(run.system) as meter:
            result = run.load("fetch", topic, partitions, size=size, seconds=run.seconds, **options)
        if run.counting:
            return counted(run, result["consumed"])
        return figures_of(meter, result["consumed"], size, result["consume_seconds"], result["acked"], result["client_cpu_s"])
    return shape


def drain(size, rate, partitions=6):
    """Reads a backlog from the beginning while a producer goes on; latency is the producer's."""
    def shape(run):
        topic = run.topic(partitions)
        run.fill(topic, partitions, size)
        out = {}
        words = run.command("produce", topic, partitions, {"size": size, "rate": rate, "seconds": run.seconds})
        producer = threading.Thread(target=lambda: out.update(text=harness.run(words, timeout=300).out))
        with Meter(run.system) as meter:
            producer.start()
            try:
                # As many as were there: the end that moves on would only be reached when the producer stops.
                result = run.load("consume", topic, partitions, lag=30, records=run.bulk // size)
            finally:
                producer.join()
        produced = parse_load(out["text"], "karst-load produce")
        if run.counting:
            return counted(run, result["consumed"] + produced["records"])
        figures = figures_of(meter, result["consumed"] + produced["records"], size, result["consume_seconds"], produced["acked"],
                             result["client_cpu_s"] + produced["client_cpu_s"])
        figures["records_s"] = result["consumed"] / result["consume_seconds"]
        figures["mb_s"] = figures["records_s"] * size / 1e6
        return figures
    return shape


def kafka_tools(size, partitions=6):
    """producer-perf-test, then consumer-perf-test: what Kafka's own clients get."""
    def shape(run):
        if run.counting:
            return {}
        topic, count = run.topic(partitions), run.bulk // size
        with Meter(run.system) as meter:
            out = harness.ran([harness.KAFKA, "producer-perf-test", "--bootstrap-server", run.system.address, "--topic", topic, "--num-records",
                               str(count), "--record-size", str(size), "--throughput", "-1"], timeout=900)
        found = re.findall(r"([\d.]+) records/sec.*?([\d.]+) ms 50th, [\d.]+ ms 95th, ([\d.]+) ms 99th, ([\d.]+) ms 99.9th", out)[-1]
        rate, p50, p99, p999 = map(float, found)
        figures = figures_of(meter, count, size, count / rate, {"p50_us": p50 * 1e3, "p99_us": p99 * 1e3, "p999_us": p999 * 1e3})
        with Meter(run.system) as meter:
            out = harness.ran([harness.KAFKA, "consumer-perf-test", "--bootstrap-server", run.system.address, "--topic", topic, "--messages",
                               str(count), "--timeout", "60000", "--hide-header"], timeout=900)
        fields = [x.strip() for x in out.strip().splitlines()[-1].split(",")]
        figures["consumed_mb_s"], figures["consumed_cpu_gb_s"] = float(fields[3]), meter.cpu / (count * size) * 1e9
        return figures
    return shape


def idle_connections(run):
    """Memory of connections that said hello."""
    if run.counting:
        return {}
    topic = run.topic(1)
    time.sleep(min(3, run.seconds))
    before = systems.pss_mib(run.system.pids())
    words = run.command("idle", topic, 1, {"connections": run.many, "seconds": 600})
    with Meter(run.system) as meter:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = process.stderr.readline()
    time.sleep(min(3, run.seconds))
    after = systems.pss_mib(run.system.pids())
    process.terminate()
    result = parse_load(process.communicate(timeout=60)[0], "karst-load idle")
    if line.strip() != "ready" or result["records"] != run.many:
        raise Failed(f"{result['records']} of {run.many} connections lived")
    return {"connection_kib": (after - before) * 1024 / run.many, "memory_mib": after, "cpu_connection_us": meter.cpu / run.many * 1e6}


def idle_partitions(run):
    """Memory of empty partitions, and how long making them takes."""
    if run.counting:
        return {}
    run.topic(1)
    time.sleep(min(3, run.seconds))
    before, started, topics = systems.pss_mib(run.system.pids()), time.monotonic(), 10
    with Meter(run.system) as meter:
        for _ in range(topics):
            run.topic(run.many // topics)
    made = time.monotonic() - started
    time.sleep(min(10, 2 * run.seconds))
    with Meter(run.system) as rest:
        time.sleep(min(5, run.seconds))
    after = systems.pss_mib(run.system.pids())
    return {"partition_kib": (after - before) * 1024 / run.many, "memory_mib": after, "create_s": made, "cpu_create_s": meter.cpu,
            "idle_cpu_percent": 100 * rest.cpu / rest.seconds}


def first_record(run):
    """Seconds from exec to the acknowledgement of a record in a topic that makes itself; then memory and CPU at rest."""
    if run.counting:
        return {}
    record = harness.ask.batch([(b"key", b"first light")])
    body = {"Acks": -1, "TimeoutMs": 5000, "TopicData": [{"Name": "first", "PartitionData": [{"Index": 0, "Records": record}]}]}
    figures = {"first_record_s": wait_for_record(run.system, body)}
    time.sleep(min(5, 2 * run.seconds))
    with Meter(run.system) as meter:
        time.sleep(min(5, run.seconds))
    return {**figures, "memory_mib": systems.pss_mib(run.system.pids()), "idle_cpu_percent": 100 * meter.cpu / meter.seconds}


def wait_for_record(system, body):
    while True:
        try:
            with harness.ask.Connection("127.0.0.1", system.port, 10) as c:
                while True:
                    topic = c.ask("Metadata", 9, {"Topics": [{"Name": "first"}], "AllowAutoTopicCreation": True})["Topics"][0]
                    if topic["ErrorCode"] == 0 and topic["Partitions"]:
                        answer = c.ask("Produce", 9, body)["Responses"][0]["PartitionResponses"][0]
                        if answer["ErrorCode"] == 0:
                            return time.monotonic() - system.started
                    time.sleep(0.001)
        except OSError:
            if time.monotonic() - system.started > 60 or not system.alive():
                raise Failed("no acknowledgement within a minute") from None
            time.sleep(0.001)


def three():
    """Three nodes, replication factor 3, acks all."""
    def one(name, what, shape, **more):
        return Workload(f"three-{name}", what, shape, nodes=3, **more)
    yield one("bulk-1000", "three nodes, factor 3: one producer as fast as it can, 1,000 B random, 6 partitions, acks all", produce(size=1000))
    yield one("bulk-100", "the same, 100 B", produce())
    yield one("bulk-100-lz4", "the same, 100 B text, lz4", produce(codec="lz4", compressible=True))
    yield one("wire-1000", "three nodes, factor 3: batches of 100 records of 1,000 B over 4 plain sockets to the node that leads all 6 partitions, 4 in flight each",
              produce("wire", leader=1, connections=4, depth=4, batch_records=100, size=1000))
    yield one("wire-100", "batches of 1,000 records of 100 B, the same way", produce("wire", leader=1, connections=4, depth=4, batch_records=1000))
    yield one("rate-20k", "three nodes, factor 3: 20,000 records/s of 100 B, linger 0, one record a batch", produce(rate=20_000, **ONE))
    yield one("tail-1", "three nodes, factor 3: 50,000 records/s of 100 B, linger 0, a consumer at the tail; latency from due to read",
              produce(rate=50_000, linger_ms=0, consumers=1))
    yield one("inflight-1", "three nodes, factor 3: one connection, one small Produce in flight", produce("wire", leader=1, partitions=1))
    yield one("failover", "three nodes, 10,000 partitions of factor 3: making them, changes until all nodes show them, and one node that stands still; one round",
              failover.failover(), fresh=True, rounds=1)
    yield one("start", "a clean stop of three nodes with 10,000 partitions of factor 3, and the start after it; one round", failover.start(), fresh=True,
              rounds=1)


def warm_up(run):
    """All systems get the same loads; what they do for Kafka is that the JVM compiles the paths that are measured."""
    one_leader = {"leader": 1} if run.system.replicas > 1 else {}  # whom plain sockets can ask
    for mode, options in (("produce", {}), ("produce", {"rate": 10000, "linger_ms": 0, "batch_records": 1, "consumers": 1}),
                          ("wire", {"connections": 8, "depth": 4})):
        run.load(mode, run.topic(6, **one_leader), 6, **options)
    run.load("consume", run.topics[0], 6, lag=30)
    run.load("fetch", run.topics[0], 6, connections=3, seconds=run.seconds / 4)
    run.clean()


# --------------------------------------------------------------------------------------------------------------------- the table

@dataclasses.dataclass
class Workload:
    name: str
    what: str
    shape: object
    fresh: bool = False  # on a system that has just been started, without warm-up
    rounds: int = 1000   # at most: for what takes minutes and hardly varies
    nodes: int = 1       # 3: replication factor 3, on the systems of clusters.py


ONE = {"linger_ms": 0, "batch_records": 1}


def bulk():
    for size in (100, 1000):
        for kind in ("random", "text"):
            for codec in ("none", "lz4", "zstd"):
                yield Workload(f"bulk-{size}-{kind}-{codec}", f"one producer as fast as it can, {size:,} B {kind}, {codec}, 6 partitions, acks all",
                               produce(size=size, codec=codec, **({"compressible": True} if kind == "text" else {})))


def scale():
    """The work grows with the connections and partitions."""
    for k in (1, 2, 4, 8):
        yield Workload(f"scale-{k}", f"{50 * k} connections, {50 * k} partitions, {2500 * k:,} batches/s of 10 records of 100 B",
                       produce("wire", 50 * k, connections=50 * k, depth=4, rate=25_000 * k, batch_records=10))
    for k in (1, 2, 4, 8):
        yield Workload(f"scale-bulk-{k}", f"{k} connections, {6 * k} partitions, batches of 64 records of 1,000 B, 4 in flight each, as fast as possible",
                       produce("wire", 6 * k, connections=k, depth=4, batch_records=64, size=1000))


TABLE = [
    Workload("first-record", "exec to first acknowledged record on an empty folder; then at rest", first_record, fresh=True),
    *bulk(),
    Workload("partitions-1", "as bulk-100-random-none, 1 partition", produce(partitions=1)),
    Workload("partitions-100", "the same, 100 partitions", produce(partitions=100)),
    Workload("acks-1", "the same, acks 1", produce(acks=1)),
    Workload("producers-10", "10 producers as fast as they can, 100 B", produce(producers=10)),
    Workload("producers-200", "200 producers as fast as they can, 100 B", produce(producers=200)),
    Workload("producers-2000", "2,000 producers of plain sockets, 10,000 batches/s of 10 records of 100 B over all",
             produce("wire", connections=2000, rate=100_000, batch_records=10)),
    Workload("rate-1k", "1,000 records/s of 100 B, linger 0, one record a batch", produce(rate=1000, **ONE)),
    Workload("rate-20k", "20,000 records/s of 100 B, linger 0, one record a batch", produce(rate=20_000, **ONE)),
    Workload("rate-100k", "100,000 records/s of 100 B, one record a batch, over 10 plain sockets of at most 64 in flight",
             produce("wire", rate=100_000, connections=10, depth=64)),
    Workload("tail-1", "50,000 records/s of 100 B, linger 0, a consumer at the tail; latency from due to read",
             produce(rate=50_000, linger_ms=0, consumers=1)),
    Workload("tail-4", "the same, 4 consumers that each read all", produce(rate=50_000, linger_ms=0, consumers=4)),
    Workload("catch-up-cache", "a full topic read from the page cache, 1,000 B", catch_up(1000, False)),
    Workload("catch-up-disk", "the same from disk", catch_up(1000, True)),
    Workload("catch-up-cache-100", "a full topic read from the page cache, 100 B", catch_up(100, False)),
    Workload("mixed", "20,000 records/s of 1,000 B text, lz4, from 4 producers to 2 consumers; latency from due to read",
             produce(rate=20_000, size=1000, codec="lz4", compressible=True, producers=4, consumers=2)),
    Workload("keyed", "20 producers, keyed records of 100 B, linger 0, at most 10 a batch, 30,000/s, 100 partitions",
             produce(rate=30_000, producers=20, keys=100_000, partitions=100, linger_ms=0, batch_records=10)),
    Workload("large", "messages of 100 KiB as fast as possible", produce(size=102_400)),
    Workload("large-rate", "300 messages of 100 KiB a second, to a consumer at the tail", produce(size=102_400, rate=300, consumers=1, linger_ms=0)),
    Workload("backlog", "a backlog of 1,000 B read while 10,000 records/s are produced; latency is the producer's", drain(1000, 10_000)),
    Workload("inflight-1", "one connection, one small Produce in flight", produce("wire", partitions=1)),
    Workload("inflight-64", "one connection, 64 small Produce in flight", produce("wire", partitions=1, depth=64)),
    Workload("inflight-64x1", "64 connections with one small Produce in flight each", produce("wire", partitions=6, connections=64)),
    Workload("wire-bulk-1000", "batches of 100 records of 1,000 B over 4 plain sockets, 4 in flight each: the client is not the limit",
             produce("wire", connections=4, depth=4, batch_records=100, size=1000)),
    Workload("wire-bulk-100", "batches of 1,000 records of 100 B, the same way",
             produce("wire", connections=4, depth=4, batch_records=1000, size=100)),
    Workload("wire-64k", "batches of 64 records of 1,000 B, the same way", produce("wire", connections=4, depth=4, batch_records=64, size=1000)),
    Workload("wire-1m", "batches of 1,000 records of 1,000 B, the same way",
             produce("wire", connections=4, depth=2, batch_records=1000, size=1000)),
    Workload("wire-catch-up", "a full topic of 1,000 B read from the page cache over 3 plain sockets, 1 MiB a partition and Fetch, again and again; "
             "latency is that of a Fetch", fetch(1000, connections=3)),
    Workload("wire-catch-up-1", "the same over one socket", fetch(1000, connections=1)),
    Workload("wire-catch-up-100k", "the same over 3 sockets, one batch of 100 kB a partition and Fetch", fetch(1000, connections=3, fetch_bytes=102_000)),
    *scale(),
    *three(),
    Workload("flush-100-1", "100 producers of plain sockets, one small Produce in flight each, flush.messages=1, one partition",
             produce("wire", partitions=1, connections=100, configs={"flush.messages": "1"})),
    Workload("flush-100", "the same, 100 partitions", produce("wire", partitions=100, connections=100, configs={"flush.messages": "1"})),
    Workload("tools-100", "Kafka's producer-perf-test and consumer-perf-test, 100 B", kafka_tools(100)),
    Workload("tools-1000", "Kafka's producer-perf-test and consumer-perf-test, 1,000 B", kafka_tools(1000)),
    Workload("lagging", "10,000 records/s of 1,000 B to a consumer at the tail, alone and beside a reader from the disk; latency from due to read",
             starts.lagging(10_000)),
    Workload("recovery", "kill -9 with 20 GB of 1,000 B in 1,000 partitions, and the start after it; one round", starts.recovery(1000), fresh=True, rounds=1),
    Workload("start-partitions", "a clean stop with 10,000 partitions in 10 topics, and the start after it; one round", starts.start(), fresh=True,
             rounds=1),
    Workload("compaction", "the log cleaner on keyed records of 1,000 B, ten of each key, in segments of 64 MiB; MB/s and CPU of what it is given",
             compaction.compaction(10, 1000)),
    Workload("compaction-100", "the same of 100 B, lz4", compaction.compaction(10, 100, codec="lz4", compressible=True)),
    Workload("idle-connections", "10,000 connections that only said hello; 3 rounds at most", idle_connections, fresh=True, rounds=3),
    Workload("idle-partitions", "10,000 empty partitions in 10 topics; one round", idle_partitions, fresh=True, rounds=1),
]
BY_NAME = {w.name: w for w in TABLE}
# What --smoke runs, and the figures that it must give.
LOADED = ("records_s", "mb_s", "cpu_mrec_s", "memory_mib")
SMOKE = {"first-record": ("first_record_s", "memory_mib"), "bulk-100-random-none": (*LOADED, "p50_ms", "p99_ms", "p999_ms"),
         "inflight-64": (*LOADED, "p50_ms", "p99_ms", "p999_ms"), "tail-1": (*LOADED, "p50_ms", "p99_ms", "p999_ms"),
         "wire-1m": LOADED, "wire-catch-up": LOADED, "backlog": (*LOADED, "p99_ms"), "idle-connections": ("memory_mib",)}


def free_enough(folder):
    return shutil.disk_usage(folder).free > 5 * BYTES_MAX
