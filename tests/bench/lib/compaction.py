"""compaction.py - the shape of workloads about the log cleaner: MB/s and CPU a GB of what it reads.

A topic is filled while it is not compacted, and all of it is flushed; then its cleanup.policy says compact. It is over when
cleaner-offset-checkpoint says that all closed segments are clean. Both systems look for work every 50 ms, as their default of 15 s would
be most of the time that is measured."""
import glob
import os
import time

import systems

LIMIT_S = 600
BROKER, TOPIC = 4, 2


def alter(system, kind, name, key, value):
    body = {"Resources": [{"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": key, "ConfigOperation": 0, "Value": value}]}],
            "ValidateOnly": False}
    answer = system.ask("IncrementalAlterConfigs", 1, body)["Responses"][0]
    if answer["ErrorCode"] != 0:
        raise RuntimeError(f"{system.name}: {key}={value}: {answer['ErrorMessage']}")


def flush(folder):
    for path in glob.glob(os.path.join(folder, "*")):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def segments(folder):
    """(base offset, bytes) of each."""
    return sorted((int(os.path.basename(p)[:20]), os.path.getsize(p)) for p in glob.glob(os.path.join(folder, "*.log")))


def clean_to(folder, topic):
    try:
        with open(os.path.join(os.path.dirname(folder), "cleaner-offset-checkpoint"), encoding="utf-8") as f:
            return max((int(line.split()[2]) for line in f if line.startswith(f"{topic} 0 ")), default=-1)
    except OSError:
        return -1


def wait_clean(system, folder, topic, base):
    deadline = time.monotonic() + LIMIT_S
    while clean_to(folder, topic) < base:
        if time.monotonic() > deadline or not system.alive():
            raise RuntimeError(f"{system.name} did not compact {topic}: {system.log()}")
        time.sleep(0.01)


def compaction(keys_of, size, **options):
    """keys_of: how many records have the same key."""
    def shape(run):
        if run.counting:
            return {}
        alter(run.system, BROKER, "", "log.cleaner.backoff.ms", "50")
        topic = run.topic(1, {"min.cleanable.dirty.ratio": "0", "segment.bytes": str(64 << 20)})
        records = run.bulk // size
        run.load("produce", topic, 1, size=size, records=records, keys=max(1, records // keys_of), seconds=0, **options)
        folder = glob.glob(os.path.join(run.system.folder, "**", f"{topic}-0"), recursive=True)[0]
        flush(folder)
        time.sleep(min(5, run.seconds))  # the servers' own flushes of what was rolled end then, too; Karst cleans nothing before
        there = segments(folder)
        base, dirty = there[-1][0], sum(n for _, n in there[:-1])
        cpu, began = systems.cpu_s(run.system.pids()), time.monotonic()
        alter(run.system, TOPIC, topic, "cleanup.policy", "compact")
        wait_clean(run.system, folder, topic, base)
        seconds, cpu = time.monotonic() - began, systems.cpu_s(run.system.pids()) - cpu
        left = sum(n for b, n in segments(folder) if b < base)
        if not 0 < left < dirty:
            raise RuntimeError(f"{run.system.name}: {left} of {dirty} bytes are left")
        return {"mb_s": dirty / seconds / 1e6, "cpu_gb_s": cpu / dirty * 1e9, "left_percent": 100 * left / dirty,
                "memory_mib": systems.pss_mib(run.system.pids())}
    return shape
