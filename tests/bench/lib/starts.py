"""starts.py - shapes of workloads about a server's start on the data that it has, and about readers that are far behind.

A start is over when every partition answers ListOffsets with as many records as were acknowledged before: `ready_s`. `serving_s` is when the
first record was acknowledged, to a partition that nobody chose for it: of those that are asked, the first that takes it."""
import os
import threading
import time

import systems
from systems import harness

PROBE_S = 0.02
START_LIMIT_S = 1800


def probe(system, topics, partition):
    """Is a record acknowledged by that partition of one of the topics?"""
    record = harness.ask.batch([(b"key", b"probe")])
    body = {"Acks": -1, "TimeoutMs": 1000,
            "TopicData": [{"Name": t, "PartitionData": [{"Index": partition, "Records": record}]} for t in topics]}
    answer = system.ask("Produce", 9, body, timeout_s=5)
    return [p["ErrorCode"] for t in answer["Responses"] for p in t["PartitionResponses"]].count(0)


def first_served(system, topics, partitions):
    """(seconds, records): from the start to the first acknowledgement, and how many probes were acknowledged."""
    i = 0
    while True:
        try:
            written = probe(system, topics, i % partitions)
            if written:
                return time.monotonic() - system.started, written
        except OSError:
            pass
        expect_alive(system)
        i += 1
        time.sleep(PROBE_S)


def expect_alive(system):
    if not system.alive() or time.monotonic() - system.started > START_LIMIT_S:
        raise RuntimeError(f"{system.name} did not start: {system.log()}")


def all_ready(system, topics, partitions, records):
    """Seconds from the start until all partitions are served and have that many records."""
    left = list(topics)
    while left:
        try:
            while left and system.leads(left[-1], partitions):
                left.pop()
        except OSError:
            pass
        expect_alive(system)
        if left:
            time.sleep(PROBE_S)
    ready = time.monotonic() - system.started
    there = sum(system.records(t, partitions) for t in topics)
    if there != records:
        raise RuntimeError(f"{system.name}: {records} records were acknowledged, and {there} are there")
    return ready


def start_again(system, topics, partitions, records):
    """Starts it on what is there; the figures of the start."""
    system.run()
    serving, probes = first_served(system, topics, partitions)
    ready = all_ready(system, topics, partitions, records + probes)
    pids = system.pids()
    return {"serving_s": serving, "ready_s": ready, "start_cpu_s": systems.cpu_s(pids), "start_memory_mib": systems.pss_mib(pids)}


def recovery(partitions, size=1000, times=20):
    """A full topic, kill -9, and the start after it. times: how much more than a prefilled topic of the other workloads it has."""
    def shape(run):
        if run.counting:
            return {}
        count = max(1, partitions * run.many // 10_000)
        topic, records = run.topic(count), times * run.bulk // size
        run.load("wire", topic, count, size=size, records=records, batch_records=100, depth=8, connections=4, seconds=0)
        records = run.system.records(topic, count)
        run.system.kill()
        return start_again(run.system, [topic], count, records)
    return shape


def start(topics=10):
    """Many partitions of one batch each, a clean stop, and the start after it."""
    def shape(run):
        if run.counting:
            return {}
        count = run.many // topics
        names = [run.topic(count) for _ in range(topics)]
        for name in names:
            run.load("wire", name, count, size=100, records=count, batch_records=1, depth=8, connections=2, seconds=0)
        records = sum(run.system.records(name, count) for name in names)
        run.system.end()
        return start_again(run.system, names, count, records)
    return shape


def lagging(rate, size=1000, partitions=6):
    """Latency from due to read at the tail: alone, and beside a reader of another topic that comes from the disk."""
    def shape(run):
        if run.counting:
            return {}
        behind, tail = run.topic(partitions), run.topic(partitions)
        run.fill(behind, partitions, size, 4 * run.bulk)

        def tail_p99():
            result = run.load("produce", tail, partitions, rate=rate, linger_ms=0, consumers=1)
            return result["arrived"]["p99_us"] / 1e3
        alone, stop = tail_p99(), threading.Event()

        os.sync()

        def read_all():
            while not stop.is_set():
                run.system.forget_cache(sync=False)
                run.load("consume", behind, partitions, lag=30)
        reader = threading.Thread(target=read_all)
        reader.start()
        try:
            beside = tail_p99()
        finally:
            stop.set()
            reader.join()
        return {"p99_alone_ms": alone, "p99_ms": beside, "p99_moved_ms": max(beside - alone, 0.001)}
    return shape
