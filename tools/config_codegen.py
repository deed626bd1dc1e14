#!/usr/bin/env python3
"""Writes the C table behind libs/config/keys.h.

  config_codegen.py OUT.c KAFKA_TSV KARST_TSV HONOURED

The TSV files hold one key a line (proto/kafka/config.tsv says the columns in its first line). As a library, read_keys and
read_honoured give the same facts to tools/compatibility.py and to the tests.
"""
import re
import sys

SCOPES = {"broker": "CONFIG_BROKER", "topic": "CONFIG_TOPIC", "group": "CONFIG_GROUP", "client-metrics": "CONFIG_CLIENT_METRICS",
          "user": "CONFIG_USER", "user, client-id": "CONFIG_CLIENT_USER", "ip": "CONFIG_IP", "broker-quota": "CONFIG_BROKER_QUOTA",
          "karst": "CONFIG_KARST"}
TYPES = {"boolean", "string", "int", "short", "long", "double", "list", "class", "password"}
UPDATES = {"read-only": "CONFIG_READ_ONLY", "per-broker": "CONFIG_PER_BROKER", "cluster-wide": "CONFIG_CLUSTER_WIDE"}


def read_keys(path):
    with open(path, encoding="utf-8") as f:
        lines = f.read().splitlines()
    names = lines[0].split("\t")
    return [dict(zip(names, line.split("\t"))) for line in lines[1:] if line]


def read_honoured(path):
    """{(scope, key): text}"""
    honoured = {}
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.split("#")[0].strip()
            if not line:
                continue
            parts = line.split(None, 2)
            if len(parts) != 3 or parts[0] not in SCOPES:
                sys.exit(f"{path}:{number}: expected 'SCOPE KEY TEXT', not '{line}'")
            if (parts[0], parts[1]) in honoured:
                sys.exit(f"{path}:{number}: {parts[0]} {parts[1]} is there twice")
            honoured[parts[0], parts[1]] = parts[2]
    return honoured


def literal(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def rule(key):
    """(rule, min, max, other, choices)"""
    valid, low, high = key["valid"], "-1e308", "1e308"
    if valid in ("", "non-null string", "non-empty string", "non-empty list"):
        return "CONFIG_ANY", "0", "0", "0", None
    if valid.startswith("[partitionId]"):
        return "CONFIG_THROTTLED", "0", "0", "0", None
    if "by_duration" in valid:
        return "CONFIG_OFFSET_RESET", "0", "0", "0", None
    if (found := re.fullmatch(r"\[(-?\d+),\.\.\.(?:,(-?\d+))?\](?: or (-?\d+))?", valid)):
        low, high, other = found[1], found[2] or high, found[3]
        return "CONFIG_RANGE_OR" if other else "CONFIG_RANGE", low, high, other or "0", None
    if (found := re.fullmatch(r"(\(case insensitive\) )?\[(.*)\]", valid)):
        kind = "CONFIG_ONE_OF_NOCASE" if found[1] else "CONFIG_ONE_OF"
        return kind, "0", "0", "0", [c.strip() for c in found[2].split(",")]
    sys.exit(f"{key['name']}: what does the range '{valid}' mean?")


def rank(name):
    """Kafka's order among the keys of one setting: the smallest unit first, the scheduler's key last."""
    return 3 if "scheduler" in name else 1 if name.endswith(".minutes") else 2 if name.endswith(".hours") else 0


def synonyms(key):
    """[(name, factor)], highest first; for a broker key with itself."""
    found = []
    for part in filter(None, (p.strip() for p in key.get("synonyms", "").split(","))):
        name, _, factor = part.partition(" x ")
        found.append((name, int(factor or 1)))
    if found and key["scope"] == "broker":
        found = sorted(found + [(key["name"], 1)], key=lambda s: rank(s[0]))
    return found


def generate(keys, honoured):
    known = {(k["scope"], k["name"]) for k in keys}
    for entry in honoured:
        if entry not in known:
            sys.exit(f"honoured: there is no {entry[0]} key {entry[1]}")
    order = list(SCOPES)
    keys = sorted(keys, key=lambda k: (order.index(k["scope"]), k["name"].encode()))
    arrays, rows, texts, ends = {}, [], [], {}

    def array(kind, text):
        return arrays.setdefault((kind, text), f"{kind}_{len(arrays)}") if text else "NULL"

    for i, key in enumerate(keys):
        ends[key["scope"]] = i + 1
        kind, low, high, other, choices = rule(key)
        flags = key.get("flags", "")
        default = key["default"].replace("<tmp>", "/tmp")
        shown = "NULL" if default in ("null", "(required)") else '""' if default == '""' else literal(default)
        if key["type"] not in TYPES:
            sys.exit(f"{key['name']}: no type '{key['type']}'")
        alike = array("synonyms", "".join(f"{{{literal(n)}, {f}}}, " for n, f in synonyms(key)))
        picks = array("choices", ", ".join(map(literal, choices)) if choices else "")
        rows.append(f"""    {{.name = {literal(key['name'])}, .default_value = {shown}, .valid = {literal(key['valid'])},
     .choices = {picks}, .synonyms = {alike}, .min = {low}, .max = {high}, .other = {other}, .scope = {SCOPES[key['scope']]},
     .type = CONFIG_TYPE_{key['type'].upper()}, .rule = {kind}, .update = {UPDATES.get(key['update'], 'CONFIG_PER_RESOURCE')},
     .required = {str(default == '(required)').lower()}, .internal = {str('internal' in flags).lower()},
     .deprecated = {str('deprecated' in flags).lower()}, .sensitive = {str('sensitive' in flags).lower()},
     .honoured = {str((key['scope'], key['name']) in honoured).lower()}}},""")
        text = honoured.get((key["scope"], key["name"]))
        texts.append(f"    {literal(text[:1].upper() + text[1:] + '.') if text else 'NULL'},")
    out = ["/* Written by tools/config_codegen.py. */", '#include "libs/config/table.h"', ""]
    for (kind, text), name in arrays.items():
        if kind == "synonyms":
            out.append(f"static const struct config_synonym {name}[] = {{{text}{{NULL, 0}}}};")
        else:
            out.append(f"static const char *const {name}[] = {{{text}, NULL}};")
    out += ["", "const struct config_key config_table[] = {", *rows, "};", "", "const char *const config_table_texts[] = {", *texts, "};", ""]
    out.append("const size_t config_table_ends[CONFIG_SCOPES] = {")
    end = 0
    for scope, name in SCOPES.items():
        end = ends.get(scope, end)
        out.append(f"    [{name}] = {end},")
    return "\n".join(out + ["};", ""])


def main(arguments):
    if len(arguments) != 4:
        print(__doc__, file=sys.stderr)
        return 64
    out, kafka, karst, honoured = arguments
    text = generate(read_keys(kafka) + read_keys(karst), read_honoured(honoured))
    with open(out, "w", encoding="utf-8") as f:
        f.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
