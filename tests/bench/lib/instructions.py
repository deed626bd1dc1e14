#!/usr/bin/env python3
"""Instructions that the front end and the storage node spend on a request: counted, compared with what was counted before.

  scripts/bench --instructions              fails when a count has grown by more than 10 % since tests/bench/instructions.tsv was written
  scripts/bench --instructions --update     writes that file
  scripts/bench --instructions --repeat 5   counts five times and says how far the counts lie apart

The real programs run under valgrind's callgrind, on real sockets and files; a client of ours sends requests in lock step: one, or one packet
of 64, and the next when all are answered and all processes asleep. So each request takes the same turns in each run, and the number does not depend on how
busy the machine is: all run on one core, so that no process looks at shared memory while another writes to it. What is
left of chance are heartbeats and a turn more or less, some 3 %; so the least of several counts is kept, and what seems to have grown is
counted again before it is called a failure. Only instructions in user space are counted, those of all threads of a process. Counting begins after connecting and
some requests to warm up. The simulator would be steadier still, but has its own bus, sockets and files in the place of those that cost most.

glibc copies large blocks with one instruction that callgrind counts once a byte; a tunable makes it take its loop of vectors.
"""
import argparse
import collections
import concurrent.futures
import glob
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import systems  # noqa: E402
from systems import ROOT, harness  # noqa: E402

KEPT = os.path.join(ROOT, "tests", "bench", "instructions.tsv")
FIRST = os.path.join(ROOT, "tests", "bench", "instructions-zeromq.tsv")
PAGE = os.path.join(ROOT, "docs", "performance.md")
ROLES = ("frontend", "storage")
LIMIT = 0.10         # a count may grow by this part
TRIES = 3
NOTED = 0.01         # functions that have at least this part of a count are kept beside it
WAIT_S = 60
PAUSE_S = 0.004      # until a Fetch that found nothing stands at storage, and until all have gone to sleep; a turn takes less than 1 ms


class Counted(systems.Karst):
    """A constellation of which two programs run under callgrind."""

    def __init__(self):
        super().__init__()
        self.bin = os.path.join(self.folder, "bin")
        os.mkdir(self.bin)
        for path in glob.glob(os.path.join(harness.BIN, "karst*")):
            name = os.path.basename(path)
            if name == "karst":  # looks for the others beside itself
                shutil.copy(path, self.bin)
            elif name.removeprefix("karst-") in ROLES:
                self.wrap(name, path)
            else:
                os.symlink(os.path.abspath(path), os.path.join(self.bin, name))

    def wrap(self, name, path):
        with open(os.path.join(self.bin, name), "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\nexec valgrind -q --tool=callgrind --vgdb-prefix={self.folder}/vgdb "
                    f"--callgrind-out-file={self.folder}/{name}.out {os.path.abspath(path)} \"$@\"\n")
        os.chmod(os.path.join(self.bin, name), 0o755)

    def command(self):
        return [os.path.join(self.bin, "karst"), *super().command()[1:]]

    def environment(self):
        return {**os.environ, "GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_non_temporal_threshold=1000000000"}

    def tell(self, what):
        """zero or dump, to both processes at once; each writes the dump to a file of its own."""
        def one(role):
            pid = next(p for p in self.pids() if f"--callgrind-out-file={self.folder}/karst-{role}.out" in systems.read(f"/proc/{p}/cmdline"))
            harness.ran(["vgdb", f"--vgdb-prefix={self.folder}/vgdb", "--wait=10", f"--pid={pid}", what], timeout=WAIT_S)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(one, ROLES))

    def counts(self):
        """{role: {function: instructions of its own}} since `zero`."""
        for path in glob.glob(f"{self.folder}/*.out.*"):
            os.remove(path)
        self.tell("dump")
        return {role: functions(max(glob.glob(f"{self.folder}/karst-{role}.out.*"))) for role in ROLES}


def functions(path):
    """What a callgrind file says of each function itself, without what it called. Those without a name go under their library's."""
    found, names, current, skip, library, total = collections.Counter(), {}, None, False, "?", None
    with open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            kind, _, rest = line.rstrip("\n").partition("=")
            if kind in ("fn", "cfn", "ob", "cob"):
                number, _, name = rest.partition(" ")
                name = names.setdefault((kind[-2:], number), name)  # written out only the first time
                if kind == "fn":
                    current = f"({library})" if name.startswith("0x") else re.sub(r"'\d+$", "", name)
                elif kind == "ob":
                    library = os.path.basename(name)
            elif kind == "calls":
                skip = True  # the next line is what the callee spent
            elif line[:1] in "0123456789+-*":
                if not skip:
                    found[current] += int(line.split()[1])
                skip = False
            elif line.startswith("totals:"):
                total = int(line.split()[1])
    if total != sum(found.values()):
        raise RuntimeError(f"{path}: {sum(found.values())} instructions, and {total} at its end")
    return found


# ---------------------------------------------------------------------------------------------------------------------- client

def frame(system, api, version, body):
    """The bytes of a request, length first. The correlation id is the same in all: they are answered in order."""
    with harness.ask.Connection("127.0.0.1", system.port, WAIT_S) as c:
        sent = bytearray()
        c.socket.close()
        c.socket = type("Collector", (), {"sendall": lambda _, data: sent.extend(data), "close": lambda _: None})()
        c.send(api, version, body)
        return bytes(sent)


def produce_frame(system, topic, batch):
    return frame(system, "Produce", 9, {"Acks": -1, "TimeoutMs": 30000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": 0, "Records": batch}]}]})


def fetch_frame(system, topic, offset, wait_ms, size):
    return frame(system, "Fetch", 11, {"ReplicaId": -1, "MaxWaitMs": wait_ms, "MinBytes": 1, "MaxBytes": size, "IsolationLevel": 0, "SessionId": 0,
                                       "SessionEpoch": -1, "Topics": [{"Topic": topic, "Partitions": [
                                           {"Partition": 0, "CurrentLeaderEpoch": -1, "FetchOffset": offset, "PartitionMaxBytes": size}]}]})


class Client(harness.ask.Connection):
    def produced(self, count):
        """Answers to Produce 9 for one partition: its error code is 35 bytes before the end when nothing went wrong."""
        for _ in range(count):
            answer = self.receive(int.from_bytes(self.receive(4), "big"))
            if answer[-35:-33] != b"\0\0" or answer[-9:] != b"\x01\0\0\0\0\0\0\0\0":
                raise RuntimeError(f"Produce was refused: {answer.hex()}")

    def fetched(self, at_least):
        size = int.from_bytes(self.receive(4), "big")
        if size < at_least:
            raise RuntimeError(f"an answer of {size} bytes instead of {at_least} or more: {self.receive(size).hex()}")
        self.skip(size)

    def skip(self, size):
        while size > 0:
            got = len(self.socket.recv(min(size, 1 << 20)))
            if got == 0:
                raise RuntimeError("the server closed the connection")
            size -= got


SMALL, LARGE = bytes(range(100)), 64 << 10


def produce(flight, size):
    """(prepare, one step, requests in it): `flight` requests in one piece, and their answers."""
    def prepare(system):
        topic = f"produce-{flight}-{size}"
        system.create(topic, 1)
        request = produce_frame(system, topic, batch_of(size)) * flight
        client = Client("127.0.0.1", system.port, WAIT_S)

        def step(_):
            client.socket.sendall(request)
            client.produced(flight)
        return step
    return prepare, flight


def batch_of(size):
    """One record of 100 B, or as many of 1,000 B as make a batch of this size."""
    ask = harness.ask
    return ask.batch([(None, SMALL)]) if size == 100 else ask.batch([(None, SMALL * 10)] * (size // 1010))


def fetch_small():
    """A Fetch that finds one record."""
    def prepare(system):
        system.create("fetch-small", 1)
        client = Client("127.0.0.1", system.port, WAIT_S)
        client.socket.sendall(produce_frame(system, "fetch-small", batch_of(100)))
        client.produced(1)
        request = fetch_frame(system, "fetch-small", 0, 0, 1 << 20)

        def step(_):
            client.socket.sendall(request)
            client.fetched(150)
        return step
    return prepare, 1


def fetch_tail():
    """A Fetch that waits at the tail, and the Produce that wakes it: both together."""
    def prepare(system):
        system.create("fetch-tail", 1)
        producer, consumer = Client("127.0.0.1", system.port, WAIT_S), Client("127.0.0.1", system.port, WAIT_S)
        record = produce_frame(system, "fetch-tail", batch_of(100))
        position = fetch_frame(system, "fetch-tail", 0x1122334455, 30000, 1 << 20)
        at = position.index(bytes.fromhex("0000001122334455"))

        def step(offset):
            consumer.socket.sendall(position[:at] + offset.to_bytes(8, "big") + position[at + 8:])
            time.sleep(PAUSE_S)
            producer.socket.sendall(record)
            producer.produced(1)
            consumer.fetched(150)
        return step
    return prepare, 1


def fetch_large(megabytes=32):
    """1 MiB a Fetch, in sequence."""
    def prepare(system):
        system.create("fetch-large", 1)
        client = Client("127.0.0.1", system.port, WAIT_S)
        batch = batch_of(LARGE)
        request, count = produce_frame(system, "fetch-large", batch), LARGE // 1010
        for _ in range(megabytes * 16):
            client.socket.sendall(request)
            client.produced(1)
        position = fetch_frame(system, "fetch-large", 0x1122334455, 0, 1 << 20)
        at = position.index(bytes.fromhex("0000001122334455"))
        batches = (1 << 20) // len(batch)

        def step(i):
            offset = i % (megabytes - 1) * batches * count
            client.socket.sendall(position[:at] + offset.to_bytes(8, "big") + position[at + 8:])
            client.fetched(batches * len(batch))
        return step
    return prepare, 1


# name: (what, (prepare, requests a step), steps to warm up, steps that count)
WORKLOADS = {
    "produce-1": ("Produce, one record of 100 B, one in flight", produce(1, 100), 50, 400),
    "produce-64": ("Produce, one record of 100 B, 64 in flight", produce(64, 100), 5, 40),
    "produce-64k": ("Produce, a batch of 64 KiB, one in flight", produce(1, LARGE), 20, 200),
    "fetch-small": ("Fetch that finds one record of 100 B", fetch_small(), 50, 400),
    "fetch-tail": ("Fetch that waits at the tail, with the Produce of one record that wakes it", fetch_tail(), 50, 400),
    "fetch-1m": ("Fetch of 1 MiB in sequence", fetch_large(), 10, 200),
}


def count(chosen):
    """{(workload, role): {function: instructions a request}}"""
    found, system = {}, Counted()
    try:
        system.start().wait()
        for name in chosen:
            _, (prepare, requests), warm, steps = WORKLOADS[name]
            step = prepare(system)
            for i in range(warm):
                step(i)
            system.tell("zero")
            for i in range(warm, warm + steps):
                time.sleep(PAUSE_S)  # or the loops would at times find the next request where they look before they sleep
                step(i)
            for role, counted in system.counts().items():
                found[name, role] = {f: n / (steps * requests) for f, n in counted.items()}
    finally:
        system.stop()
    return found


# -------------------------------------------------------------------------------------------------------------------- comparing

def table(found):
    """Rows of instructions.tsv: (workload, process, function or "all", instructions a request)."""
    rows = []
    for (name, role), counted in sorted(found.items(), key=lambda e: (list(WORKLOADS).index(e[0][0]), e[0][1])):
        total = sum(counted.values())
        rows.append((name, role, "all", total))
        rows += [(name, role, f, n) for f, n in sorted(counted.items(), key=lambda e: -e[1]) if n >= NOTED * total]
    return rows


def write(rows):
    with open(KEPT, "w", encoding="utf-8") as f:
        f.write("# workload, process, function (all: all of them), instructions a request. Written by scripts/bench --instructions --update\n")
        f.writelines(f"{a}\t{b}\t{c}\t{n:.0f}\n" for a, b, c, n in rows)


def publish(found):
    """The table in docs/performance.md."""
    first = kept(FIRST)
    lines = ["| request | front end, over ZeroMQ | now | storage, over ZeroMQ | now | both, now to then |", "|---|---|---|---|---|---|"]
    for name, (what, *_) in WORKLOADS.items():
        then, now = ([of[name, role] for role in ROLES] for of in (
            {k: v["all"] for k, v in first.items()}, {k: sum(v.values()) for k, v in found.items()}))
        lines.append(f"| {what} | {then[0]:,.0f} | {now[0]:,.0f} | {then[1]:,.0f} | {now[1]:,.0f} | {sum(now) / sum(then):.2f} |")
    with open(PAGE, encoding="utf-8") as f:
        page = f.read()
    start, end = "<!-- instructions by scripts/bench from here -->", "<!-- instructions to here -->"
    table_of = "\n".join(lines)
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(f"{page[:page.index(start) + len(start)]}\n\n{table_of}\n\n{page[page.index(end):]}")


def kept(path=KEPT):
    found = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            if not line.startswith("#"):
                a, b, c, n = line.rstrip("\n").split("\t")
                found.setdefault((a, b), {})[c] = float(n)
    return found


def grown(before, now):
    """Lines: the functions that explain most of the difference."""
    least = NOTED * before["all"]  # what a function may have had that is not in the file
    changes = [(n - before.get(f, min(n, least)), f) for f in {*before, *now} - {"all"} for n in [now.get(f, 0)]]
    sign = 1 if sum(now.values()) > before["all"] else -1
    return [f"    {change:+,.0f} {f} (now {now.get(f, 0):,.0f})" for change, f in sorted(changes, key=lambda c: -sign * c[0])[:8]
            if sign * change > least / 10]


def least(runs):
    """Of each count the smallest."""
    return {key: min((r[key] for r in runs), key=lambda counted: sum(counted.values())) for key in runs[0]}


def too_much(key, counted):
    was = kept().get(key, {}).get("all")
    return was is None or sum(counted.values()) > was * (1 + LIMIT)


def compare(found):
    """Prints a line for each count; the number of those that have grown too far."""
    before, bad = kept(), 0
    for key, counted in found.items():
        total, was = sum(counted.values()), before.get(key, {}).get("all")
        change = f"{100 * (total / was - 1):+.1f} %" if was else "new"
        worse, much_less = too_much(key, counted), was is not None and total < was * (1 - LIMIT)
        say = "FAIL: write it down with --update if it must be so" if worse else "less: write it down with --update" if much_less else "ok"
        print(f"{key[0]}, {key[1]}: {total:,.0f} instructions a request ({change}) {say}")
        if was and (worse or much_less):
            print("\n".join(grown(before[key], counted)))
        bad += worse
    return bad


def spread(runs):
    for key in runs[0]:
        totals = [sum(r[key].values()) for r in runs]
        print(f"{key[0]}, {key[1]}: {min(totals):,.0f} to {max(totals):,.0f}, spread {100 * (max(totals) - min(totals)) / statistics.median(totals):.2f} %")


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench --instructions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="*", help=", ".join(WORKLOADS))
    parser.add_argument("--update", action="store_true", help="write what was counted into tests/bench/instructions.tsv and docs/performance.md")
    parser.add_argument("--repeat", type=int, metavar="N", help="count N times and print how far the counts lie apart; 3 with --update")
    options = parser.parse_args()
    started, runs = time.monotonic(), []
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for _ in range(options.repeat or (TRIES if options.update else 1)):
        runs.append(count(options.workload or WORKLOADS))
    if len(runs) > 1:
        spread(runs)
    if options.update:
        if set(least(runs)) != {(name, role) for name in WORKLOADS for role in ROLES}:
            raise RuntimeError("--update is for all workloads together")
        write(table(least(runs)))
        publish(least(runs))
        bad = 0
    else:
        while len(runs) < TRIES and any(too_much(key, counted) for key, counted in least(runs).items()):
            print(f"more than {100 * LIMIT:.0f} % above what was kept: counting again")
            runs.append(count(options.workload or WORKLOADS))
        bad = compare(least(runs))
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AssertionError, RuntimeError, OSError, subprocess.SubprocessError) as failure:
        sys.exit(f"instructions: {failure}")
