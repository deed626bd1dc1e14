#!/usr/bin/env python3
"""Sends one Kafka request of any API and version, and prints the answer as JSON. A second opinion beside libs/wire.

  ask.py HOST:PORT API VERSION [JSON]      ask.py 127.0.0.1:9092 Metadata 13 '{"Topics": null}'

The body holds the fields by their names in proto/kafka/api/API.msg; what is left out has its default. bytes and
records are hex strings, uuids Kafka's 22 characters. As a library:

  with Connection("127.0.0.1", 9092) as kafka:
      kafka.ask("Produce", 9, {... "Records": batch([(b"key", b"value")])})

Every field is driven by the notation alone, so that `ask.py selftest` also proves the notation complete. It checks what a
server must answer; it is no client: no retry, no security.
"""
import base64
import json
import os
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
PROJECT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(PROJECT, "tools"))
import kafka_notation as messages

ROOT = os.path.join(PROJECT, "proto", "kafka")
FIXED = {"bool": ">?", "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q",
         "float64": ">d"}


def covers(versions, v):
    if versions is None or versions == "none":
        return False
    low, _, high = versions.rstrip("+").partition("-")
    return int(low) <= v <= (int(high) if high else 1 << 15 if versions.endswith("+") else int(low))


def load(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return messages.parse(f.read())


# --------------------------------------------------------------------------------------------------------------- codec

class Codec:
    """Writes and reads one message at one version."""

    def __init__(self, message, version):
        assert covers(message["versions"], version), f"{message['name']} has versions {message['versions']}"
        self.message, self.version = message, version
        self.flexible = covers(message.get("flexible"), version)
        self.structs = {s["name"]: s["fields"] for s in message.get("structs", [])}
        for f in message["fields"]:
            self.note(f)

    def note(self, field):
        if "fields" in field:
            self.structs[field["type"].removeprefix("[]")] = field["fields"]
            for f in field["fields"]:
                self.note(f)

    def default(self, field, kind):
        if field.get("default") == "null":
            return None
        if kind.startswith("[]"):
            return []
        if kind in self.structs:
            return {}
        if kind in FIXED:
            text = field.get("default", "0")
            return text == "true" if kind == "bool" else float(text) if kind == "float64" else int(text, 0)
        return field.get("default", "") if kind == "string" else "A" * 22 if kind == "uuid" else ""

    # writing

    @staticmethod
    def varint(n):
        out = bytearray()
        while n > 0x7f:
            out.append(n & 0x7f | 0x80)
            n >>= 7
        return bytes(out) + bytes([n])

    def length(self, n, short, flexible):
        if flexible:
            return self.varint(0 if n is None else n + 1)
        return struct.pack(">h" if short else ">i", -1 if n is None else n)

    def value(self, field, kind, x):
        flexible = self.flexible and field.get("flexible") != "none"
        if x is None:
            assert covers(field.get("null"), self.version), f"{field['name']} may not be null in version {self.version}"
            if kind in self.structs:
                return b"\0" if covers(field.get("tagged"), self.version) else b"\xff"
            return self.length(None, kind == "string", flexible)
        if kind.startswith("[]"):
            return self.length(len(x), False, flexible) + b"".join(self.value({**field, "null": None}, kind[2:], y) for y in x)
        if kind in self.structs:
            nullable = "null" in field and field["null"] and covers(field["null"], self.version) and field["type"] == kind
            return (b"\x01" if nullable else b"") + self.fields(self.structs[kind], x)
        if kind in FIXED:
            return struct.pack(FIXED[kind], x)
        if kind == "uuid":
            return base64.urlsafe_b64decode(x + "==")
        data = x.encode() if kind == "string" else x if isinstance(x, bytes) else bytes.fromhex(x)
        return self.length(len(data), kind == "string", flexible) + data

    def fields(self, fields, body):
        unknown = set(body) - {f["name"] for f in fields}
        assert not unknown, f"no field {sorted(unknown)}"
        out, tags = b"", {}
        for f in fields:
            if not covers(f["versions"], self.version):
                continue
            default = self.default(f, f["type"])
            x = body.get(f["name"], default)
            if covers(f.get("tagged"), self.version):
                if x != default:
                    data = self.value(f, f["type"], x)
                    if x is None or default is None or data != self.value(f, f["type"], default):
                        tags[f["tag"]] = data
            else:
                out += self.value(f, f["type"], x)
        if self.flexible:
            out += self.varint(len(tags))
            for tag, data in sorted(tags.items()):
                out += self.varint(tag) + self.varint(len(data)) + data
        return out

    def write(self, body):
        return self.fields(self.message["fields"], body)

    # reading: self.data from self.at

    def take(self, n):
        self.at += n
        assert n >= 0 and self.at <= len(self.data), "short message"
        return self.data[self.at - n:self.at]

    def read_varint(self):
        n = shift = 0
        while True:
            byte = self.take(1)[0]
            n |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return n

    def read_length(self, short, flexible):
        if flexible:
            return self.read_varint() - 1
        return struct.unpack(">h" if short else ">i", self.take(2 if short else 4))[0]

    def read_value(self, field, kind):
        flexible = self.flexible and field.get("flexible") != "none"
        if kind.startswith("[]"):
            n = self.read_length(False, flexible)
            return None if n < 0 else [self.read_value({**field, "null": None}, kind[2:]) for _ in range(n)]
        if kind in self.structs:
            nullable = field.get("null") and covers(field["null"], self.version)
            if nullable and self.take(1) in (b"\xff", b"\0"):
                return None
            return self.read_fields(self.structs[kind])
        if kind in FIXED:
            return struct.unpack(FIXED[kind], self.take(struct.calcsize(FIXED[kind])))[0]
        if kind == "uuid":
            return base64.urlsafe_b64encode(self.take(16)).decode()[:22]
        n = self.read_length(kind == "string", flexible)
        data = None if n < 0 else self.take(n)
        return data if data is None else data.decode() if kind == "string" else data.hex()

    def read_fields(self, fields):
        body, tagged = {}, {}
        for f in fields:
            if not covers(f["versions"], self.version):
                continue
            if covers(f.get("tagged"), self.version):
                tagged[f["tag"]] = f
                body[f["name"]] = self.default(f, f["type"])
            else:
                body[f["name"]] = self.read_value(f, f["type"])
        if self.flexible:
            for _ in range(self.read_varint()):
                tag, size = self.read_varint(), self.read_varint()
                if tag in tagged:
                    body[tagged[tag]["name"]] = self.read_value(tagged[tag], tagged[tag]["type"])
                else:
                    body[f"tag {tag}"] = self.take(size).hex()
        return body

    def read(self, data):
        self.data, self.at = data, 0
        body = self.read_fields(self.message["fields"])
        return body, data[self.at:]


# ------------------------------------------------------------------------------------------------------- record batches

def _crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    return table


_TABLE = _crc32c_table()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


def zigzag(n):
    return Codec.varint((n << 1) ^ (n >> 63))


def record(delta, key, value, time_delta=0, headers=()):
    def text(data):
        return zigzag(-1) if data is None else zigzag(len(data)) + data
    body = b"\0" + zigzag(time_delta) + zigzag(delta) + text(key) + text(value) + zigzag(len(headers))
    body += b"".join(text(k) + text(v) for k, v in headers)
    return zigzag(len(body)) + body


def batch(pairs, base=0, attributes=0, producer=-1, epoch=-1, sequence=-1, leader_epoch=-1, magic=2, at_ms=None, crc=None):
    """A record batch v2 of (key, value) pairs, uncompressed; crc overrides the right one."""
    at_ms = int(time.time() * 1000) if at_ms is None else at_ms
    body = struct.pack(">hiqqqhii", attributes, len(pairs) - 1, at_ms, at_ms, producer, epoch, sequence, len(pairs))
    body += b"".join(record(i, k, v) for i, (k, v) in enumerate(pairs))
    crc = crc32c(body) if crc is None else crc
    return struct.pack(">qiibI", base, 9 + len(body), leader_epoch, magic, crc) + body


# ----------------------------------------------------------------------------------------------------------- connection

class Connection:
    def __init__(self, host, port, timeout_s=30, client_id="ask"):
        self.socket = socket.create_connection((host, port), timeout_s)
        self.client_id, self.correlation = client_id, 0
        self.headers = {m["kind"] + m["name"]: m for p in ("RequestHeader", "ResponseHeader") for m in load(f"header/{p}.msg")}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def receive(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise ConnectionError("the server closed the connection")
            data += more
        return data

    def send(self, api, version, body=None):
        """Sends only; returns the codec for the answer and the version of its header."""
        request, response = load(f"api/{api}.msg")
        codec, answer = Codec(request, version), Codec(response, version)
        self.correlation += 1
        header = Codec(self.headers["headerRequestHeader"], 2 if codec.flexible else 1)
        data = header.write({"RequestApiKey": request["id"], "RequestApiVersion": version,
                             "CorrelationId": self.correlation, "ClientId": self.client_id}) + codec.write(body or {})
        self.socket.sendall(struct.pack(">i", len(data)) + data)
        return answer, 1 if codec.flexible and api != "ApiVersions" else 0

    def ask(self, api, version, body=None):
        answer, header_version = self.send(api, version, body)
        data = self.receive(struct.unpack(">i", self.receive(4))[0])
        self.answered = time.monotonic()  # reading a long one takes a while
        header, data = Codec(self.headers["headerResponseHeader"], header_version).read(data)
        assert header["CorrelationId"] == self.correlation
        body, rest = answer.read(data)
        assert not rest, f"{len(rest)} bytes too many: {rest.hex()}"
        return body


def selftest():
    """Every message at every version: defaults written and read again give the same bytes."""
    count = 0
    for path, group in messages.parse_folder(ROOT).items():
        for m in group:
            if m["versions"] == "none":
                continue
            low, _, high = m["versions"].partition("-")
            for v in range(int(low), int(high or low) + 1):
                codec = Codec(m, v)
                data = codec.write({})
                body, rest = codec.read(data)
                assert not rest and codec.write(body) == data, (path, v)
                count += 1
    print(f"{count} messages at their versions")
    return 0


def main(arguments):
    if arguments == ["selftest"]:
        return selftest()
    if len(arguments) not in (3, 4):
        print(__doc__, file=sys.stderr)
        return 64
    host, _, port = arguments[0].rpartition(":")
    with Connection(host, int(port)) as kafka:
        print(json.dumps(kafka.ask(arguments[1], int(arguments[2]), json.loads(arguments[3]) if arguments[3:] else {}), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
