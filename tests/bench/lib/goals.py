"""goals.py - the generated sections of docs/performance.md: what was to be reached and what was, what each step gave, and how cost grows
with the work. Every figure comes from results; sentences on what was not reached come from docs/goals.txt."""
import dataclasses
import os
import re
import statistics

import report
from report import number, ratio

PAGE = os.path.join(os.path.dirname(report.PAGE), "performance.md")
NOTES = os.path.join(os.path.dirname(report.PAGE), "goals.txt")
STEP_FIGURES = ("records_s", "p99_ms", "cpu_mrec_s", "calls_rec", "switches_rec", "memory_mib")


@dataclasses.dataclass
class Goal:
    key: str            # of its sentence in goals.txt
    what: str
    figure: str
    bound: float
    of: str = "ratio"   # or "value": of Karst alone
    workloads: tuple = ()
    every: object = None  # without workloads: whether one counts, from its name and systems; only the worst is shown

    def value(self, systems):
        if self.of == "ratio":
            return ratio(systems, self.figure)
        values = systems.get("Karst", {}).get(self.figure)
        return statistics.median(values) if values else None

    def more(self):
        return self.figure == "records_s"

    def reached(self, value):
        return value >= self.bound if self.more() else value <= self.bound


def at_full_speed(_, systems):
    return not report.client_limits(systems) and "rate" not in (report.limit(systems.get("Karst", {})), report.limit(systems.get("Kafka", {})))


def loaded(name, _):
    return not name.startswith(("idle-", "first-", "three-"))


def fixed_rate(_, systems):
    return "wanted_s" in systems.get("Karst", {})


GOALS = [
    Goal("cpu-produce", "server CPU per GB, bulk produce", "cpu_gb_s", 0.3, workloads=("wire-bulk-1000", "wire-64k", "wire-1m", "bulk-1000-random-none")),
    Goal("cpu-consume", "server CPU per GB, bulk consume", "cpu_gb_s", 0.3, workloads=("wire-catch-up", "catch-up-cache", "catch-up-disk")),
    Goal("cpu-small", "server CPU per record of 100 B at full speed", "cpu_mrec_s", 0.25, workloads=("wire-bulk-100", "bulk-100-random-none")),
    Goal("cpu-rate", "server CPU per record at 20,000/s, linger 0", "cpu_mrec_s", 0.4, workloads=("rate-20k",)),
    Goal("throughput", "records/s where the client is not the limit", "records_s", 1.2, every=at_full_speed),
    Goal("throughput-any", "records/s, all workloads", "records_s", 1.0, every=lambda *_: True),
    Goal("p99", "latency p99 at fixed rates", "p99_ms", 0.5, every=fixed_rate),
    Goal("p99-one", "latency p99, one request in flight", "p99_ms", 1.0, workloads=("inflight-1",)),
    Goal("memory", "memory of all processes", "memory_mib", 0.1, every=loaded),
    Goal("memory-idle", "memory of all processes, idle (MiB)", "memory_mib", 40, "value", ("first-record",)),
    Goal("memory-loaded", "memory of all processes, after load (MiB)", "memory_mib", 64, "value", every=loaded),
    Goal("connection", "memory per idle connection (KiB)", "connection_kib", 8, "value", ("idle-connections",)),
    Goal("partition", "memory per idle partition (KiB)", "partition_kib", 4, "value", ("idle-partitions",)),
    Goal("first", "exec to first acknowledged record (s)", "first_record_s", 0.2, "value", ("first-record",)),
    Goal("recovery", "start after kill -9, 20 GB in 1,000 partitions (s)", "ready_s", 0.1, workloads=("recovery",)),
    Goal("flush", "records/s with flush.messages=1, 100 producers", "records_s", 5.0, workloads=("flush-100-1", "flush-100")),
    Goal("compaction", "server CPU per GB compacted", "cpu_gb_s", 0.5, workloads=("compaction", "compaction-100")),
    Goal("lagging", "what a reader from the disk adds to the tail's p99 (ms)", "p99_moved_ms", 1.0, workloads=("lagging",)),
    Goal("three-cpu", "server CPU per GB, three nodes, factor 3", "cpu_gb_s", 0.5, workloads=("three-wire-1000", "three-bulk-1000")),
    Goal("three-throughput", "records/s, three nodes, factor 3", "records_s", 1.0, every=lambda name, _: name.startswith("three-")),
    Goal("three-memory", "memory of all processes, three nodes", "memory_mib", 0.1, every=lambda name, _: name.startswith("three-")),
    Goal("three-failover", "one of three nodes stands still, 10,000 partitions: all led by others (s)", "failover_s", 0.2, workloads=("three-failover",)),
    Goal("three-change", "a change until all three nodes show it, p99 (ms)", "change_p99_ms", 1.0, workloads=("three-failover",)),
    Goal("flight-64", "server CPU per small Produce, 64 in flight (µs)", "cpu_mrec_s", 12, "value", ("inflight-64",)),
]


def measured(goal, found):
    """(workload, value, of how many) for each row of a goal; nothing when nothing of it was run."""
    values = [(name, goal.value(systems)) for name, systems in found.items()
              if (name in goal.workloads if goal.workloads else goal.every(name, systems))]
    values = [v for v in values if v[1] is not None]
    if goal.workloads:
        return [(*v, 1) for v in sorted(values, key=lambda v: goal.workloads.index(v[0]))]
    return [(*(min if goal.more() else max)(values, key=lambda v: v[1]), len(values))] if values else []


def notes(path):
    """{key: sentence} of lines "key: sentence"; # begins a comment."""
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        return dict(re.findall(r"^([^#:\n][^:\n]*): *(.+)$", f.read(), re.M))


def goal_lines(found):
    lines = ["| goal | workload | Karst | Kafka | ratio | wanted | |", "|---|---|---|---|---|---|---|"]
    missed, said = [], notes(NOTES)
    for goal in GOALS:
        for name, value, of in measured(goal, found):
            systems = found[name]
            label = f"`{name}`" + (f", the {'lowest' if goal.more() else 'highest'} of {of}" if of > 1 else "")
            cells = [report.cell(systems.get(s, {}).get(goal.figure)) for s in ("Karst", "Kafka")]
            its = ratio(systems, goal.figure)
            wanted = f"{'at least' if goal.more() else 'at most'} {goal.bound:g}" + ("" if goal.of == "value" else " of Kafka's")
            lines.append(f"| {goal.what} | {label} | {cells[0]} | {cells[1]} | {'-' if its is None else number(its)} | {wanted} | "
                         f"{'reached' if goal.reached(value) else '**not reached**'} |")
            if not goal.reached(value) and goal not in missed:
                missed.append(goal)
    if missed:
        lines += ["", "Not reached, why, and what would be tried next:", ""]
        lines += [f"- {g.what}: {said.get(g.key, 'the cause is not known yet.')}" for g in missed]
    return lines if len(lines) > 2 else []


def step_lines(found):
    """Karst beside variants of it: only when there are any."""
    lines = []
    for name, systems in found.items():
        ours = [s for s in systems if s != "Kafka"]
        if len(ours) < 2:
            continue
        if not lines:
            ours.sort(key=lambda s: s == "Karst")  # the present state comes last
            lines = ["| workload | figure | " + " | ".join(ours) + " |", "|---|---|" + "---|" * len(ours)]
            order = ours
        label = f"`{name}`"
        for figure in STEP_FIGURES:
            if any(figure in systems.get(s, {}) for s in order):
                lines.append(f"| {label} | {report.FIGURES[figure][0]} | " + " | ".join(report.cell(systems.get(s, {}).get(figure)) for s in order) + " |")
                label = ""
    return lines


def scale_lines(found):
    lines = []
    for prefix, figure in (("scale-", "cpu_mrec_s"), ("scale-bulk-", "cpu_gb_s")):
        runs = [(k, found[f"{prefix}{k}"]) for k in (1, 2, 4, 8) if f"{prefix}{k}" in found]
        if len(runs) < 2:
            continue
        names = report.system_names(dict(runs))
        lines += ["| work | " + " | ".join(f"{n}: records/s | {report.FIGURES[figure][0]} | p99 (ms)" for n in names) + " |",
                  "|---|" + "---|" * (3 * len(names))]
        for k, systems in runs:
            lines.append(f"| `{prefix}{k}` | " + " | ".join(report.cell(systems.get(n, {}).get(f)) for n in names
                                                           for f in ("records_s", figure, "p99_ms")) + " |")
        said = []
        for name in names:
            ends = [systems.get(name, {}).get(figure) for _, systems in (runs[0], runs[-1])]
            late = [f"`{prefix}{k}`" for k, systems in runs if "wanted_s" in systems.get(name, {}) and report.limit(systems[name]) != "rate"]
            if late:
                said.append(f"{name} does not keep up with {', '.join(late)}, so its cost there is that of an overload")
            elif all(ends):
                grows = statistics.median(ends[1]) / statistics.median(ends[0])
                said.append(f"{name} needs {number(grows)} times as much for the same work when there is {runs[-1][0]} times as much of it")
        lines += ["", "; ".join(said) + ".", ""]
    return lines


THREE_FIGURES = ("records_s", "p99_ms", "cpu_gb_s", "create_s", "change_p99_ms", "failover_s", "healed_s", "cpu_failover_s", "ready_s", "start_cpu_s", "memory_mib")


def three_lines(found):
    """What three nodes do, and whether that reaches what was wanted of them."""
    lines = ["| workload | figure | Karst | Kafka | ratio |", "|---|---|---|---|---|"]
    for name, systems in found.items():
        label = f"`{name}`"
        for figure in THREE_FIGURES:
            its = ratio(systems, figure)
            if its is not None:
                cells = [report.cell(systems[s][figure]) for s in ("Karst", "Kafka")]
                lines.append(f"| {label} | {report.FIGURES[figure][0]} | {cells[0]} | {cells[1]} | {number(its)} |")
                label = ""
    return [*lines, "", *goal_lines(found)] if len(lines) > 2 else []


SECTIONS = {"goals": goal_lines, "steps": step_lines, "scale": scale_lines, "three": three_lines}


def write(lines):
    """Fills the sections of which there are results; the others stay as they are."""
    beside = report.newest(lines, report.has_variants)
    alone = report.newest(lines, lambda run: not report.has_variants(run)) or beside
    with open(PAGE, encoding="utf-8") as f:
        page = f.read()
    for name, make in SECTIONS.items():
        start, end = f"<!-- {name} by scripts/bench from here -->", f"<!-- {name} to here -->"
        of = beside if make is step_lines else alone
        body = make({w: systems for w, systems in report.collect(of)[0].items() if w.startswith("three-") == (name == "three")})
        if body and start in page:
            body = "\n".join([*report.about(of), "", *body])
            page = f"{page[:page.index(start) + len(start)]}\n\n{body}\n\n{page[page.index(end):]}"
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(page)
