#!/usr/bin/env python3
"""The notation of proto/kafka/ (its README explains it): reader, writer, and check against Kafka's own JSON.

  kafka_notation.py write JSON_DIR OUT_DIR   write OUT_DIR anew from JSON_DIR, which `tests/tools/kafka messages JSON_DIR` made
  kafka_notation.py check JSON_DIR OUT_DIR   parse OUT_DIR and compare every fact with the JSON; exit 1 on any difference
  kafka_notation.py show FILE                parse one file and print its messages as JSON, for scripts

`parse` is the reader that tools/kafka_codegen.py uses.
"""
import json
import os
import re
import sys

# Where a jar's messages go, and the word that opens their files.
FOLDERS = {"kafka-clients": "api", "kafka-metadata": "metadata", "kafka-group-coordinator": "group",
           "kafka-transaction-coordinator": "transaction", "kafka-share-coordinator": "share",
           "kafka-storage": "storage", "kafka-raft": "raft"}
SUFFIX = {"request": "Request", "response": "Response", "coordinator-key": "Key", "coordinator-value": "Value"}
BLOCK = {"request": "request", "response": "response", "coordinator-key": "key", "coordinator-value": "value",
         "header": "header", "data": "data", "metadata": "record"}
KIND = {block: kind for kind, block in BLOCK.items()}


# ---------------------------------------------------------------------------------------------------------------- JSON

def read_json(path):
    """JSON with // comments and trailing commas."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    text = re.sub(r'("(?:\\.|[^"\\])*")|//[^\n]*', lambda m: m.group(1) or "", text)
    return json.loads(re.sub(r",(\s*[\]}])", r"\1", text))


def field_facts(field):
    """The facts of one JSON field in one normal form: only what is said, defaults as text, no prose."""
    known = {"name", "type", "versions", "about", "fields", "nullableVersions", "tag", "taggedVersions", "default",
             "ignorable", "mapKey", "entityType", "zeroCopy", "flexibleVersions"}
    assert set(field) <= known, sorted(set(field) - known)
    facts = {"name": field["name"], "type": field["type"], "versions": field.get("versions", field.get("taggedVersions"))}
    if "tag" in field:
        facts["tag"], facts["tagged"] = int(field["tag"]), field["taggedVersions"]
    if "nullableVersions" in field:
        facts["null"] = field["nullableVersions"]
    if field.get("default") is not None:  # Kafka's generator reads a JSON null here as "no default"
        value = field["default"]
        facts["default"] = str(value).lower() if isinstance(value, bool) else str(value)
    if field.get("mapKey"):
        facts["key"] = True
    if field.get("ignorable"):
        facts["ignorable"] = True
    if field.get("zeroCopy"):
        facts["zerocopy"] = True
    if "entityType" in field:
        facts["entity"] = field["entityType"]
    if "flexibleVersions" in field:
        facts["flexible"] = field["flexibleVersions"]
    if "fields" in field:
        facts["fields"] = [field_facts(f) for f in field["fields"]]
    return facts


def message_facts(message):
    known = {"name", "type", "apiKey", "validVersions", "flexibleVersions", "fields", "commonStructs", "listeners",
             "latestVersionUnstable"}
    assert set(message) <= known, sorted(set(message) - known)
    facts = {"kind": message["type"], "name": message["name"], "versions": message["validVersions"],
             "fields": [field_facts(f) for f in message.get("fields", [])]}
    if "apiKey" in message:
        facts["id"] = message["apiKey"]
    if "flexibleVersions" in message:
        facts["flexible"] = message["flexibleVersions"]
    if message.get("latestVersionUnstable"):
        facts["unstable"] = True
    if "listeners" in message:
        facts["listeners"] = sorted(message["listeners"])
    if "commonStructs" in message:
        facts["structs"] = [{"name": s["name"], "versions": s["versions"], "fields": [field_facts(f) for f in s["fields"]]}
                            for s in message["commonStructs"]]
    return facts


def load_json(folder):
    """{file in the notation: [facts of a message]}, requests before responses and keys before values."""
    files = {}
    for jar, where in FOLDERS.items():
        for name in sorted(os.listdir(os.path.join(folder, jar))):
            facts = message_facts(read_json(os.path.join(folder, jar, name)))
            stem = facts["name"].removesuffix(SUFFIX.get(facts["kind"], ""))
            place = where
            if where == "api" and facts["kind"] not in ("request", "response"):
                place = "header" if facts["kind"] == "header" else "data"
            files.setdefault(f"{place}/{stem}.msg", []).append(facts)
    return files


# -------------------------------------------------------------------------------------------------------------- writing

def field_lines(fields, depth):
    """[(declaration, versions, attributes)] of fields and, indented below them, of their structs."""
    for f in fields:
        attributes = []
        if "tag" in f:
            attributes.append(f"tag {f['tag']}" + (f" in {f['tagged']}" if f["tagged"] != f["versions"] else ""))
        if "null" in f:
            attributes.append(f"null {f['null']}")
        if "default" in f:
            text = f["default"]
            attributes.append("default " + (json.dumps(text) if f["type"] == "string" and text != "null" else text))
        attributes += [word for word in ("key", "ignorable", "zerocopy") if f.get(word)]
        if "entity" in f:
            attributes.append(f"entity {f['entity']}")
        if "flexible" in f:
            attributes.append(f"flexible {f['flexible']}")
        yield "  " * depth + f"{f['name']}: {f['type']}", f["versions"], ", ".join(attributes)
        yield from field_lines(f.get("fields", []), depth + 1)


def columns(rows):
    rows = list(rows)
    width = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    for row in rows:
        yield f"{row[0]:<{width[0]}}  {row[1]:<{width[1]}}  {row[2]}".rstrip()


def render(stem, messages):
    first = messages[0]
    kind, lines = first["kind"], []
    if kind in SUFFIX:
        word = "api" if kind in ("request", "response") else "coordinator"
        lines.append(f"{word} {stem} {first['id']}")
        assert all(m["id"] == first["id"] for m in messages)
    for m in messages:
        head = [BLOCK[m["kind"]]]
        if m["kind"] not in SUFFIX:
            head[0] += " " + m["name"] + (f" {m['id']}" if "id" in m else "")
        head.append(f"versions {m['versions']}")
        if "flexible" in m:
            head.append(f"flexible {m['flexible']}")
        if m.get("unstable"):
            head.append("latest unstable")
        if "listeners" in m:
            head.append("listeners " + " ".join(m["listeners"]))
        lines += ["", ", ".join([head[0] + " " + head[1]] + head[2:])]
        lines += columns(field_lines(m["fields"], 1))
        for s in m.get("structs", []):
            lines += ["", f"  struct {s['name']} versions {s['versions']}"]
            lines += columns(field_lines(s["fields"], 2))
    return "\n".join(lines).lstrip("\n") + "\n"


# -------------------------------------------------------------------------------------------------------------- parsing

FIELD = re.compile(r"( +)([A-Za-z0-9]+): (\[\])?([A-Za-z0-9]+) +([0-9+-]+|none)(?:  +(.*))?")
HEAD = re.compile(r"(request|response|key|value|header|data|record)(?: ([A-Za-z]+))?(?: (\d+))? versions (\S+?)(?:, (.*))?")
STRUCT = re.compile(r"  struct ([A-Za-z]+) versions (\S+)")
TITLE = re.compile(r"(api|coordinator) ([A-Za-z]+) (\d+)")


def parse_attributes(field, text):
    for word in re.findall(r'(?:[^,"]|"[^"]*")+', text or ""):
        name, _, rest = word.strip().partition(" ")
        if name == "tag":
            number, _, versions = rest.partition(" in ")
            field["tag"], field["tagged"] = int(number), versions or field["versions"]
        elif name == "default":
            field["default"] = json.loads(rest) if rest.startswith('"') else rest
        elif name in ("null", "entity", "flexible"):
            field[name] = rest
        elif name in ("key", "ignorable", "zerocopy") and not rest:
            field[name] = True
        else:
            raise ValueError(f"unknown attribute '{word}'")


def parse_head(match, title):
    block, name, number, versions, rest = match.groups()
    message = {"kind": KIND[block], "versions": versions, "fields": []}
    if title:
        message["name"], message["id"] = title[1] + SUFFIX[KIND[block]], int(title[2])
    else:
        message["name"] = name
        if number:
            message["id"] = int(number)
    for word in (rest or "").split(", ") if rest else []:
        if word == "latest unstable":
            message["unstable"] = True
        elif word.startswith("flexible "):
            message["flexible"] = word[9:]
        elif word.startswith("listeners "):
            message["listeners"] = sorted(word.split()[1:])
        else:
            raise ValueError(f"unknown word '{word}'")
    return message


def parse(text):
    """The facts of every message of a file, in the form that message_facts gives."""
    messages, title, stack = [], None, []  # stack: the lists of fields that are open, outermost first
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if match := TITLE.fullmatch(line):
            title = match.groups()
        elif match := HEAD.fullmatch(line):
            messages.append(parse_head(match, title))
            base, stack = 1, [messages[-1]["fields"]]
        elif match := STRUCT.fullmatch(line):
            messages[-1].setdefault("structs", []).append({"name": match[1], "versions": match[2], "fields": []})
            base, stack = 2, [messages[-1]["structs"][-1]["fields"]]
        elif (match := FIELD.fullmatch(line)) and stack:
            depth = len(match[1]) // 2 - base
            if depth == len(stack):  # one deeper: the struct of the field above
                stack.append(stack[-1][-1].setdefault("fields", []))
            if len(match[1]) % 2 or not 0 <= depth < len(stack):
                raise ValueError(f"line {number}: wrong indentation: {line}")
            del stack[depth + 1:]
            field = {"name": match[2], "type": (match[3] or "") + match[4], "versions": match[5]}
            parse_attributes(field, match[6])
            stack[-1].append(field)
        else:
            raise ValueError(f"line {number}: not understood: {line}")
    return messages


# ------------------------------------------------------------------------------------------------------------- commands

def parse_folder(folder):
    files = {}
    for where, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".msg"):
                path = os.path.join(where, name)
                with open(path, encoding="utf-8") as f:
                    files[os.path.relpath(path, folder)] = parse(f.read())
    return files


def write(source, target):
    for path in parse_folder(target):
        os.remove(os.path.join(target, path))
    files = load_json(source)
    for path, messages in files.items():
        os.makedirs(os.path.dirname(os.path.join(target, path)), exist_ok=True)
        with open(os.path.join(target, path), "w", encoding="utf-8") as f:
            f.write(render(os.path.basename(path)[:-4], messages))
    print(f"{sum(map(len, files.values()))} messages in {len(files)} files")


def differences(path, want, have):
    if type(want) is not type(have):
        yield f"{path}: {want!r} became {have!r}"
    elif isinstance(want, dict):
        for name in sorted(set(want) | set(have)):
            yield from differences(f"{path}.{name}", want.get(name), have.get(name))
    elif isinstance(want, list) and len(want) == len(have):
        for i, (a, b) in enumerate(zip(want, have)):
            yield from differences(f"{path}[{a['name'] if isinstance(a, dict) else i}]", a, b)
    elif want != have:
        yield f"{path}: {want!r} became {have!r}"


def count(node):
    if isinstance(node, dict):
        return sum(count(v) for v in node.values())
    return sum(map(count, node)) if isinstance(node, list) else 1


def check(source, target):
    want, have = load_json(source), parse_folder(target)
    wrong = list(differences("", want, have))
    print("\n".join(wrong + [f"{sum(map(len, want.values()))} messages, {count(want)} facts, {len(wrong)} differences"]))
    return 1 if wrong else 0


def main(arguments):
    if len(arguments) == 3 and arguments[0] in ("write", "check"):
        return {"write": write, "check": check}[arguments[0]](*arguments[1:])
    if len(arguments) == 2 and arguments[0] == "show":
        with open(arguments[1], encoding="utf-8") as f:
            print(json.dumps(parse(f.read()), indent=1))
        return 0
    print(__doc__, file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
