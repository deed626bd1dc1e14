"""flame.py - where a server's CPU went, from what perf recorded: a flame graph (SVG) a process, and its larger blocks as text."""
import collections
import html
import os
import re
import subprocess

from systems import ROOT

FOLDER = os.path.join(ROOT, "docs", "profiles")
NOTES = os.path.join(FOLDER, "blocks.txt")
WIDTH, STEP = 1200, 17          # pixels
DRAWN, SHOWN = 0.005, 0.03      # parts of a process's samples: drawn from here on; named in the text
EVERYWHERE = {"[unknown]", "_start", "__libc_start_main@@GLIBC_2.34", "__libc_start_call_main", "start_thread", "__clone3", "main", "service_run", "loop_run",
              "uv_run", "entry_SYSCALL_64_after_hwframe", "do_syscall_64", "x64_sys_call"}  # and not shown where others share the block
SAME = 0.9                      # a callee with this part of its caller is shown in one line with it


def stacks(path, processes):
    """{process: {(outermost function, ...): samples}}; a thread's name comes first where it is not the process's. processes: {pid: name}"""
    out = subprocess.run(["perf", "script", "-i", path, "-F", "comm,pid,ip,sym"], capture_output=True, text=True, check=True).stdout
    found = collections.defaultdict(collections.Counter)
    for block in out.split("\n\n"):
        lines = block.strip("\n").splitlines()
        head = re.match(r"^(.*?)\s+(\d+)\s*$", lines[0]) if lines else None
        if not head or int(head[2]) not in processes:
            continue
        process, thread = processes[int(head[2])], head[1].strip()
        frames = [re.sub(r"^\s*[0-9a-f]+ ", "", line).strip() or "?" for line in lines[1:]]
        found[process][(*([] if thread == process else [thread]), *reversed(frames))] += 1
    return found


def nested(found):
    """A tree of [samples, {name: tree}]."""
    root = [0, {}]
    for stack, n in found.items():
        node = root
        node[0] += n
        for name in stack:
            node = node[1].setdefault(name, [0, {}])
            node[0] += n
    return root


def depth(node, least):
    return 1 + max((depth(child, least) for child in node[1].values() if child[0] >= least), default=0)


def draw(node, name, x, level, total, out):
    width = node[0] / total * WIDTH
    text = html.escape(name)
    shown = html.escape(name[:int(width / 7)]) if width > 30 else ""
    out.append(f'<g><title>{text}: {100 * node[0] / total:.1f} %</title><rect x="{x:.1f}" y="{level * STEP + 30}" width="{width:.1f}" '
               f'height="{STEP - 1}" fill="hsl({hash_of(name)},70%,70%)"/>'
               + (f'<text x="{x + 2:.1f}" y="{level * STEP + 42}">{shown}</text>' if shown else "") + "</g>")
    for child in sorted(node[1]):
        if node[1][child][0] >= DRAWN * total:
            draw(node[1][child], child, x, level + 1, total, out)
        x += node[1][child][0] / total * WIDTH


def hash_of(name):
    """A warm hue that is the same in each run."""
    return sum(map(ord, name)) * 7 % 60


def picture(root, title):
    total = max(root[0], 1)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{depth(root, DRAWN * total) * STEP + 40}" font-family="monospace" '
           f'font-size="11">',
           f'<rect width="100%" height="100%" fill="#fff"/><text x="5" y="18" font-size="14">{html.escape(title)}: {root[0]} samples</text>']
    draw(root, "all", 0, 0, total, out)
    return "\n".join([*out, "</svg>", ""])


def blocks(node, total, said, level=0):
    """Lines: the blocks of at least SHOWN, each with its part, the functions that share it, and what is known of one of them."""
    lines = []
    for name, child in sorted(node[1].items(), key=lambda e: -e[1][0]):
        if child[0] < SHOWN * total:
            continue
        chain, part = [name], child[0]
        while len(child[1]) > 0:
            inner, its = max(child[1].items(), key=lambda e: e[1][0])
            if its[0] < SAME * part:
                break
            chain.append(inner)
            child = its
        shown = [f for f in chain if f not in EVERYWHERE] or chain[-1:]
        shown = shown if len(shown) < 7 else [*shown[:3], "...", *shown[-2:]]
        sentence = next((said[f] for f in reversed(chain) if f in said), "")
        lines.append(f"{'  ' * level}- {100 * part / total:.1f} % `{' '.join(shown)}`" + (f": {sentence}" if sentence else ""))
        lines += blocks(child, total, said, level + 1)
    return lines


def running(found, count=12):
    """Lines: the functions that were running themselves."""
    total, functions = sum(found.values()) or 1, collections.Counter()
    for stack, n in found.items():
        functions[stack[-1]] += n
    return [f"{100 * n / total:.1f} % `{name}`" for name, n in functions.most_common(count) if n >= 0.01 * total]


def notes():
    """{function: sentence} of lines "function: sentence"; # begins a comment."""
    if not os.path.exists(NOTES):
        return {}
    with open(NOTES, encoding="utf-8") as f:
        return dict(re.findall(r"^([^#:\n][^:\n]*): *(.+)$", f.read(), re.M))


def write(base, title, processes):
    """BASE.perf to BASE-PROCESS.svg and .md, for each process with a hundredth of the samples."""
    every, said, made = stacks(base + ".perf", processes), notes(), []
    total = sum(sum(found.values()) for found in every.values())
    for process, found in sorted(every.items(), key=lambda e: -sum(e[1].values())):
        samples = sum(found.values())
        if samples < 0.01 * total:
            continue
        root = nested(found)
        path = f"{base}-{process.removeprefix('karst-')}"
        with open(path + ".svg", "w", encoding="utf-8") as f:
            f.write(picture(root, f"{title}, {process}"))
        with open(path + ".md", "w", encoding="utf-8") as f:
            f.write("\n".join([f"`{process}` has {100 * samples / total:.0f} % of the samples of all processes ({samples}).", "",
                               *blocks(root, max(root[0], 1), said), "", f"Running themselves: {', '.join(running(found))}.", ""]))
        made.append(path)
    return made


def publish(made, about):
    """Pictures and text of [(workload, [path without its suffix])] into docs/profiles/, with a page. What is there of other runs goes."""
    os.makedirs(FOLDER, exist_ok=True)
    for name in os.listdir(FOLDER):
        if name.endswith(".svg"):
            os.remove(os.path.join(FOLDER, name))
    page = ["# Profiles", "", "Flame graphs of the front end and the storage node under the main workloads, and below each its blocks of at least 3 %, callers",
            "above what they call; functions that share a block stand in one line. Kernel functions count to the process that called. Blocks below 0.5 %",
            "are not drawn. Made by `scripts/bench --profile --write`; what is said of a block comes from [blocks.txt](blocks.txt).", "", *about, ""]
    for workload, paths in made:
        page += [f"## {workload}", ""]
        for path in paths:
            process = path.rsplit("-", 1)[-1]
            if process not in ("frontend", "storage"):
                continue
            name = f"{workload}-{process}.svg"
            with open(path + ".svg", encoding="utf-8") as source, open(os.path.join(FOLDER, name), "w", encoding="utf-8") as to:
                to.write(source.read())
            with open(path + ".md", encoding="utf-8") as f:
                page += [f"### {workload}, {process}", "", f"![{workload}, {process}]({name})", "", f.read()]
    with open(os.path.join(FOLDER, "README.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(page))
