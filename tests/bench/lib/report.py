"""report.py - lines of results to tables and charts. Nothing in a page is written by hand but the text around the markers."""
import math
import os
import re
import statistics

from systems import ROOT

PAGE = os.path.join(ROOT, "docs", "benchmarks.md")
START, END = "<!-- figures by scripts/bench from here -->", "<!-- to here -->"

# name: (what, which way is better, in the summary)
FIGURES = {
    "first_record_s": ("exec to first acknowledged record (s)", "less", False),
    "records_s": ("records/s", "more", True),
    "mb_s": ("MB/s", "more", False),
    "consumed_mb_s": ("consumed MB/s", "more", False),
    "p50_ms": ("latency p50 (ms)", "less", False),
    "p99_ms": ("latency p99 (ms)", "less", True),
    "p999_ms": ("latency p99.9 (ms)", "less", False),
    "cpu_mrec_s": ("server CPU s per million records", "less", True),
    "cpu_gb_s": ("server CPU s per GB", "less", False),
    "consumed_cpu_gb_s": ("server CPU s per GB consumed", "less", False),
    "memory_mib": ("memory (MiB)", "less", True),
    "calls_rec": ("system calls per record", "less", True),
    "switches_rec": ("context switches per record", "less", True),
    "p99_alone_ms": ("latency p99 without the lagging reader (ms)", "less", False),
    "p99_moved_ms": ("latency p99, what the lagging reader adds (ms)", "less", False),
    "left_percent": ("bytes that stay (%)", "", False),
    "serving_s": ("start to first acknowledged record (s)", "less", False),
    "ready_s": ("start to all partitions served (s)", "less", False),
    "start_cpu_s": ("server CPU of the start (s)", "less", False),
    "start_memory_mib": ("memory after the start (MiB)", "less", False),
    "connection_kib": ("memory per idle connection (KiB)", "less", False),
    "cpu_connection_us": ("server CPU per connection made (µs)", "less", False),
    "partition_kib": ("memory per idle partition (KiB)", "less", False),
    "create_s": ("time to create the topics (s)", "less", False),
    "cpu_create_s": ("server CPU to create the topics (s)", "less", False),
    "change_p50_ms": ("a change until all nodes show it, p50 (ms)", "less", False),
    "change_p99_ms": ("a change until all nodes show it, p99 (ms)", "less", False),
    "failover_s": ("a node stands still to all partitions led by others (s)", "less", False),
    "healed_s": ("from then, and the node's return, to all replicas in sync (s)", "less", False),
    "cpu_failover_s": ("server CPU of the failover and the return (s)", "less", False),
    "idle_cpu_percent": ("CPU at rest (% of a core)", "less", False),
    "client_cpu_mrec_s": ("client CPU s per million records", "", False),
    "machine_busy": ("machine busy (part of all cores)", "", False),
}


def number(x):
    if x == 0 or 1000 <= abs(x):
        return f"{x:,.0f}"
    return f"{x:.3g}"


def newest(lines, wanted=lambda run: True):
    """Of several runs those lines that count: of each workload, those of the last run that had it. wanted: whether a run counts at all."""
    runs = []
    for line in lines:
        if "run" in line:
            runs.append((line, []))
        else:
            runs[-1][1].append(line)
    runs = [r for r in runs if wanted(r[0])]
    last = {line["workload"]: i for i, (_, its) in enumerate(runs) for line in its}
    kept = [(run, [line for line in its if last[line["workload"]] == i]) for i, (run, its) in enumerate(runs)]
    return [line for run, its in kept if its for line in (run, *its)]


def has_variants(run):
    return "--variant" in run["run"]


def collect(lines):
    """{workload: {system: {figure: [values]}}} in the order they came, and {(workload, system): error}."""
    found, errors = {}, {}
    for line in lines:
        if "workload" not in line:
            continue
        systems = found.setdefault(line["workload"], {})
        figures = systems.setdefault(line["system"], {})
        if line.get("error"):
            errors[line["workload"], line["system"]] = line["error"]
        for name, value in line.get("figures", {}).items():
            figures.setdefault(name, []).append(value)
    return found, errors


def system_names(found):
    names = []
    for systems in found.values():
        names += [n for n in systems if n not in names]
    return sorted(names, key=lambda n: (n != "Karst", n == "Kafka", n))


def ratio(systems, figure, of="Karst", to="Kafka"):
    """Of the medians; None where one is missing or 0."""
    values = [systems.get(name, {}).get(figure) for name in (of, to)]
    if not all(values) or statistics.median(values[1]) == 0:
        return None
    return statistics.median(values[0]) / statistics.median(values[1])


def limit(figures):
    """What kept a system from more records/s, by its medians: "rate" (all that was wanted came), "client" (it used more of the processor than
    the server), "processor" (no core was free), "waiting" (none of them: one thread, the disk, or the way there and back)."""
    figures = {name: statistics.median(values) for name, values in figures.items()}
    if "records_s" not in figures or "cpu_mrec_s" not in figures:
        return ""
    if figures["records_s"] >= 0.98 * figures.get("wanted_s", math.inf):
        return "rate"
    if figures.get("client_cpu_mrec_s", 0) > figures["cpu_mrec_s"]:
        return "client"
    return "processor" if figures["machine_busy"] >= 0.9 else "waiting"


def client_limits(systems):
    return "client" in (limit(systems.get("Karst", {})), limit(systems.get("Kafka", {})))


def cell(values):
    if not values:
        return "-"
    text = number(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({number(min(values))} to {number(max(values))})"


def details(found, errors, workloads):
    names = system_names(found)
    ours = [n for n in names if n != "Kafka"] if "Kafka" in names else []
    head = ["workload", "figure", *names, *(f"{n} / Kafka" for n in ours)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for workload, systems in found.items():
        label = f"`{workload}`"
        for figure, (what, _, _) in FIGURES.items():
            if not any(figure in s for s in systems.values()):
                continue
            ratios = [ratio(systems, figure, n) for n in ours]
            cells = [label, what, *(cell(systems.get(n, {}).get(figure)) for n in names), *("-" if r is None else number(r) for r in ratios)]
            lines.append("| " + " | ".join(cells) + " |")
            label = ""
        for name in names:
            if (workload, name) in errors:
                lines.append(f"| {label or ''} | failed | {name}: {errors[workload, name]} |" + " |" * (len(head) - 3))
                label = ""
    lines += ["", "The workloads:", ""] + [f"- `{w}`: {workloads[w].what}" for w in found if w in workloads]
    return lines


def summary(found):
    """Ratios of Karst to Kafka, a line a workload."""
    figures = [f for f, (_, _, short) in FIGURES.items() if short]
    lines = ["| Karst / Kafka | " + " | ".join(FIGURES[f][0] for f in figures) + " | what limits Karst, Kafka |", "|" + "---|" * (len(figures) + 2)]
    for workload, systems in found.items():
        ratios = [ratio(systems, f) for f in figures]
        if any(r is not None for r in ratios):
            cells = ["-" if r is None else f"({number(r)})" if f == "records_s" and client_limits(systems) else number(r)
                     for f, r in zip(figures, ratios)]
            limits = ", ".join(limit(systems.get(name, {})) or "-" for name in ("Karst", "Kafka"))
            lines.append(f"| `{workload}` | " + " | ".join(cells) + f" | {limits} |")
    return lines if len(lines) > 2 else []


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        cpu = re.search(r"model name\s*: (.*)", f.read())
    with open("/proc/meminfo", encoding="utf-8") as f:
        kib = int(re.search(r"MemTotal:\s+(\d+)", f.read())[1])
    return f"{os.cpu_count()} cores, {cpu[1] if cpu else 'unknown'}, {kib / 2**20:.0f} GiB, Linux {os.uname().release}"


def hide_paths(command):
    """Folders of one machine mean nothing to others."""
    return re.sub(r"bin=[^\s,]+", "bin=...", re.sub(r"--peer \S*/", "--peer ", command))


def about(lines):
    runs = [line for line in lines if "run" in line]
    return [f"- `scripts/bench {hide_paths(r['run'])}` at {r['at']}, commit {r['commit']}, {r['machine']}; "
            f"load average {r['load_average']:.1f} when it began" for r in runs]


def text(lines, workloads):
    lines = newest(lines)
    found, errors = collect(lines)
    parts = ["Runs:", "", *about(lines), ""]
    if summary(found):
        parts += ["## Ratios", "", "Medians of the rounds, Karst to Kafka in the same run. More is better for records/s; less for all others.", "",
                  "What limits: *rate*, all that was wanted came; *client*, it used more of the processor than the server, so the records/s, in "
                  "brackets, say nothing of the server; *processor*, no core was free; *waiting*, neither: one thread, the disk, or the way "
                  "there and back.", "",
                  *summary(found), ""]
        parts += [f"![{title}]({name})\n" for name, title, _ in charts(found)]
    return "\n".join([*parts, "## Figures", "", "Median (smallest to largest) of the rounds.", "", *details(found, errors, workloads)])


# --------------------------------------------------------------------------------------------------------------------- charts

def charts(found):
    """(file name, title, figure) of those that have something to show."""
    every = (("bench-throughput.svg", "Records a second, Karst to Kafka (right of the line: Karst does more; grey: the client is the limit)", "records_s"),
             ("bench-latency.svg", "Latency p99, Karst to Kafka (left of the line: Karst is quicker)", "p99_ms"),
             ("bench-cpu.svg", "Server CPU per record, Karst to Kafka (left of the line: Karst needs less)", "cpu_mrec_s"),
             ("bench-memory.svg", "Memory, Karst to Kafka (left of the line: Karst needs less)", "memory_mib"))
    return [c for c in every if any(ratio(s, c[2]) for s in found.values())]


def chart(title, rows, more_is_better):
    """Bars of (name, ratio, whether it says something) on a logarithmic axis from 1/64 to 8; out of 1 to the left or right."""
    low, high, left, width, step = -6, 3, 190, 520, 20
    height = 60 + step * len(rows)

    def x(log2):
        return left + (min(max(log2, low), high) - low) / (high - low) * width
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="100%" height="100%" fill="#fff"/><text x="10" y="20" font-size="14">{title}</text>']
    for power in range(low, high + 1):
        label = str(2 ** power) if power >= 0 else f"1/{2 ** -power}"
        out.append(f'<line x1="{x(power):.1f}" x2="{x(power):.1f}" y1="45" y2="{height - 10}" stroke="{"#333" if power == 0 else "#ddd"}"/>'
                   f'<text x="{x(power):.1f}" y="40" text-anchor="middle" fill="#666">{label}</text>')
    for i, (name, value, telling) in enumerate(rows):
        y, end = 50 + i * step, x(math.log2(value))
        good = value >= 1 if more_is_better else value <= 1
        out.append(f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{name}</text>'
                   f'<rect x="{min(end, x(0)):.1f}" y="{y + 2}" width="{max(abs(end - x(0)), 1):.1f}" height="{step - 6}" '
                   f'fill="{"#aaa" if not telling else "#2a7f9e" if good else "#d1495b"}"/><text x="{max(end, x(0)) + 4:.1f}" y="{y + 12}">{value:.2f}</text>')
    return "\n".join([*out, "</svg>", ""])


def write(lines, workloads):
    """Runs beside variants are told of in performance.md alone, unless there are no others."""
    lines = newest(lines, lambda run: not has_variants(run)) or newest(lines)
    found, _ = collect(lines)
    for name, title, figure in charts(found):
        rows = [(w, r, figure != "records_s" or not client_limits(s)) for w, s in found.items() if (r := ratio(s, figure)) is not None]
        with open(os.path.join(os.path.dirname(PAGE), name), "w", encoding="utf-8") as f:
            f.write(chart(title, rows, FIGURES[figure][1] == "more"))
    with open(PAGE, encoding="utf-8") as f:
        page = f.read()
    start, end = page.index(START) + len(START), page.index(END)
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(f"{page[:start]}\n\n{text(lines, workloads)}\n\n{page[end:]}")
