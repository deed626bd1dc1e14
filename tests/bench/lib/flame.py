"""flame.py - where a server's CPU went, from what perf recorded: a flame graph (SVG), and a table of symbols a process."""
import collections
import html
import re
import subprocess

WIDTH, STEP, NARROWEST = 1200, 17, 0.4  # pixels


def stacks(path):
    """{(thread, outermost function, ...): samples}"""
    out = subprocess.run(["perf", "script", "-i", path, "-F", "comm,ip,sym"], capture_output=True, text=True, check=True).stdout
    found = collections.Counter()
    for block in out.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if lines:
            frames = [re.sub(r"^\s*[0-9a-f]+ ", "", line).strip() or "?" for line in lines[1:]]
            found[(lines[0].strip(), *reversed(frames))] += 1
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


def depth(node):
    return 1 + max(map(depth, node[1].values()), default=0)


def draw(node, name, x, level, scale, total, out):
    width = node[0] * scale
    if width < NARROWEST:
        return
    text = html.escape(name)
    shown = html.escape(name[:int(width / 7)]) if width > 30 else ""
    out.append(f'<g><title>{text}: {100 * node[0] / total:.1f} %</title><rect x="{x:.1f}" y="{level * STEP + 30}" width="{width:.1f}" '
               f'height="{STEP - 1}" fill="hsl({hash_of(name)},70%,70%)"/><text x="{x + 2:.1f}" y="{level * STEP + 42}">{shown}</text></g>')
    for child in sorted(node[1]):
        draw(node[1][child], child, x, level + 1, scale, total, out)
        x += node[1][child][0] * scale


def hash_of(name):
    """A warm hue that is the same in each run."""
    return sum(map(ord, name)) * 7 % 60


def symbols(found):
    """Lines: per thread name its part of all samples; what of it was in which system call; and the functions that were running."""
    total = sum(found.values()) or 1
    threads, calls = collections.defaultdict(collections.Counter), collections.defaultdict(collections.Counter)
    for stack, n in found.items():
        threads[stack[0]][stack[-1] if len(stack) > 1 else "?"] += n
        entry = next((i for i, f in enumerate(stack) if f == "do_syscall_64"), len(stack))
        call = re.sub("^__(x64_)?sys_|^do_", "", stack[entry + 1]) if entry + 1 < len(stack) else None
        calls[stack[0]][f"in {call}" if call else "outside of system calls"] += n
    lines = []
    for thread, functions in sorted(threads.items(), key=lambda t: -sum(t[1].values())):
        lines.append(f"{100 * sum(functions.values()) / total:5.1f} %  {thread}")
        lines += [f"    {100 * n / total:5.1f} %  {name}" for name, n in calls[thread].most_common(8)] + ["    --"]
        lines += [f"    {100 * n / total:5.1f} %  {name}" for name, n in functions.most_common(25)]
    return lines


def write(base, title):
    """BASE.perf to BASE.svg and BASE.txt."""
    found = stacks(base + ".perf")
    root = nested(found)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{depth(root) * STEP + 40}" font-family="monospace" font-size="11">',
           f'<rect width="100%" height="100%" fill="#fff"/><text x="5" y="18" font-size="14">{html.escape(title)}: {root[0]} samples</text>']
    draw(root, "all", 0, 0, WIDTH / max(root[0], 1), max(root[0], 1), out)
    with open(base + ".svg", "w", encoding="utf-8") as f:
        f.write("\n".join([*out, "</svg>", ""]))
    with open(base + ".txt", "w", encoding="utf-8") as f:
        f.write("\n".join([title, *symbols(found), ""]))
