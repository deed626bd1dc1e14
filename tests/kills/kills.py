#!/usr/bin/env python3
"""kills.py - faults one at a time on a constellation of 3+3+2 under verifiable load, and on a Kafka of three nodes, in turns: what was lost, and
how long nothing moved.

  scripts/kills [--each 50] [--only kill,stop] [--targets leader,follower,...] [--peers karst,kafka] [--seed S] [--config KEY=VALUE]
                [--rate 240] [--chunk 20] [--stop-s 1-30] [--client-ms 2000] [--set KEY=VALUE] [--out FOLDER]
  scripts/kills --join FOLDER,FOLDER...    the table of several runs together

Each fault begins when everything is whole: all processes run, all replicas are in sync, every partition moves. Prints a table, fault by
target, and leaves in FOLDER (build/kills/SEED) results.json, and of each chunk the history and the servers' log.
Exit status: 0; 1 an anomaly, or something that did not come back; 64 wrong usage, or nothing to do, as all was left out."""
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import systems  # (first: it makes the others known)
import batches
import checker
import client
import disks
import faults
import harness
import progress
import spread_systems
import usage

TOPICS, PARTITIONS = ("a", "b"), 6
CUTS = spread_systems.CUTS
BACK_S = 240
QUIET_S = (0.3, 1.5)


def span(text):
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def parse(arguments):
    p = usage.Parser("kills", __doc__, rate=240)
    p.add_argument("--each", type=int, default=50, help="of each kind of fault, its targets in turns (%(default)s)")
    p.add_argument("--only", default=",".join(faults.KINDS), help="kinds of faults: %(default)s")
    p.add_argument("--targets", default=",".join(systems.KarstSystem.targets), help="%(default)s")
    p.add_argument("--peers", default="karst,kafka", help="%(default)s")
    p.add_argument("--join", metavar="FOLDERS", help="do nothing, and print what runs into these folders found")
    p.add_argument("--chunk", type=int, default=20, help="faults between fresh clusters (%(default)s)")
    p.add_argument("--stop-s", type=span, default="1-30", help="how long a stopped process is stopped, or a cut or a full disk lasts (%(default)s)")
    p.add_argument("--client-ms", type=int, default=2000, help="socket.timeout.ms of the clients (%(default)s)")
    o = p.parse(arguments)
    o.kinds, o.aims, o.names = o.only.split(","), o.targets.split(","), o.peers.split(",")
    if set(o.kinds) - set(faults.KINDS) or set(o.aims) - set(systems.KarstSystem.targets) or set(o.names) - {"karst", "kafka"}:
        p.error("no such fault, target or peer")
    leave_out(o)
    return o


def leave_out(o):
    """What this machine does not let us do, and says so."""
    with tempfile.TemporaryDirectory() as folder:
        for kinds, why in (({"disk"}, disks.missing(folder)), (set(CUTS), spread_systems.missing())):
            if why and kinds & set(o.kinds):
                print(f"left out: {', '.join(sorted(kinds & set(o.kinds)))}: {why}", flush=True)
                o.kinds = [k for k in o.kinds if k not in kinds]


def targets(o, kind):
    """Those asked for that a fault of this kind can have."""
    return [t for t in o.aims if kind in CUTS or t in systems.KarstSystem.aims(kind)]


def plan(o):
    """[[(kind, target, seconds, topic, partition)]]: chunks of all faults in an order that the seed decides. Cuts need hosts, and so have
    chunks of their own."""
    rng, chunks = random.Random(o.seed), []
    for cuts in (False, True):
        rows = [(kind, target, round(rng.uniform(*o.stop_s), 1), rng.choice(TOPICS), rng.randrange(PARTITIONS))
                for kind in o.kinds if (kind in CUTS) == cuts for target in itertools.islice(itertools.cycle(targets(o, kind)), o.each)]
        rng.shuffle(rows)
        chunks += [rows[i:i + o.chunk] for i in range(0, len(rows), o.chunk)]
    return chunks


def new_system(peer, folder, rows, config):
    if rows[0][0] in CUTS:
        return spread_systems.new(peer, folder, config)
    system = systems.new(peer, folder, config=config)
    if any(kind == "disk" for kind, *_ in rows):
        system.small_disks()
    return system


def moves(load, since_ns):
    return all(m["acked_ns"] > since_ns and m["delivered_ns"] > since_ns for m in load.marks())


def settle(system, load):
    """Until all is whole and every key has moved since."""
    harness.wait_until(lambda: system.is_back(TOPICS), BACK_S, "all of it, whole")
    now = time.monotonic_ns()
    harness.wait_until(lambda: moves(load, now), BACK_S, "records of all partitions")


def one_fault(system, load, hand, row):
    """What was done, or None when nobody played the part or the process may not die again yet."""
    kind, target, seconds, topic, partition = row
    victim = harness.wait_until(lambda: system.victim(target, topic, partition), 60, f"a {target}")
    if kind == "kill":
        harness.wait_until(lambda: system.may_die(victim), 90, "a process that may die again")
    fault = hand.do(kind, target, victim, None if kind == "kill" else seconds)
    harness.wait_until(lambda: not hand.busy(), 60 + seconds, "the end of the fault")
    settle(system, load)
    return fault


def chunk(o, peer, number, rows):
    """Rows of results, and problems."""
    folder, out = harness.new_folder(), os.path.join(o.out, f"{peer}-{number}")
    os.makedirs(out, exist_ok=True)
    systems.own_programs(folder)
    system, load, problems, hand = new_system(peer, folder, rows, o.config), None, [], None
    rng = random.Random(o.seed + number)
    try:
        system.start()
        system.create_topics(TOPICS, PARTITIONS)
        hand = faults.Faults(system)
        load = client.Client(system.bootstrap, os.path.join(out, "history.jsonl"), TOPICS, PARTITIONS, seed=o.seed + number, rate=o.rate,
                             command=system.client_command(), message_ms=300000, in_flight=10000, readers=1, sets=[("socket.timeout.ms", o.client_ms), *o.set])
        settle(system, load)
        for row in rows:
            if row[1] in system.targets:
                time.sleep(rng.uniform(*QUIET_S))
                one_fault(system, load, hand, row)
        load.finish()
    except AssertionError as e:
        problems.append(f"{peer}, chunk {number}: {e}")
    finally:
        if hand is not None:
            hand.end_all()
        if load is not None:
            load.close()
        system.keep_log(out)
        problems += system.complaints()
        system.close()
    try:
        return judge(out, folder, hand.done if hand else [], problems), problems
    finally:
        system.remove_disks()
        shutil.rmtree(folder, ignore_errors=True)


def judge(out, folder, done, problems):
    path = os.path.join(out, "history.jsonl")
    if not os.path.exists(path):  # nothing came so far: the problems say why
        return [], {}
    history = checker.read_file(path)
    verdict = checker.judge(history, batches.Logs(folder, history.keys))
    if not verdict.valid:
        problems.append(f"{path}: " + "\n".join(verdict.lines()))
    windows = [(fault.begun_ns, after) for fault, after in zip(done, [*[f.begun_ns for f in done[1:]], float("inf")])]
    made, given = progress.worst(progress.produced(history), windows), progress.worst(progress.delivered(history), windows)
    return [{**fault.row(), "produce_ms": round(m[0]), "deliver_ms": round(g[0]), "key": m[1]}
            for fault, m, g in zip(done, made, given)], verdict.counts


def cell(values):
    return f"{len(values):4} {statistics.median(values) / 1000:7.2f} {max(values) / 1000:7.2f}" if values else f"{'-':>4} {'':7} {'':7}"


def table(o, results):
    """Seconds without progress of the partition that stood longest: number of faults, median, worst."""
    yield f"{'':20}" + "".join(f" | {name + ' ' + what:^20}" for name in o.names for what in ("produce", "deliver"))
    yield f"{'fault, target':20}" + f" | {'n':>4} {'median':>7} {'worst':>7}" * (2 * len(o.names))
    for kind in o.kinds:
        for target in [*o.aims, "all"]:
            rows = {n: [r for r in results[n] if r["kind"] == kind and target in (r["target"], "all")] for n in o.names}
            if any(rows.values()):
                yield f"{kind + ' ' + target:20}" + "".join(
                    f" | {cell([r[what] for r in rows[n]])}" for n in o.names for what in ("produce_ms", "deliver_ms"))


class Found:
    """What came of a run, or of several: rows of faults and counts of values by peer, and problems."""

    def __init__(self, names):
        self.results, self.counts, self.problems = {n: [] for n in names}, {n: {} for n in names}, []

    def add(self, peer, rows, counts):
        self.results.setdefault(peer, []).extend(rows)
        mine = self.counts.setdefault(peer, {})
        for name, n in counts.items():
            mine[name] = mine.get(name, 0) + n

    def write(self, o):
        with open(os.path.join(o.out, "results.json"), "w", encoding="utf-8") as f:
            json.dump({"options": vars(o), **vars(self)}, f, indent=1)

    def conclude(self):
        """The exit status."""
        for peer, counts in self.counts.items():
            print(f"{peer}: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
        print("nothing lost, doubled or out of order" if not self.problems else f"{len(self.problems)} PROBLEMS")
        return 1 if self.problems else 0


def join(o):
    found = Found(o.names)
    for folder in o.join.split(","):
        with open(os.path.join(folder, "results.json"), encoding="utf-8") as f:
            one = json.load(f)
        for peer, rows in one["results"].items():
            found.add(peer, rows, one["counts"][peer])
        found.problems += one["problems"]
    print("\n".join([*table(o, found.results), *found.problems]))
    return found.conclude()


def main(arguments):
    o = parse(arguments)
    if o.join:
        return join(o)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the servers, too
    os.makedirs(o.out, exist_ok=True)
    chunks, found = plan(o), Found(o.names)
    if not chunks:
        print("there is nothing to do")
        return 64
    print(f"seed {o.seed}: {sum(map(len, chunks))} faults in {len(chunks)} chunks on {', '.join(o.names)}; {o.out}", flush=True)
    for number, rows in enumerate(chunks):
        for peer in o.names:
            (rows_of, counted), wrong = chunk(o, peer, number, rows)
            found.add(peer, rows_of, counted)
            found.problems += wrong
            found.write(o)
            for problem in wrong:
                print(problem, flush=True)
        print(f"chunk {number + 1} of {len(chunks)}", flush=True)
        print("\n".join(table(o, found.results)), flush=True)
    return found.conclude()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
