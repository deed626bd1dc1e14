#!/usr/bin/env python3
"""checker.py - judges a history of karst-jepsen (its format: jepsen.h). A pure function of the history.

  checker.py HISTORY [FOLDER]   prints a verdict; exit status 1 when there is an anomaly. FOLDER: where the servers' log files are


The anomalies and their names are those of Jepsen's workload for Kafka (jepsen.tests.kafka), as far as they need no transactions, which
karst-jepsen does not use: no G0, G1c, precommitted-read. Left out is int-send-skip, too, which says only that another producer wrote in
between. Those of the group at the end, and what is marked with *, are our own. docs/faults.md says what each means for a user.

  inconsistent-offsets  one offset of a key has two values
  duplicate             one value is at two offsets of its key, and the log files do not say that its client sent it twice (batches.py)
  lost-write            acknowledged or read by somebody, and the last reader did not get it, although it got something behind it
  unseen                the same, and it got nothing behind it
  G1a                   read, although the client was told that it was certainly not written (Jepsen: aborted read)
  unwritten *           read, and nobody sent it; or it was sent to another key
  corrupt *             read, and its bytes are not those that were sent
  int-poll-skip, int-nonmonotonic-poll      within one poll: values left out, or not in the order of the log
  poll-skip, nonmonotonic-poll              from one poll of a process to its next, while it keeps the key
  int-nonmonotonic-send, nonmonotonic-send  values of one process are in the log in another order than it sent them
  out-of-range *        a reader was told that an offset within the log does not exist
  group-skip *          the group has committed behind a value, or has read to the end, and no member was given it
  group-rewind *        a member begins before what its coordinator said was committed
  lost-commit *         the coordinator names an offset before one whose commit was acknowledged
  unread *              the last reads did not reach the end in time: nothing can be said about the rest
"""
import bisect
import collections
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import batches  # noqa: E402

SHOWN = 8
READERS_RESET = "__AUTO_OFFSET_RESET"


class Op:
    """An operation: its invocation and its completion; without one it is `info`."""
    __slots__ = ("process", "number", "f", "asked", "begun", "type", "value", "ended", "more")

    def __init__(self, line):
        self.process, self.number, self.f, self.asked, self.begun = line["process"], line["op"], line["f"], line["value"], line["time"]
        self.type, self.value, self.ended, self.more = "info", None, None, {}

    def end(self, line):
        self.type, self.value, self.ended, self.more = line["type"], line["value"], line["time"], line


class Send:
    """What became of one value."""
    __slots__ = ("op", "place", "status", "offset")

    def __init__(self, op, place, status, offset):
        self.op, self.place, self.status, self.offset = op, place, status, offset


class History:
    """The lines, put together: ops in the order of their invocations, and what is not an operation."""

    def __init__(self, lines):
        self.keys, self.ops, self.notes = [], [], []
        open_ops = {}
        for line in lines:
            if isinstance(line, str):
                if not line.endswith("\n"):  # the client ended in the middle of it
                    break
                line = json.loads(line)
            if "op" not in line:
                if line["f"] == "keys":
                    self.keys = line["value"]
                else:
                    self.notes.append(line)
            elif line["type"] == "invoke":
                op = open_ops[line["op"]] = Op(line)
                self.ops.append(op)
            else:
                open_ops.pop(line["op"]).end(line)

    def of(self, f):
        return [op for op in self.ops if op.f == f]


class Verdict:
    def __init__(self):
        self.anomalies = collections.defaultdict(list)
        self.counts = collections.Counter()

    def add(self, name, **facts):
        self.anomalies[name].append(facts)

    @property
    def valid(self):
        return not self.anomalies

    def lines(self):
        counts = ", ".join(f"{n} {name}" for name, n in self.counts.items())
        yield f"{'valid' if self.valid else 'INVALID'}: {counts}"
        for name, found in sorted(self.anomalies.items()):
            yield f"  {name}: {len(found)}"
            for facts in found[:SHOWN]:
                yield "    " + ", ".join(f"{k} {v}" for k, v in facts.items())


# ----------------------------------------------------------------------------------------------------------- what there is

def sends_of(history):
    """{(key, value): Send}."""
    found = {}
    for op in history.of("send"):
        rows = op.value if op.value is not None else [[*row, None, "info"] for row in op.asked]
        for place, (key, value, offset, *status) in enumerate(rows):
            found[key, value] = Send(op, place, status[0] if status else "ok", offset)
    return found


def reads_of(op):
    """[(key, [(offset, value)])] of a poll."""
    return [(key, rows) for key, rows in op.value or []]


class Reads:
    """What was read of one key: the values, and the end."""
    __slots__ = ("values", "end")

    def __init__(self):
        self.values, self.end = set(), 0

    def add(self, rows):
        self.values.update(value for _, value in rows)
        self.end = max(self.end, *(offset + 1 for offset, _ in rows))


class Logs:
    """What is known of each key: which values are at which offset; what anybody has read, and what the last reader has."""

    def __init__(self, history, sends):
        self.at = collections.defaultdict(lambda: collections.defaultdict(set))  # key -> offset -> values
        self.offsets_of = collections.defaultdict(set)                           # (key, value) -> offsets
        self.read, self.kept = collections.defaultdict(Reads), collections.defaultdict(Reads)
        last = {op.process for op in history.of("final") if op.value is not None}
        unread = {key for op in history.of("final") for key in op.value or []} if last else range(len(history.keys))
        for (key, value), send in sends.items():
            if send.status == "ok" and send.offset >= 0:
                self.note(key, send.offset, value)
        for op in history.of("poll"):
            for key, rows in reads_of(op):
                for offset, value in rows:
                    self.note(key, offset, value)
                self.read[key].add(rows)
                if op.process in last:
                    self.kept[key].add(rows)
        self.kept.update({key: self.read[key] for key in unread})  # the best that is known of what is there
        self.order = {key: sorted(log) for key, log in self.at.items()}

    def note(self, key, offset, value):
        self.at[key][offset].add(value)
        self.offsets_of[key, value].add(offset)

    def between(self, key, low, high):
        """Values at offsets from low to before high."""
        order = self.order.get(key, [])
        return [v for o in order[bisect.bisect_left(order, low):bisect.bisect_left(order, high)] for v in self.at[key][o]]


# --------------------------------------------------------------------------------------------------------------- the logs

def sent_again(key, offsets, files):
    """Whether the client itself wrote a value more than once, each time under another producer id or epoch."""
    writers = [files.writer(key, offset) for offset in offsets] if files else [None]
    return None not in writers and len({w[:2] for w in writers}) == len(writers)


def check_logs(logs, files, verdict):
    for key, log in logs.at.items():
        for offset, values in log.items():
            if len(values) > 1:
                verdict.add("inconsistent-offsets", key=key, offset=offset, values=sorted(values))
    for (key, value), offsets in logs.offsets_of.items():
        if len(offsets) > 1 and value >= 0 and sent_again(key, offsets, files):
            verdict.counts["sent again by the client under a new epoch"] += 1
        elif len(offsets) > 1 and value >= 0:
            verdict.add("duplicate", key=key, value=value, offsets=sorted(offsets),
                        writers=[files and files.writer(key, o) for o in sorted(offsets)])


def check_writes(sends, logs, verdict):
    for (key, value), send in sends.items():
        verdict.counts[{"ok": "acknowledged", "fail": "failed", "info": "of unknown outcome"}[send.status]] += 1
        if send.status == "ok" and send.offset < 0:
            verdict.counts["acknowledged at an offset not told"] += 1
        read = value in logs.read[key].values
        if read and send.status == "fail":
            verdict.add("G1a", key=key, value=value, offsets=sorted(logs.offsets_of[key, value]), op=send.op.number)
        elif (read or send.status == "ok") and value not in logs.kept[key].values:
            offset = max(logs.offsets_of[key, value], default=-1)
            verdict.add("lost-write" if 0 <= offset < logs.kept[key].end else "unseen", key=key, value=value, offset=offset, read=read,
                        op=send.op.number, ended_ns=send.op.ended)
    for key, reads in logs.read.items():
        for value in reads.values:
            if value < 0:
                verdict.add("corrupt", key=key, offsets=sorted(logs.offsets_of[key, value]))
            elif (key, value) not in sends:
                verdict.add("unwritten", key=key, value=value, offsets=sorted(logs.offsets_of[key, value]))
    verdict.counts["read"] = sum(len(reads.values) for reads in logs.read.values())


def check_order_of_sends(history, sends, logs, verdict):
    last = {}  # (process, key) -> (offset, value, op)
    for op in history.of("send"):
        for key, value in op.asked:
            offsets = logs.offsets_of.get((key, value))
            if not offsets or sends[key, value].status == "fail":
                continue
            offset = min(offsets)
            before = last.get((op.process, key))
            if before and offset <= before[0]:
                verdict.add("int-nonmonotonic-send" if before[2] is op else "nonmonotonic-send", key=key, process=op.process,
                            values=[before[1], value], offsets=[before[0], offset], ops=[before[2].number, op.number])
            last[op.process, key] = (offset, value, op)


# -------------------------------------------------------------------------------------------------------------- consumers

def compare(logs, key, following, offset):
    """How a consumer that stood before offset `following` is wrong in getting `offset` next: None, "skip" or "nonmonotonic"."""
    if offset < following:
        return "nonmonotonic"
    return "skip" if offset > following and logs.between(key, following, offset) else None


def check_rows(op, key, rows, logs, verdict):
    for (o1, v1), (o2, v2) in zip(rows, rows[1:]):
        wrong = compare(logs, key, o1 + 1, o2)
        if wrong:
            verdict.add(f"int-poll-{wrong}" if wrong == "skip" else f"int-{wrong}-poll", key=key, process=op.process,
                        offsets=[o1, o2], values=[v1, v2], op=op.number)


def check_polls(history, logs, verdict):
    following = {}  # (process, key) -> the offset that comes next
    for op in history.ops:
        if op.f == "assign" and op.type == "ok":
            for place in [p for p in following if p[0] == op.process]:
                del following[place]
            following.update({(op.process, key): offset for key, offset in op.value})
        if op.f != "poll" or op.type != "ok":
            continue
        if READERS_RESET in op.more.get("error", ""):
            verdict.add("out-of-range", process=op.process, op=op.number, error=op.more["error"])
        rebalanced = {key for _, keys in op.more.get("rebalances", []) for key in keys}
        for key in rebalanced:
            following.pop((op.process, key), None)
        for key, rows in reads_of(op):
            if key not in rebalanced:
                check_rows(op, key, rows, logs, verdict)
                expected = following.get((op.process, key))
                wrong = expected is not None and compare(logs, key, expected, rows[0][0])
                if wrong:
                    verdict.add(f"poll-{wrong}" if wrong == "skip" else f"{wrong}-poll", key=key, process=op.process,
                                expected=expected, offset=rows[0][0], op=op.number)
            following[op.process, key] = rows[-1][0] + 1


# -------------------------------------------------------------------------------------------------------------- the group

def check_group(history, logs, verdict):
    members = {op.process for op in history.of("subscribe")}
    if not members:
        return
    given = collections.defaultdict(set)
    for op in history.of("poll"):
        if op.process in members:
            for key, rows in reads_of(op):
                given[key].update(value for _, value in rows)
    ends = collections.Counter()
    for op in history.of("commit"):
        if op.type == "ok":
            verdict.counts["commits"] += 1
            for key, offset in op.value:
                ends[key] = max(ends[key], offset)
    for op in history.of("drain"):
        for key in range(len(history.keys)) if op.type == "ok" else []:
            ends[key] = max(ends[key], logs.read[key].end)
    for key, end in ends.items():
        for value in logs.between(key, 0, end):
            if value not in given[key]:
                verdict.add("group-skip", key=key, value=value, offsets=sorted(logs.offsets_of[key, value]), committed=end)


def check_commits(history, verdict):
    """An answer of the coordinator is at or behind every commit that was acknowledged before the question; or it is one whose outcome
    nobody knew, which may have been carried out late."""
    events = []
    for op in history.ops:
        if op.f == "commit" and op.type == "ok":
            events.append((op.ended, 0, op))
        elif op.f == "committed" and op.type == "ok":
            events.append((op.begun, 1, op))
    unknown = {(key, offset) for op in history.of("commit") if op.type == "info" for key, offset in op.asked}
    least = {}
    for _, kind, op in sorted(events, key=lambda e: e[:2]):
        for key, offset in op.value:
            if kind == 0:
                least[key] = max(least.get(key, (-1, None)), (offset, op), key=lambda c: c[0])
            elif key in least and offset < least[key][0] and (key, offset) not in unknown:
                verdict.add("lost-commit", key=key, acknowledged=least[key][0], ops=[least[key][1].number, op.number], answer=offset)


def check_beginnings(history, verdict):
    """A member begins a key at or behind what it was told is committed."""
    told = {}
    for op in history.ops:
        if op.f == "committed" and op.type == "ok":
            told.update({(op.process, key): offset for key, offset in op.value})
        if op.f == "poll":
            for key, rows in reads_of(op):
                floor = told.get((op.process, key), -1)
                lowest = min(offset for offset, _ in rows)
                if lowest < floor:
                    verdict.add("group-rewind", key=key, process=op.process, committed=floor, offset=lowest, op=op.number)


def check_ends(history, verdict):
    for f in ("drain", "final"):
        for op in history.of(f):
            if op.type != "ok":
                verdict.add("unread", by="the group" if f == "drain" else "the last reader", keys=op.value)
    if not history.of("final"):
        verdict.add("unread", by="the last reader", keys="all: the history ends before it")
    for note in history.notes:
        if note["f"] == "fatal":
            verdict.counts["producers that librdkafka ended"] += 1


def check(lines, files=None):
    """Verdict of a history: an iterable of its lines, as text or parsed. files: a batches.Logs, which tells whose a duplicate is."""
    return judge(History(lines), files)


def judge(history, files=None):
    verdict = Verdict()
    sends = sends_of(history)
    logs = Logs(history, sends)
    verdict.counts["sent"] = len(sends)
    check_logs(logs, files, verdict)
    check_writes(sends, logs, verdict)
    check_order_of_sends(history, sends, logs, verdict)
    check_polls(history, logs, verdict)
    check_group(history, logs, verdict)
    check_commits(history, verdict)
    check_beginnings(history, verdict)
    check_ends(history, verdict)
    return verdict


def read_file(path):
    with open(path, encoding="utf-8") as f:
        return History(f)


def main(arguments):
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 64
    history = read_file(arguments[0])
    verdict = judge(history, batches.Logs(arguments[1], history.keys) if arguments[1:] else None)
    print("\n".join(verdict.lines()))
    return 0 if verdict.valid else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
