#!/usr/bin/env python3
"""jepsen.py - a checker of histories after Jepsen's workload for Kafka: values that are all different are sent and read in every way that
clients do, while processes are killed and stopped; then everything is read once more, and the history is judged.

  scripts/jepsen [--minutes 10] [--faults kill,stop,cut,oneway] [--seed S] [--storage 3] [--controllers 3] [--frontends 2] [--peer karst|kafka]
                 [--rate 300] [--pause 4] [--together 2] [--life 15] [--message-ms 30000] [--config KEY=VALUE] [--set KEY=VALUE] [--out FOLDER]

Prints one verdict (checker.py says what the names mean) and leaves history, faults and the servers' log in FOLDER (build/jepsen/SEED).
Exit status: 0 valid; 1 an anomaly, something that did not come back, or nothing done that could show one; 64 wrong usage."""
import json
import os
import random
import shutil
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kills"))
import systems  # noqa: E402 (first: it makes the others known)
import batches  # noqa: E402
import checker  # noqa: E402
import client  # noqa: E402
import faults  # noqa: E402
import harness  # noqa: E402
import spread_systems  # noqa: E402
import usage  # noqa: E402

TOPICS, PARTITIONS = ("a", "b", "c"), 4
KINDS = ("kill", "stop", *spread_systems.CUTS)
STOPS_S = (0.2, 1, 3, 8, 15)
BACK_S = 180
COUNTS = ("storage", "controllers", "frontends")


def parse(arguments):
    p = usage.Parser("jepsen", __doc__, rate=300)
    p.add_argument("--minutes", type=float, default=10, help="(%(default)s)")
    p.add_argument("--faults", default="kill,stop", help="of %s; empty: none (%%(default)s)" % ", ".join(KINDS))
    for name, number in zip(COUNTS, (3, 3, 2)):
        p.add_argument(f"--{name}", type=int, help=f"how many ({number})")
    p.add_argument("--peer", choices=("karst", "kafka"), default="karst")
    p.add_argument("--pause", type=float, default=4, help="seconds between faults, on average (%(default)s)")
    p.add_argument("--together", type=int, default=2, help="how many processes one fault may hit (%(default)s)")
    p.add_argument("--life", type=float, default=15, help="seconds that a client lives, on average (%(default)s)")
    p.add_argument("--message-ms", type=int, default=30000, help="after which a producer gives a value up (%(default)s; see docs/faults.md)")
    options = p.parse(arguments)
    options.kinds = [k for k in options.faults.split(",") if k]
    if set(options.kinds) - set(KINDS):
        p.error(f"--faults: {', '.join(KINDS)}")
    options.counts = {name: getattr(options, name) for name in COUNTS if getattr(options, name) is not None}
    if has_hosts(options) and options.counts:
        p.error(f"--{', --'.join(options.counts)}: where hosts are cut there are three, each with what it has")
    if options.peer == "kafka" and set(options.counts) - {"storage"}:
        p.error("--controllers, --frontends: each node of Kafka is broker and controller, and there are no front ends")
    return options


def has_hosts(options):
    return bool(set(options.kinds) & set(spread_systems.CUTS))


def new_system(options, folder):
    if has_hosts(options):
        return spread_systems.new(options.peer, folder, options.config)
    return systems.new(options.peer, folder, config=options.config, **options.counts)


def one_round(system, hand, rng, options):
    """Some processes get the same kind of fault, at once or nearly so."""
    kind = rng.choice(options.kinds)
    for _ in range(rng.randint(1, options.together)):
        target, topic, partition = rng.choice(system.every), rng.choice(TOPICS), rng.randrange(PARTITIONS)
        seconds = rng.choice(STOPS_S) if kind != "kill" else None
        victim = system.victim(target, topic, partition)
        if victim is None or (kind == "kill" and not system.may_die(victim)):
            continue
        try:
            hand.do(kind, target, victim, seconds)
        except ProcessLookupError:  # it died meanwhile
            continue
        time.sleep(rng.choice((0, 0, 0.05, 0.5)))


def trouble(system, options):
    rng = random.Random(options.seed)
    hand = faults.Faults(system)
    end = time.monotonic() + 60 * options.minutes
    try:
        while time.monotonic() < end:
            time.sleep(min(rng.expovariate(1 / options.pause), max(0, end - time.monotonic())))
            if options.kinds:
                one_round(system, hand, rng, options)
    finally:
        hand.end_all()
    return hand.done


def judge(folder, options, problems):
    """Of the history, with the files of servers that have ended; they are kept where there is something to find out."""
    history = checker.read_file(os.path.join(options.out, "history.jsonl"))
    verdict = checker.judge(history, batches.Logs(folder, history.keys))
    if verdict.counts["acknowledged"] == 0:
        problems.append("no value was acknowledged")
    if problems or not verdict.valid:
        shutil.rmtree(os.path.join(options.out, "data"), ignore_errors=True)
        shutil.copytree(folder, os.path.join(options.out, "data"))
    return verdict


def run_load(system, options, problems):
    system.create_topics(TOPICS, PARTITIONS)
    load = client.Client(system.bootstrap, os.path.join(options.out, "history.jsonl"), TOPICS, PARTITIONS, seed=options.seed,
                         rate=options.rate, life=options.life, command=system.client_command(), message_ms=options.message_ms, sets=options.set)
    try:
        done = trouble(system, options)
        with open(os.path.join(options.out, "faults.jsonl"), "w", encoding="utf-8") as f:
            f.writelines(json.dumps(x.row()) + "\n" for x in done)
        try:
            harness.wait_until(lambda: system.is_back(TOPICS), BACK_S, "all of it, whole")
        except AssertionError as e:
            problems.append(str(e))
        load.finish()
        return done
    finally:
        load.close()


def run(options):
    """Faults, verdict, problems."""
    os.makedirs(options.out, exist_ok=True)
    folder, problems = harness.new_folder(), []
    systems.own_programs(folder)
    system = new_system(options, folder)
    try:
        try:
            system.start()
            done = run_load(system, options, problems)
            problems += system.complaints()
            if options.kinds and not done:
                problems.append("no fault was done")
        finally:
            system.keep_log(options.out)
            system.close()
        return done, judge(folder, options, problems), problems
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments):
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the servers, too
    print(f"{options.peer}, seed {options.seed}, {options.minutes:g} minutes, faults {options.faults or 'none'}; {options.out}", flush=True)
    done, verdict, problems = run(options)
    counts = {k: sum(f.kind == k for f in done) for k in options.kinds}
    print(", ".join(f"{n} times {k}" for k, n in counts.items()) or "no faults")
    for problem in problems:
        print(f"  {problem}")
    print("\n".join(verdict.lines()))
    return 0 if verdict.valid and not problems else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
