#!/usr/bin/env python3
"""Writes docs/compatibility.md from the code, so that it cannot claim what the code lacks.

  compatibility.py                    write the generated part of docs/compatibility.md
  compatibility.py --check            fail when that part is stale
  compatibility.py --check-honoured   fail when a key of proto/karst/honoured.txt is read nowhere in libs/ and services/

APIs come from the handlers of the front end (services/frontend/api_list.h and api_*.c) and the message files of proto/kafka/api, keys from
proto/kafka/config.tsv and proto/karst/honoured.txt.
"""
import glob
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tools"))
import config_codegen


def path(*parts):
    return os.path.join(ROOT, *parts)


def read(*parts):
    with open(path(*parts), encoding="utf-8") as f:
        return f.read()


def facts():
    keys = config_codegen.read_keys(path("proto/kafka/config.tsv")) + config_codegen.read_keys(path("proto/karst/config.tsv"))
    return keys, config_codegen.read_honoured(path("proto/karst/honoured.txt"))


# -------------------------------------------------------------------------------------------------------------- honoured keys

def sources():
    for pattern in ("libs/*/*.[ch]", "services/*/*.[ch]"):
        for name in sorted(glob.glob(path(pattern))):
            with open(name, encoding="utf-8") as f:
                yield name, f.read()


def unread_keys():
    """Honoured keys that no code names, neither themselves nor through the topic or group key that they stand in for."""
    keys, honoured = facts()
    text = "\n".join(body for _, body in sources())
    literals = set(re.findall(r'"([a-z][a-z0-9.]+)"', text))
    stands_for = {}
    for key in keys:
        if key["scope"] in ("topic", "group") and (key["scope"], key["name"]) in honoured and key["name"] in literals:
            for name, _ in config_codegen.synonyms(key):
                stands_for[name] = key["name"]
    return [f"{scope} {name}" for scope, name in honoured
            if name not in literals and not (scope == "broker" and name in stands_for)]


# ------------------------------------------------------------------------------------------------------------------------ APIs

# Versions that Kafka 4.3.1 knows and does not show unless unstable.api.versions.enable is set: the last stable one.
STABLE = {22: 5}


def kafka_apis():
    """{key: (name, first version, last version, listeners)}"""
    found = {}
    for name in glob.glob(path("proto/kafka/api/*.msg")):
        with open(name, encoding="utf-8") as f:
            head = re.search(r"^api (\w+) (\d+)\n.*?^request versions (\d+)(?:-(\d+))?\b(.*?)$", f.read(), re.M | re.S)
        if head:
            listeners = re.search(r"listeners ([\w ]+)", head[5])
            found[int(head[2])] = (head[1], int(head[3]), STABLE.get(int(head[2]), int(head[4] or head[3])),
                                   listeners[1] if listeners else "")
    return found


def handled_apis():
    """{name in the list: (first version, last version, is it served at controller listeners)} of the front end's handlers."""
    listed = re.findall(r"^\s*X\((\w+)\)", read("services/frontend/api_list.h"), re.M)
    text = "\n".join(body for name, body in sources() if "/services/frontend/" in name)
    found = {}
    for name in listed:
        handler = re.search(rf"const struct api_handler api_{name} = \{{(.*?)\}};", text, re.S)
        if not handler:
            sys.exit(f"services/frontend/api_list.h has {name}, and there is no api_{name}")
        fields = dict(re.findall(r"\.(\w+) = (\w+)", handler[1]))
        key = fields["key"].removeprefix("KAFKA_API_").replace("_", "").lower()
        found[key] = (int(fields["version_min"]), int(fields["version_max"]), "at_controllers" in fields)
    return found


def versions(low, high):
    return f"{low}" if low == high else f"{low}–{high}"


def api_table():
    handled = handled_apis()
    served, missing = [], []
    for key, (name, low, high, listeners) in sorted(kafka_apis().items()):
        ours = handled.pop(name.lower(), None)
        if ours:
            whole = "all" if ours[:2] == (low, high) else f"of {versions(low, high)}"
            served.append(f"| {name} | {key} | {versions(*ours[:2])} | {whole} | {'yes' if ours[2] else ''} |")
        elif "broker" in listeners:
            missing.append(f"{name} ({key})")
    if handled:
        sys.exit(f"handlers of no API of Kafka's: {', '.join(handled)}")
    return ["## APIs", "", f"{len(served)} APIs are served and advertised in ApiVersions:", "",
            "| API | key | versions | of Kafka 4.3.1's | also at controller listeners |", "|---|---|---|---|---|", *served, "",
            "Not served, and not advertised; a request closes the connection, as Kafka does with an API that it does not know:", "",
            wrapped(", ".join(missing) + "."), ""]


def wrapped(text, width=120):
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


# ------------------------------------------------------------------------------------------------------------------------ keys

def key_tables():
    keys, honoured = facts()
    out = []
    for scope, title in (("broker", "Keys of server.properties"), ("topic", "Topic keys"), ("group", "Group keys"),
                         ("karst", "Keys of Karst's own")):
        mine = [k for k in keys if k["scope"] == scope and "internal" not in k["flags"]]
        rows = [k for k in mine if (scope, k["name"]) in honoured]
        out += [f"## {title}", "", f"{len(rows)} of {len(mine)} are honoured.", ""]
        if rows:
            out += ["| key | default | what it governs |", "|---|---|---|"]
            out += [f"| `{k['name']}` | {k['default']} | {honoured[scope, k['name']]} |" for k in rows] + [""]
        others = [f"`{k['name']}`" for k in mine if (scope, k["name"]) not in honoured]
        if others:
            what = {"broker": "`karst up` warns of them in a file; while running they are refused (40), but for the value that they have", "topic": "refused, but for their defaults"}.get(
                scope, "accepted, kept and shown, without effect")
            out += [f"Not honoured yet ({what}):", "", wrapped(", ".join(others) + "."), ""]
    return out


# ------------------------------------------------------------------------------------------------------------------------ page

START, END = "<!-- generated by tools/compatibility.py from here -->", "<!-- to here -->"


def page():
    text = read("docs/compatibility.md")
    start, end = text.index(START) + len(START), text.index(END)
    return text, text[:start] + "\n\n" + "\n".join([*api_table(), *key_tables()]) + text[end:]


def main(arguments):
    if arguments == ["--check-honoured"]:
        unread = unread_keys()
        for key in unread:
            print(f"proto/karst/honoured.txt: no code reads {key}", file=sys.stderr)
        return 1 if unread else 0
    if arguments == ["--check"]:
        old, new = page()
        if old != new:
            print("docs/compatibility.md is stale: run tools/compatibility.py", file=sys.stderr)
        return int(old != new)
    if arguments:
        print(__doc__, file=sys.stderr)
        return 64
    _, new = page()
    with open(path("docs/compatibility.md"), "w", encoding="utf-8") as f:
        f.write(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
