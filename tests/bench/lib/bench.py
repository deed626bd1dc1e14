#!/usr/bin/env python3
"""Karst and Apache Kafka 4.3.1 side by side on this machine. Run by scripts/bench.

  bench [WORKLOAD ...]       all, or those named; a name may be a pattern such as 'bulk-100-*'

The systems take turns on the same disk, each on an empty folder and warmed up, --rounds times; the order changes with each round.
Every figure is a median with its spread. CPU, memory, context switches and system calls are those of all processes of the server.
Lines of results are kept in build/bench/; --from makes tables of several such files.
"""
import argparse
import datetime
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import clusters  # noqa: E402
import flame  # noqa: E402
import goals  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
import systems  # noqa: E402
import workloads  # noqa: E402
from systems import ROOT, harness  # noqa: E402

SIZES = {"full": (8.0, 1_000_000_000, 10_000), "quick": (2.0, 200_000_000, 1000), "smoke": (0.5, 10_000_000, 100)}  # seconds, bulk, many


def perf_counts():
    """perf can count the system calls of other processes."""
    command = ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", str(os.getpid()), "--", "true"]
    return shutil.which("perf") is not None and harness.run(command).status == 0


class Bench:
    def __init__(self, options, chosen):
        self.options, self.chosen, self.lines, self.profiles = options, chosen, [], []
        self.seconds, self.bulk, self.many = SIZES["smoke" if options.smoke else "quick" if options.quick else "full"]
        self.warm_seconds = self.seconds
        self.filler = machine.Filler(os.environ.get("KARST_BENCH_DIR", "/tmp"))
        if options.seconds:
            self.seconds = options.seconds
        self.counts = not options.smoke and not options.profile and perf_counts()
        folder = os.path.join(ROOT, "build", "bench")
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(folder, datetime.datetime.now().strftime("%Y%m%d-%H%M%S.jsonl"))
        commit = harness.run(["git", "-C", ROOT, "describe", "--always", "--dirty"]).out.strip()
        self.note({"run": " ".join(sys.argv[1:]), "at": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
                   "commit": commit, "machine": report.machine(), "load_average": os.getloadavg()[0]})

    def note(self, line):
        self.lines.append(line)
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")

    def makers(self, nodes):
        """Of the systems that take turns. A peer has one node only."""
        peer, of = self.options.peer, clusters if nodes > 1 else systems
        known = {"karst": of.Karst, "kafka": of.Kafka} if nodes > 1 else {"karst": of.Karst, "kafka": of.Kafka, "peer": lambda: of.Peer(peer)}
        names = ["karst"] if self.options.smoke else (self.options.only or ["karst", "kafka"] + (["peer"] if peer else []))
        return [known[n] for n in names if n in known] + [of.Karst.variant(v) for v in self.options.variant]

    def run_of(self, system, counting=False, seconds=None):
        return workloads.Run(system, seconds or self.seconds, self.bulk, self.many, counting)

    def measure(self, workload, system, round_):
        """One workload on a system that runs; then, in the first round, a short run that counts system calls."""
        if not self.options.quick and not self.options.smoke and not workload.fresh:
            time.sleep(2)  # until the files of the topics before are deleted
            self.filler.fill()
        line = {"workload": workload.name, "system": system.name, "round": round_, "figures": {}}
        for counting in (False, True) if self.counts and round_ == 0 else (False,):
            run = self.run_of(system, counting, min(2.0, self.seconds) if counting else None)
            if self.options.profile:
                run.profile = f"{self.path.removesuffix('.jsonl')}-{workload.name}-{system.name}"
            try:
                os.sync()  # what others wrote is not this workload's to write
                line["figures"].update(workload.shape(run))
                if run.profile:
                    named = {pid: systems.read(f"/proc/{pid}/comm").strip() for pid in system.pids()}
                    self.profiles.append((workload.name, flame.write(run.profile, f"{workload.name}, {system.name}", named)))
                run.clean()
            except Exception as error:
                line["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:300].replace("|", "/")
                if not isinstance(error, workloads.Failed):
                    traceback.print_exc()
                break
        self.note(line)
        shown = [f"{report.FIGURES[k][0]} {report.number(v)}" for k, v in line["figures"].items() if k in report.FIGURES]
        print(f"{system.name}, {workload.name}: {line.get('error') or ', '.join(shown)}", flush=True)

    def fresh_round(self, make, workload, round_):
        system = make()
        try:  # also of a run that is ended by Ctrl-C or SIGTERM
            system.start()
            if workload.shape is not workloads.first_record:
                system.wait()
            self.measure(workload, system, round_)
        finally:
            system.stop()

    def warm_round(self, make, chosen, round_):
        """All of them on one instance; a system that died is started again."""
        system = make()
        try:
            system.start().wait()
            if not self.options.smoke:
                workloads.warm_up(self.run_of(system, seconds=min(self.warm_seconds, system.warm_seconds)))
            for workload in chosen:
                if not system.alive():
                    print(f"{system.name} ended: {system.log()}", flush=True)
                    system.stop()
                    system = make()
                    system.start().wait()
                self.measure(workload, system, round_)
        finally:
            system.stop()

    def rounds(self):
        try:
            self.turns()
        finally:
            self.filler.remove()

    def turns(self):
        for round_ in range(self.options.rounds):
            for nodes in sorted({w.nodes for w in self.chosen}):
                self.turn(round_, [w for w in self.chosen if w.nodes == nodes], self.makers(nodes))

    def turn(self, round_, chosen, makers):
        for make in makers[round_ % len(makers):] + makers[:round_ % len(makers)]:
            warm = [w for w in chosen if not w.fresh]
            if not workloads.free_enough(os.environ.get("KARST_BENCH_DIR", "/tmp")):
                raise SystemExit("bench: not enough room on the disk")
            for workload in chosen:
                if workload.fresh and round_ < workload.rounds:
                    self.fresh_round(make, workload, round_)
            if warm:
                self.warm_round(make, warm, round_)

    def sane(self):
        """For --smoke: no thresholds, only that everything was measured. The problems."""
        found, errors = report.collect(self.lines)
        problems = [f"{w} on {s}: {e}" for (w, s), e in errors.items()]
        for name in workloads.SMOKE:
            figures = found.get(name, {}).get("Karst", {})
            for wanted in workloads.SMOKE[name]:
                if not figures.get(wanted) or min(figures[wanted]) <= 0:
                    problems.append(f"{name}: no {wanted}")
            if figures.get("p50_ms", [0])[0] > figures.get("p999_ms", [0])[0]:
                problems.append(f"{name}: p50 above p99.9")
        if "| workload |" not in report.text(self.lines, workloads.BY_NAME):
            problems.append("no table")
        if not goals.goal_lines(found):
            problems.append("no goals")
        return problems


def choose(patterns):
    chosen = [w for w in workloads.TABLE if not patterns or any(fnmatch.fnmatch(w.name, p) for p in patterns)]
    for pattern in patterns:
        if not fnmatch.filter(workloads.BY_NAME, pattern):
            raise SystemExit(f"bench: no workload {pattern}; see --list")
    return chosen


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="*")
    parser.add_argument("--list", action="store_true", help="the workloads, and nothing else")
    parser.add_argument("--rounds", type=int, help="5; with --quick 1")
    parser.add_argument("--quick", action="store_true", help="short runs")
    parser.add_argument("--smoke", action="store_true", help="tiny workloads on Karst alone, and whether their output is sane")
    parser.add_argument("--seconds", type=float, help="that each load sends")
    parser.add_argument("--only", action="append", choices=["karst", "kafka", "peer"], help="this system; may be given again")
    parser.add_argument("--peer", metavar="CMD", help="a third system: CMD start DIR PORT, CMD pids DIR, CMD stop DIR")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=KEY=VALUE,...",
                        help="Karst with these settings as a system beside; the key bin names a folder of other programs; may be given again")
    parser.add_argument("--profile", action="store_true", help="perf records the server: a flame graph a process beside the results; with --write into docs/profiles/")
    parser.add_argument("--from", dest="files", nargs="+", metavar="FILE", help="run nothing; results of these files")
    parser.add_argument("--write", action="store_true", help="the tables and charts into docs/")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick or options.smoke else 5)
    return options


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if options.list:
        for w in workloads.TABLE:
            print(f"{w.name:22} {w.what}")
        return 0
    if options.files:
        lines = []
        for path in options.files:
            with open(path, encoding="utf-8") as f:
                lines += map(json.loads, f)
    else:
        bench = Bench(options, choose(list(workloads.SMOKE) if options.smoke else options.workload))
        if not options.smoke:
            harness.ran([harness.KAFKA, "setup"], timeout=1200)
        started = time.monotonic()
        bench.rounds()
        lines = bench.lines
        print(f"\n{time.monotonic() - started:.0f} s; results in {os.path.relpath(bench.path, ROOT)}")
        if options.smoke:
            problems = bench.sane()
            print("\n".join(problems) if problems else "smoke: sane")
            return 1 if problems else 0
        if options.profile:  # perf costs time: the figures are not to be kept
            for name, paths in bench.profiles:
                print(f"{name}: {' '.join(os.path.relpath(p, ROOT) + '.svg' for p in paths)}")
            if options.write:
                flame.publish(bench.profiles, report.about(lines))
            return 0
    print(report.text(lines, workloads.BY_NAME))
    if options.write:
        report.write(lines, workloads.BY_NAME)
        goals.write(lines)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as failure:
        sys.exit(f"bench: {failure}")
