#!/usr/bin/env python3
"""Writes docs/compatibility.md from the code, so that it cannot claim what the code lacks.

  compatibility.py                    write docs/compatibility.md
  compatibility.py --check            fail when docs/compatibility.md is stale
  compatibility.py --check-honoured   fail when a key of proto/karst/honoured.txt is read nowhere in libs/ and services/

APIs come from the handler table of the front end (services/frontend/api_table.c) and the message files of proto/kafka/api, keys from
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

def versions_of(text):
    """(low, high) of "0-12" or "3"."""
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def kafka_apis():
    """{key: (name, low, high)} of the request files."""
    found = {}
    for name in glob.glob(path("proto/kafka/api/*.msg")):
        with open(name, encoding="utf-8") as f:
            head = re.search(r"^request (\w+) id (\d+) versions ([\d-]+)", f.read(), re.M)
        if head:
            found[int(head[2])] = (head[1], *versions_of(head[3]))
    return found


def main(arguments):
    if arguments == ["--check-honoured"]:
        unread = unread_keys()
        for key in unread:
            print(f"proto/karst/honoured.txt: no code reads {key}", file=sys.stderr)
        return 1 if unread else 0
    print(__doc__, file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
