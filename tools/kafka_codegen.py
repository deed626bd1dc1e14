#!/usr/bin/env python3
"""Makes the C side of the protocol from proto/kafka/ and proto/karst/ (docs/wire.md).

  kafka_codegen.py list PROTO_DIR            print the files that `make` writes, one a line, relative to OUT_DIR
  kafka_codegen.py make PROTO_DIR OUT_DIR    write them (a file whose content stays the same is not touched)

Per .msg file one header with the structs; in wire_tables.c the field tables that libs/wire interprets, in wire_types.c one
struct wire_type a struct, and the tables of messages and APIs. The tables hold numbers, no pointers: they need no relocation
and are shared between processes. What the notation can say but Kafka never does is refused here: see Refused.
"""
import os
import re
import sys

import kafka_notation

FOLDERS = ["api", "header", "data", "metadata", "group", "transaction", "share", "storage", "raft", "karst"]
PLAIN_FOLDERS = ("api", "header", "data", "metadata")  # the others' headers have the folder's name in front
LAST = 127  # "7+": to the last version
NONE = (1, 0)
SCALARS = {"bool": "bool", "int8": "int8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t",
           "uint32": "uint32_t", "int64": "int64_t", "float64": "double", "uuid": "struct uuid", "string": "struct slice",
           "bytes": "struct slice", "records": "struct slice"}
FIXED_SIZE = {"bool": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "float64": 8, "uuid": 16}
KEYWORDS = {"auto", "bool", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern",
            "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed",
            "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while"}


class Refused(Exception):
    """The notation says something that the engine cannot do."""


def require(condition, text):
    if not condition:
        raise Refused(text)


def snake(name):
    name = name.replace("KRaft", "Kraft")
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"([A-Z])([A-Z][a-z])", r"\1_\2", name).lower()


def versions(text):
    """(first, last) of "3", "0-4", "7+" or "none"."""
    if text is None or text == "none":
        return NONE
    if text.endswith("+"):
        return int(text[:-1]), LAST
    first, _, last = text.partition("-")
    return int(first), int(last or first)


# ---------------------------------------------------------------------------------------------------------------- model

class Field:
    def __init__(self, facts, where):
        self.name = facts["name"]
        self.where = f"{where}.{self.name}"
        self.member = snake(self.name) + ("_" if snake(self.name) in KEYWORDS else "")
        self.array = facts["type"].startswith("[]")
        self.type = facts["type"].removeprefix("[]")
        self.struct = None if self.type in SCALARS else self.type
        self.versions, self.text = versions(facts["versions"]), facts["versions"]
        self.null, self.null_text = versions(facts.get("null")), facts.get("null")
        self.tag = facts.get("tag", -1)
        require(self.tag < 0 or facts["tagged"] == facts["versions"], f"{self.where}: tagged in some of its versions only")
        require(self.tag <= LAST, f"{self.where}: tag above {LAST}")
        self.old_encoding = facts.get("flexible") == "none"
        self.ignorable = facts.get("ignorable", False)
        self.nullable = self.null != NONE
        self.pointer = bool(self.struct) and not self.array and self.nullable
        self.default = self.default_number(facts.get("default"))
        self.default_text = facts.get("default")

    def default_number(self, text):
        """Numbers as they are; for what can be null: -1 null, 0 empty."""
        if text is None:
            return 0
        if text == "null":
            require(self.nullable, f"{self.where}: null is no value of it")
            return -1
        if self.array or self.struct or self.type in ("uuid", "bytes", "records", "float64"):
            raise Refused(f"{self.where}: default '{text}'")
        if self.type == "bool":
            return int({"true": True, "false": False}[text])
        if self.type == "string":
            require(text == "", f"{self.where}: a string's default is null or empty")
            return 0
        return int(text, 0)

    def min_size(self, message, version):
        """The fewest bytes of the field's value, untagged, at a version (None: the bus)."""
        flexible = version is None or message.is_flexible(version) and not self.old_encoding
        null = self.nullable if version is None else self.null[0] <= version <= self.null[1]
        if self.array:
            return 1 if flexible else 4
        if self.pointer and null:
            return 1
        if self.struct:
            return message.structs[self.struct].min_size(message, version)
        if self.type in FIXED_SIZE:
            return FIXED_SIZE[self.type]
        return 1 if flexible else 2 if self.type == "string" else 4


class Struct:
    def __init__(self, name, c_name, fields):
        self.name, self.c_name = name, c_name
        self.fields = fields
        self.plain = [f for f in fields if f.tag < 0]
        self.tagged = sorted((f for f in fields if f.tag >= 0), key=lambda f: f.tag)
        self.index = None
        require(len({f.tag for f in self.tagged}) == len(self.tagged), f"{c_name}: a tag twice")
        members = [m for f in fields for m in ([f.member, f.member + "_count"] if f.array else [f.member])]
        require(len(set(members)) == len(members), f"{c_name}: two members of one name")

    def min_size(self, message, version):
        fields = self.fields if version is None else [f for f in self.plain if f.versions[0] <= version <= f.versions[1]]
        tags = 1 if version is None or message.is_flexible(version) else 0
        return sum(f.min_size(message, version) for f in fields) + tags


class Message:
    def __init__(self, facts, folder):
        self.name, self.folder, self.kind = facts["name"], folder, facts["kind"]
        self.prefix = snake(self.name) if folder == "karst" else "kafka_" + snake(self.name)
        self.id = facts.get("id", -1)
        self.versions = versions(facts["versions"])
        self.flexible = versions(facts.get("flexible"))
        self.unstable = facts.get("unstable", False)
        self.listeners = facts.get("listeners", [])
        require(self.versions[1] < LAST and self.flexible[1] in (0, LAST), f"{self.name}: versions")
        self.structs = {}  # by the notation's name, what it is made of first
        self.shared = {s["name"]: s["fields"] for s in facts.get("structs", [])}
        self.open = set()
        self.root = self.add_struct(self.name, self.prefix, facts["fields"])

    def is_flexible(self, version):
        return self.flexible[0] <= version <= self.flexible[1]

    def add_struct(self, name, c_name, facts):
        require(name not in self.open, f"{self.name}: {name} contains itself")
        require(name not in self.structs, f"{self.name}: struct {name} twice")
        self.open.add(name)
        fields = []
        for f in facts:
            field = Field(f, f"{self.name}.{name}" if name != self.name else name)
            if field.struct and "fields" in f:
                self.add_struct(field.struct, f"{self.prefix}_{snake(field.struct)}", f["fields"])
            elif field.struct and field.struct not in self.structs:
                require(field.struct in self.shared, f"{field.where}: no struct {field.struct}")
                self.add_struct(field.struct, f"{self.prefix}_{snake(field.struct)}", self.shared[field.struct])
            fields.append(field)
        self.open.remove(name)
        struct = self.structs[name] = Struct(name, c_name, fields)
        self.check_struct(struct)
        return struct

    def check_struct(self, struct):
        for field in struct.fields:
            if field.tag >= 0 and self.holds_records(field):
                raise Refused(f"{field.where}: records inside a tagged field")
            if field.array and field.struct:
                for version in range(max(self.versions[0], field.versions[0]), min(self.versions[1], field.versions[1]) + 1):
                    require(self.structs[field.struct].min_size(self, version) > 0, f"{field.where}: elements without bytes")
            require(not field.array or field.type not in ("bytes", "records", "bool", "float64"), f"{field.where}: array of that")

    def holds_records(self, field):
        if field.struct:
            return any(self.holds_records(f) for f in self.structs[field.struct].fields)
        return field.type == "records"


class File:
    def __init__(self, folder, stem, messages):
        self.folder, self.stem, self.messages = folder, stem, messages
        if folder == "karst":
            self.header = f"karst/{snake(stem).removeprefix('karst_')}.h"
        else:
            self.header = f"kafka/{'' if folder in PLAIN_FOLDERS else folder + '_'}{snake(stem)}.h"


def load(proto):
    files = []
    for folder in FOLDERS:
        where = os.path.join(proto, "karst") if folder == "karst" else os.path.join(proto, "kafka", folder)
        for name in sorted(os.listdir(where)):
            if name.endswith(".msg"):
                with open(os.path.join(where, name), encoding="utf-8") as f:
                    messages = [Message(facts, folder) for facts in kafka_notation.parse(f.read())]
                files.append(File(folder, name[:-4], messages))
    names = {}
    for file in files:
        require(names.setdefault(file.header, file) is file, f"two files would make {file.header}")
        for message in file.messages:
            require(names.setdefault(message.name, file) is file, f"two messages are named {message.name}")
            for struct in message.structs.values():
                require(names.setdefault(struct.c_name, struct) is struct, f"two structs would be {struct.c_name}")
    return files


# -------------------------------------------------------------------------------------------------------------- headers

def made_from(file):
    folder = "karst" if file.folder == "karst" else "kafka/" + file.folder
    return f"/* Made by tools/kafka_codegen.py from proto/{folder}/{file.stem}.msg. */"


def remark(field):
    words = [field.text]
    if field.tag >= 0:
        words.append(f"tag {field.tag}")
    if field.null_text:
        words.append(f"null {field.null_text}")
    if field.default_text is not None:
        words.append(f"default {field.default_text}" if field.default_text else 'default ""')
    if field.ignorable:
        words.append("ignorable")
    return ", ".join(words)


def member_lines(message, field):
    c_type = "struct " + message.structs[field.struct].c_name if field.struct else SCALARS[field.type]
    if field.array:
        yield f"    {c_type} *{field.member}; /* {remark(field)} */"
        yield f"    int32_t {field.member}_count;"
    elif field.pointer:
        yield f"    const {c_type} *{field.member}; /* {remark(field)} */"
    else:
        yield f"    {c_type} {field.member}; /* {remark(field)} */"


def header(file):
    guard = re.sub(r"\W", "_", file.header).upper()
    lines = [made_from(file), f"#ifndef {guard}", f"#define {guard}", "", '#include "libs/wire/wire.h"', ""]
    for message in file.messages:
        for struct in message.structs.values():
            lines.append(f"struct {struct.c_name} {{")
            for field in struct.fields:
                lines += member_lines(message, field)
            if not struct.fields:
                lines.append("    char no_fields;")
            lines += ["};", f"extern const struct wire_type {struct.c_name}_type;",
                      f"static inline void {struct.c_name}_init(struct {struct.c_name} *m)", "{",
                      f"    wire_init(&{struct.c_name}_type, m);", "}", ""]
    return "\n".join(lines + ["#endif", ""])


def upper(name):
    return snake(name).upper()


def apis(files):
    """{key: (name, request, response)}"""
    found = {}
    for file in files:
        if file.folder == "api":
            by_kind = {m.kind: m for m in file.messages}
            key = by_kind["request"].id
            require(key not in found, f"API key {key} twice")
            found[key] = (file.stem, by_kind["request"], by_kind["response"])
    require(sorted(found) == list(range(len(found))), "API keys have gaps")
    return found


def api_header(files):
    lines = ["/* Made by tools/kafka_codegen.py from proto/kafka/api/. */", "#ifndef KAFKA_APIS_H", "#define KAFKA_APIS_H", "",
             "enum kafka_api {"]
    lines += [f"    KAFKA_API_{upper(name)} = {key}," for key, (name, _, _) in sorted(apis(files).items())]
    return "\n".join(lines + ["};", "", "#endif", ""])


# --------------------------------------------------------------------------------------------------------------- tables

class Pool:
    """Names, each once, as offsets into one text."""
    def __init__(self):
        self.offsets, self.size = {}, 0

    def at(self, name):
        if name not in self.offsets:
            self.offsets[name] = self.size
            self.size += len(name) + 1
            require(self.size <= 0xffff, "the names take more than 64 KiB")
        return self.offsets[name]


def c_number(n):
    return f"(-{-n - 1}LL - 1)" if n == -(1 << 63) else f"{n}LL" if abs(n) > 0x7fffffff else str(n)


def flags(field):
    words = [word for word, is_set in (("WIRE_ARRAY", field.array), ("WIRE_IGNORABLE", field.ignorable),
                                       ("WIRE_OLD_ENCODING", field.old_encoding)) if is_set]
    return " | ".join(words) or "0"


def field_line(message, struct, field, names):
    kind = "POINTER" if field.pointer else "STRUCT" if field.struct else field.type.upper()
    sub = message.structs[field.struct].index if field.struct else 0
    return (f"    {{WIRE_{kind}, {flags(field)}, offsetof(struct {struct.c_name}, {field.member}), {sub}, {names.at(field.name)}, "
            f"{field.versions[0]}, {field.versions[1]}, {field.null[0]}, {field.null[1]}, {field.tag}, "
            f"{c_number(field.default)}}},")


def tables(files, names):
    """wire_tables.c: names, fields, structs, smallest sizes."""
    fields, structs, sizes = [], [], []
    for message in (m for file in files for m in file.messages):
        for struct in message.structs.values():
            struct.index = len(structs)
            require(len(struct.fields) <= 255, f"{struct.c_name}: too many fields")
            structs.append(f"    {{{len(fields)}, {len(struct.plain)}, {len(struct.fields)}, sizeof(struct {struct.c_name}), "
                           f"{len(sizes)}, {names.at(struct.name)}}},")
            fields += [field_line(message, struct, f, names) for f in struct.plain + struct.tagged]
            sizes += [struct.min_size(message, v) for v in range(message.versions[0], message.versions[1] + 1)]
            sizes.append(struct.min_size(message, None))
    require(max(len(structs), len(fields), len(sizes)) <= 0xffff and max(sizes) <= 0xffff, "tables of more than 64 Ki rows")
    lines = ["/* Made by tools/kafka_codegen.py from proto/. What the columns are: libs/wire/table.h. */"]
    lines += [f'#include "{file.header}"' for file in files] + ['#include "libs/wire/table.h"', ""]
    lines += ["const char wire_names[] ="] + [f'    "{name}\\0"' for name in names.offsets] + ["    ;", ""]
    lines += ["const struct wire_field wire_fields[] = {"] + fields + ["};", ""]
    lines += ["const struct wire_struct wire_structs[] = {"] + structs + ["};", ""]
    lines += ["const uint16_t wire_min_sizes[] = {"]
    lines += ["    " + " ".join(f"{n}," for n in sizes[i:i + 20]) for i in range(0, len(sizes), 20)] + ["};", ""]
    return "\n".join(lines)


def type_line(message, struct, names):
    first, last = message.versions if message.versions[0] <= message.versions[1] else (0, -1)
    flexible = message.flexible[0] if message.flexible != NONE else "WIRE_NEVER"
    return (f"const struct wire_type {struct.c_name}_type = {{{struct.index}, {names.at(struct.name)}, {first}, {last}, {flexible}, "
            f"{message.id}, WIRE_FOLDER_{message.folder.upper()}, {int(message.kind == 'coordinator-key')}}};")


def default_instances(files):
    """A pointer whose default is not null points to a constant struct of defaults."""
    lines, cases = [], []
    for message in (m for file in files for m in file.messages):
        for field in (f for s in message.structs.values() for f in s.fields):
            if field.pointer and field.default != -1:
                struct = message.structs[field.struct]
                values = [default_value(f) for f in struct.fields]
                lines.append(f"static const struct {struct.c_name} {struct.c_name}_default = {{{', '.join(filter(None, values))}}};")
                cases.append(f"    case {struct.index}: return &{struct.c_name}_default;")
    require(len(set(cases)) == len(cases), "two defaults of one struct")
    return lines + ["", "const void *wire_default_of(uint16_t index)", "{", "    switch (index) {"] + cases + [
        "    default: return NULL;", "    }", "}", ""]


def default_value(field):
    if field.struct and not field.array:
        raise Refused(f"{field.where}: a struct inside a default that is not null")
    if field.array:
        return f".{field.member}_count = {field.default}"
    if field.type in ("string", "bytes", "records"):
        return None if field.default == -1 else f'.{field.member} = {{(const uint8_t *)"", 0}}'
    return f".{field.member} = {c_number(field.default)}" if field.default else None


def types(files, names):
    """wire_types.c: a type a struct, the messages by folder, the APIs."""
    messages = [m for file in files for m in file.messages]
    lines = ["/* Made by tools/kafka_codegen.py from proto/. What the columns are: libs/wire/table.h. */"]
    lines += [f'#include "{file.header}"' for file in files] + ['#include "libs/wire/table.h"', ""]
    lines += [type_line(m, s, names) for m in messages for s in m.structs.values()]
    lines += ["", "const struct wire_type *const wire_messages[] = {"]
    lines += [f"    &{m.prefix}_type," for m in messages]
    lines += ["};", "const uint16_t wire_folder_start[] = {"]
    starts = [next((i for i, m in enumerate(messages) if m.folder == folder), None) for folder in FOLDERS]
    lines += [f"    {start}," for start in starts] + [f"    {len(messages)},", "};", "", "const struct wire_api wire_apis[] = {"]
    for key, (name, request, response) in sorted(apis(files).items()):
        first, last = request.versions if request.versions[0] <= request.versions[1] else (0, -1)
        require(request.versions == response.versions, f"{name}: request and response differ in versions")
        lines.append(f'    {{{key}, "{name}", {first}, {last}, {int(request.unstable)}, {int("broker" in request.listeners)}, '
                     f'{int("controller" in request.listeners)}, &{request.prefix}_type, &{response.prefix}_type}},')
    lines += ["};", f"const int16_t wire_apis_count = {len(apis(files))};", ""]
    return "\n".join(lines + default_instances(files))


# ------------------------------------------------------------------------------------------------------------- commands

def outputs(files):
    return ["wire_tables.c", "wire_types.c", "kafka/apis.h"] + [file.header for file in files]


def write_changed(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(path, encoding="utf-8") as f:
            if f.read() == text:
                return
    except FileNotFoundError:
        pass
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def make(files, out):
    names = Pool()
    for message in (m for file in files for m in file.messages):
        for struct in message.structs.values():
            names.at(struct.name)
    texts = {"wire_tables.c": tables(files, names), "kafka/apis.h": api_header(files)}
    texts["wire_types.c"] = types(files, names)
    texts.update({file.header: header(file) for file in files})
    for name, text in texts.items():
        write_changed(os.path.join(out, name), text)


def main(arguments):
    try:
        if len(arguments) == 2 and arguments[0] == "list":
            print("\n".join(outputs(load(arguments[1]))))
        elif len(arguments) == 3 and arguments[0] == "make":
            make(load(arguments[1]), arguments[2])
        else:
            print(__doc__, file=sys.stderr)
            return 64
    except (Refused, ValueError) as e:
        print(f"kafka_codegen: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
